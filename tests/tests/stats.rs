//! Statistics: every snapshot is consistent and none goes back, from a thread that is not attached, while others
//! work; and exact once they are settled.

use besom::options::{CONCURRENT, STOP_THE_WORLD};
use besom::{Heap, Kind, Mutator, Options, Stats};
use besom_stats::sync::raw::{AtomicBool, AtomicU64, Ordering::*};
use besom_tests::lasting::Lasting;
use besom_tests::objects::precise;
use besom_tests::process::{abort_on_panic, number_from_env};
use besom_tests::rng::{Rng, mix};
use std::time::Duration;

const THREADS: u64 = 8;

/// What `besom.h` says of every snapshot.
fn equations(s: &Stats) {
    assert!(s.total_free_bytes <= s.total_alloc_bytes, "freed more bytes than allocated: {s:?}");
    assert!(s.free_count <= s.alloc_count, "freed more objects than allocated: {s:?}");
    assert!(
        (s.total_alloc_bytes - s.total_free_bytes) as i64 <= s.in_heap,
        "live bytes beyond in_heap: {s:?}"
    );
    assert!(s.in_heap + s.in_stacks + s.in_work_bufs <= s.committed, "in use beyond committed: {s:?}");
    assert!(
        [s.in_heap, s.in_stacks, s.in_work_bufs, s.released, s.in_metadata].iter().all(|n| *n >= 0),
        "{s:?}"
    );
    assert!(s.forced_cycles <= s.cycles, "{s:?}");
    assert!(s.pause_max_ns <= s.pause_total_ns, "{s:?}");
    assert!(s.tiny_allocs <= s.alloc_count, "{s:?}");
    assert!(s.live_bytes as i64 <= s.peak_footprint as i64, "{s:?}");
    assert_eq!(s.committed + s.released, s.mapped, "{s:?}");
    for (class, (allocs, frees)) in s.small_alloc_count.iter().zip(&s.small_free_count).enumerate() {
        assert!(frees <= allocs, "class {class} has more frees than allocs: {s:?}");
    }
    assert!(s.large_free_count <= s.large_alloc_count && s.large_free <= s.large_alloc, "{s:?}");
}

/// What can only grow.
fn grew(a: &Stats, b: &Stats) {
    let grown = [
        ("alloc_count", a.alloc_count, b.alloc_count),
        ("total_alloc_bytes", a.total_alloc_bytes, b.total_alloc_bytes),
        ("large_alloc", a.large_alloc, b.large_alloc),
        ("large_free", a.large_free, b.large_free),
        ("free_count", a.free_count, b.free_count),
        ("total_free_bytes", a.total_free_bytes, b.total_free_bytes),
        ("tiny_allocs", a.tiny_allocs, b.tiny_allocs),
        ("cycles", a.cycles, b.cycles),
        ("forced_cycles", a.forced_cycles, b.forced_cycles),
        ("pause_total_ns", a.pause_total_ns, b.pause_total_ns),
        ("pause_max_ns", a.pause_max_ns, b.pause_max_ns),
        ("peak_footprint", a.peak_footprint, b.peak_footprint),
    ];
    for (name, before, after) in grown {
        assert!(before <= after, "{name} fell from {before} to {after}");
    }
    for class in 0..a.small_alloc_count.len() {
        assert!(a.small_alloc_count[class] <= b.small_alloc_count[class], "allocs of class {class} fell");
        assert!(a.small_free_count[class] <= b.small_free_count[class], "frees of class {class} fell");
    }
}

#[test]
fn snapshots_agree_with_themselves_while_threads_work() {
    abort_on_panic("statistics while threads work".to_owned());
    [CONCURRENT, STOP_THE_WORLD].into_iter().for_each(snapshots_agree);
}

fn snapshots_agree(mode: i32) {
    let heap = Heap::new(&Options { procs: 3, mode, ..precise() }).expect("a heap");
    let over = AtomicBool::new(false);
    let allocated = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for n in 0..THREADS {
            let (heap, over, allocated) = (&heap, &over, &allocated);
            scope.spawn(move || {
                let mut rng = Rng::new(mix(n));
                let mut m = heap.attach().expect("attach");
                let mut count = 0;
                while !over.load(Relaxed) {
                    for _ in 0..200 {
                        let size = besom_tests::model::size(rng.next());
                        let kind = [Kind::NoScan, Kind::Values, Kind::Conservative][rng.below(3)];
                        m.alloc(size, kind).expect("memory");
                        count += 1;
                    }
                    match rng.below(16) {
                        0 => {
                            drop(m);
                            m = heap.attach().expect("attach");
                        }
                        1 => m.blocked(std::thread::yield_now),
                        2 => m.collect(),
                        3 => {
                            heap.release_memory();
                        }
                        _ => {}
                    }
                }
                allocated.fetch_add(count, Relaxed);
            });
        }
        // Ps come and go, by their number and, with 0, with their threads.
        scope.spawn(|| {
            let mut rng = Rng::new(5);
            while !over.load(Relaxed) {
                heap.set_procs(rng.below(6) as u32).expect("set_procs");
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let length = Lasting::new(Duration::from_secs(number_from_env("BESOM_STRESS_SECONDS", 2)));
        let mut last = heap.stats();
        let mut snapshots = 0;
        while length.goes_on(snapshots > 1000 && last.cycles > 5, (snapshots, &last)) {
            let s = heap.stats();
            equations(&s);
            grew(&last, &s);
            (last, snapshots) = (s, snapshots + 1);
        }
        over.store(true, Relaxed);
    });
    // All have detached, and the caches are flushed: what they allocated is what is counted.
    let mut m = heap.attach().expect("attach");
    let exact = m.mem_stats();
    assert_eq!((exact.mallocs, heap.stats().alloc_count), (allocated.load(Relaxed), exact.mallocs));
    m.collect();
    settled(&heap, 0, 0);
}

/// Nothing but this many objects and bytes is allocated.
fn settled(heap: &Heap, objects: u64, bytes: u64) {
    let s = heap.stats();
    equations(&s);
    assert_eq!(s.alloc_count - s.free_count, objects, "objects: {s:?}");
    assert_eq!(s.total_alloc_bytes - s.total_free_bytes, bytes, "bytes: {s:?}");
    assert_eq!(s.live_bytes, bytes, "marked bytes: {s:?}");
}

#[test]
fn counts_are_exact_without_tiny_objects() {
    let heap = Heap::new(&Options { tiny: 0, gc_percent: 0, ..precise() }).expect("a heap");
    let each = 5000;
    std::thread::scope(|scope| {
        for n in 0..THREADS {
            let heap = &heap;
            scope.spawn(move || {
                let mut rng = Rng::new(n);
                let mut m = heap.attach().expect("attach");
                for at in 0..each {
                    let size = if at % 100 == 0 { 40_000 } else { rng.below(3000) };
                    m.alloc(size, Kind::NoScan).expect("memory");
                }
            });
        }
    });
    let s = heap.stats();
    assert_eq!(s.alloc_count, each * THREADS, "after all have detached");
    assert_eq!((s.free_count, s.tiny_allocs, s.cycles), (0, 0, 0));
    heap.attach().expect("attach").collect();
    let s = heap.stats();
    assert_eq!((s.alloc_count, s.free_count), (each * THREADS, each * THREADS));
    assert_eq!((s.cycles, s.forced_cycles), (1, 1));
    settled(&heap, 0, 0);
}

fn keep<'h>(m: &mut Mutator<'h>, bytes: usize, kind: Kind) -> besom::HandleRef<'h> {
    let object = m.alloc(bytes, kind).expect("memory");
    m.handle(object.as_ptr()).expect("a handle")
}

