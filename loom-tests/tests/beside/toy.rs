//! A heap of a handful of objects, its mutators, and the leader of its cycles.

use super::specials::Specials;
use besom::overwritten::Overwritten;
use besom::scan_turn::ScanTurn;
use besom::scheduler::{House, PId, Scheduler, Seat};
use besom_alloc_core::units::Bytes;
use besom_gc::Phase;
use besom_gc::mark::reports::Reports;
use besom_loom_tests::Patience;
use besom_stats::sync::{AccessCheck, AtomicU32, AtomicUsize, Mutex, Ordering::*, lock, raw, yield_now};
use loom::sync::Arc;
use std::time::Duration;

const SEATS: usize = 4;
/// Objects by number; 0 is none.
pub const OBJECTS: usize = 7;
/// The two tables, and what their slots lead to.
pub const TABLES: [usize; 2] = [1, 2];
pub const LAST: usize = 3;
/// What only the last object leads to.
const BEHIND: usize = 4;
/// What nothing leads to but specials, and what that leads to.
pub const NAMED: usize = 5;
const BEHIND_NAMED: usize = 6;

pub struct Toy {
    pub scheduler: Scheduler,
    polls: [AtomicU32; SEATS],
    scan: [ScanTurn; SEATS],
    /// Touched by the thread in the seat while it runs, and by who scans its roots.
    roots: [AccessCheck; SEATS],
    /// Two roots of each seat.
    held: [[raw::AtomicUsize; 2]; SEATS],
    rooted: [raw::AtomicBool; SEATS],
    scans: [raw::AtomicU32; SEATS],
    world: AccessCheck,
    /// Touched by who runs and has seen that it is not `gone`; alone by the leader, after it said so and shook hands.
    old: AccessCheck,
    gone: raw::AtomicBool,
    /// Changes in a stopped world.
    marking: raw::AtomicBool,
    cycles: raw::AtomicUsize,
    slots: [AtomicUsize; OBJECTS],
    pub marks: [raw::AtomicBool; OBJECTS],
    grey: Mutex<Vec<usize>>,
    pub reports: Reports,
    pub turns: raw::AtomicUsize,
    pub specials: Option<Specials>,
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

    fn act<R>(&self, _: Seat, action: impl FnOnce() -> R) -> R {
        action()
    }

    /// As many as there are threads: who waits for a stop looks first.
    fn cpus(&self) -> usize {
        usize::MAX
    }
}

impl Toy {
    /// One table leads to the last object. The calling thread's seat is blocked.
    pub fn new(limit: usize) -> (Arc<Toy>, Seat) {
        Toy::with(limit, None)
    }

    pub fn with(limit: usize, specials: Option<Specials>) -> (Arc<Toy>, Seat) {
        let toy = Arc::new(Toy {
            scheduler: Scheduler::new(limit, SEATS),
            polls: core::array::from_fn(|_| AtomicU32::new(0)),
            scan: core::array::from_fn(|_| ScanTurn::default()),
            roots: core::array::from_fn(|_| AccessCheck::default()),
            held: core::array::from_fn(|_| core::array::from_fn(|_| raw::AtomicUsize::new(0))),
            rooted: core::array::from_fn(|_| raw::AtomicBool::new(false)),
            scans: core::array::from_fn(|_| raw::AtomicU32::new(0)),
            world: AccessCheck::default(),
            old: AccessCheck::default(),
            gone: raw::AtomicBool::new(false),
            marking: raw::AtomicBool::new(false),
            cycles: raw::AtomicUsize::new(0),
            slots: core::array::from_fn(|_| AtomicUsize::new(0)),
            marks: core::array::from_fn(|_| raw::AtomicBool::new(false)),
            grey: Mutex::new(Vec::new()),
            reports: Reports::new(),
            turns: raw::AtomicUsize::new(0),
            specials,
        });
        toy.slots[TABLES[0]].store(LAST, Relaxed);
        toy.slots[LAST].store(BEHIND, Relaxed);
        toy.slots[NAMED].store(BEHIND_NAMED, Relaxed);
        let mut own = toy.attach();
        own.hold(0, TABLES[0]);
        own.hold(1, TABLES[1]);
        let seat = own.seat;
        own.block();
        (toy, seat)
    }

