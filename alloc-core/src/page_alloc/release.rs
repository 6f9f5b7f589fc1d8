//! Which free memory goes back to the system, and how it is out of reach meanwhile.
//!
//! A run on its way is marked used, so that nobody is handed it and the lock is free while the system works. It comes
//! back scavenged; or as it was, if the system would not.

use super::{Chunk, LEAF, PageAlloc};
use crate::page_bits::{Bits, Summary, WORDS};
use crate::units::{CHUNK_PAGES, PageId, Pages};

/// Chunks that are looked at with the lock held. Higher: allocations wait longer for a search. Lower: more locking in
/// a vast heap.
const SEARCH: usize = 256;

/// What to do with huge pages all of which are free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Huge {
    /// Give back nothing else.
    Only,
    /// Give back the rest of one that is begun, more than was asked for.
    Whole,
    /// Give back what was asked for.
    Cut,
}

/// What may be given back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    /// The most pages.
    pub(crate) most: Pages,
    pub(crate) huge: Huge,
    /// Nothing out of chunks that are or were dense in this period.
    pub(crate) spare: bool,
}

/// A run on its way to the system. It lies in one chunk.
#[must_use = "the pages are lost if they are not put back"]
pub(crate) struct Releasing {
    pub(crate) start: PageId,
    pub(crate) pages: Pages,
    /// The chunk's bits of those that had no memory anyway.
    scavenged: Bits,
}

impl Releasing {
    fn place(&self) -> (usize, usize) {
        (self.start.0 as usize / CHUNK_PAGES, self.start.0 as usize % CHUNK_PAGES)
    }

    /// Those that have memory behind them.
    fn ready(&self) -> usize {
        self.pages.0 - self.scavenged.count(self.place().1, self.pages.0)
    }
}

/// What a search comes to.
pub(crate) enum Search {
    Found(Releasing),
    /// Nothing so far: go on.
    More,
    Nothing,
}

impl PageAlloc {
    /// Takes the topmost run that may be given back, below the chunk `below`, and lowers that to where a search goes on.
    pub(crate) fn take_releasable(&mut self, choice: Choice, below: &mut usize) -> Search {
        let most = choice.most.0 / self.group * self.group;
        *below = (*below).min(self.top);
        for _ in 0..SEARCH {
            if self.releasable == 0 || *below == 0 || most == 0 {
                return Search::Nothing;
            }
            let chunk = *below - 1;
            if let Some((low, len)) = self.last_candidate(chunk, choice) {
                let n = len.min(most);
                let mut start = low + len - n;
                if choice.huge != Huge::Cut {
                    let whole = start / self.huge * self.huge;
                    start = if whole >= low && whole + self.huge <= low + len { whole } else { start };
                }
                return Search::Found(self.take_out(chunk, start, low + len - start));
            }
            *below = chunk;
        }
        Search::More
    }

    /// The last stretch of pages in a chunk that may go.
    fn last_candidate(&mut self, chunk: usize, choice: Choice) -> Option<(usize, usize)> {
        if self.level(LEAF)[chunk] != Summary::NONE_FREE {
            let c = self.chunk(chunk);
            if choice.spare && c.density.is_spared(self.period) {
                return None;
            }
            let ready = c.releasable(self.group);
            let candidates = if choice.huge == Huge::Only { c.whole(&ready, self.huge) } else { ready };
            if let Some(found) = candidates.last_ones(CHUNK_PAGES) {
                return Some(found);
            }
            if ready != Bits([0; WORDS]) {
                return None;
            }
        }
        // There is nothing for anybody.
        if self.top == chunk + 1 {
            self.top = chunk;
        }
        None
    }

    fn take_out(&mut self, chunk: usize, start: usize, n: usize) -> Releasing {
        let c = self.chunk_mut(chunk);
        let scavenged = c.scavenged;
        c.used.set(start, n);
        c.scavenged.clear(start, n);
        self.update(chunk, chunk);
        let page = PageId((chunk * CHUNK_PAGES + start) as u32);
        let run = Releasing { start: page, pages: Pages(n), scavenged };
        self.releasable -= run.ready();
        self.releasing += n;
        self.releasing_ready += run.ready();
        run
    }

    /// Puts a run back that the system has taken the memory of, or would not. The pages that lost theirs.
    pub(crate) fn put_released(&mut self, run: Releasing, worked: bool) -> Pages {
        let ((chunk, start), n, ready) = (run.place(), run.pages.0, run.ready());
        let c = self.chunk_mut(chunk);
        if c.used.count(start, n) != n {
            besom_stats::fatal(format_args!("{n} pages at {} are freed twice", run.start.0));
        }
        c.used.clear(start, n);
        if worked {
            c.scavenged.set(start, n);
        } else {
            (0..n)
                .filter(|i| run.scavenged.count(start + i, 1) == 1)
                .for_each(|i| c.scavenged.set(start + i, 1));
        }
        self.update(chunk, chunk);
        self.releasing -= n;
        self.releasing_ready -= ready;
        self.hint = self.hint.min(run.start.0 as usize);
        if worked {
            return Pages(ready);
        }
        self.releasable += ready;
        self.top = self.top.max(chunk + 1);
        Pages(0)
    }

    /// Pages on their way to the system.
    pub(crate) fn releasing(&self) -> Pages {
        Pages(self.releasing)
    }

    /// Those of them that have no memory.
    pub(crate) fn releasing_scavenged(&self) -> Pages {
        Pages(self.releasing - self.releasing_ready)
    }

    /// Begins a period of the scavenge index.
    pub(crate) fn next_period(&mut self) {
        self.period = self.period.wrapping_add(1);
    }

    /// Whether huge pages can only help: the chunk is dense, and every page of it has memory, or may have.
    pub(crate) fn suits_huge(&self, chunk: usize) -> bool {
        let c = self.chunk(chunk);
        self.releasing == 0 && c.density.is_dense() && c.scavenged == Bits([0; WORDS])
    }
}

impl Chunk {
    /// Pages to give back: free, not scavenged, and made up to whole groups of free pages.
    pub(super) fn releasable(&self, group: usize) -> Bits {
        debug_assert!(group.is_power_of_two() && group <= 64);
        let mut bits = Bits([0; WORDS]);
        for (w, word) in bits.0.iter_mut().enumerate() {
            let free = !self.used.0[w];
            let ready = free & !self.scavenged.0[w];
            if group == 1 {
                *word = ready;
                continue;
            }
            for at in (0..64).step_by(group) {
                let mask = (u64::MAX >> (64 - group)) << at;
                if free & mask == mask && ready & mask != 0 {
                    *word |= mask;
                }
            }
        }
        bits
    }

    /// The huge pages all of which are free, and some of which is in `ready`.
    fn whole(&self, ready: &Bits, huge: usize) -> Bits {
        let mut bits = Bits([0; WORDS]);
        for start in (0..CHUNK_PAGES).step_by(huge) {
            if self.used.count(start, huge) == 0 && ready.count(start, huge) > 0 {
                bits.set(start, huge);
            }
        }
        bits
    }
}
