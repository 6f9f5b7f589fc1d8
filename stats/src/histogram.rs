//! A histogram of durations with a fixed relative error, that any thread may record into and read.
//!
//! Each power of two is divided into [`SUB_BUCKETS`] equal parts, as in HDR histograms; values below
//! `SUB_BUCKETS` have a bucket each. The whole of `u64` is covered, so nothing is clamped or lost.
//! The counters order nothing: they are the processor's atomics under loom too.

use core::ops::RangeInclusive;

use crate::sync::raw::{AtomicU64, Ordering};

/// Bits of the parts of one power of two. Higher: each bit doubles the memory (4 KiB now). Lower: each bit
/// doubles the error of a percentile (at most 1/8 above the true value now).
const SUB_BUCKET_BITS: u32 = 3;

/// Parts of one power of two.
pub const SUB_BUCKETS: usize = 1 << SUB_BUCKET_BITS;

/// Buckets that cover all of `u64`: the exact ones, and [`SUB_BUCKETS`] for each power of two above them.
pub const BUCKETS: usize = SUB_BUCKETS * (1 + (u64::BITS - SUB_BUCKET_BITS) as usize);

/// Where each bucket begins, and where the last one ends: bucket i holds the values in `BOUNDS[i]..BOUNDS[i + 1]`, the
/// last one `u64::MAX` too.
pub static BOUNDS: [u64; BUCKETS + 1] = {
    let mut bounds = [u64::MAX; BUCKETS + 1];
    let mut bucket = 0;
    while bucket < BUCKETS {
        bounds[bucket] = low(bucket);
        bucket += 1;
    }
    bounds
};

/// Counts of durations in nanoseconds. All zero bits are an empty one.
///
/// `count() == sum of the buckets`; value v is in bucket i if and only if `bounds(i).contains(&v)`. `sum` wraps.
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    /// An empty histogram.
    pub const fn new() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS], sum: AtomicU64::new(0) }
    }

    /// Counts one duration.
    pub fn record(&self, ns: u64) {
        self.counts[index(ns)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(ns, Ordering::Relaxed);
    }

    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.counts().sum()
    }

    /// Their sum; while others record, read for itself.
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }

    /// The count of each bucket, in ascending order.
    pub fn counts(&self) -> impl Iterator<Item = u64> + '_ {
        self.counts.iter().map(|c| c.load(Ordering::Relaxed))
    }

    /// A duration that `percent` % of the recorded ones (at least one) do not exceed: the upper bound of the
    /// bucket in which that rank falls, so at most 1/8 too high. 0 if nothing was recorded.
    pub fn percentile(&self, percent: f64) -> u64 {
        let count = self.count();
        if count == 0 {
            return 0;
        }
        let rank = ((count as f64 * percent.clamp(0.0, 100.0) / 100.0).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        // Counts only grow, so this pass sees at least what `count` saw, and reaches the rank.
        for (i, c) in self.counts.iter().enumerate() {
            seen += c.load(Ordering::Relaxed);
            if seen >= rank {
                return *Self::bounds(i).end();
            }
        }
        u64::MAX
    }

    /// The values of bucket `bucket`, which is below [`BUCKETS`].
    pub fn bounds(bucket: usize) -> RangeInclusive<u64> {
        let end = BOUNDS[bucket + 1];
        BOUNDS[bucket]..=if bucket + 1 == BUCKETS { end } else { end - 1 }
    }

    /// The buckets that are not empty, in ascending order, with their bounds.
    pub fn buckets(&self) -> impl Iterator<Item = (RangeInclusive<u64>, u64)> + '_ {
        self.counts.iter().enumerate().filter_map(|(i, c)| match c.load(Ordering::Relaxed) {
            0 => None,
            n => Some((Self::bounds(i), n)),
        })
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// The least value of a bucket.
const fn low(bucket: usize) -> u64 {
    let (power, sub) = (bucket / SUB_BUCKETS, (bucket % SUB_BUCKETS) as u64);
    if power == 0 { sub } else { (SUB_BUCKETS as u64 + sub) << (power - 1) }
}

/// The bucket of a value.
fn index(value: u64) -> usize {
    if value < SUB_BUCKETS as u64 {
        return value as usize;
    }
    let shift = value.ilog2() - SUB_BUCKET_BITS;
    // value >> shift is in SUB_BUCKETS..2 * SUB_BUCKETS: its top bit carries into the power.
    SUB_BUCKETS * shift as usize + (value >> shift) as usize
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_cover_u64_without_gap_or_overlap() {
        let mut next = 0u128;
        for (i, low) in BOUNDS[..BUCKETS].iter().enumerate() {
            let bounds = Histogram::bounds(i);
            assert_eq!(u128::from(*bounds.start()), next, "bucket {i}");
            assert!(bounds.end() >= bounds.start());
            assert_eq!(low, bounds.start());
            assert_eq!((index(*bounds.start()), index(*bounds.end())), (i, i));
            next = u128::from(*bounds.end()) + 1;
        }
        assert_eq!(next, 1 << 64);
        assert_eq!(BOUNDS[BUCKETS], u64::MAX);
    }

    #[test]
    fn empty_and_extremes() {
        let h = Histogram::new();
        assert_eq!((h.count(), h.percentile(50.0)), (0, 0));
        h.record(0);
        h.record(u64::MAX);
        assert_eq!((h.count(), h.percentile(0.0), h.percentile(50.0)), (2, 0, 0));
        assert_eq!(
            (h.percentile(50.1), h.percentile(100.0), h.percentile(1e9)),
            (u64::MAX, u64::MAX, u64::MAX)
        );
        assert_eq!(h.percentile(f64::NAN), 0);
    }

    fn any_scale() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0u32..64).prop_map(|(v, s)| v >> s)
    }

    proptest! {
        #[test]
        fn percentile_against_the_sorted_values(
            mut values in prop::collection::vec(any_scale(), 1..200),
            percent in 0.0f64..100.0,
        ) {
            let h = Histogram::new();
            values.iter().for_each(|&v| h.record(v));
            values.sort_unstable();
            let n = values.len();
            prop_assert_eq!(h.count(), n as u64);
            prop_assert_eq!(h.sum(), values.iter().fold(0u64, |sum, v| sum.wrapping_add(*v)));
            prop_assert_eq!(h.counts().sum::<u64>(), n as u64);
            let rank = ((n as f64 * percent / 100.0).ceil() as usize).clamp(1, n);
            let (exact, got) = (values[rank - 1], h.percentile(percent));
            prop_assert!(got >= exact && got - exact <= exact / SUB_BUCKETS as u64, "{} for {}", got, exact);
            let buckets: Vec<_> = h.buckets().collect();
            prop_assert_eq!(buckets.iter().map(|b| b.1).sum::<u64>(), n as u64);
            for (bounds, count) in buckets {
                prop_assert_eq!(values.iter().filter(|v| bounds.contains(v)).count() as u64, count);
            }
        }
    }
}
