//! Waits of a moment: who waits for a stop to come or to be over, or for a handshake, looks for a while before it sleeps.
//!
//! To wake a thread takes the system some 50 us where its processor has gone to rest, longer than a cycle's stop. A thread that looks keeps
//! its processor, so it does that only where each thread has one, and no longer than a stop should take.

use besom_stats::sync::raw::{AtomicU32, Ordering::*};
#[cfg(not(loom))]
use std::time::{Duration, Instant};

/// How long a thread looks. Higher: processor time that others could use is lost where a stop or a handshake is long; and the one that is
/// waited for may be on the same processor, to which the system does not let it before, whatever is yielded. Lower: one that takes a little
/// longer costs two wake-ups more.
#[cfg(not(loom))]
const LOOKS: Duration = Duration::from_micros(20);

/// What has become of a stop or a handshake, for those who look; decided under the scheduler's lock, as all else.
#[derive(Default)]
pub(super) struct Progress(AtomicU32);

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Stage {
    /// There is none.
    Over,
    /// It was asked for.
    Asked,
    /// Nobody runs.
    Stands,
}

impl Progress {
    pub(super) fn set(&self, stage: Stage) {
        self.0.store(stage as u32, Release);
    }

    /// Returns when nothing is asked for any more, or after a while.
    pub(super) fn look_past_asking(&self) {
        self.look(|stage| stage != Stage::Asked as u32);
    }

    /// Returns when it is over, or after a while.
    pub(super) fn look_for_the_end(&self) {
        self.look(|stage| stage == Stage::Over as u32);
    }

    /// In a model returns at once: what is decided under the lock must do.
    fn look(&self, so: impl Fn(u32) -> bool) {
        #[cfg(not(loom))]
        {
            let began = Instant::now();
            while !so(self.0.load(Acquire)) && began.elapsed() < LOOKS {
                (0..16).for_each(|_| std::hint::spin_loop());
            }
        }
        #[cfg(loom)]
        let _ = so;
    }
}
