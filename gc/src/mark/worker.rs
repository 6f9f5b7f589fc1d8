//! One mark worker: its stack, its prefetch queue, what it scans. How it comes to objects is in `reach`, what it exchanges with the
//! others in `exchange`.

mod exchange;
pub mod held;
mod reach;
mod short;

use super::Shared;
use super::block::{Block, Cursor};
use crate::scan::{PIECE, Shapes, scan_object};
use besom_alloc_core::heap_tables::{GRANULE, prefetch};
use besom_alloc_core::size_class::{CLASS_PAGES, CLASS_SIZE};
use besom_alloc_core::span_class::{ClassFacts, ClassInfo, Kind, SpanClass};
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::stopped::Stopped;
use besom_alloc_core::units::{Bytes, PAGE_SIZE};
use besom_stats::fatal;
use besom_stats::sync::raw::{AtomicU16, AtomicU64, Ordering::*, fence};
use held::Held;

/// Objects between their prefetch and their scan; a power of two. Higher: lines are evicted before they are used,
/// and the order leaves depth first. Lower: the scan waits for memory.
const PREFETCH: usize = 16;
/// Bytes that are scanned between two looks at whether somebody wants work. Higher: who has none waits. Lower: a shared line is read
/// more often.
const SHARE_EVERY: usize = 4 << 10;

/// An object to be scanned: `offset | PIECE_FLAG? | (class + 1) << CLASS_SHIFT`, so that the scan need not look the
/// class up again. 0 is no entry.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry(u64);

const CLASS_SHIFT: u32 = 48;
/// The entry is a large object's later piece.
const PIECE_FLAG: u64 = 1 << 47;
const NOTHING: Entry = Entry(0);

impl Entry {
    #[inline(always)]
    fn new(offset: usize, encoded_class: u16) -> Entry {
        debug_assert!(offset < 1 << 47);
        Entry(offset as u64 | u64::from(encoded_class) << CLASS_SHIFT)
    }

    #[inline(always)]
    fn offset(self) -> usize {
        (self.0 & (PIECE_FLAG - 1)) as usize
    }

    #[inline(always)]
    fn class(self) -> SpanClass {
        SpanClass(((self.0 >> CLASS_SHIFT) - 1) as u16)
    }

    fn is_piece(self) -> bool {
        self.0 & PIECE_FLAG != 0
    }
}

/// A worker. `PARALLEL` says whether other workers set mark bits at the same time.
pub struct Worker<'a, const PARALLEL: bool> {
    heap: &'a SpanHeap,
    /// The heap's reservation, and its page table: looked at for each edge.
    base: usize,
    len: usize,
    page_classes: &'a [AtomicU16],
    marks: &'a [AtomicU64],
    class_infos: &'a [ClassInfo],
    shapes: &'a Shapes,
    shared: &'a Shared,
    /// The end of the stack.
    cursor: Cursor,
    ring: [Entry; PREFETCH],
    ring_at: usize,
    live: usize,
    /// `live` at which the worker looks up from its work: see [`Worker::look_up`].
    look_at: usize,
    /// Bytes of large objects' later pieces, which `live` does not show.
    pieces: usize,
    /// What was reported of `live`, and of `done()`.
    reported: (usize, usize),
    /// 1 while ephemerons are watched, else 0: an odd bit, which sends every scan the way of [`Worker::scan_odd`]. So the
    /// watch costs an instruction an object while there is none.
    watch: usize,
    held: Held,
    /// Bits of an offset, of which one is set where a mark may be held back.
    holds: usize,
}

impl<'a, const PARALLEL: bool> Worker<'a, PARALLEL> {
    pub(super) fn new(heap: &'a SpanHeap, shapes: &'a Shapes, shared: &'a Shared, index: usize) -> Self {
        Worker::on(heap, shapes, shared, shared.pool.own(index))
    }

