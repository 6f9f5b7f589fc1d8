//! Memory that goes back to the system: at a limit, when asked for, and step by step in the background.
//!
//! ```text
//! lock: take a run out      the system drops its memory, no lock held      lock: put it back, count it, credit it
//! ```
//!
//! So nobody waits for the system who does not ask it for something himself; but for an allocation that would fail, and
//! waits for what is on its way.

use super::PageHeap;
use crate::os::page_size;
use crate::page_alloc::{Choice, Huge, PageAlloc, Search};
use crate::units::{Bytes, CHUNK_PAGES, PAGE_SIZE, PageId, Pages};
use besom_stats::Writer;
use besom_stats::sync::{Held, MutexGuard, Ordering::Relaxed, hold_on, lock};
use std::sync::PoisonError;

/// A search through the heap for what may be given back in the background: first huge pages all of which are free,
/// then the rest, each from the top; and not out of chunks that are or were dense in this period.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    rest: bool,
    below: usize,
}

impl Pass {
    /// One that has not begun.
    pub const fn new() -> Pass {
        Pass { rest: false, below: usize::MAX }
    }
}

impl Default for Pass {
    fn default() -> Pass {
        Pass::new()
    }
}

/// What a step of giving back came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many pages went. Not 0.
    Released(Pages),
    /// None yet: go on.
    Searching,
    /// There are no more, or the system would not.
    Nothing,
}

/// Anything, in the order that costs least: what is or was dense comes last.
struct Forced {
    huge: Huge,
    spare: bool,
    below: usize,
}

impl Forced {
    fn new(huge: Huge) -> Forced {
        Forced { huge, spare: true, below: usize::MAX }
    }
}

impl PageHeap {
    /// Gives one run back. `drop_memory` is told it, and says whether it worked.
    fn release_run(
        &self,
        choice: Choice,
        below: &mut usize,
        stats: Writer<'_>,
        drop_memory: &mut impl FnMut(PageId, Pages) -> bool,
    ) -> Step {
        // An own statement: the lock must be free below.
        let found = lock(&self.pages).take_releasable(choice, below);
        let run = match found {
            Search::Found(run) => run,
            Search::More => return Step::Searching,
            Search::Nothing => return Step::Nothing,
        };
        let worked = drop_memory(run.start, run.pages);
        let mut pages = lock(&self.pages);
        let released = pages.put_released(run, worked);
        if released.0 > 0 {
            self.ready.fetch_sub(released.0, Relaxed);
            let guard = stats.acquire();
            guard.committed(-(released.bytes().0 as i64));
            guard.released(released.bytes().0 as i64);
        }
        drop(pages);
        self.put_back.notify_all();
        if worked { Step::Released(released) } else { Step::Nothing }
    }

    fn drop_memory(&self, start: PageId, n: Pages) -> bool {
        // SAFETY: the pages are taken out of the bitmap's free ones, so nobody has or gets them.
        unsafe { self.space.release(start, n) }
    }

    /// Gives one run of at most so many pages back, or all of the huge page in which it ends.
    fn release_forced(&self, most: Pages, forced: &mut Forced, stats: Writer<'_>) -> Pages {
        loop {
            let choice = Choice { most, huge: forced.huge, spare: forced.spare };
            let step = self
                .release_run(choice, &mut forced.below, stats, &mut |start, n| self.drop_memory(start, n));
            match step {
                Step::Released(pages) => return pages,
                Step::Searching => {}
                Step::Nothing if forced.spare => (forced.spare, forced.below) = (false, usize::MAX),
                Step::Nothing => return Pages(0),
            }
        }
    }

    /// Gives free memory back to the system now, at most `at_most`; says how much. From the top, and what is or was
    /// dense last.
    pub fn release(&self, at_most: Bytes, stats: Writer<'_>) -> Bytes {
        self.return_late(&mut lock(&self.pages));
        let (mut left, mut total) = (Pages(at_most.0 / PAGE_SIZE), Pages(0));
        let mut forced = Forced::new(Huge::Cut);
        while left.0 > 0 {
            let released = self.release_forced(left, &mut forced, stats);
            if released.0 == 0 {
                break;
            }
            left.0 -= released.0;
            total.0 += released.0;
        }
        total.bytes()
    }

    /// Gives one run back of about so many pages, as `pass` finds it.
    pub fn release_step(&self, pass: &mut Pass, most: Pages, stats: Writer<'_>) -> Step {
        self.release_step_with(pass, most, stats, |start, n| self.drop_memory(start, n))
    }

