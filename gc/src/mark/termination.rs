//! When is marking done? When no worker has work, and none is about to get some.
//!
//! `active` counts the workers that hold work or are trying to steal some: a worker leaves when its own stack
//! and its own deque are empty, and enters *before* it steals. Only active workers create work, so
//! `active == 0` once is `active == 0` for good.
//!
//! All operations are sequentially consistent read-modify-writes: a worker's entry must come before the
//! departure of the one that it steals from, in the one order that everybody sees.

use besom_stats::sync::{AtomicUsize, Ordering::SeqCst};

/// The count of one mark phase.
pub struct Termination {
    active: AtomicUsize,
    idle: AtomicUsize,
}

impl Default for Termination {
    fn default() -> Termination {
        Termination::new()
    }
}

impl Termination {
    /// Nobody is active.
    pub fn new() -> Termination {
        Termination { active: AtomicUsize::new(0), idle: AtomicUsize::new(0) }
    }

    /// The first worker begins a phase.
    pub fn begin(&self) {
        self.active.fetch_add(1, SeqCst);
    }

    /// A helper joins, at any moment before the phase is closed.
    pub fn join(&self) {
        self.active.fetch_add(1, SeqCst);
    }

    /// Whether somebody waits for work: a hint.
    #[inline(always)]
    pub fn wanted(&self) -> bool {
        self.idle.load(besom_stats::sync::Ordering::Relaxed) > 0
    }

    /// The caller has run out of work. Returns what it stole, being active again, or `None` when there is
    /// nothing left anywhere: the caller has left. `looks` tells whether there may be something to steal,
    /// `steal` tries.
    pub fn find<T>(&self, looks: impl Fn() -> bool, mut steal: impl FnMut() -> Option<T>) -> Option<T> {
        self.idle.fetch_add(1, SeqCst);
        self.active.fetch_sub(1, SeqCst);
        let mut spins = 0u32;
        let found = loop {
            if looks() {
                self.active.fetch_add(1, SeqCst);
                if let Some(work) = steal() {
                    break Some(work);
                }
                self.active.fetch_sub(1, SeqCst);
            } else if self.active.load(SeqCst) == 0 {
                break None;
            }
            spins += 1;
            if spins.is_multiple_of(64) {
                besom_stats::sync::yield_now();
            } else {
                besom_stats::sync::spin_loop();
            }
        };
        self.idle.fetch_sub(1, SeqCst);
        found
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use besom_stats::sync::{Mutex, lock};

    #[test]
    fn nobody_leaves_while_there_is_work() {
        for round in 0..50 {
            let termination = Termination::new();
            let queue: Mutex<Vec<u32>> = Mutex::new(vec![12]);
            let done = AtomicUsize::new(0);
            termination.begin();
            let worker = || {
                while let Some(n) = termination.find(|| !lock(&queue).is_empty(), || lock(&queue).pop()) {
                    done.fetch_add(1, SeqCst);
                    if n > 0 {
                        lock(&queue).extend([n - 1, n - 1]);
                    }
                }
            };
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    termination.join();
                    scope.spawn(worker);
                }
                worker();
            });
            assert_eq!(done.load(SeqCst), (1 << 13) - 1, "round {round}: a tree of work");
            assert!(!termination.wanted(), "nobody waits when all have left");
        }
    }
}
