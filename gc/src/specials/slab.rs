//! Entries of one size in a mapping: reserved with the heap, committed as they are used, and never moved.
//!
//! So nothing is allocated while the world is stopped, an entry's address tells whether it is one, and the collector
//! walks an array, beside threads that add and remove entries: it sees an entry as it is at that moment.

use besom_alloc_core::os::{Mapping, OutOfMemory};
use besom_alloc_core::units::Bytes;
use besom_stats::SysMemStat;
use besom_stats::sync;
use besom_stats::sync::raw::{AtomicUsize, Ordering::*};
use besom_stats::sync::{AtomicU64, Mutex, MutexGuard, Ordering, lock};
use std::marker::PhantomData;

/// What a slab is made of.
///
/// # Safety
/// All zero bits must be a valid value, of an entry that is not in use.
pub unsafe trait Slot: Sync {
    /// The word that links free entries; what else it is for is the entry's business while it is in use.
    fn link(&self) -> &AtomicU64;
}

struct Free {
    /// Index + 1 of the first free entry.
    head: u64,
    /// Entries from here on were never used.
    fresh: usize,
}

/// The entries of one sort of one heap.
///
/// - `live <= used <=` those that the mapping has room for
pub struct Slab<T> {
    mapping: Mapping,
    free: Mutex<Free>,
    /// `fresh`, for those who only look.
    used: AtomicUsize,
    live: AtomicUsize,
    _of: PhantomData<T>,
}

// SAFETY: only shared references to `T: Sync` are handed out.
unsafe impl<T: Slot> Sync for Slab<T> {}
// SAFETY: the mapping is owned, and `T` is not tied to a thread.
unsafe impl<T: Slot> Send for Slab<T> {}

impl<T: Slot> Slab<T> {
    /// No entries, and room for `bytes` of them, or for less, down to `least`, if the system refuses.
    pub fn new(bytes: usize, least: usize) -> Result<Slab<T>, OutOfMemory> {
        Ok(Slab {
            mapping: Mapping::lazy_zeroed_down_to(bytes, least)?,
            free: Mutex::new(Free { head: 0, fresh: 0 }),
            used: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
            _of: PhantomData,
        })
    }

    /// An entry that was used once.
    #[inline]
    pub fn get(&self, index: usize) -> &T {
        debug_assert!(index < self.used());
        // SAFETY: an index below `used` lies in the mapping, which is made of entries; zero is a valid one.
        unsafe { &*self.mapping.ptr().cast::<T>().add(index) }
    }

    /// The index of the entry at an address, if one was ever there.
    #[inline]
    pub fn index_of(&self, address: usize) -> Option<usize> {
        let offset = address.wrapping_sub(self.mapping.ptr().addr());
        let index = offset / size_of::<T>();
        (index < self.used() && offset.is_multiple_of(size_of::<T>())).then_some(index)
    }

    /// Entries that were ever used: the first ones.
    #[inline]
    pub fn used(&self) -> usize {
        self.used.load(Acquire)
    }

    /// Entries in use.
    pub fn live(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// Bytes of all that were ever used.
    pub fn bytes(&self) -> Bytes {
        Bytes(self.used() * size_of::<T>())
    }

    /// Keeps everybody from taking and giving entries.
    pub fn hold_out(&self) -> sync::Held<'_> {
        sync::hold(&self.free)
    }

    /// The right to take and give entries.
    pub fn hold(&self) -> Held<'_, T> {
        Held { slab: self, free: lock(&self.free) }
    }
}

/// The free entries, held.
pub struct Held<'s, T> {
    slab: &'s Slab<T>,
    free: MutexGuard<'s, Free>,
}

impl<T: Slot> Held<'_, T> {
    /// An entry for the caller to fill, or `None` when there is no room. `memory` counts what entries take.
    pub fn take(&mut self, memory: &SysMemStat) -> Option<usize> {
        let slab = self.slab;
        let index = if self.free.head != 0 {
            let index = (self.free.head - 1) as usize;
            self.free.head = slab.get(index).link().load(Ordering::Relaxed);
            index
        } else {
            if (self.free.fresh + 1) * size_of::<T>() > slab.mapping.len() {
                return None;
            }
            self.free.fresh += 1;
            memory.add(size_of::<T>() as i64);
            slab.used.store(self.free.fresh, Release);
            self.free.fresh - 1
        };
        slab.live.fetch_add(1, Relaxed);
        Some(index)
    }

    /// Takes back an entry, which nobody uses any more.
    pub fn give(&mut self, index: usize) {
        self.slab.get(index).link().store(self.free.head, Ordering::Release);
        self.free.head = index as u64 + 1;
        self.slab.live.fetch_sub(1, Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    static MEMORY: SysMemStat = SysMemStat::new();

    #[derive(Default)]
    #[repr(C)]
    struct Entry(AtomicU64, AtomicU64);

    // SAFETY: made of atomics.
    unsafe impl Slot for Entry {
        fn link(&self) -> &AtomicU64 {
            &self.1
        }
    }

    #[test]
    fn what_was_given_last_is_taken_first() {
        let slab = Slab::<Entry>::new(1 << 16, 1 << 16).expect("a slab");
        let taken: Vec<_> = (0..3).map(|_| slab.hold().take(&MEMORY).expect("room")).collect();
        assert_eq!((taken, slab.live(), slab.bytes()), (vec![0, 1, 2], 3, Bytes(48)));
        slab.hold().give(0);
        slab.hold().give(2);
        assert_eq!((slab.live(), slab.used()), (1, 3));
        let again: Vec<_> = (0..3).map(|_| slab.hold().take(&MEMORY).expect("room")).collect();
        assert_eq!((again, slab.used()), (vec![2, 0, 3], 4));
        let address = |index| std::ptr::from_ref(slab.get(index)).addr();
        assert_eq!((slab.index_of(address(3)), slab.index_of(address(3) + 8)), (Some(3), None));
        assert_eq!((slab.index_of(address(3) + 16), slab.index_of(address(0) - 16)), (None, None));
    }

    #[test]
    fn the_mapping_is_the_limit() {
        let slab = Slab::<Entry>::new(1 << 12, 1 << 12).expect("a slab");
        let room = slab.mapping.len() / 16;
        (0..room).for_each(|n| assert_eq!(slab.hold().take(&MEMORY), Some(n)));
        assert_eq!((slab.hold().take(&MEMORY), slab.live()), (None, room));
    }
}
