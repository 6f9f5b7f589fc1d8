//! The page allocator: which pages are free, and the first run of `n` of them by address.
//!
//! A bitmap for each chunk, and above the chunks a radix tree of summaries, each the summary of eight
//! below it. A search goes down the tree, skipping what cannot hold the run; a run that crosses chunks
//! is found at the level where its parts lie side by side. Addresses are filled from the bottom, so
//! that memory is dense below and free above, and can be given back from the top.
//!
//! It knows nothing of locks, limits and statistics: see `page_heap`.

use crate::os::{Mapping, OutOfMemory};
use crate::page_bits::{Bits, MOST_PAGES, Summary, WORDS};
use crate::page_cache::{BLOCK, PageCache};
use crate::scavenge_index::Density;
use crate::units::{CHUNK_PAGES, PAGE_SIZE, PageId, Pages};

/// Levels of the tree; the last has one summary for each chunk.
const LEVELS: usize = 5;
/// log2 of the children of a summary.
const FAN_SHIFT: u32 = 3;
const LEAF: usize = LEVELS - 1;

/// log2 of the pages under a summary of this level.
const fn pages_shift(level: usize) -> u32 {
    CHUNK_PAGES.trailing_zeros() + FAN_SHIFT * (LEAF - level) as u32
}

const _: () = assert!(1 << pages_shift(0) == MOST_PAGES && PAGE_SIZE.is_power_of_two());

/// The bits of a chunk.
///
/// - bit of `used`: the page is handed out, in somebody's cache, or being given back
/// - bit of `scavenged`: the page has no memory behind it, and is zero; set for free pages only, except
///   between [`PageAlloc::take`] and [`PageAlloc::commit`]
#[repr(C)]
struct Chunk {
    used: Bits,
    scavenged: Bits,
    density: Density,
}

/// The free pages of one heap.
///
/// - chunks `0..grown` exist; the summaries of all others are zero
/// - `summary(LEAF, c) == summarize(chunk(c).used)`, and every other summary is the merge of its eight
/// - no page below `hint` is free
/// - `releasable` == pages that are free and not scavenged
/// - `releasing` == pages taken out to be given back, and not put back yet; `releasing_ready` of them with memory
/// - `pending` == pages that are used and scavenged
/// - no page from chunk `top` on is free and not scavenged, except parts of larger pages of the system
pub(crate) struct PageAlloc {
    chunks: Mapping,
    summaries: Mapping,
    /// Where each level starts in `summaries`; the last is the whole count.
    levels: [usize; LEVELS + 1],
    most_chunks: usize,
    grown: usize,
    hint: usize,
    releasable: usize,
    releasing: usize,
    releasing_ready: usize,
    pending: usize,
    top: usize,
    /// Of the scavenge index, from 1.
    period: u32,
    /// Pages in one of the system's, at least 1.
    group: usize,
    /// Pages in one of the system's huge ones; those of a chunk, where they are larger or there are none.
    huge: usize,
}

impl PageAlloc {
    /// The allocator of `chunks` chunks, none of them grown. 145 bytes a chunk, once it is grown.
    /// `group` is the pages in one of the system's, `huge` those in a huge one; 0: there are none.
    pub(crate) fn new(chunks: usize, group: usize, huge: usize) -> Result<PageAlloc, OutOfMemory> {
        let roots = chunks.div_ceil(1 << (FAN_SHIFT as usize * LEAF));
        let mut levels = [0; LEVELS + 1];
        for level in 0..LEVELS {
            levels[level + 1] = levels[level] + (roots << (FAN_SHIFT as usize * level));
        }
        Ok(PageAlloc {
            chunks: Mapping::lazy_zeroed(chunks * size_of::<Chunk>())?,
            summaries: Mapping::lazy_zeroed(levels[LEVELS] * size_of::<Summary>())?,
            levels,
            most_chunks: chunks,
            grown: 0,
            hint: 0,
            releasable: 0,
            releasing: 0,
            releasing_ready: 0,
            pending: 0,
            top: 0,
            period: 1,
            group: group.clamp(1, 64),
            huge: if huge > 1 && CHUNK_PAGES.is_multiple_of(huge) { huge } else { CHUNK_PAGES },
        })
    }

    /// Bytes of tables for so many grown chunks: their bits, and the summaries above them.
    pub(crate) const fn table_bytes(grown: usize) -> usize {
        let (mut bytes, mut level) = (grown * size_of::<Chunk>(), LEVELS);
        while level > 0 {
            level -= 1;
            bytes += grown.div_ceil(1 << (FAN_SHIFT as usize * (LEAF - level))) * size_of::<Summary>();
        }
        bytes
    }

