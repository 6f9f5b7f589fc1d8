//! When to collect, and how much to sweep on the way there.
//!
//! ```text
//! goal  = live + (live + roots) * percent / 100 - its tables,  at least MIN_HEAP * percent / 100
//! limit = memory limit - what the heap holds beside live objects
//! goal  = min(goal, max(limit, live + least runway))
//! ```
//!
//! The tables beside the heap (2.4 %) count as growth: who sets the percentage means memory.
//!
//! `live` grows by what the caches are credited with, so it is what could be allocated by now, and is exact when the
//! caches are flushed. Sweeping is paid in proportion to it: all pages are swept by the time the goal is met.

use besom_alloc_core::heap_tables::HeapTables;
use besom_alloc_core::units::{Bytes, PAGE_SIZE, Pages};
use besom_stats::sync::raw::{AtomicI64, AtomicU64, Ordering::Relaxed};
use besom_stats::sync::{Mutex, lock};

/// The least goal at 100 percent. Higher: a small program's memory. Lower: it collects more often than a
/// collection is worth.
pub const MIN_HEAP: u64 = 4 << 20;
/// One byte in this many is table, not page.
const TABLE_SHARE: u64 = ((PAGE_SIZE + HeapTables::BYTES_PER_PAGE) / HeapTables::BYTES_PER_PAGE) as u64;
/// Near a limit, a cycle may start no sooner than after `live / RUNWAY_SHARE` allocated bytes. Higher: a heap
/// that is too small spends all its time collecting. Lower: the soft limit is passed by more.
const RUNWAY_SHARE: u64 = 16;
/// The least runway.
const RUNWAY_LEAST: u64 = 256 << 10;
/// Bytes of allocation that the sweep is ahead of its schedule, so that the last page is not due at the goal.
const SWEEP_AHEAD: i64 = 1 << 20;

/// What a cycle found, for the next goal.
#[derive(Clone, Copy, Debug, Default)]
pub struct CycleEnd {
    /// Bytes of marked slots.
    pub live: Bytes,
    /// Bytes of roots.
    pub roots: Bytes,
    /// Pages in use, all of which are to be swept.
    pub pages: Pages,
    /// Bytes the heap holds of the system beside live objects: metadata, part-filled spans.
    pub overhead: Bytes,
    /// The hard limit; 0: none.
    pub hard_limit: Bytes,
}

/// What the goal follows from.
struct Inputs {
    percent: u32,
    memory_limit: Bytes,
    last: CycleEnd,
}

/// The pacer of one heap: no clock, no threads.
///
/// - `goal == inputs.goal()` whenever nobody holds `inputs`
/// - `live + dead` is all that was ever credited; with the caches flushed, the bytes allocated ever
/// - `dead` == bytes freed ever, and what is found dead and not swept yet
pub struct Pacer {
    /// Held from the change of an input to the store of the goal, so that the last change is the one that counts.
    /// Nobody stops while holding it.
    inputs: Mutex<Inputs>,
    /// Bytes allocated and not found dead, as the caches were credited.
    live: AtomicI64,
    /// Bytes that cycles found dead, ever.
    dead: AtomicI64,
    goal: AtomicU64,
    marked: AtomicU64,
    sweep_pages: AtomicU64,
    swept: AtomicU64,
}

impl Pacer {
    /// A pacer before its first cycle. Percent 0: collections on request only, or near a limit.
    pub fn new(percent: u32, memory_limit: Bytes, hard_limit: Bytes) -> Pacer {
        let inputs = Inputs { percent, memory_limit, last: CycleEnd { hard_limit, ..CycleEnd::default() } };
        Pacer {
            live: AtomicI64::new(0),
            dead: AtomicI64::new(0),
            goal: AtomicU64::new(inputs.goal()),
            marked: AtomicU64::new(0),
            sweep_pages: AtomicU64::new(0),
            swept: AtomicU64::new(0),
            inputs: Mutex::new(inputs),
        }
    }

    /// Credits or takes back bytes that a cache may hand out.
    pub fn credit(&self, bytes: i64) {
        self.live.fetch_add(bytes, Relaxed);
    }

