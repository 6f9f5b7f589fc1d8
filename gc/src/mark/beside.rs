//! Marking beside the program: a leader and its helpers, which take turns, and guests, which are mutators.
//!
//! A worker is active while it holds work. When nobody is active and nothing lies in the pile, marking is
//! done, if it stays so until the world is stopped: only guests can bring more.

use super::Marker;
use super::turn::{Turn, Turns};
use super::worker::Worker;
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

/// Bytes that a worker marks between two looks at whose turn it is. Higher: turns are kept less well. Lower: where the program has
/// a thread on each processor, a worker takes one from it more often for a shorter while, and that the clock is read costs more.
const QUANTUM: usize = 512 << 10;
/// How long a worker rests that has no turn or finds no work. Higher: work waits. Lower: it wakes for nothing.
const REST: Duration = Duration::from_micros(100);
/// Bytes of marking after which a worker says what it has earned. Higher: mutators mark what they owe while a worker has done so
/// already. Lower: shared lines are written more often.
const EARN: usize = 32 << 10;
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

/// What came of a worker's step.
#[derive(PartialEq, Eq)]
enum Step {
    /// It marked, or rested, since it was not its turn.
    Done,
    /// It was its turn, and it found nothing to mark.
    Nothing,
}

/// The worker that leads a cycle.
pub struct Lead<'a> {
    marker: &'a Marker,
    heap: &'a SpanHeap,
    turns: &'a Turns<'a>,
    worker: Worker<'a, true>,
}

// SAFETY: the blocks that the worker points to are its own, nothing in it is bound to its thread, and who owns this waits while
// another thread uses it.
unsafe impl Send for Lead<'_> {}

