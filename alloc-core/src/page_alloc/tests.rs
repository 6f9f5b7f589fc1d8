//! Histories of the page allocator against plain lists, and the edges of its tree.

use super::release::Releasing;
use super::*;
use crate::scavenge_index::DENSE;
use proptest::prelude::*;

const CHUNKS: usize = 40;
/// Pages in a huge one of the system.
const HUGE: usize = 256;

/// The same in plain lists; a search looks at every page.
#[derive(Default)]
struct Model {
    used: Vec<bool>,
    scavenged: Vec<bool>,
    /// On their way to the system: neither used nor free.
    away: Vec<bool>,
    period: u32,
    /// By chunk: the period in which it was seen to be dense.
    dense_in: Vec<u32>,
}

impl Model {
    fn in_use(&self, chunk: usize) -> usize {
        let pages = chunk * CHUNK_PAGES..(chunk + 1) * CHUNK_PAGES;
        pages.filter(|&i| self.used[i] && !self.away[i]).count()
    }

    /// Before and after each change.
    fn look(&mut self) {
        for chunk in 0..self.dense_in.len() {
            if self.in_use(chunk) >= DENSE {
                self.dense_in[chunk] = self.period;
            }
        }
    }

    fn spared(&self, chunk: usize) -> bool {
        self.in_use(chunk) >= DENSE || self.dense_in[chunk] == self.period
    }

    /// Pages that the allocator would give back of a chunk: free, with memory, in whole groups of the system's.
    fn ready(&self, chunk: usize, group: usize) -> usize {
        let at = chunk * CHUNK_PAGES;
        let groups = (at..at + CHUNK_PAGES).step_by(group);
        let free = groups.filter(|&g| (g..g + group).all(|i| !self.used[i]));
        free.map(|g| (g..g + group).filter(|&i| !self.scavenged[i]).count()).sum()
    }

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
    /// A run is taken out, as the background does, and comes back later.
    Away(usize, bool),
    Back(usize, bool),
    Period,
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
        2 => (1..600usize, any::<bool>()).prop_map(|(most, rest)| Step::Away(most, rest)),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(which, worked)| Step::Back(which, worked)),
        1 => Just(Step::Period),
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
        model.away.resize(pages.grown().0, false);
        model.dense_in.resize(pages.grown().0 / CHUNK_PAGES, 0);
        expected = model.first_run(n);
    }
    let (start, at) = (pages.find(Pages(n)).unwrap(), expected.unwrap());
    assert_eq!(start.0 as usize, at);
    let scavenged = pages.take(start, Pages(n));
    assert_eq!(scavenged.0, model.scavenged[at..at + n].iter().filter(|b| **b).count());
    model.used[at..at + n].fill(true);
    if undo {
        // Its chunks may have been dense for the moment.
        model.look();
        pages.free(start, Pages(n));
        model.used[at..at + n].fill(false);
        return None;
    }
    pages.commit(start, Pages(n));
    model.scavenged[at..at + n].fill(false);
    Some((at, n))
}

/// The next run that may be given back, as a caller finds it.
fn search(pages: &mut PageAlloc, choice: Choice, below: &mut usize) -> Option<Releasing> {
    loop {
        match pages.take_releasable(choice, below) {
            Search::Found(run) => return Some(run),
            Search::More => {}
            Search::Nothing => return None,
        }
    }
}

/// A run was taken out: it was free, and in whole groups.
fn taken_out(pages: &PageAlloc, model: &mut Model, run: &Releasing) {
    let (at, n) = (run.start.0 as usize, run.pages.0);
    assert!(at % pages.group == 0 && n % pages.group == 0 && n > 0);
    assert_eq!(at / CHUNK_PAGES, (at + n - 1) / CHUNK_PAGES);
    assert!(model.used[at..at + n].iter().all(|used| !used));
    assert!(!model.scavenged[at..at + n].iter().all(|s| *s), "there is something to give back");
    model.used[at..at + n].fill(true);
    model.away[at..at + n].fill(true);
}

