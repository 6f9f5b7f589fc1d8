//! A cycle: finish the last sweep, stop, mark, advance, resume. What is dead is swept afterwards. How it goes when marking
//! is done beside the program is in `beside`.

mod beside;
mod stop;

use crate::layout::Layouts;
use crate::mark::{Marked, Marker, count_marked};
use crate::measures::{Measures, Times};
use crate::pacer::{Cpus, CycleEnd, Marking, Pacer};
use crate::phase::{Phase, PhaseCell};
use crate::scan::{Encoding, Shapes, TraceFn, Visitor};
use crate::specials::Specials;
use crate::specials::ephemerons::Ephemerons;
use crate::timeline::{Began, Gathered, Kind, Timeline};
use crate::trace_log;
use crate::verify::verify_marks;
use crate::world::World;
use besom_alloc_core::os::OutOfMemory;
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::stopped::Stopped;
use besom_alloc_core::units::{Bytes, Pages};
use besom_stats::sync::raw::{AtomicBool, AtomicU64, Ordering::*};
use besom_stats::sync::{Held, Mutex, hold, lock};
use besom_stats::{PauseLog, Writer, fatal, print_line};
use std::ffi::c_void;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How a heap is collected; fixed for its life.
#[derive(Clone, Copy)]
pub struct Config {
    /// For values.
    pub encoding: Encoding,
    /// For traced objects.
    pub trace: Option<TraceFn>,
    /// Handed to the trace functions.
    pub data: *mut c_void,
    /// Mark workers, at least 1.
    pub mark_workers: usize,
    /// Processors, as counted when the heap was made: counting reads files, and allocates.
    pub cpus: u32,
    /// Growth before the next cycle.
    pub percent: u32,
    /// The soft limit; 0: none.
    pub memory_limit: Bytes,
    /// The hard limit; 0: none.
    pub hard_limit: Bytes,
    /// Marking goes on beside the program.
    pub concurrent: bool,
    /// A second marker checks the first.
    pub verify_marks: bool,
    /// The heap's equations are checked in each cycle.
    pub verify_heap: bool,
    /// One line a cycle.
    pub gc_trace: bool,
}

/// Why a cycle was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The goal was reached.
    Pace,
    /// The program asked for it.
    Forced,
    /// `collect_every`.
    Every,
    /// Memory was refused.
    Limit,
}

/// What is told of a cycle.
#[derive(Clone, Copy, Debug)]
pub struct CycleRecord {
    /// Counted from 1.
    pub number: u64,
    /// Why.
    pub cause: Cause,
    /// Its end, since the heap was made.
    pub since_start: Duration,
    /// Collecting threads' time since then, up to the cycle before.
    pub gc_cpu: Duration,
    /// All of it.
    pub total: Duration,
    /// Finishing the last sweep, beside the program.
    pub sweep: Duration,
    /// Of a cycle beside the program: its stops before the last one.
    pub start: Duration,
    /// From the request of the (last) stop to the stopped world.
    pub stop: Duration,
    /// How long the world was stopped, in all.
    pub pause: Duration,
    /// Beside the program: from the last stop to the end of the flush in it.
    pub flush: Duration,
    /// What marking found.
    pub marked: Marked,
    /// From the end of marking (beside the program, of the flush) to the resumed world.
    pub end: Duration,
    /// The last part of it: the world may go on, and the first threads do.
    pub resume: Duration,
    /// Live bytes before.
    pub before: u64,
    /// The next goal.
    pub goal: u64,
    /// Of a cycle beside the program: its last stop was asked for so long after it began.
    pub beside: Option<Duration>,
}

/// The collector of one heap. One thread at a time runs a cycle: who stops the world sees to it.
pub struct Collector {
    shapes: Shapes,
    marker: Marker,
    pacer: Pacer,
    pauses: PauseLog,
    measures: Measures,
    timeline: Timeline,
    specials: Specials,
    phase: PhaseCell,
    /// The heap is going.
    abandoned: AtomicBool,
    /// Bytes that were allocated black in this cycle, as caches gave them back.
    born: AtomicU64,
    /// When the limiter was told something last, nanoseconds since `started`; and how many mutators ran then, an `f64`.
    limited: AtomicU64,
    ran: AtomicU64,
    config: Config,
    id: u64,
    started: Instant,
    cycles: AtomicU64,
    forced: AtomicU64,
    cpu_ns: AtomicU64,
    /// Held for each step of sweeping in the background, and from the end of sweeping until G has grown: a
    /// sweeper that has read G must not pop from sets whose roles have changed since.
    background: Mutex<()>,
}

