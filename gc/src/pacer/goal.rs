//! The lines that a cycle starts and ends at, from the settings and from what the last cycle found.

use super::runway::Runway;
use super::{CycleEnd, MIN_HEAP};
use besom_alloc_core::heap_tables::HeapTables;
use besom_alloc_core::units::{Bytes, PAGE_SIZE};

/// One byte in this many is table, not page.
pub(super) const TABLE_SHARE: u64 =
    ((PAGE_SIZE + HeapTables::BYTES_PER_PAGE) / HeapTables::BYTES_PER_PAGE) as u64;
/// Near a limit, a cycle may end no sooner than after `live / RUNWAY_SHARE` allocated bytes. Higher: a heap
/// that is too small spends all its time collecting. Lower: the soft limit is passed by more.
const RUNWAY_SHARE: u64 = 16;
/// The least of that.
const RUNWAY_LEAST: u64 = 256 << 10;
/// A cycle starts no sooner than after this share of the growth, in percent. Higher: a program that allocates fast
/// assists more. Lower: it is collected all the time, and what it allocates meanwhile counts as live.
const TRIGGER_LEAST: u64 = 80;
/// And no later than this share of the growth before the goal, or [`MIN_HEAP`], whichever is less. Higher: heaps
/// with little to mark end below their goal. Lower: the first assists of a cycle are steep.
const TRIGGER_MARGIN: u64 = 20;

/// One byte for so many of the most that the goal may move to is how far past that mutators wait for the end of the cycle.
/// Higher: they wait where a little memory would have done. Lower: a memory limit is passed by more when the leader of the cycle
/// is late.
const WAIT_SHARE: u64 = 50;

/// What the lines follow from.
pub(super) struct Inputs {
    pub percent: u32,
    pub memory_limit: Bytes,
    /// Whether marking runs beside the program.
    pub concurrent: bool,
    pub last: CycleEnd,
    pub runway: Runway,
}

/// Live bytes at which things happen.
///
/// - `trigger <= goal <= stretched <= wait`, `trigger <= held`
/// - without marking beside the program, `trigger == goal`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lines {
    /// A cycle ends.
    pub goal: u64,
    /// A cycle starts.
    pub trigger: u64,
    /// A cycle starts, if the limiter is on: limits do not count, but a doubling does.
    pub held: u64,
    /// A cycle ends that finds the heap grown: no more than the next goal will be anyway.
    pub stretched: u64,
    /// Mutators go on when the cycle is over, and not before.
    pub wait: u64,
}

impl Inputs {
    pub fn lines(&self) -> Lines {
        let CycleEnd { live, roots, specials, overhead, hard_limit, .. } = self.last;
        let [live, roots, specials, overhead] = [live, roots, specials, overhead].map(|bytes| bytes.0 as u64);
        let percent = u64::from(self.percent);
        let added = (live + roots + specials).saturating_mul(percent) / 100;
        let grown = live.saturating_add(added);
        let free = match percent {
            0 => u64::MAX,
            // The tables' share may be more than a small percentage.
            _ => (grown - grown / TABLE_SHARE)
                .max(MIN_HEAP * percent / 100)
                .max(live.saturating_add(added.min(RUNWAY_LEAST))),
        };
        let limited = [self.memory_limit, hard_limit]
            .into_iter()
            .filter(|&limit| limit != Bytes(0))
            .map(|limit| limit.0 as u64)
            // A heap that comes to be as large as its limit has tables for that, too.
            .map(|limit| limit.saturating_sub(overhead.max(limit / TABLE_SHARE)))
            .min()
            .map_or(u64::MAX, |limit| limit.max(live + (live / RUNWAY_SHARE).max(RUNWAY_LEAST)));
        let goal = free.min(limited);
        let held = free.min(live.saturating_add(live.max(MIN_HEAP))).max(goal);
        let next = goal.saturating_add(goal.saturating_mul(percent) / 100);
        let stretched = next.min(limited).max(goal);
        Lines {
            goal,
            trigger: self.trigger(live, goal),
            held: self.trigger(live, held),
            stretched,
            wait: stretched.saturating_add(stretched / WAIT_SHARE),
        }
    }

    /// Where to start, so that marking ends at `goal`.
    fn trigger(&self, live: u64, goal: u64) -> u64 {
        if !self.concurrent || goal == u64::MAX {
            return goal;
        }
        let growth = goal.saturating_sub(live);
        let least = growth / 100 * TRIGGER_LEAST;
        let most = growth - (growth / TRIGGER_MARGIN).min(MIN_HEAP);
        let wanted = match self.runway.bytes(self.expected()) {
            Some(runway) => growth.saturating_sub(runway),
            None => least,
        };
        goal - growth + wanted.clamp(least, most)
    }

    /// Bytes that the next cycle will scan, if it is like the last.
    pub fn expected(&self) -> u64 {
        let CycleEnd { live, roots, marking, .. } = self.last;
        marking.map_or(live + roots, |marking| marking.work).0 as u64
    }
}
