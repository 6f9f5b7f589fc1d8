//! Models of the end of marking beside the program: a leader that looks whether all is done, a helper that takes what
//! lies in the pile, guests that bring more until the world is stopped.
//!
//! `Termination` and `Pile` are the code's. A block stands for one grey object, whose number is in `filled`; number n
//! leads to 2n+1 and 2n+2. `world` is held by a guest while it runs, and by the leader while it has stopped the world;
//! the helper is stopped by nothing.

#![cfg(loom)]

use besom_gc::mark::block::Block;
use besom_gc::mark::pile::Pile;
use besom_gc::mark::termination::Termination;
use besom_loom_tests::{Patience, model, start};
use besom_stats::sync::{AccessCheck, AtomicUsize, Mutex, Ordering::Relaxed, lock, raw, yield_now};
use loom::sync::Arc;
use std::alloc::Layout;

const N: usize = 7;

struct Toy {
    termination: Termination,
    pile: Pile,
    /// Changed by the leader between its two looks, and by who has taken a block: orders nothing, but has loom try both orders.
    /// (Who takes a block loads the pile's count just before, which would hide the leader's load from loom.)
    moment: AtomicUsize,
    /// Whether marking goes on.
    world: Mutex<bool>,
    /// Touched by the scan of its number, then by who has seen the end.
    scanned: [AccessCheck; N],
    scans: [raw::AtomicU32; N],
    /// Numbers that were handed in: their trees are to be scanned.
    handed_in: [raw::AtomicBool; N],
}

fn block(n: usize) -> *mut Block {
    // SAFETY: a block may be zero, and is its caller's.
    unsafe {
        let block = std::alloc::alloc_zeroed(Layout::new::<Block>()).cast::<Block>();
        (*block).filled = n;
        block
    }
}

impl Toy {
    fn new() -> Arc<Toy> {
        Arc::new(Toy {
            termination: Termination::new(),
            pile: Pile::new(),
            moment: AtomicUsize::new(0),
            world: Mutex::new(true),
            scanned: core::array::from_fn(|_| AccessCheck::default()),
            scans: core::array::from_fn(|_| raw::AtomicU32::new(0)),
            handed_in: core::array::from_fn(|_| raw::AtomicBool::new(false)),
        })
    }

    fn push(&self, n: usize) {
        // SAFETY: the block is new.
        unsafe { self.pile.push(block(n)) };
    }

    /// What a guest does while it runs, unless marking is over.
    fn hand_in(&self, n: usize) {
        let marking = lock(&self.world);
        if *marking {
            self.handed_in[n].store(true, Relaxed);
            self.termination.join();
            self.push(n);
            self.termination.leave();
        }
    }

    /// Takes one object and scans it, if there is one.
    fn mark_one(&self) -> bool {
        let take = || {
            let taken = self.pile.take();
            self.moment.fetch_add(1, Relaxed);
            taken
        };
        let Some(taken) = self.termination.try_find(|| !self.pile.is_empty(), take) else { return false };
        // SAFETY: who takes a block owns it.
        let n = unsafe {
            let n = (*taken).filled;
            std::alloc::dealloc(taken.cast(), Layout::new::<Block>());
            n
        };
        self.scanned[n].exclusive();
        assert_eq!(self.scans[n].fetch_add(1, Relaxed), 0, "{n} is scanned twice");
        (2 * n + 1..=2 * n + 2).filter(|&child| child < N).for_each(|child| self.push(child));
        self.termination.leave();
        true
    }

    fn is_quiet(&self) -> bool {
        self.termination.is_quiet(|| {
            self.moment.fetch_add(1, Relaxed);
            self.pile.is_empty()
        })
    }

    /// What the leader does, until it has ended marking.
    fn lead(&self) {
        let patience = Patience::default();
        loop {
            if self.mark_one() {
                continue;
            }
            if !self.is_quiet() {
                patience.in_vain();
                yield_now();
                continue;
            }
            if self.ends() {
                return;
            }
        }
    }

    /// Stops the world, and ends marking if nothing is grey.
    fn ends(&self) -> bool {
        let mut marking = lock(&self.world);
        let quiet = self.is_quiet();
        if quiet {
            *marking = false;
            self.all_scanned();
        }
        quiet
    }

    fn all_scanned(&self) {
        for n in 0..N {
            let above = std::iter::successors(Some(n), |&n| (n > 0).then(|| (n - 1) / 2));
            let reached = above.into_iter().any(|n| self.handed_in[n].load(Relaxed));
            assert_eq!(self.scans[n].load(Relaxed), u32::from(reached), "scans of {n}");
            self.scanned[n].shared();
        }
    }
}

/// What the guest brings comes at any moment until the end.
#[test]
fn a_guest_comes_late() {
    model(3, || {
        let toy = Toy::new();
        toy.hand_in(1);
        let guest = start(&toy, |toy| toy.hand_in(5));
        toy.lead();
        guest.join().unwrap();
        toy.all_scanned();
    });
}

/// The helper takes the last block at any moment of the leader's looks.
#[test]
fn a_helper_takes_the_last_block() {
    model(3, || {
        let toy = Toy::new();
        toy.hand_in(2);
        let helper = start(&toy, |toy| while toy.mark_one() {});
        toy.lead();
        helper.join().unwrap();
        toy.all_scanned();
    });
}

/// A guest left it on its way to the stop, and the leader looks for the last time while the helper goes on.
#[test]
fn a_helper_takes_the_last_block_in_a_stopped_world() {
    model(3, || {
        let toy = Toy::new();
        toy.hand_in(2);
        let helper = start(&toy, |toy| _ = toy.mark_one());
        let over = toy.ends();
        helper.join().unwrap();
        if !over {
            toy.lead();
        }
        toy.all_scanned();
    });
}

/// What the guest leaves is the helper's before the leader knows of it.
#[test]
fn a_helper_takes_what_a_guest_leaves() {
    model(2, || {
        let toy = Toy::new();
        toy.hand_in(3);
        let guest = start(&toy, |toy| toy.hand_in(2));
        let helper = start(&toy, |toy| _ = toy.mark_one());
        toy.lead();
        guest.join().unwrap();
        helper.join().unwrap();
        toy.all_scanned();
    });
}

/// Two that hand in, one after the other's work is done.
#[test]
fn two_guests() {
    model(2, || {
        let toy = Toy::new();
        let guests = [3, 4].map(|n| start(&toy, move |toy| toy.hand_in(n)));
        toy.lead();
        guests.into_iter().for_each(|g| g.join().unwrap());
        toy.all_scanned();
    });
}