// SAFETY: `config.data` is the VM's, see `Shapes`.
unsafe impl Sync for Collector {}
// SAFETY: as above.
unsafe impl Send for Collector {}

static HEAPS: AtomicU64 = AtomicU64::new(0);

impl Collector {
    /// A collector for a heap of this reservation.
    pub fn new(config: Config, reserve: Bytes) -> Result<Collector, OutOfMemory> {
        let layouts = Layouts::new()?;
        let (id, started) = (HEAPS.fetch_add(1, Relaxed) + 1, Instant::now());
        Ok(Collector {
            shapes: Shapes { encoding: config.encoding, trace: config.trace, data: config.data, layouts },
            marker: Marker::new(config.mark_workers, reserve)?,
            pacer: Pacer::new(
                config.percent,
                config.memory_limit,
                config.hard_limit,
                config.concurrent.then_some(Cpus(config.cpus)),
            ),
            pauses: PauseLog::new(),
            measures: Measures::new()?,
            timeline: Timeline::new(id, started),
            specials: Specials::new(reserve)?,
            phase: PhaseCell::new(),
            abandoned: AtomicBool::new(false),
            born: AtomicU64::new(0),
            limited: AtomicU64::new(0),
            ran: AtomicU64::new(1f64.to_bits()),
            config,
            id,
            started,
            cycles: AtomicU64::new(0),
            forced: AtomicU64::new(0),
            cpu_ns: AtomicU64::new(0),
            background: Mutex::new(()),
        })
    }

    /// What is known of shapes.
    pub fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    /// What goes on beside the program.
    #[inline(always)]
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Whether mutators must wait for the end of a cycle that runs beside the program before `bytes` more are allocated.
    #[inline]
    pub fn must_wait(&self, bytes: i64) -> bool {
        self.phase() != Phase::Idle && self.pacer.must_wait(bytes)
    }

    /// Whether marking is done beside the program.
    pub fn is_concurrent(&self) -> bool {
        self.config.concurrent
    }

    /// Whether a cycle should begin before `bytes` more are allocated.
    #[inline]
    pub fn is_due(&self, bytes: i64) -> bool {
        self.pacer.is_past_trigger(bytes) && self.phase() == Phase::Idle && self.may_begin(bytes)
    }

    #[inline(never)]
    fn may_begin(&self, bytes: i64) -> bool {
        if self.pacer.limiter().limiting() {
            self.ease_limiter();
        }
        self.pacer.due_with(bytes)
    }

    /// The marker.
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    /// Objects of so many bytes were allocated black.
    pub fn born(&self, bytes: u64) {
        self.born.fetch_add(bytes, Relaxed);
    }

    /// The pacer.
    #[inline(always)]
    pub fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    /// Weak references, finalizers, cleanups.
    #[inline]
    pub fn specials(&self) -> &Specials {
        &self.specials
    }

    /// Ephemerons.
    pub fn ephemerons(&self) -> &Ephemerons {
        self.marker.ephemerons()
    }

    /// The stops.
    pub fn pauses(&self) -> &PauseLog {
        &self.pauses
    }

    /// What is measured of cycles and stops.
    pub fn measures(&self) -> &Measures {
        &self.measures
    }

    /// What is recorded for a picture.
    #[inline(always)]
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Records how large the heap is, if a session is on.
    pub fn sample(&self, heap: &SpanHeap) {
        if let Some(now) = self.timeline.begin() {
            let footprint = heap.pages().footprint().0 as u64;
            self.timeline.sample(now, self.pacer.live(), self.pacer.goal(), footprint);
        }
    }

    /// The same, now and then while the heap grows.
    #[inline]
    pub fn sample_growth(&self, heap: &SpanHeap) {
        if let Some(now) = self.timeline.begin()
            && self.timeline.sample_is_due(&now)
        {
            self.sample(heap);
        }
    }

    /// Cycles so far, and those among them that the program asked for.
    pub fn cycles(&self) -> (u64, u64) {
        // The forced ones first: no later one is among them that `cycles` misses.
        let forced = self.forced.load(Acquire);
        (self.cycles.load(Relaxed), forced)
    }

    /// Bytes that the mark queues hold of the system.
    pub fn work_bytes(&self) -> Bytes {
        self.marker.work_bytes()
    }

    /// Bytes of the collector's own, for as long as it lives.
    pub fn own_bytes(&self) -> Bytes {
        self.marker.own_bytes() + self.measures.own_bytes()
    }

    /// Processors that there are.
    pub fn cpus(&self) -> usize {
        self.config.cpus as usize
    }

