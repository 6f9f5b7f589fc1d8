//! Runs: free slots of a span, side by side, handed to a cache in one go.
//!
//! A run's allocation bits are set when it is handed out, so that the span's equations hold while the cache
//! works through it; what the cache did not use is given back before anybody marks. Its memory is zero from
//! the moment it is handed out.
//!
//! While marking goes on beside the program, a run is handed out black: marked before it is allocated, so that a marker
//! that finds an allocated slot in it by chance finds it marked, too.

use crate::heap_tables::GRANULE_SHIFT;
use crate::span::Span;
use crate::span_heap::SpanHeap;
use crate::units::PageId;
use besom_stats::memory_checker;
use besom_stats::sync::raw::{AtomicU64, Ordering::*};

/// The system's pages, the least that there are.
const SYSTEM_PAGE: usize = 4096;
/// Bytes of a run, at least one slot. Higher: a run that is zeroed leaves the L1 cache before the mutator
/// writes it, and more memory is touched that nobody uses. Lower: more calls of the slow path.
const RUN_BYTES: usize = 4096;

/// Slots side by side, as offsets from the reservation's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first slot.
    pub start: usize,
    /// The end of the last.
    pub end: usize,
}

/// What a new object is to the marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Not marked: nobody marks.
    White,
    /// Marked, and not to be scanned.
    Black,
}

impl SpanHeap {
    /// The next run of free slots, at most `most`, in a span that the caller has cached; `None` when it has no
    /// more.
    pub fn next_run(&self, page: PageId, most: u32, colour: Colour) -> Option<Run> {
        let span = self.tables().span(page);
        let bits = self.tables().alloc_words(page, span.pages());
        let slot_bytes = span.slot_bytes();
        let first = first_free(span, bits, slot_bytes).or_else(|| {
            // With late reuse the sweep left the index where it was, and the search goes round.
            self.reuses_late().then(|| span.set_free_index(0))?;
            first_free(span, bits, slot_bytes)
        })?;
        let most = most.min((RUN_BYTES / slot_bytes).max(1) as u32);
        let n = free_from(span, bits, slot_bytes, first, most);
        if colour == Colour::Black {
            let marks = self.tables().mark_words(page, span.pages());
            // Markers set bits of the same words.
            for_each_word(slot_bytes, first, n, |word, bits| _ = marks[word].fetch_or(bits, Relaxed));
        }
        // After the marks, for `find` by a marker.
        for_each_word(slot_bytes, first, n, |word, set| {
            bits[word].store(bits[word].load(Relaxed) | set, Release);
        });
        span.set_free_index(first + n);
        span.set_alloc_count(span.alloc_count() + n);
        let start = page.offset() + first as usize * slot_bytes;
        let run = Run { start, end: start + n as usize * slot_bytes };
        if memory_checker::is_present() {
            self.lend(run, slot_bytes);
        }
        if span.needs_zero() {
            // SAFETY: the slots are free and the caller owns the span, so nobody else reads or writes them.
            unsafe { std::ptr::write_bytes(self.address(run.start), 0, run.end - run.start) };
        } else if colour == Colour::Black {
            self.touch(run);
        }
        Some(run)
    }

    /// Has the system give a fresh run its memory. A barrier reads a slot before it is written, and what is read first has a page of
    /// zeroes that all share, which costs another fault to write to, and an interrupt of each processor that knows it.
    fn touch(&self, run: Run) {
        let pages = (run.start.next_multiple_of(SYSTEM_PAGE)..run.end).step_by(SYSTEM_PAGE);
        for offset in pages.chain([run.start]) {
            // SAFETY: the slots are free and zero, and the caller owns the span.
            unsafe { self.address(offset).cast::<u64>().write_volatile(0) };
        }
    }

    /// Gives the unused end of a run back: the slots in `unused`, zero still. Of a black one only when nobody marks.
    pub fn give_back(&self, page: PageId, unused: Run, colour: Colour) {
        let span = self.tables().span(page);
        let slot_bytes = span.slot_bytes();
        let n = ((unused.end - unused.start) / slot_bytes) as u32;
        if n == 0 {
            return;
        }
        let bits = self.tables().alloc_words(page, span.pages());
        let first = span.slot_at(unused.start - page.offset());
        for_each_word(slot_bytes, first, n, |word, unset| {
            bits[word].store(bits[word].load(Relaxed) & !unset, Relaxed);
        });
        if colour == Colour::Black {
            let marks = self.tables().mark_words(page, span.pages());
            for_each_word(slot_bytes, first, n, |word, unset| {
                marks[word].store(marks[word].load(Relaxed) & !unset, Relaxed);
            });
        }
        span.set_alloc_count(span.alloc_count() - n);
        span.set_free_index(span.free_index().min(first));
        if memory_checker::is_present() {
            for slot in self.slots(unused, slot_bytes) {
                memory_checker::take_back(self.tables().base(), slot, slot_bytes);
            }
        }
    }

