//! Models of mark termination with stealing: no worker leaves before all is scanned, and all leave.
//!
//! The workers are as in `mark::worker`, with a locked queue for the deque; a look at another's deque takes no lock, so
//! that it orders nothing, and may be out of date. The work is a tree: number n leads to 2n+1 and 2n+2.

#![cfg(loom)]

use besom_gc::mark::termination::Termination;
use besom_loom_tests::{Patience, model, start};
use besom_stats::sync::{AccessCheck, AtomicUsize, Mutex, Ordering::Relaxed, lock, raw};
use loom::sync::Arc;
use std::collections::VecDeque;

#[derive(Default)]
struct Deque {
    items: Mutex<VecDeque<usize>>,
    len: AtomicUsize,
}

impl Deque {
    fn with<R>(&self, f: impl FnOnce(&mut VecDeque<usize>) -> R) -> R {
        let mut items = lock(&self.items);
        let result = f(&mut items);
        self.len.store(items.len(), Relaxed);
        result
    }

    fn is_empty(&self) -> bool {
        self.len.load(Relaxed) == 0
    }
}

struct Toy<const N: usize, const WORKERS: usize> {
    termination: Termination,
    deques: [Deque; WORKERS],
    /// Touched by the scan of its number; who leaves may look.
    scanned: [AccessCheck; N],
    scans: [raw::AtomicU32; N],
}

impl<const N: usize, const WORKERS: usize> Toy<N, WORKERS> {
    fn new() -> Arc<Self> {
        Arc::new(Toy {
            termination: Termination::new(),
            deques: core::array::from_fn(|_| Deque::default()),
            scanned: core::array::from_fn(|_| AccessCheck::default()),
            scans: core::array::from_fn(|_| raw::AtomicU32::new(0)),
        })
    }

    fn scan(&self, n: usize, stack: &mut Vec<usize>) {
        self.scanned[n].exclusive();
        assert_eq!(self.scans[n].fetch_add(1, Relaxed), 0, "{n} is scanned twice");
        stack.extend((2 * n + 1..=2 * n + 2).filter(|&child| child < N));
    }

    fn drain(&self, index: usize, mut stack: Vec<usize>) {
        let others = || self.deques.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, d)| d);
        loop {
            while let Some(n) = stack.pop() {
                self.scan(n, &mut stack);
                if stack.len() > 1 && self.termination.wanted() {
                    self.deques[index].with(|d| d.push_back(stack.remove(0)));
                }
            }
            let own = self.deques[index].with(VecDeque::pop_back);
            let patience = Patience::default();
            let looks = || {
                let found = others().any(|d| !d.is_empty());
                if found {
                    patience.found()
                } else {
                    patience.in_vain()
                }
                found
            };
            let steal = || others().find_map(|d| d.with(VecDeque::pop_front));
            match own.or_else(|| self.termination.find(looks, steal)) {
                Some(n) => stack.push(n),
                None => return self.all_scanned(),
            }
        }
    }

    fn help(&self, index: usize) {
        self.termination.join();
        self.drain(index, Vec::new());
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
        let toy = Toy::<7, 2>::new();
        toy.termination.begin();
        let helper = start(&toy, |toy| toy.help(1));
        toy.drain(0, vec![0]);
        helper.join().unwrap();
        toy.all_scanned();
    });
}

/// Work lies in the first's deque when the helper comes; all of the rest goes through it.
#[test]
fn one_helper_that_finds_work_in_the_deque() {
    model(3, || {
        let toy = Toy::<7, 2>::new();
        toy.termination.begin();
        toy.deques[0].with(|d| d.push_back(2));
        let helper = start(&toy, |toy| toy.help(1));
        let mut stack = Vec::new();
        toy.scan(0, &mut stack);
        toy.drain(0, vec![1]);
        helper.join().unwrap();
        toy.all_scanned();
    });
}

#[test]
fn two_helpers() {
    model(2, || {
        let toy = Toy::<3, 3>::new();
        toy.termination.begin();
        toy.deques[0].with(|d| d.extend([2, 1]));
        let mut roots = Vec::new();
        toy.scan(0, &mut roots);
        let helpers = [1, 2].map(|index| start(&toy, move |toy| toy.help(index)));
        toy.drain(0, Vec::new());
        helpers.into_iter().for_each(|h| h.join().unwrap());
        toy.all_scanned();
    });
}

/// A second phase with the same count, as after an overflow.
#[test]
fn a_phase_after_a_phase() {
    model(3, || {
        let toy = Toy::<3, 2>::new();
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
        let helper = start(&toy, |toy| toy.help(1));
        toy.drain(0, vec![0]);
        helper.join().unwrap();
    });
}
