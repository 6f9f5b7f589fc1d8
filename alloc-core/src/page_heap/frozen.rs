//! The pages of a heap held still: what the counts say, and what a walk over the bitmaps does.

use super::{PageHeap, PageTables};
use crate::page_alloc::{Counted, PageAlloc};
use crate::units::{CHUNK_PAGES, Pages};
use besom_stats::fatal;
use besom_stats::sync::{MutexGuard, lock};

/// The pages of a heap with its lock held: counts and bitmaps are of one moment. Order: before the statistics' locks.
pub struct FrozenPages<'h> {
    heap: &'h PageHeap,
    pages: MutexGuard<'h, PageAlloc>,
}

/// What the page heap counts, or what a walk over its bitmaps does; every cache is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCounts {
    /// Pages of all chunks.
    pub grown: Pages,
    /// Handed out.
    pub in_use: Pages,
    /// Not handed out, with memory behind them.
    pub free: Pages,
    /// Without memory behind them.
    pub released: Pages,
}

impl<'h> FrozenPages<'h> {
    pub(super) fn new(heap: &'h PageHeap) -> FrozenPages<'h> {
        let mut pages = lock(&heap.pages);
        heap.return_late(&mut pages);
        FrozenPages { heap, pages }
    }

    /// The counts.
    pub fn counts(&self) -> PageCounts {
        let heap = self.heap;
        let (grown, in_use) = (heap.grown(), heap.in_use());
        PageCounts { grown, in_use, free: heap.free_pages(), released: heap.released_pages() }
    }

    /// The same from the bitmaps alone, when every cache is flushed, and the bytes of tables that go
    /// with them. Aborts on an equation of the page allocator that does not hold.
    pub fn walk(&self) -> (PageCounts, PageTables) {
        let Counted { chunks, used, scavenged } = self.pages.check();
        let grown = Pages(chunks * CHUNK_PAGES);
        let in_use = Pages(used.0 - self.pages.releasing().0);
        let released = Pages(scavenged.0 + self.pages.releasing_scavenged().0);
        let free = Pages(grown.0 - in_use.0 - released.0);
        (PageCounts { grown, in_use, free, released }, self.heap.table_bytes(grown))
    }

    /// Compares bitmaps and counts; what is left over is in the caches, and is returned. Aborts on the first equation that does
    /// not hold.
    pub(super) fn check(&self) -> Pages {
        let counted = self.pages.check();
        let PageCounts { grown, in_use, released, .. } = self.counts();
        let wrong = |what: &str, left: Pages, right: Pages| -> ! {
            fatal(format_args!("page heap: {what}: {} against {} pages", left.0, right.0))
        };
        if grown != self.pages.grown() {
            wrong("grown", grown, self.pages.grown());
        }
        if counted.used < in_use {
            wrong("used in the bitmaps, and in use", counted.used, in_use);
        }
        let aside = counted.used.0 - in_use.0;
        if released < counted.scavenged || released.0 - counted.scavenged.0 > aside {
            wrong("released, and scavenged in the bitmaps", released, counted.scavenged);
        }
        let releasing = self.pages.releasing();
        if releasing.0 > aside {
            wrong("used and not in use, and being released", Pages(aside), releasing);
        }
        Pages(aside - releasing.0)
    }
}