    fn chunk(&self, chunk: usize) -> &Chunk {
        assert!(chunk < self.grown);
        // SAFETY: the table has `most_chunks >= grown` entries; all bits are valid; it changes by
        // `&mut self` only.
        unsafe { &*self.chunks.ptr().cast::<Chunk>().add(chunk) }
    }

    fn chunk_mut(&mut self, chunk: usize) -> &mut Chunk {
        assert!(chunk < self.grown);
        // SAFETY: as in `chunk`, and `self` is borrowed for as long as the answer.
        unsafe { &mut *self.chunks.ptr().cast::<Chunk>().add(chunk) }
    }

    fn level(&self, level: usize) -> &[Summary] {
        let (from, to) = (self.levels[level], self.levels[level + 1]);
        // SAFETY: the table has `levels[LEVELS] >= to` entries; all bits are valid; it changes by
        // `&mut self` only.
        unsafe { std::slice::from_raw_parts(self.summaries.ptr().cast::<Summary>().add(from), to - from) }
    }

    fn level_mut(&mut self, level: usize) -> &mut [Summary] {
        let (from, to) = (self.levels[level], self.levels[level + 1]);
        // SAFETY: as in `level`, and `self` is borrowed for as long as the answer.
        unsafe { std::slice::from_raw_parts_mut(self.summaries.ptr().cast::<Summary>().add(from), to - from) }
    }

    /// Brings the summaries up to date above the chunks `first..=last`.
    fn update(&mut self, mut first: usize, mut last: usize) {
        for chunk in first..=last {
            let summary = self.chunk(chunk).used.summarize();
            self.level_mut(LEAF)[chunk] = summary;
        }
        for level in (0..LEAF).rev() {
            (first, last) = (first >> FAN_SHIFT, last >> FAN_SHIFT);
            let mut changed = false;
            for i in first..=last {
                let children = &self.level(level + 1)[i << FAN_SHIFT..(i + 1) << FAN_SHIFT];
                let summary = Summary::merge(children, pages_shift(level + 1));
                changed |= std::mem::replace(&mut self.level_mut(level)[i], summary) != summary;
            }
            if !changed {
                return;
            }
        }
    }

    /// The chunks that `start..start + n` touches, each with the first page in it and the count.
    fn parts(start: PageId, n: Pages) -> impl Iterator<Item = (usize, usize, usize)> {
        let (start, end) = (start.0 as usize, start.0 as usize + n.0);
        (start / CHUNK_PAGES..end.div_ceil(CHUNK_PAGES)).map(move |chunk| {
            let low = start.saturating_sub(chunk * CHUNK_PAGES);
            (chunk, low, (end - chunk * CHUNK_PAGES).min(CHUNK_PAGES) - low)
        })
    }

    /// Pages of the chunks that are grown.
    pub(crate) fn grown(&self) -> Pages {
        Pages(self.grown * CHUNK_PAGES)
    }

    /// Pages that are free and have memory behind them.
    pub(crate) fn releasable(&self) -> Pages {
        Pages(self.releasable)
    }

    /// Chunks to grow so that the last free run has `n` pages; `None`: there is no room.
    pub(crate) fn chunks_to_hold(&self, n: Pages) -> Option<usize> {
        let mut tail = 0;
        for summary in self.level(LEAF)[..self.grown].iter().rev() {
            let (_, _, end) = summary.unpack();
            tail += end;
            if end < CHUNK_PAGES || tail >= n.0 {
                break;
            }
        }
        let more = n.0.saturating_sub(tail).div_ceil(CHUNK_PAGES);
        (more <= self.most_chunks - self.grown).then_some(more)
    }

    /// Whether no page of a grown chunk is free.
    pub(crate) fn is_full(&self, chunk: usize) -> bool {
        self.level(LEAF)[chunk] == Summary::NONE_FREE
    }

    /// Adds `n` chunks, all free and scavenged, at the end of those that are grown.
    pub(crate) fn grow(&mut self, n: usize) {
        assert!(n > 0 && n <= self.most_chunks - self.grown);
        let first = self.grown;
        self.grown += n;
        for chunk in first..self.grown {
            self.chunk_mut(chunk).scavenged = Bits([u64::MAX; WORDS]);
        }
        self.hint = self.hint.min(first * CHUNK_PAGES);
        self.update(first, self.grown - 1);
    }

    /// The first run of `n` free pages, by address. Raises the hint by what it learns.
    pub(crate) fn find(&mut self, n: Pages) -> Option<PageId> {
        debug_assert!(n.0 > 0);
        // Below the hint nothing is free, so what fits in its own chunk is the first.
        let chunk = self.hint / CHUNK_PAGES;
        let page = if chunk < self.grown && self.level(LEAF)[chunk].max() >= n.0 {
            Some(self.find_in_chunk(chunk, n.0))
        } else {
            self.find_in_tree(n.0)
        };
        if n.0 == 1 {
            self.hint = page.unwrap_or(self.grown * CHUNK_PAGES);
        }
        page.map(|page| PageId(page as u32))
    }