    /// The same, with the system's part given: for a model of it.
    pub fn release_step_with(
        &self,
        pass: &mut Pass,
        most: Pages,
        stats: Writer<'_>,
        mut drop_memory: impl FnMut(PageId, Pages) -> bool,
    ) -> Step {
        let huge = if pass.rest { Huge::Whole } else { Huge::Only };
        let choice = Choice { most, huge, spare: true };
        match self.release_run(choice, &mut pass.below, stats, &mut drop_memory) {
            Step::Nothing if !pass.rest => {
                *pass = Pass { rest: true, ..Pass::new() };
                Step::Searching
            }
            step => step,
        }
    }

    /// Begins a period of the scavenge index: what was dense in the last one and is no more may go.
    pub fn next_period(&self) {
        lock(&self.pages).next_period();
    }

    /// Whether huge pages are refused to chunks that could have them again.
    pub fn has_refused_huge(&self) -> bool {
        self.space.has_refused()
    }

    /// Asks for huge pages again where they were refused, from the chunk `from` on, in chunks that are dense now and have
    /// nothing to give. The chunk to go on from; `None`: that was all.
    pub fn huge_again(&self, from: usize) -> Option<usize> {
        let grown = self.grown().0 / CHUNK_PAGES;
        let chunk = self.space.next_refused(from, grown)?;
        self.space.huge_again(chunk, || lock(&self.pages).suits_huge(chunk));
        Some(chunk + 1)
    }

    /// Waits until pages come back that are being released just now; false: there are none.
    pub(super) fn wait_for_release(&self, pages: MutexGuard<'_, PageAlloc>) -> bool {
        if pages.releasing().0 == 0 {
            return false;
        }
        drop(self.put_back.wait(pages).unwrap_or_else(PoisonError::into_inner));
        true
    }

    /// Keeps everybody outside, once no pages are on their way.
    pub(super) fn hold_pages(&self) -> Held<'_> {
        loop {
            let pages = lock(&self.pages);
            if pages.releasing().0 == 0 {
                return hold_on(pages);
            }
            self.wait_for_release(pages);
        }
    }

    /// Releases free pages before `n` more are ready, as far as those would pass the soft limit.
    pub(super) fn stay_below(&self, n: Pages, stats: Writer<'_>) {
        let soft = self.soft_limit.load(Relaxed);
        if soft == 0 || n.0 == 0 {
            return;
        }
        let mut forced = Forced::new(Huge::Whole);
        loop {
            let ready = self.ready.load(Relaxed) + n.0;
            let over = self.cost(ready, ready.max(self.most_ready.load(Relaxed))).saturating_sub(soft);
            let over = Pages(over.div_ceil(PAGE_SIZE).next_multiple_of(group()));
            if over.0 > 0 {
                self.return_late(&mut lock(&self.pages));
            }
            if over.0 == 0 || self.release_forced(over, &mut forced, stats).0 == 0 {
                return;
            }
        }
    }

    /// Counts `n` more pages as ready, and releases free pages for that where the limit would be passed else; false: it
    /// would be passed all the same.
    pub(super) fn commit_within_limit(&self, n: Pages, stats: Writer<'_>) -> bool {
        loop {
            if self.try_commit(n) {
                return true;
            }
            if !self.make_room(n, stats) {
                return false;
            }
        }
    }

    /// Releases free pages until `n` more can be ready within the limit.
    #[cold]
    fn make_room(&self, n: Pages, stats: Writer<'_>) -> bool {
        let mut forced = Forced::new(Huge::Cut);
        loop {
            let over = || (self.ready.load(Relaxed) + n.0).saturating_sub(self.allowed());
            let pages = lock(&self.pages);
            let missing = Pages(over().next_multiple_of(group()));
            if missing.0 == 0 {
                return true;
            }
            // What releasing everything cannot mend is not worth losing the free memory.
            if missing > pages.releasable() {
                if self.wait_for_release(pages) {
                    continue;
                }
                return false;
            }
            drop(pages);
            if self.release_forced(missing, &mut forced, stats).0 == 0 {
                // Another took it out meanwhile, or what is left cannot go.
                if !self.wait_for_release(lock(&self.pages)) && over() > 0 {
                    return false;
                }
                forced = Forced::new(Huge::Cut);
            }
        }
    }
}

/// Pages in one of the system's, at least 1.
pub(super) fn group() -> usize {
    (page_size() / PAGE_SIZE).max(1)
}
