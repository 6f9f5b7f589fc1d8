//! Models of the scheduler: stops, threads that come and go during them, and the hand-over of Ps.
//!
//! What is checked, in each: a thread that believes to be Running touches `world` as a sharer, its P and its seat
//! alone; who has stopped the world touches everything alone. So a thread that runs in a stopped world is a race,
//! and so are two threads with one P or one seat. What never ends is a deadlock, or a loop without end.

#![cfg(loom)]

use besom::scheduler::{House, PId, Scheduler, Seat};
use besom_loom_tests::{Patience, model, start};
use besom_stats::sync::{AccessCheck, AtomicBool, AtomicU32, Mutex, Ordering::*, lock, raw, yield_now};
use loom::sync::Arc;

const SEATS: usize = 3;

#[derive(Default)]
struct ToyP {
    /// As in the heap's table of Ps.
    exists: AtomicBool,
    cache: AccessCheck,
    /// Touched by who has the set of Ps pinned, and by the end of the P.
    pin: AccessCheck,
}

struct Toy {
    scheduler: Scheduler,
    polls: [AtomicU32; SEATS],
    roots: [AccessCheck; SEATS],
    ps: [ToyP; SEATS],
    world: AccessCheck,
    /// Plain counts and flags: loom sees no access in them, so nothing hangs on the order in which they change.
    count: raw::AtomicUsize,
    stopped: raw::AtomicBool,
    collections: raw::AtomicUsize,
    /// Counted by the model as it goes.
    turns: raw::AtomicUsize,
}

impl House for Toy {
    fn ring(&self, seat: Seat, poll: u32) {
        self.polls[seat.0 as usize].store(poll, Relaxed);
    }

    fn vacate(&self, seat: Seat) {
        self.roots[seat.0 as usize].exclusive();
    }

    fn create_p(&self, p: PId) -> bool {
        let p = &self.ps[p.0 as usize];
        assert!(!p.exists.load(Relaxed), "made twice");
        p.cache.exclusive();
        p.exists.store(true, Release);
        self.count.fetch_add(1, Relaxed);
        true
    }

    fn destroy_p(&self, p: PId) {
        assert!(!self.stopped.load(Relaxed), "a stopped world keeps its Ps");
        let p = &self.ps[p.0 as usize];
        p.cache.exclusive();
        p.pin.exclusive();
        p.exists.store(false, Release);
        self.count.fetch_sub(1, Relaxed);
    }

    /// As many as there are threads: who waits for a stop looks first.
    fn cpus(&self) -> usize {
        usize::MAX
    }
}

impl Toy {
    fn new(limit: usize) -> Arc<Toy> {
        Arc::new(Toy {
            scheduler: Scheduler::new(limit, SEATS),
            polls: core::array::from_fn(|_| AtomicU32::new(0)),
            roots: core::array::from_fn(|_| AccessCheck::default()),
            ps: core::array::from_fn(|_| ToyP::default()),
            world: AccessCheck::default(),
            count: raw::AtomicUsize::new(0),
            stopped: raw::AtomicBool::new(false),
            collections: raw::AtomicUsize::new(0),
            turns: raw::AtomicUsize::new(0),
        })
    }

    fn attach(&self) -> Guest<'_> {
        let (seat, p) = self.scheduler.attach(self, |_| ()).expect("a seat for each");
        let guest = Guest { toy: self, seat, p };
        guest.work();
        guest
    }

    fn ps(&self) -> usize {
        self.count.load(Relaxed)
    }

    fn turns(&self) -> usize {
        self.turns.load(Relaxed)
    }

    fn collections(&self) -> usize {
        self.collections.load(Relaxed)
    }

    /// With everybody gone: no P more than the limit, none at all without one.
    fn settled(&self) {
        assert_eq!(self.scheduler.attached(), 0);
        assert!(self.ps() <= self.scheduler.limit(), "{} Ps", self.ps());
    }
}

/// A thread in its seat.
struct Guest<'t> {
    toy: &'t Toy,
    seat: Seat,
    p: PId,
}

