//! A P's cache: an allocation cell and a span for each span class, the tiny block, a block of pages.
//!
//! Objects are counted when their span is given back: those that were handed out since it was taken, in one addition. So
//! the fast path counts nothing, no counter ever falls, and a span's credit is final before it can be swept. (The
//! seed counts every free slot when the span is taken, and takes the unused ones back: as many additions, one more when a
//! span comes back part-filled, and counters that fall.) The pacer is credited when a span is taken, since it must not
//! start a cycle too late.

use crate::cells::{CELL_COUNT, Cell, TINY_BLOCK, TINY_CELL, empty_cell};
use besom_alloc_core::os::{Mapping, OutOfMemory};
use besom_alloc_core::page_cache::PageCache;
use besom_alloc_core::runs::{Colour, Run};
use besom_alloc_core::size_class::SizeClass;
use besom_alloc_core::span_class::{Kind, SpanClass};
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::units::{PageId, Pages};
use besom_gc::timeline::{Began, Gathered, Kind as Slice};
use besom_gc::{Collector, Phase};
use besom_stats::race_detector::unwatch;
use besom_stats::sync::raw::{AtomicU64, AtomicUsize, Ordering::*};
use besom_stats::{StatsSeq, Writer};

/// What a P owns, in a mapping of its own. Written by the thread that holds the P, or with the world stopped.
///
/// - `spans[c] == 0` or `page + 1` of the span behind `cells[c]`, which has sweepgen G+3
/// - `cells[c]` lies in the last run of that span
/// - bit c of `cached` is set if `spans[c] != 0`, and stays so until the cache is released
/// - while its owner runs, `flush_gen` is the epoch if anything is cached: [`P::check_generation`]
/// - objects of it are born black if `flush_gen` is odd
#[repr(C)]
pub struct PCache {
    cells: [Cell; CELL_COUNT],
    spans: [u32; CELL_COUNT],
    /// So that a release looks at what is cached, not at every cell.
    cached: [u64; CELL_COUNT.div_ceil(64)],
    pages: PageCache,
    seq: StatsSeq,
    /// The epoch in which the cache was last released, or found to be of: [`Context::epoch`].
    flush_gen: u32,
    /// Bytes that the P's owner owes to marking, for the runs that it was handed; less than 0, what it has done in advance.
    debt: i64,
    /// Tiny blocks that were begun since the last flush, and those of the tiny cell's run that were not yet: the
    /// objects behind the first of each block are the tiny cell's count less what was begun.
    tiny_blocks: usize,
    /// What the timeline shows as one slice of sweeping.
    assist: Gathered,
}

/// A P: its cache.
pub struct P {
    mapping: Mapping,
}

/// What a P works against.
#[derive(Clone, Copy)]
pub struct Context<'h> {
    /// The spans.
    pub heap: &'h SpanHeap,
    /// The pacer's side.
    pub collector: &'h Collector,
    /// The heap's count of tiny objects that shared a block; flushed here when the tiny cell's span is given back.
    pub tiny_allocs: &'h AtomicU64,
    /// A run has one slot, so that every allocation takes the slow path.
    pub single: bool,
}

impl Context<'_> {
    /// The sweep generation, which is even, and one more while objects are born black.
    fn epoch(&self) -> u32 {
        self.heap.generation() + u32::from(self.collector.phase() != Phase::Idle)
    }
}

/// Why a cell could not be refilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refill {
    /// It was.
    Done,
    /// A collection is due first.
    CollectionDue,
    /// The page heap has nothing left.
    NoMemory,
}

impl P {
    /// A P with an empty cache.
    pub fn new() -> Result<P, OutOfMemory> {
        let mapping = Mapping::lazy_zeroed(size_of::<PCache>())?;
        let p = P { mapping };
        for index in 0..CELL_COUNT {
            // SAFETY: the P is nobody else's yet, and the cell lies in its mapping.
            unsafe { p.cell(index).write(empty_cell(index)) };
        }
        // `holds_unused` looks at those of running threads.
        unwatch(p.cells().cast_const().cast::<[Cell; CELL_COUNT]>());
        Ok(p)
    }

    fn cache(&self) -> *mut PCache {
        self.mapping.ptr().cast()
    }

    /// The cells, for the inline functions.
    pub fn cells(&self) -> *mut Cell {
        // SAFETY: a field of the mapped cache.
        unsafe { (&raw mut (*self.cache()).cells).cast() }
    }

