//! A cycle beside the program: two short stops, or three, and marking between them.
//!
//! 1. Finish the last sweep.
//! 2. Stop. Caches are given back, so that whatever is allocated from here on is allocated black; stores are watched from
//!    here on. What is reachable now is what this cycle keeps: a snapshot, and all that is born after it.
//! 3. Resume. Each mutator scans its own roots before it goes on; the leader scans those of threads that do not run, and
//!    the roots that are nobody's. It marks, with helpers and mutators that assist. A store hands in what it overwrites,
//!    which may be the last way to a part of the snapshot (Yuasa's barrier).
//! 4. When nothing is grey, each mutator hands in what it overwrote last (a handshake without a stop); again, until that
//!    brings nothing.
//!    Ephemerons are part of it: those that wait for their keys are watched once all else is marked, and it goes on.
//! 5. Stop. If something grey has turned up, back to 3. If the heap has no specials, go on with 7.
//! 6. Resume, with what is reachable known: weak references and ephemerons answer by it. The leader resolves the specials (see
//!    `specials::resolve`), and marks what finalizers get, which the program does not reach. Stop.
//! 7. Caches are given back, G grows, stores are watched no more. Resume.

use super::stop::Stop;
use super::{Cause, Collector, CycleRecord};
use crate::mark::Marked;
use crate::mark::beside::Lead;
use crate::mark::turn::Turns;
use crate::measures::{Stops, Times};
use crate::pacer::{Marking, Spent};
use crate::phase::Phase;
use crate::timeline::Kind;
use crate::world::World;
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::stopped::Stopped;
use besom_alloc_core::units::Bytes;
use besom_stats::Writer;
use besom_stats::sync::lock;
use besom_stats::sync::raw::Ordering::*;
use std::time::{Duration, Instant};

/// Bytes of work between two settings of the assists. Higher: mutators owe by older figures. Lower: more settings.
const REVISE_EVERY: usize = 1 << 20;
/// Time between two settings of the limiter. Higher: it reacts later. Lower: more settings.
const LIMITER_EVERY: Duration = Duration::from_millis(10);

/// What the pacer was told of a cycle so far.
#[derive(Default)]
struct Told {
    work: usize,
    background: Duration,
    assist: Duration,
    waited: Duration,
}

/// What a cycle has come to when its last stop is over.
struct Led {
    concluded: Concluded,
    stop: Stop,
}

/// What the last stop finds.
struct Concluded {
    marked: Marked,
    /// The end of the flush.
    flushed: Instant,
    number: u64,
}

/// What the stop finds that is asked for when nothing seems to be grey.
enum Found {
    /// Something grey has turned up.
    Grey,
    /// There are specials to be resolved.
    Specials,
    /// The cycle is over.
    Nothing(Concluded),
}

impl Collector {
    pub(super) fn cycle_beside(&self, heap: &SpanHeap, world: &impl World, cause: Cause, stats: Writer<'_>) {
        self.sample(heap);
        let (begin, shown) = self.timeline.begin_now();
        let helpers = self.marker.prepare(self.likely_live());
        let work = self.marker.work_bytes().0 as i64;
        let background = lock(&self.background);
        self.measures.swept_to_finish(heap.finish_sweep(stats));
        let swept = Instant::now();
        let mut stops = Stops::default();
        let before = self.start_marking(heap, world, &mut stops);
        let started = Instant::now();
        let running = || world.running();
        let turns = Turns::new(self.config.cpus, cause != Cause::Pace, &running);
        let (led, cpu, workers) =
            self.marker.lead(heap, &self.shapes, helpers, &turns, &self.timeline, |lead| {
                self.lead(heap, world, cause, lead, &turns, &mut stops, started)
            });
        drop(background);
        let Some(mut led) = led else { return };
        let borrowed = stops.borrowed() + led.stop.borrowed();
        led.concluded.marked.cpu = cpu + borrowed + Duration::from_nanos(self.marker.reports().assists_ns());
        led.concluded.marked.workers = workers;
        self.count_work_bytes(work, stats);
        self.sample(heap);
        let Led { concluded: Concluded { marked, flushed, number }, stop } = led;
        let pause = stop.pause();
        self.record_pause(pause + stops.total(), pause.max(stops.longest()));
        let times = Times {
            sweep: swept - begin,
            stop: stop.delay(),
            marked: flushed - stop.asked,
            pause,
            start: stops.total(),
        };
        self.measures.cycle(cause, &marked, times, Some(&stops));
        let cpu = self.cpu_ns.fetch_add(marked.cpu.as_nanos() as u64, Relaxed);
        let record = CycleRecord {
            number,
            cause,
            since_start: stop.resumed - self.started,
            gc_cpu: Duration::from_nanos(cpu),
            total: stop.resumed - begin,
            sweep: swept - begin,
            start: stops.total(),
            stop: stop.delay(),
            pause: pause + stops.total(),
            flush: flushed - stop.stood,
            marked,
            end: stop.resumed - flushed,
            resume: stop.resumed - stop.ready,
            before,
            goal: self.pacer.goal(),
            beside: Some(stop.asked - begin),
        };
        self.tell(shown, &record);
    }

