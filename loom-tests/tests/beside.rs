//! Models of marking beside the program: the barrier against the marker, the scan of each thread's roots, the handshake.
//!
//! The scheduler, the turn to scan a seat's roots, the barrier's buffer and the credit are the code's; what a mutator and
//! the leader do with them is told again here, in the order of `barrier.rs`, `collect.rs`, `stores.rs` and
//! `cycle/beside.rs`. The heap is a handful of objects of one slot each. The leader is the main thread, which has attached
//! and blocked before: its seat holds the roots of two tables.
//!
//! What is checked: a thread that runs has no grey roots, and nobody else looks at them; each seat that a cycle greys is
//! scanned at most once; when a cycle ends, all that is reachable is marked.

#![cfg(loom)]

use besom::overwritten::Overwritten;
use besom::scan_turn::ScanTurn;
use besom::scheduler::{House, PId, Scheduler, Seat};
use besom_alloc_core::units::Bytes;
use besom_gc::mark::reports::Reports;
use besom_loom_tests::{Patience, model, start};
use besom_stats::sync::{AccessCheck, AtomicU32, AtomicUsize, Mutex, Ordering::*, lock, raw, yield_now};
use loom::sync::Arc;
use std::time::Duration;

const SEATS: usize = 4;
/// Objects by number; 0 is none.
const OBJECTS: usize = 5;
/// The two tables, and what their slots lead to.
const TABLES: [usize; 2] = [1, 2];
const LAST: usize = 3;

struct Toy {
    scheduler: Scheduler,
    polls: [AtomicU32; SEATS],
    scan: [ScanTurn; SEATS],
    /// Touched by the thread in the seat while it runs, and by who scans its roots.
    roots: [AccessCheck; SEATS],
    /// Two roots of each seat.
    held: [[raw::AtomicUsize; 2]; SEATS],
    rooted: [raw::AtomicBool; SEATS],
    scans: [raw::AtomicU32; SEATS],
    world: AccessCheck,
    /// Changes in a stopped world.
    marking: raw::AtomicBool,
    cycles: raw::AtomicUsize,
    slots: [AtomicUsize; OBJECTS],
    marks: [raw::AtomicBool; OBJECTS],
    grey: Mutex<Vec<usize>>,
    reports: Reports,
    turns: raw::AtomicUsize,
}

impl House for Toy {
    fn ring(&self, seat: Seat, poll: u32) {
        self.polls[seat.0 as usize].store(poll, Relaxed);
    }

    fn vacate(&self, seat: Seat) {
        let n = seat.0 as usize;
        self.scan[n].leave();
        self.roots[n].exclusive();
        self.rooted[n].store(false, Relaxed);
    }

    fn create_p(&self, _: PId) -> bool {
        true
    }

    fn destroy_p(&self, _: PId) {
        assert!(!self.marking.load(Relaxed), "a P goes while objects are marked");
    }
}

impl Toy {
    /// One table leads to the last object. The calling thread's seat is blocked.
    fn new(limit: usize) -> (Arc<Toy>, Seat) {
        let toy = Arc::new(Toy {
            scheduler: Scheduler::new(limit, SEATS),
            polls: core::array::from_fn(|_| AtomicU32::new(0)),
            scan: core::array::from_fn(|_| ScanTurn::default()),
            roots: core::array::from_fn(|_| AccessCheck::default()),
            held: core::array::from_fn(|_| core::array::from_fn(|_| raw::AtomicUsize::new(0))),
            rooted: core::array::from_fn(|_| raw::AtomicBool::new(false)),
            scans: core::array::from_fn(|_| raw::AtomicU32::new(0)),
            world: AccessCheck::default(),
            marking: raw::AtomicBool::new(false),
            cycles: raw::AtomicUsize::new(0),
            slots: core::array::from_fn(|_| AtomicUsize::new(0)),
            marks: core::array::from_fn(|_| raw::AtomicBool::new(false)),
            grey: Mutex::new(Vec::new()),
            reports: Reports::new(),
            turns: raw::AtomicUsize::new(0),
        });
        toy.slots[TABLES[0]].store(LAST, Relaxed);
        let mut own = toy.attach();
        own.hold(0, TABLES[0]);
        own.hold(1, TABLES[1]);
        let seat = own.seat;
        own.block();
        (toy, seat)
    }

