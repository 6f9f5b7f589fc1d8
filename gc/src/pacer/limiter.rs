//! Collecting takes no more than half of the program's processors, however little room there is.
//!
//! ```text
//! wanted = elapsed * min(running, processors)                             what the program could use
//! taken  = assist + max(0, background - (elapsed * processors - wanted))  what it did not get of it
//! fill   = max(0, fill + elapsed * (taken / wanted - LIMIT))
//! limiting == fill >= LEEWAY
//! ```
//!
//! So over any time, however many threads run, the mean of `taken / wanted` is at most `LIMIT + LEEWAY / time`, and no
//! more than a half from `(LEEWAY + time between updates) / (1/2 - LIMIT)` = 2.2 s on, as long as nothing but the
//! background share is taken while it is limiting. The leaky bucket is Go's; there it counts processors that nobody
//! wants as the program's, so that one thread among many processors may be kept from running for good.

use super::Cpus;
use besom_stats::sync::raw::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

/// The share that may be taken in the long run: less than a half, so that it is no more than a half in the short run.
/// Higher: that takes longer. Lower: a heap that is too small outgrows its limit by more.
pub const LIMIT: f64 = 0.45;
/// How long all may be taken, on top. Higher: the program may stand still for longer. Lower: a burst passes the
/// goal by more.
pub const LEEWAY: Duration = Duration::from_millis(100);

const CAPACITY: i64 = LEEWAY.as_nanos() as i64;

/// Time that went by, as the limiter sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Processor time of all background workers.
    pub background: Duration,
    /// Mutators' time in assists or stopped by the collector, working or waiting.
    pub assist: Duration,
    /// How many mutators ran, in the mean, those in assists or stopped among them.
    pub running: f64,
}

/// The bucket.
///
/// - `0 <= fill < LEEWAY + elapsed` of the last update
pub struct Limiter {
    cpus: f64,
    /// Nanoseconds.
    fill: AtomicI64,
}

impl Limiter {
    /// An empty one.
    pub fn new(cpus: Cpus) -> Limiter {
        Limiter { cpus: f64::from(cpus.0.max(1)), fill: AtomicI64::new(0) }
    }

    /// Takes down what was spent in the last `elapsed`. To be called every 10 ms or so while a cycle runs or it is
    /// [limiting](Self::limiting), and from time to time else.
    pub fn update(&self, elapsed: Duration, spent: Spent) {
        let elapsed = elapsed.as_nanos() as f64;
        let wanted = elapsed * spent.running.clamp(0.0, self.cpus);
        let [background, assist] = [spent.background, spent.assist].map(|time| time.as_nanos() as f64);
        let taken = assist + (background - (elapsed * self.cpus - wanted)).max(0.0);
        let share = if wanted > 0.0 { (taken / wanted).min(1.0) } else { 0.0 };
        let change = (elapsed * (share - LIMIT)) as i64;
        // What flowed over is kept from one update only: a series of cycles that the program asked for must not
        // keep it from collecting for long.
        let step = |fill: i64| match change {
            ..0 => fill.saturating_add(change).max(0),
            0.. => fill.min(CAPACITY).saturating_add(change),
        };
        _ = self.fill.fetch_update(Relaxed, Relaxed, |fill| Some(step(fill)));
    }

    /// Whether too much was taken: no assists, and no cycle for a limit's sake.
    #[inline]
    pub fn limiting(&self) -> bool {
        self.fill.load(Relaxed) >= CAPACITY
    }
}
