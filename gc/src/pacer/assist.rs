//! What a byte allocated during marking owes in bytes scanned.
//!
//! ```text
//! ratio = (expected work - work done) / (goal - live)
//! ```
//!
//! so that both come to an end at once. If more is found than expected, the heap has grown: now all that was live when
//! marking began is expected, and the goal moves away in proportion, so that the ratio stays as it is, as long as that
//! is less than the next goal will be. Past the goal, the hard goal counts, and the worst case.

use besom_stats::sync::raw::{AtomicU64, Ordering::Relaxed};

/// How far past the goal the hard goal is. Higher: more memory. Lower: steeper assists if a cycle is late.
const HARD_GOAL: f64 = 1.1;
/// The least bytes that there are to the goal. Higher: the goal is passed by more. Lower: a cycle that starts at the
/// goal makes the first allocations mark everything.
const LEAST_LEFT: u64 = 64 << 10;
/// The same, as a part of the goal.
const LEAST_LEFT_SHARE: u64 = 128;
/// The least work that is taken to be left: who aims a little high misses by a little.
const LEAST_WORK: u64 = 1000;

/// The ratio, and what it follows from. All but `ratio` change only while the world is stopped.
#[derive(Default)]
pub(super) struct Assist {
    /// Bits of an f64, positive; 0: no marking runs.
    ratio: AtomicU64,
    /// Live bytes when marking began.
    began: AtomicU64,
    /// Bytes that will be scanned, if the cycle is like the last.
    expected: AtomicU64,
    /// If all is reachable.
    worst: AtomicU64,
}

impl Assist {
    /// `expected`: 0 if there is no last cycle to tell.
    pub fn begin(&self, live: u64, expected: u64, worst: u64) {
        self.began.store(live, Relaxed);
        self.expected.store(if expected == 0 { worst } else { expected }, Relaxed);
        self.worst.store(worst.max(expected), Relaxed);
        self.ratio.store(f64::MIN_POSITIVE.to_bits(), Relaxed);
    }

    pub fn end(&self) {
        self.ratio.store(0, Relaxed);
    }

    /// Several at a time leave one's result; one that is overtaken by the end leaves none.
    pub fn revise(&self, done: u64, live: u64, goal: u64, stretched: u64) {
        if let Some(revised) = self.revised(done, live, goal, stretched) {
            self.replace(revised);
        }
    }

    /// The ratio's bits before and after.
    pub(super) fn revised(&self, done: u64, live: u64, goal: u64, stretched: u64) -> Option<(u64, u64)> {
        let before = self.ratio.load(Relaxed);
        if before == 0 {
            return None;
        }
        let [began, mut expected, worst] =
            [&self.began, &self.expected, &self.worst].map(|value| value.load(Relaxed));
        let mut goal = goal.max(began.saturating_add(LEAST_LEFT));
        if done > expected {
            let runway = (goal - began) as f64 / expected.max(1) as f64 * worst as f64;
            goal = began.saturating_add(runway as u64).min(stretched.max(goal));
            expected = worst;
        }
        if live > goal {
            goal = (goal as f64 * HARD_GOAL) as u64;
            expected = worst;
        }
        let work = expected.saturating_sub(done).max(LEAST_WORK);
        let bytes = goal.saturating_sub(live).max(LEAST_LEFT).max(goal / LEAST_LEFT_SHARE);
        let ratio = (work as f64 / bytes as f64).max(f64::MIN_POSITIVE);
        Some((before, ratio.to_bits()))
    }

    pub(super) fn replace(&self, (before, after): (u64, u64)) {
        _ = self.ratio.compare_exchange(before, after, Relaxed, Relaxed);
    }

    #[inline]
    pub fn owed(&self, bytes: i64) -> i64 {
        let ratio = self.ratio.load(Relaxed);
        if ratio == 0 { 0 } else { (bytes as f64 * f64::from_bits(ratio)) as i64 }
    }
}
