//! Whose turn it is to mark beside the program: a quarter of the processors is the collector's, and those that the
//! program leaves idle.

use besom_stats::sync::raw::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// The share of the processors that is the collector's while it marks. Higher: cycles are short, and the program is slow
/// meanwhile. Lower: it allocates more while one goes on, so that cycles begin sooner, and mutators assist.
pub const SHARE: f64 = 0.25;

/// The turns of one cycle's workers.
pub struct Turns<'a> {
    began: Instant,
    cpus: u32,
    /// The thread that leads would wait for the cycle otherwise: its processor is the collector's.
    urgent: bool,
    running: &'a (dyn Fn() -> usize + Sync),
    /// Nanoseconds that the worker took which has a fraction of a processor.
    fraction_ns: AtomicU64,
}

impl<'a> Turns<'a> {
    /// The turns from now on; `running` tells how many mutators run.
    pub fn new(cpus: u32, urgent: bool, running: &'a (dyn Fn() -> usize + Sync)) -> Turns<'a> {
        Turns { began: Instant::now(), cpus, urgent, running, fraction_ns: AtomicU64::new(0) }
    }

    /// Whether worker `index` may mark now.
    pub fn may_run(&self, index: usize) -> bool {
        if self.urgent && index == 0 {
            return true;
        }
        let share = f64::from(self.cpus) * SHARE;
        let idle = (self.cpus as usize).saturating_sub((self.running)());
        let whole = (share as usize).max(idle);
        index < whole || (index == whole && self.fraction_is_due(share.fract()))
    }

    fn fraction_is_due(&self, fraction: f64) -> bool {
        let elapsed = self.began.elapsed().as_nanos() as f64;
        (self.fraction_ns.load(Relaxed) as f64) < elapsed * fraction
    }

    /// A worker has marked since `began`.
    pub fn took(&self, began: Instant) {
        self.fraction_ns.fetch_add(began.elapsed().as_nanos() as u64, Relaxed);
    }
}
