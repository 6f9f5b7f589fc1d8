//! The short way: small objects of values, which most programs have most of, scanned by a loop that keeps what changes at
//! each object in registers. All else goes the long way, of which this is a part written out: see [`super`] and [`super::reach`].

use super::reach::{FIRST_SCANNED, FIRST_TRACED};
use super::{CLASS_SHIFT, Cursor, Entry, NOTHING, PREFETCH, Worker};
use crate::scan::read;
use besom_alloc_core::heap_tables::{GRANULE, prefetch};
use besom_alloc_core::size_class::{CLASS_SIZE, SIZE_CLASS_COUNT, SizeClass};
use besom_alloc_core::span_class::{Kind, SpanClass};

/// Class + 1 of the first class of values, that of large objects.
const FIRST_VALUES: u16 = SpanClass::new(Kind::Values, SizeClass(0)).0 + 1;

/// Class + 1 of large objects without pointers; below it is no span.
const LARGE_NOSCAN: u16 = SpanClass::new(Kind::NoScan, SizeClass(0)).0 + 1;
// Above it are the small ones without pointers, the conservative ones, and the values.
const _: () = assert!(LARGE_NOSCAN == 1 && FIRST_VALUES + SIZE_CLASS_COUNT as u16 == FIRST_TRACED);
const _: () = assert!(FIRST_SCANNED == LARGE_NOSCAN + SIZE_CLASS_COUNT as u16);

/// Objects of a class are near each other if their offsets differ in so many low bits at most: they lie in the same 4 KiB. Higher:
/// objects are scanned before their lines have come. Lower: the prefetch queue, first in first out, leaves the order of memory.
const NEAR: u32 = 12;
/// The largest objects, in bytes, for which it counts whether they are near. Higher: with one or two to a line, what is near is in a line that
/// has not come. Lower: objects of which four and more share a line leave the order of memory.
const NEAR_BYTES: usize = 16;

/// What changes at each object.
#[derive(Clone, Copy)]
struct Registers {
    cursor: Cursor,
    ring_at: usize,
    live: usize,
}

impl<const PARALLEL: bool> Worker<'_, PARALLEL> {
    /// Scans until the block is empty or the worker is to look up: [`NOTHING`]; or until an object comes that must go the long way.
    #[inline(always)]
    pub(super) fn take_short_way(&mut self) -> Entry {
        let mut at = self.registers();
        // The last entry that was scanned, if its object is small enough for nearness to count.
        let mut last = NOTHING.0;
        loop {
            if at.cursor.is_empty() || PARALLEL && at.live >= self.look_at {
                self.put_back(at);
                return NOTHING;
            }
            at.cursor.0 = at.cursor.0.wrapping_sub(1);
            // SAFETY: below the cursor lies an entry of this worker's block.
            let next = Entry(unsafe { at.cursor.0.read() });
            // What lies near the last one is mostly there already: several share a line, and the processor fetches ahead. Scanned
            // at once, the order stays depth first.
            let entry = if (next.0 ^ last) >> NEAR == 0 {
                next
            } else {
                prefetch(std::ptr::without_provenance(self.base + next.offset()));
                let entry = std::mem::replace(&mut self.ring[at.ring_at % PREFETCH], next);
                at.ring_at = at.ring_at.wrapping_add(1);
                if entry == NOTHING {
                    continue;
                }
                entry
            };
            let class = ((entry.0 >> CLASS_SHIFT) as usize).wrapping_sub(FIRST_VALUES.into());
            if class >= SIZE_CLASS_COUNT {
                self.put_back(at);
                return entry;
            }
            let bytes = CLASS_SIZE[class] as usize;
            // Large objects have 0 bytes here, and what else is odd is told by `scan`.
            if bytes == 0 || !(entry.0 as usize | bytes | self.watch).is_multiple_of(GRANULE) {
                self.put_back(at);
                return entry;
            }
            at.live += bytes;
            last = if bytes <= NEAR_BYTES { entry.0 } else { NOTHING.0 };
            let start = self.heap.address(entry.offset()).cast_const().cast::<usize>();
            let encoding = &self.shapes.encoding;
            for i in (0..bytes / 8).rev() {
                // SAFETY: the words of an allocated slot; nothing is freed while anybody marks.
                let word = unsafe { read(start.add(i)) } as u64;
                if word & encoding.mask == encoding.tag {
                    self.follow(&mut at, (word & encoding.address) as usize);
                }
            }
        }
    }

    /// An edge. No ephemeron is watched here, so nobody need be woken.
    #[inline(always)]
    fn follow(&mut self, at: &mut Registers, address: usize) {
        debug_assert!(self.watch == 0);
        let offset = address.wrapping_sub(self.base);
        if offset >= self.len {
            return;
        }
        let class = self.encoded_class(offset);
        if class <= LARGE_NOSCAN || class >= FIRST_TRACED {
            self.put_back(*at);
            self.reach_else(offset, class);
            *at = self.registers();
            return;
        }
        if !self.mark(offset) {
            return;
        }
        if class < FIRST_SCANNED {
            at.live += CLASS_SIZE[usize::from(class) - 1] as usize;
        } else if at.cursor.is_full() {
            self.put_back(*at);
            self.push_late(Entry::new(offset, class));
            *at = self.registers();
        } else {
            // SAFETY: the cursor is inside this worker's block.
            unsafe { at.cursor.0.write(Entry::new(offset, class).0) };
            at.cursor.0 = at.cursor.0.wrapping_add(1);
        }
    }

    #[inline(never)]
    fn reach_else(&mut self, offset: usize, class: u16) {
        self.reach(offset, class);
    }

    #[inline(never)]
    fn push_late(&mut self, entry: Entry) {
        self.push(entry);
    }

    #[inline(always)]
    fn registers(&self) -> Registers {
        Registers { cursor: self.cursor, ring_at: self.ring_at, live: self.live }
    }

    #[inline(always)]
    fn put_back(&mut self, at: Registers) {
        (self.cursor, self.ring_at, self.live) = (at.cursor, at.ring_at, at.live);
    }
}
