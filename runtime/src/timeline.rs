//! What a heap records for a picture: starts, stops, and the waits of its threads.

use crate::heap::Heap;
use crate::mutator::{ATTACHED, Mutator};
use crate::status::{Error, Result};
use besom_alloc_core::units::Bytes;
use besom_gc::timeline::{Kind, TimelineError};
use std::path::Path;

impl From<TimelineError> for Error {
    fn from(error: TimelineError) -> Error {
        match error {
            TimelineError::State => Error::State,
            TimelineError::NoMemory => Error::NoMemory,
            TimelineError::CannotCreate => Error::Invalid,
            TimelineError::CannotWrite => Error::Limit,
        }
    }
}

impl Heap {
    /// Records what the heap's threads do from here on, for a file at `path` in the Chrome trace event format. `State`: that
    /// is being done. `Invalid`: the file cannot be made. `NoMemory`: the system refused.
    pub fn timeline_start(&self, path: &Path) -> Result<()> {
        self.collector.timeline().start(path)?;
        self.collector.sample(&self.spans);
        Ok(())
    }

    /// Stops that and writes the file. `State`: nothing is recorded. `Limit`: the file cannot be written to its end.
    pub fn timeline_stop(&self) -> Result<()> {
        // SAFETY: entries are mapped. Who sits there is the caller, so an attached one is not blocked and holds its P.
        unsafe {
            let own = |m: &*mut Mutator| Mutator::state(*m) == ATTACHED && Mutator::is_own(*m);
            if let Some(m) = self.mutators().find(own) {
                (*(*m).p).end_assist(self.context());
            }
        }
        self.collector.sample(&self.spans);
        Ok(self.collector.timeline().stop()?)
    }

    /// Stops it with the heap, which nobody uses any more. A file that cannot be written is lost.
    pub(crate) fn end_timeline(&self) {
        if self.collector.timeline().is_on() {
            // SAFETY: no P comes or goes, and none is held.
            unsafe { self.ps.iter().for_each(|p| p.end_assist(self.context())) };
            let _ = self.timeline_stop();
        }
    }

    /// Runs `wait`, which may wait, and shows that it did.
    pub(crate) fn waiting<R>(&self, kind: Kind, wait: impl FnOnce() -> R) -> R {
        let began = self.collector.timeline().begin();
        let result = wait();
        self.collector.timeline().end(began, kind, [0; 4]);
        result
    }

    /// Gives at most so many bytes of free pages back to the system; how many it were.
    pub(crate) fn release_pages(&self, most: Bytes) -> Bytes {
        let began = self.collector.timeline().begin();
        let released = self.spans.pages().release(most, self.spans.stats().unattached());
        self.collector.timeline().end(began, Kind::Release, [released.0 as u64, 0, 0, 0]);
        self.collector.sample(&self.spans);
        released
    }
}
