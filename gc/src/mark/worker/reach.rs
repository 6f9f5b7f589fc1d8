//! How a worker comes to objects: an edge that it is shown, a mark, and a place in the queue.

use super::{Entry, ODD_SLOT, Worker};
use crate::mark::Shared;
use crate::scan::{Shapes, Visitor};
use crate::specials::ephemerons::Scanned;
use besom_alloc_core::heap_tables::{WORDS_PER_PAGE, mark_word};
use besom_alloc_core::size_class::{SIZE_CLASS_COUNT, SizeClass};
use besom_alloc_core::span_class::{EPHEMERON, FIRST_LAYOUT, Kind, SpanClass};
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::units::{PAGE_SHIFT, PAGE_SIZE};
use besom_stats::sync::raw::{AtomicU64, Ordering::*};

/// Class + 1 of the first class whose objects are scanned; below are no span (0) and pointer-free objects.
pub(super) const FIRST_SCANNED: u16 = SIZE_CLASS_COUNT as u16 + 1;
/// Class + 1 of the first class of objects with a trace function. After those come layouts that share spans, ephemerons, and
/// the layouts' own classes.
pub(super) const FIRST_TRACED: u16 = SpanClass::new(Kind::Traced, SizeClass(0)).0 + 1;
/// Class + 1 of the first of these.
const FIRST_OWN: u16 = FIRST_LAYOUT as u16 + 1;
const _: () =
    assert!(FIRST_SCANNED < FIRST_TRACED && EPHEMERON.0 + 1 < FIRST_OWN && FIRST_TRACED <= EPHEMERON.0);

/// Sets marks in a word of the bitmap, and counts those that another worker has set meanwhile, who has marked and scanned their
/// objects, too.
#[inline(always)]
fn set_marks(marks: &[AtomicU64], heap: &SpanHeap, shared: &Shared, index: usize, bits: u64) {
    debug_assert!(index < marks.len());
    // SAFETY: the index is that of an offset that was looked at.
    let twice = unsafe { marks.get_unchecked(index) }.fetch_or(bits, Relaxed) & bits;
    if twice != 0 {
        count_twice(heap, shared, index, twice);
    }
}

#[cold]
#[inline(never)]
fn count_twice(heap: &SpanHeap, shared: &Shared, index: usize, twice: u64) {
    let (span, _) = heap.span_of(index / WORDS_PER_PAGE * PAGE_SIZE);
    shared.twice.fetch_add(twice.count_ones() as usize * span.slot_bytes(), Relaxed);
}