impl Guest<'_> {
    /// What a thread does while it believes to be Running.
    fn work(&self) {
        let toy = self.toy;
        toy.world.shared();
        toy.roots[self.seat.0 as usize].exclusive();
        toy.ps[self.p.0 as usize].cache.exclusive();
    }

    fn polled(&self) -> u32 {
        self.toy.polls[self.seat.0 as usize].load(Relaxed)
    }

    fn safepoint(&mut self) {
        self.p = self.toy.scheduler.safepoint(self.toy, self.seat).p;
        self.work();
    }

    /// Runs, with nothing but a look at the poll word now and then, until `done`. Time passes meanwhile.
    fn run_until(&mut self, done: impl Fn() -> bool) {
        let patience = Patience::default();
        while !done() {
            if self.polled() != 0 {
                self.safepoint();
                patience.found();
            } else {
                self.toy.scheduler.let_slices_end(self.toy);
                patience.in_vain();
                yield_now();
            }
        }
    }

    fn block_and_unblock(&mut self) {
        self.toy.scheduler.block(self.toy, self.seat);
        self.p = self.toy.scheduler.unblock(self.toy, self.seat);
        self.work();
    }

    fn detach(self) {
        self.work();
        self.toy.scheduler.detach(self.toy, self.seat);
    }

    /// Runs without a look at the poll word until the models' turns have come to `turns`.
    fn wait_for_turns(&self, turns: usize) {
        let patience = Patience::default();
        while self.toy.turns() < turns {
            patience.in_vain();
            yield_now();
        }
        self.work();
    }

    /// Blocks until the models' turns have come to `turns`.
    fn block_until(&mut self, turns: usize) {
        self.toy.scheduler.block(self.toy, self.seat);
        let patience = Patience::default();
        while self.toy.turns() < turns {
            patience.in_vain();
            yield_now();
        }
        self.p = self.toy.scheduler.unblock(self.toy, self.seat);
        self.work();
    }

    /// Whether the caller was the collector.
    fn collect(&self) -> bool {
        self.collect_and(|| ())
    }

    /// Does something more between the resumption and the end of the collection.
    fn collect_and(&self, sweep: impl FnOnce()) -> bool {
        let toy = self.toy;
        if !toy.scheduler.begin_collection(self.seat) {
            self.work();
            return false;
        }
        self.work();
        toy.scheduler.stop(toy, Some(self.seat));
        assert!(!toy.stopped.swap(true, Relaxed), "stopped twice");
        toy.world.exclusive();
        toy.roots.iter().for_each(AccessCheck::exclusive);
        toy.ps.iter().filter(|p| p.exists.load(Acquire)).for_each(|p| p.cache.exclusive());
        toy.collections.fetch_add(1, Relaxed);
        toy.stopped.store(false, Relaxed);
        toy.scheduler.resume(toy, Some(self.seat));
        self.work();
        sweep();
        toy.scheduler.end_collection();
        self.work();
        true
    }

    /// Until the caller has been the collector.
    fn collect_surely(&self) {
        while !self.collect() {}
    }
}

#[test]
fn a_thread_blocks_and_unblocks_during_a_stop() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.block_and_unblock();
            guest.detach();
        });
        assert!(own.collect());
        own.detach();
        other.join().unwrap();
        toy.settled();
    });
}

/// A stop waits for nobody who is blocked, though he stays so.
#[test]
fn a_thread_is_blocked_until_the_collection_is_over() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.block_until(1);
            guest.detach();
        });
        assert!(own.collect());
        toy.turns.fetch_add(1, Relaxed);
        own.detach();
        other.join().unwrap();
        toy.settled();
    });
}

/// Those who were stopped, and those who came meanwhile, run before the collection is over.
#[test]
fn the_world_goes_on_while_the_collector_sweeps() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let others = [(); 2].map(|()| {
            start(&toy, |toy| {
                let mut guest = toy.attach();
                guest.run_until(|| toy.collections() > 0);
                toy.turns.fetch_add(1, Relaxed);
                guest.detach();
            })
        });
        assert!(own.collect_and(|| own.wait_for_turns(2)));
        own.detach();
        others.into_iter().for_each(|t| t.join().unwrap());
        toy.settled();
    });
}

#[test]
fn threads_attach_and_detach_during_a_stop() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let others = [start(&toy, |toy| toy.attach().detach()), start(&toy, |toy| toy.attach().detach())];
        assert!(own.collect());
        own.detach();
        others.into_iter().for_each(|t| t.join().unwrap());
        toy.settled();
    });
}

/// The last one to be waited for is gone, or comes back in another's seat.
#[test]
fn a_seat_changes_hands_during_a_stop() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let other = start(&toy, |toy| {
            toy.attach().detach();
            toy.attach().detach();
        });
        assert!(own.collect());
        own.detach();
        other.join().unwrap();
        toy.settled();
    });
}

/// A thread that does nothing but look at its poll word is stopped, and goes on.
#[test]
fn a_stop_reaches_a_thread_that_polls() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.run_until(|| toy.collections() > 0);
            guest.detach();
        });
        while toy.scheduler.attached() < 2 {
            yield_now();
        }
        assert!(own.collect());
        own.detach();
        other.join().unwrap();
        toy.settled();
    });
}

