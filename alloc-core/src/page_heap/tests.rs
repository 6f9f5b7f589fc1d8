//! Histories of the page heap against its equations, its limit, and what the system says is in memory.

use super::*;
use besom_stats::ConsistentHeapStats;
use proptest::prelude::*;

const META: usize = 200;
const TABLES: PageTables = PageTables { spans: 68, page_tables: 2, mark_bits: META - 70 };

fn heap(reserve: usize, limit: usize) -> PageHeap {
    PageHeap::new(PageHeapConfig { reserve: Bytes(reserve), limit: Bytes(limit), tables: TABLES }).unwrap()
}

fn bytes_of<'a>(heap: &PageHeap, run: PageRun) -> &'a mut [u8] {
    let start = (heap.base() + run.start.offset()) as *mut u8;
    // SAFETY: the run is handed out to this test alone, which drops the slice before the heap.
    unsafe { std::slice::from_raw_parts_mut(start, run.pages.bytes().0) }
}

/// Every count, against each other and against the statistics.
fn agree(heap: &PageHeap, stats: &ConsistentHeapStats, in_use: usize) {
    heap.check();
    assert_eq!(heap.in_use(), Pages(in_use));
    assert_eq!(heap.grown().0, in_use + heap.free_pages().0 + heap.released_pages().0);
    let delta = stats.read_stopped();
    assert_eq!(delta.in_heap, Pages(in_use).bytes().0 as i64);
    assert_eq!(delta.committed, Pages(in_use + heap.free_pages().0).bytes().0 as i64);
    assert_eq!(delta.released, heap.released_pages().bytes().0 as i64);
    assert!(heap.footprint() <= heap.peak_footprint());
    assert!(heap.limit().0 == 0 || heap.footprint() <= heap.limit());
}

#[derive(Clone, Debug)]
enum Step {
    Alloc(usize, bool),
    Free(usize, bool),
    Flush,
    Release(usize),
    /// Steps in the background, in a new period or not.
    Background(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..=20usize, any::<bool>()).prop_map(|(n, cached)| Step::Alloc(n, cached)),
        1 => (1..1500usize, any::<bool>()).prop_map(|(n, cached)| Step::Alloc(n, cached)),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(i, cached)| Step::Free(i, cached)),
        1 => Just(Step::Flush),
        1 => (0..4usize << 20).prop_map(Step::Release),
        1 => (1..4usize, any::<bool>()).prop_map(|(n, next)| Step::Background(n, next)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_history_keeps_the_equations(
        limit in prop::sample::select(vec![0, 1 << 20, 10 << 20]),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let (heap, stats) = (heap(24 << 20, limit), ConsistentHeapStats::new());
        let mut cache = PageCache::new();
        let mut runs: Vec<(PageRun, u8)> = Vec::new();
        let mut in_use = 0;
        for (i, step) in steps.into_iter().enumerate() {
            match step {
                Step::Alloc(n, cached) => {
                    let cache = cached.then_some(&mut cache);
                    let Some(run) = heap.alloc(cache, Pages(n), stats.unattached()) else { continue };
                    prop_assert_eq!(run.pages, Pages(n));
                    let memory = bytes_of(&heap, run);
                    if run.zeroed {
                        prop_assert!(memory.iter().step_by(512).all(|b| *b == 0));
                    }
                    // Each run keeps its own pattern: nobody else has its pages.
                    let pattern = i as u8 | 1;
                    memory.iter_mut().step_by(512).for_each(|b| *b = pattern);
                    in_use += n;
                    runs.push((run, pattern));
                }
                Step::Free(which, cached) if !runs.is_empty() => {
                    let (run, pattern) = runs.swap_remove(which % runs.len());
                    prop_assert!(bytes_of(&heap, run).iter().step_by(512).all(|b| *b == pattern));
                    heap.free(run.start, run.pages, cached.then_some(&mut cache), stats.unattached());
                    in_use -= run.pages.0;
                }
                Step::Free(..) => {}
                Step::Flush => heap.flush_cache(&mut cache, stats.unattached()),
                Step::Release(most) => {
                    prop_assert!(heap.release(Bytes(most), stats.unattached()).0 <= most);
                }
                Step::Background(steps, next) => {
                    if next {
                        heap.next_period();
                    }
                    let (mut pass, free) = (Pass::new(), heap.free_pages());
                    let mut released = 0;
                    for _ in 0..steps {
                        if let super::Step::Released(n) = heap.release_step(&mut pass, Pages(64), stats.unattached()) {
                            released += n.0;
                        }
                    }
                    prop_assert_eq!(heap.free_pages().0 + released, free.0);
                }
            }
            agree(&heap, &stats, in_use);
            prop_assert_eq!(heap.check(), cache.pages());
        }
        for (run, _) in runs {
            heap.free(run.start, run.pages, None, stats.unattached());
        }
        heap.flush_cache(&mut cache, stats.unattached());
        heap.release(Bytes(usize::MAX), stats.unattached());
        prop_assert_eq!(heap.check(), Pages(0));
        prop_assert_eq!((heap.in_use(), heap.free_pages()), (Pages(0), Pages(0)));
        prop_assert_eq!((stats.read_stopped().committed, stats.read_stopped().in_heap), (0, 0));
    }
}

