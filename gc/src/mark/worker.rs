//! One mark worker: its stack, its prefetch queue, its exchange with the others.

use super::Shared;
use super::block::{BLOCK_ENTRIES, Block};
use crate::scan::{Shapes, Visitor, bytes_of, scan_object};
use besom_alloc_core::heap_tables::{HeapTables, prefetch};
use besom_alloc_core::span_class::{ClassFacts, ClassTable, Kind};
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::stopped::Stopped;
use besom_alloc_core::units::{Bytes, PageId};
use besom_stats::sync::raw::Ordering::Relaxed;
use crossbeam_deque::{Steal, Worker as Deque};
use std::ptr::null_mut;

/// Objects between their prefetch and their scan. Higher: lines are evicted before they are used, and the order
/// leaves depth first. Lower: the scan waits for memory.
const PREFETCH: usize = 8;
/// Scanned objects between two looks at whether somebody wants work. Higher: thieves wait. Lower: a shared
/// line is read more often.
const SHARE_EVERY: u32 = 64;
/// Blocks in a deque; below the capacity that it is born with, so that it never grows in a stopped world.
const DEQUE_MOST: usize = 48;
const NOTHING: usize = usize::MAX;

/// A worker. `PARALLEL` says whether other workers set mark bits at the same time.
pub struct Worker<'a, const PARALLEL: bool> {
    heap: &'a SpanHeap,
    tables: &'a HeapTables,
    classes: &'a ClassTable,
    shapes: &'a Shapes,
    shared: &'a Shared,
    deque: &'a Deque<usize>,
    index: usize,
    /// The top block of the stack; null only when the pool is used up.
    top: *mut Block,
    ring: [usize; PREFETCH],
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
            tables: heap.tables(),
            classes: heap.classes(),
            shapes,
            shared,
            deque,
            index,
            top: shared.pool.take(),
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
            while let Some(offset) = self.next() {
                self.scan(offset);
            }
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

    /// Scans every marked object once more: some could not be queued.
    pub(super) fn rescan(&mut self, stopped: &Stopped<'_>) {
        self.shared.termination.begin();
        let heap = self.heap;
        heap.for_each_span(stopped, |page, span| {
            heap.for_each_object(page, span, |offset| {
                if heap.tables().is_marked(offset) {
                    self.scan(offset);
                    while let Some(offset) = self.next() {
                        self.scan(offset);
                    }
                }
            });
        });
        self.drain();
    }

    #[inline(always)]
    fn scan(&mut self, offset: usize) {
        if PARALLEL {
            self.until_share -= 1;
            if self.until_share == 0 {
                self.until_share = SHARE_EVERY;
                if self.shared.termination.wanted() {
                    self.share();
                }
            }
        }
        let Some(class) = self.tables.class_of(PageId::of_offset(offset)) else { return };
        let facts = self.classes.get(class).facts();
        let (heap, shapes) = (self.heap, self.shapes);
        // SAFETY: the object was found allocated, the world is stopped, and whoever queued it marked it.
        let more = unsafe { scan_object(heap, shapes, offset, class, facts, self) };
        if let Some(piece) = more {
            self.push(piece);
        }
    }

    /// The next object to scan, through the prefetch queue.
    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        loop {
            let Some(offset) = self.pop() else {
                for _ in 0..PREFETCH {
                    let old = std::mem::replace(&mut self.ring[self.ring_at], NOTHING);
                    self.ring_at = (self.ring_at + 1) % PREFETCH;
                    if old != NOTHING {
                        return Some(old);
                    }
                }
                return None;
            };
            prefetch(self.heap.address(offset));
            let old = std::mem::replace(&mut self.ring[self.ring_at], offset);
            self.ring_at = (self.ring_at + 1) % PREFETCH;
            if old != NOTHING {
                return Some(old);
            }
        }
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<usize> {
        let top = self.top;
        if top.is_null() {
            return None;
        }
        // SAFETY: the blocks of the stack are this worker's own.
        unsafe {
            if (*top).len == 0 && !self.pop_block() {
                return None;
            }
            let top = self.top;
            (*top).len -= 1;
            Some(*(&raw const (*top).entries).cast::<usize>().add((*top).len))
        }
    }

    /// Drops the empty top block for the one below.
    #[inline(never)]
    fn pop_block(&mut self) -> bool {
        // SAFETY: as in `pop`.
        unsafe {
            let below = (*self.top).next;
            if below.is_null() {
                return false;
            }
            self.shared.pool.give(self.top);
            self.top = below;
            (*below).len > 0
        }
    }

    #[inline(always)]
    fn push(&mut self, offset: usize) {
        // SAFETY: as in `pop`.
        unsafe {
            let mut top = self.top;
            if top.is_null() || (*top).len == BLOCK_ENTRIES {
                top = self.push_block();
                if top.is_null() {
                    self.shared.overflowed.store(true, Relaxed);
                    return;
                }
            }
            *(&raw mut (*top).entries).cast::<usize>().add((*top).len) = offset;
            (*top).len += 1;
        }
    }

    #[inline(never)]
    fn push_block(&mut self) -> *mut Block {
        let block = self.shared.pool.take();
        if !block.is_null() {
            // SAFETY: the block is this worker's from here.
            unsafe { (*block).next = self.top };
            self.top = block;
        }
        block
    }

    /// Takes over a block from a deque.
    fn adopt(&mut self, block: usize) {
        let block = std::ptr::with_exposed_provenance_mut::<Block>(block);
        // SAFETY: who takes a block out of a deque owns it; this worker's own stack is empty.
        unsafe { (*block).next = null_mut() };
        let old = std::mem::replace(&mut self.top, block);
        if !old.is_null() {
            // SAFETY: as above, and the block was the only one.
            unsafe { self.shared.pool.give(old) };
        }
    }

    /// Puts work where others can take it: the block below the top, or else the older half of the top.
    #[inline(never)]
    fn share(&mut self) {
        let top = self.top;
        if top.is_null() || self.deque.len() >= DEQUE_MOST {
            return;
        }
        // SAFETY: as in `pop`; the two halves do not overlap.
        let block = unsafe {
            let below = (*top).next;
            if !below.is_null() {
                (*top).next = (*below).next;
                below
            } else {
                let half = (*top).len / 2;
                if half == 0 {
                    return;
                }
                let block = self.shared.pool.take();
                if block.is_null() {
                    return;
                }
                let from = (&raw mut (*top).entries).cast::<usize>();
                std::ptr::copy_nonoverlapping(from, (&raw mut (*block).entries).cast::<usize>(), half);
                (*block).len = half;
                std::ptr::copy(from.add(half), from, (*top).len - half);
                (*top).len -= half;
                block
            }
        };
        self.deque.push(block.expose_provenance());
    }

    #[inline(always)]
    fn mark(&mut self, offset: usize, facts: ClassFacts) {
        if self.tables.mark::<PARALLEL>(offset) {
            self.live += bytes_of(self.heap, offset, facts).0;
            if facts.kind != Kind::NoScan {
                self.push(offset);
            }
        }
    }
}

impl<const PARALLEL: bool> Visitor for Worker<'_, PARALLEL> {
    #[inline(always)]
    fn exact(&mut self, address: usize) {
        let Some(offset) = self.tables.offset_of(address) else { return };
        let page = PageId::of_offset(offset);
        let Some(class) = self.tables.class_of(page) else { return };
        let facts = self.classes.get(class).facts();
        let start = if facts.slot_bytes == 0 { self.tables.first_page(page).offset() } else { offset };
        self.mark(start, facts);
    }

    #[inline(always)]
    fn any(&mut self, word: usize) {
        let Some(offset) = self.tables.offset_of(word) else { return };
        let Some(class) = self.tables.class_of(PageId::of_offset(offset)) else { return };
        if let Some(found) = self.heap.find_in(offset, class) {
            self.mark(found.offset, self.classes.get(class).facts());
        }
    }

    fn shapes(&self) -> &Shapes {
        self.shapes
    }
}

impl<const PARALLEL: bool> Drop for Worker<'_, PARALLEL> {
    fn drop(&mut self) {
        let mut block = self.top;
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
