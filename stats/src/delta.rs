//! The record of heap statistics: what one generation of the ring adds up, and what a reader is given.
//!
//! A record is a *difference*: merging is addition, field by field. One generation's share of a balance may be negative
//! (pages given back by one P after another took them), so every sum wraps; only the total is meaningful.

/// Number of small size classes, class 0 (large objects, always zero here) included.
#[cfg(not(loom))]
pub const SIZE_CLASSES: usize = 67;
/// Number of small size classes in a loom model: every counter is a loom object, and costs in each execution.
#[cfg(loom)]
pub const SIZE_CLASSES: usize = 2;

/// Byte balances of a record, which may fall; the other fields are counters.
pub(crate) const BALANCES: usize = 7;

/// Heap statistics that agree with each other.
///
/// In every snapshot, for each class c:
/// - `small_alloc_count[c] >= small_free_count[c]`
/// - `large_alloc >= large_free`, `large_alloc_count >= large_free_count`
/// - `in_heap >= `[`live_bytes`](Self::live_bytes)
/// - `committed + released == mapped`
///
/// No counter is smaller than in an earlier snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapStatsDelta {
    /// Bytes of memory that is backed: mapped and not given back to the system.
    pub committed: i64,
    /// Bytes given back to the system while their addresses are kept.
    pub released: i64,
    /// Bytes of pages in spans that hold objects.
    pub in_heap: i64,
    /// Bytes of pages in spans that hold stacks.
    pub in_stacks: i64,
    /// Bytes of pages in spans that hold the collector's work buffers.
    pub in_work_bufs: i64,
    /// Bytes of pages in spans that hold object metadata.
    pub in_metadata: i64,
    /// Bytes whose addresses may be touched: taken from the reservation, or mapped for work buffers.
    pub mapped: i64,
    /// Bytes of large objects allocated, ever.
    pub large_alloc: u64,
    /// Large objects allocated, ever.
    pub large_alloc_count: u64,
    /// Bytes of large objects freed, ever.
    pub large_free: u64,
    /// Large objects freed, ever.
    pub large_free_count: u64,
    /// Small objects allocated, ever, by size class.
    pub small_alloc_count: [u64; SIZE_CLASSES],
    /// Small objects freed, ever, by size class.
    pub small_free_count: [u64; SIZE_CLASSES],
}

impl HeapStatsDelta {
    /// The record in which nothing has happened.
    pub const ZERO: Self = Self {
        committed: 0,
        released: 0,
        in_heap: 0,
        in_stacks: 0,
        in_work_bufs: 0,
        in_metadata: 0,
        mapped: 0,
        large_alloc: 0,
        large_alloc_count: 0,
        large_free: 0,
        large_free_count: 0,
        small_alloc_count: [0; SIZE_CLASSES],
        small_free_count: [0; SIZE_CLASSES],
    };

    /// Adds `other`, field by field, wrapping.
    pub fn merge(&mut self, other: &Self) {
        for (a, b) in self.signed_mut().into_iter().zip(other.signed()) {
            *a = a.wrapping_add(b);
        }
        for (a, b) in self.large_mut().into_iter().zip(other.large()) {
            *a = a.wrapping_add(b);
        }
        for (a, b) in self.small_alloc_count.iter_mut().zip(other.small_alloc_count) {
            *a = a.wrapping_add(b);
        }
        for (a, b) in self.small_free_count.iter_mut().zip(other.small_free_count) {
            *a = a.wrapping_add(b);
        }
    }

    /// Small objects allocated, ever, over all classes.
    pub fn small_allocs(&self) -> u64 {
        sum(self.small_alloc_count)
    }

    /// Small objects freed, ever, over all classes.
    pub fn small_frees(&self) -> u64 {
        sum(self.small_free_count)
    }

    /// Objects allocated, ever, large and small (tiny ones count as the blocks they share).
    pub fn alloc_count(&self) -> u64 {
        self.small_allocs().wrapping_add(self.large_alloc_count)
    }

    /// Objects freed, ever, large and small.
    pub fn free_count(&self) -> u64 {
        self.small_frees().wrapping_add(self.large_free_count)
    }

    /// Objects that are allocated and not freed.
    pub fn live_count(&self) -> u64 {
        self.alloc_count().wrapping_sub(self.free_count())
    }

    /// Bytes allocated, ever; `size` is the slot size of a class in bytes.
    pub fn alloc_bytes(&self, size: impl Fn(usize) -> u64) -> u64 {
        weighted(&self.small_alloc_count, size).wrapping_add(self.large_alloc)
    }

    /// Bytes freed, ever; `size` is the slot size of a class in bytes.
    pub fn free_bytes(&self, size: impl Fn(usize) -> u64) -> u64 {
        weighted(&self.small_free_count, size).wrapping_add(self.large_free)
    }