    pub fn attach(&self) -> Guest<'_> {
        let (seat, _) = self.scheduler.attach(self, |_| ()).expect("a seat for each");
        let n = seat.0 as usize;
        self.scan[n].init();
        self.held[n].iter().for_each(|held| held.store(0, Relaxed));
        self.rooted[n].store(true, Relaxed);
        let guest = Guest { toy: self, seat, overwritten: Overwritten::default() };
        guest.work();
        guest
    }

    pub fn is_marking(&self) -> bool {
        self.marking.load(Relaxed)
    }

    pub fn mark(&self, object: usize) {
        if object != 0 && !self.marks[object].swap(true, Relaxed) {
            lock(&self.grey).push(object);
        }
    }

    /// Whether there was an object to be scanned.
    pub fn scan_one(&self) -> bool {
        let Some(object) = lock(&self.grey).pop() else { return false };
        self.mark(self.slots[object].load(Relaxed));
        self.reports.earn(Bytes(1));
        true
    }

    pub fn drain(&self) {
        while self.scan_one() {}
    }

    pub fn is_quiet(&self) -> bool {
        lock(&self.grey).is_empty()
    }

    pub fn rooted(&self) -> impl Iterator<Item = usize> + '_ {
        (0..SEATS).filter(|&n| self.rooted[n].load(Relaxed))
    }

    /// Scans the roots of a seat that the caller has claimed.
    pub fn scan(&self, n: usize) {
        self.roots[n].exclusive();
        assert_eq!(self.scans[n].fetch_add(1, Relaxed), 0, "seat {n} is scanned twice");
        self.held[n].iter().for_each(|held| self.mark(held.load(Relaxed)));
    }

    pub fn visit_resting_roots(&self) -> bool {
        let claim = |seat: Seat| {
            let n = seat.0 as usize;
            self.rooted[n].load(Relaxed) && self.scan[n].claim()
        };
        let mut from = Seat(0);
        while let Some(seat) = self.scheduler.claim_resting(from, claim) {
            from = Seat(seat.0 + 1);
            self.scan(seat.0 as usize);
            self.scan[seat.0 as usize].set_black();
        }
        self.rooted().all(|n| self.scan[n].is_black())
    }

    /// Runs `f` in a stop, perhaps on the last thread to park.
    fn in_stop<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        let (mut f, mut result) = (Some(f), None);
        self.scheduler.in_stop(self, &mut || {
            self.world.exclusive();
            let f = f.take().expect("an action is run once");
            result = Some(f());
        });
        result.expect("a stop's action is run")
    }

    /// A cycle, which the caller leads and has begun; it is not Running.
    pub fn lead(&self) {
        self.in_stop(|| {
            self.marking.store(true, Relaxed);
            self.scheduler.set_marking(true);
            self.marks.iter().for_each(|mark| mark.store(false, Relaxed));
            for n in self.rooted() {
                self.scans[n].store(0, Relaxed);
                self.scan[n].set_grey();
            }
        });
        self.visit_due();
        let patience = Patience::default();
        while !self.visit_resting_roots() {
            self.drain();
            patience.in_vain();
            yield_now();
        }
        loop {
            self.drain();
            self.gone.store(true, Relaxed);
            self.scheduler.handshake(self);
            self.old.exclusive();
            if !self.is_quiet() {
                continue;
            }
            let done = self.in_stop(|| {
                let quiet = self.is_quiet();
                if quiet {
                    self.verify();
                    if !self.resolves() {
                        self.end_cycle();
                    }
                }
                quiet
            });
            if done {
                break;
            }
        }
        if self.resolves() {
            self.resolve();
            self.in_stop(|| {
                self.verify();
                self.end_cycle();
            });
        }
    }

    fn end_cycle(&self) {
        self.marking.store(false, Relaxed);
        self.gone.store(false, Relaxed);
        self.scheduler.set_marking(false);
        self.cycles.fetch_add(1, Relaxed);
    }

    /// In a stopped world.
    pub fn verify(&self) {
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
    pub fn collect_unseated(&self) {
        self.scheduler.begin_collection_unseated();
        self.lead();
        self.scheduler.end_collection();
    }

    pub fn cycles(&self) -> usize {
        self.cycles.load(Relaxed)
    }
}

