//! The tables beside the heap: what each page holds, where its span starts, and the two bitmaps.
//!
//! All are flat, indexed by page number or by granule, sized with the reservation and committed by the
//! system as they are touched, so a page costs [`HeapTables::BYTES_PER_PAGE`] once it is used and nothing
//! before. An address alone leads to its mark bit: subtract, shift, test. No division, no look at the span.
//!
//! Invariant: outside spans in use, `class == FREE`, and both bitmaps are zero. A bit is set only at the start
//! of a slot; since a slot has at least 16 bytes, slot starts fall into different granules.

use crate::os::{Mapping, OutOfMemory};
use crate::page_heap::PageTables;
use crate::span::Span;
use crate::span_class::SpanClass;
use crate::units::{PAGE_SHIFT, PAGE_SIZE, PageId, Pages};
use besom_stats::sync::raw::{AtomicU16, AtomicU32, AtomicU64, Ordering::*};
use std::marker::PhantomData;

/// log2 of [`GRANULE`].
pub const GRANULE_SHIFT: u32 = 4;
/// Bytes of heap behind one bit. Higher (32): small objects would waste memory. Lower (8): both bitmaps and
/// the marker's cache footprint double, to serve a size that the tiny allocator serves already.
pub const GRANULE: usize = 1 << GRANULE_SHIFT;
/// Words of a bitmap for one page: one cache line.
pub const WORDS_PER_PAGE: usize = PAGE_SIZE / GRANULE / 64;

/// A zero-initialised array in a mapping of its own, committed as it is touched. `T` is made of atomics, and
/// all zero bits are a valid `T`.
pub struct ZeroedTable<T> {
    mapping: Mapping,
    len: usize,
    _of: PhantomData<T>,
}

/// # Safety
/// All zero bits must be a valid value of the type, and sharing it between threads must be sound.
pub unsafe trait Zeroable: Sync {}
// SAFETY: an atomic integer has no invalid bit pattern.
unsafe impl Zeroable for AtomicU16 {}
// SAFETY: as above.
unsafe impl Zeroable for AtomicU32 {}
// SAFETY: as above.
unsafe impl Zeroable for AtomicU64 {}
// SAFETY: made of atomic integers.
unsafe impl Zeroable for crate::span_class::ClassInfo {}
// SAFETY: made of atomic integers.
unsafe impl Zeroable for Span {}
// SAFETY: made of atomic integers; an empty central list is all zero.
unsafe impl Zeroable for crate::central::Central {}
// SAFETY: made of atomic integers; an empty histogram is all zero.
unsafe impl Zeroable for besom_stats::Histogram {}

// SAFETY: only shared references to `T: Sync` are handed out.
unsafe impl<T: Zeroable> Sync for ZeroedTable<T> {}
// SAFETY: the mapping is owned, and `T` is not tied to a thread.
unsafe impl<T: Zeroable> Send for ZeroedTable<T> {}

impl<T: Zeroable> ZeroedTable<T> {
    /// A table of `len` zeroed elements.
    pub fn new(len: usize) -> Result<ZeroedTable<T>, OutOfMemory> {
        Ok(ZeroedTable { mapping: Mapping::lazy_zeroed(len * size_of::<T>())?, len, _of: PhantomData })
    }

    /// Bytes of all elements.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// The element at `index`.
    #[inline(always)]
    pub fn get(&self, index: usize) -> &T {
        debug_assert!(index < self.len, "table index {index} of {}", self.len);
        // SAFETY: every caller derives the index from an address that was compared with the reservation, or
        // from a span class; both bound it by `len`, and zero bits are a valid `T`.
        unsafe { &*self.mapping.ptr().cast::<T>().add(index) }
    }

    /// Gives the memory of the first `len` elements back: nobody uses them, and they are zero afterwards (unless the
    /// program has locked its memory).
    pub fn clear(&self, len: usize) {
        debug_assert!(len <= self.len);
        self.mapping.discard(0, len * size_of::<T>());
    }

    /// The elements `start..start + len` as a slice, for loops.
    #[inline(always)]
    pub fn slice(&self, start: usize, len: usize) -> &[T] {
        debug_assert!(start + len <= self.len);
        // SAFETY: as in `get`.
        unsafe { std::slice::from_raw_parts(self.mapping.ptr().cast::<T>().add(start), len) }
    }
}

/// The tables of one heap.
pub struct HeapTables {
    base: usize,
    len: usize,
    /// Span class + 1 of each page; 0 where no span is. Two bytes a page: 256 KiB per GiB stay in the L2 cache.
    classes: ZeroedTable<AtomicU16>,
    /// The first page of each page's span.
    first: ZeroedTable<AtomicU32>,
    /// The span that starts at each page. Type-stable: an entry is never anything but a span.
    spans: ZeroedTable<Span>,
    /// One bit a granule: a slot that is handed out starts here. 512 bits a page.
    alloc: ZeroedTable<AtomicU64>,
    /// One bit a granule: the object that starts here was reached in this cycle.
    marks: ZeroedTable<AtomicU64>,
}

impl HeapTables {
    /// What a used page costs in tables, by use.
    pub const PER_PAGE: PageTables = PageTables {
        spans: size_of::<Span>() + size_of::<u32>(),
        page_tables: size_of::<u16>(),
        mark_bits: 2 * WORDS_PER_PAGE * size_of::<u64>(),
    };
    /// All of it: 2.4 % of the page's 8 KiB.
    pub const BYTES_PER_PAGE: usize = Self::PER_PAGE.bytes();