    fn on(heap: &'a SpanHeap, shapes: &'a Shapes, shared: &'a Shared, block: *mut Block) -> Self {
        let mut worker = Worker {
            heap,
            base: heap.tables().base(),
            len: heap.tables().len(),
            page_classes: heap.tables().page_classes(),
            marks: heap.tables().marks(),
            class_infos: heap.classes().infos(),
            shapes,
            shared,
            cursor: Cursor::bottom(block),
            ring: [NOTHING; PREFETCH],
            ring_at: 0,
            live: 0,
            look_at: 0,
            pieces: 0,
            reported: (0, 0),
            watch: 0,
            held: Held::default(),
            holds: 0,
        };
        worker.look_for_watch();
        worker
    }

    /// The worker has become active, and learns what was announced to those who do: whether ephemerons are watched.
    pub(super) fn look_for_watch(&mut self) {
        // Of weak references and ephemerons that were cleared before this worker's marks; see `WeakEntry::read`.
        fence(Release);
        let watches = self.shared.ephemerons.is_watching();
        self.watch = usize::from(watches);
        self.holds = if watches { 0 } else { PAGE_SIZE - 1 };
    }

    /// Bytes of the slots that this worker marked.
    pub fn live(&self) -> Bytes {
        Bytes(self.live)
    }

    /// Scans until no worker has anything left.
    pub fn drain(&mut self) {
        loop {
            self.drain_own(true);
            self.set_held();
            let pile = &self.shared.pile;
            match self.shared.termination.find(|| !pile.is_empty(), || pile.take()) {
                Some(block) => self.adopt(block),
                None => return,
            }
        }
    }

    /// Scans about `work` bytes, or until this worker's stack is empty: true.
    pub(super) fn drain_some(&mut self, work: usize) -> bool {
        self.drain_until(self.done() + work, true)
    }

    /// Bytes of what this worker has marked and scanned.
    #[inline(always)]
    pub(super) fn done(&self) -> usize {
        self.live + self.pieces
    }

    /// Scans until this worker's stack is empty.
    fn drain_own(&mut self, shares: bool) {
        self.drain_until(usize::MAX, shares);
    }

    /// Scans until this worker's stack is empty, true, or until it has done so much. `shares`: others may have some of its work.
    #[inline(always)]
    fn drain_until(&mut self, end: usize, shares: bool) -> bool {
        self.look_at = self.live;
        // The ring is empty once as many turns have found nothing as it has places.
        let mut empty = 0;
        while empty < PREFETCH {
            // It puts entries into the ring only if the stack is not empty, and then `empty` is 0.
            let odd = self.take_short_way();
            if odd != NOTHING {
                self.scan(odd);
                empty = 0;
            }
            if PARALLEL && self.live >= self.look_at && self.look_up(end, shares) {
                return false;
            }
            let entry = match self.pop() {
                Some(entry) => {
                    empty = 0;
                    prefetch(std::ptr::without_provenance(self.base + entry.offset()));
                    entry
                }
                None => {
                    empty += 1;
                    NOTHING
                }
            };
            let old = self.turn_ring(entry);
            if old != NOTHING {
                self.scan(old);
                empty = 0;
                if PARALLEL && self.live >= self.look_at && self.look_up(end, shares) {
                    return false;
                }
            }
        }
        true
    }

    /// Shares work if somebody wants some, and it may; whether the worker has done so much.
    #[inline(never)]
    fn look_up(&mut self, end: usize, shares: bool) -> bool {
        if shares && self.shared.termination.wanted() && self.shared.pile.is_empty() {
            self.share();
        }
        self.look_at = self.live + SHARE_EVERY.min(end.saturating_sub(self.done()));
        self.done() >= end
    }

    /// Puts an entry into the prefetch queue, and takes the oldest out.
    #[inline(always)]
    fn turn_ring(&mut self, entry: Entry) -> Entry {
        let old = std::mem::replace(&mut self.ring[self.ring_at % PREFETCH], entry);
        self.ring_at = self.ring_at.wrapping_add(1);
        old
    }

