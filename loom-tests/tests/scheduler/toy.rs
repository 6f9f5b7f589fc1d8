//! Threads in their seats, and a house that notices who touches what.

use besom::scheduler::{House, PId, Scheduler, Seat};
use besom_loom_tests::Patience;
use besom_stats::sync::{AccessCheck, AtomicBool, AtomicU32, Ordering::*, raw, yield_now};
use loom::sync::Arc;

pub const SEATS: usize = 3;

#[derive(Default)]
pub struct ToyP {
    /// As in the heap's table of Ps.
    pub exists: AtomicBool,
    pub cache: AccessCheck,
    /// Touched by who has the set of Ps pinned, and by the end of the P.
    pub pin: AccessCheck,
}

pub struct Toy {
    pub scheduler: Scheduler,
    pub polls: [AtomicU32; SEATS],
    pub roots: [AccessCheck; SEATS],
    pub ps: [ToyP; SEATS],
    pub world: AccessCheck,
    /// Plain counts and flags: loom sees no access in them, so nothing hangs on the order in which they change.
    pub count: raw::AtomicUsize,
    pub stopped: raw::AtomicBool,
    pub collections: raw::AtomicUsize,
    /// Counted by the model as it goes.
    pub turns: raw::AtomicUsize,
    /// Actions that the last to park ran.
    pub acts: raw::AtomicUsize,
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

    fn act<R>(&self, _: Seat, action: impl FnOnce() -> R) -> R {
        self.acts.fetch_add(1, Relaxed);
        action()
    }

    /// As many as there are threads: who waits for a stop looks first.
    fn cpus(&self) -> usize {
        usize::MAX
    }
}

impl Toy {
    pub fn new(limit: usize) -> Arc<Toy> {
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
            acts: raw::AtomicUsize::new(0),
        })
    }

    pub fn attach(&self) -> Guest<'_> {
        let (seat, p) = self.scheduler.attach(self, |_| ()).expect("a seat for each");
        let guest = Guest { toy: self, seat, p };
        guest.work();
        guest
    }

    pub fn ps(&self) -> usize {
        self.count.load(Relaxed)
    }

    pub fn turns(&self) -> usize {
        self.turns.load(Relaxed)
    }

    pub fn collections(&self) -> usize {
        self.collections.load(Relaxed)
    }

    /// Returns when the models' turns have come to `turns`.
    pub fn wait_for_turns(&self, turns: usize) {
        let patience = Patience::default();
        while self.turns() < turns {
            patience.in_vain();
            yield_now();
        }
    }

    /// What is done in a stop, which `count` counts.
    pub fn look(&self, count: &raw::AtomicUsize) {
        assert!(!self.stopped.swap(true, Relaxed), "stopped twice");
        self.world.exclusive();
        self.roots.iter().for_each(AccessCheck::exclusive);
        self.ps.iter().filter(|p| p.exists.load(Acquire)).for_each(|p| p.cache.exclusive());
        count.fetch_add(1, Relaxed);
        self.stopped.store(false, Relaxed);
    }

    /// The caller, who has no seat, stops the world `stops` times in one collection, has whoever comes last look at it, and
    /// goes on collecting until the models' turns have come to `turns`.
    pub fn collect_unseated(&self, stops: usize, turns: usize) {
        self.scheduler.begin_collection_unseated();
        for _ in 0..stops {
            let (before, mut acts) = (self.collections(), 0);
            self.scheduler.in_stop(self, &mut || {
                self.look(&self.collections);
                acts += 1;
            });
            // The action's, perhaps on another thread, is seen here.
            assert_eq!((acts, self.collections()), (1, before + 1), "an action is run once");
        }
        self.wait_for_turns(turns);
        self.scheduler.end_collection();
    }

    /// With everybody gone: no P more than the limit, none at all without one.
    pub fn settled(&self) {
        assert_eq!(self.scheduler.attached(), 0);
        assert!(self.ps() <= self.scheduler.limit(), "{} Ps", self.ps());
    }
}

/// A thread in its seat.
pub struct Guest<'t> {
    pub toy: &'t Toy,
    pub seat: Seat,
    pub p: PId,
}

impl Guest<'_> {
    /// What a thread does while it believes to be Running.
    pub fn work(&self) {
        let toy = self.toy;
        toy.world.shared();
        toy.roots[self.seat.0 as usize].exclusive();
        toy.ps[self.p.0 as usize].cache.exclusive();
    }

    pub fn polled(&self) -> u32 {
        self.toy.polls[self.seat.0 as usize].load(Relaxed)
    }

    pub fn safepoint(&mut self) {
        self.p = self.toy.scheduler.safepoint(self.toy, self.seat).p;
        self.work();
    }

    /// Runs, with nothing but a look at the poll word now and then, until `done`. Time passes meanwhile.
    pub fn run_until(&mut self, done: impl Fn() -> bool) {
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

    pub fn block_and_unblock(&mut self) {
        self.toy.scheduler.block(self.toy, self.seat);
        self.p = self.toy.scheduler.unblock(self.toy, self.seat);
        self.work();
    }

    pub fn detach(self) {
        self.work();
        self.toy.scheduler.detach(self.toy, self.seat);
    }

    /// Runs without a look at the poll word until the models' turns have come to `turns`.
    pub fn wait_for_turns(&self, turns: usize) {
        self.toy.wait_for_turns(turns);
        self.work();
    }

    /// Blocks until the models' turns have come to `turns`.
    pub fn block_until(&mut self, turns: usize) {
        self.toy.scheduler.block(self.toy, self.seat);
        self.toy.wait_for_turns(turns);
        self.p = self.toy.scheduler.unblock(self.toy, self.seat);
        self.work();
    }

    /// Whether the caller was the collector.
    pub fn collect(&self) -> bool {
        self.collect_and(|| ())
    }

    /// Does something more between the resumption and the end of the collection.
    pub fn collect_and(&self, sweep: impl FnOnce()) -> bool {
        let toy = self.toy;
        if !toy.scheduler.begin_collection(self.seat) {
            self.work();
            return false;
        }
        self.work();
        toy.scheduler.stop(toy, self.seat);
        toy.look(&toy.collections);
        toy.scheduler.resume(toy, Some(self.seat));
        self.work();
        sweep();
        toy.scheduler.end_collection();
        self.work();
        true
    }

    /// Until the caller has been the collector.
    pub fn collect_surely(&self) {
        while !self.collect() {}
    }
}
