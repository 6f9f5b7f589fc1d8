//! How many bytes the program allocates while one is marked: learnt, cycle by cycle.
//!
//! ```text
//! marking' = max(background, share of all processors)                      processor time without assists,
//! program' = min(running, all processors - marking')                       as it will be
//! marking  = background + assist                                           and as it was
//! program  = min(running, all processors - background) - assist
//! ratio    = allocated / work * (program' / program) / (marking' / marking)
//! runway   = the highest of the last ratios * expected work
//! ```
//!
//! Marking then takes a quarter of the processors and ends at the goal, and assists have nothing to do. (Go's
//! cons/mark ratio, with the processors that were idle counted as what they were.)

use super::{BACKGROUND_SHARE, Cpus, Marking};

/// Cycles that are remembered. Higher: after a burst cycles start too early for longer. Lower: if allocation comes in
/// bursts, more of them meet a runway that is too short, and assist.
const REMEMBERED: usize = 4;

/// The last ratios.
#[derive(Default)]
pub(super) struct Runway {
    /// Of the last cycles; 0: none yet.
    ratios: [f64; REMEMBERED],
    next: usize,
}

impl Runway {
    /// Takes a cycle down; one in which nothing was allocated or marked says nothing.
    pub fn learn(&mut self, marking: &Marking, cpus: Cpus) {
        let elapsed = marking.elapsed.as_secs_f64();
        let [background, assist] = [marking.background, marking.assist].map(|time| time.as_secs_f64());
        let [allocated, work] = [marking.allocated, marking.work].map(|bytes| bytes.0 as f64);
        let all = f64::from(cpus.0) * elapsed;
        let running = marking.running * elapsed;
        if allocated <= 0.0 || work <= 0.0 || elapsed <= 0.0 {
            return;
        }
        let share = background.max(BACKGROUND_SHARE * all);
        let beside = running.min(all - share).max(0.0);
        // If all the time went into assists, as if a tenth had been left.
        let program = (running.min(all - background) - assist).max(beside / 10.0).max(f64::MIN_POSITIVE);
        let ratio = allocated / work * (beside / program) / (share / (background + assist));
        self.ratios[self.next] = ratio;
        self.next = (self.next + 1) % REMEMBERED;
    }

    /// Bytes that are allocated while `work` are scanned; `None`: not known yet.
    pub fn bytes(&self, work: u64) -> Option<u64> {
        let highest = self.ratios.into_iter().fold(0.0, f64::max);
        (highest > 0.0).then_some((highest * work as f64).round() as u64)
    }
}
