//! Cleanups: functions that the VM has run once an object is dead. They do not get the object.
//!
//! One is cancelled, or found due, by compare-and-swap on its state, so that only one of the two happens, and the
//! collector's walk takes no lock (there is a loom model).

use super::due::{Item, Links, List};
use super::slab::{Slab, Slot};
use besom_alloc_core::os::OutOfMemory;
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::units::Bytes;
use besom_stats::sync;
use besom_stats::sync::{AtomicU64, AtomicUsize, Ordering::*};
use besom_stats::{SysMemStat, fatal};

/// The share of the reservation that cleanups may take: 27 million at 1 TiB. Higher: address space. Lower: a VM with a
/// cleanup an object runs out.
const RESERVE_SHARE: usize = 1024;
/// Bytes for those of a small heap: 800,000.
const LEAST: usize = 32 << 20;

/// Nobody's.
const FREE: u64 = 0;
/// Its object was alive when it was last looked at.
const WAITING: u64 = 1;
/// Its object is dead.
const DUE: u64 = 2;
const STATES: u64 = 3;

/// One cleanup.
///
/// - `state == generation << 2 | FREE, WAITING or DUE`; the generation counts the entry's uses
/// - `link` is that of free entries when it is free, that of the due queue when it is due
/// - the others are written while it is free, by who took it, and do not change until it is free again
#[derive(Default)]
#[repr(C)]
pub struct CleanupEntry {
    object: AtomicUsize,
    run: AtomicUsize,
    arg: AtomicUsize,
    state: AtomicU64,
    link: AtomicU64,
}

// SAFETY: made of atomics; a state of 0 is a free entry's.
unsafe impl Slot for CleanupEntry {
    fn link(&self) -> &AtomicU64 {
        &self.link
    }
}

impl CleanupEntry {
    /// Makes a cleanup of a free entry, which is the caller's; its generation.
    pub fn fill(&self, object: usize, run: usize, arg: usize) -> u32 {
        let generation = (self.state.load(Relaxed) >> 2) + 1;
        self.object.store(object, Relaxed);
        self.run.store(run, Relaxed);
        self.arg.store(arg, Relaxed);
        self.state.store(generation << 2 | WAITING, Release);
        generation as u32
    }

    /// Cancels it if it waits still, in this generation; the entry is the caller's then.
    pub fn cancel(&self, generation: u32) -> bool {
        let state = self.state.load(Relaxed);
        state & STATES == WAITING
            && (state >> 2) as u32 == generation
            && self.state.compare_exchange(state, state & !STATES, AcqRel, Relaxed).is_ok()
    }

    /// Makes it due if its object is not marked; whether it did, and it is the caller's to queue.
    pub fn due_if_dead(&self, is_marked: impl FnOnce(usize) -> bool) -> bool {
        let state = self.state.load(Acquire);
        // If it is cancelled and filled anew meanwhile, the generation is another, whatever was read.
        state & STATES == WAITING
            && !is_marked(self.object.load(Relaxed))
            && self.state.compare_exchange(state, state & !STATES | DUE, AcqRel, Relaxed).is_ok()
    }

    /// Frees a due one, which the caller took from the queue: what is to be run, with what.
    pub fn take(&self) -> (usize, usize) {
        let what = (self.run.load(Relaxed), self.arg.load(Relaxed));
        self.state.store(self.state.load(Relaxed) & !STATES | FREE, Release);
        what
    }
}

/// The cleanups of one heap.
pub struct Cleanups {
    slab: Slab<CleanupEntry>,
}

impl Cleanups {
    /// None yet.
    pub fn new(reserve: Bytes) -> Result<Cleanups, OutOfMemory> {
        Ok(Cleanups { slab: Slab::new((reserve.0 / RESERVE_SHARE).max(LEAST), 64 << 10)? })
    }

