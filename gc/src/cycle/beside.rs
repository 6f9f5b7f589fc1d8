//! A cycle beside the program: two short stops, and marking between them.
//!
//! 1. Finish the last sweep.
//! 2. Stop. Caches are given back, so that whatever is allocated from here on is allocated black; stores are watched from
//!    here on. What is reachable now is what this cycle keeps: a snapshot, and all that is born after it.
//! 3. Resume. Each mutator scans its own roots before it goes on; the leader scans those of threads that do not run, and
//!    the roots that are nobody's. It marks, with helpers and mutators that assist. A store hands in what it overwrites,
//!    which may be the last way to a part of the snapshot (Yuasa's barrier).
//! 4. When nothing is grey, each mutator hands in what it overwrote last (a handshake without a stop); again, until that
//!    brings nothing.
//! 5. Stop. If something grey has turned up, back to 3. Else let G grow; stores are watched no more. Resume.

use super::{Cause, Collector, CycleRecord};
use crate::mark::Marked;
use crate::mark::beside::Lead;
use crate::mark::turn::Turns;
use crate::measures::{Stops, Times};
use crate::pacer::{CycleEnd, Marking, Spent};
use crate::phase::Phase;
use crate::timeline::{Kind, Why};
use crate::trace_log;
use crate::verify::verify_marks;
use crate::world::World;
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::stopped::Stopped;
use besom_alloc_core::units::Bytes;
use besom_stats::sync::lock;
use besom_stats::sync::raw::Ordering::*;
use besom_stats::{Writer, print_line};
use std::time::{Duration, Instant};

/// Bytes of work between two settings of the assists. Higher: mutators owe by older figures. Lower: more settings.
const REVISE_EVERY: usize = 1 << 20;
/// Time between two settings of the limiter. Higher: it reacts later. Lower: more settings.
const LIMITER_EVERY: Duration = Duration::from_millis(10);

/// What the pacer was told of a cycle so far.
#[derive(Default)]
struct Told {
    work: usize,
    at: Duration,
    background: Duration,
    assist: Duration,
}

/// What a cycle has come to when its last stop is over.
struct Led {
    marked: Marked,
    /// The last stop: its request, the stopped world, the end of the flush, the world ready to go on, and going on.
    asked: Instant,
    stopped: Instant,
    flushed: Instant,
    ready: Instant,
    resumed: Instant,
    number: u64,
}

impl Collector {
    pub(super) fn cycle_beside(
        &self,
        heap: &SpanHeap,
        world: &(impl World + Sync),
        cause: Cause,
        stats: Writer<'_>,
    ) {
        self.sample(heap);
        let (begin, shown) = self.timeline.begin_now();
        self.marker.prepare_beside(Bytes(self.pacer.live() as usize));
        let work = self.marker.work_bytes().0 as i64;
        let background = lock(&self.background);
        self.measures.swept_to_finish(heap.finish_sweep(stats));
        let swept = Instant::now();
        let mut stops = Stops::default();
        let (before, still) = self.start_marking(heap, world, &mut stops);
        let started = Instant::now();
        let running = || world.running();
        let turns = Turns::new(self.config.cpus, cause != Cause::Pace, &running);
        let (led, cpu, workers) = self.marker.lead(heap, &self.shapes, &turns, &self.timeline, |lead| {
            self.lead(heap, world, cause, lead, &turns, &mut stops, started)
        });
        drop(background);
        let Some(mut led) = led else { return };
        led.marked.cpu = cpu + Duration::from_nanos(self.marker.reports().assists_ns());
        led.marked.workers = workers;
        led.marked.roots += still;
        self.count_work_bytes(work, stats);
        self.sample(heap);
        let pause = led.resumed - led.asked;
        self.record_pause(pause + stops.total(), pause.max(stops.longest()));
        let times = Times {
            sweep: swept - begin,
            stop: led.stopped - led.asked,
            marked: led.flushed - led.asked,
            pause,
            start: stops.total(),
        };
        self.measures.cycle(cause, &led.marked, times, Some(&stops));
        let cpu = self.cpu_ns.fetch_add(led.marked.cpu.as_nanos() as u64, Relaxed);
        let record = CycleRecord {
            number: led.number,
            cause,
            since_start: led.resumed - self.started,
            gc_cpu: Duration::from_nanos(cpu),
            total: led.resumed - begin,
            sweep: swept - begin,
            start: stops.total(),
            stop: led.stopped - led.asked,
            pause: pause + stops.total(),
            flush: led.flushed - led.stopped,
            marked: led.marked,
            end: led.resumed - led.flushed,
            resume: led.resumed - led.ready,
            before,
            goal: self.pacer.goal(),
            beside: Some(led.asked - begin),
        };
        self.timeline.cycle(shown, &record);
        if self.config.gc_trace {
            trace_log::print(self.id, self.config.cpus, &record);
        }
    }

