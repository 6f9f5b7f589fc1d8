//! Models of the moment in which a cycle begins to watch ephemerons: whoever comes to mark around it is waited for, or wakes the
//! ephemerons of the key that he marks.
//!
//! `Termination`, `wait` and `wake` are the code as it stands; around them the steps of `Lead::look_after_ephemerons`,
//! `Ephemerons::scan` and a worker's coming and going are told again, with a locked vector for the pile. One ephemeron has a
//! key without pointers and a value. Marks are held back ([`Held`], as it stands) by who does not know of the watch, until he leaves.

#![cfg(loom)]

use besom_gc::mark::termination::Termination;
use besom_gc::mark::worker::held::Held;
use besom_gc::specials::ephemerons::{Watched, wait, wake};
use besom_loom_tests::{Patience, model, start};
use besom_stats::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering::*, fence, lock, yield_now};
use loom::sync::Arc;

const KEY: usize = 0;
const VALUE: usize = 1;
const EPHEMERON: usize = 2;
/// Leads to the key.
const BEFORE: usize = 3;
/// The ephemeron's number.
const NUMBER: u64 = 1;

#[derive(Default)]
struct Toy {
    termination: Termination,
    pile: Mutex<Vec<usize>>,
    /// Its length, for those who only look; who sees that something was taken out sees that the taker is active, as in `Pile`.
    len: AtomicUsize,
    watching: AtomicBool,
    open: AtomicBool,
    /// Another ephemeron waits.
    other: AtomicBool,
    pending: AtomicU64,
    bucket: AtomicU64,
    next: AtomicU64,
    flag: AtomicBool,
    /// A bit for each object.
    marks: AtomicU64,
}

impl Watched for Toy {
    fn bucket(&self, _: usize) -> &AtomicU64 {
        &self.bucket
    }

    fn key(&self, _: u64) -> usize {
        KEY
    }

    fn next(&self, _: u64) -> u64 {
        self.next.load(Relaxed)
    }

    fn set_next(&self, _: u64, next: u64) {
        self.next.store(next, Relaxed);
    }

    fn is_marked(&self, key: usize) -> bool {
        self.marks.load(Relaxed) & 1 << key != 0
    }
}

/// Who marks, active: what is grey in its hands, and whether it was told to wake ephemerons.
struct Worker<'t> {
    toy: &'t Toy,
    watch: bool,
    held: Held,
    stack: Vec<usize>,
}

impl Worker<'_> {
    /// `Worker::mark`.
    fn is_first(&mut self, object: usize) -> bool {
        let (marks, bit) = (&self.toy.marks, 1 << object);
        if marks.load(Relaxed) & bit != 0 {
            return false;
        }
        if self.watch || object == EPHEMERON {
            return marks.fetch_or(bit, Relaxed) & bit == 0;
        }
        self.held.mark(0, bit, |_, _| unreachable!("there is one word"))
    }

    fn set_held(&mut self) {
        self.held.set_all(|_, bits| _ = self.toy.marks.fetch_or(bits, Relaxed));
    }

    fn mark(&mut self, object: usize) {
        if !self.is_first(object) {
            return;
        }
        match object {
            // Without pointers: its ephemerons are woken at once.
            KEY if self.watch => _ = wake(self.toy, KEY, |_| self.stack.push(EPHEMERON)),
            KEY | VALUE => {}
            _ => self.stack.push(object),
        }
    }

    fn drain(&mut self) {
        while let Some(object) = self.stack.pop() {
            match object {
                BEFORE => self.mark(KEY),
                _ => self.scan_ephemeron(),
            }
        }
    }

    fn scan_ephemeron(&mut self) {
        let toy = self.toy;
        self.set_held();
        if toy.is_marked(KEY) {
            return self.mark(VALUE);
        }
        if toy.flag.swap(true, Relaxed) {
            return;
        }
        if toy.open.load(Acquire) {
            if wait(toy, NUMBER) {
                self.mark(VALUE);
            }
        } else {
            // By an exchange, as in the code: one that takes what waits comes before it or after it.
            toy.set_next(NUMBER, 0);
            toy.pending.swap(NUMBER, Release);
        }
    }

    fn retire(mut self) {
        let mut pile = lock(&self.toy.pile);
        pile.append(&mut self.stack);
        self.toy.len.store(pile.len(), Release);
        drop(pile);
        self.set_held();
        self.toy.termination.leave();
    }
}

impl Toy {
    /// What is grey lies in the pile; the ephemeron waits for its key, if it is not there.
    fn new(pile: &[usize]) -> Arc<Toy> {
        let toy = Toy::default();
        *lock(&toy.pile) = pile.to_vec();
        toy.len.store(pile.len(), Relaxed);
        let grey = pile.iter().fold(0, |bits, object| bits | 1 << object);
        toy.marks.store(grey | 1 << EPHEMERON, Relaxed);
        if !pile.contains(&EPHEMERON) {
            toy.flag.store(true, Relaxed);
            toy.pending.store(NUMBER, Relaxed);
        }
        Arc::new(toy)
    }

