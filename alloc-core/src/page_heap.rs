//! The page heap: runs of pages, out of one reservation, within one limit, counted.
//!
//! The page allocator under its lock says which pages are free; a P's cache hands out small runs with no lock.
//! This is also where memory is counted, here and in the heap's statistics:
//!
//! - pages that are handed out are credited before the caller sees them, and debited before anybody else can
//!   get them
//! - what others see once the lock is free (chunks grown, memory released) is credited under the lock
//!
//! so every snapshot has `0 <= in_heap <= committed` and `released >= 0`. Lock
//! order: the page allocator's, then the statistics'. Nobody calls in here while he holds a guard of the
//! latter.

use crate::address_space::AddressSpace;
use crate::late_runs::LateRuns;
use crate::os::{OutOfMemory, huge_page_size, page_size};
use crate::page_alloc::PageAlloc;
use crate::page_cache::{MOST_CACHED, PageCache};
use crate::units::{Bytes, CHUNK_PAGES, CHUNK_SIZE, PAGE_SIZE, PageId, Pages};
use besom_stats::sync::{AtomicUsize, Condvar, Held, Mutex, MutexGuard, Ordering::Relaxed, hold, lock};
use besom_stats::{SystemStats, Writer, fatal, memory_checker};

/// How a page heap is made.
#[derive(Clone, Copy, Debug)]
pub struct PageHeapConfig {
    /// Addresses to reserve; 0: [`crate::address_space::DEFAULT_RESERVE`].
    pub reserve: Bytes,
    /// The most memory, tables included; 0: no limit.
    pub limit: Bytes,
    /// What the heap's owner keeps beside it for each page that was ever used.
    pub tables: PageTables,
}

/// Bytes of tables by use, for one page, or for all pages of the chunks that are grown, which is what [`SystemStats`] counts.
#[derive(Clone, Copy, Debug)]
pub struct PageTables {
    /// Span descriptors.
    pub spans: usize,
    /// The page table.
    pub page_tables: usize,
    /// Mark bits and allocation bits.
    pub mark_bits: usize,
}

impl PageTables {
    /// All of them.
    pub const fn bytes(self) -> usize {
        self.spans + self.page_tables + self.mark_bits
    }
}

/// Pages side by side, handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// The first.
    pub start: PageId,
    /// How many.
    pub pages: Pages,
    /// All of their memory is known to be zero: fresh, or released since it was last used.
    pub zeroed: bool,
}

/// The pages of one heap.
///
/// - `grown == in_use + free + released`, with `free == ready - in_use` and `released == grown - ready`;
///   pages in caches, and those that come back late, are counted as free or released,
///   those on their way to the system as free
/// - `in_use <= ready <= grown`, at every moment
/// - in the bitmaps: `used == in_use + cached + being released`, `scavenged == released - cached without memory`
/// - `ready * PAGE_SIZE + most_ready * metadata_per_page <= limit`, if there is one that was not lowered since
/// - `system` has the tables of `grown` pages
pub struct PageHeap {
    space: AddressSpace,
    pages: Mutex<PageAlloc>,
    /// Locked after `pages`.
    late: Mutex<LateRuns>,
    /// Pages that were on their way to the system are back.
    put_back: Condvar,
    tables: PageTables,
    /// `tables.bytes()`
    metadata_per_page: usize,
    system: SystemStats,
    limit: AtomicUsize,
    soft_limit: AtomicUsize,
    /// Written under the lock.
    grown: AtomicUsize,
    /// Chunks of the last growth; under the lock.
    last_growth: AtomicUsize,
    /// Pages with memory behind them.
    ready: AtomicUsize,
    most_ready: AtomicUsize,
    in_use: AtomicUsize,
}

