//! The heap of spans: pages cut into slots, handed out from central lists, found again from an address.
//!
//! This is the top of the allocator below the caches. It owns the page heap, the tables beside it, the central
//! lists and the statistics. What it does to a span's bits is in `runs`, sweeping is in `sweep`, the walk that
//! checks it all in `check`.

use crate::central::Central;
use crate::heap_tables::{HeapTables, ZeroedTable};
use crate::os::OutOfMemory;
use crate::page_cache::PageCache;
use crate::page_heap::{PageHeap, PageHeapConfig};
use crate::runs::Colour;
use crate::size_class::{CLASS_MAGIC, CLASS_PAGES, CLASS_SIZE, CLASS_SLOTS, SizeClass};
use crate::span::{Span, SpanShape};
use crate::span_class::{ClassTable, FIRST_LAYOUT, Kind, OWN_LAYOUTS, SPAN_CLASS_COUNT, SpanClass};
use crate::stopped::Stopped;
use crate::sweep_protocol::SweepPhase;
use crate::units::{Bytes, CHUNK_PAGES, PAGE_SIZE, PageId, Pages};
use besom_stats::sync::raw::{AtomicU32, Ordering::*};
use besom_stats::{ConsistentHeapStats, SystemStats, Writer, memory_checker};

/// The list that holds every large object's span, whatever its kind.
const LARGE_LIST: SpanClass = SpanClass(0);

/// While a memory checker watches and less is in use, a freed slot is not handed out at all, but one of a new span.
/// Higher: a program under a checker takes more memory. Lower: a use after free goes unnoticed sooner.
const SPREAD: Pages = Pages((256 << 20) / PAGE_SIZE);

/// The spans of one heap.
///
/// - a span in use is in exactly one place: a central set, a cache, or the hands of one thread
/// - no span is unswept when the generation grows
pub struct SpanHeap {
    pages: PageHeap,
    tables: HeapTables,
    classes: ClassTable,
    centrals: ZeroedTable<Central>,
    stats: ConsistentHeapStats,
    /// G, and how far sweeping has come.
    pub(crate) phase: SweepPhase,
    layouts: AtomicU32,
    /// Freed slots are filled with a pattern.
    clobber: bool,
    /// Freed slots are handed out as late as their span allows, so that a stale pointer shows.
    late_reuse: bool,
}

/// An allocated slot, found from an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the object starts, from the reservation's start.
    pub offset: usize,
    /// Bytes of its slot.
    pub bytes: Bytes,
    /// The class of its span.
    pub class: SpanClass,
}

/// A large object, fresh from the page heap.
#[derive(Clone, Copy, Debug)]
pub struct LargeObject {
    /// The first page, where the object starts.
    pub page: PageId,
    /// All of its pages.
    pub pages: Pages,
    /// Its memory is known to be zero.
    pub zeroed: bool,
}

impl SpanHeap {
    /// An empty heap.
    pub fn new(reserve: Bytes, limit: Bytes, clobber: bool) -> Result<SpanHeap, OutOfMemory> {
        let tables = HeapTables::PER_PAGE;
        let mut reserve = reserve;
        let (pages, tables) = loop {
            let pages = PageHeap::new(PageHeapConfig { reserve, limit, tables })?;
            match HeapTables::new(pages.base(), pages.reserved()) {
                Ok(tables) => break (pages, tables),
                // A system that grants addresses may refuse the tables for them: ask for fewer.
                Err(error) if pages.reserved().0 <= CHUNK_PAGES => return Err(error),
                Err(_) => reserve = Bytes(pages.reserved().bytes().0 / 2),
            }
        };
        let (classes, centrals) = (ClassTable::new()?, ZeroedTable::new(SPAN_CLASS_COUNT)?);
        let heap = SpanHeap {
            tables,
            pages,
            classes,
            centrals,
            stats: ConsistentHeapStats::new(),
            phase: SweepPhase::default(),
            layouts: AtomicU32::new(0),
            clobber,
            late_reuse: clobber,
        };
        heap.system().spans.add(heap.list_bytes().0 as i64);
        Ok(heap)
    }

