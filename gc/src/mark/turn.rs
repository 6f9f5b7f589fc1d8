//! Whose turn it is to mark beside the program: a share of the processors is the collector's, and those that the program
//! leaves idle.

use crate::pacer::{Cpus, Share};
use besom_stats::sync::raw::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A turn: on whose processor it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The collector's share.
    Share,
    /// One that the program leaves idle.
    Idle,
}

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

    /// Worker `index`'s turn, if it may mark now.
    pub fn take(&self, index: usize) -> Option<Turn> {
        let running = (self.running)();
        self.ran.fetch_add(running as u64, Relaxed);
        self.looks.fetch_add(1, Relaxed);
        let used = Duration::from_nanos(self.used_ns.load(Relaxed));
        let allowance = self.share.allowance(running as u32, self.elapsed(), used);
        let (dedicated, full) = (allowance.dedicated as usize, allowance.full() as usize);
        // A worker that has a fraction of a processor runs until it has used it up.
        let may = index < full || (index == full && allowance.fraction > FRACTION_LEAST);
        let on_share = index < dedicated || (index == dedicated && allowance.idle == 0);
        (may || (self.urgent && index == 0)).then_some(if on_share { Turn::Share } else { Turn::Idle })
    }

    /// What was done in a turn took so long.
    pub fn took(&self, turn: Turn, time: Duration) {
        let sum = if turn == Turn::Share { &self.used_ns } else { &self.idle_ns };
        sum.fetch_add(time.as_nanos() as u64, Relaxed);
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
