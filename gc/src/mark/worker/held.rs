//! Marks that a worker holds back, so that those of one word of the bitmap are set together.
//!
//! Workers share words, so that a mark is an atomic or, which waits for all loads before it: more than all else that an object costs
//! whose neighbours are marked with it. A worker therefore collects the bits of one word, which stands for a KiB of heap, and sets them
//! with one operation when it comes to another word, and at the latest before it leaves. Until then nobody else sees them: another
//! worker may mark and scan the same objects, which [`Held`]'s owner learns when the bits are set.

/// The bits that one worker holds back, of one word.
///
/// - what is marked is what is set in the bitmap, and `bits` of each worker's
#[derive(Default)]
pub struct Held {
    index: usize,
    bits: u64,
}

impl Held {
    /// Marks by a bit of a word, which is not set in the bitmap: false if it is held already. `set` sets the bits of another
    /// word, which is held no longer.
    #[inline(always)]
    pub fn mark(&mut self, index: usize, bit: u64, set: impl FnOnce(usize, u64)) -> bool {
        if self.index == index {
            let new = self.bits & bit == 0;
            self.bits |= bit;
            return new;
        }
        self.set_all(set);
        *self = Held { index, bits: bit };
        true
    }

    /// Sets what is held, and holds nothing.
    #[inline(always)]
    pub fn set_all(&mut self, set: impl FnOnce(usize, u64)) {
        if self.bits != 0 {
            set(self.index, std::mem::take(&mut self.bits));
        }
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.bits == 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_mark_is_told_once_and_set_once() {
        let mut random = 1u64;
        let mut next = |most: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % most
        };
        for round in 0..100 {
            let (mut held, mut bitmap, mut marked, mut sets) = (Held::default(), [0u64; 4], [0u64; 4], 0);
            for _ in 0..1000 {
                // Often the word of the mark before.
                let (index, bit) = ((next(16) / 5) as usize, 1u64 << next(64));
                if bitmap[index] & bit != 0 {
                    continue;
                }
                let is_first = held.mark(index, bit, |index, bits| {
                    assert_eq!(bitmap[index] & bits, 0, "round {round}: a bit is set twice");
                    (bitmap[index], sets) = (bitmap[index] | bits, sets + 1);
                });
                assert_eq!(is_first, marked[index] & bit == 0, "round {round}");
                marked[index] |= bit;
            }
            held.set_all(|index, bits| bitmap[index] |= bits);
            assert!(held.is_empty());
            assert_eq!(bitmap, marked, "round {round}");
            let marks: u32 = marked.iter().map(|bits| bits.count_ones()).sum();
            assert!(sets < marks, "round {round}: none was set with another");
        }
    }
}
