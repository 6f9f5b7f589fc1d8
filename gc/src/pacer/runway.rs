//! How many bytes the program allocates while one is marked: learnt, cycle by cycle.
//!
//! ```text
//! program = running * elapsed - assist                    processor time, as it was
//! ratio   = allocated / work                              as it was, and without assists:
//!         * (background + assist) / max(background, share of all processors)
//!         * (program + assist) / program
//! runway  = the highest of the last ratios * expected work
//! ```
//!
//! Marking then takes a quarter of the processors and ends at the goal, and assists have nothing to do. (Go's cons/mark
//! ratio, with the processors that were idle counted as what they were.)

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
        let program = marking.running.min(f64::from(cpus.0)) * elapsed;
        // Who ran beside the background workers had no more than they left.
        let program = program.min(all - background) - assist;
        if allocated <= 0.0 || work <= 0.0 || elapsed <= 0.0 {
            return;
        }
        // All the time in assists: as if a tenth had been left.
        let program = program.max(assist / 9.0).max(elapsed / 1000.0);
        let ratio = allocated / work * (background + assist) / background.max(BACKGROUND_SHARE * all)
            * (program + assist)
            / program;
        self.ratios[self.next] = ratio;
        self.next = (self.next + 1) % REMEMBERED;
    }

    /// Bytes that are allocated while `work` are scanned; `None`: not known yet.
    pub fn bytes(&self, work: u64) -> Option<u64> {
        let highest = self.ratios.into_iter().fold(0.0, f64::max);
        (highest > 0.0).then(|| (highest * work as f64) as u64)
    }
}
