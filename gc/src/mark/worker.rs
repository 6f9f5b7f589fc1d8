//! One mark worker: its stack, its prefetch queue, its exchange with the others.

use super::Shared;
use super::block::{Block, Cursor};
use crate::scan::{PIECE, Shapes, Visitor, scan_object};
use besom_alloc_core::heap_tables::{mark_word, prefetch};
use besom_alloc_core::size_class::SIZE_CLASS_COUNT;
use besom_alloc_core::span_class::{ClassInfo, ClassTable, SpanClass};
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::stopped::Stopped;
use besom_alloc_core::units::{Bytes, PAGE_SHIFT};
use besom_stats::fatal;
use besom_stats::sync::raw::{AtomicU16, AtomicU64, Ordering::Relaxed};
use crossbeam_deque::{Steal, Worker as Deque};

/// Objects between their prefetch and their scan; a power of two. Higher: lines are evicted before they are used,
/// and the order leaves depth first. Lower: the scan waits for memory.
const PREFETCH: usize = 8;
/// Scanned objects between two looks at whether somebody wants work. Higher: thieves wait. Lower: a shared
/// line is read more often.
const SHARE_EVERY: u32 = 64;
/// Blocks in a deque; below the capacity that it is born with, so that it never grows in a stopped world.
const DEQUE_MOST: usize = 48;

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
    classes: &'a ClassTable,
    shapes: &'a Shapes,
    shared: &'a Shared,
    deque: &'a Deque<usize>,
    index: usize,
    /// The end of the stack.
    cursor: Cursor,
    ring: [Entry; PREFETCH],
    ring_at: usize,
    until_share: u32,
    live: usize,
}

impl<'a, const PARALLEL: bool> Worker<'a, PARALLEL> {
    pub(super) fn new(
        heap: &'a SpanHeap,
        shapes: &'a Shapes,
        shared: &'a Shared,
        deque: &'a Deque<usize>,
        index: usize,
    ) -> Self {
        Worker {
            heap,
            base: heap.tables().base(),
            len: heap.tables().len(),
            page_classes: heap.tables().page_classes(),
            marks: heap.tables().marks(),
            class_infos: heap.classes().infos(),
            classes: heap.classes(),
            shapes,
            shared,
            deque,
            index,
            cursor: Cursor::bottom(shared.pool.own(index)),
            ring: [NOTHING; PREFETCH],
            ring_at: 0,
            until_share: SHARE_EVERY,
            live: 0,
        }
    }

    /// Bytes of the slots that this worker marked.
    pub fn live(&self) -> Bytes {
        Bytes(self.live)
    }