    /// One cell.
    #[inline(always)]
    pub fn cell(&self, index: usize) -> *mut Cell {
        debug_assert!(index < CELL_COUNT);
        // SAFETY: the index is a span class.
        unsafe { self.cells().add(index) }
    }

    /// The P's sequence number in the statistics.
    pub fn seq(&self) -> &StatsSeq {
        // SAFETY: zeroed memory is a fresh number; only its own methods touch it, atomically.
        unsafe { &(*self.cache()).seq }
    }

    fn span(&self, cell: usize) -> *mut u32 {
        debug_assert!(cell < CELL_COUNT);
        // SAFETY: the index is a cell's.
        unsafe { (&raw mut (*self.cache()).spans).cast::<u32>().add(cell) }
    }

    /// The P's block of pages.
    ///
    /// # Safety
    /// The caller holds the P, or the world is stopped; no second reference lives meanwhile.
    #[expect(clippy::mut_from_ref, reason = "the P's memory is raw; who holds the P owns it")]
    pub unsafe fn pages(&self) -> &mut PageCache {
        // SAFETY: the caller's promise.
        unsafe { &mut (*self.cache()).pages }
    }

    fn cached(&self, cell: usize) -> (*mut u64, u64) {
        debug_assert!(cell < CELL_COUNT);
        // SAFETY: a word for every 64 cells.
        (unsafe { (&raw mut (*self.cache()).cached).cast::<u64>().add(cell / 64) }, 1 << (cell % 64))
    }

    /// The P's writer of statistics.
    pub fn writer<'a>(&'a self, cx: Context<'a>) -> Writer<'a> {
        cx.heap.stats().writer(self.seq())
    }

    /// Puts free slots into a cell, whose owner owes for them. `may_collect` false: it does so even if a collection is due.
    ///
    /// # Safety
    /// The caller holds the P.
    pub unsafe fn refill(&self, cx: Context<'_>, cell: usize, may_collect: bool) -> Refill {
        loop {
            // SAFETY: the caller holds the P.
            let cached = unsafe { *self.span(cell) };
            if let Some(page) = cached.checked_sub(1).map(PageId) {
                let most = if cx.single { 1 } else { u32::MAX };
                if let Some(run) = cx.heap.next_run(page, most, self.colour()) {
                    // SAFETY: as above.
                    unsafe {
                        self.set_cell(cx, cell, run);
                        self.owe(cx, (run.end - run.start) as i64);
                    }
                    return Refill::Done;
                }
                // SAFETY: as above.
                unsafe { self.uncache(cx, cell) };
            }
            if may_collect && cx.collector.is_due(0) {
                return Refill::CollectionDue;
            }
            // SAFETY: as above.
            if !unsafe { self.cache_span(cx, cell) } {
                return Refill::NoMemory;
            }
        }
    }

    /// # Safety
    /// As for [`Self::refill`].
    unsafe fn set_cell(&self, cx: Context<'_>, cell: usize, run: Run) {
        let base = cx.heap.tables().base();
        let facts = cx.heap.classes().get(class_of_cell(cell)).facts();
        // SAFETY: the caller holds the P.
        unsafe {
            let at = self.cell(cell);
            show(at, base + run.start, base + run.end);
            if cell == TINY_CELL {
                (*self.cache()).tiny_blocks += (run.end - run.start) / TINY_BLOCK;
            } else {
                (*at).slot = facts.slot_bytes as usize;
            }
        }
    }

    /// Caches a span with free slots, and credits them all to the pacer.
    ///
    /// # Safety
    /// As for [`Self::refill`].
    unsafe fn cache_span(&self, cx: Context<'_>, cell: usize) -> bool {
        let class = class_of_cell(cell);
        let facts = cx.heap.classes().get(class).facts();
        // SAFETY: the caller holds the P.
        debug_assert_eq!(unsafe { (*self.cache()).flush_gen }, cx.epoch(), "a stale cache is used");
        let stats = self.writer(cx);
        match cx.collector.timeline().begin() {
            None => _ = cx.collector.pay_sweep_debt(cx.heap, 0, stats),
            // SAFETY: the caller holds the P.
            Some(began) => unsafe { self.pay_and_show(cx, began, stats) },
        }
        // SAFETY: the caller holds the P.
        let Some(page) = cx.heap.take(class, unsafe { self.pages() }, stats) else { return false };
        let span = cx.heap.tables().span(page);
        span.cache(cx.heap.generation());
        let bytes = i64::from(span.free_count()) * i64::from(facts.slot_bytes);
        cx.collector.pacer().credit(bytes);
        let (word, bit) = self.cached(cell);
        // SAFETY: as above.
        unsafe {
            *self.span(cell) = page.0 + 1;
            *word |= bit;
        }
        true
    }

