//! How far a cycle has come, as mutators see it.

use besom_stats::sync::raw::{AtomicU8, Ordering::Relaxed};

/// What the collector does beside the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Nothing that a mutator need know.
    Idle,
    /// Marking: stores into the heap are watched, objects are born black.
    Marking,
    /// What is reachable is known: what is not marked is dead for everybody. Objects are born black.
    Resolving,
}

/// The phase of one heap. It changes while the world is stopped only, so that a mutator sees one from safepoint to
/// safepoint; the stop's locks order everything else.
#[derive(Default)]
pub struct PhaseCell(AtomicU8);

impl PhaseCell {
    /// Idle.
    pub fn new() -> PhaseCell {
        PhaseCell::default()
    }

    /// The phase.
    #[inline(always)]
    pub fn get(&self) -> Phase {
        match self.0.load(Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Marking,
            _ => Phase::Resolving,
        }
    }

    /// Changes it; in a stopped world, or before anybody knows the heap.
    pub fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Relaxed);
    }
}