    /// The stop in which marking begins; live bytes before it.
    fn start_marking(&self, heap: &SpanHeap, world: &impl World, stops: &mut Stops) -> u64 {
        let (before, stop) = self.in_stop(world, |stopped| {
            world.flush_caches(stopped);
            if self.config.verify_heap {
                heap.check(stopped);
            }
            self.born.store(0, Relaxed);
            self.marker.begin_beside(stopped);
            self.ephemerons().begin_cycle();
            self.phase.set(Phase::Marking);
            self.marker.reports().earn(Bytes(self.pacer.begin_marking().max(0) as usize));
            world.begin_marking(stopped);
            self.marker.guest(heap, &self.shapes, |visitor| world.visit_still_roots(stopped, visitor));
            self.pacer.live()
        });
        self.take_down(&stop, stops);
        before
    }

    /// Marks until nothing is left, resolves the specials, and ends the cycle; `None`: the heap is going, and the cycle with
    /// it.
    fn lead(
        &self,
        heap: &SpanHeap,
        world: &impl World,
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
        let end = |lead: &mut Lead<'_>, stopped: &Stopped<'_>, told: &mut Told| {
            world.flush_caches(stopped);
            let flushed = Instant::now();
            let live = lead.conclude(stopped, Bytes(self.born.load(Relaxed) as usize));
            let marked = Marked {
                live,
                roots: roots + self.marker.reports().roots(),
                root_time: rooted - started,
                ..Marked::default()
            };
            self.verify(heap, world, stopped, live);
            self.phase.set(Phase::Idle);
            world.end_marking(stopped);
            let marking = Marking {
                work: self.marker.reports().work(),
                allocated: Bytes(self.born.load(Relaxed) as usize),
                elapsed: started.elapsed(),
                background: turns.background(),
                assist: Duration::from_nanos(self.marker.reports().assists_ns()),
                running: turns.running(),
            };
            self.tell_limiter(turns, told);
            let number = self.conclude(heap, stopped, cause, &marked, Some(marking));
            Concluded { marked, flushed, number }
        };
        let (mut concluded, stop) =
            match self.stop_when_all_is_marked(heap, world, lead, turns, &mut told, stops, end)? {
                (Some(concluded), stop) => (concluded, stop),
                (None, stop) => {
                    self.take_down(&stop, stops);
                    if !self.resolve(heap, world, lead, turns, &mut told, stops) {
                        return None;
                    }
                    self.in_stop(world, |stopped| end(lead, stopped, &mut told))
                }
            };
        concluded.marked.drain_time = stop.asked - rooted;
        Some(Led { concluded, stop })
    }

    /// Marks until nothing is grey, stops, and finds it so still: then, in this stop, the cycle ends with `end`, or, if there
    /// are specials, what is reachable is known. `None`: the heap is going.
    fn stop_when_all_is_marked(
        &self,
        heap: &SpanHeap,
        world: &impl World,
        lead: &mut Lead<'_>,
        turns: &Turns<'_>,
        told: &mut Told,
        stops: &mut Stops,
        end: impl Fn(&mut Lead<'_>, &Stopped<'_>, &mut Told) -> Concluded + Sync,
    ) -> Option<(Option<Concluded>, Stop)> {
        loop {
            if !self.mark_all(lead, turns, told) {
                return None;
            }
            world.handshake();
            if !lead.is_done() {
                continue;
            }
            let (found, stop) = self.in_stop(world, |stopped| {
                if !lead.is_done() {
                    return Found::Grey;
                }
                lead.mark_what_was_dropped(stopped);
                if !self.specials.is_empty() || self.ephemerons().is_watching() {
                    self.phase.set(Phase::Resolving);
                    return Found::Specials;
                }
                self.ephemerons().end_cycle(heap, &heap.system().gc);
                Found::Nothing(end(lead, stopped, told))
            });
            match found {
                Found::Nothing(concluded) => return Some((Some(concluded), stop)),
                Found::Specials => return Some((None, stop)),
                Found::Grey => self.take_down(&stop, stops),
            }
        }
    }