    /// Processor time of marking, and all processors' time since the heap was made.
    pub fn cpu(&self) -> (Duration, Duration) {
        let marking = Duration::from_nanos(self.cpu_ns.load(Relaxed));
        (marking, self.started.elapsed() * self.config.cpus)
    }

    /// Calls `f` while the background sweeper rests.
    pub fn while_no_background_sweep<R>(&self, _: &Stopped<'_>, f: impl FnOnce() -> R) -> R {
        let _held = lock(&self.background);
        f()
    }

    /// Runs a cycle on the calling thread, which counts as stopped for the time (or, beside the program, as one that does
    /// not run).
    pub fn cycle(&self, heap: &SpanHeap, world: &impl World, cause: Cause, stats: Writer<'_>) {
        if self.config.concurrent {
            self.cycle_beside(heap, world, cause, stats);
        } else {
            self.cycle_stopped(heap, world, cause, stats);
        }
    }

    fn cycle_stopped(&self, heap: &SpanHeap, world: &impl World, cause: Cause, stats: Writer<'_>) {
        self.sample(heap);
        let (begin, shown) = self.timeline.begin_now();
        let helpers = self.marker.prepare(self.likely_live());
        let background = lock(&self.background);
        self.measures.swept_to_finish(heap.finish_sweep(stats));
        let ((number, before, marked, ended), stop) = self.in_stop(world, |stopped| {
            world.flush_caches(stopped);
            let before = self.pacer.live();
            let work = self.marker.work_bytes().0 as i64;
            if self.config.verify_heap {
                heap.check(stopped);
            }
            let roots = |visitor: &mut dyn Visitor| world.visit_roots(stopped, visitor);
            let (shapes, specials) = (&self.shapes, &self.specials);
            let marked = self.marker.mark(heap, shapes, specials, stopped, helpers, &self.timeline, roots);
            let ended = Instant::now();
            self.count_work_bytes(work, stats);
            self.verify(heap, world, stopped, marked.live);
            let number = self.conclude(heap, stopped, cause, &marked, None);
            (number, before, marked, ended)
        });
        drop(background);
        self.sample(heap);
        let pause = stop.pause();
        self.record_pause(pause, pause);
        let times = Times {
            sweep: stop.asked - begin,
            stop: stop.delay(),
            marked: ended - stop.asked,
            pause,
            start: Duration::ZERO,
        };
        self.measures.cycle(cause, &marked, times, None);
        let cpu = self.cpu_ns.fetch_add(marked.cpu.as_nanos() as u64, Relaxed);
        let record = CycleRecord {
            number,
            cause,
            since_start: stop.resumed - self.started,
            gc_cpu: Duration::from_nanos(cpu),
            total: stop.resumed - begin,
            sweep: stop.asked - begin,
            start: Duration::ZERO,
            stop: stop.delay(),
            pause,
            flush: Duration::ZERO,
            marked,
            end: stop.resumed - ended,
            resume: stop.resumed - stop.ready,
            before,
            goal: self.pacer.goal(),
            beside: None,
        };
        self.tell(shown, &record);
    }

    /// Shows a cycle that has ended in the timeline and in the trace.
    fn tell(&self, shown: Option<Began>, record: &CycleRecord) {
        self.timeline.cycle(shown, record);
        if self.config.gc_trace {
            trace_log::print(self.id, self.config.cpus, record);
        }
    }

    /// Bytes that a cycle is taken to mark when it is decided who is woken; when marks are verified all that may live, so that workers meet in
    /// small heaps, too.
    fn likely_live(&self) -> Bytes {
        match self.config.verify_marks || self.config.verify_heap {
            true => Bytes(self.pacer.live() as usize),
            false => self.pacer.likely_live(),
        }
    }

    /// Has the count of live bytes and, by a second marker, the marks checked, if asked for.
    fn verify(&self, heap: &SpanHeap, world: &impl World, stopped: &Stopped<'_>, live: Bytes) {
        if self.config.verify_heap {
            let marked = count_marked(heap, stopped);
            if marked != live {
                fatal(format_args!("verify: {} bytes are marked, and {} were counted", marked.0, live.0));
            }
        }
        if !self.config.verify_marks {
            return;
        }
        let roots = |visitor: &mut dyn Visitor| world.visit_roots(stopped, visitor);
        let reached = verify_marks(heap, &self.shapes, self.config.concurrent, roots);
        self.specials.verify(heap);
        if reached.is_none() {
            print_line(format_args!("verify: no memory for the second marking; left out"));
        }
    }