    /// # Safety
    /// As for [`Self::refill`].
    #[cold]
    unsafe fn pay_and_show(&self, cx: Context<'_>, began: Began, stats: Writer<'_>) {
        let paid = cx.collector.pay_sweep_debt(cx.heap, 0, stats);
        // SAFETY: the caller holds the P.
        unsafe { self.assisted(cx, began, paid) };
    }

    /// Shows a step of sweeping that began at `began` in the timeline, and now and then how the heap grows.
    ///
    /// # Safety
    /// As for [`Self::refill`].
    #[cold]
    pub unsafe fn assisted(&self, cx: Context<'_>, began: Began, swept: Pages) {
        if swept.0 != 0 {
            // SAFETY: the caller holds the P.
            let slice = unsafe { &mut (*self.cache()).assist };
            cx.collector.timeline().gather(slice, Slice::SweepAssist, began, swept);
        }
        cx.collector.sample_growth(cx.heap);
    }

    /// Ends the slice of sweeping in the timeline, if there is one.
    ///
    /// # Safety
    /// As for [`Self::release`].
    pub unsafe fn end_assist(&self, cx: Context<'_>) {
        // SAFETY: the caller's promise.
        let slice = unsafe { &mut (*self.cache()).assist };
        cx.collector.timeline().end_gathered(slice, Slice::SweepAssist);
    }

    /// Gives the span of a cell back; what was handed out of it is counted.
    ///
    /// # Safety
    /// As for [`Self::refill`].
    unsafe fn uncache(&self, cx: Context<'_>, cell: usize) {
        // SAFETY: the caller holds the P.
        let Some(page) = (unsafe { *self.span(cell) }).checked_sub(1).map(PageId) else { return };
        let facts = cx.heap.classes().get(class_of_cell(cell)).facts();
        let base = cx.heap.tables().base();
        // SAFETY: as above.
        unsafe {
            let unused = unused_of(cell, self.cell(cell));
            if !unused.is_empty() {
                let unused = Run { start: unused.start - base, end: unused.end - base };
                cx.heap.give_back(page, unused, self.colour());
            }
            show(self.cell(cell), 0, 0);
            *self.span(cell) = 0;
            if cell == TINY_CELL {
                (*self.cache()).tiny_blocks -= unused.len() / TINY_BLOCK;
                self.flush_tiny(cx);
            }
        }
        let span = cx.heap.tables().span(page);
        let stats = self.writer(cx);
        let objects = u64::from(span.take_uncounted());
        stats.acquire().small_alloc(facts.size_class.0 as usize, objects);
        if self.colour() == Colour::Black {
            cx.collector.born(objects * u64::from(facts.slot_bytes));
        }
        let unused = i64::from(span.free_count());
        if unused != 0 {
            cx.collector.pacer().credit(-unused * i64::from(facts.slot_bytes));
        }
        span.uncache(cx.heap.generation());
        // SAFETY: as above.
        cx.heap.put(page, Some(unsafe { self.pages() }), stats);
    }

    /// Adds the tiny objects that share a block with one before them to the heap's total. The tiny cell is empty.
    ///
    /// # Safety
    /// As for [`Self::refill`].
    unsafe fn flush_tiny(&self, cx: Context<'_>) {
        // SAFETY: the caller holds the P.
        let (objects, blocks) = unsafe {
            (
                std::mem::take(&mut (*self.cell(TINY_CELL)).slot),
                std::mem::take(&mut (*self.cache()).tiny_blocks),
            )
        };
        cx.tiny_allocs.fetch_add((objects - blocks) as u64, Relaxed);
    }

    /// Gives everything back: spans, the tiny block, pages; statistics are exact for this P afterwards.
    ///
    /// # Safety
    /// The caller holds the P, or the world is stopped.
    pub unsafe fn release(&self, cx: Context<'_>) {
        // SAFETY: the caller's promise.
        unsafe {
            for first in (0..CELL_COUNT).step_by(64) {
                let mut cached = std::mem::take(&mut *self.cached(first).0);
                while cached != 0 {
                    self.uncache(cx, first + cached.trailing_zeros() as usize);
                    cached &= cached - 1;
                }
            }
            cx.heap.pages().flush_cache(self.pages(), self.writer(cx));
            self.end_assist(cx);
        }
    }

