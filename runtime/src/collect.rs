//! Stops, safepoints, and collections, as mutators take part in them.

use crate::heap::Heap;
use crate::mutator::{ATTACHED, BLOCKED, COLLECTING, FORKING, Mutator};
use crate::scheduler::{House, Seat, Waited};
use besom_alloc_core::runs::Colour;
use besom_alloc_core::stopped::Stopped;
use besom_alloc_core::units::Bytes;
use besom_gc::timeline::{Kind, Why};
use besom_gc::{Cause, Tracer, Visitor, World};
use besom_stats::race_detector::{acquire, outside, release};
use std::time::Instant;

/// The world, as a thread stops it to collect.
struct HeapWorld<'h> {
    heap: &'h Heap,
    /// Of a mutator that runs.
    seat: Option<Seat>,
}

impl HeapWorld<'_> {
    /// Mutators whose threads have roots, perhaps.
    fn rooted(&self) -> impl Iterator<Item = *mut Mutator> + '_ {
        // SAFETY: entries are mapped; the state is atomic.
        let rooted = |m: &*mut Mutator| unsafe { Mutator::state(*m) } != 0;
        self.heap.mutators().filter(rooted)
    }
}

impl World for HeapWorld<'_> {
    fn in_stop(&self, action: &mut (dyn FnMut(&Stopped<'_>) + Send)) -> Instant {
        let heap = self.heap;
        if let Some(seat) = self.seat {
            return heap.in_own_stop(seat, action).1;
        }
        release(heap);
        // SAFETY: the scheduler calls it in a stop.
        let resumed = heap.scheduler.in_stop(heap, &mut || unsafe { heap.while_stopped(&mut *action) });
        acquire(heap);
        resumed
    }

    fn flush_caches(&self, stopped: &Stopped<'_>) {
        self.heap.flush_caches(stopped);
    }

    fn visit_roots(&self, stopped: &Stopped<'_>, visitor: &mut dyn Visitor) -> Bytes {
        let heap = self.heap;
        let mut bytes = heap.roots.visit(visitor) + heap.handles.for_each(|object| visitor.any(object));
        bytes += heap.collector.specials().for_each_due_object(|object| visitor.any(object));
        for m in heap.mutators() {
            // SAFETY: the world is stopped: an attached thread is parked or blocked, and captured its registers.
            unsafe {
                if matches!(Mutator::state(m), ATTACHED | BLOCKED | COLLECTING | FORKING) {
                    bytes += (*m).visit_roots(visitor);
                }
            }
        }
        self.visit_still_roots(stopped, visitor);
        bytes
    }

    fn begin_marking(&self, _: &Stopped<'_>) {
        let heap = self.heap;
        heap.scheduler.set_marking(true);
        heap.roots.begin_scan();
        heap.handles.begin_scan();
        for m in self.rooted() {
            // SAFETY: the world is stopped.
            unsafe {
                Mutator::scan(m).set_grey();
                Mutator::set_stores(m, heap.stores(true));
            }
        }
    }

    fn end_marking(&self, _: &Stopped<'_>) {
        self.heap.scheduler.set_marking(false);
        for m in self.rooted() {
            // SAFETY: as above.
            unsafe { Mutator::set_stores(m, self.heap.stores(false)) };
        }
    }

    fn visit_still_roots(&self, _: &Stopped<'_>, visitor: &mut dyn Visitor) {
        if let Some(roots) = self.heap.options.roots {
            let mut tracer = Tracer::new(visitor);
            // SAFETY: the VM's function with the VM's data.
            outside(|| unsafe { roots(&mut tracer, std::ptr::null_mut(), self.heap.options.data) });
        }
    }

    fn visit_shared_roots(&self, visitor: &mut dyn Visitor) -> Bytes {
        let due = self.heap.collector.specials().for_each_due_object(|object| visitor.any(object));
        self.heap.roots.scan(visitor) + self.heap.handles.scan(visitor) + due
    }

    fn visit_resting_roots(&self, visitor: &mut dyn Visitor) -> (Bytes, bool) {
        let mut bytes = Bytes(0);
        // SAFETY: an entry's `scan` is atomic; who has claimed it reads the roots of a thread that does not come to run, nor
        // leaves its seat, before they are black.
        unsafe {
            let claim = |seat| {
                let m = self.heap.mutator(seat);
                Mutator::state(m) != 0 && Mutator::scan(m).claim()
            };
            let mut from = Seat(0);
            while let Some(seat) = self.heap.scheduler.claim_resting(from, claim) {
                from = Seat(seat.0 + 1);
                let m = self.heap.mutator(seat);
                // What the thread did before it came to rest was before this, and what it does next is after.
                acquire(self.heap);
                bytes += (*m).visit_roots(visitor);
                release(self.heap);
                Mutator::scan(m).set_black();
            }
            (bytes, self.rooted().all(|m| Mutator::scan(m).is_black()))
        }
    }

    fn handshake(&self) {
        self.heap.scheduler.handshake(self.heap);
    }

    fn running(&self) -> usize {
        self.heap.scheduler.running()
    }
}

impl Heap {
    /// Takes part in what is wanted of this mutator.
    ///
    /// # Safety
    /// `m` must be the calling thread's, attached and not blocked, with its registers captured.
    #[inline(never)]
    pub(crate) unsafe fn safepoint(&self, m: *mut Mutator) {
        release(self);
        // SAFETY: the caller's promise.
        unsafe {
            self.hand_in(m);
            let stops = Mutator::stops(m);
            if stops && (*(*m).p).colour() == Colour::White {
                // Each its own, rather than all of them by the one who stops the world. What is black stays until it is
                // known that nobody marks: somebody may, if this stop finds that there is something left.
                (*(*m).p).release(self.context());
                release(self);
            }
            let began = self.collector.timeline().begin();
            let passed = self.scheduler.safepoint(self, Seat((*m).seat));
            match passed.waited {
                Some(Waited::Stop) => self.collector.timeline().end(began, Kind::Stopped, [0; 4]),
                Some(Waited::P) => self.collector.timeline().end(began, Kind::WaitForP, [0; 4]),
                None => {}
            }
            // Before anything of the mutator's is written: another thread may be scanning its roots.
            self.scan_own_roots(m);
            self.sit(m, passed.p);
        }
    }

    /// Gives the P up; a collection uses the registers that were captured before.
    ///
    /// # Safety
    /// `m` must be the calling thread's, attached and not blocked, with its registers captured.
    pub(crate) unsafe fn block(&self, m: *mut Mutator) {
        // SAFETY: the caller's promise.
        unsafe {
            (*(*m).p).end_assist(self.context());
            self.hand_in(m);
            self.rise(m);
            Mutator::take_snapshot(m, self);
            Mutator::set_state(m, BLOCKED);
            self.scheduler.block(self, Seat((*m).seat));
        }
    }

    /// # Safety
    /// `m` must be the calling thread's, and blocked.
    pub(crate) unsafe fn unblock(&self, m: *mut Mutator) {
        // SAFETY: the caller's promise.
        unsafe {
            let p = self.waiting(Kind::WaitForP, || self.scheduler.unblock(self, Seat((*m).seat)));
            // Of the snapshot, as long as the thread counts as blocked; before anything of the mutator's is written.
            self.scan_own_roots(m);
            self.sit(m, p);
            Mutator::set_state(m, ATTACHED);
        }
    }

    /// Runs a cycle; for [`Cause::Pace`], another's that runs will do. After [`Cause::Forced`] all is swept.
    ///
    /// # Safety
    /// `m` must be the calling thread's, attached and not blocked, with its registers captured.
    #[inline(never)]
    pub(crate) unsafe fn collect(&self, m: *mut Mutator, cause: Cause) {
        // A cycle that had begun before says nothing of what died since, and leaves garbage unswept.
        // SAFETY: the caller's promise.
        while !unsafe { self.try_collect(m, cause) } && cause != Cause::Pace {}
    }

    /// Sets the soft limit; 0: none.
    pub fn set_memory_limit(&self, limit: Bytes) {
        self.collector.pacer().set_memory_limit(limit);
        self.spans.pages().set_soft_limit(limit);
        self.scavenger.wake(self);
    }

    /// Runs a cycle, or waits for another's or for a walk: false. After an own one for [`Cause::Forced`] or
    /// [`Cause::Limit`] all is swept.
    ///
    /// # Safety
    /// As for [`Self::collect`].
    pub(crate) unsafe fn try_collect(&self, m: *mut Mutator, cause: Cause) -> bool {
        // SAFETY: the caller's promise.
        let seat = unsafe { Seat((*m).seat) };
        release(self);
        // SAFETY: as above.
        unsafe { self.hand_in(m) };
        let own = self.begin_collection(seat);
        if own && self.collector.is_concurrent() {
            // It waits for the cycle that it leads, like any other thread that wants one.
            // SAFETY: as above.
            unsafe { Mutator::set_state(m, COLLECTING) };
            self.scheduler.step_aside(seat);
            self.collect_as(None, cause);
            self.scheduler.step_back(seat);
            // SAFETY: as above.
            unsafe { Mutator::set_state(m, ATTACHED) };
            self.scheduler.end_collection();
        } else if own {
            self.collect_as(Some(seat), cause);
            self.scheduler.end_collection();
        }
        // SAFETY: the thread runs again, on the P that it had.
        unsafe { self.come_back(m) };
        own
    }

    /// Runs a cycle on a thread that has no seat, if one is due before `bytes` more are allocated once nobody else collects.
    pub(crate) fn collect_unseated(&self, bytes: i64) {
        self.scheduler.begin_collection_unseated();
        if self.collector.is_due(bytes) {
            self.collect_as(None, Cause::Pace);
        }
        self.scheduler.end_collection();
    }

    /// Runs a cycle, which the caller has begun.
    fn collect_as(&self, seat: Option<Seat>, cause: Cause) {
        let stats = self.spans.stats().unattached();
        let live_before = self.collector.pacer().live();
        self.collector.cycle(&self.spans, &HeapWorld { heap: self, seat }, cause, stats);
        let limit = self.collector.pacer().memory_limit().0;
        let over = limit != 0 && self.spans.pages().footprint().0 > limit;
        if over || matches!(cause, Cause::Forced | Cause::Limit) {
            self.collector.finish_sweep(&self.spans, stats);
        } else {
            self.sweeper.wake(self);
        }
        if over {
            self.release_pages(Bytes(self.spans.pages().footprint().0.saturating_sub(limit)));
        }
        self.scavenger.cycle_ended(self, live_before);
    }

    /// Whether the caller collects from here on; if not, another did, and has finished.
    fn begin_collection(&self, seat: Seat) -> bool {
        let began = self.collector.timeline().begin();
        let own = self.scheduler.begin_collection(seat);
        if !own {
            self.collector.timeline().end(began, Kind::WaitForCycle, [0; 4]);
        }
        own
    }

    /// Runs `f` with the world stopped and the caches flushed, all swept. `why` is for the timeline.
    ///
    /// # Safety
    /// `m` must be the calling thread's, attached and not blocked, with its registers captured.
    #[inline(never)]
    pub(crate) unsafe fn with_world_stopped<R>(
        &self,
        m: *mut Mutator,
        why: Why,
        f: impl FnOnce(&Stopped<'_>) -> R,
    ) -> R {
        let sweep = || self.collector.finish_sweep(&self.spans, self.spans.stats().unattached());
        // SAFETY: the caller's promise.
        unsafe { self.as_collector(m, why, sweep, f) }
    }

    /// Runs `f` with the world stopped and the caches flushed; what is not swept stays so, and nobody sweeps.
    ///
    /// # Safety
    /// As for [`Self::with_world_stopped`].
    #[inline(never)]
    pub(crate) unsafe fn with_world_still<R>(&self, m: *mut Mutator, f: impl FnOnce(&Stopped<'_>) -> R) -> R {
        // SAFETY: the caller's promise.
        unsafe {
            self.as_collector(
                m,
                Why::Statistics,
                || (),
                |stopped| self.collector.while_no_background_sweep(stopped, || f(stopped)),
            )
        }
    }

    /// Stops the world as a collector does, so that no cycle runs; `before` runs before, with no cycle running either.
    ///
    /// # Safety
    /// As for [`Self::with_world_stopped`].
    unsafe fn as_collector<R>(
        &self,
        m: *mut Mutator,
        why: Why,
        before: impl FnOnce(),
        f: impl FnOnce(&Stopped<'_>) -> R,
    ) -> R {
        // SAFETY: the caller's promise.
        let seat = unsafe { Seat((*m).seat) };
        // SAFETY: as above.
        unsafe { self.hand_in(m) };
        while !self.begin_collection(seat) {
            // SAFETY: the thread runs again, on the P that it had.
            unsafe { self.come_back(m) };
        }
        before();
        let timeline = self.collector.timeline();
        let (asked, began) = timeline.begin_now();
        let ((result, delay), resumed) = self.in_own_stop(seat, |stopped| {
            let (stood, stands) = timeline.begin_now();
            self.flush_caches(stopped);
            let result = f(stopped);
            timeline.end_stop(stands, Kind::WorldStopped, why, Instant::now());
            (result, stood - asked)
        });
        self.collector.measures().other_stop(delay, resumed - asked);
        timeline.end_stop(began, Kind::Hold, why, resumed);
        self.scheduler.end_collection();
        // SAFETY: the thread runs again, on the P that it had.
        unsafe { (*(*m).p).check_generation(self.context()) };
        result
    }

    /// Stops the world for the calling thread, which runs and is the collector, and has it run `f` in it; when the world went on.
    fn in_own_stop<R>(&self, seat: Seat, f: impl FnOnce(&Stopped<'_>) -> R) -> (R, Instant) {
        self.scheduler.stop(self, seat);
        // SAFETY: between the stop and the resume.
        let result = self.act(seat, || unsafe { self.while_stopped(f) });
        (result, self.scheduler.resume(self, Some(seat)))
    }

    /// # Safety
    /// The scheduler must keep the world stopped while the calling thread is in this.
    unsafe fn while_stopped<R>(&self, f: impl FnOnce(&Stopped<'_>) -> R) -> R {
        // The VM's functions may be called now, and look at what any thread did before it stopped.
        acquire(self);
        // SAFETY: the caller's promise: every mutator is parked, and the others are kept from starting.
        let result = f(&unsafe { Stopped::new() });
        release(self);
        result
    }

    fn flush_caches(&self, _: &Stopped<'_>) {
        // SAFETY: the world is stopped, so that nobody holds a P, and none goes.
        unsafe { self.ps.iter().for_each(|p| p.release(self.context())) };
    }
}
