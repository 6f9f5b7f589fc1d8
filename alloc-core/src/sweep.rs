//! Sweeping: what was not marked is free.
//!
//! A sweep of one span makes the allocation bits what the mark bits were, clears those, and counts. It
//! touches no object's memory. Frees are credited before the span, or its pages, can be taken by anybody.
//! Who sweeps what, and when, is in `sweep_protocol`.

use crate::central::Central;
use crate::runs::locate;
use crate::span_class::SpanClass;
use crate::span_heap::SpanHeap;
use crate::sweep_protocol::{SweepGen, Sweepable, Sweeping, Swept};
use crate::units::{Bytes, PageId, Pages};
use besom_stats::sync::raw::Ordering::*;
use besom_stats::{Writer, fatal, memory_checker};

/// What freed memory is filled with, when asked: no valid pointer, no small number, odd.
pub const CLOBBER: u8 = 0xDB;

impl Sweepable for SpanHeap {
    type Stats<'a> = Writer<'a>;

    fn lists(&self) -> u32 {
        self.lists()
    }

    fn list(&self, list: u32) -> &Central {
        self.central(SpanClass(list as u16))
    }

    fn sweepgen(&self, page: PageId) -> &SweepGen {
        &self.tables().span(page).sweepgen
    }

    fn sweep(&self, sweeping: Sweeping<'_>, stats: Writer<'_>) -> Swept {
        self.sweep_span(sweeping, stats)
    }

    fn give_back(&self, swept: Swept, stats: Writer<'_>) -> Pages {
        let pages = self.tables().span(swept.page).pages();
        self.put(swept.page, None, stats);
        pages
    }
}

impl SpanHeap {
    /// Sweeps one span of any class and gives it back; the pages that were swept. `None`: nothing is left
    /// to be swept, though somebody else may be sweeping still.
    pub fn sweep_one(&self, stats: Writer<'_>) -> Option<Pages> {
        self.phase.sweep_one(self, stats)
    }

    /// Sweeps all that is left, and waits for those who sweep something still; the pages that the caller swept.
    pub fn finish_sweep(&self, stats: Writer<'_>) -> Pages {
        self.phase.finish(self, stats)
    }

    /// Whether no sweep of this cycle is going on, or to be done.
    pub fn sweep_is_done(&self) -> bool {
        self.phase.is_done(self)
    }

    fn sweep_span(&self, sweeping: Sweeping<'_>, stats: Writer<'_>) -> Swept {
        let page = sweeping.page();
        let span = self.tables().span(page);
        // A slot's bit lies within the words that the slots cover; a large object has one bit.
        let pages = if span.is_large() { Pages(1) } else { span.pages() };
        let alloc = self.tables().alloc_words(page, pages);
        let marks = self.tables().mark_words(page, pages);
        let shown = self.clobbers() || memory_checker::is_present();
        let mut live = 0;
        let mut freed = 0;
        for (word, (alloc, mark)) in alloc.iter().zip(marks).enumerate() {
            let (a, m) = (alloc.load(Relaxed), mark.load(Relaxed));
            if m & !a != 0 {
                self.report_zombie(page, word * 64 + (m & !a).trailing_zeros() as usize);
            }
            if a != m {
                if shown {
                    self.show_freed(page, word, a & !m, span.slot_bytes());
                }
                freed += (a & !m).count_ones();
                alloc.store(m, Relaxed);
            }
            if m != 0 {
                live += m.count_ones();
                mark.store(0, Relaxed);
            }
        }
        if live + freed != span.alloc_count() {
            fatal(format_args!(
                "sweep: span at page {} has alloc_count {} and {} allocation bits",
                page.0,
                span.alloc_count(),
                live + freed
            ));
        }
        if freed > 0 {
            span.set_alloc_count(live);
            span.count_freed(freed);
            span.set_needs_zero();
            let guard = stats.acquire();
            if span.is_large() {
                guard.large_free(span.pages().bytes().0 as u64);
            } else {
                let class = self.classes().get(span.class()).facts().size_class;
                guard.small_free(class.0 as usize, u64::from(freed));
            }
        }
        if !self.reuses_late() {
            span.set_free_index(0);
        }
        let has_free = live < span.slots();
        sweeping.done();
        Swept { page, has_free }
    }

    /// Makes a use of what is freed show.
    #[cold]
    fn show_freed(&self, page: PageId, word: usize, mut freed: u64, slot_bytes: usize) {
        let span = self.tables().span(page);
        while freed != 0 {
            let granule = word * 64 + freed.trailing_zeros() as usize;
            let slot = if span.is_large() { 0 } else { span.slot_at(granule * 16 + 15) };
            debug_assert!(
                span.is_large() || locate(slot, slot_bytes) == (word, freed & freed.wrapping_neg())
            );
            let start = page.offset() + slot as usize * slot_bytes;
            let bytes = if span.is_large() { span.large_bytes() } else { Bytes(slot_bytes) };
            if self.clobbers() {
                memory_checker::open_up(self.address(start).addr(), bytes.0);
                // SAFETY: the slot was not marked, so nobody holds it, and the caller owns its span.
                unsafe { std::ptr::write_bytes(self.address(start), CLOBBER, bytes.0) };
            }
            if memory_checker::is_present() {
                memory_checker::take_back(self.tables().base(), self.address(start).addr(), bytes.0);
            }
            freed &= freed - 1;
        }
    }

    #[cold]
    fn report_zombie(&self, page: PageId, granule: usize) -> ! {
        let span = self.tables().span(page);
        let offset = page.offset() + granule * 16;
        let address = self.address(offset).cast::<u64>();
        // SAFETY: the address lies in a span's pages, which are readable.
        let words = unsafe { [address.read_volatile(), address.add(1).read_volatile()] };
        let slot = if span.is_large() { 0 } else { span.slot_at(granule * 16 + 15) };
        fatal(format_args!(
            "zombie: {address:p} is reached but not allocated, slot {slot} of {}, {} bytes each, words {:#x} {:#x}",
            span.slots(),
            span.slot_bytes(),
            words[0],
            words[1]
        ))
    }
}
