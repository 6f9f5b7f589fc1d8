//! Statistics of both kinds while anybody does anything: threads that come and go with their Ps, threads that are never
//! attached and change what is counted, a reader that looks at every snapshot.

use besom::options::{CONCURRENT, STOP_THE_WORLD};
use besom::{Heap, Kind, Options, Stats};
use besom_stats::sync::raw::{AtomicBool, AtomicU64, Ordering::*};
use besom_tests::c;
use besom_tests::lasting::Lasting;
use besom_tests::process::{abort_on_panic, number_from_env};
use besom_tests::rng::{Rng, mix};
use std::time::Duration;

const MUTATORS: u64 = 4;
const OUTSIDERS: u64 = 2;

struct Play {
    heap: std::pin::Pin<Box<Heap>>,
    over: AtomicBool,
    twins: AtomicU64,
    reads: AtomicU64,
}

impl Play {
    fn goes_on(&self) -> bool {
        !self.over.load(Relaxed)
    }

    /// Allocates, comes and goes, collects, and has everything counted twice.
    fn mutate(&self, mut rng: Rng) {
        let mut m = self.heap.attach().expect("attach");
        let mut kept = Vec::new();
        while self.goes_on() {
            for _ in 0..rng.below(300) {
                let size = if rng.one_in(30) { rng.below(300_000) } else { rng.below(700) };
                let kind = [Kind::NoScan, Kind::Values, Kind::Conservative][rng.below(3)];
                match m.alloc(size, kind) {
                    Some(object) if rng.one_in(20) => kept.push(m.handle(object.as_ptr()).expect("a handle")),
                    Some(_) => {}
                    None => kept.clear(),
                }
            }
            if kept.len() > 300 {
                kept.drain(..200);
            }
            match rng.below(10) {
                0 => {
                    kept.clear();
                    drop(m);
                    m = self.heap.attach().expect("attach");
                }
                1 => m.blocked(std::thread::yield_now),
                2 => m.collect(),
                3..6 => {
                    let (counted, walked) = m.mem_stats_slow();
                    assert!(counted == walked, "{}", counted.difference(&walked).expect("a difference"));
                    self.twins.fetch_add(1, Relaxed);
                }
                6 => {
                    let exact = m.mem_stats();
                    assert!(exact.heap_alloc <= exact.heap_inuse, "{exact:?}");
                }
                _ => {}
            }
        }
    }

    /// What a thread that is not attached may do at any time, stops or not.
    fn meddle(&self, mut rng: Rng) {
        let range = [0usize; 8];
        let start = (&raw const range).cast_mut().cast();
        let (heap, mut layouts, mut added) = (c::heap(&self.heap), 0, false);
        while self.goes_on() {
            match rng.below(8) {
                0 => self.heap.set_procs(rng.below(6) as u32).expect("set_procs"),
                1 => drop(self.heap.release_memory()),
                2 if layouts < 2000 => {
                    layouts += 1;
                    self.heap.register_layout(8 * (1 + rng.below(200)), &[0]).expect("a layout");
                }
                // SAFETY: the heap lives.
                3 => unsafe { c::besom_memory_limit_set(heap, [0, 1, 8 << 20, 64 << 20][rng.below(4)]) },
                // SAFETY: as above.
                4 => unsafe { c::besom_gc_percent_set(heap, [10, 50, 300][rng.below(3)]) },
                5 => {
                    added = !added;
                    // SAFETY: the array outlives the range, which is removed below.
                    let status = unsafe {
                        if added {
                            c::besom_roots_add(heap, start, 8, 1)
                        } else {
                            c::besom_roots_remove(heap, start)
                        }
                    };
                    assert_eq!(status, 0);
                }
                _ => std::thread::yield_now(),
            }
        }
        if added {
            // SAFETY: as above.
            assert_eq!(unsafe { c::besom_roots_remove(heap, start) }, 0);
        }
    }

    /// Every snapshot agrees with itself, and none goes back.
    fn read(&self) {
        let mut last = self.heap.stats();
        while self.goes_on() {
            let s = self.heap.stats();
            agrees(&s, &last);
            (last, _) = (s, self.reads.fetch_add(1, Relaxed));
        }
    }
}

fn agrees(s: &Stats, last: &Stats) {
    assert_eq!(s.committed + s.released, s.mapped, "{s:?}");
    assert!((s.total_alloc_bytes - s.total_free_bytes) as i64 <= s.in_heap, "{s:?}");
    assert!(s.in_heap + s.in_work_bufs <= s.committed, "{s:?}");
    assert!(s.pause_max_ns <= s.pause_total_ns && s.forced_cycles <= s.cycles, "{s:?}");
    assert!(s.alloc_count >= last.alloc_count && s.free_count >= last.free_count, "{s:?} after {last:?}");
    assert!(s.tiny_allocs >= last.tiny_allocs && s.cycles >= last.cycles, "{s:?} after {last:?}");
    for class in 0..s.small_alloc_count.len() {
        assert!(s.small_free_count[class] <= s.small_alloc_count[class], "class {class}: {s:?}");
        assert!(s.small_alloc_count[class] >= last.small_alloc_count[class], "class {class} fell: {s:?}");
    }
}

fn torture(mode: i32, scan_native_stacks: i32, procs: u32, heap_limit: usize, length: Duration) {
    let options = Options { mode, scan_native_stacks, procs, heap_limit, ..Options::default() };
    let heap = Heap::new(&options).expect("a heap");
    let play =
        Play { heap, over: AtomicBool::new(false), twins: AtomicU64::new(0), reads: AtomicU64::new(0) };
    std::thread::scope(|scope| {
        let play = &play;
        for n in 0..MUTATORS {
            scope.spawn(move || play.mutate(Rng::new(mix(n))));
        }
        for n in 0..OUTSIDERS {
            scope.spawn(move || play.meddle(Rng::new(mix(n ^ 99))));
        }
        scope.spawn(|| play.read());
        let length = Lasting::new(length);
        while length.goes_on(
            play.twins.load(Relaxed) > 2 && play.reads.load(Relaxed) > 99,
            (&play.twins, &play.reads),
        ) {
            std::thread::sleep(Duration::from_millis(10));
        }
        play.over.store(true, Relaxed);
    });
}

#[test]
fn anybody_does_anything_at_any_time() {
    abort_on_panic("statistics tortured".to_owned());
    let length = Duration::from_secs(number_from_env("BESOM_STRESS_SECONDS", 6)) / 6;
    torture(CONCURRENT, 0, 0, 0, length);
    torture(CONCURRENT, 1, 2, 0, length);
    torture(CONCURRENT, 0, 3, 24 << 20, length);
    torture(CONCURRENT, 1, 0, 24 << 20, length);
    torture(STOP_THE_WORLD, 0, 2, 0, length);
    torture(STOP_THE_WORLD, 1, 0, 24 << 20, length);
}
