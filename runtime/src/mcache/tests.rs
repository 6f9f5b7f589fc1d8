//! A P's life, and what its cache leaves in the statistics.

use super::*;
use crate::{Heap, Options};

fn heap(procs: u32) -> std::pin::Pin<Box<Heap>> {
    Heap::new(&Options { scan_native_stacks: 0, gc_percent: 0, procs, ..Options::default() }).expect("a heap")
}

/// A P that is nobody's, with three spans cached: slots, and tiny blocks.
fn used(heap: &Heap) -> P {
    let p = P::new().expect("a P");
    let cx = heap.context();
    // SAFETY: the P is this test's.
    unsafe {
        p.check_generation(cx);
        for (cell, objects) in [(3, 5), (70, 7)] {
            assert_eq!(p.refill(cx, cell, false), Refill::Done);
            (*p.cell(cell)).cursor += objects * (*p.cell(cell)).slot;
        }
        assert_eq!(p.refill(cx, TINY_CELL, false), Refill::Done);
        // Five objects of eight bytes, in three blocks.
        (*p.cell(TINY_CELL)).cursor += 5 * 8;
        (*p.cell(TINY_CELL)).slot += 5;
    }
    p
}

fn is_empty(p: &P) -> bool {
    // SAFETY: the P is the test's.
    unsafe {
        (0..CELL_COUNT).all(|cell| {
            let at = &*p.cell(cell);
            at.cursor == at.limit && *p.span(cell) == 0
        }) && (*p.cache()).cached.iter().all(|word| *word == 0)
            && p.pages().is_empty()
            && (*p.cell(TINY_CELL)).slot == 0
    }
}

/// Allocs, frees, tiny objects that shared a block.
fn counts(heap: &Heap) -> (u64, u64, u64) {
    let ring = heap.spans.stats().read_stopped();
    (ring.alloc_count(), ring.free_count(), heap.tiny_allocs.load(Relaxed))
}

#[test]
fn what_is_handed_out_is_counted_when_the_cache_is_released_and_nothing_else() {
    let heap = heap(0);
    let p = used(&heap);
    assert_eq!(counts(&heap), (0, 0, 0), "nothing is counted while it is cached");
    let flushed = heap.collector.pacer().totals();
    // SAFETY: the P is this test's.
    unsafe { p.release(heap.context()) };
    assert!(is_empty(&p));
    assert_eq!(counts(&heap), (5 + 7 + 3, 0, 2));
    // The pacer knew of more, and knows the truth now.
    let sizes = [3, 70].map(|cell| heap.spans.classes().get(class_of_cell(cell)).facts().slot_bytes as u64);
    let bytes = 5 * sizes[0] + 7 * sizes[1] + 3 * 16;
    assert_eq!(heap.collector.pacer().totals(), (bytes, 0));
    assert!(flushed.0 > bytes);
    // SAFETY: as above; a second time there is nothing to do.
    unsafe { p.release(heap.context()) };
    assert_eq!(counts(&heap), (5 + 7 + 3, 0, 2));
}

#[test]
fn a_cache_of_an_older_generation_is_released_before_it_is_used() {
    let heap = heap(0);
    let p = used(&heap);
    // SAFETY: the P is this test's.
    unsafe {
        p.check_generation(heap.context());
        assert!(!is_empty(&p), "one of this generation stays");
        (*p.cache()).flush_gen = heap.spans.generation().wrapping_sub(2);
        p.check_generation(heap.context());
        assert!(is_empty(&p), "one of an older generation goes");
        assert_eq!((*p.cache()).flush_gen, heap.spans.generation());
    }
    assert_eq!(counts(&heap), (5 + 7 + 3, 0, 2), "and is counted");
}

#[test]
fn whoever_comes_to_a_p_checks_its_generation() {
    // One P, which thread after thread comes to, with collections between.
    let heap = heap(1);
    for round in 0..4 {
        let mut m = heap.attach().expect("attach");
        // SAFETY: attached, so that the P is this thread's.
        let p = unsafe { &*(*m.as_raw().cast::<crate::mutator::Mutator>()).p };
        // SAFETY: as above.
        let generation = || unsafe { (*p.cache()).flush_gen };
        assert_eq!(generation(), heap.spans.generation(), "round {round}, attached");
        m.alloc(100, Kind::Values).expect("memory");
        m.collect();
        assert_eq!(generation(), heap.spans.generation(), "round {round}, its own collection");
        m.alloc(100, Kind::Values).expect("memory");
        m.blocked(|| {
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    let mut other = heap.attach().expect("attach");
                    other.collect();
                    other.alloc(10, Kind::NoScan).expect("memory");
                });
            });
        });
        assert_eq!(generation(), heap.spans.generation(), "round {round}, unblocked");
        m.alloc(100, Kind::Values).expect("memory");
        m.mem_stats_slow();
        assert_eq!(generation(), heap.spans.generation(), "round {round}, after a stop without a cycle");
        m.alloc(100, Kind::Values).expect("memory");
    }
}

#[test]
fn a_p_that_goes_leaves_its_counts_and_takes_its_memory_along() {
    let heap = heap(0);
    let caches = || heap.spans.system().mcaches.get();
    assert_eq!(caches(), 0);
    for round in 1..=3 {
        let mut m = heap.attach().expect("attach");
        assert_eq!(caches(), size_of::<PCache>() as u64);
        for _ in 0..1000 {
            m.alloc(8, Kind::NoScan).expect("memory");
            m.alloc(100, Kind::Values).expect("memory");
        }
        drop(m);
        // No collection, no stop: the P is gone, and what it knew is in the totals.
        assert_eq!(counts(&heap), (round * 1500, 0, round * 500), "round {round}");
        assert_eq!((heap.stats().alloc_count, caches()), (round * 2000, 0));
    }
}

/// A span's slots are paid for as they are handed out, not when it is cached.
#[test]
fn each_run_of_slots_owes_and_what_was_not_handed_out_does_not() {
    let heap = Heap::new(&Options { scan_native_stacks: 0, ..Options::default() }).expect("a heap");
    let p = P::new().expect("a P");
    let (cx, pacer) = (heap.context(), heap.collector.pacer());
    pacer.credit(1 << 20);
    pacer.begin_marking();
    let mut owed = 0;
    // SAFETY: the P is this test's.
    unsafe {
        p.check_generation(cx);
        let mut span = 0;
        for run in 0..2 {
            assert_eq!(p.refill(cx, 3, false), Refill::Done);
            let at = p.cell(3);
            let work = pacer.assist_work(((*at).limit - (*at).cursor) as i64);
            assert!(work > 0, "{work}");
            owed += work;
            assert_eq!(p.debt(), owed, "after run {run}");
            assert!(run == 0 || span == *p.span(3), "both are of one span");
            span = *p.span(3);
            (*at).cursor = (*at).limit;
        }
        p.pay(owed);
        assert_eq!(p.debt(), 0);
    }
    pacer.end_marking();
}
