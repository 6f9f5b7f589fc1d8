//! Models of marks that are held back: once nobody is active, all that was marked is set in the bitmap, and what two workers marked
//! both is counted one time.
//!
//! `Held` and `Termination` are the code as it stands; around them a worker's coming and going are told again, without a pile. The
//! objects lie in two words of the bitmap, and have no pointers.

#![cfg(loom)]

use besom_gc::mark::termination::Termination;
use besom_gc::mark::worker::held::Held;
use besom_loom_tests::{model, start};
use besom_stats::sync::{AtomicU64, AtomicUsize, Ordering::*};
use loom::sync::Arc;

#[derive(Default)]
struct Toy {
    termination: Termination,
    marks: [AtomicU64; 2],
    /// Objects that were marked, as reported, and that were marked twice.
    live: AtomicUsize,
    twice: AtomicUsize,
}

impl Toy {
    fn set(&self, index: usize, bits: u64) {
        let twice = self.marks[index].fetch_or(bits, Relaxed) & bits;
        self.twice.fetch_add(twice.count_ones() as usize, Relaxed);
    }

    /// A worker that is active marks objects, each the bit of a word, and leaves.
    fn work(&self, objects: &[(usize, u64)]) {
        let (mut held, mut live) = (Held::default(), 0usize);
        for &(index, bit) in objects {
            if self.marks[index].load(Relaxed) & bit == 0 {
                live += usize::from(held.mark(index, bit, |index, bits| self.set(index, bits)));
            }
        }
        held.set_all(|index, bits| self.set(index, bits));
        self.live.fetch_add(live, Relaxed);
        self.termination.leave();
    }

    fn is_all_marked(&self, all: [u64; 2]) {
        let marks = [0, 1].map(|index| self.marks[index].load(Relaxed));
        assert_eq!(marks, all, "a mark is lost");
        let objects = all.iter().map(|bits| bits.count_ones() as usize).sum::<usize>();
        assert_eq!(self.live.load(Relaxed) - self.twice.load(Relaxed), objects, "not all is counted once");
    }
}

/// Two mark the same objects, while the leader looks whether it is over.
#[test]
fn two_mark_the_same() {
    model(4, || {
        let toy = Arc::new(Toy::default());
        let workers = [[(0, 1), (0, 2), (1, 4)], [(0, 2), (1, 4), (0, 8)]].map(|objects| {
            toy.termination.join();
            start(&toy, move |toy| toy.work(&objects))
        });
        if toy.termination.is_quiet(|| true) {
            toy.is_all_marked([0b1011, 4]);
        }
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert!(toy.termination.is_quiet(|| true));
        toy.is_all_marked([0b1011, 4]);
    });
}
