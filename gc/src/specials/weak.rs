//! Weak references: entries that name an object and do not keep it.
//!
//! The collector clears an entry once its object is found dead, before any finalizer sees the object. It may do so
//! beside the program: an entry changes from its object to 0 once, by compare-and-swap, and who reads it meanwhile
//! looks at the mark, and then at the entry again (see [`WeakEntry::read`]; there is a loom model).

use super::slab::{Slab, Slot};
use crate::phase::Phase;
use besom_alloc_core::os::OutOfMemory;
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::units::Bytes;
use besom_stats::sync;
use besom_stats::sync::{AtomicU64, AtomicUsize, Ordering::*, fence};
use besom_stats::{SysMemStat, fatal};

const LIVE: u64 = u64::MAX;
/// The share of the reservation that weak references may take: 64 million at 1 TiB. Higher: address space. Lower: a VM
/// with a weak reference an object runs out.
const RESERVE_SHARE: usize = 1024;
/// Bytes for those of a small heap: a million.
const LEAST: usize = 16 << 20;

/// One weak reference; `besom_weak` in C.
///
/// - `state == LIVE`, or the index + 1 of the next free one (0: none)
/// - `object` is 0 when the object is found dead, or the reference is free
#[derive(Default)]
#[repr(C)]
pub struct WeakEntry {
    object: AtomicUsize,
    state: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<WeakEntry>() == 16);

// SAFETY: made of atomics; a state of 0 is a free entry's.
unsafe impl Slot for WeakEntry {
    fn link(&self) -> &AtomicU64 {
        &self.state
    }
}

impl WeakEntry {
    /// Makes the entry, which is the caller's, name an object. The collector may look at it at the same time, for the sake
    /// of the object that it named before: by a swap the change comes before the collector's or after it. Who sees the object
    /// there sees it marked, if it was born so.
    pub fn fill(&self, object: usize) {
        self.object.swap(object, Release);
        self.state.store(LIVE, Release);
    }

    /// The object, or 0 if it is found dead. While the collector resolves, an object without a mark is dead though the
    /// entry still names it, and one with a mark may have been given it for its finalizer, after the entry was cleared:
    /// who saw that mark sees the entry cleared.
    #[inline]
    pub fn read(&self, phase: Phase, is_marked: impl FnOnce(usize) -> bool) -> usize {
        let object = self.object.load(Acquire);
        if object == 0 || phase != Phase::Resolving {
            return object;
        }
        if !is_marked(object) {
            return 0;
        }
        fence(Acquire);
        self.object.load(Relaxed)
    }

    /// Clears the entry if its object is not marked; whether it did. By the collector, before it marks anything for the
    /// sake of finalizers, and with a release fence in between.
    pub fn clear_if_dead(&self, is_marked: impl FnOnce(usize) -> bool) -> bool {
        let object = self.object.load(Acquire);
        // The entry may be freed, and taken for another object, meanwhile.
        object != 0 && !is_marked(object) && self.object.compare_exchange(object, 0, Relaxed, Relaxed).is_ok()
    }

    fn is_live(&self) -> bool {
        self.state.load(Acquire) == LIVE
    }
}

/// The weak references of one heap.
pub struct Weaks {
    slab: Slab<WeakEntry>,
}

impl Weaks {
    /// None yet.
    pub fn new(reserve: Bytes) -> Result<Weaks, OutOfMemory> {
        Ok(Weaks { slab: Slab::new((reserve.0 / RESERVE_SHARE).max(LEAST), 64 << 10)? })
    }

    /// Keeps everybody from making and freeing one.
    pub fn hold(&self) -> sync::Held<'_> {
        self.slab.hold_out()
    }

    /// A weak reference to an object, or `None` when there is no room. `memory` counts what they take.
    pub fn add(&self, object: usize, memory: &SysMemStat) -> Option<&WeakEntry> {
        let index = self.slab.hold().take(memory)?;
        let entry = self.slab.get(index);
        entry.fill(object);
        Some(entry)
    }

    /// The weak reference at an address; aborts in the name of `function` if none is there.
    #[inline]
    pub fn check(&self, address: usize, function: &str) -> &WeakEntry {
        self.checked(address, function).1
    }

    #[inline]
    fn checked(&self, address: usize, function: &str) -> (usize, &WeakEntry) {
        let Some(index) = self.slab.index_of(address) else {
            fatal(format_args!("{function}: weak reference {address:#x} is no weak reference of this heap"));
        };
        let entry = self.slab.get(index);
        if !entry.is_live() {
            fatal(format_args!("{function}: weak reference {address:#x} is freed already"));
        }
        (index, entry)
    }

    /// Frees the weak reference at an address; aborts in the name of `function` if none is there.
    pub fn remove(&self, address: usize, function: &str) {
        let mut held = self.slab.hold();
        let (index, entry) = self.checked(address, function);
        entry.object.swap(0, Relaxed);
        held.give(index);
    }

    /// Clears those whose objects are not marked. Takes no lock.
    pub(super) fn clear_dead(&self, heap: &SpanHeap) {
        for index in 0..self.slab.used() {
            self.slab.get(index).clear_if_dead(|object| super::is_marked(heap, object));
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.slab.live()
    }

    /// Bytes that they take, free ones too.
    pub fn bytes(&self) -> Bytes {
        self.slab.bytes()
    }

    /// Aborts if one names an object that is not marked: after they were cleared, in a stopped world.
    pub(crate) fn verify(&self, heap: &SpanHeap) {
        for index in 0..self.slab.used() {
            let object = self.slab.get(index).object.load(Relaxed);
            if object != 0 && !super::is_marked(heap, object) {
                fatal(format_args!("verify: a weak reference leads to {object:#x}, which is not marked"));
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    static MEMORY: SysMemStat = SysMemStat::new();

    #[test]
    fn an_entry_is_cleared_once_its_object_is_dead() {
        let entry = WeakEntry::default();
        entry.fill(64);
        assert!(!entry.clear_if_dead(|_| true));
        for phase in [Phase::Idle, Phase::Marking] {
            assert_eq!(entry.read(phase, |_| unreachable!("looked at while nothing is resolved")), 64);
        }
        assert_eq!(entry.read(Phase::Resolving, |_| true), 64);
        assert_eq!(entry.read(Phase::Resolving, |_| false), 0, "dead, and not cleared yet");
        assert!(entry.clear_if_dead(|object| object != 64));
        assert!(!entry.clear_if_dead(|_| unreachable!("there is nothing to clear")));
        assert_eq!(entry.read(Phase::Resolving, |_| true), 0, "marked again, for its finalizer");
        assert_eq!(entry.read(Phase::Idle, |_| true), 0);
    }

    #[test]
    fn many_name_one_object() {
        let weaks = Weaks::new(Bytes(1 << 30)).expect("weak references");
        let all: Vec<usize> =
            (0..1000).map(|_| std::ptr::from_ref(weaks.add(4096, &MEMORY).expect("room")).addr()).collect();
        assert_eq!((weaks.count(), weaks.bytes()), (1000, Bytes(16_000)));
        for (n, address) in all.iter().enumerate() {
            assert_eq!(weaks.check(*address, "test").read(Phase::Idle, |_| true), 4096);
            if n % 2 == 0 {
                weaks.remove(*address, "test");
            }
        }
        assert_eq!((weaks.count(), weaks.bytes()), (500, Bytes(16_000)));
        weaks.add(8192, &MEMORY).expect("room");
        assert_eq!(
            weaks.check(all[998], "test").read(Phase::Idle, |_| true),
            8192,
            "the last freed is taken"
        );
    }
}
