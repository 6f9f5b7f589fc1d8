//! What those who mark beside the program have done, summed up while they go on; and the credit that this earns.

use besom_alloc_core::units::Bytes;
use besom_stats::sync::AtomicI64;
use besom_stats::sync::raw::{AtomicU64, Ordering::*};

/// The reports of one cycle.
///
/// - `live` and `work` are complete when nobody is active
/// - `credit` is the work of the background that no mutator has set off against its own debt yet, at least 0
pub struct Reports {
    live: AtomicU64,
    work: AtomicU64,
    credit: AtomicI64,
    assists_ns: AtomicU64,
    waits_ns: AtomicU64,
    roots: AtomicU64,
}

impl Default for Reports {
    fn default() -> Reports {
        Reports::new()
    }
}

impl Reports {
    /// Nothing is reported.
    pub fn new() -> Reports {
        Reports {
            live: AtomicU64::new(0),
            work: AtomicU64::new(0),
            credit: AtomicI64::new(0),
            assists_ns: AtomicU64::new(0),
            waits_ns: AtomicU64::new(0),
            roots: AtomicU64::new(0),
        }
    }

    /// A cycle begins.
    pub fn reset(&self) {
        self.live.store(0, Relaxed);
        self.work.store(0, Relaxed);
        self.credit.store(0, Relaxed);
        self.assists_ns.store(0, Relaxed);
        self.waits_ns.store(0, Relaxed);
        self.roots.store(0, Relaxed);
    }

    /// Somebody marked `live` bytes, and did `work`.
    pub fn add(&self, live: Bytes, work: Bytes) {
        self.live.fetch_add(live.0 as u64, Relaxed);
        self.work.fetch_add(work.0 as u64, Relaxed);
    }

    /// Bytes that were marked.
    pub fn live(&self) -> Bytes {
        Bytes(self.live.load(Relaxed) as usize)
    }

    /// Bytes of work done.
    pub fn work(&self) -> Bytes {
        Bytes(self.work.load(Relaxed) as usize)
    }

    /// The background has done `work`, of which mutators may set off as much against what they owe.
    pub fn earn(&self, work: Bytes) {
        self.credit.fetch_add(work.0 as i64, Relaxed);
    }

    /// Takes as much of the credit as there is, at most `most`.
    pub fn take_credit(&self, most: Bytes) -> Bytes {
        let most = most.0 as i64;
        let taken = self
            .credit
            .fetch_update(Relaxed, Relaxed, |credit| (credit > 0).then(|| credit - credit.min(most)));
        Bytes(taken.map_or(0, |credit| credit.min(most)) as usize)
    }

    /// A mutator has scanned so many bytes of its own roots.
    pub fn scanned_roots(&self, bytes: Bytes) {
        self.roots.fetch_add(bytes.0 as u64, Relaxed);
    }

    /// Bytes of mutators' roots.
    pub fn roots(&self) -> Bytes {
        Bytes(self.roots.load(Relaxed) as usize)
    }

    /// A mutator has waited for so long, since it had nothing to mark.
    pub fn waited(&self, ns: u64) {
        self.waits_ns.fetch_add(ns, Relaxed);
    }

    /// Nanoseconds of all these waits in this cycle.
    pub fn waits_ns(&self) -> u64 {
        self.waits_ns.load(Relaxed)
    }

    /// A mutator has assisted for so long.
    pub fn assisted(&self, ns: u64) {
        self.assists_ns.fetch_add(ns, Relaxed);
    }

    /// Nanoseconds of all assists in this cycle.
    pub fn assists_ns(&self) -> u64 {
        self.assists_ns.load(Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn credit_is_taken_once_and_never_below_nothing() {
        let reports = Reports::new();
        assert_eq!(reports.take_credit(Bytes(10)), Bytes(0));
        reports.earn(Bytes(100_000));
        let taken: usize = std::thread::scope(|scope| {
            let take = || {
                let mut sum = 0;
                loop {
                    match reports.take_credit(Bytes(7)).0 {
                        0 => return sum,
                        n => sum += n,
                    }
                }
            };
            let threads = [scope.spawn(take), scope.spawn(take)];
            threads.map(|t| t.join().expect("a thread")).iter().sum()
        });
        assert_eq!(taken, 100_000);
    }
}