impl PageHeap {
    /// An empty heap. A smaller reservation is taken when the system refuses the one asked for or its tables.
    pub fn new(config: PageHeapConfig) -> Result<PageHeap, OutOfMemory> {
        let mut want = config.reserve;
        let (space, pages) = loop {
            let space = AddressSpace::reserve(want)?;
            let huge = huge_page_size() / PAGE_SIZE;
            match PageAlloc::new(space.len() / CHUNK_SIZE, page_size() / PAGE_SIZE, huge) {
                Ok(pages) => break (space, pages),
                Err(error) if space.len() == CHUNK_SIZE => return Err(error),
                Err(_) => want = Bytes(space.len() / 2),
            }
        };
        memory_checker::open(space.base());
        Ok(PageHeap {
            space,
            pages: Mutex::new(pages),
            late: Mutex::new(LateRuns::new()?),
            put_back: Condvar::new(),
            tables: config.tables,
            metadata_per_page: config.tables.bytes(),
            system: SystemStats::new(),
            limit: AtomicUsize::new(config.limit.0),
            soft_limit: AtomicUsize::new(0),
            grown: AtomicUsize::new(0),
            last_growth: AtomicUsize::new(0),
            ready: AtomicUsize::new(0),
            most_ready: AtomicUsize::new(0),
            in_use: AtomicUsize::new(0),
        })
    }

    /// The reservation.
    pub fn space(&self) -> &AddressSpace {
        &self.space
    }

    /// The first address of the reservation.
    #[inline(always)]
    pub fn base(&self) -> usize {
        self.space.base()
    }

    /// Pages in the reservation.
    pub fn reserved(&self) -> Pages {
        Pages(self.space.len() / PAGE_SIZE)
    }

    /// Takes `n` pages, at least one, side by side: the first such run by address, or one out of the P's cache.
    /// `None`: the limit, the reservation, or the system has no more.
    pub fn alloc(&self, cache: Option<&mut PageCache>, n: Pages, stats: Writer<'_>) -> Option<PageRun> {
        if n.0 == 0 {
            fatal(format_args!("a run of no pages is asked for"));
        }
        let Some(cache) = cache else { return self.alloc_locked(n, stats) };
        if n.0 <= MOST_CACHED
            && let Some(run) = self.alloc_cached(cache, n, stats)
        {
            return Some(run);
        }
        self.alloc_locked(n, stats).or_else(|| {
            // The pages that are missing may be those that this P keeps.
            if cache.is_empty() {
                return None;
            }
            self.flush_cache(cache, stats);
            self.alloc_locked(n, stats)
        })
    }

    fn alloc_cached(&self, cache: &mut PageCache, n: Pages, stats: Writer<'_>) -> Option<PageRun> {
        if cache.is_empty() {
            let mut pages = lock(&self.pages);
            let filled = pages.fill(cache) || (self.grow(&mut pages, Pages(1), stats) && pages.fill(cache));
            drop(pages);
            if !filled {
                return None;
            }
            // All of it soon has memory, and the rest is taken without a look.
            self.stay_below(cache.scavenged(), stats);
        }
        let taken = cache.take(n.0)?;
        let scavenged = Pages(taken.scavenged());
        if !self.commit_within_limit(scavenged, stats) {
            cache.undo(taken);
            return None;
        }
        Some(self.hand_out(taken.start, n, scavenged, stats))
    }

    fn alloc_locked(&self, n: Pages, stats: Writer<'_>) -> Option<PageRun> {
        self.try_locked(n, stats).or_else(|| {
            // The pages that are missing may be those that come back late.
            let more = self.return_late(&mut lock(&self.pages));
            if more { self.try_locked(n, stats) } else { None }
        })
    }

    fn try_locked(&self, n: Pages, stats: Writer<'_>) -> Option<PageRun> {
        // Before anything is grown for it in vain.
        if !self.could_hold(n) {
            return None;
        }
        let (mut pages, start) = loop {
            let mut pages = lock(&self.pages);
            let found = match pages.find(n) {
                None if self.grow(&mut pages, n, stats) => pages.find(n),
                found => found,
            };
            if let Some(start) = found {
                break (pages, start);
            }
            if !self.wait_for_release(pages) {
                return None;
            }
        };
        let scavenged = pages.take(start, n);
        if scavenged.0 > 0 {
            if self.soft_limit.load(Relaxed) != 0 || !self.try_commit(scavenged) {
                drop(pages);
                self.stay_below(scavenged, stats);
                let room = self.commit_within_limit(scavenged, stats);
                pages = lock(&self.pages);
                if !room {
                    pages.free(start, n);
                    return None;
                }
            }
            pages.commit(start, n);
        }
        drop(pages);
        Some(self.hand_out(start, n, scavenged, stats))
    }

