//! Models of memory on its way to the system, against allocation, limits, statistics, and a walk.
//!
//! `PageHeap` as it stands, on real mappings; a run's memory is dropped by a closure of the model, which touches an
//! `AccessCheck` that stands for the pages, as does whoever is handed them.

#![cfg(loom)]

use besom_alloc_core::page_heap::{PageHeap, PageHeapConfig, PageRun, PageTables, Pass, Step};
use besom_alloc_core::units::{Bytes, CHUNK_PAGES, CHUNK_SIZE, PAGE_SIZE, PageId, Pages};
use besom_loom_tests::{model, start};
use besom_stats::ConsistentHeapStats;
use besom_stats::sync::AccessCheck;
use loom::sync::Arc;

/// Pages of a hole.
const HOLE: usize = 128;

struct Toy {
    heap: PageHeap,
    stats: ConsistentHeapStats,
    /// Of each hole: who has its pages.
    holes: [AccessCheck; 2],
}

impl Toy {
    /// A chunk in use but for holes at its start, with memory, at `HOLE + 1` pages from each other; nothing of it is
    /// spared. `chunks` may be used in all.
    fn new(chunks: usize, limit: usize, holes: usize) -> Arc<Toy> {
        let config = PageHeapConfig {
            reserve: Bytes(chunks * CHUNK_SIZE),
            limit: Bytes(limit * PAGE_SIZE),
            tables: PageTables { spans: 0, page_tables: 0, mark_bits: 0 },
        };
        let toy = Toy {
            heap: PageHeap::new(config).expect("memory"),
            stats: ConsistentHeapStats::new(),
            holes: Default::default(),
        };
        assert!(toy.alloc(CHUNK_PAGES).is_some());
        for hole in 0..holes {
            toy.heap.free(PageId(Toy::start(hole)), Pages(HOLE), None, toy.stats.unattached());
        }
        toy.heap.next_period();
        Arc::new(toy)
    }

    fn start(hole: usize) -> u32 {
        (hole * (HOLE + 1)) as u32
    }

    /// Whoever calls has these pages to himself, if they are a hole's.
    fn touch(&self, start: PageId) {
        for (hole, check) in self.holes.iter().enumerate() {
            if start.0 == Toy::start(hole) {
                check.exclusive();
            }
        }
    }

    fn alloc(&self, pages: usize) -> Option<PageRun> {
        let run = self.heap.alloc(None, Pages(pages), self.stats.unattached())?;
        self.touch(run.start);
        Some(run)
    }

    /// Gives all back that there is, as the scavenger does; the pages.
    fn scavenge(&self) -> usize {
        let (mut pass, mut total) = (Pass::new(), 0);
        loop {
            let step =
                self.heap.release_step_with(&mut pass, Pages(HOLE), self.stats.unattached(), |start, n| {
                    assert!(n.0 <= 2 * HOLE);
                    self.touch(start);
                    true
                });
            match step {
                Step::Released(pages) => total += pages.0,
                Step::Searching => {}
                Step::Nothing => return total,
            }
        }
    }

    /// One snapshot, of any moment.
    fn look(&self) {
        let s = self.stats.read(std::iter::empty());
        assert_eq!(s.committed + s.released, s.mapped, "all of a page's way, or nothing");
        assert!(s.released >= 0 && s.in_heap >= 0 && s.in_heap <= s.committed, "{s:?}");
    }

    /// Counted, and walked.
    fn compare(&self) {
        let frozen = self.heap.freeze();
        let (counts, s) = (frozen.counts(), self.stats.read_stopped());
        assert_eq!(frozen.walk().0, counts);
        let bytes = |pages: Pages| pages.bytes().0 as i64;
        assert_eq!(
            (s.released, s.committed),
            (bytes(counts.released), bytes(counts.in_use) + bytes(counts.free))
        );
    }
}

/// The address space is full but for the hole, which is on its way: who wants it gets it all the same.
#[test]
fn an_allocation_takes_the_run_before_or_after_it_was_released() {
    model(3, || {
        let toy = Toy::new(1, 0, 1);
        let scavenger = start(&toy, Toy::scavenge);
        let run = toy.alloc(HOLE).expect("it was free before, and is free when it is released");
        let released = scavenger.join().unwrap();
        assert_eq!(run.zeroed, released == HOLE, "released before it was taken, or never");
        toy.compare();
        assert_eq!((toy.heap.free_pages(), toy.heap.released_pages()), (Pages(0), Pages(0)));
    });
}

/// At the hard limit, pages must go before others are ready; those that are on their way count.
#[test]
fn at_the_limit_an_allocation_waits_for_what_is_on_its_way() {
    model(3, || {
        let toy = Toy::new(2, CHUNK_PAGES, 2);
        let scavenger = start(&toy, Toy::scavenge);
        // No hole is so large, and one hole does not pay for it.
        let run = toy.alloc(HOLE + 10).expect("there was room before");
        assert!(run.zeroed && run.start.0 as usize >= CHUNK_PAGES);
        scavenger.join().unwrap();
        toy.compare();
        assert!(toy.heap.footprint() <= toy.heap.limit());
    });
}

#[test]
fn a_run_is_released_by_one_of_two() {
    model(3, || {
        let toy = Toy::new(1, 0, 2);
        let other = start(&toy, Toy::scavenge);
        let own = toy.scavenge();
        assert_eq!(own + other.join().unwrap(), 2 * HOLE);
        toy.compare();
    });
}

#[test]
fn a_snapshot_shows_all_of_a_release_or_nothing() {
    model(3, || {
        let toy = Toy::new(1, 0, 1);
        let scavenger = start(&toy, Toy::scavenge);
        let allocator = start(&toy, |toy| toy.alloc(HOLE).is_some());
        toy.look();
        assert!(allocator.join().unwrap());
        scavenger.join().unwrap();
        toy.look();
    });
}

/// A huge page of the usual size, of which a part has no memory already.
#[test]
fn a_walk_agrees_while_a_part_has_no_memory_anyway() {
    model(3, || {
        let toy = Toy::new(1, 0, 0);
        toy.heap.free(PageId(0), Pages(2 * HOLE), None, toy.stats.unattached());
        toy.heap.release(Pages(10).bytes(), toy.stats.unattached());
        toy.heap.next_period();
        let scavenger = start(&toy, Toy::scavenge);
        toy.compare();
        assert_eq!(scavenger.join().unwrap(), 2 * HOLE - 10);
        toy.compare();
    });
}

#[test]
fn a_walk_agrees_with_the_counts_at_any_moment_of_a_release() {
    model(3, || {
        let toy = Toy::new(1, 0, 2);
        let scavenger = start(&toy, Toy::scavenge);
        toy.compare();
        toy.heap.check();
        scavenger.join().unwrap();
        toy.compare();
    });
}