    /// Makes everything unswept, sets the next goal, and counts the cycle; its number.
    fn conclude(
        &self,
        heap: &SpanHeap,
        stopped: &Stopped<'_>,
        cause: Cause,
        marked: &Marked,
        marking: Option<Marking>,
    ) -> u64 {
        heap.advance_generation(stopped);
        self.measures.sweep_due(heap.pages().in_use());
        self.pacer.end_cycle(self.cycle_end(heap, marked, marking));
        let number = self.cycles.load(Relaxed) + 1;
        self.cycles.store(number, Relaxed);
        if cause == Cause::Forced {
            self.forced.store(self.forced.load(Relaxed) + 1, Release);
        }
        number
    }

    /// Takes down how long a cycle stopped the world, in sum and at most at a time.
    fn record_pause(&self, sum: Duration, longest: Duration) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let [sum, longest, unix] = [sum, longest, unix].map(|d| d.as_nanos() as u64);
        self.pauses.record(sum, longest, unix);
    }

    /// Credits what the mark queues have grown by, from `before`.
    fn count_work_bytes(&self, before: i64, stats: Writer<'_>) {
        let grown = self.marker.work_bytes().0 as i64 - before;
        let guard = stats.acquire();
        guard.mapped(grown);
        guard.committed(grown);
        guard.in_work_bufs(grown);
    }

    fn cycle_end(&self, heap: &SpanHeap, marked: &Marked, marking: Option<Marking>) -> CycleEnd {
        let pages = heap.pages();
        let free = pages.free_pages().bytes().0;
        let held = pages.footprint().0.saturating_sub(free);
        // Part-filled spans will be filled before new pages are taken: the overhead is what filling leaves.
        let overhead = held.saturating_sub(pages.in_use().bytes().0);
        CycleEnd {
            live: marked.live,
            roots: marked.roots,
            specials: self.specials.bytes(),
            pages: pages.in_use(),
            overhead: Bytes(overhead),
            hard_limit: self.config.hard_limit,
            marking,
        }
    }

    /// Keeps everybody from starting or stopping the timeline, and the background sweeper from its next step. To be taken
    /// before the locks of the heap.
    pub fn hold_first(&self) -> [Held<'_>; 2] {
        [self.timeline.hold(), hold(&self.background)]
    }

    /// Keeps everybody outside of what the collector has locks for. To be taken after the locks of the heap; no cycle runs.
    pub fn hold_last(&self) -> [Held<'_>; 11] {
        let [threads, jobs, blocks] = self.marker.hold();
        let [a, b, c, d, e] = self.specials.hold();
        [threads, jobs, blocks, self.pacer.hold(), self.measures.hold(), self.pauses.hold(), a, b, c, d, e]
    }

    /// In the child of a fork that was made while both were held: there are no other threads.
    pub fn after_fork(&self) {
        self.marker.after_fork();
        self.timeline.after_fork();
    }

    /// Sweeps what is due before `bytes` more are allocated; the pages.
    #[inline]
    pub fn pay_sweep_debt(&self, heap: &SpanHeap, bytes: i64, stats: Writer<'_>) -> Pages {
        let mut debt = self.pacer.sweep_debt(bytes);
        let mut paid = Pages(0);
        while debt.0 > 0 {
            let swept = heap.sweep_one(stats);
            self.pacer.swept(swept);
            let Some(pages) = swept else { break };
            paid.0 += pages.0;
            debt = Pages(debt.0.saturating_sub(pages.0));
        }
        paid
    }

    /// Sweeps one span beside the program; false when none is left. For threads that no stop waits for. `shown` is the
    /// slice that these steps make.
    pub fn sweep_in_background(&self, heap: &SpanHeap, shown: &mut Gathered) -> bool {
        let _held = lock(&self.background);
        let began = self.timeline.begin();
        let swept = heap.sweep_one(heap.stats().unattached());
        self.pacer.swept(swept);
        self.measures.swept_in_background(swept.unwrap_or_default());
        if let (Some(began), Some(pages)) = (began, swept) {
            self.timeline.gather(shown, Kind::BackgroundSweep, began, pages);
        }
        swept.is_some()
    }

    /// Sweeps all that is left.
    pub fn finish_sweep(&self, heap: &SpanHeap, stats: Writer<'_>) {
        let began = self.timeline.begin();
        self.measures.swept_to_finish(heap.finish_sweep(stats));
        self.pacer.swept(None);
        self.timeline.end(began, Kind::SweepRest, [0; 4]);
        self.sample(heap);
    }
}