#[test]
fn bytes_are_whole_slots_and_pages() {
    let heap = Heap::new(&Options { gc_percent: 0, ..precise() }).expect("a heap");
    let mut m = heap.attach().expect("attach");
    // Size asked for, bytes that it counts as.
    let sizes =
        [(16, 16), (17, 32), (100, 112), (1025, 1152), (32768, 32768), (32769, 40960), (100_000, 106_496)];
    let (mut count, mut bytes) = (0, 0);
    for (asked, counted) in sizes {
        let kept = keep(&mut m, asked, Kind::Values);
        m.collect();
        (count, bytes) = (count + 1, bytes + counted);
        settled(&heap, 1, counted);
        let s = heap.stats();
        assert_eq!((s.alloc_count, s.total_alloc_bytes), (count, bytes), "after {asked} bytes");
        assert_eq!(
            heap.size(kept.get().addr()) as u64,
            if asked > 32768 { asked.next_multiple_of(8) as u64 } else { counted }
        );
        drop(kept);
    }
    let layout = heap.register_layout(24, &[0]).expect("a layout");
    let object = m.new_object(layout).expect("registered").expect("memory");
    let object = m.handle(object.as_ptr()).expect("a handle");
    m.collect();
    settled(&heap, 1, 24);
    let array = m.new_array(layout, 10).expect("registered").expect("memory");
    let array = m.handle(array.as_ptr()).expect("a handle");
    m.collect();
    settled(&heap, 2, 24 + 256);
    drop((object, array));
    m.collect();
    settled(&heap, 0, 0);
}

#[test]
fn tiny_objects_are_counted_one_by_one_and_in_blocks() {
    let heap = Heap::new(&Options { gc_percent: 0, ..precise() }).expect("a heap");
    let mut m = heap.attach().expect("attach");
    for _ in 0..1000 {
        m.alloc(8, Kind::NoScan).expect("memory");
    }
    m.collect();
    let s = heap.stats();
    // Two to a block: 500 blocks. One of a block takes a slot, the other shares it.
    assert_eq!(s.total_alloc_bytes, 8000, "{s:?}");
    assert_eq!(s.alloc_count, 1000, "{s:?}");
    assert_eq!(s.free_count, 1000, "{s:?}");
    settled(&heap, 0, 0);
}

#[test]
fn pauses_and_goals_are_told() {
    let stopped = Options { mode: STOP_THE_WORLD, ..precise() };
    let heap = Heap::new(&stopped).expect("a heap");
    let s = heap.stats();
    assert_eq!((s.alloc_count, s.cycles, s.pause_total_ns, s.in_heap, s.live_bytes), (0, 0, 0, 0, 0));
    assert_eq!(s.next_goal, 4 << 20);
    let mut m = heap.attach().expect("attach");
    let kept = keep(&mut m, 10 << 20, Kind::NoScan);
    assert_eq!(heap.stats().cycles, 1, "10 MiB pass the first goal");
    for n in 1..4 {
        m.collect();
        let s = heap.stats();
        assert_eq!((s.cycles, s.forced_cycles), (n + 1, n));
        assert!(s.pause_max_ns > 0 && s.pause_total_ns >= s.pause_max_ns, "{s:?}");
    }
    let goal = heap.stats().next_goal;
    // The tables beside the heap count as growth, so that it may be a little less.
    assert!((19 << 20..21 << 20).contains(&goal), "twice 10 MiB live: {goal}");
    drop(kept);
    let before = heap.stats().cycles;
    for _ in 0..40 << 10 {
        m.alloc(1024, Kind::NoScan).expect("memory");
    }
    let s = heap.stats();
    assert!(s.cycles - before >= 2 && s.forced_cycles == 3, "40 MiB of garbage: {s:?}");
}
