//! The consistent snapshot, as users read it.

use crate::heap::Heap;
use crate::mcache::P;
use besom_alloc_core::size_class::CLASS_SIZE;
use besom_stats::sync::raw::Ordering::Relaxed;
use besom_stats::{MemStats, PAUSES, SIZE_CLASSES};

/// Statistics of a heap at one moment; `besom_stats` in C, where each field is documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    pub mapped: i64,
    pub large_alloc: u64,
    pub large_alloc_count: u64,
    pub large_free: u64,
    pub large_free_count: u64,
    pub small_alloc_count: [u64; SIZE_CLASSES],
    pub small_free_count: [u64; SIZE_CLASSES],
}

impl Heap {
    /// One consistent snapshot, from any thread, without a stop. Waits for at most one guard of each P.
    pub fn stats(&self) -> Stats {
        let ring = self.spans.stats().read(self.ps.pin().iter().map(P::seq));
        let tiny = self.tiny_allocs.load(Relaxed);
        let size = |class: usize| u64::from(CLASS_SIZE[class]);
        let system = self.spans.system().read();
        let tables = system.spans + system.page_tables + system.mark_bits + system.mcaches;
        let (cycles, forced_cycles) = self.collector.cycles();
        // Before the total, which then has it.
        let pause_max_ns = self.collector.pauses().max_ns();
        Stats {
            committed: ring.committed,
            released: ring.released,
            in_heap: ring.in_heap,
            in_stacks: ring.in_stacks,
            in_work_bufs: ring.in_work_bufs,
            in_metadata: ring.in_metadata + tables as i64,
            total_alloc_bytes: ring.alloc_bytes(size),
            total_free_bytes: ring.free_bytes(size),
            alloc_count: ring.alloc_count() + tiny,
            free_count: ring.free_count() + tiny,
            tiny_allocs: tiny,
            cycles,
            forced_cycles,
            pause_total_ns: self.collector.pauses().total_ns(),
            pause_max_ns,
            live_bytes: self.collector.pacer().marked().0 as u64,
            next_goal: self.collector.pacer().goal(),
            peak_footprint: self.spans.pages().peak_footprint().0 as u64,
            mapped: ring.mapped,
            large_alloc: ring.large_alloc,
            large_alloc_count: ring.large_alloc_count,
            large_free: ring.large_free,
            large_free_count: ring.large_free_count,
            small_alloc_count: ring.small_alloc_count,
            small_free_count: ring.small_free_count,
        }
    }
}

// What `besom.h` says of the same.
const _: () = assert!(size_of::<Stats>() == (23 + 2 * SIZE_CLASSES) * 8);
const _: () = assert!(size_of::<MemStats>() == (27 + 2 * PAUSES + 3 * SIZE_CLASSES) * 8);
#[cfg(not(loom))]
const _: () = assert!(PAUSES == 256 && SIZE_CLASSES == besom_alloc_core::size_class::SIZE_CLASS_COUNT);