    /// Scans every marked object once more: some could not be queued.
    pub(super) fn rescan(&mut self, stopped: &Stopped<'_>) {
        self.shared.termination.begin();
        let heap = self.heap;
        let live = self.live;
        heap.for_each_span(stopped, |page, span| {
            let class = span.class();
            if heap.classes().get(class).facts().pointer_free {
                return;
            }
            heap.for_each_object(page, span, |offset| {
                if heap.tables().is_marked(offset) {
                    // What others had of it, this walk would scan at the same time.
                    self.scan(Entry::new(offset, class.0 + 1));
                    self.drain_own(false);
                }
            });
        });
        self.drain();
        // What was queued late was counted now, and all else again: count afresh.
        self.live = live;
        self.shared.recount.store(true, Relaxed);
    }

    #[inline(always)]
    fn scan(&mut self, entry: Entry) {
        let class = entry.class();
        let facts = self.info(class).facts();
        if facts.slot_bytes == 0 {
            return self.scan_large(entry);
        }
        // One test for nearly all objects: a slot is a multiple of a granule, and so is where it starts.
        if !(entry.0 as usize | facts.slot_bytes as usize | self.watch).is_multiple_of(GRANULE) {
            return self.scan_odd(entry, facts);
        }
        self.scan_small(entry, facts);
    }

    #[inline(always)]
    fn scan_small(&mut self, entry: Entry, facts: ClassFacts) {
        self.live += facts.slot_bytes as usize;
        let (heap, shapes) = (self.heap, self.shapes);
        // SAFETY: the object was found allocated, nothing is freed while anybody marks, and whoever queued it marked it.
        unsafe { scan_object(heap, shapes, entry.offset(), entry.class(), facts, self) };
    }

    /// Scans an object of [`ODD_SLOT`] bytes, or any while ephemerons are watched, or names a pointer to no object's start. The
    /// sweeper would not: a pointer into an object's first granule has the mark of the start.
    #[inline(never)]
    fn scan_odd(&mut self, entry: Entry, facts: ClassFacts) {
        // An ephemeron may be scanned twice: see there.
        if facts.kind != Kind::Ephemeron {
            self.wake(entry.offset());
        }
        if !starts_small(entry.offset(), facts) {
            self.zombie(entry.offset());
        }
        self.scan_small(entry, facts);
    }

    /// Scans one piece of a large object; the next one is queued before, so that others can take it.
    #[inline(never)]
    fn scan_large(&mut self, entry: Entry) {
        let (heap, shapes, class) = (self.heap, self.shapes, entry.class());
        let (span, page) = heap.span_of(entry.offset());
        let from = entry.offset() - page.offset();
        self.look_at = 0;
        if entry.is_piece() {
            self.pieces += PIECE;
        } else {
            if from != 0 {
                self.zombie(entry.offset());
            }
            self.live += span.pages().bytes().0;
            self.wake(entry.offset());
        }
        let facts = self.info(class).facts();
        // A trace function is shown the whole object, once.
        if facts.kind != Kind::Traced && from + PIECE < span.large_bytes().0 {
            self.push(Entry(Entry::new(entry.offset() + PIECE, class.0 + 1).0 | PIECE_FLAG));
        }
        // SAFETY: as in `scan`.
        unsafe { scan_object(heap, shapes, entry.offset(), class, facts, self) };
    }

    /// Names an exact pointer that is not to the start of its object.
    #[cold]
    #[inline(never)]
    fn zombie(&self, offset: usize) -> ! {
        let heap = self.heap;
        let (span, page) = heap.span_of(offset);
        let inside = offset - page.offset();
        if span.is_large() {
            fatal(format_args!(
                "zombie: {:p} is reached by an exact pointer, and lies {inside} bytes inside the large object at {:p}",
                heap.address(offset),
                heap.address(page.offset())
            ));
        }
        let inside = inside % span.slot_bytes();
        fatal(format_args!(
            "zombie: {:p} is reached by an exact pointer, and lies {inside} bytes inside the object at {:p}",
            heap.address(offset),
            heap.address(offset - inside)
        ))
    }

