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
#[derive(Default)]
pub struct SystemStats {
    /// Span descriptors and the tables of spans.
    pub spans: SysMemStat,
    /// Tables of the page allocator and of the heap's regions.
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

    /// The sum over all uses. Exact when nothing is being taken or given back.
    pub fn total(&self) -> u64 {
        let Self { spans, page_tables, mark_bits, mcaches, gc, other } = self;
        [spans, page_tables, mark_bits, mcaches, gc, other].into_iter().map(SysMemStat::get).sum()
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
        assert_eq!(s.total(), 111_111);
    }
}
