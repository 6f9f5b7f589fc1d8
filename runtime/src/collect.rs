//! Stops, safepoints, and collections, as mutators take part in them.

use crate::heap::Heap;
use crate::mutator::{ATTACHED, BLOCKED, COLLECTING, Mutator};
use crate::scheduler::Seat;
use besom_alloc_core::stopped::Stopped;
use besom_alloc_core::units::Bytes;
use besom_gc::timeline::{Kind, Why};
use besom_gc::{Cause, Tracer, Visitor, World};
use besom_stats::race_detector::{acquire, outside, release};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// The world, as a mutator stops it: to collect, or to look at it.
struct HeapWorld<'h> {
    heap: &'h Heap,
    seat: Seat,
    /// Of a stop that is no cycle's, which the collector measures: its request, and how long the stop was in coming.
    looks: Option<Cell<(Instant, Duration)>>,
}

impl World for HeapWorld<'_> {
    fn stop(&self) -> Stopped<'_> {
        let asked = Instant::now();
        self.heap.scheduler.stop(self.heap, self.seat);
        // The VM's functions may be called now, and look at what any thread did before it stopped.
        acquire(self.heap);
        if let Some(times) = &self.looks {
            times.set((asked, asked.elapsed()));
        }
        // SAFETY: the entry is the calling thread's.
        unsafe { Mutator::set_state(self.heap.mutator(self.seat), COLLECTING) };
        // SAFETY: the scheduler has parked every mutator, and keeps the others from starting.
        unsafe { Stopped::new() }
    }

    fn resume(&self, _: Stopped<'_>) {
        // SAFETY: as in `stop`.
        unsafe { Mutator::set_state(self.heap.mutator(self.seat), ATTACHED) };
        release(self.heap);
        self.heap.scheduler.resume(self.heap, self.seat);
        if let Some((asked, delay)) = self.looks.as_ref().map(Cell::get) {
            self.heap.collector.measures().other_stop(delay, asked.elapsed());
        }
    }

    fn flush_caches(&self, _: &Stopped<'_>) {
        let cx = self.heap.context();
        // SAFETY: the world is stopped, so that nobody holds a P, and none goes.
        unsafe { self.heap.ps.iter().for_each(|p| p.release(cx)) };
    }

    fn visit_roots(&self, _: &Stopped<'_>, visitor: &mut dyn Visitor) -> Bytes {
        let heap = self.heap;
        let mut bytes = heap.roots.visit(visitor) + heap.handles.for_each(|object| visitor.any(object));
        bytes += heap.collector.specials().for_each_due_object(|object| visitor.any(object));
        for m in heap.mutators() {
            // SAFETY: the world is stopped: an attached thread is parked or blocked, and captured its registers.
            unsafe {
                if matches!(Mutator::state(m), ATTACHED | BLOCKED | COLLECTING) {
                    bytes += (*m).visit_roots(visitor);
                }
            }
        }
        if let Some(roots) = heap.options.roots {
            let mut tracer = Tracer::new(visitor);
            // SAFETY: the VM's function with the VM's data.
            outside(|| unsafe { roots(&mut tracer, std::ptr::null_mut(), heap.options.data) });
        }
        bytes
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
            let kind = if Mutator::stops(m) { Kind::Stopped } else { Kind::WaitForP };
            let p = self.waiting(kind, || self.scheduler.safepoint(self, Seat((*m).seat)));
            self.sit(m, p);
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
            Mutator::set_state(m, ATTACHED);
            self.sit(m, p);
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
        let own = self.begin_collection(seat);
        if own {
            self.collect_as(seat, cause);
        }
        // SAFETY: the thread runs again, on the P that it had.
        unsafe { (*(*m).p).check_generation(self.context()) };
        own
    }

    /// Runs a cycle, which the caller has begun, and ends it.
    fn collect_as(&self, seat: Seat, cause: Cause) {
        let stats = self.spans.stats().unattached();
        self.collector.cycle(&self.spans, &HeapWorld { heap: self, seat, looks: None }, cause, stats);
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
        self.scheduler.end_collection();
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
        while !self.begin_collection(seat) {}
        before();
        let looks = Some(Cell::new((Instant::now(), Duration::ZERO)));
        let world = HeapWorld { heap: self, seat, looks };
        let timeline = self.collector.timeline();
        let began = timeline.begin();
        let stopped = world.stop();
        let stands = timeline.begin();
        world.flush_caches(&stopped);
        let result = f(&stopped);
        timeline.end_stop(stands, Kind::WorldStopped, why);
        world.resume(stopped);
        timeline.end_stop(began, Kind::Hold, why);
        self.scheduler.end_collection();
        // SAFETY: the thread runs again, on the P that it had.
        unsafe { (*(*m).p).check_generation(self.context()) };
        result
    }
}