    /// Memory that the runtime takes from the system for itself.
    pub fn system(&self) -> &SystemStats {
        self.pages.system()
    }

    /// Bytes of what is known of span classes: their facts and their lists.
    pub fn list_bytes(&self) -> Bytes {
        Bytes(self.classes.bytes() + self.centrals.bytes())
    }

    /// The tables beside the heap.
    #[inline(always)]
    pub fn tables(&self) -> &HeapTables {
        &self.tables
    }

    /// What is known of each span class.
    #[inline(always)]
    pub fn classes(&self) -> &ClassTable {
        &self.classes
    }

    /// The heap of pages.
    pub fn pages(&self) -> &PageHeap {
        &self.pages
    }

    /// The heap's statistics.
    pub fn stats(&self) -> &ConsistentHeapStats {
        &self.stats
    }

    /// The sweep generation.
    #[inline(always)]
    pub fn generation(&self) -> u32 {
        self.phase.generation()
    }

    /// Makes every swept span an unswept one. The caches are flushed and nothing is unswept.
    pub fn advance_generation(&self, _: &Stopped) {
        self.phase.advance();
    }

    /// The central list of a class.
    pub(crate) fn central(&self, class: SpanClass) -> &Central {
        self.centrals.get(class.index())
    }

    /// Central lists that can hold spans.
    pub(crate) fn lists(&self) -> u32 {
        FIRST_LAYOUT as u32 + self.layouts.load(Acquire)
    }

    /// Makes freed slots be handed out as late as their span allows: for debugging.
    pub fn reuse_late(&mut self) {
        self.late_reuse = true;
    }

    pub(crate) fn reuses_late(&self) -> bool {
        self.late_reuse
    }

    pub(crate) fn clobbers(&self) -> bool {
        self.clobber
    }

    /// Gives the next registered layout a span class; `None` when all [`OWN_LAYOUTS`] are taken. The caller
    /// holds the lock of layouts.
    pub fn register_layout(&self, class: SizeClass) -> Option<SpanClass> {
        let n = self.layouts.load(Relaxed);
        if n as usize == OWN_LAYOUTS {
            return None;
        }
        let span_class = self.classes.register_layout(n, class);
        self.layouts.store(n + 1, Release);
        Some(span_class)
    }