    /// Grows so that the last free run has `n` pages. New pages are counted as released.
    fn grow(&self, pages: &mut MutexGuard<'_, PageAlloc>, n: Pages, stats: Writer<'_>) -> bool {
        let Some(chunks) = pages.chunks_to_hold(n) else { return false };
        if chunks == 0 {
            return true;
        }
        let (first, more) = (PageId(pages.grown().0 as u32), Pages(chunks * CHUNK_PAGES));
        if self.space.prepare(first, more).is_err() {
            return false;
        }
        memory_checker::withhold(self.base() + first.offset(), more.bytes().0);
        // Each chunk is looked at once, when it is grown past.
        let grown = pages.grown().0 / CHUNK_PAGES;
        (grown.saturating_sub(self.last_growth.swap(chunks, Relaxed))..grown)
            .filter(|&chunk| pages.is_full(chunk))
            .for_each(|chunk| self.space.dense(chunk));
        pages.grow(chunks);
        self.grown.store(pages.grown().0, Relaxed);
        let (before, after) = (grown * CHUNK_PAGES, pages.grown().0);
        let (old, new) = (self.table_bytes(Pages(before)), self.table_bytes(Pages(after)));
        self.system.spans.add((new.spans - old.spans) as i64);
        self.system.page_tables.add((new.page_tables - old.page_tables) as i64);
        self.system.mark_bits.add((new.mark_bits - old.mark_bits) as i64);
        let guard = stats.acquire();
        guard.mapped(more.bytes().0 as i64);
        guard.released(more.bytes().0 as i64);
        drop(guard);
        true
    }

    /// Bytes of tables for so many pages of grown chunks.
    fn table_bytes(&self, grown: Pages) -> PageTables {
        let chunks = grown.0 / CHUNK_PAGES;
        let beside = PageAlloc::table_bytes(chunks) + AddressSpace::table_bytes(chunks);
        PageTables {
            spans: grown.0 * self.tables.spans,
            page_tables: grown.0 * self.tables.page_tables + beside,
            mark_bits: grown.0 * self.tables.mark_bits,
        }
    }

    /// Memory that the runtime takes from the system for itself.
    pub fn system(&self) -> &SystemStats {
        &self.system
    }

    /// Counts and credits pages that have memory, and makes a run of them.
    fn hand_out(&self, start: PageId, n: Pages, scavenged: Pages, stats: Writer<'_>) -> PageRun {
        self.space.ready(start, n);
        self.in_use.fetch_add(n.0, Relaxed);
        let guard = stats.acquire();
        if scavenged.0 > 0 {
            guard.committed(scavenged.bytes().0 as i64);
            guard.released(-(scavenged.bytes().0 as i64));
        }
        guard.in_heap(n.bytes().0 as i64);
        PageRun { start, pages: n, zeroed: scavenged == n }
    }

    /// The most pages that may be ready at once: `cost(allowed, max(allowed, most_ready)) <= limit`.
    fn allowed(&self) -> usize {
        let (limit, most) = (self.limit.load(Relaxed), self.most_ready.load(Relaxed));
        if limit == 0 {
            usize::MAX
        } else if self.cost(most, most) <= limit {
            limit / (PAGE_SIZE + self.metadata_per_page)
        } else {
            limit.saturating_sub(most * self.metadata_per_page) / PAGE_SIZE
        }
    }

    fn cost(&self, ready: usize, most: usize) -> usize {
        ready.saturating_mul(PAGE_SIZE).saturating_add(most.saturating_mul(self.metadata_per_page))
    }

    /// Counts `n` more pages as ready, unless that passed the limit.
    fn try_commit(&self, n: Pages) -> bool {
        if n.0 == 0 {
            return true;
        }
        let mut ready = self.ready.load(Relaxed);
        loop {
            if ready + n.0 > self.allowed() {
                return false;
            }
            match self.ready.compare_exchange_weak(ready, ready + n.0, Relaxed, Relaxed) {
                Ok(_) => break,
                Err(now) => ready = now,
            }
        }
        self.most_ready.fetch_max(ready + n.0, Relaxed);
        true
    }