/// It comes back.
fn put_back(
    pages: &mut PageAlloc,
    model: &mut Model,
    run: Releasing,
    scavenged: &[bool],
    worked: bool,
) -> usize {
    let (at, n) = (run.start.0 as usize, run.pages.0);
    let released = pages.put_released(run, worked);
    assert_eq!(released.0, if worked { scavenged.iter().filter(|s| !**s).count() } else { 0 });
    model.used[at..at + n].fill(false);
    model.away[at..at + n].fill(false);
    for (to, was) in model.scavenged[at..at + n].iter_mut().zip(scavenged) {
        *to = *was || worked;
    }
    released.0
}

/// Empties the model's pages of what they were before a run was taken out.
fn set_aside(model: &mut Model, run: &Releasing) -> Vec<bool> {
    let (at, n) = (run.start.0 as usize, run.pages.0);
    let was = model.scavenged[at..at + n].to_vec();
    model.scavenged[at..at + n].fill(false);
    was
}

fn release(pages: &mut PageAlloc, model: &mut Model, most: usize) {
    let (mut left, mut below) = (most, usize::MAX);
    while left > 0 {
        let choice = Choice { most: Pages(left), huge: Huge::Cut, spare: false };
        let Some(run) = search(pages, choice, &mut below) else { break };
        assert!(run.pages.0 <= left);
        taken_out(pages, model, &run);
        let was = set_aside(model, &run);
        left -= put_back(pages, model, run, &was, true);
    }
    if left > 0 && pages.group == 1 {
        assert_eq!(pages.releasable(), Pages(0));
    }
}

