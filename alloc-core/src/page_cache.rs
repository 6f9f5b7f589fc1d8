//! A page cache: 64 pages side by side, of which some are free and belong to one P.
//!
//! To the page allocator they are all used, so their owner hands them out with no lock.

use crate::page_bits::find_in_word;
use crate::units::{PageId, Pages};

/// Pages in the block of a cache: one word of the page allocator's bitmap.
pub(crate) const BLOCK: u32 = 64;
/// Larger requests go past the cache. Higher: a block serves few of them and is dropped with small
/// holes. Lower: middling spans take the lock.
pub(crate) const MOST_CACHED: usize = 16;

/// Free pages of one 64-page block. All zero is an empty one.
///
/// - `base % 64 == 0`
/// - bit i of `free`: page `base + i` is free and ours
/// - `scavenged & !free == 0`; bit i of it: that page has no memory behind it, and is zero
#[derive(Default, Debug)]
#[repr(C)]
pub struct PageCache {
    pub(crate) base: u32,
    pub(crate) free: u64,
    pub(crate) scavenged: u64,
}

/// Pages taken out of a cache.
pub(crate) struct Taken {
    pub(crate) start: PageId,
    mask: u64,
    scavenged: u64,
}

impl Taken {
    /// How many of them have no memory behind them.
    pub(crate) fn scavenged(&self) -> usize {
        self.scavenged.count_ones() as usize
    }
}

impl PageCache {
    /// An empty cache.
    pub const fn new() -> PageCache {
        PageCache { base: 0, free: 0, scavenged: 0 }
    }

    /// Whether it has no page.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.free == 0
    }

    /// Free pages in it.
    pub fn pages(&self) -> Pages {
        Pages(self.free.count_ones() as usize)
    }

    /// Those of them that have no memory behind them.
    pub(crate) fn scavenged(&self) -> Pages {
        Pages(self.scavenged.count_ones() as usize)
    }

    /// The first `n` pages side by side, `1 <= n <= MOST_CACHED`.
    pub(crate) fn take(&mut self, n: usize) -> Option<Taken> {
        debug_assert!((1..=MOST_CACHED).contains(&n));
        let bit = find_in_word(self.free, n)?;
        let mask = ((1 << n) - 1) << bit;
        let scavenged = self.scavenged & mask;
        self.free &= !mask;
        self.scavenged &= !mask;
        Some(Taken { start: PageId(self.base + bit as u32), mask, scavenged })
    }

    /// Puts back what was taken last, as it was.
    pub(crate) fn undo(&mut self, taken: Taken) {
        self.free |= taken.mask;
        self.scavenged |= taken.scavenged;
    }

    /// Takes freed pages in, if the cache is not empty and they lie in its block.
    pub(crate) fn put(&mut self, start: PageId, n: usize) -> bool {
        let bit = start.0.wrapping_sub(self.base);
        if self.is_empty() || bit >= BLOCK || n > (BLOCK - bit) as usize {
            return false;
        }
        let mask = (u64::MAX >> (BLOCK as usize - n)) << bit;
        if self.free & mask != 0 {
            besom_stats::fatal(format_args!("{n} pages at {} are freed twice", start.0));
        }
        self.free |= mask;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cache_hands_out_its_free_pages_once(
            free in any::<u64>(),
            scavenged in any::<u64>(),
            sizes in prop::collection::vec(1..=MOST_CACHED, 1..70),
        ) {
            let mut cache = PageCache { base: 128, free, scavenged: scavenged & free };
            let mut left = free;
            for n in sizes {
                let expected = (0..=64 - n).find(|&i| (0..n).all(|k| left >> (i + k) & 1 == 1));
                let taken = cache.take(n);
                prop_assert_eq!(taken.as_ref().map(|t| t.start.0 as usize), expected.map(|i| 128 + i));
                let Some(t) = taken else { continue };
                prop_assert_eq!(t.scavenged(), (t.mask & scavenged).count_ones() as usize);
                left &= !t.mask;
                prop_assert_eq!((cache.free, cache.scavenged), (left, left & scavenged));
                cache.undo(t);
                prop_assert_eq!(cache.scavenged, cache.free & scavenged);
                prop_assert!(cache.take(n).is_some());
                prop_assert_eq!(cache.pages(), Pages(left.count_ones() as usize));
            }
        }
    }

    #[test]
    fn only_pages_of_the_block_come_back() {
        let mut cache = PageCache::new();
        assert!(cache.is_empty() && !cache.put(PageId(0), 1));
        cache = PageCache { base: 64, free: 1, scavenged: 1 };
        assert!(!cache.put(PageId(63), 1) && !cache.put(PageId(128), 1) && !cache.put(PageId(127), 2));
        assert!(cache.put(PageId(127), 1) && cache.put(PageId(65), 62));
        assert_eq!((cache.free, cache.scavenged), (u64::MAX, 1));
    }
}