impl<const PARALLEL: bool> Worker<'_, PARALLEL> {
    /// Marks what starts at `offset`; true for who did it, of whom there may be several: see [`super::held`].
    ///
    /// Marked at once is what starts a page, as large objects do, which nobody is to scan twice, and everything while ephemerons
    /// are watched, since who waits for a key must see its mark.
    #[inline(always)]
    pub(super) fn mark(&mut self, offset: usize) -> bool {
        self.mark_unless(offset, self.holds)
    }

    /// Marks likewise; at once if none of these bits is set in the offset: then one alone is told that he did it.
    #[inline(always)]
    fn mark_unless(&mut self, offset: usize, holds: usize) -> bool {
        let (index, bit) = mark_word(offset);
        // SAFETY: as in `encoded_class`.
        let word = unsafe { self.marks.get_unchecked(index) };
        let old = word.load(Relaxed);
        if old & bit != 0 {
            return false;
        }
        if !PARALLEL {
            word.store(old | bit, Relaxed);
            return true;
        }
        if offset & holds == 0 {
            return word.fetch_or(bit, Relaxed) & bit == 0;
        }
        let (marks, heap, shared) = (self.marks, self.heap, self.shared);
        self.held.mark(index, bit, |index, bits| set_marks(marks, heap, shared, index, bits))
    }

    /// Sets the marks that are held back.
    pub(super) fn set_held(&mut self) {
        let (marks, heap, shared) = (self.marks, self.heap, self.shared);
        self.held.set_all(|index, bits| set_marks(marks, heap, shared, index, bits));
    }

    /// The class + 1 of the page at `offset`; 0 if no span is there.
    #[inline(always)]
    pub(super) fn encoded_class(&self, offset: usize) -> u16 {
        debug_assert!(offset < self.len);
        // SAFETY: the offset is below the reservation's length, and the table has an entry for each page of it.
        unsafe { self.page_classes.get_unchecked(offset >> PAGE_SHIFT) }.load(Relaxed)
    }

    /// A pointer to an object of this class (+ 1): who marks it queues it.
    #[inline(always)]
    pub(super) fn reach(&mut self, offset: usize, encoded_class: u16) {
        if encoded_class < FIRST_SCANNED {
            self.reach_noscan(offset, encoded_class);
        } else if encoded_class >= FIRST_TRACED {
            self.reach_traced(offset, encoded_class);
        } else if self.mark(offset) {
            self.push(Entry::new(offset, encoded_class));
        }
    }

    /// The same for an object with a trace function or a layout, or an ephemeron.
    #[inline(always)]
    fn reach_traced(&mut self, offset: usize, encoded_class: u16) {
        let is_own = encoded_class >= FIRST_OWN;
        // A trace function is not to see an object twice at the same time. Layouts that share spans go the same way.
        let holds = if is_own { self.holds } else { 0 };
        if !self.mark_unless(offset, holds) {
            return;
        }
        if is_own && self.count_pointer_free(encoded_class) {
            return self.wake(offset);
        }
        self.push(Entry::new(offset, encoded_class));
    }

    /// Queues the ephemerons whose key is at `offset`, if any are watched: that is marked, and is scanned now, or never will be.
    /// They were scanned before, and are queued rather than scanned at once, since a chain of them may be long.
    #[inline(always)]
    pub(super) fn wake(&mut self, offset: usize) {
        if self.watch != 0 {
            self.wake_watched(offset);
        }
    }

    #[cold]
    #[inline(never)]
    fn wake_watched(&mut self, offset: usize) {
        let (heap, shared) = (self.heap, self.shared);
        shared.ephemerons.wake(heap, offset, |ephemeron| self.push(Entry::new(ephemeron, EPHEMERON.0 + 1)));
    }

    /// Counts an object of a layout's own class, if the layout has no pointers; else it is to be queued.
    #[inline(always)]
    fn count_pointer_free(&mut self, encoded_class: u16) -> bool {
        let info = self.info(SpanClass(encoded_class - 1));
        let facts = info.facts();
        if facts.pointer_free {
            self.live += facts.slot_bytes as usize;
        }
        facts.pointer_free
    }

    /// A pointer to an object without pointers, or to no object: marked and counted, never queued.
    #[inline(always)]
    fn reach_noscan(&mut self, offset: usize, encoded_class: u16) {
        match encoded_class {
            0 => {}
            1 => {
                let (span, page) = self.heap.span_of(offset);
                if self.mark(page.offset()) {
                    self.live += span.pages().bytes().0;
                    self.wake(page.offset());
                }
            }
            _ => {
                if self.mark(offset) {
                    self.live += self.info(SpanClass(encoded_class - 1)).facts().slot_bytes as usize;
                    self.wake(offset);
                }
            }
        }
    }
}

impl<const PARALLEL: bool> Visitor for Worker<'_, PARALLEL> {
    #[inline(always)]
    fn exact(&mut self, address: usize) {
        let offset = address.wrapping_sub(self.base);
        if offset >= self.len {
            return;
        }
        self.reach(offset, self.encoded_class(offset));
    }

    #[inline(always)]
    fn any(&mut self, word: usize) {
        let offset = word.wrapping_sub(self.base);
        if offset >= self.len {
            return;
        }
        // The word may lie in a page that is just becoming a span: the class comes last.
        let class = self.page_classes[offset >> PAGE_SHIFT].load(Acquire);
        if class == 0 {
            return;
        }
        let class = SpanClass(class - 1);
        // No other object's start shares a granule with an object's inside, but where slots are no multiples of it.
        if self.info(class).facts().slot_bytes != ODD_SLOT && self.heap.tables().is_marked(offset) {
            return;
        }
        if let Some(found) = self.heap.find_in(offset, class) {
            self.reach(found.offset, class.0 + 1);
        }
    }

    #[cold]
    #[inline(never)]
    fn ephemeron(&mut self, offset: usize) {
        // Its key may be marked by this worker. And one that is scanned again does not add to `live`.
        self.set_held();
        self.look_at = 0;
        let Scanned { value, again } = self.shared.ephemerons.scan(self.heap, offset);
        if again {
            // Counted at its first scan, and just now.
            self.live -= self.info(EPHEMERON).facts().slot_bytes as usize;
        } else {
            // It may itself be a key. Once, or a chain of such would be walked from each link anew.
            self.wake(offset);
        }
        self.any(value);
    }

    fn shapes(&self) -> &Shapes {
        self.shapes
    }
}
