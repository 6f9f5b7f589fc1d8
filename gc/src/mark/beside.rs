//! Marking beside the program: a leader and its helpers, which take turns, and guests, which are mutators.
//!
//! A worker is active while it holds work. When nobody is active and nothing lies in the pile or the deques, marking is
//! done, if it stays so until the world is stopped: only guests can bring more.

use super::turn::Turns;
use super::worker::Worker;
use super::{Marker, count_marked};
use crate::scan::{Shapes, Visitor};
use crate::timeline::{Kind, Timeline};
use besom_alloc_core::os::thread_cpu_time;
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::stopped::Stopped;
use besom_alloc_core::units::Bytes;
use besom_stats::sync::raw::{AtomicBool, AtomicU64, Ordering::*};
use besom_stats::sync::{Condvar, Mutex, lock};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Bytes that a worker marks between two looks at whose turn it is. Higher: turns are kept less well, and the other
/// workers learn of the work done later. Lower: the clock is read more often than it pays.
const QUANTUM: usize = 128 << 10;
/// How long a worker rests that has no turn or finds no work. Higher: work waits. Lower: it wakes for nothing.
const REST: Duration = Duration::from_micros(100);
/// Looks for work of an assist that found none, before it gives up.
const LOOKS: u32 = 200;

/// Where workers rest.
#[derive(Default)]
pub(super) struct Bell {
    lock: Mutex<()>,
    rung: Condvar,
}

impl Bell {
    fn rest(&self) {
        let guard = lock(&self.lock);
        drop(self.rung.wait_timeout(guard, REST).unwrap_or_else(PoisonError::into_inner));
    }

    fn ring(&self) {
        self.rung.notify_all();
    }
}

/// The worker that leads a cycle.
pub struct Lead<'a> {
    marker: &'a Marker,
    heap: &'a SpanHeap,
    turns: &'a Turns<'a>,
    worker: Worker<'a, true>,
}

impl Marker {
    /// A cycle beside the program begins: the world is stopped, and nobody marks.
    pub fn begin_beside(&self, _: &Stopped<'_>) {
        self.shared.reports.reset();
    }

    /// What is reported so far.
    pub fn reports(&self) -> &super::reports::Reports {
        &self.shared.reports
    }

    /// Shows `f` a visitor that marks, on the calling thread, while a cycle is going on that cannot end meanwhile: the
    /// thread runs, or holds what the cycle needs.
    pub fn guest<R>(&self, heap: &SpanHeap, shapes: &Shapes, f: impl FnOnce(&mut dyn Visitor) -> R) -> R {
        self.shared.termination.join();
        let mut worker = Worker::guest(heap, shapes, &self.shared);
        let result = f(&mut worker);
        worker.hand_over();
        worker.leave();
        result
    }

    /// Marks about `work` bytes on the calling thread, which runs; less if there is nothing to do. What was done.
    pub fn assist(&self, heap: &SpanHeap, shapes: &Shapes, work: Bytes) -> Bytes {
        let mut worker = Worker::guest(heap, shapes, &self.shared);
        let mut active = worker.enter();
        if !active {
            active = self.shared.termination.waiting(|| {
                (0..LOOKS).any(|_| {
                    besom_stats::sync::spin_loop();
                    worker.enter()
                })
            });
        }
        while active && worker.done() < work.0 {
            if worker.drain_some(work.0 - worker.done()) {
                active = worker.refill();
            }
        }
        if active {
            worker.hand_over();
            worker.leave();
        }
        Bytes(worker.done())
    }

