//! Models of requests for a cycle: mutators that allocate ask, the driver serves, and who has come to the goal waits.
//!
//! `Requests` and the scheduler are the code's; `collect_soon` and `collect_unseated` are told again, in their order. A rest
//! has no end of its own here: only the end of a stop or of a collection wakes who rests.

#![cfg(loom)]

use besom::requests::{Next, Requests};
use besom::scheduler::{House, PId, Scheduler, Seat};
use besom_loom_tests::{Patience, model, start};
use besom_stats::sync::{AtomicI64, AtomicU32, AtomicUsize, Ordering::*, yield_now};
use loom::sync::Arc;
use std::time::Duration;

const SEATS: usize = 3;
/// Allocated bytes from which on a cycle is due, and those that nobody passes without one.
const TRIGGER: i64 = 10;
const GOAL: i64 = 20;

struct Toy {
    scheduler: Scheduler,
    requests: Requests,
    polls: [AtomicU32; SEATS],
    allocated: AtomicI64,
    cycles: AtomicUsize,
}

impl House for Toy {
    fn ring(&self, seat: Seat, poll: u32) {
        self.polls[seat.0 as usize].store(poll, Relaxed);
    }

    fn vacate(&self, _: Seat) {}

    fn create_p(&self, _: PId) -> bool {
        true
    }

    fn destroy_p(&self, _: PId) {}

    fn act<R>(&self, _: Seat, action: impl FnOnce() -> R) -> R {
        action()
    }

    /// As many as there are threads: who waits for a stop looks first.
    fn cpus(&self) -> usize {
        usize::MAX
    }
}

impl Toy {
    fn new() -> Arc<Toy> {
        Arc::new(Toy {
            scheduler: Scheduler::new(0, SEATS),
            requests: Requests::default(),
            polls: core::array::from_fn(|_| AtomicU32::new(0)),
            allocated: AtomicI64::new(0),
            cycles: AtomicUsize::new(0),
        })
    }

    fn is_due(&self, bytes: i64) -> bool {
        self.allocated.load(Relaxed) + bytes >= TRIGGER
    }

    fn is_past_goal(&self, bytes: i64) -> bool {
        self.allocated.load(Relaxed) + bytes >= GOAL
    }

    /// `Heap::collect_soon`.
    fn collect_soon(&self, seat: Seat, bytes: i64) {
        let ask = || self.requests.ask(bytes, || true);
        ask();
        let cycles = self.cycles.load(Relaxed);
        while self.is_due(bytes) && self.is_past_goal(bytes) && self.cycles.load(Relaxed) == cycles && ask() {
            self.scheduler.rest(seat, Duration::MAX);
        }
    }

    /// A mutator's whole life.
    fn mutate(&self, objects: &[i64]) {
        let (seat, _) = self.scheduler.attach(self, |_| ()).expect("a seat for each");
        for &bytes in objects {
            if self.polls[seat.0 as usize].load(Relaxed) != 0 {
                self.scheduler.safepoint(self, seat);
            }
            // A small object's span is credited before anybody looks; a large object before it is allocated.
            let (before, ahead) = if bytes < TRIGGER { (bytes, 0) } else { (0, bytes) };
            self.allocated.fetch_add(before, Relaxed);
            if self.is_due(ahead) {
                self.collect_soon(seat, ahead);
            }
            self.allocated.fetch_add(bytes - before, Relaxed);
        }
        self.scheduler.detach(self, seat);
    }

    /// `Heap::collect_unseated`.
    fn collect_unseated(&self, bytes: i64) {
        self.scheduler.begin_collection_unseated();
        if self.is_due(bytes) {
            self.scheduler.in_stop(self, &mut || {
                self.allocated.store(0, Relaxed);
                self.cycles.fetch_add(1, Relaxed);
            });
        }
        self.scheduler.end_collection();
    }

    fn drive(&self) {
        loop {
            match self.requests.next() {
                Next::Serve(bytes) => self.collect_unseated(bytes),
                Next::Quit => return,
            }
        }
    }

    /// With nobody left who could ask again: what is due is served.
    fn settle(&self) {
        let patience = Patience::default();
        while self.is_due(0) {
            patience.in_vain();
            yield_now();
        }
        self.requests.quit();
    }
}

/// The second request comes at any moment of the first's service; nobody asks a third time.
#[test]
fn a_request_comes_while_another_is_served() {
    model(3, || {
        let toy = Toy::new();
        let mutator = start(&toy, |toy| {
            toy.allocated.fetch_add(TRIGGER, Relaxed);
            toy.requests.ask(0, || true);
            toy.allocated.fetch_add(TRIGGER, Relaxed);
            toy.requests.ask(0, || true);
        });
        let driver = start(&toy, Toy::drive);
        mutator.join().unwrap();
        toy.settle();
        driver.join().unwrap();
    });
}

#[test]
fn two_ask_for_one() {
    model(3, || {
        let toy = Toy::new();
        let mutators = [(); 2].map(|()| {
            start(&toy, |toy| {
                toy.allocated.fetch_add(TRIGGER / 2, Relaxed);
                if toy.is_due(0) {
                    toy.requests.ask(0, || true);
                }
            })
        });
        let driver = start(&toy, Toy::drive);
        mutators.into_iter().for_each(|t| t.join().unwrap());
        toy.settle();
        driver.join().unwrap();
    });
}

/// Who has come to the goal sleeps until the cycle, and does so without looking at the clock.
#[test]
fn two_wait_at_the_goal() {
    model(3, || {
        let toy = Toy::new();
        let driver = start(&toy, Toy::drive);
        let other = start(&toy, |toy| toy.mutate(&[9, 9]));
        toy.mutate(&[9, 9]);
        other.join().unwrap();
        toy.settle();
        driver.join().unwrap();
    });
}

/// The small request is there already when the large one is made, which alone is due.
#[test]
fn a_large_object_asks_for_more() {
    model(3, || {
        let toy = Toy::new();
        let driver = start(&toy, Toy::drive);
        let other = start(&toy, |toy| toy.requests.ask(0, || true));
        toy.mutate(&[5, GOAL]);
        other.join().unwrap();
        assert!(toy.cycles.load(Relaxed) > 0, "a large object passed the goal");
        toy.requests.quit();
        driver.join().unwrap();
    });
}

/// A walk over the heap is going on when the request is served.
#[test]
fn a_walk_is_waited_for() {
    model(3, || {
        let toy = Toy::new();
        let driver = start(&toy, Toy::drive);
        let walker = start(&toy, |toy| {
            let (seat, _) = toy.scheduler.attach(toy, |_| ()).expect("a seat for each");
            if toy.scheduler.begin_collection(seat) {
                toy.scheduler.stop(toy, seat);
                toy.scheduler.resume(toy, Some(seat));
                toy.scheduler.end_collection();
            }
            toy.scheduler.detach(toy, seat);
        });
        toy.mutate(&[9, 9, 9]);
        walker.join().unwrap();
        toy.settle();
        driver.join().unwrap();
    });
}
