//! Memory that the runtime takes from the system for itself: one counter for each use.
//!
//! These counters order nothing and are read one at a time, so they are the processor's atomics under loom
//! too: no model is about them.

use crate::fatal;
use crate::sync::raw::{AtomicU64, Ordering};

/// Bytes taken from the system for one use. Never negative.
#[repr(transparent)]
pub struct SysMemStat(AtomicU64);

impl SysMemStat {
    /// Nothing taken.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `bytes`, or takes them back. Taking back more than there is aborts.
    pub fn add(&self, bytes: i64) {
        let before = self.0.fetch_add(bytes as u64, Ordering::Relaxed);
        if before.checked_add_signed(bytes).is_none() {
            underflow(before, bytes);
        }
    }

    /// The bytes taken now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for SysMemStat {
    fn default() -> Self {
        Self::new()
    }
}

#[cold]
#[inline(never)]
fn underflow(before: u64, bytes: i64) -> ! {
    fatal(format_args!("system memory statistics: {before} bytes cannot change by {bytes}"))
}

/// Memory that the runtime takes from the system for itself, by use.
///
/// A table that grows as it is touched counts by the part in use, one of fixed size whole.
#[derive(Default)]
pub struct SystemStats {
    /// Span descriptors and the lists of spans.
    pub spans: SysMemStat,
    /// The page table and the tables of the page allocator.
    pub page_tables: SysMemStat,
    /// Mark bits and allocation bits.
    pub mark_bits: SysMemStat,
    /// Caches of the Ps.
    pub mcaches: SysMemStat,
    /// The collector's own structures.
    pub gc: SysMemStat,
    /// Everything else.
    pub other: SysMemStat,
}

impl SystemStats {
    /// Nothing taken.
    pub const fn new() -> Self {
        Self {
            spans: SysMemStat::new(),
            page_tables: SysMemStat::new(),
            mark_bits: SysMemStat::new(),
            mcaches: SysMemStat::new(),
            gc: SysMemStat::new(),
            other: SysMemStat::new(),
        }
    }

    /// All of them now. Of one moment when nothing is being taken or given back.
    pub fn read(&self) -> SystemBytes {
        SystemBytes {
            spans: self.spans.get(),
            page_tables: self.page_tables.get(),
            mark_bits: self.mark_bits.get(),
            mcaches: self.mcaches.get(),
            gc: self.gc.get(),
            other: self.other.get(),
        }
    }
}

/// What a [`SystemStats`] said, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of `SystemStats`")]
pub struct SystemBytes {
    pub spans: u64,
    pub page_tables: u64,
    pub mark_bits: u64,
    pub mcaches: u64,
    pub gc: u64,
    pub other: u64,
}

impl SystemBytes {
    /// The sum over all uses.
    pub fn total(&self) -> u64 {
        let Self { spans, page_tables, mark_bits, mcaches, gc, other } = *self;
        spans + page_tables + mark_bits + mcaches + gc + other
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn adds_and_takes_back() {
        let stat = SysMemStat::new();
        stat.add(4096);
        stat.add(-1096);
        assert_eq!(stat.get(), 3000);
        stat.add(-3000);
        assert_eq!(stat.get(), 0);
    }

    #[test]
    fn total_has_each_use_once() {
        let s = SystemStats::new();
        for (i, stat) in
            [&s.spans, &s.page_tables, &s.mark_bits, &s.mcaches, &s.gc, &s.other].into_iter().enumerate()
        {
            stat.add(10i64.pow(i as u32));
        }
        assert_eq!(s.read().total(), 111_111);
        assert_eq!((s.read().spans, s.read().other), (1, 100_000));
    }
}
