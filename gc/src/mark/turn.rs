//! Whose turn it is to mark beside the program: a share of the processors is the collector's, and those that the program
//! leaves idle.

use crate::pacer::{Allowance, Cpus, Share};
use besom_stats::sync::raw::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The turns of one cycle's workers.
pub struct Turns<'a> {
    began: Instant,
    share: Share,
    /// The thread that leads would wait for the cycle otherwise: its processor is the collector's.
    urgent: bool,
    running: &'a (dyn Fn() -> usize + Sync),
    /// Nanoseconds of work on the share, and on idle processors.
    used_ns: AtomicU64,
    idle_ns: AtomicU64,
    /// Sum of the running mutators over all looks, and the looks.
    ran: AtomicU64,
    looks: AtomicU64,
}

impl<'a> Turns<'a> {
    /// The turns from now on; `running` tells how many mutators run.
    pub fn new(cpus: u32, urgent: bool, running: &'a (dyn Fn() -> usize + Sync)) -> Turns<'a> {
        Turns {
            began: Instant::now(),
            share: Share::new(Cpus(cpus)),
            urgent,
            running,
            used_ns: AtomicU64::new(0),
            idle_ns: AtomicU64::new(0),
            ran: AtomicU64::new(0),
            looks: AtomicU64::new(0),
        }
    }

    fn allowance(&self) -> Allowance {
        let running = (self.running)();
        self.ran.fetch_add(running as u64, Relaxed);
        self.looks.fetch_add(1, Relaxed);
        let used = Duration::from_nanos(self.used_ns.load(Relaxed));
        self.share.allowance(running as u32, self.elapsed(), used)
    }

    /// Whether worker `index` may mark now.
    pub fn may_run(&self, index: usize) -> bool {
        if self.urgent && index == 0 {
            return true;
        }
        let allowance = self.allowance();
        let full = allowance.full() as usize;
        // A worker that has a fraction of a processor runs until it has used it up.
        index < full || (index == full && allowance.fraction > FRACTION_LEAST)
    }

    /// Worker `index` has marked since `began`.
    pub fn took(&self, index: usize, began: Instant) {
        let ns = began.elapsed().as_nanos() as u64;
        let allowance = self.allowance();
        let dedicated = allowance.dedicated as usize;
        if index < dedicated || (index == dedicated && allowance.idle == 0) {
            self.used_ns.fetch_add(ns, Relaxed);
        } else {
            self.idle_ns.fetch_add(ns, Relaxed);
        }
    }

    /// Since marking began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The workers' time so far.
    pub fn background(&self) -> Duration {
        Duration::from_nanos(self.used_ns.load(Relaxed) + self.idle_ns.load(Relaxed))
    }

    /// How many mutators ran, in the mean of all looks.
    pub fn running(&self) -> f64 {
        self.ran.load(Relaxed) as f64 / self.looks.load(Relaxed).max(1) as f64
    }
}

/// The least fraction of a processor that is worth a turn. Higher: turns are longer, and so are the rests between.
/// Lower: shorter.
const FRACTION_LEAST: f64 = 0.01;