#[test]
fn the_limit_holds_and_free_memory_makes_room() {
    // Room for 100 pages and their tables, and for not one more.
    let (heap, stats) =
        (heap(64 << 20, 100 * (PAGE_SIZE + META) + PAGE_SIZE - 1), ConsistentHeapStats::new());
    let w = || stats.unattached();
    assert_eq!(heap.alloc(None, Pages(101), w()), None);
    assert_eq!(heap.grown(), Pages(0), "what can never fit grows nothing");
    let a = heap.alloc(None, Pages(60), w()).unwrap();
    let hole = heap.alloc(None, Pages(30), w()).unwrap();
    let c = heap.alloc(None, Pages(10), w()).unwrap();
    assert_eq!(heap.alloc(None, Pages(1), w()), None);
    heap.free(hole.start, hole.pages, None, w());
    heap.free(c.start, c.pages, None, w());
    heap.free(a.start, a.pages, None, w());
    let all = heap.alloc(None, Pages(100), w()).unwrap();
    assert_eq!((all.start, all.zeroed), (PageId(0), false));
    heap.free(all.start, Pages(40), None, w());
    heap.free(PageId(50), Pages(20), None, w());
    // No hole of 50 is free: 50 fresh pages, paid for with the 60 that are.
    let fresh = heap.alloc(None, Pages(50), w()).unwrap();
    assert_eq!((fresh.start, fresh.zeroed), (PageId(100), true));
    agree(&heap, &stats, 90);
    assert_eq!(heap.alloc(None, Pages(11), w()), None);
    heap.set_limit(Bytes(0));
    assert!(heap.alloc(None, Pages(400), w()).is_some());
    agree(&heap, &stats, 490);
    // Ten of the pages that are ready are free.
    assert_eq!(heap.peak_footprint(), Bytes(500 * (PAGE_SIZE + META)));
}

#[test]
fn above_the_soft_limit_free_memory_goes_before_more_is_taken() {
    for cached in [false, true] {
        let (heap, stats) = (heap(64 << 20, 0), ConsistentHeapStats::new());
        let w = || stats.unattached();
        let soft = 500 * PAGE_SIZE + 1000 * META;
        let low = heap.alloc(None, Pages(600), w()).unwrap();
        let high = heap.alloc(None, Pages(400), w()).unwrap();
        heap.free(low.start, low.pages, None, w());
        heap.release(Bytes(usize::MAX), w());
        heap.free(high.start, high.pages, None, w());
        heap.set_soft_limit(Bytes(soft));
        // First fit takes the pages without memory below; those above give theirs up.
        let mut cache = PageCache::new();
        let mut take = || heap.alloc(cached.then_some(&mut cache), Pages(1), w()).expect("soft");
        for n in 1..=500 {
            take();
            assert!(heap.footprint() <= Bytes(soft), "{n}: {:?}", heap.footprint());
        }
        agree(&heap, &stats, 500);
        // What is in use may pass it.
        (0..1000).for_each(|_| _ = take());
        agree(&heap, &stats, 1500);
    }
}

