//! How many workers may mark beside the program.

use super::Cpus;
use std::time::Duration;

/// The share of the processors that marks beside the program. Higher: cycles are shorter, and take more from the
/// program while they run. Lower: the runway is longer, so that more garbage floats.
pub const BACKGROUND_SHARE: f64 = 0.25;
/// Within this time, workers that are behind or ahead of their share are back at it. Higher: a short cycle gets more
/// or less than its share. Lower: the fractional worker comes and goes more often.
const CATCH_UP: f64 = 0.010;

/// The background share of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    cpus: u32,
}

/// Workers that may run now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowance {
    /// All the time.
    pub dedicated: u32,
    /// The part of its time that one more may run.
    pub fraction: f64,
    /// On processors that nobody else uses: as long as that is so.
    pub idle: u32,
}

impl Allowance {
    /// Workers at full, idle ones among them.
    pub fn full(&self) -> u32 {
        self.dedicated + self.idle
    }
}

impl Share {
    /// The share of this many processors.
    pub fn new(cpus: Cpus) -> Share {
        Share { cpus: cpus.0.max(1) }
    }

    /// Processor time that is the share of `elapsed`.
    pub fn of(&self, elapsed: Duration) -> Duration {
        elapsed.mul_f64(f64::from(self.cpus) * BACKGROUND_SHARE)
    }

    /// Who may run now: with `running` mutators, `elapsed` since marking began, and `used` processor time by all
    /// workers since then.
    pub fn allowance(&self, running: u32, elapsed: Duration, used: Duration) -> Allowance {
        let share = f64::from(self.cpus) * BACKGROUND_SHARE;
        let dedicated = share as u32;
        let idle = self.cpus.saturating_sub(running).saturating_sub(dedicated);
        let behind = self.of(elapsed).as_secs_f64() - used.as_secs_f64();
        let fraction = match idle {
            0 => (share - f64::from(dedicated) + behind / CATCH_UP).clamp(0.0, 1.0),
            // It runs as one of the idle ones.
            _ => 0.0,
        };
        Allowance { dedicated, fraction, idle }
    }
}
