//! The bits of one chunk, one for each of its 512 pages, and the summary of a stretch of pages.

use crate::units::CHUNK_PAGES;

/// Words of one chunk's bitmap.
pub(crate) const WORDS: usize = CHUNK_PAGES / 64;

/// One bit a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct Bits(pub(crate) [u64; WORDS]);

/// The first of `n` ones side by side, `1 <= n <= 64`.
#[inline]
pub(crate) fn find_in_word(word: u64, n: usize) -> Option<usize> {
    // After each step bit i says that bits i .. i + have of the word are ones.
    let (mut x, mut have) = (word, 1);
    while have < n {
        let by = have.min(n - have);
        x &= x >> by;
        have += by;
    }
    (x != 0).then(|| x.trailing_zeros() as usize)
}

/// The words that `start..start + n` touches, each with the mask of its part.
fn parts(start: usize, n: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = start + n;
    debug_assert!(n > 0 && end <= CHUNK_PAGES);
    (start / 64..end.div_ceil(64)).map(move |w| {
        let low = start.saturating_sub(w * 64);
        let high = (end - w * 64).min(64);
        (w, (u64::MAX << low) & (u64::MAX >> (64 - high)))
    })
}

impl Bits {
    pub(crate) fn set(&mut self, start: usize, n: usize) {
        parts(start, n).for_each(|(w, mask)| self.0[w] |= mask);
    }

    pub(crate) fn clear(&mut self, start: usize, n: usize) {
        parts(start, n).for_each(|(w, mask)| self.0[w] &= !mask);
    }

    pub(crate) fn count(&self, start: usize, n: usize) -> usize {
        parts(start, n).map(|(w, mask)| (self.0[w] & mask).count_ones() as usize).sum()
    }

    /// The first `n` zeros side by side.
    pub(crate) fn find_zeros(&self, n: usize) -> Option<usize> {
        // Zeros that end at the current word's start.
        let mut run = 0;
        for (w, &word) in self.0.iter().enumerate() {
            if word == 0 {
                run += 64;
                if run >= n {
                    return Some((w + 1) * 64 - run);
                }
                continue;
            }
            if run + word.trailing_zeros() as usize >= n {
                return Some(w * 64 - run);
            }
            if n < 64
                && let Some(bit) = find_in_word(!word, n)
            {
                return Some(w * 64 + bit);
            }
            run = word.leading_zeros() as usize;
        }
        None
    }

    /// The last stretch of ones that starts below `end`, cut off there: its start and length.
    pub(crate) fn last_ones(&self, end: usize) -> Option<(usize, usize)> {
        let top = self.last_below(end, |word| word)?;
        let start = self.last_below(top, |word| !word).map_or(0, |zero| zero + 1);
        Some((start, top + 1 - start))
    }

    /// The highest bit below `end` that is one after `map`.
    fn last_below(&self, end: usize, map: impl Fn(u64) -> u64) -> Option<usize> {
        (0..end.div_ceil(64)).rev().find_map(|w| {
            let keep = u64::MAX >> (64 - (end - w * 64).min(64));
            let word = map(self.0[w]) & keep;
            (word != 0).then(|| w * 64 + 63 - word.leading_zeros() as usize)
        })
    }

    /// The summary of a chunk whose used pages these are.
    pub(crate) fn summarize(&self) -> Summary {
        let (mut start, mut max, mut run) = (None, 0, 0);
        for (w, &used) in self.0.iter().enumerate() {
            if used == 0 {
                run += 64;
                continue;
            }
            let low = used.trailing_zeros() as usize;
            start.get_or_insert(w * 64 + low);
            max = max.max(run + low);
            while max < 62
                && let Some(bit) = find_in_word(!used, max + 1)
            {
                max = (!used >> bit).trailing_ones() as usize;
            }
            run = used.leading_zeros() as usize;
        }
        Summary::pack(start.unwrap_or(CHUNK_PAGES), max.max(run), run)
    }
}

/// Free pages of a stretch of pages, in one word: how many at its start, the longest run, how many at its end.
///
/// - all zero: nothing is free, so a table of zeros is that of a heap that was never grown
/// - `start <= max && end <= max`, and if `max` is the whole stretch, all three are
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct Summary(u64);

/// Bits of each of the three counts.
const COUNT_BITS: u32 = 21;
/// The longest stretch; it is free as a whole or its counts fit [`COUNT_BITS`].
pub(crate) const MOST_PAGES: usize = 1 << COUNT_BITS;
/// Says that [`MOST_PAGES`] are free.
const ALL: u64 = 1 << 63;

impl Summary {
    pub(crate) const NONE_FREE: Summary = Summary(0);

    fn pack(start: usize, max: usize, end: usize) -> Summary {
        if max == MOST_PAGES {
            return Summary(ALL);
        }
        Summary(start as u64 | (max as u64) << COUNT_BITS | (end as u64) << (2 * COUNT_BITS))
    }