    fn attach(&self) -> Guest<'_> {
        let (seat, _) = self.scheduler.attach(self, |_| ()).expect("a seat for each");
        let n = seat.0 as usize;
        self.scan[n].init();
        self.held[n].iter().for_each(|held| held.store(0, Relaxed));
        self.rooted[n].store(true, Relaxed);
        let guest = Guest { toy: self, seat, overwritten: Overwritten::default() };
        guest.work();
        guest
    }

    fn is_marking(&self) -> bool {
        self.marking.load(Relaxed)
    }

    fn mark(&self, object: usize) {
        if object != 0 && !self.marks[object].swap(true, Relaxed) {
            lock(&self.grey).push(object);
        }
    }

    fn drain(&self) {
        loop {
            let Some(object) = lock(&self.grey).pop() else { return };
            self.mark(self.slots[object].load(Relaxed));
            self.reports.earn(Bytes(1));
        }
    }

    fn is_quiet(&self) -> bool {
        lock(&self.grey).is_empty()
    }

    fn rooted(&self) -> impl Iterator<Item = usize> + '_ {
        (0..SEATS).filter(|&n| self.rooted[n].load(Relaxed))
    }

    /// Scans the roots of a seat that the caller has claimed.
    fn scan(&self, n: usize) {
        self.roots[n].exclusive();
        assert_eq!(self.scans[n].fetch_add(1, Relaxed), 0, "seat {n} is scanned twice");
        self.held[n].iter().for_each(|held| self.mark(held.load(Relaxed)));
    }

    fn visit_resting_roots(&self) -> bool {
        let claim = |seat: Seat| {
            let n = seat.0 as usize;
            self.rooted[n].load(Relaxed) && self.scan[n].claim()
        };
        while let Some(seat) = self.scheduler.claim_resting(claim) {
            self.scan(seat.0 as usize);
            self.scan[seat.0 as usize].set_black();
        }
        self.rooted().all(|n| self.scan[n].is_black())
    }

    /// A cycle, which the caller leads and has begun; it is not Running.
    fn lead(&self) {
        self.scheduler.stop(self, None);
        self.world.exclusive();
        self.marking.store(true, Relaxed);
        self.scheduler.set_marking(true);
        self.marks.iter().for_each(|mark| mark.store(false, Relaxed));
        for n in self.rooted() {
            self.scans[n].store(0, Relaxed);
            self.scan[n].set_grey();
        }
        self.scheduler.resume(self, None);
        let patience = Patience::default();
        while !self.visit_resting_roots() {
            self.drain();
            patience.in_vain();
            yield_now();
        }
        loop {
            self.drain();
            self.scheduler.handshake(self);
            if !self.is_quiet() {
                continue;
            }
            self.scheduler.stop(self, None);
            self.world.exclusive();
            if self.is_quiet() {
                break;
            }
            self.scheduler.resume(self, None);
        }
        self.verify();
        self.marking.store(false, Relaxed);
        self.scheduler.set_marking(false);
        self.cycles.fetch_add(1, Relaxed);
        self.scheduler.resume(self, None);
    }

    /// In a stopped world.
    fn verify(&self) {
        for n in self.rooted() {
            self.roots[n].exclusive();
            for held in &self.held[n] {
                let mut object = held.load(Relaxed);
                while object != 0 {
                    assert!(self.marks[object].load(Relaxed), "object {object} is reachable, and not marked");
                    object = self.slots[object].load(Relaxed);
                }
            }
        }
        let last = TABLES.iter().any(|&table| self.slots[table].load(Relaxed) == LAST);
        let held = self.rooted().any(|n| self.held[n].iter().any(|held| held.load(Relaxed) == LAST));
        assert!(last || held, "the last object is still there");
    }

    /// What the thread `besom-gc` does when a cycle is due.
    fn collect_unseated(&self) {
        self.scheduler.begin_collection_unseated();
        self.lead();
        self.scheduler.end_collection();
    }

    fn cycles(&self) -> usize {
        self.cycles.load(Relaxed)
    }
}

/// A thread in its seat.
struct Guest<'t> {
    toy: &'t Toy,
    seat: Seat,
    overwritten: Overwritten<2>,
}

