//! How much free memory is kept.
//!
//! ```text
//! retained = 1.1 * in use at the last cycle's end * goal / allocated at its beginning
//! limited  = 0.95 * memory limit
//! excess   = max(ready - retained, footprint - limited),  at most what is free
//! ```
//!
//! The last cycle says how many pages so many allocated bytes took; that will be so at the next goal. (Allocated at its
//! beginning, not its goal: a forced cycle comes long before that.)

use besom_alloc_core::units::Bytes;
use besom_stats::sync::raw::{AtomicU64, Ordering::Relaxed};

/// Per cent kept above what the goal needs. Higher: memory that is not needed. Lower: the heap takes back at the end of
/// a cycle what it gave at its beginning.
const SLACK: u128 = 10;
/// Above this share of a memory limit, in per cent, free memory goes in the background. Higher: more is given back by
/// allocations, at the limit. Lower: less of the limit is of use.
const LIMITED: u128 = 95;
/// The most pages that are taken to be needed for what is allocated, as a multiple. Higher: a heap that a forced cycle
/// found almost empty, in sparse spans, keeps more. Lower: one of sparse spans gives back what it takes again.
const MOST_SPARSE: u64 = 2;

/// What the last cycle says; all zero is none.
pub(super) struct Goal {
    in_use: AtomicU64,
    allocated: AtomicU64,
}

/// What a heap holds, and what it is to hold.
pub(super) struct Held {
    /// Pages with memory behind them.
    pub(super) ready: Bytes,
    /// Those that are free.
    pub(super) free: Bytes,
    /// With tables, as limits count.
    pub(super) footprint: Bytes,
    /// At which the next cycle is due; `u64::MAX`: none is.
    pub(super) goal: u64,
    /// 0: none.
    pub(super) memory_limit: Bytes,
}

impl Goal {
    /// Before the first cycle: all is kept.
    pub(super) const fn new() -> Goal {
        Goal { in_use: AtomicU64::new(0), allocated: AtomicU64::new(0) }
    }

    /// What a cycle found: pages in use at its end, and bytes allocated at its beginning.
    pub(super) fn cycle_ended(&self, in_use: Bytes, allocated: u64) {
        self.in_use.store(in_use.0 as u64, Relaxed);
        self.allocated.store(allocated.max(1), Relaxed);
    }

    /// Bytes of free memory that are too much.
    pub(super) fn excess(&self, held: &Held) -> Bytes {
        let retained = retained(self.in_use.load(Relaxed), self.allocated.load(Relaxed), held.goal);
        let above_goal = (held.ready.0 as u64).saturating_sub(retained);
        let above_limit = match held.memory_limit.0 {
            0 => 0,
            limit => (held.footprint.0 as u64).saturating_sub((limit as u128 * LIMITED / 100) as u64),
        };
        Bytes((above_goal.max(above_limit) as usize).min(held.free.0))
    }
}

/// Bytes of pages that are kept.
fn retained(in_use: u64, allocated: u64, goal: u64) -> u64 {
    if goal == u64::MAX || allocated == 0 {
        return u64::MAX;
    }
    let in_use = in_use.clamp(allocated, allocated.saturating_mul(MOST_SPARSE));
    let needed = u128::from(in_use) * u128::from(goal) / u128::from(allocated);
    u64::try_from(needed * (100 + SLACK) / 100).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_next_cycle_takes_pages_as_the_last_one_did() {
        // 100 MiB in 120 MiB of pages; the next cycle is due at 40.
        assert_eq!(retained(120 * MIB, 100 * MIB, 40 * MIB), 48 * MIB * 110 / 100);
        assert_eq!(retained(100 * MIB, 100 * MIB, 200 * MIB), 220 * MIB);
        // Pages of what was given to caches, and not counted as allocated or the other way.
        assert_eq!(retained(90 * MIB, 100 * MIB, 100 * MIB), 110 * MIB);
        // Sparse: what is allocated next fills spans that are in use anyway.
        assert_eq!(retained(MIB, MIB / 100, 4 * MIB), 2 * 4 * MIB * 110 / 100);
    }

    #[test]
    fn without_a_cycle_or_a_goal_all_is_kept() {
        assert_eq!((retained(0, 0, 4 * MIB), retained(MIB, MIB, u64::MAX)), (u64::MAX, u64::MAX));
        assert_eq!(retained(u64::MAX, u64::MAX, u64::MAX - 1), u64::MAX);
        assert_eq!(retained(1, 1, u64::MAX - 1), u64::MAX);
    }

    fn excess(goal: &Goal, ready: u64, free: u64, next: u64, memory_limit: u64) -> u64 {
        let [ready, free, footprint, memory_limit] =
            [ready, free, ready + ready / 40, memory_limit].map(|mib| Bytes(mib as usize * MIB as usize));
        goal.excess(&Held { ready, free, footprint, goal: next * MIB, memory_limit }).0 as u64 / MIB
    }

    #[test]
    fn the_larger_excess_counts_but_no_more_than_is_free() {
        let goal = Goal::new();
        assert_eq!(excess(&goal, 1000, 900, 10, 0), 0);
        goal.cycle_ended(Bytes(1000 * MIB as usize), 1000 * MIB);
        assert_eq!(excess(&goal, 1000, 900, 100, 0), 890);
        assert_eq!(excess(&goal, 1000, 800, 100, 0), 800, "no more than is free");
        assert_eq!(excess(&goal, 1000, 900, 1000, 0), 0);
        assert_eq!(excess(&goal, 1000, 900, 1000, 1000), 1025 - 950, "tables count against the limit");
        assert_eq!(excess(&goal, 1000, 900, 850, 1000), 75);
        assert_eq!(excess(&goal, 1000, 10, 850, 1), 10);
        assert_eq!(excess(&goal, 1000, 900, u64::MAX / MIB, 2000), 0);
    }
}