fn play(group: usize, steps: Vec<Step>) {
    let mut pages = PageAlloc::new(CHUNKS, group, HUGE).unwrap();
    let mut model = Model::default();
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let mut caches: Vec<PageCache> = Vec::new();
    let mut away: Vec<(Releasing, Vec<bool>)> = Vec::new();
    model.period = 1;
    for step in steps {
        model.look();
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
            Step::Away(most, rest) => {
                let huge = if rest { Huge::Whole } else { Huge::Only };
                let choice = Choice { most: Pages(most), huge, spare: true };
                let chunks = 0..model.dense_in.len();
                let candidates: Vec<_> =
                    chunks.filter(|&c| !model.spared(c) && model.ready(c, group) > 0).collect();
                let Some(run) = search(&mut pages, choice, &mut { usize::MAX }) else {
                    assert!(most < group || candidates.is_empty() || !rest, "{candidates:?}");
                    continue;
                };
                let (at, n) = (run.start.0 as usize, run.pages.0);
                if rest {
                    assert_eq!(
                        candidates.last(),
                        Some(&(at / CHUNK_PAGES)),
                        "the topmost that is not spared"
                    );
                } else {
                    assert_eq!((at % HUGE, n % HUGE), (0, 0), "whole huge pages");
                }
                // What is cut ends where a huge page that was free as a whole does not go on.
                let rest_of = at / HUGE * HUGE;
                let whole = (rest_of..rest_of + HUGE).all(|i| !model.used[i] && !model.scavenged[i]);
                assert!(at == rest_of || !whole, "{at} {n}");
                taken_out(&pages, &mut model, &run);
                let was = set_aside(&mut model, &run);
                away.push((run, was));
            }
            Step::Back(which, worked) if !away.is_empty() => {
                let which = which % away.len();
                let (run, was) = away.swap_remove(which);
                put_back(&mut pages, &mut model, run, &was, worked);
            }
            Step::Period => {
                pages.next_period();
                model.period += 1;
            }
            Step::Free(_) | Step::Empty(_) | Step::Back(..) => {}
        }
        model.look();
        let counted = pages.check();
        assert_eq!(pages.releasing().0, model.away.iter().filter(|a| **a).count());
        assert!(counted.used >= pages.releasing());
    }
    model.agrees(&pages);
    while let Some((run, was)) = away.pop() {
        put_back(&mut pages, &mut model, run, &was, true);
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
    let mut pages = PageAlloc::new(4096 + 8, 1, 0).unwrap();
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

/// `n` pages of as many chunks as it takes, used and with memory.
fn used(n: usize) -> PageAlloc {
    let mut pages = PageAlloc::new(n.div_ceil(CHUNK_PAGES), 1, HUGE).unwrap();
    pages.grow(n.div_ceil(CHUNK_PAGES));
    pages.take(PageId(0), Pages(n));
    pages.commit(PageId(0), Pages(n));
    pages
}

/// The run that a search finds, from the top, and its fate.
fn give(pages: &mut PageAlloc, most: usize, huge: Huge, spare: bool, worked: bool) -> Option<(u32, usize)> {
    let run = search(pages, Choice { most: Pages(most), huge, spare }, &mut { usize::MAX })?;
    let place = (run.start.0, run.pages.0);
    pages.put_released(run, worked);
    pages.check();
    Some(place)
}

#[test]
fn memory_that_cannot_be_given_back_stays_counted() {
    let mut pages = used(10);
    pages.free(PageId(0), Pages(10));
    assert_eq!(give(&mut pages, 10, Huge::Cut, false, false), Some((0, 10)));
    assert_eq!(pages.releasable(), Pages(10));
    assert_eq!(give(&mut pages, 4, Huge::Cut, false, true), Some((6, 4)));
    assert_eq!(give(&mut pages, 99, Huge::Cut, false, true), Some((0, 6)));
    assert_eq!(give(&mut pages, 99, Huge::Cut, false, true), None);
}

#[test]
fn what_is_on_its_way_to_the_system_is_nobody_elses() {
    let mut pages = used(CHUNK_PAGES);
    pages.free(PageId(100), Pages(50));
    let choice = Choice { most: Pages(50), huge: Huge::Cut, spare: false };
    let run = search(&mut pages, choice, &mut { usize::MAX }).unwrap();
    assert_eq!((pages.find(Pages(1)), pages.releasable(), pages.releasing()), (None, Pages(0), Pages(50)));
    assert!(search(&mut pages, choice, &mut { usize::MAX }).is_none());
    pages.check();
    assert_eq!(pages.put_released(run, true), Pages(50));
    assert_eq!((pages.find(Pages(50)), pages.releasing()), (Some(PageId(100)), Pages(0)));
    assert_eq!(pages.take(PageId(100), Pages(50)), Pages(50));
    pages.commit(PageId(100), Pages(50));
    pages.check();
}

#[test]
fn dense_chunks_are_spared_for_a_period_and_whole_huge_pages_go_first() {
    let mut pages = used(3 * CHUNK_PAGES);
    let chunk = CHUNK_PAGES as u32;
    pages.next_period();
    // The first chunk is free, the second is dense, the third half free, with one page of the rest free, too.
    pages.free(PageId(0), Pages(CHUNK_PAGES));
    pages.free(PageId(chunk), Pages(CHUNK_PAGES - DENSE));
    pages.free(PageId(2 * chunk), Pages(HUGE));
    pages.free(PageId(2 * chunk + 400), Pages(1));
    assert_eq!(give(&mut pages, HUGE, Huge::Whole, true, true), None, "all were dense a moment ago");
    pages.next_period();
    assert_eq!(give(&mut pages, HUGE, Huge::Only, true, true), Some((2 * chunk, HUGE)));
    assert_eq!(give(&mut pages, HUGE, Huge::Only, true, true), Some((HUGE as u32, HUGE)));
    assert_eq!(give(&mut pages, HUGE, Huge::Whole, true, true), Some((2 * chunk + 400, 1)));
    assert_eq!(give(&mut pages, 7, Huge::Whole, true, true), Some((0, HUGE)), "not a part of it");
    assert_eq!(give(&mut pages, HUGE, Huge::Whole, true, true), None);
    assert!(pages.suits_huge(1) && !pages.suits_huge(0) && !pages.suits_huge(2));
    let left = CHUNK_PAGES - DENSE;
    assert_eq!(pages.releasable(), Pages(left));
    assert_eq!(give(&mut pages, 2, Huge::Cut, false, true), Some((chunk + left as u32 - 2, 2)));
    assert!(!pages.suits_huge(1), "a part of it is gone");
}

#[test]
fn a_chunk_takes_its_bits_and_the_summaries_above_it() {
    let bytes = PageAlloc::table_bytes;
    assert_eq!(bytes(0), 0);
    // Two bits a page, its place in the scavenge index, and one summary of eight bytes on each of five levels.
    assert_eq!(bytes(1), 2 * 512 / 8 + 8 + 5 * 8);
    // A ninth chunk needs a second summary on the level above.
    assert_eq!(bytes(8), 8 * 136 + (8 + 1 + 1 + 1 + 1) * 8);
    assert_eq!(bytes(9), 9 * 136 + (9 + 2 + 1 + 1 + 1) * 8);
}