impl Marker {
    /// A cycle beside the program begins: the world is stopped, and nobody marks.
    pub fn begin_beside(&self, _: &Stopped<'_>) {
        self.shared.reports.reset();
        self.shared.twice.store(0, Relaxed);
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
        worker.retire();
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
            worker.retire();
        }
        Bytes(worker.done())
    }

    /// Runs `lead` on the calling thread, and so many helpers at most beside it until it ends. What it returns, the processor time of all of
    /// them, and how many they were.
    pub fn lead<R>(
        &self,
        heap: &SpanHeap,
        shapes: &Shapes,
        helpers: usize,
        turns: &Turns<'_>,
        timeline: &Timeline,
        lead: impl FnOnce(&mut Lead<'_>) -> R,
    ) -> (R, Duration, usize) {
        let began = thread_cpu_time();
        let (helpers_ns, came, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let help = |index: usize| {
            let (began, shown) = (thread_cpu_time(), timeline.begin());
            let marked = self.help(heap, shapes, turns, index, &over);
            if marked.0 != 0 {
                timeline.end(shown, Kind::MarkHelper, [marked.0 as u64, 0, 0, 0]);
                came.fetch_add(1, Relaxed);
            }
            helpers_ns.fetch_add((thread_cpu_time() - began).as_nanos() as u64, Relaxed);
        };
        let result = self.gang.run(helpers, &help, || {
            let worker = Worker::new(heap, shapes, &self.shared, 0);
            let mut leader = Lead { marker: self, heap, turns, worker };
            let result = lead(&mut leader);
            over.store(true, Release);
            self.bell.ring();
            result
        });
        self.shared.pool.trim();
        let cpu = thread_cpu_time() - began + Duration::from_nanos(helpers_ns.load(Relaxed));
        (result, cpu, 1 + came.load(Relaxed) as usize)
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
        let mut worker = Worker::<true>::new(heap, shapes, &self.shared, index);
        let mut active = false;
        while !over.load(Acquire) {
            if self.step(&mut worker, index, turns, &mut active) == Step::Nothing {
                self.shared.termination.waiting(|| self.bell.rest());
            }
        }
        if active {
            worker.retire();
        }
        worker.live()
    }

    /// What a worker that takes turns does next: it marks for a while, or rests until its turn comes, with nothing in its
    /// hands. `active` says whether it has something in them.
    fn step(
        &self,
        worker: &mut Worker<'_, true>,
        index: usize,
        turns: &Turns<'_>,
        active: &mut bool,
    ) -> Step {
        let Some(turn) = turns.take(index) else {
            if std::mem::take(active) {
                worker.retire();
            }
            self.bell.rest();
            return Step::Done;
        };
        if !*active && !worker.enter() {
            return Step::Nothing;
        }
        *active = self.quantum(worker, turns, turn);
        Step::Done
    }

    /// Marks for a while; whether the worker has something in its hands still.
    fn quantum(&self, worker: &mut Worker<'_, true>, turns: &Turns<'_>, turn: Turn) -> bool {
        let (began, end) = (Instant::now(), worker.done() + QUANTUM);
        let mut empty = false;
        while !empty && worker.done() < end {
            let done = worker.done();
            empty = worker.drain_some(EARN);
            worker.report();
            self.shared.reports.earn(Bytes(worker.done() - done));
        }
        turns.took(turn, began.elapsed());
        !empty || worker.refill()
    }
}

impl Lead<'_> {
    /// Shows `f` a visitor that marks. Nobody else knows that the leader is at work: not to be used to look whether all
    /// is done.
    pub fn visit<R>(&mut self, f: impl FnOnce(&mut dyn Visitor) -> R) -> R {
        self.marker.shared.termination.join();
        self.worker.look_for_watch();
        let result = f(&mut self.worker);
        self.worker.retire();
        result
    }

    /// Marks in its turns until nothing is grey, or until `between`, called before each step, says no: false.
    pub fn drain(&mut self, mut between: impl FnMut() -> bool) -> bool {
        let (marker, mut active) = (self.marker, false);
        while between() {
            if marker.step(&mut self.worker, 0, self.turns, &mut active) == Step::Nothing {
                if self.is_quiet() {
                    return true;
                }
                marker.shared.termination.waiting(|| marker.bell.rest());
            }
        }
        if active {
            self.worker.retire();
        }
        false
    }

    /// Marks for one turn, if there is anything to mark; else rests.
    pub fn some(&mut self) {
        let mut active = false;
        if self.marker.step(&mut self.worker, 0, self.turns, &mut active) == Step::Nothing {
            self.marker.bell.rest();
        }
        if active {
            self.worker.retire();
        }
    }

    /// Whether nobody marks, and nothing is grey.
    pub fn is_quiet(&self) -> bool {
        let shared = &self.marker.shared;
        shared.termination.is_quiet(|| shared.pile.is_empty())
    }

    /// The same, and no ephemeron waits for its key that nobody would wake.
    pub fn is_done(&self) -> bool {
        self.is_quiet() && !self.marker.shared.ephemerons.has_waiting()
    }

    /// Once all else is marked: has ephemerons that wait for their keys woken by who marks these. True: it did something,
    /// and there may be more to mark. First it says so to all who come to mark, then, when those who had come before have
    /// left, it goes through what waits.
    pub fn look_after_ephemerons(&mut self) -> bool {
        let (heap, shared) = (self.heap, &self.marker.shared);
        if shared.ephemerons.begin_watch(&heap.system().gc) {
            shared.termination.announce();
            return true;
        }
        let waits = shared.ephemerons.has_waiting();
        if waits {
            self.visit(|visitor| shared.ephemerons.watch_waiting(heap, |value| visitor.any(value)));
        }
        waits
    }

    /// Whether something could not be queued.
    pub fn has_dropped_some(&self) -> bool {
        self.marker.shared.overflowed.load(Relaxed)
    }

    /// Scans again what could not be queued, in a stop, when nothing else is grey.
    pub fn mark_what_was_dropped(&mut self, stopped: &Stopped<'_>) {
        let shared = &self.marker.shared;
        while shared.overflowed.swap(false, Relaxed) {
            self.worker.rescan(stopped);
            while self.look_after_ephemerons() {
                shared.termination.begin();
                self.worker.look_for_watch();
                self.worker.drain();
            }
        }
    }

    /// In the last stop: how much is marked. `born` is what was allocated marked.
    pub fn conclude(&mut self, stopped: &Stopped<'_>, born: Bytes) -> Bytes {
        let shared = &self.marker.shared;
        shared.live(self.heap, stopped, shared.reports.live() + born)
    }
}
