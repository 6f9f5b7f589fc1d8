//! What the collector must be able to do with mutators, whoever runs them.

use crate::scan::Visitor;
use besom_alloc_core::stopped::Stopped;
use besom_alloc_core::units::Bytes;

/// The mutators of one heap, as the collector sees them.
pub trait World {
    /// Returns once no mutator runs. Until [`World::resume`] none starts to, and nobody else stops the world.
    fn stop(&self) -> Stopped<'_>;

    /// Lets the mutators run again.
    fn resume(&self, stopped: Stopped<'_>);

    /// Gives every cached span back, with its unused slots, and brings the statistics up to date.
    fn flush_caches(&self, stopped: &Stopped<'_>);

    /// Shows every root to the visitor; returns the bytes that were looked at.
    fn visit_roots(&self, stopped: &Stopped<'_>, visitor: &mut dyn Visitor) -> Bytes;
}