    /// The stop in which marking begins; live bytes before it, and the bytes of roots that it looked at.
    fn start_marking(&self, heap: &SpanHeap, world: &impl World, stops: &mut Stops) -> (u64, Bytes) {
        self.in_stop(world, stops, |stopped| {
            world.flush_caches(stopped);
            if self.config.verify_heap {
                heap.check(stopped);
            }
            self.born.store(0, Relaxed);
            self.marker.begin_beside(stopped);
            self.phase.set(Phase::Marking);
            self.marker.reports().earn(Bytes(self.pacer.begin_marking().max(0) as usize));
            world.begin_marking(stopped);
            let visit = |visitor: &mut dyn crate::scan::Visitor| world.visit_still_roots(stopped, visitor);
            (self.pacer.live(), self.marker.guest(heap, &self.shapes, visit))
        })
    }

    /// A stop of the cycle that is not its last.
    fn in_stop<R>(&self, world: &impl World, stops: &mut Stops, f: impl FnOnce(&Stopped<'_>) -> R) -> R {
        let (asked, hold) = (Instant::now(), self.timeline.begin());
        let stopped = world.stop();
        let (delay, stands) = (asked.elapsed(), self.timeline.begin());
        let result = f(&stopped);
        self.timeline.end_stop(stands, Kind::WorldStopped, Why::Mark);
        world.resume(stopped);
        self.timeline.end_stop(hold, Kind::Hold, Why::Mark);
        stops.push(delay, asked.elapsed());
        result
    }

    /// Marks until nothing is left, and ends the cycle; `None`: the heap is going, and the cycle with it.
    fn lead(
        &self,
        heap: &SpanHeap,
        world: &(impl World + Sync),
        cause: Cause,
        lead: &mut Lead<'_>,
        turns: &Turns<'_>,
        stops: &mut Stops,
        started: Instant,
    ) -> Option<Led> {
        let mut roots = lead.visit(|visitor| world.visit_shared_roots(visitor));
        loop {
            let (bytes, all) = lead.visit(|visitor| world.visit_resting_roots(visitor));
            roots += bytes;
            if all {
                break;
            }
            if self.abandoned.load(Relaxed) {
                return None;
            }
            lead.some();
        }
        let rooted = Instant::now();
        let mut told = Told::default();
        loop {
            if !lead.drain(|| self.go_on(turns, &mut told)) {
                return None;
            }
            world.handshake();
            if !lead.is_quiet() {
                continue;
            }
            let (asked, hold) = (Instant::now(), self.timeline.begin());
            let stopped = world.stop();
            let (stood, stands) = (Instant::now(), self.timeline.begin());
            if !lead.is_quiet() {
                self.timeline.end_stop(stands, Kind::WorldStopped, Why::Mark);
                world.resume(stopped);
                self.timeline.end_stop(hold, Kind::Hold, Why::Mark);
                stops.push(stood - asked, asked.elapsed());
                continue;
            }
            world.flush_caches(&stopped);
            let flushed = Instant::now();
            let live = lead.conclude(&stopped, Bytes(self.born.load(Relaxed) as usize));
            let marked = Marked {
                live,
                roots: roots + self.marker.reports().roots(),
                root_time: rooted - started,
                drain_time: asked - rooted,
                ..Marked::default()
            };
            if self.config.verify_marks {
                let reached =
                    verify_marks(heap, &self.shapes, true, |visitor| world.visit_roots(&stopped, visitor));
                if reached.is_none() {
                    print_line(format_args!("verify: no memory for the second marking; left out"));
                }
            }
            self.phase.set(Phase::Idle);
            world.end_marking(&stopped);
            heap.advance_generation(&stopped);
            self.measures.sweep_due(heap.pages().in_use());
            let marking = Marking {
                work: self.marker.reports().work(),
                allocated: Bytes(self.born.load(Relaxed) as usize),
                elapsed: started.elapsed(),
                background: turns.background(),
                assist: Duration::from_nanos(self.marker.reports().assists_ns()),
                running: turns.running(),
            };
            self.pacer.end_cycle(CycleEnd { marking: Some(marking), ..self.cycle_end(heap, &marked) });
            let number = self.count(cause);
            let ready = Instant::now();
            world.resume(stopped);
            let resumed = Instant::now();
            return Some(Led { marked, asked, stopped: stood, flushed, ready, resumed, number });
        }
    }

    /// Called by the leader between its turns: sets the assists and the limiter anew. False: the heap is going.
    fn go_on(&self, turns: &Turns<'_>, told: &mut Told) -> bool {
        let reports = self.marker.reports();
        let work = reports.work().0;
        if work >= told.work + REVISE_EVERY {
            told.work = work;
            self.pacer.revise(work as u64);
        }
        let now = turns.elapsed();
        if now >= told.at + LIMITER_EVERY {
            let (background, assist) = (turns.background(), Duration::from_nanos(reports.assists_ns()));
            let spent = Spent {
                background: background - told.background,
                assist: assist - told.assist,
                running: turns.running(),
            };
            self.pacer.limiter().update(now - told.at, spent);
            (told.at, told.background, told.assist) = (now, background, assist);
        }
        !self.abandoned.load(Relaxed)
    }

    /// The heap is going: a cycle that runs beside the program ends soon, wherever it is.
    pub fn abandon(&self) {
        self.abandoned.store(true, Relaxed);
    }
}
