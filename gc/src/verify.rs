//! The second marker: single-threaded, in the stopped world, with bits of its own.
//!
//! It goes breadth first over everything reachable and keeps for each object who led to it, so that an object
//! that the first marker missed is reported with its path from the root. Its memory is three mappings, sized by
//! the heap (the third is touched for ephemerons only): nothing is allocated. Ephemerons are at rest meanwhile: their links
//! are its own.

use crate::scan::{Shapes, Visitor, scan_object};
use crate::specials::ephemerons::Ephemeron;
use besom_alloc_core::heap_tables::GRANULE;
use besom_alloc_core::os::Mapping;
use besom_alloc_core::span_class::SpanClass;
use besom_alloc_core::span_heap::{Found, SpanHeap};
use besom_alloc_core::units::Bytes;
use besom_stats::fatal;
use bitvec::prelude::{BitSlice, Lsb0};
use std::fmt;

/// Objects of a path that are printed: those nearest to the object.
const PATH_MOST: usize = 8;
/// The parent of what a root leads to.
const ROOT: usize = usize::MAX;

/// An object that was reached: where it is, and the index of the entry that led to it. 16 bytes, since there is room
/// for one an object: an index of 32 bits would do up to a heap of 64 GiB only.
#[derive(Clone, Copy)]
#[repr(C)]
struct Reached {
    /// offset | class << 48.
    packed: u64,
    parent: usize,
}

impl Reached {
    fn new(offset: usize, class: SpanClass, parent: usize) -> Reached {
        debug_assert!(offset < 1 << 48);
        Reached { packed: offset as u64 | u64::from(class.0) << 48, parent }
    }

    fn offset(self) -> usize {
        (self.packed & ((1 << 48) - 1)) as usize
    }

    fn class(self) -> SpanClass {
        SpanClass((self.packed >> 48) as u16)
    }
}

struct Verifier<'a> {
    heap: &'a SpanHeap,
    shapes: &'a Shapes,
    seen: &'a mut BitSlice<u64, Lsb0>,
    queue: *mut Reached,
    /// By the granule of a key that is not seen yet: offset + 1 of the first ephemeron that waits for it.
    waiting: *mut u64,
    len: usize,
    parent: usize,
    /// Threads ran since the first marker looked at their native stacks. What has died since may still be named there: by
    /// a word that a call left behind, and that a later call's frame covers without having written it.
    beside: bool,
}

/// Marks again and compares; aborts on an object that is reachable and not marked. `beside`: threads ran after the first
/// marker looked at their native stacks; then what they alone name is looked at only if it is marked. Returns the objects
/// that were reached; `None` when the system refuses the memory that this takes.
pub fn verify_marks(
    heap: &SpanHeap,
    shapes: &Shapes,
    beside: bool,
    roots: impl FnOnce(&mut dyn Visitor) -> Bytes,
) -> Option<usize> {
    let granules = heap.pages().grown().bytes().0 / GRANULE;
    let bits = Mapping::lazy_zeroed((granules.div_ceil(64) * 8).max(8)).ok()?;
    let queue = Mapping::lazy_zeroed((granules * size_of::<Reached>()).max(8)).ok()?;
    let waiting = Mapping::lazy_zeroed((granules * 8).max(8)).ok()?;
    // SAFETY: the mapping is this function's own, zeroed, and of that many words.
    let words =
        unsafe { std::slice::from_raw_parts_mut(bits.ptr().cast::<u64>(), granules.div_ceil(64).max(1)) };
    let mut verifier = Verifier {
        heap,
        shapes,
        seen: BitSlice::from_slice_mut(words),
        queue: queue.ptr().cast(),
        waiting: waiting.ptr().cast(),
        len: 0,
        parent: ROOT,
        beside,
    };
    roots(&mut verifier);
    let mut at = 0;
    while at < verifier.len {
        // SAFETY: below `len`, which is at most the number of granules.
        let entry = unsafe { *verifier.queue.add(at) };
        verifier.parent = at;
        let (mut offset, class) = (entry.offset(), entry.class());
        let facts = heap.classes().get(class).facts();
        // SAFETY: `offset` was found allocated, and the world is stopped.
        while let Some(piece) = unsafe { scan_object(heap, shapes, offset, class, facts, &mut verifier) } {
            offset = piece;
        }
        verifier.wake(entry.offset());
        at += 1;
    }
    Some(verifier.len)
}

