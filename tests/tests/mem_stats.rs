//! Exact statistics: equal to what a walk counts, and to what the program did, while Ps come and go.

use besom::options::{CONCURRENT, STOP_THE_WORLD};
use besom::{Heap, Kind, MemStats, Mutator, Options};
use besom_stats::sync::raw::{AtomicBool, AtomicU64, Ordering::*};
use besom_tests::c;
use besom_tests::lasting::Lasting;
use besom_tests::metric::histogram;
use besom_tests::process::{abort_on_panic, number_from_env};
use besom_tests::rng::{Rng, mix};
use std::time::Duration;

fn twins(m: &mut Mutator<'_>) -> MemStats {
    let (counted, walked) = m.mem_stats_slow();
    assert!(counted == walked, "{}", counted.difference(&walked).expect("a difference"));
    identities(&counted);
    counted
}

/// What `besom.h` says of every record.
fn identities(s: &MemStats) {
    assert_eq!((s.alloc, s.heap_objects), (s.heap_alloc, s.mallocs - s.frees), "{s:?}");
    assert_eq!(s.heap_sys, s.heap_inuse + s.heap_idle, "{s:?}");
    assert!(s.heap_alloc <= s.heap_inuse && s.heap_released <= s.heap_idle, "{s:?}");
    let tables = s.spans_sys + s.page_tables_sys + s.mark_bits_sys + s.mcaches_sys + s.gc_sys + s.other_sys;
    assert_eq!(s.sys, s.heap_sys + s.stacks_inuse + s.work_bufs + tables, "{s:?}");
    let sum = |count: fn(&besom::SizeCount) -> u64| s.by_size.iter().map(count).sum::<u64>() + s.tiny_allocs;
    assert_eq!((sum(|c| c.mallocs), sum(|c| c.frees)), (s.mallocs, s.frees), "{s:?}");
    assert!((0.0..=1.0).contains(&s.gc_cpu_fraction) && s.num_forced_gc <= s.num_gc, "{s:?}");
}

/// Threads that attach, allocate a known number of objects and leave, while the number of Ps changes under them: nothing is
/// donated, nothing lost.
#[test]
fn ps_come_and_go_and_every_total_stays_exact() {
    abort_on_panic("Ps come and go".to_owned());
    const THREADS: u64 = 8;
    let heap = Heap::new(&Options { scan_native_stacks: 0, procs: 2, ..Options::default() }).expect("a heap");
    let (over, mallocs, bytes) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let length = Duration::from_secs(number_from_env("BESOM_STRESS_SECONDS", 2)).min(Duration::from_secs(10));
    let length = Lasting::new(length);
    std::thread::scope(|scope| {
        for n in 0..THREADS {
            let (heap, over, mallocs, bytes) = (&heap, &over, &mallocs, &bytes);
            scope.spawn(move || {
                let mut rng = Rng::new(mix(n));
                while !over.load(Relaxed) {
                    let mut m = heap.attach().expect("attach");
                    let (mut count, mut sum) = (0, 0);
                    for _ in 0..rng.below(3000) {
                        // Whole slots, so that the bytes are known; and tiny ones, which are never in bytes but by blocks.
                        let sizes = if rng.one_in(50) { 6 } else { 4 };
                        let size = [16, 32, 64, 1024, 32768, 40960][rng.below(sizes)];
                        m.alloc(size, Kind::Values).expect("memory");
                        (count, sum) = (count + 1, sum + size as u64);
                    }
                    match rng.below(8) {
                        0 => m.blocked(std::thread::yield_now),
                        1 => m.collect(),
                        2 => drop(twins(&mut m)),
                        _ => {}
                    }
                    mallocs.fetch_add(count, Relaxed);
                    bytes.fetch_add(sum, Relaxed);
                }
            });
        }
        let mut rng = Rng::new(77);
        while length.goes_on(mallocs.load(Relaxed) > 10_000, &mallocs) {
            heap.set_procs(rng.below(2 * THREADS as usize) as u32).expect("set_procs");
            std::thread::sleep(Duration::from_micros(rng.below(2000) as u64));
        }
        over.store(true, Relaxed);
    });
    heap.set_procs(1).expect("set_procs");
    let mut m = heap.attach().expect("attach");
    let s = twins(&mut m);
    assert_eq!((s.mallocs, s.total_alloc), (mallocs.load(Relaxed), bytes.load(Relaxed)));
    m.collect();
    let s = twins(&mut m);
    assert_eq!((s.frees, s.heap_alloc, s.heap_objects), (s.mallocs, 0, 0));
}