    /// A worker that has just become active.
    fn worker(&self, stack: Vec<usize>) -> Worker<'_> {
        // As in `Worker::look_for_watch`.
        fence(Release);
        Worker { toy: self, watch: self.watching.load(Acquire), held: Held::default(), stack }
    }

    /// A mutator hands in what it overwrote.
    fn guest(&self, object: usize) {
        self.termination.join();
        let mut worker = self.worker(Vec::new());
        worker.mark(object);
        worker.retire();
    }

    /// A helper or an assist looks for work once; whether it found some, and did it.
    fn help(&self) -> bool {
        let take = || {
            let mut pile = lock(&self.pile);
            let found = pile.pop();
            self.len.store(pile.len(), Release);
            found
        };
        let Some(found) = self.termination.try_find(|| self.len.load(Acquire) != 0, take) else {
            return false;
        };
        let mut worker = self.worker(vec![found]);
        worker.drain();
        worker.retire();
        true
    }

    fn has_waiting(&self) -> bool {
        self.pending.load(Relaxed) != 0 || self.other.load(Relaxed)
    }

    fn look_after_ephemerons(&self) -> bool {
        if !self.watching.load(Acquire) && self.has_waiting() {
            self.watching.store(true, Release);
            self.termination.announce();
            return true;
        }
        let waits = self.has_waiting();
        if waits {
            self.termination.join();
            let mut worker = self.worker(Vec::new());
            self.open.store(true, Release);
            self.other.store(false, Relaxed);
            if self.pending.swap(0, Acquire) != 0 && wait(self, NUMBER) {
                worker.mark(VALUE);
            }
            worker.retire();
        }
        waits
    }

    /// `mark_all`.
    fn lead(&self) {
        let patience = Patience::default();
        loop {
            while self.help() || !self.termination.is_quiet(|| self.len.load(Acquire) == 0) {
                patience.in_vain();
                yield_now();
            }
            if !self.look_after_ephemerons() {
                return;
            }
        }
    }

    /// The end of the cycle, when nobody else marks: all that a guest has left last is marked, and the value with its key.
    fn end(&self) {
        self.lead();
        assert!(self.is_marked(KEY) && self.is_marked(VALUE), "the key is marked, and so is the value");
    }
}

#[test]
fn a_guest_marks_the_key() {
    model(4, || {
        let toy = Toy::new(&[]);
        let guest = start(&toy, |toy| toy.guest(KEY));
        toy.lead();
        guest.join().unwrap();
        toy.end();
    });
}

/// Two hand something in; the key lies behind one of it.
#[test]
fn one_of_two_guests_marks_the_key() {
    model(3, || {
        let toy = Toy::new(&[]);
        let guests = [BEFORE, KEY].map(|object| start(&toy, move |toy| toy.guest(object)));
        toy.lead();
        guests.into_iter().for_each(|guest| guest.join().unwrap());
        toy.end();
    });
}

/// What leads to the key is grey from the start, or a guest hands it in, and a helper may find it.
#[test]
fn a_helper_marks_the_key() {
    model(3, || {
        let toy = Toy::new(&[BEFORE]);
        let helper = start(&toy, |toy| _ = toy.help());
        toy.lead();
        helper.join().unwrap();
        toy.end();
    });
    model(3, || {
        let toy = Toy::new(&[]);
        let helper = start(&toy, |toy| _ = toy.help());
        let guest = start(&toy, |toy| toy.guest(BEFORE));
        toy.lead();
        helper.join().unwrap();
        guest.join().unwrap();
        toy.end();
    });
}

/// Another ephemeron waits, so that the cycle begins to watch; a guest that has come before, and does not know, brings this one
/// and then its key. So the table must not be open yet.
#[test]
fn a_guest_brings_the_ephemeron_and_its_key() {
    model(3, || {
        let toy = Arc::new(Toy::default());
        toy.other.store(true, Relaxed);
        let guest = start(&toy, |toy| {
            toy.termination.join();
            let mut worker = toy.worker(Vec::new());
            worker.mark(EPHEMERON);
            worker.drain();
            worker.mark(KEY);
            worker.retire();
        });
        toy.lead();
        guest.join().unwrap();
        toy.end();
    });
}

/// The ephemeron itself comes late: a helper scans it while a guest marks its key.
#[test]
fn the_ephemeron_comes_with_its_key() {
    model(3, || {
        let toy = Toy::new(&[EPHEMERON]);
        let helper = start(&toy, |toy| _ = toy.help());
        let guest = start(&toy, |toy| toy.guest(KEY));
        toy.lead();
        helper.join().unwrap();
        guest.join().unwrap();
        toy.end();
    });
}
