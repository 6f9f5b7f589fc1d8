//! Marking: from the roots to everything that they reach, by one worker or several.
//!
//! An object is marked when it is discovered, and queued if it can hold pointers. Queues are stacks of
//! blocks, local to each worker; whole blocks move between workers through the pile.

pub mod beside;
pub mod block;
pub mod gang;
pub mod pile;
pub mod reports;
pub mod termination;
pub mod turn;
pub mod worker;

use crate::scan::{Shapes, Visitor};
use crate::specials::Specials;
use crate::specials::ephemerons::Ephemerons;
use crate::timeline::{Kind, Timeline};
use beside::Bell;
use besom_alloc_core::os::{OutOfMemory, thread_cpu_time};
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::stopped::Stopped;
use besom_alloc_core::units::Bytes;
use besom_stats::sync::{
    Held, Mutex, lock,
    raw::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};
use block::BlockPool;
use gang::Gang;
use pile::Pile;
use reports::Reports;
use std::time::{Duration, Instant};
use termination::Termination;
use worker::Worker;

/// Bytes likely to be marked from which on helpers are woken. Higher: a middling heap is marked by one
/// core. Lower: a helper's wake-up (some 50 us) costs more than it marks.
const PARALLEL_FROM: Bytes = Bytes(1 << 20);

/// What the workers of one heap share.
///
/// - when nobody is active, `live of all workers - twice` == bytes of the slots that are marked, but for those born so, unless `recount`
pub struct Shared {
    pub(crate) pool: BlockPool,
    pub(crate) termination: Termination,
    /// Grey objects that are no worker's.
    pub(crate) pile: Pile,
    /// Of a cycle beside the program, what those who mark have reported: at the latest when they leave.
    pub(crate) reports: Reports,
    pub(crate) ephemerons: Ephemerons,
    /// A marked object could not be queued: the pool was empty.
    pub(crate) overflowed: AtomicBool,
    /// Live bytes were counted wrongly, by a rescan.
    pub(crate) recount: AtomicBool,
    /// Bytes that were counted too often: of slots that several workers marked at the same time.
    pub(crate) twice: AtomicUsize,
}

impl Shared {
    /// Bytes of the slots that are marked, of which so much was counted. Nobody is active.
    fn live(&self, heap: &SpanHeap, stopped: &Stopped<'_>, counted: Bytes) -> Bytes {
        let twice = Bytes(self.twice.swap(0, Relaxed));
        if self.recount.swap(false, Relaxed) { count_marked(heap, stopped) } else { counted - twice }
    }
}

/// The marker of one heap.
pub struct Marker {
    shared: Shared,
    gang: Gang,
    bell: Bell,
}

/// What marking found and took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marked {
    /// Bytes of the slots that are marked.
    pub live: Bytes,
    /// Bytes of roots.
    pub roots: Bytes,
    /// From the start of the root scan to its end.
    pub root_time: Duration,
    /// From there to the end of marking.
    pub drain_time: Duration,
    /// Workers' processor time in sum.
    pub cpu: Duration,
    /// Workers that took part.
    pub workers: usize,
}

impl Marker {
    /// A marker with at most `workers` workers, the caller of a cycle among them.
    pub fn new(workers: usize, reserve: Bytes) -> Result<Marker, OutOfMemory> {
        Ok(Marker {
            shared: Shared {
                pool: BlockPool::new(reserve, workers)?,
                termination: Termination::new(),
                pile: Pile::new(),
                reports: Reports::new(),
                ephemerons: Ephemerons::new(reserve)?,
                overflowed: AtomicBool::new(false),
                recount: AtomicBool::new(false),
                twice: AtomicUsize::new(0),
            },
            gang: Gang::new(workers - 1),
            bell: Bell::default(),
        })
    }

    /// Does what the threads of a cycle must not do while the world is stopped, i.e. what allocates. How many helpers
    /// are to be woken where so much is likely to be marked.
    pub fn prepare(&self, likely: Bytes) -> usize {
        if likely < PARALLEL_FROM {
            return 0;
        }
        self.gang.ensure_started();
        self.gang.started()
    }

