//! What a worker exchanges with others: blocks, through the pile; and a guest's coming and going.

use super::{NOTHING, PREFETCH, Worker};
use crate::mark::Shared;
use crate::mark::block::{Block, Cursor};
use crate::scan::Shapes;
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::units::Bytes;

impl<const PARALLEL: bool> Worker<'_, PARALLEL> {
    /// Gets work out of the pile; the stack is empty. The worker is active; with nothing found it has left.
    pub(in crate::mark) fn refill(&mut self) -> bool {
        self.leave();
        self.enter()
    }

    /// Leaves, and everything that is still to be scanned in the pile.
    pub(in crate::mark) fn retire(&mut self) {
        self.hand_over();
        self.leave();
    }

    /// Reports, and leaves; nothing is in this worker's hands.
    fn leave(&mut self) {
        self.set_held();
        self.report();
        self.shared.termination.leave();
    }

    /// Says what was done since the last report.
    pub(in crate::mark) fn report(&mut self) {
        let done = self.done();
        self.shared.reports.add(Bytes(self.live - self.reported.0), Bytes(done - self.reported.1));
        self.reported = (self.live, done);
    }

    /// Gets work where others left it. The worker is not active; when something was found it is.
    pub(in crate::mark) fn enter(&mut self) -> bool {
        let pile = &self.shared.pile;
        match self.shared.termination.try_find(|| !pile.is_empty(), || pile.take()) {
            Some(block) => {
                self.look_for_watch();
                self.adopt(block);
                true
            }
            None => false,
        }
    }

    /// Leaves everything that is still to be scanned in the pile.
    fn hand_over(&mut self) {
        for _ in 0..PREFETCH {
            let old = self.turn_ring(NOTHING);
            if old != NOTHING {
                self.push(old);
            }
        }
        // SAFETY: the blocks of the stack are this worker's own; those below the top are full or were split.
        unsafe {
            let mut below = (*self.cursor.block()).next;
            (*self.cursor.block()).next = std::ptr::null_mut();
            while !below.is_null() {
                let next = (*below).next;
                self.shared.pile.push(below);
                below = next;
            }
        }
        let filled = self.cursor.filled();
        if filled == 0 {
            return;
        }
        let fresh = self.shared.pool.take();
        if fresh.is_null() {
            // No block to stay on: what is left is found again by its marks.
            while let Some(entry) = self.pop() {
                self.overflow(entry);
            }
            return;
        }
        // SAFETY: both blocks are this worker's.
        unsafe {
            let top = self.cursor.block();
            (*fresh).next = std::ptr::null_mut();
            self.cursor = Cursor::bottom(fresh);
            (*top).filled = filled;
            self.shared.pile.push(top);
        }
    }

    /// Takes over a block out of the pile. The own stack is empty, so its only block goes.
    pub(super) fn adopt(&mut self, block: *mut Block) {
        // SAFETY: who takes a block out of the pile owns it.
        unsafe {
            (*block).next = std::ptr::null_mut();
            self.shared.pool.give(self.cursor.block());
            self.cursor = Cursor(Cursor::bottom(block).0.wrapping_byte_add((*block).filled));
        }
    }

    /// The leader goes back to its own block; its stack is empty, and nobody else marks.
    pub(in crate::mark) fn go_home(&mut self) {
        debug_assert!(self.cursor.filled() == 0 && self.ring.iter().all(|entry| *entry == NOTHING));
        // SAFETY: the block is this worker's, and the last of its stack.
        unsafe { self.shared.pool.give(self.cursor.block()) };
        self.cursor = Cursor::bottom(self.shared.pool.own(0));
    }

    /// Puts work where others can take it: the block below the top, or else the older half of the top.
    #[inline(never)]
    pub(super) fn share(&mut self) {
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
        // SAFETY: the block is this worker's.
        unsafe { self.shared.pile.push(block) };
    }
}

impl<'a> Worker<'a, true> {
    /// A worker on a mutator's thread, for a while, with a block of the pool's. Waits for one if all are out, those that
    /// are kept for guests, too: other guests give theirs back.
    pub(in crate::mark) fn guest(heap: &'a SpanHeap, shapes: &'a Shapes, shared: &'a Shared) -> Self {
        let block = loop {
            let block = shared.pool.take_for_guest();
            if !block.is_null() {
                break block;
            }
            besom_stats::sync::yield_now();
        };
        // SAFETY: the block is the caller's.
        unsafe { (*block).next = std::ptr::null_mut() };
        Worker::on(heap, shapes, shared, block)
    }
}