#[test]
fn two_collect_at_once() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let other = start(&toy, |toy| {
            let guest = toy.attach();
            guest.collect_surely();
            guest.detach();
        });
        own.collect_surely();
        own.detach();
        other.join().unwrap();
        assert_eq!(toy.collections(), 2);
        toy.settled();
    });
}

/// Who waited for the first collection may wake in the second's stop.
#[test]
fn a_collection_follows_a_collection() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let other = start(&toy, |toy| {
            let guest = toy.attach();
            guest.collect();
            guest.detach();
        });
        own.collect();
        own.collect();
        own.detach();
        other.join().unwrap();
        toy.settled();
    });
}

#[test]
fn three_collect_at_once() {
    model(2, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let others = [(); 2].map(|()| {
            start(&toy, |toy| {
                let guest = toy.attach();
                guest.collect();
                guest.detach();
            })
        });
        own.collect();
        own.detach();
        others.into_iter().for_each(|t| t.join().unwrap());
        toy.settled();
    });
}

/// One collection serves all who asked for it while it ran.
#[test]
fn two_want_a_collection_while_a_third_blocks() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let other = start(&toy, |toy| {
            let guest = toy.attach();
            let collected = guest.collect();
            guest.detach();
            collected
        });
        let third = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.block_and_unblock();
            guest.detach();
        });
        let collected = own.collect();
        own.detach();
        let both = usize::from(collected) + usize::from(other.join().unwrap());
        third.join().unwrap();
        assert!(both >= 1 && both == toy.collections());
        toy.settled();
    });
}

/// The thread that has the only P looks at nothing but its poll word; both others get their turn.
#[test]
fn the_only_p_goes_to_all_who_wait() {
    model(3, || {
        let toy = Toy::new(1);
        let mut own = toy.attach();
        let others = [(); 2].map(|()| {
            start(&toy, |toy| {
                let guest = toy.attach();
                assert_eq!(toy.ps(), 1);
                toy.turns.fetch_add(1, Relaxed);
                guest.detach();
            })
        });
        own.run_until(|| toy.turns() == 2);
        own.detach();
        others.into_iter().for_each(|t| t.join().unwrap());
        toy.settled();
    });
}

/// Who blocks leaves the only P to who waits for it.
#[test]
fn a_blocked_thread_leaves_its_p() {
    model(3, || {
        let toy = Toy::new(1);
        let mut own = toy.attach();
        let other = start(&toy, |toy| {
            let guest = toy.attach();
            toy.turns.fetch_add(1, Relaxed);
            guest.detach();
        });
        own.block_until(1);
        own.detach();
        other.join().unwrap();
        toy.settled();
    });
}

/// Two that only poll take turns with the one P.
#[test]
fn two_pass_the_only_p_to_and_fro() {
    model(3, || {
        let toy = Toy::new(1);
        let mut own = toy.attach();
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            toy.turns.fetch_add(1, Relaxed);
            guest.run_until(|| toy.turns() == 2);
            guest.detach();
        });
        own.run_until(|| toy.turns() == 1);
        toy.turns.fetch_add(1, Relaxed);
        own.detach();
        other.join().unwrap();
        toy.settled();
    });
}

#[test]
fn a_stop_while_threads_wait_for_the_only_p() {
    model(3, || {
        let toy = Toy::new(1);
        let own = toy.attach();
        let other = start(&toy, |toy| {
            let guest = toy.attach();
            guest.collect_surely();
            guest.detach();
        });
        let third = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.block_and_unblock();
            guest.detach();
        });
        own.collect_surely();
        own.detach();
        other.join().unwrap();
        third.join().unwrap();
        assert_eq!(toy.collections(), 2);
        toy.settled();
    });
}

/// Two run with two Ps, then with one, then with two again.
#[test]
fn the_number_of_ps_goes_down_and_up() {
    model(3, || {
        let toy = Toy::new(2);
        let mut own = toy.attach();
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.run_until(|| toy.turns() == 1);
            toy.turns.fetch_add(1, Relaxed);
            guest.detach();
        });
        toy.scheduler.set_limit(&*toy, 1).unwrap();
        own.run_until(|| toy.ps() == 1);
        toy.scheduler.set_limit(&*toy, 2).unwrap();
        toy.turns.fetch_add(1, Relaxed);
        // Both run at once: this one does not hand its P over.
        own.wait_for_turns(2);
        own.detach();
        other.join().unwrap();
        toy.settled();
    });
}

