//! The walk over every span, and the check of the equations that stand on the structs.

use crate::runs::locate;
use crate::span::Span;
use crate::span_heap::SpanHeap;
use crate::stopped::Stopped;
use crate::units::{PageId, Pages};
use besom_stats::fatal;
use besom_stats::sync::raw::Ordering::Relaxed;
use std::ops::ControlFlow::{self, Continue};

impl SpanHeap {
    /// Visits every span in address order, until `visit` breaks off. Grows with the pages that were ever used.
    pub fn try_for_each_span<B>(
        &self,
        _: &Stopped,
        mut visit: impl FnMut(PageId, &Span) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let grown = self.pages().grown();
        let mut page = PageId(0);
        while (page.0 as usize) < grown.0 {
            if self.tables().class_of(page).is_none() {
                page = page.plus(Pages(1));
                continue;
            }
            let span = self.tables().span(page);
            visit(page, span)?;
            page = page.plus(span.pages());
        }
        Continue(())
    }

    /// Visits every span in address order.
    pub fn for_each_span(&self, stopped: &Stopped, mut visit: impl FnMut(PageId, &Span)) {
        let _: ControlFlow<()> = self.try_for_each_span(stopped, |page, span| {
            visit(page, span);
            Continue(())
        });
    }

    /// Visits every allocated slot of a span, as its offset from the reservation's start, until `visit` breaks off.
    pub fn try_for_each_object<B>(
        &self,
        page: PageId,
        span: &Span,
        mut visit: impl FnMut(usize) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let words = self.tables().alloc_words(page, span.pages());
        for slot in 0..span.slots() {
            let (word, bit) = locate(slot, span.slot_bytes());
            if words[word].load(Relaxed) & bit != 0 {
                visit(page.offset() + slot as usize * span.slot_bytes())?;
            }
        }
        Continue(())
    }

    /// Visits every allocated slot of a span, as its offset from the reservation's start.
    pub fn for_each_object(&self, page: PageId, span: &Span, mut visit: impl FnMut(usize)) {
        let _: ControlFlow<()> = self.try_for_each_object(page, span, |offset| {
            visit(offset);
            Continue(())
        });
    }

    /// Checks every equation of the spans and of the pages below them, and aborts on the first that does not
    /// hold. The caches are flushed, so that spans are in central sets only.
    pub fn check(&self, stopped: &Stopped) {
        let mut in_use = Pages(0);
        self.for_each_span(stopped, |page, span| {
            in_use = Pages(in_use.0 + span.pages().0);
            self.check_span(page, span);
        });
        self.pages().check();
        if in_use != self.pages().in_use() {
            fatal(format_args!(
                "verify: spans hold {} pages, the page heap has {} in use",
                in_use.0,
                self.pages().in_use().0
            ));
        }
    }

    fn check_span(&self, page: PageId, span: &Span) {
        let (pages, slot_bytes, generation) = (span.pages(), span.slot_bytes(), self.generation());
        let wrong = |what: &str, left: u64, right: u64| -> ! {
            fatal(format_args!("verify: span at page {}: {what}: {left} against {right}", page.0))
        };
        let sweepgen = span.sweepgen();
        if sweepgen != generation && sweepgen != generation.wrapping_sub(2) {
            wrong("sweepgen is neither swept nor unswept", sweepgen.into(), generation.into());
        }
        if !span.is_large() && span.slots() as usize * slot_bytes > pages.bytes().0 {
            wrong("slots do not fit", u64::from(span.slots()) * slot_bytes as u64, pages.bytes().0 as u64);
        }
        for p in page.0..page.0 + pages.0 as u32 {
            let class = self.tables().class_of(PageId(p));
            if class != Some(span.class()) || self.tables().first_page(PageId(p)) != page {
                wrong("page table", p.into(), page.0.into());
            }
        }
        let alloc = self.tables().alloc_words(page, pages);
        let marks = self.tables().mark_words(page, pages);
        let set: u32 = alloc.iter().map(|w| w.load(Relaxed).count_ones()).sum();
        let at_starts = (0..span.slots())
            .filter(|&slot| {
                let (word, bit) = locate(slot, slot_bytes);
                alloc[word].load(Relaxed) & bit != 0
            })
            .count() as u32;
        if set != at_starts {
            wrong("allocation bits off the slots' starts", set.into(), at_starts.into());
        }
        if set != span.alloc_count() {
            wrong("alloc_count", span.alloc_count().into(), set.into());
        }
        if span.counted() != set {
            wrong("counted in the statistics", span.counted().into(), set.into());
        }
        if sweepgen == generation && marks.iter().any(|w| w.load(Relaxed) != 0) {
            wrong("mark bits in a swept span", 1, 0);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::page_cache::PageCache;
    use crate::runs::Colour;
    use crate::size_class::SizeClass;
    use crate::span_class::{Kind, SpanClass};
    use crate::units::Bytes;
    use std::ops::ControlFlow::Break;

    #[test]
    fn a_walk_ends_where_it_is_broken_off() {
        let heap = SpanHeap::new(Bytes(64 << 20), Bytes(0), false).expect("a heap");
        let stats = heap.stats().unattached();
        // Three large objects, then a span of small ones with its first run handed out.
        for _ in 0..3 {
            heap.alloc_large(Bytes(100_000), 0, Colour::White, None, stats).expect("memory");
        }
        let mut pages = PageCache::new();
        let class = SpanClass::new(Kind::Values, SizeClass(1));
        let page = heap.take(class, &mut pages, stats).expect("memory");
        heap.tables().span(page).cache(heap.generation());
        heap.next_run(page, 10, Colour::White).expect("a run");
        heap.tables().span(page).uncache(heap.generation());
        // SAFETY: no thread but this knows the heap.
        let stopped = unsafe { Stopped::new() };
        let (mut all, mut spans) = (0, 0);
        heap.for_each_span(&stopped, |_, _| all += 1);
        assert_eq!(all, 4);
        let broken = heap.try_for_each_span(&stopped, |_, _| {
            spans += 1;
            if spans == 2 { Break(spans) } else { Continue(()) }
        });
        assert_eq!((broken, spans), (Break(2), 2));
        let (mut objects, span) = (0, heap.tables().span(page));
        let broken = heap.try_for_each_object(page, span, |_| {
            objects += 1;
            if objects == 3 { Break(()) } else { Continue(()) }
        });
        assert_eq!((broken, objects), (Break(()), 3));
        heap.for_each_object(page, span, |_| objects += 1);
        assert_eq!(objects, 3 + 10);
    }
}