    /// Marks everything that `roots` shows and what that reaches, and resolves the specials.
    pub fn mark(
        &self,
        heap: &SpanHeap,
        shapes: &Shapes,
        specials: &Specials,
        stopped: &Stopped<'_>,
        helpers: usize,
        timeline: &Timeline,
        roots: impl FnOnce(&mut dyn Visitor) -> Bytes,
    ) -> Marked {
        if helpers > 0 {
            self.mark_with::<true>(heap, shapes, specials, stopped, helpers, timeline, roots)
        } else {
            self.mark_with::<false>(heap, shapes, specials, stopped, 0, timeline, roots)
        }
    }

    fn mark_with<const PARALLEL: bool>(
        &self,
        heap: &SpanHeap,
        shapes: &Shapes,
        specials: &Specials,
        stopped: &Stopped<'_>,
        helpers: usize,
        timeline: &Timeline,
        roots: impl FnOnce(&mut dyn Visitor) -> Bytes,
    ) -> Marked {
        let (start, began) = (Instant::now(), thread_cpu_time());
        let mut first = Worker::<PARALLEL>::new(heap, shapes, &self.shared, 0);
        let ephemerons = &self.shared.ephemerons;
        ephemerons.begin_cycle();
        self.shared.termination.begin();
        let roots = roots(&mut first);
        let rooted = Instant::now();
        let totals = Mutex::new((Bytes(0), Duration::ZERO, 1usize));
        let mut workers = 1;
        let helper = |index: usize| {
            let (began, shown) = (thread_cpu_time(), timeline.begin());
            let mut worker = Worker::<PARALLEL>::new(heap, shapes, &self.shared, index);
            self.shared.termination.join();
            worker.drain();
            timeline.end(shown, Kind::MarkHelper, [worker.live().0 as u64, 0, 0, 0]);
            let mut totals = lock(&totals);
            totals.0 += worker.live();
            totals.1 += thread_cpu_time() - began;
            totals.2 += 1;
        };
        let mut drain = |first: &mut Worker<'_, PARALLEL>| {
            self.gang.run(helpers, &helper, || first.drain());
            // Helpers of the next run begin on blocks of their own, on one of which the leader may be.
            first.go_home();
            workers = workers.max(std::mem::replace(&mut lock(&totals).2, 1));
            while self.shared.overflowed.swap(false, Relaxed) {
                first.rescan(stopped);
            }
        };
        // What is still grey, and then what ephemerons keep.
        let mut finish = |first: &mut Worker<'_, PARALLEL>| {
            drain(first);
            if ephemerons.begin_watch(&heap.system().gc) {
                first.look_for_watch();
                self.shared.termination.begin();
                ephemerons.watch_waiting(heap, |value| first.any(value));
                drain(first);
            }
        };
        finish(&mut first);
        specials.resolve(heap, ephemerons, |dead| {
            self.shared.termination.begin();
            dead.for_each(|object| first.any(object));
            finish(&mut first);
        });
        let (more_live, more_cpu, _) = *lock(&totals);
        let counted = first.live() + more_live;
        drop(first);
        self.shared.pool.trim();
        let live = self.shared.live(heap, stopped, counted);
        let end = Instant::now();
        Marked {
            live,
            roots,
            root_time: rooted - start,
            drain_time: end - rooted,
            cpu: thread_cpu_time() - began + more_cpu,
            workers,
        }
    }

    /// The ephemerons.
    pub fn ephemerons(&self) -> &Ephemerons {
        &self.shared.ephemerons
    }

    /// Keeps helpers from starting and from beginning, and everybody from the blocks; nobody marks.
    pub fn hold(&self) -> [Held<'_>; 3] {
        let [threads, jobs] = self.gang.hold();
        [threads, jobs, self.shared.pool.hold()]
    }

    /// In the child of a fork that was made while [`Self::hold`] was held.
    pub fn after_fork(&self) {
        self.gang.after_fork();
    }

    /// Bytes that the workers keep for as long as the marker lives.
    pub fn own_bytes(&self) -> Bytes {
        self.shared.pool.own_bytes()
    }

    /// Bytes that the queues hold of the system now.
    pub fn work_bytes(&self) -> Bytes {
        self.shared.pool.committed()
    }
}

/// Bytes of all marked slots, by a walk.
pub(crate) fn count_marked(heap: &SpanHeap, stopped: &Stopped<'_>) -> Bytes {
    let mut live = Bytes(0);
    heap.for_each_span(stopped, |page, span| {
        heap.for_each_object(page, span, |offset| {
            if heap.tables().is_marked(offset) {
                live += Bytes(span.slot_bytes());
            }
        });
    });
    live
}
