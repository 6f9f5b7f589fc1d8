//! The scavenge index: which chunks are dense, or were a moment ago, and are left alone by the background scavenger.
//!
//! What is free in a dense chunk is wanted again soon, and giving it back breaks the huge pages of all the rest. A
//! chunk that a cycle has just emptied is filled again before the next, as a rule: so density counts for the whole
//! period in which it was seen. A period is a cycle; or a while without one, for a program that has gone quiet.

use crate::units::CHUNK_PAGES;

/// Pages in use from which a chunk is dense, 31/32 of it, as in Go. Higher: huge pages are broken for a few free
/// pages. Lower: a heap that is evenly fragmented gives nothing back.
pub(crate) const DENSE: usize = CHUNK_PAGES * 31 / 32;

/// How full one chunk is, and was.
///
/// - `in_use` == bits of `used`, less those of pages that are being given back
/// - `dense_in`: the last period in which `in_use >= DENSE` was seen to begin or end; 0: none
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Density {
    in_use: u32,
    dense_in: u32,
}

impl Density {
    /// Pages in use.
    pub(crate) fn in_use(self) -> usize {
        self.in_use as usize
    }

    /// So many more are in use.
    pub(crate) fn grow(&mut self, pages: usize, period: u32) {
        self.in_use += pages as u32;
        if self.is_dense() {
            self.dense_in = period;
        }
    }

    /// So many fewer are in use.
    pub(crate) fn shrink(&mut self, pages: usize, period: u32) {
        if self.is_dense() {
            self.dense_in = period;
        }
        self.in_use -= pages as u32;
    }

    /// Whether it is dense now.
    pub(crate) fn is_dense(self) -> bool {
        self.in_use() >= DENSE
    }

    /// Whether it is or was dense in this period.
    pub(crate) fn is_spared(self, period: u32) -> bool {
        self.is_dense() || self.dense_in == period
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_spared_in_the_period_in_which_it_stopped_being_dense() {
        let mut d = Density::default();
        assert!(!d.is_spared(1));
        d.grow(DENSE - 1, 1);
        assert!(!d.is_spared(1));
        d.grow(1, 1);
        assert!(d.is_dense() && d.is_spared(1) && d.is_spared(7), "dense now, whenever it became so");
        d.shrink(DENSE, 7);
        assert_eq!((d.is_dense(), d.is_spared(7), d.is_spared(8), d.in_use()), (false, true, false, 0));
        d.grow(DENSE + 1, 8);
        d.shrink(1, 9);
        assert!(d.is_dense());
        d.shrink(1, 10);
        assert!(d.is_spared(10) && !d.is_spared(11));
    }
}