/// The limit falls at any moment of a stop: one P goes, though nobody stops the world again.
#[test]
fn the_limit_falls_during_a_stop() {
    model(2, || {
        let toy = Toy::new(2);
        let mut own = toy.attach();
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.collect();
            guest.run_until(|| toy.turns() == 1 && toy.ps() == 1);
            guest.detach();
        });
        let third = start(&toy, |toy| {
            toy.scheduler.set_limit(toy, 1).unwrap();
            toy.turns.fetch_add(1, Relaxed);
        });
        own.collect();
        own.run_until(|| toy.turns() == 1 && toy.ps() == 1);
        own.detach();
        other.join().unwrap();
        third.join().unwrap();
        toy.settled();
    });
}

/// The limit falls while a P is idle: a stopped world keeps it, and it goes afterwards.
#[test]
fn an_idle_p_stays_in_a_stop() {
    model(3, || {
        let toy = Toy::new(2);
        let own = toy.attach();
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.block_and_unblock();
            guest.detach();
        });
        let third = start(&toy, |toy| toy.scheduler.set_limit(toy, 1).unwrap());
        assert!(own.collect());
        own.detach();
        other.join().unwrap();
        third.join().unwrap();
        toy.settled();
    });
}

/// Ps that somebody looks at do not go meanwhile.
#[test]
fn ps_are_pinned_beside_threads_that_leave() {
    model(3, || {
        let toy = Toy::new(0);
        let leavers = [(); 2].map(|()| start(&toy, |toy| toy.attach().detach()));
        let looker = start(&toy, |toy| {
            toy.scheduler.with_ps_pinned(|| {
                toy.ps.iter().filter(|p| p.exists.load(Acquire)).for_each(|p| p.pin.shared());
            });
        });
        leavers.into_iter().for_each(|t| t.join().unwrap());
        looker.join().unwrap();
        toy.settled();
    });
}

impl Toy {
    /// A thread that does not run forks: nobody else does, and no collection goes on.
    fn fork(&self) {
        let patience = Patience::default();
        while !self.scheduler.stop_for_fork(self) {
            patience.in_vain();
            yield_now();
        }
        assert!(!self.stopped.swap(true, Relaxed), "in another's stop");
        self.world.exclusive();
        self.roots.iter().for_each(AccessCheck::exclusive);
        self.ps.iter().filter(|p| p.exists.load(Acquire)).for_each(|p| p.cache.exclusive());
        self.turns.fetch_add(1, Relaxed);
        self.stopped.store(false, Relaxed);
        self.scheduler.end_fork(self);
    }
}

impl Guest<'_> {
    fn fork(&self, turn: &Mutex<()>) {
        self.toy.scheduler.step_aside(self.seat);
        {
            let _turn = lock(turn);
            self.toy.fork();
        }
        self.toy.scheduler.step_back(self.seat);
        self.work();
    }
}

/// A thread without a seat forks.
#[test]
fn a_fork_stops_those_who_poll_and_those_who_come() {
    model(3, || {
        let toy = Toy::new(0);
        let mut own = toy.attach();
        let other = start(&toy, |toy| toy.attach().detach());
        let forker = start(&toy, Toy::fork);
        own.run_until(|| toy.turns() == 1);
        own.detach();
        other.join().unwrap();
        forker.join().unwrap();
        toy.settled();
    });
}

/// The last collection hands over to the fork, and those who want another wait for its end.
#[test]
fn a_fork_comes_between_collections() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let forker = start(&toy, Toy::fork);
        own.collect_surely();
        own.collect_surely();
        own.detach();
        forker.join().unwrap();
        assert_eq!((toy.collections(), toy.turns()), (2, 1));
        toy.settled();
    });
}

/// Who waits for its turn is waited for by nobody.
#[test]
fn two_mutators_fork_at_once() {
    model(3, || {
        let toy = Toy::new(0);
        let turn = Arc::new(Mutex::new(()));
        let own = toy.attach();
        let others = turn.clone();
        let other = start(&toy, move |toy| {
            let guest = toy.attach();
            guest.fork(&others);
            guest.detach();
        });
        own.fork(&turn);
        own.detach();
        other.join().unwrap();
        assert_eq!(toy.turns(), 2);
        toy.settled();
    });
}

#[test]
fn a_mutator_forks_while_another_collects_and_a_third_blocks() {
    model(2, || {
        let toy = Toy::new(0);
        let turn = Mutex::new(());
        let own = toy.attach();
        let other = start(&toy, |toy| {
            let guest = toy.attach();
            guest.collect_surely();
            guest.detach();
        });
        let third = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.block_and_unblock();
            guest.detach();
        });
        own.fork(&turn);
        own.detach();
        other.join().unwrap();
        third.join().unwrap();
        assert_eq!((toy.collections(), toy.turns()), (1, 1));
        toy.settled();
    });
}
