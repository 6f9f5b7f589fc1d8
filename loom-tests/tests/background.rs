//! Models of a thread that is woken for work: nobody wakes it who finds it awake, and no work is left undone.
//!
//! `Background` is the code's; the thread is the model's own, so nobody starts one.

#![cfg(loom)]

use besom::background::{Background, Woken};
use besom_loom_tests::{model, start};
use besom_stats::sync::{AtomicUsize, Ordering::*};
use loom::sync::Arc;

/// Some work, and how much of it is done.
#[derive(Default)]
struct Toy {
    background: Background,
    wanted: AtomicUsize,
    done: AtomicUsize,
}

impl Toy {
    fn want(&self) {
        self.wanted.fetch_add(1, Relaxed);
        self.background.wake_or_start(|| None);
    }

    /// The thread: does what is wanted, until it is told to end, or has done so much.
    fn work(&self, most: usize) {
        while self.done.load(Relaxed) < most && self.background.wait(None) == Woken::Work {
            self.done.store(self.wanted.load(Relaxed), Relaxed);
        }
    }
}

/// A: work is wanted twice, one after the other; the thread ends when both are done, or sleeps for ever.
#[test]
fn one_wants_twice() {
    model(3, || {
        let toy = Arc::new(Toy::default());
        let thread = start(&toy, |toy| toy.work(2));
        toy.want();
        toy.want();
        thread.join().unwrap();
        assert_eq!(toy.done.load(Relaxed), 2);
    });
}

/// B: two want work at the same time.
#[test]
fn two_want_at_once() {
    model(3, || {
        let toy = Arc::new(Toy::default());
        let thread = start(&toy, |toy| toy.work(2));
        let other = start(&toy, Toy::want);
        toy.want();
        other.join().unwrap();
        thread.join().unwrap();
        assert_eq!(toy.done.load(Relaxed), 2);
    });
}

/// C: the thread is ended while work is wanted; whoever comes first, it ends.
#[test]
fn the_end_comes_with_the_work() {
    model(3, || {
        let toy = Arc::new(Toy::default());
        let thread = start(&toy, |toy| toy.work(usize::MAX));
        let other = start(&toy, Toy::want);
        toy.background.stop();
        other.join().unwrap();
        thread.join().unwrap();
    });
}