    fn find_in_chunk(&self, chunk: usize, n: usize) -> usize {
        match self.chunk(chunk).used.find_zeros(n) {
            Some(page) => chunk * CHUNK_PAGES + page,
            None => besom_stats::fatal(format_args!("page summary of chunk {chunk} promises {n} pages")),
        }
    }

    fn find_in_tree(&mut self, n: usize) -> Option<usize> {
        // The children of one summary, or the whole of level 0.
        let (mut first, mut count) = (0, self.levels[1]);
        // Whether all before `first` is known to be used.
        let mut narrowing = true;
        for level in 0..LEVELS {
            let shift = pages_shift(level);
            // A free run that reaches up to the current summary.
            let (mut run_start, mut run) = (0, 0);
            let mut first_free = None;
            let mut down = None;
            let mut found = None;
            for i in first.max(self.hint >> shift)..first + count {
                let (start, max, end) = self.level(level)[i].unpack();
                if max == 0 {
                    run = 0;
                    continue;
                }
                first_free.get_or_insert(i);
                if run == 0 {
                    run_start = i << shift;
                }
                if run + start >= n {
                    found = Some(run_start);
                    break;
                }
                if max >= n {
                    down = Some(i);
                    break;
                }
                if start == 1 << shift {
                    run += start;
                } else {
                    run = end;
                    run_start = ((i + 1) << shift) - end;
                }
            }
            if narrowing && let Some(i) = first_free {
                self.hint = self.hint.max(i << shift);
            }
            if found.is_some() {
                return found;
            }
            let Some(i) = down else {
                if level > 0 {
                    besom_stats::fatal(format_args!(
                        "page summary above {first} of level {level} promises {n} pages"
                    ));
                }
                return None;
            };
            narrowing &= first_free == Some(i);
            (first, count) = (i << FAN_SHIFT, 1 << FAN_SHIFT);
        }
        Some(self.find_in_chunk(first >> FAN_SHIFT, n))
    }

    /// Marks free pages used; says how many have no memory behind them. They keep their bits until
    /// [`Self::commit`], so that [`Self::free`] undoes this.
    pub(crate) fn take(&mut self, start: PageId, n: Pages) -> Pages {
        let (mut scavenged, period) = (0, self.period);
        let (mut first, mut last) = (usize::MAX, 0);
        for (chunk, low, count) in Self::parts(start, n) {
            let c = self.chunk_mut(chunk);
            if c.used.count(low, count) != 0 {
                besom_stats::fatal(format_args!("{} pages at {} are handed out twice", n.0, start.0));
            }
            c.used.set(low, count);
            c.density.grow(count, period);
            scavenged += c.scavenged.count(low, count);
            (first, last) = (first.min(chunk), chunk);
        }
        self.update(first, last);
        self.releasable -= n.0 - scavenged;
        self.pending += scavenged;
        Pages(scavenged)
    }

    /// Pages just taken have memory behind them now.
    pub(crate) fn commit(&mut self, start: PageId, n: Pages) {
        for (chunk, low, count) in Self::parts(start, n) {
            let c = self.chunk_mut(chunk);
            let scavenged = c.scavenged.count(low, count);
            c.scavenged.clear(low, count);
            self.pending -= scavenged;
        }
    }

    /// Marks used pages free.
    pub(crate) fn free(&mut self, start: PageId, n: Pages) {
        if n.0 == 0 || start.0 as usize + n.0 > self.grown().0 {
            besom_stats::fatal(format_args!("{} pages at {} are freed, which are no pages", n.0, start.0));
        }
        let (mut scavenged, period) = (0, self.period);
        let (mut first, mut last) = (usize::MAX, 0);
        for (chunk, low, count) in Self::parts(start, n) {
            let c = self.chunk_mut(chunk);
            if c.used.count(low, count) != count {
                besom_stats::fatal(format_args!("{} pages at {} are freed twice", n.0, start.0));
            }
            c.used.clear(low, count);
            c.density.shrink(count, period);
            scavenged += c.scavenged.count(low, count);
            (first, last) = (first.min(chunk), chunk);
        }
        self.update(first, last);
        self.pending -= scavenged;
        self.freed(start.0 as usize, last, n.0 - scavenged);
    }

    fn freed(&mut self, page: usize, last_chunk: usize, releasable: usize) {
        self.hint = self.hint.min(page);
        self.releasable += releasable;
        // Also for pages without memory: they may complete a page of the system.
        self.top = self.top.max(last_chunk + 1);
    }