    /// An entry for which there is no room is dropped: the rescan finds its object by its mark. It would not find one
    /// whose mark is not at its start.
    #[cold]
    #[inline(never)]
    fn overflow(&self, entry: Entry) {
        let (offset, facts) = (entry.offset(), self.info(entry.class()).facts());
        let starts = if facts.slot_bytes != 0 {
            starts_small(offset, facts)
        } else {
            entry.is_piece() || self.heap.span_of(offset).1.offset() == offset
        };
        if !starts {
            self.zombie(offset);
        }
        self.shared.overflowed.store(true, Relaxed);
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<Entry> {
        if self.cursor.is_empty() && !self.pop_block() {
            return None;
        }
        self.cursor.0 = self.cursor.0.wrapping_sub(1);
        // SAFETY: below the cursor lies an entry of this worker's block.
        Some(Entry(unsafe { self.cursor.0.read() }))
    }

    /// Drops the empty top block for the one below, which is full or was split.
    #[inline(never)]
    fn pop_block(&mut self) -> bool {
        let top = self.cursor.block();
        // SAFETY: the blocks of the stack are this worker's own.
        unsafe {
            let below = (*top).next;
            if below.is_null() {
                return false;
            }
            self.shared.pool.give(top);
            self.cursor = Cursor(Cursor::bottom(below).0.wrapping_byte_add((*below).filled));
        }
        !self.cursor.is_empty()
    }

    #[inline(always)]
    fn push(&mut self, entry: Entry) {
        if self.cursor.is_full() && !self.push_block() {
            return self.overflow(entry);
        }
        // SAFETY: the cursor is inside this worker's block.
        unsafe { self.cursor.0.write(entry.0) };
        self.cursor.0 = self.cursor.0.wrapping_add(1);
    }

    #[inline(never)]
    fn push_block(&mut self) -> bool {
        let block = self.shared.pool.take();
        if block.is_null() {
            return false;
        }
        let top = self.cursor.block();
        // SAFETY: both blocks are this worker's.
        unsafe {
            (*top).filled = self.cursor.filled();
            (*block).next = top;
        }
        self.cursor = Cursor::bottom(block);
        true
    }

    /// What is known of a class, which is that of a page or of an entry.
    #[inline(always)]
    fn info(&self, class: SpanClass) -> &'a ClassInfo {
        debug_assert!(class.index() < self.class_infos.len());
        // SAFETY: pages are given classes of this table only, and entries those of pages.
        unsafe { self.class_infos.get_unchecked(class.index()) }
    }
}

/// The one slot that is no multiple of a granule, in spans of a page.
const ODD_SLOT: u32 = CLASS_SIZE[2];
const _: () = assert!(!(ODD_SLOT as usize).is_multiple_of(GRANULE) && CLASS_PAGES[2] == 1);

/// Whether an object of a small class can start there; of all but one class it is only asked that a granule does.
#[inline(always)]
fn starts_small(offset: usize, facts: ClassFacts) -> bool {
    if facts.slot_bytes == ODD_SLOT {
        ((offset % PAGE_SIZE) as u32).is_multiple_of(ODD_SLOT)
    } else {
        offset.is_multiple_of(GRANULE)
    }
}

impl<const PARALLEL: bool> Drop for Worker<'_, PARALLEL> {
    fn drop(&mut self) {
        debug_assert!(self.held.is_empty());
        let mut block = self.cursor.block();
        while !block.is_null() {
            // SAFETY: the blocks of the stack are this worker's own.
            unsafe {
                let below = (*block).next;
                self.shared.pool.give(block);
                block = below;
            }
        }
    }
}