impl Guest<'_> {
    fn n(&self) -> usize {
        self.seat.0 as usize
    }

    /// What a thread does while it runs.
    fn work(&self) {
        self.toy.world.shared();
        self.toy.roots[self.n()].exclusive();
        assert!(!self.toy.is_marking() || self.toy.scan[self.n()].is_black(), "it runs with grey roots");
    }

    fn hold(&mut self, which: usize, object: usize) {
        self.work();
        self.toy.held[self.n()][which].store(object, Relaxed);
    }

    fn load(&mut self, table: usize) -> usize {
        self.work();
        // Acquire, as programs do that pass objects from thread to thread.
        self.toy.slots[table].load(Acquire)
    }

    fn shade(&mut self, object: usize) {
        if self.toy.is_marking() && object != 0 && self.overwritten.keep(object) {
            self.hand_in();
        }
    }

    fn store(&mut self, table: usize, object: usize) {
        self.work();
        let slot = &self.toy.slots[table];
        self.shade(slot.load(Relaxed));
        slot.store(object, Release);
    }

    fn hand_in(&mut self) {
        if !self.overwritten.is_empty() {
            self.overwritten.hand_in(|object| self.toy.mark(object));
        }
    }

    fn scan_own_roots(&self) {
        let (toy, n) = (self.toy, self.n());
        if toy.is_marking() && !toy.scan[n].is_black() {
            if toy.scan[n].claim() {
                toy.scan(n);
                toy.scan[n].set_black();
            } else {
                toy.scan[n].wait();
            }
        }
        self.work();
    }

    fn polled(&self) -> bool {
        self.toy.polls[self.n()].load(Relaxed) != 0
    }

    fn safepoint(&mut self) {
        if self.polled() {
            self.hand_in();
            self.toy.scheduler.safepoint(self.toy, self.seat);
            self.scan_own_roots();
        }
    }

    fn block(&mut self) {
        self.work();
        self.hand_in();
        self.toy.scheduler.block(self.toy, self.seat);
    }

    fn unblock(&mut self) {
        self.toy.scheduler.unblock(self.toy, self.seat);
        self.scan_own_roots();
    }

    fn rest(&mut self) {
        self.hand_in();
        self.toy.scheduler.rest(self.seat, Duration::MAX);
        self.scan_own_roots();
    }

    /// Whether the caller led the cycle.
    fn collect(&mut self) -> bool {
        self.hand_in();
        let own = self.toy.scheduler.begin_collection(self.seat);
        if own {
            self.toy.scheduler.step_aside(self.seat);
            self.toy.lead();
            self.toy.scheduler.step_back(self.seat);
            self.toy.scheduler.end_collection();
        }
        self.scan_own_roots();
        own
    }

    fn detach(mut self) {
        self.work();
        self.hand_in();
        self.toy.held[self.n()].iter().for_each(|held| held.store(0, Relaxed));
        self.toy.scheduler.detach(self.toy, self.seat);
    }

    /// Moves the last pointer from one table to the other, by way of a root of its own; `between` comes while no table has
    /// it.
    fn move_last(&mut self, from: usize, to: usize, between: impl FnOnce(&mut Self)) {
        let object = self.load(TABLES[from]);
        self.hold(0, object);
        self.store(TABLES[from], 0);
        between(self);
        self.store(TABLES[to], object);
        self.hold(0, 0);
    }

    /// Runs, with a look at the poll word now and then, until `done`. Time passes meanwhile.
    fn run_until(&mut self, done: impl Fn() -> bool) {
        let patience = Patience::default();
        while !done() {
            if self.polled() {
                self.safepoint();
                patience.found();
            } else {
                self.toy.scheduler.let_slices_end(self.toy);
                patience.in_vain();
                yield_now();
            }
        }
    }
}

/// The barrier against the marker: the only pointer goes from the table that is scanned last to the one scanned first.
#[test]
fn the_last_pointer_is_moved() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let mover = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.move_last(0, 1, Guest::safepoint);
            guest.detach();
        });
        toy.collect_unseated();
        mover.join().unwrap();
    });
}

/// To and fro: the buffer is full once, and handed in by the store.
#[test]
fn the_last_pointer_is_moved_to_and_fro() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let mover = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.move_last(0, 1, Guest::safepoint);
            guest.move_last(1, 0, Guest::safepoint);
            guest.safepoint();
            guest.detach();
        });
        toy.collect_unseated();
        mover.join().unwrap();
    });
}

/// The thread is blocked while its root is the only pointer; what it overwrote is handed in before.
#[test]
fn the_last_pointer_is_a_blocked_threads() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let mover = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.move_last(0, 1, |guest| {
                guest.block();
                guest.unblock();
            });
            guest.detach();
        });
        toy.collect_unseated();
        mover.join().unwrap();
    });
}

