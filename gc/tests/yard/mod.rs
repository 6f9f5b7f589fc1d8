//! A heap without mutators, for tests of the collector: spans, shapes, and objects made by hand.

use besom_alloc_core::page_cache::PageCache;
use besom_alloc_core::runs::{Colour, Run};
use besom_alloc_core::size_class::{MAX_SMALL, class_of_aligned};
use besom_alloc_core::span_class::{Kind, SpanClass};
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::stopped::Stopped;
use besom_alloc_core::units::{Bytes, PageId};
use besom_gc::{Encoding, Layouts, Shapes, TraceFn};
use std::collections::HashMap;

/// The heap, and what a P would hold.
pub struct Yard {
    pub heap: SpanHeap,
    pub shapes: Shapes,
    pages: PageCache,
    cached: HashMap<u16, (PageId, Run)>,
}

impl Yard {
    pub fn new(encoding: Encoding, trace: Option<TraceFn>) -> Yard {
        Yard {
            heap: SpanHeap::new(Bytes(1 << 30), Bytes(0), false).expect("a heap"),
            shapes: Shapes {
                encoding,
                trace,
                data: std::ptr::null_mut(),
                layouts: Layouts::new().expect("layouts"),
            },
            pages: PageCache::new(),
            cached: HashMap::new(),
        }
    }

    /// A zeroed object of a kind.
    pub fn alloc(&mut self, bytes: usize, kind: Kind) -> *mut u64 {
        if bytes > MAX_SMALL {
            return self.alloc_large(bytes, kind, 0);
        }
        self.alloc_class(SpanClass::new(kind, class_of_aligned(bytes)))
    }

    /// A zeroed object with pages of its own.
    pub fn alloc_large(&mut self, bytes: usize, kind: Kind, layout: u32) -> *mut u64 {
        let stats = self.heap.stats().unattached();
        let object = self.heap.alloc_large(Bytes(bytes), layout, Colour::White, None, stats).expect("memory");
        assert!(object.zeroed, "a new heap's pages are");
        self.heap.publish_large(&object, kind);
        self.heap.address(object.page.offset()).cast()
    }

    /// A zeroed slot of a class.
    pub fn alloc_class(&mut self, class: SpanClass) -> *mut u64 {
        let slot = self.heap.classes().get(class).facts().slot_bytes as usize;
        loop {
            if let Some((page, run)) = self.cached.get_mut(&class.0) {
                if run.start < run.end {
                    run.start += slot;
                    return self.heap.address(run.start - slot).cast();
                }
                match self.heap.next_run(*page, u32::MAX, Colour::White) {
                    Some(next) => *run = next,
                    None => self.uncache(class.0),
                }
                continue;
            }
            let stats = self.heap.stats().unattached();
            let page = self.heap.take(class, &mut self.pages, stats).expect("memory");
            self.heap.tables().span(page).cache(self.heap.generation());
            self.cached.insert(class.0, (page, Run { start: 0, end: 0 }));
        }
    }

    fn uncache(&mut self, class: u16) {
        let (page, run) = self.cached.remove(&class).expect("a cached span");
        if run.start < run.end {
            self.heap.give_back(page, run, Colour::White);
        }
        let (span, stats) = (self.heap.tables().span(page), self.heap.stats().unattached());
        let size = self.heap.classes().get(span.class()).facts().size_class.0 as usize;
        stats.acquire().small_alloc(size, span.take_uncounted().into());
        span.uncache(self.heap.generation());
        self.heap.put(page, Some(&mut self.pages), stats);
    }

    /// Gives all cached spans back, and stops the world, which there is none of.
    pub fn stop(&mut self) -> Stopped<'static> {
        for class in self.cached.keys().copied().collect::<Vec<_>>() {
            self.uncache(class);
        }
        self.heap.pages().flush_cache(&mut self.pages, self.heap.stats().unattached());
        // SAFETY: no thread but this knows the heap.
        unsafe { Stopped::new() }
    }
}
