//! When is marking done? When no worker has work, and none is about to get some.
//!
//! `active` counts the workers that hold work or are trying to take some: a worker leaves when its own stack
//! is empty, and enters *before* it takes a block out of the pile. Only active workers create work, so
//! `active == 0` once is `active == 0` for good.
//!
//! Beside the program there are guests, too: mutators that scan their roots, hand in what they overwrote, or assist. They join
//! for that time, and put what they leave grey into the pile before they leave. So 'nobody active and nothing in
//! the pile' is final if no guest can come: in a stopped world. Helpers go on there: between a look at `active` and
//! one at the pile one of them may enter and take the last block, so `active` also tells whether somebody entered.
//!
//! All changes are sequentially consistent read-modify-writes: a worker's entry must come before the
//! departure of the one whose block it takes, in the one order that everybody sees.

use besom_stats::sync::{AtomicUsize, Ordering::SeqCst};

/// The count of one mark phase.
///
/// - the low half of `active` is the number of those who are active, the high half counts how often somebody became so
pub struct Termination {
    active: AtomicUsize,
    idle: AtomicUsize,
}

/// One more is active, and has become so.
const ENTER: usize = (1 << 32) + 1;
/// One is not active any more.
const LEAVE: usize = 1;
/// Where `active` says how many are.
const ACTIVE: usize = (1 << 32) - 1;

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
        self.active.fetch_add(ENTER, SeqCst);
    }

    /// A helper joins, at any moment before the phase is closed.
    pub fn join(&self) {
        self.active.fetch_add(ENTER, SeqCst);
    }

    /// Whoever becomes active from here on sees what the caller wrote before; those who are active may not.
    pub fn announce(&self) {
        self.active.fetch_add(0, SeqCst);
    }

    /// Leaves, with nothing in its hands: what is left to do lies where others look.
    pub fn leave(&self) {
        self.active.fetch_sub(LEAVE, SeqCst);
    }

    /// Whether nobody was active and nothing was left to do, at one moment during the call; `is_empty` looks. A worker
    /// that entered between the two looks may hold what the second misses, so nobody may have entered meanwhile.
    pub fn is_quiet(&self, is_empty: impl FnOnce() -> bool) -> bool {
        let before = self.active.load(SeqCst);
        before & ACTIVE == 0 && is_empty() && self.active.load(SeqCst) == before
    }

    /// Tries once to get work, without waiting: [`Self::find`] for those who have something else to do. Who gets some is
    /// active.
    pub fn try_find<T>(&self, looks: impl Fn() -> bool, take: impl FnOnce() -> Option<T>) -> Option<T> {
        if !looks() {
            return None;
        }
        self.active.fetch_add(ENTER, SeqCst);
        let found = take();
        if found.is_none() {
            self.active.fetch_sub(LEAVE, SeqCst);
        }
        found
    }

    /// Says that the caller waits for work, for as long as `wait` takes: those who have some share it.
    pub fn waiting<R>(&self, wait: impl FnOnce() -> R) -> R {
        self.idle.fetch_add(1, SeqCst);
        let result = wait();
        self.idle.fetch_sub(1, SeqCst);
        result
    }

    /// Whether somebody waits for work: a hint.
    #[inline(always)]
    pub fn wanted(&self) -> bool {
        self.idle.load(besom_stats::sync::Ordering::Relaxed) > 0
    }

    /// The caller has run out of work. Returns what it took, being active again, or `None` when there is
    /// nothing left anywhere: the caller has left. `looks` tells whether there may be something to take,
    /// `take` tries.
    pub fn find<T>(&self, looks: impl Fn() -> bool, mut take: impl FnMut() -> Option<T>) -> Option<T> {
        self.idle.fetch_add(1, SeqCst);
        self.active.fetch_sub(LEAVE, SeqCst);
        let mut spins = 0u32;
        let found = loop {
            if looks() {
                self.active.fetch_add(ENTER, SeqCst);
                if let Some(work) = take() {
                    break Some(work);
                }
                self.active.fetch_sub(LEAVE, SeqCst);
            } else if self.is_quiet(|| !looks()) {
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