    /// Runs `lead` on the calling thread, and helpers beside it until it ends. The processor time of all of them.
    pub fn lead<R>(
        &self,
        heap: &SpanHeap,
        shapes: &Shapes,
        turns: &Turns<'_>,
        timeline: &Timeline,
        lead: impl FnOnce(&mut Lead<'_>) -> R,
    ) -> (R, Duration, usize) {
        let began = thread_cpu_time();
        let (helpers_ns, helpers, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let help = |index: usize| {
            let (began, shown) = (thread_cpu_time(), timeline.begin());
            let marked = self.help(heap, shapes, turns, index, &over);
            if marked.0 != 0 {
                timeline.end(shown, Kind::MarkHelper, [marked.0 as u64, 0, 0, 0]);
                helpers.fetch_add(1, Relaxed);
            }
            helpers_ns.fetch_add((thread_cpu_time() - began).as_nanos() as u64, Relaxed);
        };
        let own = lock(&self.deques[0]);
        let mut result = None;
        self.gang.run(self.gang.started(), &help, || {
            let worker = Worker::new(heap, shapes, &self.shared, &own, 0);
            let mut leader = Lead { marker: self, heap, turns, worker };
            result = Some(lead(&mut leader));
            over.store(true, Release);
            self.bell.ring();
        });
        self.shared.pool.trim();
        let cpu = thread_cpu_time() - began + Duration::from_nanos(helpers_ns.load(Relaxed));
        match result {
            Some(result) => (result, cpu, 1 + helpers.load(Relaxed) as usize),
            None => besom_stats::fatal(format_args!("mark: nobody led")),
        }
    }

    /// A helper's part; the bytes that it marked.
    fn help(
        &self,
        heap: &SpanHeap,
        shapes: &Shapes,
        turns: &Turns<'_>,
        index: usize,
        over: &AtomicBool,
    ) -> Bytes {
        let deque = lock(&self.deques[index]);
        let mut worker = Worker::<true>::new(heap, shapes, &self.shared, &deque, index);
        let mut active = false;
        while !over.load(Acquire) {
            if !turns.may_run(index) {
                if active {
                    worker.hand_over();
                    worker.leave();
                    active = false;
                }
                self.bell.rest();
                continue;
            }
            active = active || worker.enter();
            if active {
                active = self.quantum(&mut worker, index, turns);
            } else {
                self.shared.termination.waiting(|| self.bell.rest());
            }
        }
        if active {
            worker.hand_over();
            worker.leave();
        }
        worker.live()
    }

    /// Marks for a while; whether the worker has something in its hands still.
    fn quantum(&self, worker: &mut Worker<'_, true>, index: usize, turns: &Turns<'_>) -> bool {
        let (began, done) = (Instant::now(), worker.done());
        let empty = worker.drain_some(QUANTUM);
        turns.took(index, began);
        worker.report();
        self.shared.reports.earn(Bytes(worker.done() - done));
        !empty || worker.refill()
    }
}

impl Lead<'_> {
    /// Shows `f` a visitor that marks. Nobody else knows that the leader is at work: not to be used to look whether all
    /// is done.
    pub fn visit<R>(&mut self, f: impl FnOnce(&mut dyn Visitor) -> R) -> R {
        self.marker.shared.termination.join();
        let result = f(&mut self.worker);
        self.worker.hand_over();
        self.worker.leave();
        result
    }

    /// Marks in its turns until nothing is left, for now, or `between`, which is called now and then, says that it need not
    /// go on: false.
    pub fn drain(&mut self, mut between: impl FnMut() -> bool) -> bool {
        let mut active = false;
        loop {
            if !between() {
                if active {
                    self.worker.hand_over();
                    self.worker.leave();
                }
                return false;
            }
            if !self.turns.may_run(0) {
                if active {
                    self.worker.hand_over();
                    self.worker.leave();
                    active = false;
                }
                self.marker.bell.rest();
                continue;
            }
            active = active || self.worker.enter();
            if active {
                active = self.marker.quantum(&mut self.worker, 0, self.turns);
            } else if self.is_quiet() {
                return true;
            } else {
                self.marker.shared.termination.waiting(|| self.marker.bell.rest());
            }
        }
    }

    /// Marks for one turn, if there is anything to mark; else rests.
    pub fn some(&mut self) {
        if self.turns.may_run(0) && self.worker.enter() {
            if self.marker.quantum(&mut self.worker, 0, self.turns) {
                self.worker.hand_over();
                self.worker.leave();
            }
        } else {
            self.marker.bell.rest();
        }
    }

    /// Whether nobody marks, and nothing is grey.
    pub fn is_quiet(&self) -> bool {
        let shared = &self.marker.shared;
        shared.termination.is_quiet(|| !shared.has_work(usize::MAX))
    }

    /// Marks what there is, with nobody else at work, in a stopped world.
    pub fn finish(&mut self, _: &Stopped<'_>) {
        if self.worker.enter() {
            while !self.worker.drain_some(usize::MAX / 4) || self.worker.refill() {}
        }
    }

    /// In the last stop: scans again what could not be queued, and says how much is marked. `born` is what was allocated
    /// marked.
    pub fn conclude(&mut self, stopped: &Stopped<'_>, born: Bytes) -> Bytes {
        let shared = &self.marker.shared;
        while shared.overflowed.swap(false, Relaxed) {
            self.worker.rescan(stopped);
        }
        if shared.recount.swap(false, Relaxed) {
            return count_marked(self.heap, stopped);
        }
        shared.reports.live() + born
    }
}
