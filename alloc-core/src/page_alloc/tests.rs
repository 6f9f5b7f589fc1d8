//! Histories of the page allocator against plain lists, and the edges of its tree.

use super::*;
use proptest::prelude::*;

const CHUNKS: usize = 40;

/// The same in plain lists; a search looks at every page.
#[derive(Default)]
struct Model {
    used: Vec<bool>,
    scavenged: Vec<bool>,
}

impl Model {
    fn first_run(&self, n: usize) -> Option<usize> {
        let mut run = 0;
        self.used.iter().enumerate().find_map(|(i, used)| {
            run = if *used { 0 } else { run + 1 };
            (run == n).then(|| i + 1 - n)
        })
    }

    fn agrees(&self, pages: &PageAlloc) {
        let counted = pages.check();
        assert_eq!(counted.used.0, self.used.iter().filter(|b| **b).count());
        for (i, (used, scavenged)) in self.used.iter().zip(&self.scavenged).enumerate() {
            let c = pages.chunk(i / CHUNK_PAGES);
            assert_eq!(c.used.count(i % CHUNK_PAGES, 1) == 1, *used, "used {i}");
            assert_eq!(c.scavenged.count(i % CHUNK_PAGES, 1) == 1, *scavenged, "scavenged {i}");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Take(usize),
    TakeUndone(usize),
    Free(usize),
    Fill,
    Empty(usize),
    Release(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..20usize).prop_map(Step::Take),
        2 => (1..4000usize).prop_map(Step::Take),
        1 => (1..600usize).prop_map(Step::TakeUndone),
        7 => any::<usize>().prop_map(Step::Free),
        1 => Just(Step::Fill),
        1 => any::<usize>().prop_map(Step::Empty),
        1 => (1..3000usize).prop_map(Step::Release),
    ]
}

fn take(pages: &mut PageAlloc, model: &mut Model, n: usize, undo: bool) -> Option<(usize, usize)> {
    let mut expected = model.first_run(n);
    if expected.is_none() {
        let more = pages.chunks_to_hold(Pages(n));
        let tail = model.used.iter().rev().take_while(|used| !**used).count();
        let needed = (n - tail).div_ceil(CHUNK_PAGES);
        assert_eq!(more, (pages.grown + needed <= CHUNKS).then_some(needed));
        pages.grow(more?);
        model.used.resize(pages.grown().0, false);
        model.scavenged.resize(pages.grown().0, true);
        expected = model.first_run(n);
    }
    let (start, at) = (pages.find(Pages(n)).unwrap(), expected.unwrap());
    assert_eq!(start.0 as usize, at);
    let scavenged = pages.take(start, Pages(n));
    assert_eq!(scavenged.0, model.scavenged[at..at + n].iter().filter(|b| **b).count());
    if undo {
        pages.free(start, Pages(n));
        return None;
    }
    pages.commit(start, Pages(n));
    model.used[at..at + n].fill(true);
    model.scavenged[at..at + n].fill(false);
    Some((at, n))
}

fn release(pages: &mut PageAlloc, model: &mut Model, most: usize) {
    let mut left = most;
    loop {
        let mut runs = Vec::new();
        let given = pages.release_some(Pages(left), |start, n| {
            runs.push((start.0 as usize, n.0));
            true
        });
        let group = pages.group;
        let mut newly = 0;
        for (at, n) in runs {
            assert!(at % group == 0 && n % group == 0);
            assert!(model.used[at..at + n].iter().all(|used| !used));
            newly += model.scavenged[at..at + n].iter().filter(|b| !**b).count();
            model.scavenged[at..at + n].fill(true);
        }
        assert_eq!(newly, given.0);
        left -= given.0;
        if given.0 == 0 {
            break;
        }
    }
    if left > 0 && pages.group == 1 {
        assert_eq!(pages.releasable(), Pages(0));
    }
}

fn play(group: usize, steps: Vec<Step>) {
    let mut pages = PageAlloc::new(CHUNKS, group).unwrap();
    let mut model = Model::default();
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let mut caches: Vec<PageCache> = Vec::new();
    for step in steps {
        match step {
            Step::Take(n) => runs.extend(take(&mut pages, &mut model, n, false)),
            Step::TakeUndone(n) => _ = take(&mut pages, &mut model, n, true),
            Step::Free(which) if !runs.is_empty() => {
                let (at, n) = runs.swap_remove(which % runs.len());
                pages.free(PageId(at as u32), Pages(n));
                model.used[at..at + n].fill(false);
            }
            Step::Fill => {
                let mut cache = PageCache::new();
                let filled = pages.fill(&mut cache);
                assert_eq!(filled, model.first_run(1).is_some());
                let Some(first) = model.first_run(1) else { continue };
                assert_eq!(cache.base as usize, first / 64 * 64);
                for i in 0..64 {
                    let page = cache.base as usize + i;
                    assert_eq!(cache.free >> i & 1 == 1, !model.used[page]);
                    assert_eq!(cache.scavenged >> i & 1 == 1, !model.used[page] && model.scavenged[page]);
                    if cache.free >> i & 1 == 1 {
                        model.used[page] = true;
                        model.scavenged[page] = false;
                    }
                }
                caches.push(cache);
            }
            Step::Empty(which) if !caches.is_empty() => {
                let which = which % caches.len();
                let mut cache = caches.swap_remove(which);
                for i in (0..64).filter(|i| cache.free >> i & 1 == 1) {
                    let page = cache.base as usize + i;
                    model.used[page] = false;
                    model.scavenged[page] = cache.scavenged >> i & 1 == 1;
                }
                pages.empty(&mut cache);
                assert!(cache.is_empty());
            }
            Step::Release(most) => release(&mut pages, &mut model, most),
            Step::Free(_) | Step::Empty(_) => {}
        }
        pages.check();
    }
    model.agrees(&pages);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn any_history_agrees_with_the_lists(
        group in prop::sample::select(vec![1, 1, 2, 8]),
        steps in prop::collection::vec(step(), 1..150),
    ) {
        play(group, steps);
    }
}

#[test]
fn a_run_may_cross_the_roots_of_the_tree() {
    // Two roots: 4096 chunks and 8 more.
    let mut pages = PageAlloc::new(4096 + 8, 1).unwrap();
    pages.grow(4096 + 8);
    let all = Pages((4096 + 8) * CHUNK_PAGES);
    assert_eq!(pages.find(Pages(all.0 + 1)), None);
    assert_eq!(pages.find(all), Some(PageId(0)));
    pages.take(PageId(0), Pages(1));
    pages.commit(PageId(0), Pages(1));
    assert_eq!(pages.find(all), None);
    let rest = Pages(all.0 - 1);
    assert_eq!(pages.find(rest), Some(PageId(1)));
    assert_eq!(pages.take(PageId(1), rest), rest);
    pages.commit(PageId(1), rest);
    assert_eq!((pages.find(Pages(1)), pages.chunks_to_hold(Pages(1))), (None, None));
    pages.check();
    let across = PageId((4096 * CHUNK_PAGES - 700) as u32);
    pages.free(across, Pages(1400));
    assert_eq!(pages.find(Pages(1400)), Some(across));
    assert_eq!(pages.find(Pages(1401)), None);
    pages.check();
}

#[test]
fn memory_that_cannot_be_given_back_stays_counted() {
    let mut pages = PageAlloc::new(1, 1).unwrap();
    pages.grow(1);
    pages.take(PageId(0), Pages(10));
    pages.commit(PageId(0), Pages(10));
    pages.free(PageId(0), Pages(10));
    assert_eq!(pages.release_some(Pages(10), |_, _| false), Pages(0));
    assert_eq!(pages.releasable(), Pages(10));
    assert_eq!(pages.release_some(Pages(4), |start, _| start == PageId(6)), Pages(4));
    assert_eq!(pages.release_some(Pages(99), |_, _| true), Pages(6));
    pages.check();
}

#[test]
fn a_chunk_takes_its_bits_and_the_summaries_above_it() {
    let bytes = PageAlloc::table_bytes;
    assert_eq!(bytes(0), 0);
    // Two bits a page, and one summary of eight bytes on each of five levels.
    assert_eq!(bytes(1), 2 * 512 / 8 + 5 * 8);
    // A ninth chunk needs a second summary on the level above.
    assert_eq!(bytes(8), 8 * 128 + (8 + 1 + 1 + 1 + 1) * 8);
    assert_eq!(bytes(9), 9 * 128 + (9 + 2 + 1 + 1 + 1) * 8);
}