    /// (start, max, end)
    #[inline]
    pub(crate) fn unpack(self) -> (usize, usize, usize) {
        if self.0 & ALL != 0 {
            return (MOST_PAGES, MOST_PAGES, MOST_PAGES);
        }
        let count = |shift: u32| (self.0 >> shift) as usize & (MOST_PAGES - 1);
        (count(0), count(COUNT_BITS), count(2 * COUNT_BITS))
    }

    /// The longest run.
    #[inline]
    pub(crate) fn max(self) -> usize {
        self.unpack().1
    }

    /// The summary of stretches side by side, of `1 << shift` pages each.
    pub(crate) fn merge(parts: &[Summary], shift: u32) -> Summary {
        let full = 1 << shift;
        let (mut start, mut max, mut run) = (0, 0, 0);
        let mut leading = true;
        for (s, m, e) in parts.iter().map(|p| p.unpack()) {
            if leading {
                start += s;
            }
            leading &= s == full;
            max = max.max(m).max(run + s);
            run = if s == full { run + full } else { e };
        }
        Summary::pack(start, max, run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bitmaps of few long stretches, many short ones, and the two extremes.
    fn bitmaps() -> impl Strategy<Value = Bits> {
        let stretches = prop::collection::vec((0..CHUNK_PAGES, 1..200usize, any::<bool>()), 0..40);
        (any::<bool>(), stretches).prop_map(|(ones, stretches)| {
            let mut bits = Bits([if ones { u64::MAX } else { 0 }; WORDS]);
            for (start, n, one) in stretches {
                let n = n.min(CHUNK_PAGES - start);
                if one { bits.set(start, n) } else { bits.clear(start, n) }
            }
            bits
        })
    }

    fn list(bits: &Bits) -> Vec<bool> {
        (0..CHUNK_PAGES).map(|i| bits.0[i / 64] >> (i % 64) & 1 == 1).collect()
    }

    fn first_run(list: &[bool], n: usize) -> Option<usize> {
        (0..=list.len() - n).find(|&i| list[i..i + n].iter().all(|used| !used))
    }

    fn summary_of(list: &[bool]) -> (usize, usize, usize) {
        let max = list.split(|used| *used).map(<[bool]>::len).max().unwrap();
        let start = list.iter().take_while(|used| !**used).count();
        (start, max, list.iter().rev().take_while(|used| !**used).count())
    }

    proptest! {
        #[test]
        fn searches_agree_with_a_list(bits in bitmaps(), n in 1..=CHUNK_PAGES, end in 0..=CHUNK_PAGES) {
            let list = list(&bits);
            for n in [n, 1, n.min(64), n.min(20)] {
                prop_assert_eq!(bits.find_zeros(n), first_run(&list, n));
            }
            let expected = list[..end].iter().rposition(|one| *one).map(|top| {
                let n = list[..=top].iter().rev().take_while(|one| **one).count();
                (top + 1 - n, n)
            });
            prop_assert_eq!(bits.last_ones(end), expected);
        }

        #[test]
        fn summaries_agree_with_a_list(parts in prop::collection::vec(bitmaps(), 8)) {
            let summaries: Vec<Summary> = parts.iter().map(Bits::summarize).collect();
            for (bits, summary) in parts.iter().zip(&summaries) {
                prop_assert_eq!(summary.unpack(), summary_of(&list(bits)));
            }
            let whole: Vec<bool> = parts.iter().flat_map(list).collect();
            prop_assert_eq!(Summary::merge(&summaries, 9).unpack(), summary_of(&whole));
        }

        #[test]
        fn ranges_agree_with_a_list(bits in bitmaps(), start in 0..CHUNK_PAGES, n in 1..=CHUNK_PAGES) {
            let n = n.min(CHUNK_PAGES - start);
            let (mut set, mut clear) = (bits, bits);
            set.set(start, n);
            clear.clear(start, n);
            let mut expected = list(&bits);
            prop_assert_eq!(bits.count(start, n), expected[start..start + n].iter().filter(|b| **b).count());
            expected[start..start + n].fill(true);
            prop_assert_eq!(list(&set), expected.clone());
            expected[start..start + n].fill(false);
            prop_assert_eq!(list(&clear), expected);
        }
    }

    #[test]
    fn the_longest_stretch_is_told_apart() {
        let all = Summary::merge(&[Summary::pack(1 << 18, 1 << 18, 1 << 18); 8], 18);
        assert_eq!(all.unpack(), (MOST_PAGES, MOST_PAGES, MOST_PAGES));
        assert_eq!(Summary::NONE_FREE.unpack(), (0, 0, 0));
        assert_eq!(Summary::merge(&[Summary::NONE_FREE; 8], 18), Summary::NONE_FREE);
    }
}