/// One moves it, the other moves it back, as soon as it is there.
#[test]
fn the_last_pointer_goes_from_thread_to_thread() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let movers = [(0, 1), (1, 0)].map(|(from, to)| {
            start(&toy, move |toy| {
                let mut guest = toy.attach();
                if guest.load(TABLES[from]) == LAST {
                    guest.move_last(from, to, |_| ());
                }
                guest.detach();
            })
        });
        toy.collect_unseated();
        movers.into_iter().for_each(|m| m.join().unwrap());
    });
}

/// Two share one P, which goes from one to the other while objects are marked.
#[test]
fn the_only_p_is_handed_over() {
    model(3, || {
        let (toy, _) = Toy::new(1);
        let mover = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.move_last(0, 1, |_| ());
            guest.run_until(|| toy.turns.load(Relaxed) == 1);
            guest.detach();
        });
        let other = start(&toy, |toy| {
            let guest = toy.attach();
            toy.turns.store(1, Relaxed);
            guest.detach();
        });
        toy.collect_unseated();
        mover.join().unwrap();
        other.join().unwrap();
    });
}

/// A thread that only polls is waited for by stops and handshakes, answers them, and goes on; so does one that waits for
/// nothing.
#[test]
fn a_thread_polls_all_the_time() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.run_until(|| toy.cycles() == 1);
            guest.detach();
        });
        while toy.scheduler.attached() < 2 {
            yield_now();
        }
        toy.collect_unseated();
        other.join().unwrap();
    });
}

/// Stops and handshakes wait for the last who runs, and he leaves; another comes into his seat.
#[test]
fn the_last_mutator_leaves() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let other = start(&toy, |toy| {
            toy.attach().detach();
            toy.attach().detach();
        });
        toy.collect_unseated();
        other.join().unwrap();
    });
}

/// Of two who run, one blocks and one leaves.
#[test]
fn one_blocks_and_one_leaves() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let blocker = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.hold(0, TABLES[0]);
            guest.block();
            guest.unblock();
            guest.detach();
        });
        let leaver = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.hold(0, TABLES[1]);
            guest.detach();
        });
        toy.collect_unseated();
        blocker.join().unwrap();
        leaver.join().unwrap();
    });
}

/// A mutator leads its own cycle, stepped aside; another wants one, too, and waits or leads the next.
#[test]
fn two_mutators_want_a_cycle() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.move_last(0, 1, |_| ());
            guest.collect();
            guest.detach();
        });
        let mut own = toy.attach();
        own.hold(0, TABLES[1]);
        own.collect();
        own.detach();
        other.join().unwrap();
        assert!(toy.cycles() > 0);
    });
}

/// A mutator's own cycle against that of `besom-gc`.
#[test]
fn a_mutator_wants_a_cycle_beside_the_drivers() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.move_last(0, 1, |_| ());
            guest.collect();
            guest.detach();
        });
        toy.collect_unseated();
        other.join().unwrap();
        assert!(toy.cycles() > 0);
    });
}

/// An assist that finds neither credit nor work rests, without an end of its own: the end of the cycle wakes it at the
/// latest. What is earned is taken once.
#[test]
fn debtors_rest_until_there_is_credit_or_the_cycle_ends() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let debtors = [(); 2].map(|()| {
            start(&toy, |toy| {
                let mut guest = toy.attach();
                let mut paid = 0;
                while toy.is_marking() {
                    paid = toy.reports.take_credit(Bytes(1)).0;
                    if paid != 0 {
                        break;
                    }
                    guest.rest();
                }
                guest.detach();
                paid
            })
        });
        toy.collect_unseated();
        let paid: usize = debtors.into_iter().map(|t| t.join().unwrap()).sum();
        let left = toy.reports.take_credit(Bytes(OBJECTS)).0;
        let scanned = toy.marks.iter().filter(|mark| mark.load(Relaxed)).count();
        assert_eq!(paid + left, scanned, "credit is taken once");
    });
}

/// Who has come to the goal rests from before the cycle to its end, wakes at any moment because the time is over, and rests
/// again.
#[test]
fn one_rests_at_the_goal() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.hold(0, TABLES[0]);
            while toy.cycles() == 0 {
                guest.rest();
            }
            guest.detach();
        });
        let clock = start(&toy, |toy| toy.scheduler.let_rests_end());
        toy.collect_unseated();
        other.join().unwrap();
        clock.join().unwrap();
    });
}

/// Who waited for the first cycle may wake in the second.
#[test]
fn a_cycle_follows_a_cycle() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.hold(0, TABLES[1]);
            guest.collect();
            guest.detach();
        });
        toy.collect_unseated();
        toy.collect_unseated();
        other.join().unwrap();
        assert!(toy.cycles() > 1);
    });
}