    /// Tables for the reservation `[base, base + pages)`.
    pub fn new(base: usize, pages: Pages) -> Result<HeapTables, OutOfMemory> {
        Ok(HeapTables {
            base,
            len: pages.bytes().0,
            classes: ZeroedTable::new(pages.0)?,
            first: ZeroedTable::new(pages.0)?,
            spans: ZeroedTable::new(pages.0)?,
            alloc: ZeroedTable::new(pages.0 * WORDS_PER_PAGE)?,
            marks: ZeroedTable::new(pages.0 * WORDS_PER_PAGE)?,
        })
    }

    /// The reservation's start.
    #[inline(always)]
    pub fn base(&self) -> usize {
        self.base
    }

    /// Its length.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no reservation.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Span class + 1 of each page of the reservation; 0 where no span is.
    pub fn page_classes(&self) -> &[AtomicU16] {
        self.classes.slice(0, self.len / PAGE_SIZE)
    }

    /// The offset of an address, if it lies in the reservation: one subtraction and one compare.
    #[inline(always)]
    pub fn offset_of(&self, address: usize) -> Option<usize> {
        let offset = address.wrapping_sub(self.base);
        (offset < self.len).then_some(offset)
    }

    /// The span class of a page, if a span is there.
    #[inline(always)]
    pub fn class_of(&self, page: PageId) -> Option<SpanClass> {
        self.classes.get(page.0 as usize).load(Acquire).checked_sub(1).map(SpanClass)
    }

    /// The span that starts at `page`.
    #[inline(always)]
    pub fn span(&self, page: PageId) -> &Span {
        self.spans.get(page.0 as usize)
    }

    /// The first page of the span that holds `page`, which lies in a span.
    #[inline(always)]
    pub fn first_page(&self, page: PageId) -> PageId {
        PageId(self.first.get(page.0 as usize).load(Relaxed))
    }

    /// Publishes a span's pages with their class; `None` takes them out of use.
    pub fn set_class(&self, first: PageId, pages: Pages, class: Option<SpanClass>) {
        let encoded = class.map_or(0, |c| c.0 + 1);
        for page in first.0..first.0 + pages.0 as u32 {
            self.first.get(page as usize).store(first.0, Relaxed);
            // Released: who looks any word up may come at any time, and the class leads to the rest.
            self.classes.get(page as usize).store(encoded, Release);
        }
    }

    /// The allocation bits of a span's pages.
    #[inline(always)]
    pub fn alloc_words(&self, first: PageId, pages: Pages) -> &[AtomicU64] {
        self.alloc.slice(first.0 as usize * WORDS_PER_PAGE, pages.0 * WORDS_PER_PAGE)
    }

    /// The mark bits of a span's pages.
    #[inline(always)]
    pub fn mark_words(&self, first: PageId, pages: Pages) -> &[AtomicU64] {
        self.marks.slice(first.0 as usize * WORDS_PER_PAGE, pages.0 * WORDS_PER_PAGE)
    }

    /// Whether the slot that starts at `offset` is handed out.
    #[inline(always)]
    pub fn is_allocated(&self, offset: usize) -> bool {
        let (word, bit) = mark_word(offset);
        self.alloc.get(word).load(Acquire) & bit != 0
    }

    /// Says that the slot that starts at `offset`, which the caller owns, is handed out.
    pub fn set_allocated(&self, offset: usize) {
        let (word, bit) = mark_word(offset);
        let word = self.alloc.get(word);
        word.store(word.load(Relaxed) | bit, Release);
    }

    /// All mark bits of the reservation; see [`mark_word`].
    pub fn marks(&self) -> &[AtomicU64] {
        self.marks.slice(0, self.len / GRANULE / 64)
    }

    /// Asks the processor for what is looked up of an offset before the object there is marked.
    #[inline(always)]
    pub fn prefetch_for(&self, offset: usize) {
        let (word, _) = mark_word(offset);
        prefetch((&raw const *self.spans.get(offset >> PAGE_SHIFT)).cast());
        prefetch((&raw const *self.alloc.get(word)).cast());
        prefetch((&raw const *self.marks.get(word)).cast());
    }

    /// Whether the object that starts at `offset` is marked.
    #[inline(always)]
    pub fn is_marked(&self, offset: usize) -> bool {
        let (word, bit) = mark_word(offset);
        self.marks.get(word).load(Relaxed) & bit != 0
    }

    /// Marks the object that starts at `offset`, while others mark; true for the one who did it.
    pub fn mark_shared(&self, offset: usize) -> bool {
        let (word, bit) = mark_word(offset);
        self.marks.get(word).fetch_or(bit, Relaxed) & bit == 0
    }

    /// Marks the object that starts at `offset`, when nobody else marks; true if it was not marked.
    pub fn mark(&self, offset: usize) -> bool {
        let (word, bit) = mark_word(offset);
        let word = self.marks.get(word);
        let old = word.load(Relaxed);
        word.store(old | bit, Relaxed);
        old & bit == 0
    }
}

/// The word of a bitmap, and the bit in it, of the granule at `offset`.
#[inline(always)]
pub fn mark_word(offset: usize) -> (usize, u64) {
    let granule = offset >> GRANULE_SHIFT;
    (granule / 64, 1 << (granule % 64))
}

/// Asks the processor for a cache line; never faults.
#[inline(always)]
pub fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint that reads nothing and cannot fault.
    unsafe {
        core::arch::x86_64::_mm_prefetch(address.cast::<i8>(), core::arch::x86_64::_MM_HINT_T0);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

const _: () = assert!(GRANULE << 9 == 1 << PAGE_SHIFT, "one cache line of bits for each page");
