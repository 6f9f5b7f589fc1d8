//! One mark worker: its stack, its prefetch queue, what it marks. What it exchanges with the others is in `exchange`.

mod exchange;

use super::Shared;
use super::block::{Block, Cursor};
use crate::scan::{PIECE, Shapes, Visitor, scan_object};
use crate::specials::ephemerons::Scanned;
use besom_alloc_core::heap_tables::{GRANULE, mark_word, prefetch};
use besom_alloc_core::size_class::{CLASS_PAGES, CLASS_SIZE, SIZE_CLASS_COUNT};
use besom_alloc_core::span_class::{ClassFacts, ClassInfo, EPHEMERON, FIRST_LAYOUT, Kind, SpanClass};
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::stopped::Stopped;
use besom_alloc_core::units::{Bytes, PAGE_SHIFT, PAGE_SIZE};
use besom_stats::fatal;
use besom_stats::sync::raw::{AtomicU16, AtomicU64, Ordering::*, fence};
use crossbeam_deque::Worker as Deque;

/// Objects between their prefetch and their scan; a power of two. Higher: lines are evicted before they are used,
/// and the order leaves depth first. Lower: the scan waits for memory.
const PREFETCH: usize = 8;
/// Scanned objects between two looks at whether somebody wants work. Higher: thieves wait. Lower: a shared
/// line is read more often.
const SHARE_EVERY: u32 = 64;

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
    /// Where others can take its blocks; a guest has none, and leaves them in the pile.
    deque: Option<&'a Deque<usize>>,
    index: usize,
    /// The end of the stack.
    cursor: Cursor,
    ring: [Entry; PREFETCH],
    ring_at: usize,
    until_share: u32,
    live: usize,
    /// Bytes of large objects' later pieces, which `live` does not show.
    pieces: usize,
    /// What was reported of `live`, and of `done()`.
    reported: (usize, usize),
    /// 1 while ephemerons are watched, else 0: an odd bit, which sends every scan the way of [`Worker::scan_odd`]. So the
    /// watch costs an instruction an object while there is none.
    watch: usize,
}

impl<'a, const PARALLEL: bool> Worker<'a, PARALLEL> {
    pub(super) fn new(
        heap: &'a SpanHeap,
        shapes: &'a Shapes,
        shared: &'a Shared,
        deque: &'a Deque<usize>,
        index: usize,
    ) -> Self {
        let block = shared.pool.own(index);
        Worker::on(heap, shapes, shared, Some(deque), index, block)
    }

    fn on(
        heap: &'a SpanHeap,
        shapes: &'a Shapes,
        shared: &'a Shared,
        deque: Option<&'a Deque<usize>>,
        index: usize,
        block: *mut Block,
    ) -> Self {
        // As in `look_for_watch`.
        fence(Release);
        Worker {
            heap,
            base: heap.tables().base(),
            len: heap.tables().len(),
            page_classes: heap.tables().page_classes(),
            marks: heap.tables().marks(),
            class_infos: heap.classes().infos(),
            shapes,
            shared,
            deque,
            index,
            cursor: Cursor::bottom(block),
            ring: [NOTHING; PREFETCH],
            ring_at: 0,
            until_share: SHARE_EVERY,
            live: 0,
            pieces: 0,
            reported: (0, 0),
            watch: usize::from(shared.ephemerons.is_watching()),
        }
    }

    /// The worker has become active, and learns what was announced to those who do: whether ephemerons are watched.
    pub(super) fn look_for_watch(&mut self) {
        // Of weak references and ephemerons that were cleared before this worker's marks; see `WeakEntry::read`.
        fence(Release);
        self.watch = usize::from(self.shared.ephemerons.is_watching());
    }

    /// Bytes of the slots that this worker marked.
    pub fn live(&self) -> Bytes {
        Bytes(self.live)
    }

    /// Scans until no worker has anything left.
    pub fn drain(&mut self) {
        loop {
            self.drain_own();
            if let Some(block) = self.deque.and_then(Deque::pop) {
                self.adopt(block);
                continue;
            }
            let (shared, index) = (self.shared, self.index);
            match shared.termination.find(|| shared.has_work(index), || shared.steal(index)) {
                Some(block) => self.adopt(block),
                None => return,
            }
        }
    }

    /// Scans about `work` bytes, or until this worker's stack is empty: true.
    pub(super) fn drain_some(&mut self, work: usize) -> bool {
        let end = self.done() + work;
        let mut empty = 0;
        // The ring is empty once as many turns have found nothing as it has places.
        while empty < PREFETCH {
            let entry = self.pop().unwrap_or(NOTHING);
            if entry == NOTHING {
                empty += 1;
            } else {
                prefetch(std::ptr::without_provenance(self.base + entry.offset()));
                empty = 0;
            }
            let old = self.turn_ring(entry);
            if old != NOTHING {
                self.scan(old);
                empty = 0;
                if self.done() >= end {
                    return false;
                }
            }
        }
        true
    }

