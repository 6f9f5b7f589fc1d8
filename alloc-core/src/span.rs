//! A span: some pages cut into slots of one size, and the state that says who may touch it.
//!
//! Who may touch it is said by its `sweepgen`, see [`crate::sweep_protocol`].

use crate::span_class::SpanClass;
use crate::sweep_protocol::SweepGen;
use crate::units::{Bytes, Pages};
use besom_stats::sync::raw::{AtomicU32, AtomicU64, Ordering::*};

/// One span; 64 bytes, in a flat array indexed by the span's first page.
///
/// - `slots * slot_bytes <= pages * PAGE_SIZE`, and for a large object `slots == 1`
/// - `alloc_count == popcount(alloc bits)`; of a cached span too: a run's bits are set when it is handed out
/// - `counted <= alloc_count` is what the statistics have of it (allocated and not freed); equal unless it is cached
/// - every slot below `free_index` is allocated, or was when the index passed it (with late reuse: in an earlier cycle,
///   perhaps)
/// - `index_of(offset) == offset / slot_bytes` for every offset inside
///
/// All fields but `sweepgen` and `next` are written only by the span's owner as the table of sweep generations says, or
/// before its pages' class is published. They are atomic, relaxed, because readers that only look an
/// address up may come at any time.
#[repr(C, align(64))]
pub struct Span {
    pub(crate) sweepgen: SweepGen,
    /// Link of the set that holds the span; see `span_set`.
    pub(crate) next: AtomicU32,
    pages: AtomicU32,
    class: AtomicU32,
    slot_bytes: AtomicU32,
    slots: AtomicU32,
    magic: AtomicU32,
    alloc_count: AtomicU32,
    free_index: AtomicU32,
    /// 1: slots that are free may hold old bytes.
    needs_zero: AtomicU32,
    /// The layout of a large typed object.
    layout: AtomicU32,
    counted: AtomicU32,
    /// Bytes of a large object as they were asked for, rounded up to words.
    large_bytes: AtomicU64,
}

// A model's atomics are larger, and are never mapped.
#[cfg(not(loom))]
const _: () = assert!(size_of::<Span>() == 64);

/// What a new span is made of.
#[derive(Clone, Copy, Debug)]
pub struct SpanShape {
    /// Its pages.
    pub pages: Pages,
    /// Its class.
    pub class: SpanClass,
    /// Bytes of a slot; of a large object, the whole of its pages.
    pub slot_bytes: usize,
    /// Slots; 1 for a large object.
    pub slots: u32,
    /// Magic number for division by `slot_bytes`; 0 where there is one slot.
    pub magic: u32,
    /// All its memory is known to be zero.
    pub zeroed: bool,
}

impl Span {
    /// Makes a span of the entry, owned by the caller, swept, with nothing allocated.
    pub fn init(&self, shape: &SpanShape, generation: u32) {
        self.pages.store(shape.pages.0 as u32, Relaxed);
        self.class.store(u32::from(shape.class.0), Relaxed);
        self.slot_bytes.store(u32::try_from(shape.slot_bytes).unwrap_or(u32::MAX), Relaxed);
        self.slots.store(shape.slots, Relaxed);
        self.magic.store(shape.magic, Relaxed);
        self.alloc_count.store(0, Relaxed);
        self.counted.store(0, Relaxed);
        self.free_index.store(0, Relaxed);
        self.needs_zero.store(u32::from(!shape.zeroed), Relaxed);
        self.layout.store(0, Relaxed);
        self.large_bytes.store(0, Relaxed);
        self.sweepgen.set(generation);
    }

    /// Pages of the span.
    #[inline(always)]
    pub fn pages(&self) -> Pages {
        Pages(self.pages.load(Relaxed) as usize)
    }

    /// Its span class.
    #[inline(always)]
    pub fn class(&self) -> SpanClass {
        SpanClass(self.class.load(Relaxed) as u16)
    }

    /// Bytes of a slot (of a large object, all its pages).
    #[inline(always)]
    pub fn slot_bytes(&self) -> usize {
        if self.magic.load(Relaxed) == 0 {
            self.pages().bytes().0
        } else {
            self.slot_bytes.load(Relaxed) as usize
        }
    }

    /// Number of slots.
    #[inline(always)]
    pub fn slots(&self) -> u32 {
        self.slots.load(Relaxed)
    }

    /// Whether it holds one large object.
    #[inline(always)]
    pub fn is_large(&self) -> bool {
        self.magic.load(Relaxed) == 0
    }

    /// The slot that holds the byte at `offset` from the span's start: at most `slots` (the tail).
    #[inline(always)]
    pub fn slot_at(&self, offset: usize) -> u32 {
        ((offset as u64 * u64::from(self.magic.load(Relaxed))) >> 32) as u32
    }

    /// Slots that are handed out.
    #[inline(always)]
    pub fn alloc_count(&self) -> u32 {
        self.alloc_count.load(Relaxed)
    }

    /// Slots that can still be handed out.
    #[inline(always)]
    pub fn free_count(&self) -> u32 {
        self.slots() - self.alloc_count()
    }

    /// Slots that are handed out and that the statistics have as such.
    pub fn counted(&self) -> u32 {
        self.counted.load(Relaxed)
    }

    /// Slots that were handed out since the statistics heard of the span; they hear of them now.
    pub fn take_uncounted(&self) -> u32 {
        let new = self.alloc_count() - self.counted();
        self.counted.store(self.alloc_count(), Relaxed);
        new
    }

    /// The statistics hear of slots that were freed.
    pub(crate) fn count_freed(&self, freed: u32) {
        self.counted.store(self.counted() - freed, Relaxed);
    }

    pub(crate) fn set_alloc_count(&self, n: u32) {
        self.alloc_count.store(n, Relaxed);
    }

    pub(crate) fn free_index(&self) -> u32 {
        self.free_index.load(Relaxed)
    }

    pub(crate) fn set_free_index(&self, index: u32) {
        self.free_index.store(index, Relaxed);
    }

    pub(crate) fn needs_zero(&self) -> bool {
        self.needs_zero.load(Relaxed) != 0
    }

    pub(crate) fn set_needs_zero(&self) {
        self.needs_zero.store(1, Relaxed);
    }

    /// The layout and size of a large typed object.
    pub fn set_large(&self, bytes: Bytes, layout: u32) {
        self.large_bytes.store(bytes.0 as u64, Relaxed);
        self.layout.store(layout, Relaxed);
    }

    /// The layout of a large object.
    pub fn layout(&self) -> u32 {
        self.layout.load(Relaxed)
    }

    /// The bytes of a large object that the collector looks at.
    #[inline(always)]
    pub fn large_bytes(&self) -> Bytes {
        Bytes(self.large_bytes.load(Relaxed) as usize)
    }

    pub(crate) fn set_class(&self, class: SpanClass) {
        self.class.store(u32::from(class.0), Relaxed);
    }

    /// The sweep generation.
    pub fn sweepgen(&self) -> u32 {
        self.sweepgen.get()
    }

    /// Hands a swept span, which the caller owns, to a cache.
    pub fn cache(&self, generation: u32) {
        self.sweepgen.cache(generation);
    }

    /// Takes it back from the cache, swept.
    pub fn uncache(&self, generation: u32) {
        self.sweepgen.uncache(generation);
    }
}
