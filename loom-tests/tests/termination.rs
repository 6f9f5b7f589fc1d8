//! Models of mark termination with work that is shared: no worker leaves before all is scanned, and all leave.
//!
//! The workers are as in `mark::worker`, with a locked stack of numbers for the pile; a look at it takes no lock, so
//! that it orders nothing (the pile's own does), and may be out of date. The work is a tree: number n leads to 2n+1 and 2n+2.

#![cfg(loom)]

use besom_gc::mark::termination::Termination;
use besom_loom_tests::{Patience, model, start};
use besom_stats::sync::{AccessCheck, AtomicUsize, Mutex, Ordering::Relaxed, lock, raw};
use loom::sync::Arc;

#[derive(Default)]
struct Pile {
    items: Mutex<Vec<usize>>,
    len: AtomicUsize,
}

impl Pile {
    fn with<R>(&self, f: impl FnOnce(&mut Vec<usize>) -> R) -> R {
        let mut items = lock(&self.items);
        let result = f(&mut items);
        self.len.store(items.len(), Relaxed);
        result
    }

    fn is_empty(&self) -> bool {
        self.len.load(Relaxed) == 0
    }
}

struct Toy<const N: usize> {
    termination: Termination,
    pile: Pile,
    /// Touched by the scan of its number; who leaves may look.
    scanned: [AccessCheck; N],
    scans: [raw::AtomicU32; N],
}

impl<const N: usize> Toy<N> {
    fn new() -> Arc<Self> {
        Arc::new(Toy {
            termination: Termination::new(),
            pile: Pile::default(),
            scanned: core::array::from_fn(|_| AccessCheck::default()),
            scans: core::array::from_fn(|_| raw::AtomicU32::new(0)),
        })
    }

    fn scan(&self, n: usize, stack: &mut Vec<usize>) {
        self.scanned[n].exclusive();
        assert_eq!(self.scans[n].fetch_add(1, Relaxed), 0, "{n} is scanned twice");
        stack.extend((2 * n + 1..=2 * n + 2).filter(|&child| child < N));
    }

    fn drain(&self, mut stack: Vec<usize>) {
        loop {
            while let Some(n) = stack.pop() {
                self.scan(n, &mut stack);
                if stack.len() > 1 && self.termination.wanted() && self.pile.is_empty() {
                    self.pile.with(|pile| pile.push(stack.remove(0)));
                }
            }
            let patience = Patience::default();
            let looks = || {
                let found = !self.pile.is_empty();
                if found {
                    patience.found()
                } else {
                    patience.in_vain()
                }
                found
            };
            match self.termination.find(looks, || self.pile.with(Vec::pop)) {
                Some(n) => stack.push(n),
                None => return self.all_scanned(),
            }
        }
    }

    fn help(&self) {
        self.termination.join();
        self.drain(Vec::new());
    }

    fn all_scanned(&self) {
        for n in 0..N {
            assert_eq!(self.scans[n].load(Relaxed), 1, "scans of {n}");
            self.scanned[n].shared();
        }
    }
}

/// The helper joins at any moment, also when the first has found the end.
#[test]
fn one_helper() {
    model(3, || {
        let toy = Toy::<7>::new();
        toy.termination.begin();
        let helper = start(&toy, |toy| toy.help());
        toy.drain(vec![0]);
        helper.join().unwrap();
        toy.all_scanned();
    });
}

/// Work lies in the pile when the helper comes.
#[test]
fn one_helper_that_finds_work_in_the_pile() {
    model(3, || {
        let toy = Toy::<7>::new();
        toy.termination.begin();
        toy.pile.with(|pile| pile.push(2));
        let helper = start(&toy, |toy| toy.help());
        let mut stack = Vec::new();
        toy.scan(0, &mut stack);
        toy.drain(vec![1]);
        helper.join().unwrap();
        toy.all_scanned();
    });
}

#[test]
fn two_helpers() {
    model(2, || {
        let toy = Toy::<3>::new();
        toy.termination.begin();
        toy.pile.with(|pile| pile.extend([1, 2]));
        let mut roots = Vec::new();
        toy.scan(0, &mut roots);
        let helpers = [1, 2].map(|_| start(&toy, |toy| toy.help()));
        toy.drain(Vec::new());
        helpers.into_iter().for_each(|h| h.join().unwrap());
        toy.all_scanned();
    });
}

/// A second phase with the same count, as after an overflow.
#[test]
fn a_phase_after_a_phase() {
    model(3, || {
        let toy = Toy::<3>::new();
        toy.termination.begin();
        let helper = start(&toy, |toy| {
            toy.termination.join();
            let none: Option<usize> = toy.termination.find(|| false, || None);
            assert!(none.is_none());
        });
        let none: Option<usize> = toy.termination.find(|| false, || None);
        assert!(none.is_none());
        helper.join().unwrap();
        toy.termination.begin();
        let helper = start(&toy, |toy| toy.help());
        toy.drain(vec![0]);
        helper.join().unwrap();
    });
}