    /// The address of an offset from the reservation's start.
    #[inline(always)]
    pub fn address(&self, offset: usize) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.tables.base() + offset)
    }

    /// A swept span of the class with free slots, which the caller owns from here: from the swept partial set,
    /// else by sweeping, else new. `None`: the page heap has nothing left.
    pub fn take(&self, class: SpanClass, cache: &mut PageCache, stats: Writer<'_>) -> Option<PageId> {
        if memory_checker::is_present()
            && self.pages.in_use() < self.spread()
            && let Some(span) = self.new_span(class, cache, stats)
        {
            return Some(span);
        }
        let swept = self.phase.take(self, class.index() as u32, stats);
        swept.or_else(|| self.new_span(class, cache, stats))
    }

    /// [`SPREAD`], or half of a limit.
    #[cold]
    fn spread(&self) -> Pages {
        let limits = [self.pages.limit(), self.pages.soft_limit()];
        let halves =
            limits.into_iter().filter(|limit| limit.0 != 0).map(|limit| Pages(limit.0 / 2 / PAGE_SIZE));
        halves.fold(SPREAD, Pages::min)
    }

    /// A new span of a small class.
    fn new_span(&self, class: SpanClass, cache: &mut PageCache, stats: Writer<'_>) -> Option<PageId> {
        let size = self.classes.get(class).facts().size_class.0 as usize;
        let run = self.pages.alloc(Some(cache), Pages(CLASS_PAGES[size] as usize), stats)?;
        let shape = SpanShape {
            pages: run.pages,
            class,
            slot_bytes: CLASS_SIZE[size] as usize,
            slots: CLASS_SLOTS[size],
            magic: CLASS_MAGIC[size],
            zeroed: run.zeroed,
        };
        self.tables.span(run.start).init(&shape, self.generation());
        self.tables.set_class(run.start, run.pages, Some(class));
        Some(run.start)
    }

    /// Gives a swept span, which the caller owns, back: to its central list, or its pages to the page heap when
    /// nothing in it is allocated. Its free slots were credited as freed before.
    pub fn put(&self, page: PageId, cache: Option<&mut PageCache>, stats: Writer<'_>) {
        let span = self.tables.span(page);
        if span.alloc_count() == 0 {
            let pages = span.pages();
            self.tables.set_class(page, pages, None);
            self.pages.free(page, pages, cache, stats);
        } else if span.is_large() {
            self.central(LARGE_LIST).put(self, page, false, self.generation());
        } else {
            self.central(span.class()).put(self, page, span.free_count() > 0, self.generation());
        }
    }

    /// A large object of `bytes`, credited, and for the collector pointer-free until [`Self::publish_large`].
    pub fn alloc_large(
        &self,
        bytes: Bytes,
        layout: u32,
        colour: Colour,
        cache: Option<&mut PageCache>,
        stats: Writer<'_>,
    ) -> Option<LargeObject> {
        let run = self.pages.alloc(cache, Pages::to_hold(bytes), stats)?;
        let shape = SpanShape {
            pages: run.pages,
            class: LARGE_LIST,
            slot_bytes: run.pages.bytes().0,
            slots: 1,
            magic: 0,
            zeroed: run.zeroed,
        };
        let span = self.tables.span(run.start);
        span.init(&shape, self.generation());
        span.set_large(Bytes(bytes.0.next_multiple_of(8)), layout);
        span.set_alloc_count(1);
        span.take_uncounted();
        span.set_free_index(1);
        stats.acquire().large_alloc(run.pages.bytes().0 as u64);
        if memory_checker::is_present() {
            let start = self.address(run.start.offset()).addr();
            memory_checker::lend(self.tables.base(), start, span.large_bytes().0);
        }
        if colour == Colour::Black {
            self.tables.mark_shared(run.start.offset());
        }
        self.tables.set_allocated(run.start.offset());
        self.tables.set_class(run.start, run.pages, Some(LARGE_LIST));
        self.central(LARGE_LIST).put(self, run.start, false, self.generation());
        Some(LargeObject { page: run.start, pages: run.pages, zeroed: run.zeroed })
    }

    /// Shows a large object's pointers, which are zero now, to the collector.
    pub fn publish_large(&self, object: &LargeObject, kind: Kind) {
        let class = SpanClass::new(kind, SizeClass(0));
        self.tables.span(object.page).set_class(class);
        self.tables.set_class(object.page, object.pages, Some(class));
    }

    /// The allocated slot that holds an address, which may be any word whatever. One past the end of an
    /// object is not in it.
    #[inline]
    pub fn find(&self, address: usize) -> Option<Found> {
        let offset = self.tables.offset_of(address)?;
        let class = self.tables.class_of(PageId::of_offset(offset))?;
        self.find_in(offset, class)
    }

    /// [`Self::find`] for an offset whose page's class is known.
    #[inline]
    pub fn find_in(&self, offset: usize, class: SpanClass) -> Option<Found> {
        let page = self.tables.first_page(PageId::of_offset(offset));
        let span = self.tables.span(page);
        let start = if span.is_large() {
            page.offset()
        } else {
            let slot = span.slot_at(offset - page.offset());
            if slot >= span.slots() {
                return None;
            }
            page.offset() + slot as usize * span.slot_bytes()
        };
        self.tables.is_allocated(start).then(|| Found {
            offset: start,
            bytes: Bytes(span.slot_bytes()),
            class,
        })
    }

    /// The span in which an object that was found lies.
    pub fn span_of(&self, offset: usize) -> (&Span, PageId) {
        let page = self.tables.first_page(PageId::of_offset(offset));
        (self.tables.span(page), page)
    }
}