#[test]
fn the_tables_are_those_of_the_most_pages() {
    let (heap, stats) = (heap(64 << 20, 0), ConsistentHeapStats::new());
    assert_eq!(heap.footprint(), Bytes(0));
    let run = heap.alloc(None, Pages(100), stats.unattached()).unwrap();
    heap.free(run.start, run.pages, None, stats.unattached());
    heap.release(Bytes(usize::MAX), stats.unattached());
    assert_eq!((heap.free_pages(), heap.in_use(), heap.footprint()), (Pages(0), Pages(0), Bytes(100 * META)));
    heap.set_limit(Bytes(50 * PAGE_SIZE + 100 * META));
    assert!(heap.could_hold(Pages(50)) && !heap.could_hold(Pages(51)));
}

#[test]
fn at_the_limit_a_cache_gives_way() {
    let (heap, stats) = (heap(64 << 20, 64 * (PAGE_SIZE + META)), ConsistentHeapStats::new());
    let w = || stats.unattached();
    let mut cache = PageCache::new();
    let runs: Vec<_> = (0..60).map(|_| heap.alloc(Some(&mut cache), Pages(1), w()).unwrap()).collect();
    for run in &runs[20..60] {
        heap.free(run.start, run.pages, Some(&mut cache), w());
    }
    assert_eq!(heap.check(), Pages(44), "all came back to the cache");
    let run = heap.alloc(Some(&mut cache), Pages(44), w()).unwrap();
    assert_eq!((run.start, cache.is_empty()), (PageId(20), true));
    assert_eq!(heap.alloc(Some(&mut cache), Pages(1), w()), None);
    agree(&heap, &stats, 64);
}

#[test]
fn the_reservation_runs_out_and_serves_again() {
    let (heap, stats) = (heap(CHUNK_SIZE, 0), ConsistentHeapStats::new());
    let w = || stats.unattached();
    assert_eq!(heap.reserved(), Pages(512));
    assert_eq!(heap.alloc(None, Pages(513), w()), None);
    assert_eq!(heap.alloc(None, Pages(usize::MAX >> 13), w()), None);
    let all = heap.alloc(None, Pages(512), w()).unwrap();
    let mut cache = PageCache::new();
    assert_eq!(heap.alloc(Some(&mut cache), Pages(1), w()), None);
    heap.free(all.start, all.pages, None, w());
    assert!(heap.alloc(Some(&mut cache), Pages(1), w()).is_some());
    agree(&heap, &stats, 1);
}

/// Pages of the system that are in memory, of a heap's run.
fn resident(heap: &PageHeap, run: &PageRun) -> usize {
    let mut flags = vec![0u8; run.pages.bytes().0 / page_size()];
    let start = (heap.base() + run.start.offset()) as *mut libc::c_void;
    // SAFETY: writes one byte for each page of the range into `flags`, which has that length.
    assert_eq!(unsafe { libc::mincore(start, run.pages.bytes().0, flags.as_mut_ptr()) }, 0);
    flags.iter().filter(|f| **f & 1 == 1).count()
}

#[test]
fn released_memory_leaves_the_process() {
    let (heap, stats) = (heap(256 << 20, 0), ConsistentHeapStats::new());
    let w = || stats.unattached();
    let run = heap.alloc(None, Pages(8192), w()).unwrap();
    assert_eq!(resident(&heap, &run), 0);
    bytes_of(&heap, run).fill(1);
    assert_eq!(resident(&heap, &run), run.pages.bytes().0 / page_size());
    heap.free(run.start, run.pages, None, w());
    assert_eq!(heap.release(Bytes(16 << 20), w()), Bytes(16 << 20));
    assert_eq!(heap.free_pages(), Pages(6144));
    assert_eq!(heap.release(Bytes(usize::MAX), w()), Bytes(48 << 20));
    assert_eq!(resident(&heap, &run), 0);
    agree(&heap, &stats, 0);
}

