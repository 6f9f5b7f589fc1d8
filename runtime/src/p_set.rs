//! The set of a heap's Ps: which there are, and how it is held still.
//!
//! A P joins before it first writes a statistic, and leaves after its last, so a reader that pins the set misses none of
//! them. The lock is held for one store, or for a walk over the set: never while a cache is released or the system is
//! asked for memory. So who pins the set waits for nothing long. No lock but the statistics' is taken inside.

use besom_alloc_core::heap_tables::ZeroedTable;
use besom_alloc_core::os::OutOfMemory;
use besom_stats::fatal;
use besom_stats::sync::raw::{AtomicU32, AtomicU64, Ordering::*};
use besom_stats::sync::{Held, Mutex, MutexGuard, hold, lock};
use std::marker::PhantomData;

/// Ps by number; `T` is a P.
///
/// - `places[n]` is the address of a box that the set owns, or 0, and 0 from `used` on
pub struct PSet<T: Send + Sync> {
    places: ZeroedTable<AtomicU64>,
    used: AtomicU32,
    pin: Mutex<()>,
    _owns: PhantomData<Box<T>>,
}

impl<T: Send + Sync> PSet<T> {
    /// An empty set with room for `most`.
    pub fn new(most: usize) -> Result<PSet<T>, OutOfMemory> {
        Ok(PSet {
            places: ZeroedTable::new(most)?,
            used: AtomicU32::new(0),
            pin: Mutex::new(()),
            _owns: PhantomData,
        })
    }

    /// Adds a P under a number that is free.
    pub fn insert(&self, number: u32, p: Box<T>) {
        let address = Box::into_raw(p).expose_provenance();
        let _pin = lock(&self.pin);
        let before = self.places.get(number as usize).swap(address as u64, AcqRel);
        if before != 0 {
            fatal(format_args!("P {number} is there already"));
        }
        self.used.fetch_max(number + 1, AcqRel);
    }

    /// Takes a P out of the set, if it is there.
    ///
    /// # Safety
    /// Nobody holds it, and nobody is in [`Self::iter`].
    pub unsafe fn remove(&self, number: u32) -> Option<Box<T>> {
        let _pin = lock(&self.pin);
        let p = self.get(number).cast_mut();
        self.places.get(number as usize).store(0, Release);
        // SAFETY: it came from a box in `insert`, and the place, which was the only one, is empty now; nobody uses it
        // otherwise, by the caller's promise and the pin.
        (!p.is_null()).then(|| unsafe { Box::from_raw(p) })
    }

    /// The P of this number; null if there is none. It lives while somebody holds it.
    pub fn get(&self, number: u32) -> *const T {
        std::ptr::with_exposed_provenance(self.places.get(number as usize).load(Acquire) as usize)
    }

    /// Holds the set as it is: none comes or goes while the answer lives.
    pub fn pin(&self) -> Pinned<'_, T> {
        Pinned { set: self, _pin: lock(&self.pin) }
    }

    /// The same, for who is not interested in them.
    pub fn hold(&self) -> Held<'_> {
        hold(&self.pin)
    }

    /// Every P there is.
    ///
    /// # Safety
    /// None may go meanwhile.
    pub unsafe fn iter(&self) -> impl Iterator<Item = &T> {
        // SAFETY: boxed until it is taken out, which the caller excludes.
        (0..self.used.load(Acquire)).filter_map(|number| unsafe { self.get(number).as_ref() })
    }
}

/// The set, held as it is.
pub struct Pinned<'s, T: Send + Sync> {
    set: &'s PSet<T>,
    _pin: MutexGuard<'s, ()>,
}

impl<T: Send + Sync> Pinned<'_, T> {
    /// Every P there is.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        // SAFETY: none goes without the pin.
        unsafe { self.set.iter() }
    }
}

impl<T: Send + Sync> Drop for PSet<T> {
    fn drop(&mut self) {
        for number in 0..*self.used.get_mut() {
            // SAFETY: the set is going, so nobody holds any of them.
            drop(unsafe { self.remove(number) });
        }
    }
}