/// Heaps at their limit, where allocation fails, memory goes back, and a cycle may run at each step.
#[test]
fn the_twins_agree_at_a_limit() {
    for (seed, memory_limit) in [(1, 0), (2, 6 << 20), (3, 1)] {
        let options =
            Options { scan_native_stacks: 0, heap_limit: 12 << 20, memory_limit, ..Options::default() };
        let heap = Heap::new(&options).expect("a heap");
        let mut m = heap.attach().expect("attach");
        let (mut rng, mut kept, mut refused) = (Rng::new(seed), Vec::new(), 0);
        for step in 0..4000 {
            let size = if rng.one_in(20) { rng.below(300_000) } else { rng.below(5000) };
            match m.alloc(size, Kind::NoScan) {
                Some(object) => kept.push(m.handle(object.as_ptr()).expect("a handle")),
                None => {
                    refused += 1;
                    twins(&mut m);
                    kept.drain(..kept.len() / 3);
                }
            }
            match rng.below(200) {
                0 => drop(twins(&mut m)),
                1 => drop(heap.release_memory()),
                // SAFETY: the heap lives.
                2 => unsafe { c::besom_memory_limit_set(c::heap(&heap), [0, 1, 8 << 20][step % 3]) },
                // SAFETY: as above.
                3 => unsafe { c::besom_gc_percent_set(c::heap(&heap), [0, 50, 300][step % 3]) },
                _ => {}
            }
        }
        assert!(refused > 3, "seed {seed}: the limit was met {refused} times");
        drop(kept);
        m.collect();
        assert_eq!(twins(&mut m).heap_objects, 0);
    }
}

/// What is dead and not swept yet counts as allocated, on both sides.
#[test]
fn the_twins_agree_before_the_sweep() {
    let heap = Heap::new(&Options { scan_native_stacks: 0, ..Options::default() }).expect("a heap");
    let mut m = heap.attach().expect("attach");
    let (mut cycles, mut unswept) = (0, 0);
    for n in 0..400_000 {
        m.alloc(48 + n % 5 * 100, Kind::NoScan).expect("memory");
        let now = heap.stats().cycles;
        if now != cycles {
            cycles = now;
            // All is garbage; what the sweeper has not come to is allocated still.
            unswept += u64::from(twins(&mut m).heap_objects > 100);
        }
    }
    assert!(
        cycles > 3 && unswept > 0,
        "{cycles} cycles, of which {unswept} were seen before they were swept"
    );
}

/// Every kind of memory that the runtime takes for itself is there, grows where it should, and goes back.
#[test]
fn the_runtimes_own_memory_is_counted_by_kind() {
    let heap =
        Heap::new(&Options { scan_native_stacks: 1, gc_percent: 0, ..Options::default() }).expect("a heap");
    let mut m = heap.attach().expect("attach");
    let first = twins(&mut m);
    let handles: Vec<_> = (0..1000).map(|_| m.handle(std::ptr::null_mut()).expect("a handle")).collect();
    let second = twins(&mut m);
    assert_eq!(second.other_sys - first.other_sys, 16_000, "handles of 16 bytes");
    drop(handles);
    let words = [0usize; 2];
    let start = (&raw const words).cast_mut().cast();
    // SAFETY: the array outlives the range.
    assert_eq!(unsafe { c::besom_roots_add(c::heap(&heap), start, 2, 1) }, 0);
    assert!(twins(&mut m).other_sys > second.other_sys, "a root range");
    // SAFETY: as above.
    assert_eq!(unsafe { c::besom_roots_remove(c::heap(&heap), start) }, 0);
    assert_eq!(twins(&mut m).other_sys, second.other_sys, "freed handles keep their place, ranges do not");
    let before = twins(&mut m);
    for n in 1..100 {
        heap.register_layout(n * 8, &[0]).expect("a layout");
    }
    let after = twins(&mut m);
    // 32 bytes each, and the bits of those of more than 64 words: 65 to 99 words take two.
    assert_eq!(after.gc_sys - before.gc_sys, 99 * 32 + 35 * 16);
    let held = m.alloc(64, Kind::Values).expect("memory");
    m.blocked(|| ());
    assert!(twins(&mut m).other_sys > after.other_sys, "what {held:p}'s holder left behind when it blocked");
    let before = twins(&mut m);
    m.blocked(|| {
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let mut other = heap.attach().expect("attach");
                assert_eq!(twins(&mut other).mcaches_sys, 2 * before.mcaches_sys, "two Ps");
            });
        });
    });
    let more = m.alloc(64 << 20, Kind::NoScan).expect("memory");
    let s = twins(&mut m);
    assert_eq!(s.mcaches_sys, before.mcaches_sys, "one P again, {more:p}");
    assert_eq!(s.heap_sys % (4 << 20), 0);
    let pages = (s.heap_sys - before.heap_sys) / 8192;
    assert!(pages >= 64 << 7, "{pages} pages more");
    assert_eq!(s.mark_bits_sys - before.mark_bits_sys, pages * 128);
    assert_eq!(s.spans_sys - before.spans_sys, pages * 68);
    assert!(s.page_tables_sys - before.page_tables_sys > pages * 2);
}

