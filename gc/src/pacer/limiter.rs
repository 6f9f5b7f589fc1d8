//! Collecting takes no more than half of the program's processors, however little room there is.
//!
//! ```text
//! busy  = min(running, processors)                                processors that the program wants
//! taken = assist + max(0, background - elapsed * (processors - busy))      what it did not get of them
//! fill  = max(0, fill + taken - LIMIT * elapsed * busy)
//! limiting == fill >= capacity
//! ```
//!
//! So over any time `taken <= LIMIT * wanted + capacity`, as long as nothing is taken while it is limiting but the background
//! share. The leaky bucket is Go's; there it counts processors that nobody wants as the program's, so that one thread
//! among many processors may be kept from running for good.

use super::Cpus;
use besom_stats::sync::raw::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

/// The share that may be taken in the long run: less than a half, so that it is no more than a half in the short run.
/// Higher: that takes longer. Lower: a heap that is too small outgrows its limit by more.
pub const LIMIT: f64 = 0.45;
/// What may be taken on top at once, for each processor. Higher: the program may stand still for longer. Lower: a burst
/// passes the goal by more.
pub const LEEWAY: Duration = Duration::from_millis(100);

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
/// - `0 <= fill`; `fill < capacity + taken` of the last update
pub struct Limiter {
    cpus: f64,
    /// Nanoseconds.
    capacity: i64,
    fill: AtomicI64,
}

impl Limiter {
    /// An empty one.
    pub fn new(cpus: Cpus) -> Limiter {
        let cpus = cpus.0.max(1);
        let capacity = LEEWAY.as_nanos() as i64 * i64::from(cpus);
        Limiter { cpus: f64::from(cpus), capacity, fill: AtomicI64::new(0) }
    }

    /// Takes down what was spent in the last `elapsed`. To be called every 10 ms or so, also when no cycle runs as long as it is
    /// [limiting](Self::limiting).
    pub fn update(&self, elapsed: Duration, spent: Spent) {
        let elapsed = elapsed.as_nanos() as f64;
        let busy = spent.running.clamp(0.0, self.cpus);
        let [background, assist] = [spent.background, spent.assist].map(|time| time.as_nanos() as f64);
        let taken = assist + (background - elapsed * (self.cpus - busy)).max(0.0);
        let change = (taken - LIMIT * elapsed * busy) as i64;
        let step = |fill: i64| Some(fill.min(self.capacity).saturating_add(change).max(0));
        let step = |fill: i64| if change > 0 { step(fill) } else { Some((fill + change).max(0)) };
        _ = self.fill.fetch_update(Relaxed, Relaxed, step);
    }

    /// Whether too much was taken: no assists, and no cycle for a limit's sake.
    #[inline]
    pub fn limiting(&self) -> bool {
        self.fill.load(Relaxed) >= self.capacity
    }
}