    /// Scans until no worker has anything left.
    pub fn drain(&mut self) {
        loop {
            self.drain_own();
            if let Some(block) = self.deque.pop() {
                self.adopt(block);
                continue;
            }
            let (shared, index) = (self.shared, self.index);
            let others = || shared.stealers.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, s)| s);
            let looks = || others().any(|s| !s.is_empty());
            let steal = || {
                others().find_map(|s| match s.steal() {
                    Steal::Success(block) => Some(block),
                    Steal::Empty | Steal::Retry => None,
                })
            };
            match shared.termination.find(looks, steal) {
                Some(block) => self.adopt(block),
                None => return,
            }
        }
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
            if is_noscan(class.0 + 1) {
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
        // SAFETY: an entry's class is that of a page.
        let facts = unsafe { self.class_infos.get_unchecked(class.index()) }.facts();
        if facts.slot_bytes == 0 {
            return self.scan_large(entry);
        }
        self.live += facts.slot_bytes as usize;
        let (heap, shapes) = (self.heap, self.shapes);
        // SAFETY: the object was found allocated, the world is stopped, and whoever queued it marked it.
        unsafe { scan_object(heap, shapes, entry.offset(), class, facts, self) };
    }

    /// Scans one piece of a large object; the next one is queued before, so that others can take it.
    #[inline(never)]
    fn scan_large(&mut self, entry: Entry) {
        let (heap, shapes, class) = (self.heap, self.shapes, entry.class());
        let (span, page) = heap.span_of(entry.offset());
        let from = entry.offset() - page.offset();
        if !entry.is_piece() {
            if from != 0 {
                fatal(format_args!(
                    "zombie: {:p} is reached by an exact pointer, and lies {from} bytes inside the large object at {:p}",
                    heap.address(entry.offset()),
                    heap.address(page.offset())
                ));
            }
            self.live += span.pages().bytes().0;
        }
        if from + PIECE < span.large_bytes().0 {
            self.push(Entry(Entry::new(entry.offset() + PIECE, class.0 + 1).0 | PIECE_FLAG));
        }
        let facts = self.classes.get(class).facts();
        // SAFETY: as in `scan`.
        unsafe { scan_object(heap, shapes, entry.offset(), class, facts, self) };
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
            self.shared.overflowed.store(true, Relaxed);
            return;
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

    /// Takes over a block from a deque. The own stack is empty, so its only block goes.
    fn adopt(&mut self, block: usize) {
        let block = std::ptr::with_exposed_provenance_mut::<Block>(block);
        // SAFETY: who takes a block out of a deque owns it.
        unsafe {
            (*block).next = std::ptr::null_mut();
            self.shared.pool.give(self.cursor.block());
            self.cursor = Cursor(Cursor::bottom(block).0.wrapping_byte_add((*block).filled));
        }
    }

    /// Puts work where others can take it: the block below the top, or else the older half of the top.
    #[inline(never)]
    fn share(&mut self) {
        if self.deque.len() >= DEQUE_MOST {
            return;
        }
        let top = self.cursor.block();
        // SAFETY: the blocks are this worker's; the two halves do not overlap.
        let block = unsafe {
            let below = (*top).next;
            if !below.is_null() {
                (*top).next = (*below).next;
                below
            } else {
                let entries = self.cursor.filled() / 8;
                let half = entries / 2;
                if half == 0 {
                    return;
                }
                let block = self.shared.pool.take();
                if block.is_null() {
                    return;
                }
                let from = Cursor::bottom(top).0;
                std::ptr::copy_nonoverlapping(from, Cursor::bottom(block).0, half);
                (*block).filled = half * 8;
                std::ptr::copy(from.add(half), from, entries - half);
                self.cursor.0 = self.cursor.0.sub(half);
                block
            }
        };
        self.deque.push(block.expose_provenance());
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

    /// The class + 1 of the page at `offset`; 0 if no span is there.
    #[inline(always)]
    fn encoded_class(&self, offset: usize) -> u16 {
        debug_assert!(offset < self.len);
        // SAFETY: the offset is below the reservation's length, and the table has an entry for each page of it.
        unsafe { self.page_classes.get_unchecked(offset >> PAGE_SHIFT) }.load(Relaxed)
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
                }
            }
            _ => {
                if self.mark(offset) {
                    self.live += self.classes.get(SpanClass(encoded_class - 1)).facts().slot_bytes as usize;
                }
            }
        }
    }
}

/// Whether class + 1 is 0 (no span) or a class of pointer-free objects, which come first.
#[inline(always)]
fn is_noscan(encoded_class: u16) -> bool {
    encoded_class <= SIZE_CLASS_COUNT as u16
}

impl<const PARALLEL: bool> Visitor for Worker<'_, PARALLEL> {
    #[inline(always)]
    fn exact(&mut self, address: usize) {
        let offset = address.wrapping_sub(self.base);
        if offset >= self.len {
            return;
        }
        let class = self.encoded_class(offset);
        if is_noscan(class) {
            self.reach_noscan(offset, class);
        } else if self.mark(offset) {
            self.push(Entry::new(offset, class));
        }
    }

    #[inline(always)]
    fn any(&mut self, word: usize) {
        let offset = word.wrapping_sub(self.base);
        if offset >= self.len {
            return;
        }
        let class = self.encoded_class(offset);
        if class != 0
            && let Some(found) = self.heap.find_in(offset, SpanClass(class - 1))
        {
            if is_noscan(class) {
                self.reach_noscan(found.offset, class);
            } else if self.mark(found.offset) {
                self.push(Entry::new(found.offset, class));
            }
        }
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