/// Cycles by any cause, more than the ring of pauses remembers.
#[test]
fn pauses_are_remembered_by_cycle() {
    let heap = Heap::new(&Options { scan_native_stacks: 0, ..Options::default() }).expect("a heap");
    let mut m = heap.attach().expect("attach");
    let mut last = twins(&mut m);
    assert_eq!((last.num_gc, last.last_gc_unix_ns, last.pause_total_ns), (0, 0, 0));
    for n in 1..=300u64 {
        m.collect();
        let s = if n % 50 == 1 { twins(&mut m) } else { m.mem_stats() };
        let place = (n as usize - 1) % s.pause_ns.len();
        assert_eq!((s.num_gc, s.num_forced_gc), (n, n));
        assert_eq!(s.pause_total_ns - last.pause_total_ns, s.pause_ns[place], "cycle {n}");
        assert_eq!(s.last_gc_unix_ns, s.pause_end_unix_ns[place]);
        assert!(s.last_gc_unix_ns >= last.last_gc_unix_ns && s.gc_cpu_ns > last.gc_cpu_ns);
        last = s;
    }
}

/// Of marking by more workers than there are processors, processor time is no more than the process used, and no less than
/// nothing; the pauses are those that the histogram of pauses has: of each stop there, of each cycle here.
#[test]
fn processor_time_is_no_more_than_was_used() {
    let (cycles, stops) = processor_time(STOP_THE_WORLD);
    assert_eq!(stops, cycles);
    let (cycles, stops) = processor_time(CONCURRENT);
    assert!(stops >= 2 * cycles, "{stops} stops in {cycles} cycles");
}

/// Cycles, and their stops.
fn processor_time(mode: i32) -> (u64, u64) {
    let options = Options { scan_native_stacks: 0, mark_workers: 16, mode, ..Options::default() };
    let heap = Heap::new(&options).expect("a heap");
    let mut m = heap.attach().expect("attach");
    let array = m.alloc(200_000 * 8, Kind::Values).expect("memory");
    let held = m.handle(array.as_ptr()).expect("a handle");
    for n in 0..200_000 {
        let object = m.alloc(32, Kind::Values).expect("memory").as_ptr();
        // SAFETY: a word of the array, which is held.
        unsafe {
            let slot = held.get().cast::<u64>().add(n);
            m.write(held.get(), slot, object.expose_provenance() as u64);
        }
    }
    for _ in 0..20 {
        m.collect();
    }
    let s = twins(&mut m);
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one `timespec`.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut used) };
    let used = used.tv_sec as u64 * 1_000_000_000 + used.tv_nsec as u64;
    assert!(s.gc_cpu_ns > 0 && s.gc_cpu_ns <= used, "{} ns of {used}", s.gc_cpu_ns);
    let metrics = heap.metrics().expect("memory");
    let pauses = histogram(&metrics, "besom/gc/pauses:nanoseconds");
    assert_eq!(s.pause_total_ns, pauses.sum);
    (s.num_gc, pauses.count)
}