    /// Marks in the leader's turns until nothing is grey and no ephemeron waits unwatched; false: the heap is going.
    fn mark_all(&self, lead: &mut Lead<'_>, turns: &Turns<'_>, told: &mut Told) -> bool {
        while lead.drain(|| self.go_on(turns, told)) {
            if !lead.look_after_ephemerons() {
                return true;
            }
        }
        false
    }

    /// Finds out who is dead, beside the program, which sees nobody that is; false: the heap is going.
    fn resolve(
        &self,
        heap: &SpanHeap,
        world: &impl World,
        lead: &mut Lead<'_>,
        turns: &Turns<'_>,
        told: &mut Told,
        stops: &mut Stops,
    ) -> bool {
        let (shown, mut whole) = (self.timeline.begin(), true);
        self.specials.resolve(heap, self.ephemerons(), |dead| {
            lead.visit(|visitor| dead.for_each(|object| visitor.any(object)));
            whole = self.mark_all(lead, turns, told);
            if whole && lead.has_dropped_some() {
                let ((), stop) = self.in_stop(world, |stopped| lead.mark_what_was_dropped(stopped));
                self.take_down(&stop, stops);
            }
        });
        self.timeline.end(shown, Kind::Resolve, [0; 4]);
        whole
    }

    /// Called by the leader between its turns: sets the assists and the limiter anew. False: the heap is going.
    fn go_on(&self, turns: &Turns<'_>, told: &mut Told) -> bool {
        let reports = self.marker.reports();
        let work = reports.work().0;
        if work >= told.work + REVISE_EVERY {
            told.work = work;
            self.pacer.revise(work as u64);
        }
        if self.since_limiter() >= LIMITER_EVERY {
            self.tell_limiter(turns, told);
        }
        !self.abandoned.load(Relaxed)
    }

    /// Tells the limiter what this cycle has spent since it was told last.
    fn tell_limiter(&self, turns: &Turns<'_>, told: &mut Told) {
        let reports = self.marker.reports();
        let elapsed = self.begin_limiters_next();
        let [assist, waited] = [reports.assists_ns(), reports.waits_ns()].map(Duration::from_nanos);
        let background = turns.background();
        // Who waits does not run, and would.
        let wait = waited - told.waited;
        let running = turns.running() + wait.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
        let spent =
            Spent { background: background - told.background, assist: assist - told.assist + wait, running };
        self.pacer.limiter().update(elapsed, spent);
        self.ran.store(turns.running().to_bits(), Relaxed);
        (told.background, told.assist, told.waited) = (background, assist, waited);
    }

    /// Since the limiter was told something last.
    fn since_limiter(&self) -> Duration {
        Duration::from_nanos(
            (self.started.elapsed().as_nanos() as u64).saturating_sub(self.limited.load(Relaxed)),
        )
    }

    /// The same, and from here on it counts anew.
    fn begin_limiters_next(&self) -> Duration {
        let now = self.started.elapsed().as_nanos() as u64;
        Duration::from_nanos(now.saturating_sub(self.limited.swap(now, Relaxed)))
    }

    /// The limiter is on, and no cycle runs: it lets go with time.
    #[cold]
    pub(super) fn ease_limiter(&self) {
        if self.since_limiter() >= LIMITER_EVERY {
            let running = f64::from_bits(self.ran.load(Relaxed));
            self.pacer.limiter().update(self.begin_limiters_next(), Spent { running, ..Spent::default() });
        }
    }

    /// The heap is going: a cycle that runs beside the program ends soon, wherever it is.
    pub fn abandon(&self) {
        self.abandoned.store(true, Relaxed);
    }
}
