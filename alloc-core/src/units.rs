//! Units as types: a count of pages is no page number, and neither is a count of bytes.

use std::ops::{Add, AddAssign, Sub};

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 13;
/// Bytes in a heap page: the grain of spans, not of the system's paging.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
/// Pages in a chunk, the grain in which the heap takes memory from its reservation (4 MiB).
pub const CHUNK_PAGES: usize = 512;
/// Bytes in a chunk.
pub const CHUNK_SIZE: usize = CHUNK_PAGES * PAGE_SIZE;

/// A number of heap pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pages(pub usize);

impl Pages {
    /// The bytes in this many pages.
    pub const fn bytes(self) -> Bytes {
        Bytes(self.0 << PAGE_SHIFT)
    }

    /// The least number of pages that holds `bytes`.
    pub const fn to_hold(bytes: Bytes) -> Pages {
        Pages(bytes.0.div_ceil(PAGE_SIZE))
    }
}

/// The number of a page, counted from the start of its heap's reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub u32);

impl PageId {
    /// Where the page starts, as an offset from the reservation's start.
    pub const fn offset(self) -> usize {
        (self.0 as usize) << PAGE_SHIFT
    }

    /// The page that holds this offset.
    pub const fn of_offset(offset: usize) -> PageId {
        PageId((offset >> PAGE_SHIFT) as u32)
    }

    /// The page `n` pages further on.
    pub const fn plus(self, n: Pages) -> PageId {
        PageId(self.0 + n.0 as u32)
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub usize);

impl Add for Bytes {
    type Output = Bytes;
    fn add(self, other: Bytes) -> Bytes {
        Bytes(self.0 + other.0)
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Bytes) {
        self.0 += other.0;
    }
}

impl Sub for Bytes {
    type Output = Bytes;
    fn sub(self, other: Bytes) -> Bytes {
        Bytes(self.0 - other.0)
    }
}