    /// Bytes allocated and not freed; `size` is the slot size of a class in bytes.
    pub fn live_bytes(&self, size: impl Fn(usize) -> u64) -> u64 {
        self.alloc_bytes(&size).wrapping_sub(self.free_bytes(&size))
    }

    /// The byte balances, in the order of declaration.
    pub(crate) fn signed(&self) -> [i64; BALANCES] {
        let Self { committed, released, in_heap, in_stacks, in_work_bufs, in_metadata, mapped, .. } = *self;
        [committed, released, in_heap, in_stacks, in_work_bufs, in_metadata, mapped]
    }

    /// The byte balances, in the order of declaration.
    pub(crate) fn signed_mut(&mut self) -> [&mut i64; BALANCES] {
        [
            &mut self.committed,
            &mut self.released,
            &mut self.in_heap,
            &mut self.in_stacks,
            &mut self.in_work_bufs,
            &mut self.in_metadata,
            &mut self.mapped,
        ]
    }

    /// The counters of large objects, in the order of declaration.
    pub(crate) fn large(&self) -> [u64; 4] {
        [self.large_alloc, self.large_alloc_count, self.large_free, self.large_free_count]
    }

    /// The counters of large objects, in the order of declaration.
    pub(crate) fn large_mut(&mut self) -> [&mut u64; 4] {
        [&mut self.large_alloc, &mut self.large_alloc_count, &mut self.large_free, &mut self.large_free_count]
    }
}

impl Default for HeapStatsDelta {
    fn default() -> Self {
        Self::ZERO
    }
}

fn sum(counts: [u64; SIZE_CLASSES]) -> u64 {
    counts.into_iter().fold(0, u64::wrapping_add)
}

fn weighted(counts: &[u64; SIZE_CLASSES], size: impl Fn(usize) -> u64) -> u64 {
    counts.iter().enumerate().fold(0, |bytes, (class, &n)| bytes.wrapping_add(n.wrapping_mul(size(class))))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A record in which every field differs from every other.
    fn distinct(seed: u64) -> HeapStatsDelta {
        let mut d = HeapStatsDelta::ZERO;
        for (i, f) in d.signed_mut().into_iter().enumerate() {
            *f = (seed * 1000 + i as u64) as i64;
        }
        for (i, f) in d.large_mut().into_iter().enumerate() {
            *f = seed * 2000 + i as u64;
        }
        for class in 0..SIZE_CLASSES {
            d.small_alloc_count[class] = seed * 3000 + class as u64;
            d.small_free_count[class] = seed * 4000 + class as u64;
        }
        d
    }

    #[test]
    fn merge_adds_each_field_to_itself() {
        let (a, b) = (distinct(1), distinct(7));
        let mut m = a;
        m.merge(&b);
        assert_eq!(m.committed, a.committed + b.committed);
        assert_eq!(m.released, a.released + b.released);
        assert_eq!(m.in_heap, a.in_heap + b.in_heap);
        assert_eq!(m.in_stacks, a.in_stacks + b.in_stacks);
        assert_eq!(m.in_work_bufs, a.in_work_bufs + b.in_work_bufs);
        assert_eq!(m.in_metadata, a.in_metadata + b.in_metadata);
        assert_eq!(m.mapped, a.mapped + b.mapped);
        assert_eq!(m.large_alloc, a.large_alloc + b.large_alloc);
        assert_eq!(m.large_alloc_count, a.large_alloc_count + b.large_alloc_count);
        assert_eq!(m.large_free, a.large_free + b.large_free);
        assert_eq!(m.large_free_count, a.large_free_count + b.large_free_count);
        for c in 0..SIZE_CLASSES {
            assert_eq!(m.small_alloc_count[c], a.small_alloc_count[c] + b.small_alloc_count[c]);
            assert_eq!(m.small_free_count[c], a.small_free_count[c] + b.small_free_count[c]);
        }
    }

    #[test]
    fn a_negative_share_cancels() {
        let mut total = HeapStatsDelta::ZERO;
        total.merge(&HeapStatsDelta { in_heap: -8192, ..HeapStatsDelta::ZERO });
        total.merge(&HeapStatsDelta { in_heap: 16384, ..HeapStatsDelta::ZERO });
        assert_eq!(total.in_heap, 8192);
    }

    #[test]
    fn derived_sums() {
        let mut d = HeapStatsDelta::ZERO;
        d.small_alloc_count[1] = 10;
        d.small_free_count[1] = 4;
        d.small_alloc_count[66] = 2;
        d.large_alloc = 40960;
        d.large_alloc_count = 1;
        let size = |class| if class == 1 { 16 } else { 32768 };
        assert_eq!((d.alloc_count(), d.free_count(), d.live_count()), (13, 4, 9));
        assert_eq!(d.alloc_bytes(size), 160 + 65536 + 40960);
        assert_eq!(d.free_bytes(size), 64);
        assert_eq!(d.live_bytes(size), 96 + 65536 + 40960);
    }
}