    /// Keeps everybody from adding and cancelling one.
    pub fn hold(&self) -> sync::Held<'_> {
        self.slab.hold_out()
    }

    /// Has `run(arg)` run once the object is dead; what names that, never 0, or `None` when there is no room.
    pub fn add(&self, object: usize, run: usize, arg: usize, memory: &SysMemStat) -> Option<u64> {
        let index = self.slab.hold().take(memory)?;
        let generation = self.slab.get(index).fill(object, run, arg);
        // From generation 0, when the number wraps, an index of 0 would be no name.
        Some(u64::from(generation) << 32 | (index as u64 + 1))
    }

    /// Cancels one; false if it is due, run, cancelled, or never was.
    pub fn cancel(&self, name: u64) -> bool {
        let Some(index) = (name as u32).checked_sub(1).map(|index| index as usize) else { return false };
        let cancelled = index < self.slab.used() && self.slab.get(index).cancel((name >> 32) as u32);
        if cancelled {
            self.slab.hold().give(index);
        }
        cancelled
    }

    /// Adds those whose objects are not marked to the list. Takes no lock.
    pub(super) fn collect_dead(&self, heap: &SpanHeap, list: &mut List, links: &impl Links) {
        for index in 0..self.slab.used() {
            if self.slab.get(index).due_if_dead(|object| super::is_marked(heap, object)) {
                list.push(Item::cleanup(index), links);
            }
        }
    }

    /// The link of a due one.
    pub(super) fn link(&self, index: usize) -> &AtomicU64 {
        &self.slab.get(index).link
    }

    /// Frees a due one, which the caller took from the queue: what is to be run, with what.
    pub fn take(&self, index: usize) -> (usize, usize) {
        let what = self.slab.get(index).take();
        self.slab.hold().give(index);
        what
    }

    /// How many there are, due ones too.
    pub fn count(&self) -> usize {
        self.slab.live()
    }

    /// Bytes that they take, free ones too.
    pub fn bytes(&self) -> Bytes {
        self.slab.bytes()
    }

    /// Aborts if one waits for an object that is not marked: after the dead were collected, in a stopped world.
    pub(crate) fn verify(&self, heap: &SpanHeap) {
        for entry in (0..self.slab.used()).map(|index| self.slab.get(index)) {
            let object = entry.object.load(Relaxed);
            if entry.state.load(Relaxed) & STATES == WAITING && !super::is_marked(heap, object) {
                fatal(format_args!("verify: a cleanup waits for {object:#x}, which is not marked"));
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    static MEMORY: SysMemStat = SysMemStat::new();

    #[test]
    fn one_is_cancelled_or_due_and_once() {
        let entry = CleanupEntry::default();
        let first = entry.fill(64, 1, 2);
        assert!(!entry.due_if_dead(|_| true));
        assert!(entry.cancel(first) && !entry.cancel(first));
        assert!(!entry.due_if_dead(|_| unreachable!("nobody waits")));
        let second = entry.fill(96, 3, 4);
        assert!(!entry.cancel(first), "of a former use");
        assert!(entry.due_if_dead(|object| object != 96));
        assert!(!entry.due_if_dead(|_| unreachable!("it is due already")) && !entry.cancel(second));
        assert_eq!(entry.take(), (3, 4));
        assert!(!entry.cancel(second));
    }

    #[test]
    fn names_are_never_zero_and_never_of_two() {
        let cleanups = Cleanups::new(Bytes(1 << 30)).expect("cleanups");
        let mut names: Vec<u64> = (0..100).map(|n| cleanups.add(64, n, n, &MEMORY).expect("room")).collect();
        for name in names.clone() {
            assert!(cleanups.cancel(name) && !cleanups.cancel(name));
            names.push(cleanups.add(64, 0, 0, &MEMORY).expect("room"));
        }
        assert_eq!((cleanups.count(), cleanups.bytes()), (100, Bytes(100 * size_of::<CleanupEntry>())));
        names.sort_unstable();
        names.dedup();
        assert_eq!((names.len(), names[0] > 0), (200, true));
        for wrong in [0, u64::MAX, 1, 101, 1 << 32, names[0] | 1 << 63] {
            assert!(!cleanups.cancel(wrong), "{wrong:#x}");
        }
    }
}
