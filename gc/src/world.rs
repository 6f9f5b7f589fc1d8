//! What the collector must be able to do with mutators, whoever runs them.

use crate::scan::Visitor;
use besom_alloc_core::stopped::Stopped;
use besom_alloc_core::units::Bytes;
use std::time::Instant;

/// The mutators of one heap, as the collector sees them.
pub trait World: Sync {
    /// Has `action` run once while no mutator runs, none starts to, and nobody else stops the world, and lets them run again; when that
    /// was. On the calling thread, or on the last mutator's that came to stop: it need not wait until the caller is awake.
    fn in_stop(&self, action: &mut (dyn FnMut(&Stopped<'_>) + Send)) -> Instant;

    /// Gives every cached span back, with its unused slots, and brings the statistics up to date.
    fn flush_caches(&self, stopped: &Stopped<'_>);

    /// Shows every root to the visitor; returns the bytes that were looked at.
    fn visit_roots(&self, stopped: &Stopped<'_>, visitor: &mut dyn Visitor) -> Bytes;

    /// Marking beside the program begins: stores are watched from here on, and the roots of all mutators are grey. From the
    /// resume on each mutator scans its own before it goes on.
    fn begin_marking(&self, stopped: &Stopped<'_>);

    /// It ends: stores are watched no more.
    fn end_marking(&self, stopped: &Stopped<'_>);

    /// Shows the roots that only a stop holds still. Nobody knows their bytes.
    fn visit_still_roots(&self, stopped: &Stopped<'_>, visitor: &mut dyn Visitor);

    /// While marking, shows the roots that belong to no mutator, as they were when it began; the bytes.
    fn visit_shared_roots(&self, visitor: &mut dyn Visitor) -> Bytes;

    /// While marking, shows the roots of those mutators that do not run; the bytes, and whether the roots of all have been
    /// scanned. Those that run are about to scan their own.
    fn visit_resting_roots(&self, visitor: &mut dyn Visitor) -> (Bytes, bool);

    /// Returns once every mutator that runs has handed in what it overwrote.
    fn handshake(&self);

    /// Mutators that run.
    fn running(&self) -> usize;
}