/// A thread in its seat.
pub struct Guest<'t> {
    pub toy: &'t Toy,
    seat: Seat,
    overwritten: Overwritten<2>,
}

impl Guest<'_> {
    pub fn n(&self) -> usize {
        self.seat.0 as usize
    }

    /// What a thread does while it runs.
    pub fn work(&self) {
        self.toy.world.shared();
        if !self.toy.gone.load(Relaxed) {
            self.toy.old.shared();
        }
        self.toy.roots[self.n()].exclusive();
        assert!(!self.toy.is_marking() || self.toy.scan[self.n()].is_black(), "it runs with grey roots");
    }

    pub fn hold(&mut self, which: usize, object: usize) {
        self.work();
        self.toy.held[self.n()][which].store(object, Relaxed);
    }

    pub fn load(&mut self, table: usize) -> usize {
        self.work();
        // Acquire, as programs do that pass objects from thread to thread.
        self.toy.slots[table].load(Acquire)
    }

    pub fn shade(&mut self, object: usize) {
        if self.toy.phase() == Phase::Marking && object != 0 && self.overwritten.keep(object) {
            self.hand_in();
        }
    }

    pub fn store(&mut self, table: usize, object: usize) {
        self.work();
        let slot = &self.toy.slots[table];
        self.shade(slot.load(Relaxed));
        slot.store(object, Release);
    }

    pub fn hand_in(&mut self) {
        if !self.overwritten.is_empty() {
            self.overwritten.hand_in(|object| self.toy.mark(object));
        }
    }

    pub fn scan_own_roots(&self) {
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

    pub fn polled(&self) -> bool {
        self.toy.polls[self.n()].load(Relaxed) != 0
    }

    pub fn safepoint(&mut self) {
        if self.polled() {
            self.hand_in();
            self.toy.scheduler.safepoint(self.toy, self.seat);
            self.scan_own_roots();
        }
    }

    pub fn block(&mut self) {
        self.work();
        self.hand_in();
        self.toy.scheduler.block(self.toy, self.seat);
    }

    pub fn unblock(&mut self) {
        self.toy.scheduler.unblock(self.toy, self.seat);
        self.scan_own_roots();
    }

    pub fn rest(&mut self) {
        self.hand_in();
        self.toy.scheduler.rest(self.seat, Duration::MAX);
        self.scan_own_roots();
    }

    /// Helps until the cycle is over: piece by piece, at a safepoint between them if it is polled.
    pub fn help_until_the_end(&mut self) {
        while self.toy.is_marking() {
            self.work();
            let done = self.toy.scan_one();
            if self.polled() {
                self.safepoint();
            } else if !done {
                self.rest();
            }
        }
    }

    /// Whether the caller led the cycle.
    pub fn collect(&mut self) -> bool {
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

    pub fn detach(mut self) {
        self.work();
        self.hand_in();
        self.toy.held[self.n()].iter().for_each(|held| held.store(0, Relaxed));
        self.toy.scheduler.detach(self.toy, self.seat);
    }

    /// Moves the last pointer from one table to the other, by way of a root of its own; `between` comes while no table has
    /// it.
    pub fn move_last(&mut self, from: usize, to: usize, between: impl FnOnce(&mut Self)) {
        let object = self.load(TABLES[from]);
        self.hold(0, object);
        self.store(TABLES[from], 0);
        between(self);
        self.store(TABLES[to], object);
        self.hold(0, 0);
    }

    /// Runs, with a look at the poll word now and then, until `done`. Time passes meanwhile.
    pub fn run_until(&mut self, done: impl Fn() -> bool) {
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
