//! The capability of a stopped world.

use std::marker::PhantomData;

/// Proof that no mutator of the heap runs, and none starts to while this value lives. Who stops the world
/// makes one; what may only be done then takes it by reference.
pub struct Stopped<'w>(PhantomData<&'w ()>);

impl<'w> Stopped<'w> {
    /// # Safety
    /// Every mutator of the heap must be parked, blocked or detached, and must stay so for `'w`.
    pub unsafe fn new() -> Stopped<'w> {
        Stopped(PhantomData)
    }
}