#[test]
fn the_background_gives_back_whole_huge_pages_and_a_dense_chunk_may_have_them_again() {
    let (heap, stats) = (heap(256 << 20, 0), ConsistentHeapStats::new());
    let w = || stats.unattached();
    let chunks = 16;
    let run = heap.alloc(None, Pages(chunks * CHUNK_PAGES), w()).unwrap();
    let last = run.start.plus(Pages((chunks - 1) * CHUNK_PAGES));
    let top = PageRun { start: last, pages: Pages(CHUNK_PAGES), zeroed: false };
    bytes_of(&heap, top).fill(1);
    heap.free(last.plus(Pages(1)), Pages(CHUNK_PAGES - 1), None, w());
    let steps = || {
        let (mut pass, mut sizes) = (Pass::new(), Vec::new());
        loop {
            match heap.release_step(&mut pass, Pages(256), w()) {
                super::Step::Released(n) => sizes.push(n.0),
                super::Step::Searching => {}
                super::Step::Nothing => return sizes,
            }
        }
    };
    assert_eq!(steps(), [], "it was dense in this period");
    heap.next_period();
    let sizes = steps();
    assert_eq!(sizes.iter().sum::<usize>(), CHUNK_PAGES - 1);
    if huge_page_size() == 2 << 20 {
        assert_eq!(sizes, [256, 255], "the free one whole, then the rest");
    }
    assert_eq!(resident(&heap, &top), PAGE_SIZE / page_size());
    assert!(heap.has_refused_huge());
    let again = |heap: &PageHeap| {
        let mut chunk = Some(0);
        while let Some(from) = chunk {
            chunk = heap.huge_again(from);
        }
        !heap.has_refused_huge()
    };
    assert!(!again(&heap), "it is not dense");
    assert_eq!(heap.alloc(None, Pages(CHUNK_PAGES - 1), w()).map(|r| r.start), Some(last.plus(Pages(1))));
    assert!(again(&heap));
    agree(&heap, &stats, chunks * CHUNK_PAGES);
}

#[test]
fn threads_share_a_heap_without_losing_a_page() {
    let (heap, stats) = (heap(256 << 20, 8 << 20), ConsistentHeapStats::new());
    std::thread::scope(|scope| {
        for t in 0..4usize {
            let (heap, stats) = (&heap, &stats);
            scope.spawn(move || {
                let (mut cache, mut runs) = (PageCache::new(), Vec::new());
                let mut random = t * 2 + 1;
                for i in 0..3000 {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let n = Pages(1 + (random >> 60));
                    if runs.len() < 40
                        && let Some(run) = heap.alloc(Some(&mut cache), n, stats.unattached())
                    {
                        bytes_of(heap, run)[0] = t as u8;
                        runs.push(run);
                    } else if !runs.is_empty() {
                        let run = runs.swap_remove(i % runs.len());
                        assert_eq!(bytes_of(heap, run)[0], t as u8);
                        heap.free(run.start, run.pages, Some(&mut cache), stats.unattached());
                    }
                    if i % 500 == 0 {
                        heap.release(Bytes(1 << 20), stats.unattached());
                        heap.next_period();
                        heap.release_step(&mut Pass::new(), Pages(256), stats.unattached());
                        heap.check();
                        let seen = stats.read(std::iter::empty());
                        assert!(seen.in_heap <= seen.committed && seen.released >= 0);
                    }
                }
                for run in runs {
                    heap.free(run.start, run.pages, None, stats.unattached());
                }
                heap.flush_cache(&mut cache, stats.unattached());
            });
        }
    });
    assert_eq!(heap.check(), Pages(0));
    agree(&heap, &stats, 0);
}

#[test]
fn a_heap_comes_up_under_a_tight_limit() {
    // SAFETY: the child limits itself, works, and exits without running destructors or handlers; the parent
    // waits for it.
    let status = unsafe {
        let child = libc::fork();
        if child == 0 {
            let bytes = crate::os::mapped_bytes() as u64 + (80 << 20);
            libc::setrlimit(libc::RLIMIT_AS, &libc::rlimit { rlim_cur: bytes, rlim_max: bytes });
            let config = PageHeapConfig { reserve: Bytes(0), limit: Bytes(0), tables: TABLES };
            let Ok(heap) = PageHeap::new(config) else { libc::_exit(1) };
            let stats = ConsistentHeapStats::new();
            let Some(run) = heap.alloc(None, Pages(1000), stats.unattached()) else { libc::_exit(2) };
            bytes_of(&heap, run).fill(1);
            libc::_exit(if heap.reserved() < Pages(10240) { 0 } else { 3 });
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        status
    };
    assert!(libc::WIFEXITED(status));
    assert_eq!(libc::WEXITSTATUS(status), 0);
}