impl Verifier<'_> {
    fn reach(&mut self, address: usize, exact: bool) {
        let Some(found) = self.heap.find(address) else {
            if exact && self.heap.tables().offset_of(address).is_some() {
                fatal(format_args!("verify: {}points to {address:#x}, where no object is", self.path()));
            }
            return;
        };
        if self.seen.replace(found.offset / GRANULE, true) {
            return;
        }
        if !self.heap.tables().is_marked(found.offset) {
            fatal(format_args!(
                "verify: {}leads to {:p}, {} bytes, which is not marked",
                self.path(),
                self.heap.address(found.offset),
                found.bytes.0
            ));
        }
        // SAFETY: each object is entered once, and there are at most as many as granules.
        unsafe { *self.queue.add(self.len) = Reached::new(found.offset, found.class, self.parent) };
        self.len += 1;
    }

    fn waiting(&self, offset: usize) -> *mut u64 {
        // SAFETY: one word for each granule; the object at `offset` was found.
        unsafe { self.waiting.add(offset / GRANULE) }
    }

    fn words(&self, ephemeron: usize) -> &Ephemeron {
        // SAFETY: one that was reached, in a stopped world.
        unsafe { Ephemeron::at(self.heap, ephemeron) }
    }

    /// Reaches what ephemerons keep for the sake of the object at `offset`.
    fn wake(&mut self, offset: usize) {
        // SAFETY: the mapping is the verifier's.
        let mut at = unsafe { self.waiting(offset).replace(0) };
        while at != 0 {
            let ephemeron = self.words(at as usize - 1);
            let (value, next) = (ephemeron.contents().1, ephemeron.link());
            self.reach(value, false);
            at = next;
        }
    }

    fn path(&self) -> Path<'_> {
        Path(self)
    }
}

impl Visitor for Verifier<'_> {
    fn exact(&mut self, address: usize) {
        self.reach(address, true);
    }

    fn any(&mut self, word: usize) {
        self.reach(word, false);
    }

    fn stale(&mut self, word: usize) {
        let is_dead = |found: Found| !self.heap.tables().is_marked(found.offset);
        if !self.beside || !self.heap.find(word).is_some_and(is_dead) {
            self.reach(word, false);
        }
    }

    fn ephemeron(&mut self, offset: usize) {
        let (key, value) = self.words(offset).contents();
        let Some(at) = self.heap.tables().offset_of(key) else { return };
        if !self.heap.tables().is_marked(at) {
            fatal(format_args!("verify: {}is an ephemeron of {key:#x}, which is not marked", self.path()));
        }
        if self.seen[at / GRANULE] {
            return self.reach(value, false);
        }
        let first = self.waiting(at);
        // SAFETY: as in `wake`.
        let before = unsafe { first.replace(offset as u64 + 1) };
        self.words(offset).set_link(before);
    }

    fn shapes(&self) -> &Shapes {
        self.shapes
    }
}

struct Path<'a>(&'a Verifier<'a>);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut at = self.0.parent;
        if at == ROOT {
            return f.write_str("a root ");
        }
        for n in 0..PATH_MOST {
            // SAFETY: parents are indices of entries before.
            let entry = unsafe { *self.0.queue.add(at) };
            write!(f, "{}{:p} ", if n == 0 { "" } else { "from " }, self.0.heap.address(entry.offset()))?;
            if entry.parent == ROOT {
                return f.write_str("from a root ");
            }
            at = entry.parent;
        }
        f.write_str("... ")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_entry_holds_any_offset_class_and_parent() {
        for (offset, class, parent) in
            [(0, 0, ROOT), ((1 << 47) + 16, 1358, 1 << 32), (16, u16::MAX, (1 << 43) + 5)]
        {
            let entry = Reached::new(offset, SpanClass(class), parent);
            assert_eq!((entry.offset(), entry.class(), entry.parent), (offset, SpanClass(class), parent));
        }
    }
}