    #[cold]
    fn lend(&self, run: Run, slot_bytes: usize) {
        for slot in self.slots(run, slot_bytes) {
            memory_checker::lend(self.tables().base(), slot, slot_bytes);
        }
    }

    /// The addresses of a run's slots.
    fn slots(&self, run: Run, slot_bytes: usize) -> impl Iterator<Item = usize> {
        let base = self.tables().base();
        (run.start..run.end).step_by(slot_bytes).map(move |offset| base + offset)
    }
}

/// Word and bit of a slot in its span's bitmap.
#[inline(always)]
pub(crate) fn locate(slot: u32, slot_bytes: usize) -> (usize, u64) {
    let bit = (slot as usize * slot_bytes) >> GRANULE_SHIFT;
    (bit / 64, 1 << (bit % 64))
}

/// The bits of a word at which slots start, where that is the same in every word.
fn starts(slot_bytes: usize) -> Option<u64> {
    Some(match slot_bytes {
        16 => !0,
        32 => 0x5555_5555_5555_5555,
        64 => 0x1111_1111_1111_1111,
        128 => 0x0101_0101_0101_0101,
        256 => 0x0001_0001_0001_0001,
        512 => 0x0000_0001_0000_0001,
        1024 => 1,
        _ => return None,
    })
}

/// The first free slot from `free_index` on.
fn first_free(span: &Span, bits: &[AtomicU64], slot_bytes: usize) -> Option<u32> {
    let (from, slots) = (span.free_index(), span.slots());
    if from >= slots || span.alloc_count() == slots {
        return None;
    }
    let Some(starts) = starts(slot_bytes) else {
        return (from..slots).find(|&slot| {
            let (word, bit) = locate(slot, slot_bytes);
            bits[word].load(Relaxed) & bit == 0
        });
    };
    let shift = slot_bytes.trailing_zeros() - GRANULE_SHIFT;
    let from = (from as usize) << shift;
    let mut mask = !0 << (from % 64);
    for (i, word) in bits.iter().enumerate().skip(from / 64) {
        let free = !word.load(Relaxed) & starts & mask;
        if free != 0 {
            let slot = ((i * 64 + free.trailing_zeros() as usize) >> shift) as u32;
            return (slot < slots).then_some(slot);
        }
        mask = !0;
    }
    None
}

/// How many slots from `first` on are free, at most `most`. Bits stand at slot starts only, so the next bit
/// that is set ends the run.
fn free_from(span: &Span, bits: &[AtomicU64], slot_bytes: usize, first: u32, most: u32) -> u32 {
    let end = span.slots().min(first + most);
    let from = (first as usize * slot_bytes) >> GRANULE_SHIFT;
    let last = ((end as usize * slot_bytes - 1) >> GRANULE_SHIFT) / 64;
    let mut mask = !0 << (from % 64);
    for (i, word) in bits.iter().enumerate().take(last + 1).skip(from / 64) {
        let taken = word.load(Relaxed) & mask;
        if taken != 0 {
            let granule = i * 64 + taken.trailing_zeros() as usize;
            // The slot that starts in this granule: the one that holds the granule's last byte.
            let slot = span.slot_at((granule << GRANULE_SHIFT) + 15);
            return slot.min(end) - first;
        }
        mask = !0;
    }
    end - first
}

/// Calls `f` with each word of a span's bitmap in which slots `first..first + n` start, and their bits in it.
fn for_each_word(slot_bytes: usize, first: u32, n: u32, mut f: impl FnMut(usize, u64)) {
    let Some(starts) = starts(slot_bytes) else {
        let (mut at, mut bits) = (0, 0);
        for slot in first..first + n {
            let (word, bit) = locate(slot, slot_bytes);
            if word != at && bits != 0 {
                f(at, bits);
                bits = 0;
            }
            (at, bits) = (word, bits | bit);
        }
        if bits != 0 {
            f(at, bits);
        }
        return;
    };
    let shift = slot_bytes.trailing_zeros() - GRANULE_SHIFT;
    let (from, to) = ((first as usize) << shift, ((first + n) as usize) << shift);
    for word in from / 64..=(to - 1) / 64 {
        let low = if word == from / 64 { !0 << (from % 64) } else { !0 };
        let high = if to - word * 64 >= 64 { !0 } else { (1 << (to % 64)) - 1 };
        f(word, starts & low & high);
    }
}
