//! A stop of the world in a cycle, and its moments.

use super::Collector;
use crate::measures::Stops;
use crate::timeline::{Began, Kind, Why, current_tid};
use crate::world::World;
use besom_alloc_core::stopped::Stopped;
use besom_stats::fatal;
use std::time::{Duration, Instant};

/// A stop of the world that is over: when it was asked for, the world stood, all was done, and the world went on.
pub(super) struct Stop {
    pub asked: Instant,
    pub stood: Instant,
    pub ready: Instant,
    pub resumed: Instant,
    /// What the timeline shows from the request, and from where the world stood.
    hold: Option<Began>,
    stands: Option<Began>,
    /// It was a mutator that did what there was to do.
    by_mutator: bool,
}

impl Stop {
    /// How long the world was in coming to stand.
    pub fn delay(&self) -> Duration {
        self.stood - self.asked
    }

    /// The whole of it, from the request.
    pub fn pause(&self) -> Duration {
        self.resumed - self.asked
    }

    /// A mutator's time that was the collector's.
    pub fn borrowed(&self) -> Duration {
        if self.by_mutator { self.ready - self.stood } else { Duration::ZERO }
    }
}

impl Collector {
    /// Runs `f` in a stop of the world.
    pub(super) fn in_stop<R: Send>(
        &self,
        world: &impl World,
        f: impl FnOnce(&Stopped<'_>) -> R + Send,
    ) -> (R, Stop) {
        let caller = current_tid();
        let (asked, hold) = self.timeline.begin_now();
        let (mut f, mut done) = (Some(f), None);
        let resumed = world.in_stop(&mut |stopped| {
            let (stood, stands) = self.timeline.begin_now();
            let by_mutator = current_tid() != caller;
            done = f.take().map(|f| (f(stopped), stood, stands, by_mutator, Instant::now()));
        });
        match done {
            Some((result, stood, stands, by_mutator, ready)) => {
                (result, Stop { asked, stood, ready, resumed, hold, stands, by_mutator })
            }
            None => fatal(format_args!("a stop without its action")),
        }
    }

    /// A stop is over that was not the cycle's last.
    pub(super) fn take_down(&self, stop: &Stop, stops: &mut Stops) {
        self.timeline.end_stop(stop.stands, Kind::WorldStopped, Why::Mark, stop.ready);
        self.timeline.end_stop(stop.hold, Kind::Hold, Why::Mark, stop.resumed);
        stops.push(stop.delay(), stop.pause(), stop.borrowed());
    }
}