    /// Bytes of what this worker has marked and scanned.
    #[inline(always)]
    pub(super) fn done(&self) -> usize {
        self.live + self.pieces
    }

    /// Scans until this worker's stack is empty.
    #[inline(always)]
    fn drain_own(&mut self) {
        loop {
            let Some(entry) = self.pop() else {
                // The stack is empty; what the prefetch queue holds may fill it again.
                let mut found = false;
                for _ in 0..PREFETCH {
                    let old = self.turn_ring(NOTHING);
                    if old != NOTHING {
                        found = true;
                        self.scan(old);
                    }
                }
                if !found {
                    return;
                }
                continue;
            };
            prefetch(std::ptr::without_provenance(self.base + entry.offset()));
            let old = self.turn_ring(entry);
            if old != NOTHING {
                self.scan(old);
            }
        }
    }

    /// Puts an entry into the prefetch queue, and takes the oldest out.
    #[inline(always)]
    fn turn_ring(&mut self, entry: Entry) -> Entry {
        let old = std::mem::replace(&mut self.ring[self.ring_at], entry);
        self.ring_at = (self.ring_at + 1) % PREFETCH;
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
                    self.scan(Entry::new(offset, class.0 + 1));
                    self.drain_own();
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
        if PARALLEL {
            self.until_share -= 1;
            if self.until_share == 0 {
                self.until_share = SHARE_EVERY;
                if self.shared.termination.wanted() {
                    self.share();
                }
            }
        }
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

    /// Marks what starts at `offset`; true for the one who did it.
    #[inline(always)]
    fn mark(&self, offset: usize) -> bool {
        let (word, bit) = mark_word(offset);
        // SAFETY: as in `encoded_class`.
        let word = unsafe { self.marks.get_unchecked(word) };
        let old = word.load(Relaxed);
        if old & bit != 0 {
            return false;
        }
        if PARALLEL {
            word.fetch_or(bit, Relaxed) & bit == 0
        } else {
            word.store(old | bit, Relaxed);
            true
        }
    }

    /// What is known of a class, which is that of a page or of an entry.
    #[inline(always)]
    fn info(&self, class: SpanClass) -> &'a ClassInfo {
        debug_assert!(class.index() < self.class_infos.len());
        // SAFETY: pages are given classes of this table only, and entries those of pages.
        unsafe { self.class_infos.get_unchecked(class.index()) }
    }

    /// The class + 1 of the page at `offset`; 0 if no span is there.
    #[inline(always)]
    fn encoded_class(&self, offset: usize) -> u16 {
        debug_assert!(offset < self.len);
        // SAFETY: the offset is below the reservation's length, and the table has an entry for each page of it.
        unsafe { self.page_classes.get_unchecked(offset >> PAGE_SHIFT) }.load(Relaxed)
    }

    /// A pointer to an object of this class (+ 1): marked by the first who finds it, who then queues it.
    #[inline(always)]
    fn reach(&mut self, offset: usize, encoded_class: u16) {
        if encoded_class < FIRST_SCANNED {
            self.reach_noscan(offset, encoded_class);
        } else if self.mark(offset) {
            if encoded_class >= FIRST_OWN && self.count_pointer_free(encoded_class) {
                return self.wake(offset);
            }
            self.push(Entry::new(offset, encoded_class));
        }
    }

    /// Queues the ephemerons whose key is at `offset`, if any are watched: that is marked, and is scanned now, or never will be.
    /// They were scanned before, and are queued rather than scanned at once, since a chain of them may be long.
    #[inline(always)]
    fn wake(&mut self, offset: usize) {
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

/// Class + 1 of the first class whose objects are scanned; below are no span (0) and pointer-free objects.
const FIRST_SCANNED: u16 = SIZE_CLASS_COUNT as u16 + 1;
/// Class + 1 of the first layout's own class.
const FIRST_OWN: u16 = FIRST_LAYOUT as u16 + 1;

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
        if class != 0
            && let Some(found) = self.heap.find_in(offset, SpanClass(class - 1))
        {
            self.reach(found.offset, class);
        }
    }

    #[cold]
    #[inline(never)]
    fn ephemeron(&mut self, offset: usize) {
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

impl<const PARALLEL: bool> Drop for Worker<'_, PARALLEL> {
    fn drop(&mut self) {
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
