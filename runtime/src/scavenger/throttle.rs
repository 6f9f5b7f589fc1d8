//! How long the scavenger sleeps for what it has done.
//!
//! After work that took `cpu` of a processor's time it may go on `cpu / share` later than it might have begun that
//! work. So in any stretch of time it takes its share, and the work that it does at one go. Time in which there was
//! nothing to do is not saved up.

use std::time::Duration;

/// One part in this many of a processor. Higher: memory goes back more slowly than it falls free. Lower: it costs more
/// than the promised 1 %.
const SHARE: u32 = 100;

/// - between work that ends at `a` and work that begins at `b > a`: `b >= ready`
pub(super) struct Throttle {
    /// When it may go on, since its beginning.
    ready: Duration,
}

impl Throttle {
    pub(super) const fn new() -> Throttle {
        Throttle { ready: Duration::ZERO }
    }

    /// Work has ended now that took so much processor time.
    pub(super) fn worked(&mut self, now: Duration, cpu: Duration) {
        let began = now.saturating_sub(cpu);
        self.ready = self.ready.max(began) + cpu * SHARE;
    }

    /// How long it must sleep still.
    pub(super) fn rest(&self, now: Duration) -> Duration {
        self.ready.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn work_is_paid_for_with_sleep() {
        let mut t = Throttle::new();
        assert_eq!(t.rest(Duration::ZERO), Duration::ZERO);
        t.worked(1000 * US, 250 * US);
        assert_eq!(t.rest(1000 * US), 99 * 250 * US);
        assert_eq!(t.rest(1000 * US + 99 * 250 * US), Duration::ZERO);
        // Who goes on too early pays for both.
        t.worked(2000 * US, 100 * US);
        assert_eq!(t.rest(2000 * US), (750 + 25_000 + 10_000 - 2000) * US);
        // Idle time is not saved up.
        t.worked(1_000_000_000 * US, 10 * US);
        assert_eq!(t.rest(1_000_000_000 * US), 990 * US);
    }

    proptest! {
        #[test]
        fn in_any_stretch_it_takes_its_share_and_one_piece_of_work(
            pieces in prop::collection::vec((1..5000u32, 0..3000u32, 0..2_000_000u32), 2..60),
        ) {
            let (mut t, mut now) = (Throttle::new(), Duration::ZERO);
            // Each piece as (begin, end, cpu): it may have waited for a processor, wake up late, or find nothing to do.
            let mut log = Vec::new();
            for (cpu, late, idle) in pieces {
                now += t.rest(now) + if idle > 1_900_000 { idle * US } else { late * US };
                let begin = now;
                now += (cpu + late / 7) * US;
                t.worked(now, cpu * US);
                log.push((begin, now, cpu * US));
            }
            for (i, from) in log.iter().enumerate() {
                let mut sum = Duration::ZERO;
                for to in &log[i..] {
                    sum += to.2;
                    prop_assert!((sum - to.2) * SHARE <= to.0 - from.0, "{sum:?} from {:?} to {:?}", from.0, to.1);
                }
            }
        }
    }
}