    /// Fills an empty cache with the free pages of the first block that has any; false if none has.
    pub(crate) fn fill(&mut self, cache: &mut PageCache) -> bool {
        debug_assert!(cache.is_empty());
        let Some(page) = self.find(Pages(1)) else { return false };
        let (chunk, word) = (page.0 as usize / CHUNK_PAGES, page.0 as usize % CHUNK_PAGES / BLOCK as usize);
        let period = self.period;
        let c = self.chunk_mut(chunk);
        let free = !c.used.0[word];
        let scavenged = c.scavenged.0[word] & free;
        c.used.0[word] = u64::MAX;
        c.density.grow(free.count_ones() as usize, period);
        c.scavenged.0[word] &= !free;
        *cache = PageCache { base: page.0 / BLOCK * BLOCK, free, scavenged };
        self.update(chunk, chunk);
        self.releasable -= (free & !scavenged).count_ones() as usize;
        self.hint = (cache.base + BLOCK) as usize;
        true
    }

    /// Takes back all that a cache has.
    pub(crate) fn empty(&mut self, cache: &mut PageCache) {
        let PageCache { base, free, scavenged } = std::mem::take(cache);
        if free == 0 {
            return;
        }
        let (chunk, word) = (base as usize / CHUNK_PAGES, base as usize % CHUNK_PAGES / BLOCK as usize);
        let period = self.period;
        let c = self.chunk_mut(chunk);
        c.used.0[word] &= !free;
        c.scavenged.0[word] |= scavenged;
        c.density.shrink(free.count_ones() as usize, period);
        self.update(chunk, chunk);
        let page = base as usize + free.trailing_zeros() as usize;
        self.freed(page, chunk, (free & !scavenged).count_ones() as usize);
    }
}

/// What a walk over all bitmaps counts.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Chunks that are grown: of which a page is free, or used.
    pub(crate) chunks: usize,
    /// Those that are being given back included.
    pub(crate) used: Pages,
    /// And free.
    pub(crate) scavenged: Pages,
}

impl PageAlloc {
    /// Walks everything and aborts on the first equation of the struct that does not hold. Grows with
    /// the reservation.
    pub(crate) fn check(&self) -> Counted {
        let wrong = |what: &str, at: usize| -> ! {
            besom_stats::fatal(format_args!("page allocator: {what} (at {at})"))
        };
        let mut counted = Counted::default();
        let (mut dense, mut pending) = (0, 0);
        for c in 0..self.grown {
            let chunk = self.chunk(c);
            let used = chunk.used.count(0, CHUNK_PAGES);
            counted.chunks += usize::from(used > 0 || self.level(LEAF)[c] != Summary::NONE_FREE);
            counted.used.0 += used;
            counted.scavenged.0 += chunk.scavenged.count(0, CHUNK_PAGES);
            dense += chunk.density.in_use();
            if chunk.density.in_use() > used {
                wrong("a chunk is denser than its pages", c);
            }
            for (w, (used, scavenged)) in chunk.used.0.iter().zip(chunk.scavenged.0).enumerate() {
                let page = c * CHUNK_PAGES + w * 64;
                pending += (used & scavenged).count_ones() as usize;
                let below = match self.hint.saturating_sub(page) {
                    n @ 0..64 => (1 << n) - 1,
                    _ => u64::MAX,
                };
                if !used & below != 0 {
                    wrong("a page below the hint is free", page);
                }
            }
            if self.level(LEAF)[c] != chunk.used.summarize() {
                wrong("the summary of a chunk", c);
            }
            if c >= self.top && chunk.releasable(self.group) != Bits([0; WORDS]) {
                wrong("a chunk above the top can be released", c);
            }
        }
        if let Some(c) = self.level(LEAF)[self.grown..].iter().position(|s| *s != Summary::NONE_FREE) {
            wrong("a chunk is free but not grown", self.grown + c);
        }
        for level in 0..LEAF {
            for (i, children) in self.level(level + 1).chunks_exact(1 << FAN_SHIFT).enumerate() {
                if self.level(level)[i] != Summary::merge(children, pages_shift(level + 1)) {
                    wrong("a summary is not that of its children", i);
                }
            }
        }
        if pending != self.pending {
            wrong("pages that are used and scavenged", pending);
        }
        counted.scavenged.0 -= pending;
        if counted.used.0 != dense + self.releasing {
            wrong("used != in use by density + being given back", dense);
        }
        if self.grown().0 != counted.used.0 + counted.scavenged.0 + self.releasable {
            wrong("grown != used + scavenged + releasable", self.releasable);
        }
        counted
    }
}

mod release;
pub(crate) use release::{Choice, Huge, Search};
#[cfg(test)]
mod tests;
