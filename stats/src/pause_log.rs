//! The last pauses, with the time each ended, and totals over all of them; readable from any thread.
//!
//! A pause is recorded by the thread that stopped the world, and must not wait for a reader. So readers take no
//! lock: a slot names its pause before it is filled, and a reader looks at the name after it has copied the rest.

use core::array::from_fn;

use crate::sync::{AtomicU64, Held, Mutex, Ordering, fence, hold, lock};

/// Pauses remembered. Higher: memory (24 bytes each). Lower: who polls seldom misses pauses.
#[cfg(not(loom))]
pub const PAUSES: usize = 256;
/// Pauses remembered in a loom model.
#[cfg(loom)]
pub const PAUSES: usize = 2;

/// One pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// How long the world was stopped, in nanoseconds.
    pub ns: u64,
    /// When it was started again, in nanoseconds since the Unix epoch.
    pub end_unix_ns: u64,
}

/// Pause number i (from 0) has its place in slot i modulo [`PAUSES`]. It is there from when `count > i` until
/// `number` is that of a later one.
struct Slot {
    number: AtomicU64,
    ns: AtomicU64,
    end_unix_ns: AtomicU64,
}

/// The log.
///
/// After each `record`: `count` is the number of pauses, `total` their sum, `max` the longest stop; every pause whose
/// number is in `count.saturating_sub(PAUSES)..count` is in its slot.
pub struct PauseLog {
    slots: [Slot; PAUSES],
    count: AtomicU64,
    total: AtomicU64,
    max: AtomicU64,
    /// The number of the next pause. Held while one is recorded; never by readers.
    next: Mutex<u64>,
}

impl PauseLog {
    /// An empty log.
    pub fn new() -> Self {
        Self {
            slots: from_fn(|_| Slot {
                number: AtomicU64::new(0),
                ns: AtomicU64::new(0),
                end_unix_ns: AtomicU64::new(0),
            }),
            count: AtomicU64::new(0),
            total: AtomicU64::new(0),
            max: AtomicU64::new(0),
            next: Mutex::new(0),
        }
    }

    /// Records a pause that ended at `end_unix_ns`: `ns` nanoseconds in sum over its stops, and the longest of them.
    pub fn record(&self, ns: u64, longest: u64, end_unix_ns: u64) {
        let mut next = lock(&self.next);
        let number = *next;
        *next += 1;
        let slot = &self.slots[number as usize % PAUSES];
        slot.number.store(number, Ordering::Relaxed);
        // With the reader's fence: who sees a field of this pause sees this number, or a later one.
        fence(Ordering::Release);
        slot.ns.store(ns, Ordering::Relaxed);
        slot.end_unix_ns.store(end_unix_ns, Ordering::Relaxed);
        self.total.fetch_add(ns, Ordering::Relaxed);
        // Release: who sees this longest pause sees it in the total.
        self.max.fetch_max(longest, Ordering::Release);
        // Release: who sees this count sees at least these totals, and the slot filled.
        self.count.store(number + 1, Ordering::Release);
    }

    /// Keeps writers outside.
    pub fn hold(&self) -> Held<'_> {
        hold(&self.next)
    }

    /// How many pauses there were. Read before the totals, it counts no pause that they miss.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// The sum of all pauses, in nanoseconds.
    pub fn total_ns(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// The longest pause, in nanoseconds. Read before the total, it is no more than that.
    pub fn max_ns(&self) -> u64 {
        self.max.load(Ordering::Acquire)
    }

    /// The last pause, if there was one.
    pub fn last(&self) -> Option<Pause> {
        self.recent().next()
    }

    /// The last pauses, newest first, at most [`PAUSES`]. One that is overwritten meanwhile is left out.
    pub fn recent(&self) -> impl Iterator<Item = Pause> + '_ {
        let count = self.count();
        (count.saturating_sub(PAUSES as u64)..count).rev().filter_map(|number| self.pause(number))
    }

    /// Pause number `number`, which is below `count`, unless its slot holds a later one by now.
    fn pause(&self, number: u64) -> Option<Pause> {
        let slot = &self.slots[number as usize % PAUSES];
        let pause = Pause {
            ns: slot.ns.load(Ordering::Relaxed),
            end_unix_ns: slot.end_unix_ns.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        (slot.number.load(Ordering::Relaxed) == number).then_some(pause)
    }
}

impl Default for PauseLog {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn totals_and_order() {
        let log = PauseLog::new();
        assert_eq!((log.count(), log.total_ns(), log.max_ns(), log.last()), (0, 0, 0, None));
        for (ns, end) in [(30, 100), (70, 200), (50, 300)] {
            log.record(ns, ns, end);
        }
        assert_eq!((log.count(), log.total_ns(), log.max_ns()), (3, 150, 70));
        let recent: Vec<_> = log.recent().map(|p| (p.ns, p.end_unix_ns)).collect();
        assert_eq!(recent, [(50, 300), (70, 200), (30, 100)]);
        assert_eq!(log.last(), Some(Pause { ns: 50, end_unix_ns: 300 }));
    }

    #[test]
    fn the_ring_forgets_the_oldest() {
        let log = PauseLog::new();
        let n = PAUSES as u64 + 10;
        for i in 0..n {
            log.record(i, i, 1000 + i);
        }
        let recent: Vec<_> = log.recent().collect();
        assert_eq!(recent.len(), PAUSES);
        for (p, i) in recent.iter().zip((0..n).rev()) {
            assert_eq!((p.ns, p.end_unix_ns), (i, 1000 + i));
        }
        assert_eq!((log.count(), log.total_ns(), log.max_ns()), (n, n * (n - 1) / 2, n - 1));
    }

    #[test]
    fn a_reader_never_sees_half_a_pause() {
        use std::sync::Barrier;
        use std::sync::atomic::{AtomicBool, Ordering};
        let (log, done, start) = (PauseLog::new(), AtomicBool::new(false), Barrier::new(3));
        let read = || {
            start.wait();
            let mut seen = 0u64;
            loop {
                let last = done.load(Ordering::Acquire);
                let count = log.count();
                assert!(log.total_ns() >= count.saturating_sub(1) * count / 2);
                let mut newer = u64::MAX;
                for p in log.recent() {
                    assert_eq!(p.end_unix_ns, p.ns ^ 0x5555);
                    assert!(p.ns < newer);
                    newer = p.ns;
                    seen += 1;
                }
                if last {
                    return seen;
                }
            }
        };
        std::thread::scope(|s| {
            let readers = [s.spawn(read), s.spawn(read)];
            start.wait();
            for i in 0..200_000u64 {
                log.record(i, i, i ^ 0x5555);
            }
            done.store(true, Ordering::Release);
            for r in readers {
                assert!(r.join().expect("reader") >= PAUSES as u64);
            }
        });
        assert_eq!(log.count(), 200_000);
    }
}