    /// What objects of this P are born as.
    pub fn colour(&self) -> Colour {
        // SAFETY: only the thread that holds the P writes it, or the collector of a stopped world.
        if unsafe { (*self.cache()).flush_gen }.is_multiple_of(2) { Colour::White } else { Colour::Black }
    }

    /// What marking is owed for `bytes` that are about to be allocated is added to the debt.
    ///
    /// # Safety
    /// As for [`Self::refill`].
    pub unsafe fn owe(&self, cx: Context<'_>, bytes: i64) {
        // SAFETY: the caller holds the P.
        unsafe { (*self.cache()).debt += cx.collector.pacer().assist_work(bytes) };
    }

    /// The debt.
    ///
    /// # Safety
    /// As for [`Self::refill`].
    pub unsafe fn debt(&self) -> i64 {
        // SAFETY: the caller holds the P.
        unsafe { (*self.cache()).debt }
    }

    /// So much of the debt is paid.
    ///
    /// # Safety
    /// As for [`Self::refill`].
    pub unsafe fn pay(&self, bytes: i64) {
        // SAFETY: the caller holds the P.
        unsafe { (*self.cache()).debt -= bytes };
    }

    /// Whoever comes to a P, or back to it after a stop, calls this first: a cache that is older than the epoch is
    /// released before it is used. (What a stop flushed is empty, so there it only takes note.)
    ///
    /// # Safety
    /// As for [`Self::refill`].
    #[inline]
    pub unsafe fn check_generation(&self, cx: Context<'_>) {
        // SAFETY: the caller holds the P.
        unsafe {
            let flushed = &raw mut (*self.cache()).flush_gen;
            if *flushed != cx.epoch() {
                self.release(cx);
                *flushed = cx.epoch();
                (*self.cache()).debt = 0;
            }
        }
    }

    /// Whether a slot of the span that begins at `span` lies in a run that a cell has not handed out yet. While the
    /// P's owner runs, what is handed out is told so; of a slot that is not, the answer may be out of date.
    ///
    /// The limit is read first, and written last: the cursor belongs to the same run or to a later one. Runs of a
    /// span go up, so that a later cursor is past this limit; one of another span, or of none, is below `span`, or
    /// past the limit. That holds within one generation: the caller sees to it that no cycle passes meanwhile.
    pub fn holds_unused(&self, class: SpanClass, span: usize, address: usize) -> bool {
        let tiny = (class == class_of_cell(TINY_CELL)).then_some(TINY_CELL);
        [Some(class.index()), tiny].into_iter().flatten().any(|cell| {
            // SAFETY: the words lie in the P's mapping; the owner may write them.
            let unused = unsafe { unused_of(cell, self.cell(cell)) };
            unused.start >= span && unused.contains(&address)
        })
    }
}

/// The class of the spans behind a cell: tiny blocks are slots of the least pointer-free class.
fn class_of_cell(cell: usize) -> SpanClass {
    if cell == TINY_CELL { SpanClass::new(Kind::NoScan, SizeClass(1)) } else { SpanClass(cell as u16) }
}

/// Gives a cell a run, or none. The limit comes last, for [`P::holds_unused`].
///
/// # Safety
/// The caller holds the cell's P.
unsafe fn show(cell: *mut Cell, cursor: usize, limit: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        (&raw mut (*cell).cursor).write_volatile(cursor);
        AtomicUsize::from_ptr(&raw mut (*cell).limit).store(limit, Release);
    }
}

/// The addresses of the slots that a cell has not handed out. A tiny block that was begun is handed out.
///
/// # Safety
/// The cell must be readable.
unsafe fn unused_of(index: usize, cell: *const Cell) -> std::ops::Range<usize> {
    // SAFETY: the caller's promise; the words may be written meanwhile by the P's owner.
    let (limit, cursor) = unsafe {
        let limit = AtomicUsize::from_ptr((&raw const (*cell).limit).cast_mut()).load(Acquire);
        (limit, (&raw const (*cell).cursor).read_volatile())
    };
    if index == TINY_CELL { cursor.next_multiple_of(TINY_BLOCK)..limit } else { cursor..limit }
}

#[cfg(all(test, not(loom)))]
mod tests;