    /// Gives pages back, which nobody uses any more; into the cache if they lie in its block.
    pub fn free(&self, start: PageId, n: Pages, cache: Option<&mut PageCache>, stats: Writer<'_>) {
        stats.acquire().in_heap(-(n.bytes().0 as i64));
        self.in_use.fetch_sub(n.0, Relaxed);
        if memory_checker::is_present() {
            return self.free_late(start, n);
        }
        if !cache.is_some_and(|cache| cache.put(start, n.0)) {
            lock(&self.pages).free(start, n);
        }
    }

    /// Gives back what a cache has: when its P goes, and before pages are released or checked to the last one.
    pub fn flush_cache(&self, cache: &mut PageCache, _: Writer<'_>) {
        if !cache.is_empty() {
            lock(&self.pages).empty(cache);
        }
    }

    /// Whether a run of `n` pages could be handed out, were nothing else in use.
    pub fn could_hold(&self, n: Pages) -> bool {
        n <= self.reserved() && n.0 <= self.allowed()
    }

    /// Sets the soft limit; 0: none. Growth past it first releases what is free, and never fails for it.
    pub fn set_soft_limit(&self, limit: Bytes) {
        self.soft_limit.store(limit.0, Relaxed);
    }

    /// The soft limit; 0: none.
    pub fn soft_limit(&self) -> Bytes {
        Bytes(self.soft_limit.load(Relaxed))
    }

    /// Sets the limit; 0: none. One below the footprint stops growth at once, but releases nothing.
    pub fn set_limit(&self, limit: Bytes) {
        self.limit.store(limit.0, Relaxed);
    }

    /// The limit; 0: none.
    pub fn limit(&self) -> Bytes {
        Bytes(self.limit.load(Relaxed))
    }

    /// Memory that counts against the limit: that of the pages that are ready, and the tables of as
    /// many as ever were, since a table keeps what was once touched.
    pub fn footprint(&self) -> Bytes {
        // Pages that are just being made ready may be in the first only: not above the peak, that is read later.
        let (ready, most) = (self.ready.load(Relaxed), self.most_ready.load(Relaxed));
        Bytes(self.cost(ready.min(most), most))
    }

    /// The most that the footprint ever was.
    pub fn peak_footprint(&self) -> Bytes {
        let most = self.most_ready.load(Relaxed);
        Bytes(self.cost(most, most))
    }

    /// Pages handed out.
    pub fn in_use(&self) -> Pages {
        Pages(self.in_use.load(Relaxed))
    }

    /// Pages that are not handed out and have memory behind them.
    pub fn free_pages(&self) -> Pages {
        let in_use = self.in_use.load(Relaxed);
        Pages(self.ready.load(Relaxed).saturating_sub(in_use))
    }

    /// Pages of grown chunks that have no memory behind them.
    pub fn released_pages(&self) -> Pages {
        let ready = self.ready.load(Relaxed);
        Pages(self.grown.load(Relaxed).saturating_sub(ready))
    }

    /// Pages of all chunks that were ever grown: every page ever handed out is below.
    pub fn grown(&self) -> Pages {
        Pages(self.grown.load(Relaxed))
    }

    /// Walks all bitmaps and summaries and compares them with the counts; aborts on the first equation that
    /// does not hold. May be called at any time: what is left over is in the caches, and is returned.
    pub fn check(&self) -> Pages {
        self.freeze().check()
    }

    /// Holds everything as it is, as long as nobody takes or frees pages through a cache.
    pub fn freeze(&self) -> FrozenPages<'_> {
        FrozenPages::new(self)
    }

    /// Keeps everybody outside, with no pages on their way to the system.
    pub fn hold(&self) -> [Held<'_>; 3] {
        // Who decides about huge pages has it before the pages' lock, and who puts off what is freed after it.
        let advice = self.space.hold();
        let pages = self.hold_pages();
        [advice, pages, hold(&self.late)]
    }
}

impl Drop for PageHeap {
    fn drop(&mut self) {
        memory_checker::close(self.base(), self.grown().bytes().0);
    }
}

mod frozen;
mod late;
mod release;
pub use frozen::{FrozenPages, PageCounts};
pub use release::{Pass, Step};
#[cfg(test)]
mod tests;