    /// Whether a collection is due.
    #[inline]
    pub fn due(&self) -> bool {
        self.live.load(Relaxed).max(0) as u64 >= self.goal.load(Relaxed)
    }

    /// Whether one is due before `bytes` more are allocated.
    pub fn due_with(&self, bytes: i64) -> bool {
        self.live.load(Relaxed).saturating_add(bytes).max(0) as u64 >= self.goal.load(Relaxed)
    }

    /// Ends a cycle; the caches are flushed.
    pub fn end_cycle(&self, end: CycleEnd) {
        let before = self.live.swap(end.live.0 as i64, Relaxed);
        self.dead.fetch_add(before - end.live.0 as i64, Relaxed);
        self.marked.store(end.live.0 as u64, Relaxed);
        self.sweep_pages.store(end.pages.0 as u64, Relaxed);
        self.swept.store(0, Relaxed);
        self.change(|inputs| inputs.last = end);
    }

    /// Changes an input, and the goal with it.
    fn change(&self, set: impl FnOnce(&mut Inputs)) {
        let mut inputs = lock(&self.inputs);
        set(&mut inputs);
        self.goal.store(inputs.goal(), Relaxed);
    }

    /// Changes the growth; takes effect at once.
    pub fn set_percent(&self, percent: u32) {
        self.change(|inputs| inputs.percent = percent);
    }

    /// Changes the soft limit; takes effect at once.
    pub fn set_memory_limit(&self, limit: Bytes) {
        self.change(|inputs| inputs.memory_limit = limit);
    }

    /// The growth.
    pub fn percent(&self) -> u32 {
        lock(&self.inputs).percent
    }

    /// The soft limit; 0: none.
    pub fn memory_limit(&self) -> Bytes {
        lock(&self.inputs).memory_limit
    }

    /// Bytes at which the next cycle starts.
    pub fn goal(&self) -> u64 {
        self.goal.load(Relaxed)
    }

    /// Bytes that the last cycle marked.
    pub fn marked(&self) -> Bytes {
        Bytes(self.marked.load(Relaxed) as usize)
    }

    /// Bytes allocated and not found dead.
    pub fn live(&self) -> u64 {
        self.live.load(Relaxed).max(0) as u64
    }

    /// Bytes allocated, ever, and those of them that cycles found dead; exact when the caches are flushed.
    pub fn totals(&self) -> (u64, u64) {
        let (live, dead) = (self.live.load(Relaxed), self.dead.load(Relaxed));
        ((live + dead) as u64, dead as u64)
    }

    /// The goal, and what follows from its inputs at the same moment, which is the same.
    pub fn goal_twice(&self) -> (u64, u64) {
        let inputs = lock(&self.inputs);
        (self.goal(), inputs.goal())
    }

    /// Pages that must be swept before `bytes` more are allocated.
    #[inline]
    pub fn sweep_debt(&self, bytes: i64) -> Pages {
        let pages = self.sweep_pages.load(Relaxed);
        let swept = self.swept.load(Relaxed);
        if swept >= pages {
            return Pages(0);
        }
        let base = self.marked.load(Relaxed);
        let runway = self.goal.load(Relaxed).saturating_sub(base).max(1);
        let allocated = (self.live.load(Relaxed) + bytes + SWEEP_AHEAD - base as i64).max(0) as u64;
        let due =
            (u128::from(pages) * u128::from(allocated) / u128::from(runway)).min(u128::from(pages)) as u64;
        Pages(due.saturating_sub(swept) as usize)
    }

    /// Counts pages as swept; `None`: nothing is left to be swept.
    pub fn swept(&self, pages: Option<Pages>) {
        match pages {
            Some(pages) => self.swept.fetch_add(pages.0 as u64, Relaxed),
            None => self.swept.swap(u64::MAX / 2, Relaxed),
        };
    }
}

