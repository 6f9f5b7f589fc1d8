//! The consistent snapshot, as users read it.

use crate::heap::Heap;
use crate::mcache::{P, PCache};
use besom_alloc_core::size_class::CLASS_SIZE;
use besom_stats::HeapStatsDelta;
use besom_stats::sync::raw::Ordering::Relaxed;

/// Statistics of a heap at one moment; `besom_stats` in C, where each field is documented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields are documented in besom.h")]
pub struct Stats {
    pub committed: i64,
    pub released: i64,
    pub in_heap: i64,
    pub in_stacks: i64,
    pub in_work_bufs: i64,
    pub in_metadata: i64,
    pub total_alloc_bytes: u64,
    pub total_free_bytes: u64,
    pub alloc_count: u64,
    pub free_count: u64,
    pub tiny_allocs: u64,
    pub cycles: u64,
    pub forced_cycles: u64,
    pub pause_total_ns: u64,
    pub pause_max_ns: u64,
    pub live_bytes: u64,
    pub next_goal: u64,
    pub peak_footprint: u64,
}

impl Heap {
    /// One consistent snapshot, from any thread, without a stop. Waits for at most a few instructions of each P.
    pub fn stats(&self) -> Stats {
        self.snapshot().1
    }

    /// The same, and the ring's record from which it was made.
    pub(crate) fn snapshot(&self) -> (HeapStatsDelta, Stats) {
        // SAFETY: both with the set of Ps pinned.
        let (delta, ps) = self.scheduler.with_ps_pinned(|| unsafe {
            (self.spans.stats().read(self.ps().map(P::seq)), self.ps().count())
        });
        let tiny = self.tiny_allocs.load(Relaxed);
        let pages = self.spans.pages();
        let size = |class: usize| u64::from(CLASS_SIZE[class]);
        let (cycles, forced_cycles) = self.collector.cycles();
        let peak = pages.peak_footprint().0;
        let stats = Stats {
            committed: delta.committed,
            released: delta.released,
            in_heap: delta.in_heap,
            in_stacks: delta.in_stacks,
            in_work_bufs: delta.in_work_bufs,
            in_metadata: delta.in_metadata + (pages.metadata().0 + ps * size_of::<PCache>()) as i64,
            total_alloc_bytes: delta.alloc_bytes(size),
            total_free_bytes: delta.free_bytes(size),
            alloc_count: delta.alloc_count() + tiny,
            free_count: delta.free_count() + tiny,
            tiny_allocs: tiny,
            cycles,
            forced_cycles,
            pause_total_ns: self.collector.pauses().total_ns(),
            pause_max_ns: self.collector.pauses().max_ns(),
            live_bytes: self.collector.pacer().marked().0 as u64,
            next_goal: self.collector.pacer().goal(),
            peak_footprint: peak as u64,
        };
        (delta, stats)
    }
}
