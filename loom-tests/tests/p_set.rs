//! Models of the set of Ps: a P joins and leaves beside a reader of the statistics, whose totals miss nothing.
//!
//! The set and the ring are those of the library; a P is its sequence number.

#![cfg(loom)]

use besom::p_set::PSet;
use besom_loom_tests::{model, start};
use besom_stats::{ConsistentHeapStats, HeapStatsDelta, StatsSeq};
use loom::sync::Arc;

struct Toy {
    stats: ConsistentHeapStats,
    ps: PSet<StatsSeq>,
}

impl Toy {
    /// A heap of which these Ps exist.
    fn new(ps: &[u32]) -> Arc<Toy> {
        let toy = Toy { stats: ConsistentHeapStats::new(), ps: PSet::new(4).expect("memory") };
        ps.iter().for_each(|&p| toy.ps.insert(p, Box::new(StatsSeq::new())));
        Arc::new(toy)
    }

    /// P `p` counts an object and its page, in one guard.
    fn count(&self, p: u32) {
        // SAFETY: the P exists while its holder, the caller, has not removed it.
        let seq = unsafe { &*self.ps.get(p) };
        let guard = self.stats.writer(seq).acquire();
        guard.in_heap(1);
        guard.small_alloc(1, 1);
    }

    fn leave(&self, p: u32) {
        // SAFETY: the caller holds it.
        drop(unsafe { self.ps.remove(p) });
    }

    fn read(&self) -> HeapStatsDelta {
        self.stats.read(self.ps.pin().iter())
    }

    /// The objects in a snapshot, which is not torn.
    fn objects(&self) -> u64 {
        let snapshot = self.read();
        assert_eq!(snapshot.in_heap as u64, snapshot.small_alloc_count[1], "torn");
        snapshot.small_alloc_count[1]
    }

    /// Two reads beside the others: the second misses nothing that the first had.
    fn read_twice(&self, most: u64) {
        let first = self.objects();
        let second = self.objects();
        assert!(first <= second && second <= most, "{first} then {second}, of {most}");
    }
}

#[test]
fn a_p_joins_writes_and_leaves_between_two_reads() {
    model(3, || {
        let toy = Toy::new(&[0]);
        let other = start(&toy, |toy| {
            toy.ps.insert(1, Box::new(StatsSeq::new()));
            toy.count(1);
            toy.leave(1);
        });
        let stays = start(&toy, |toy| toy.count(0));
        toy.read_twice(2);
        other.join().unwrap();
        stays.join().unwrap();
        assert_eq!(toy.objects(), 2);
    });
}

/// A number is used again: its next P starts with a sequence of its own.
#[test]
fn a_p_goes_and_its_number_comes_back() {
    model(3, || {
        let toy = Toy::new(&[0]);
        let other = start(&toy, |toy| {
            toy.count(0);
            toy.leave(0);
            toy.ps.insert(0, Box::new(StatsSeq::new()));
            toy.count(0);
        });
        toy.read_twice(2);
        other.join().unwrap();
        assert_eq!(toy.objects(), 2);
    });
}

/// While the set is pinned nobody's P goes, so a look at each is a look at what exists.
#[test]
fn a_pinned_set_keeps_its_ps() {
    model(3, || {
        let toy = Toy::new(&[0, 1]);
        let leavers = [0, 1].map(|p| start(&toy, move |toy| toy.leave(p)));
        {
            let pinned = toy.ps.pin();
            let first = pinned.iter().count();
            loom::thread::yield_now();
            assert_eq!(pinned.iter().count(), first, "one went meanwhile");
        }
        leavers.into_iter().for_each(|l| l.join().unwrap());
        assert_eq!(toy.ps.pin().iter().count(), 0);
    });
}