impl Inputs {
    fn goal(&self) -> u64 {
        let CycleEnd { live, roots, overhead, hard_limit, .. } = self.last;
        let [live, roots, overhead] = [live, roots, overhead].map(|bytes| bytes.0 as u64);
        let percent = u64::from(self.percent);
        let grown = live.saturating_add((live + roots).saturating_mul(percent) / 100);
        let free =
            if percent == 0 { u64::MAX } else { (grown - grown / TABLE_SHARE).max(MIN_HEAP * percent / 100) };
        let limited = [self.memory_limit, hard_limit]
            .into_iter()
            .filter(|&limit| limit != Bytes(0))
            .map(|limit| (limit.0 as u64).saturating_sub(overhead))
            .min()
            .map_or(u64::MAX, |limit| limit.max(live + (live / RUNWAY_SHARE).max(RUNWAY_LEAST)));
        free.min(limited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(live: usize, pages: usize) -> CycleEnd {
        CycleEnd { live: Bytes(live), pages: Pages(pages), ..CycleEnd::default() }
    }

    #[test]
    fn the_goal_follows_live_bytes_and_roots() {
        let pacer = Pacer::new(100, Bytes(0), Bytes(0));
        assert_eq!(pacer.goal(), 4 << 20);
        pacer.end_cycle(CycleEnd { roots: Bytes(1 << 20), ..end(10 << 20, 0) });
        let less_tables = |bytes: u64| bytes - bytes / TABLE_SHARE;
        assert_eq!(pacer.goal(), less_tables(21 << 20));
        pacer.set_percent(50);
        assert_eq!(pacer.goal(), less_tables((10 << 20) + (11 << 20) / 2));
        pacer.set_percent(0);
        assert_eq!(pacer.goal(), u64::MAX);
        assert_eq!(pacer.percent(), 0);
        pacer.set_percent(u32::MAX);
        assert!(pacer.goal() > 1 << 40);
    }

    #[test]
    fn a_limit_wins_but_leaves_a_runway() {
        let pacer = Pacer::new(100, Bytes(64 << 20), Bytes(0));
        pacer.end_cycle(CycleEnd { overhead: Bytes(4 << 20), ..end(40 << 20, 0) });
        assert_eq!(pacer.goal(), 60 << 20);
        pacer.end_cycle(end(64 << 20, 0));
        assert_eq!(pacer.goal(), 68 << 20);
        pacer.set_memory_limit(Bytes(1));
        assert_eq!(pacer.goal(), 68 << 20);
    }

    #[test]
    fn the_last_change_of_each_input_counts() {
        let pacer = Pacer::new(100, Bytes(0), Bytes(0));
        for round in 0..2000u32 {
            let (live, percent) = ((8 + round as usize % 7) << 20, 50 + round % 13);
            std::thread::scope(|threads| {
                threads.spawn(|| pacer.set_percent(percent));
                pacer.end_cycle(end(live, 0));
            });
            let alone = Pacer::new(percent, Bytes(0), Bytes(0));
            alone.end_cycle(end(live, 0));
            assert_eq!(pacer.goal(), alone.goal(), "round {round}");
        }
    }

    #[test]
    fn totals_are_all_that_was_credited_and_found_dead() {
        let pacer = Pacer::new(100, Bytes(0), Bytes(0));
        pacer.credit(10_000);
        pacer.credit(-2_000);
        assert_eq!(pacer.totals(), (8_000, 0));
        pacer.end_cycle(end(3_000, 0));
        pacer.credit(500);
        assert_eq!(pacer.totals(), (8_500, 5_000));
        pacer.end_cycle(end(3_500, 0));
        assert_eq!((pacer.totals(), pacer.live()), ((8_500, 5_000), 3_500));
    }

    #[test]
    fn all_pages_are_due_before_the_goal() {
        let pacer = Pacer::new(100, Bytes(0), Bytes(0));
        pacer.end_cycle(end(8 << 20, 1000));
        let mut swept = 0;
        while !pacer.due() {
            pacer.credit(8192);
            let debt = pacer.sweep_debt(0);
            pacer.swept(Some(debt));
            swept += debt.0;
        }
        assert_eq!(swept, 1000);
        pacer.swept(None);
        assert_eq!(pacer.sweep_debt(1 << 30), Pages(0));
    }
}
