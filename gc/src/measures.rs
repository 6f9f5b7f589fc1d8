//! What the collector measures of itself: counts and durations, one record for each cycle and each other stop.
//!
//! A record is taken down under a lock once the world goes on. So a reader sees all of a cycle or nothing of it, and no
//! stop waits for a reader.

use crate::cycle::Cause;
use crate::mark::Marked;
use besom_alloc_core::heap_tables::ZeroedTable;
use besom_alloc_core::os::OutOfMemory;
use besom_alloc_core::units::{Bytes, Pages};
use besom_stats::Histogram;
use besom_stats::sync::raw::{AtomicU64, Ordering::*};
use besom_stats::sync::{Held, Mutex, hold, lock};
use std::time::Duration;

/// Causes of cycles, each with a counter of its own.
pub const CAUSES: usize = 4;

/// Durations of which there is a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timed {
    /// A stop of a cycle, from the request until the world goes on. A cycle beside the program has at least two.
    Pause,
    /// Any other stop, likewise.
    OtherPause,
    /// From the request of any stop until the world is stopped.
    Delay,
    /// Before a cycle's stop: finishing the last sweep, beside the program.
    FinishSweep,
    /// Of a cycle's stop (its last one): from the request until the world is stopped.
    Stop,
    /// From there until roots are scanned, or beside the program until marking is over: caches are given back.
    Flush,
    /// Scanning roots.
    Roots,
    /// From there to the end of marking.
    Mark,
    /// From there until the world goes on.
    End,
    /// A cycle beside the program: its stops before the last one, in which marking begins.
    Start,
    /// Of a cycle beside the program: roots and marking, which are in no stop.
    Beside,
    /// A mutator's wait for the collector in an allocation: assists.
    Assist,
}

/// Values of [`Timed`].
const TIMED: usize = Timed::Assist as usize + 1;

/// When what happened in a cycle, on the clock of its thread.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// What finishing the last sweep took, before the stop was asked for.
    pub sweep: Duration,
    /// From the request of the stop until the world was stopped.
    pub stop: Duration,
    /// From the request to the end of marking.
    pub marked: Duration,
    /// From the request until the world went on.
    pub pause: Duration,
    /// Of a cycle beside the program, the stops before the last.
    pub start: Duration,
}

/// Stops of a cycle before its last that are told apart. Beyond, they are told as one.
const STOPS_MOST: usize = 8;

/// The stops of a cycle before its last one: how late the world stood still, how long the stop was in all, and how long
/// mutators worked in them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stops {
    stops: [(Duration, Duration); STOPS_MOST],
    len: usize,
    borrowed: Duration,
}

impl Stops {
    /// Adds one.
    pub fn push(&mut self, delay: Duration, pause: Duration, borrowed: Duration) {
        self.borrowed += borrowed;
        if self.len < STOPS_MOST {
            self.stops[self.len] = (delay, pause);
            self.len += 1;
        } else {
            let last = &mut self.stops[STOPS_MOST - 1];
            *last = (last.0 + delay, last.1 + pause);
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Duration, Duration)> {
        self.stops[..self.len].iter().copied()
    }

    /// Mutators' time in them that was the collector's.
    pub fn borrowed(&self) -> Duration {
        self.borrowed
    }

    /// The longest.
    pub fn longest(&self) -> Duration {
        self.iter().map(|(_, pause)| pause).max().unwrap_or_default()
    }

    /// Their time in sum.
    pub fn total(&self) -> Duration {
        self.iter().map(|(_, pause)| pause).sum()
    }
}

/// Sums over all cycles that are taken down, and what the last of them found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Cycles, by [`Cause`].
    pub cycles: [u64; CAUSES],
    /// Time of the marking threads in sum, in nanoseconds.
    pub mark_ns: u64,
    /// Time of collecting threads in the stop, beside marking, waiting for it included.
    pub stop_ns: u64,
    /// Time of collecting threads for finishing the last sweep.
    pub sweep_ns: u64,
    /// Bytes of roots that the last cycle looked at.
    pub roots: u64,
}

impl Totals {
    /// All cycles.
    pub fn all_cycles(&self) -> u64 {
        self.cycles.iter().sum()
    }

    /// All time of collecting threads.
    pub fn all_ns(&self) -> u64 {
        self.mark_ns + self.stop_ns + self.sweep_ns
    }
}

/// The record of one heap. While nobody holds `totals`, with `sum` over a histogram's values and `count` of them:
///
/// - `count of each phase == totals.all_cycles() <= count(Pause)`
/// - `sum(Pause) + sum(Beside) == sum(Start) + sum(Stop) + sum(Flush) + sum(Roots) + sum(Mark) + sum(End)`
/// - `count(Delay) == count(Pause) + count(OtherPause)`
pub struct Measures {
    /// Held while a record is taken down, and while the histograms are read. Nobody stops while holding it.
    totals: Mutex<Totals>,
    histograms: ZeroedTable<Histogram>,
    /// Who reads the two below before it reads no less here: they are added to after it, and released.
    pages_due: AtomicU64,
    pages_in_background: AtomicU64,
    pages_finished: AtomicU64,
}

/// The record, held still.
pub struct View<'a> {
    /// The sums.
    pub totals: &'a Totals,
    histograms: &'a ZeroedTable<Histogram>,
}

impl View<'_> {
    /// The durations of one sort.
    pub fn durations(&self, timed: Timed) -> &Histogram {
        self.histograms.get(timed as usize)
    }
}

impl Measures {
    /// A record in which nothing has happened.
    pub fn new() -> Result<Measures, OutOfMemory> {
        Ok(Measures {
            totals: Mutex::new(Totals::default()),
            histograms: ZeroedTable::new(TIMED)?,
            pages_due: AtomicU64::new(0),
            pages_in_background: AtomicU64::new(0),
            pages_finished: AtomicU64::new(0),
        })
    }

    /// Bytes of the histograms, for as long as the record lives.
    pub fn own_bytes(&self) -> Bytes {
        Bytes(TIMED * size_of::<Histogram>())
    }

    /// Takes a cycle down, after its last stop. `stops` are those before, each with its delay.
    pub fn cycle(&self, cause: Cause, marked: &Marked, times: Times, beside: Option<&Stops>) {
        let Times { sweep, stop, marked: ended, pause, start } = times;
        let marking = marked.root_time + marked.drain_time;
        let in_stop = if beside.is_some() { Duration::ZERO } else { marking };
        let flush = ended.saturating_sub(stop + in_stop);
        let end = pause.saturating_sub(ended);
        let last = stop + flush + in_stop + end;
        let mut totals = lock(&self.totals);
        totals.cycles[cause as usize] += 1;
        totals.mark_ns += ns(marked.cpu);
        totals.stop_ns += ns(start + stop + flush + end);
        totals.sweep_ns += ns(sweep);
        totals.roots = marked.roots.0 as u64;
        for (timed, duration) in [
            (Timed::Pause, last),
            (Timed::Delay, stop),
            (Timed::FinishSweep, sweep),
            (Timed::Stop, stop),
            (Timed::Flush, flush),
            (Timed::Roots, marked.root_time),
            (Timed::Mark, marked.drain_time),
            (Timed::End, end),
            (Timed::Start, start),
            (Timed::Beside, marking - in_stop),
        ] {
            self.record(timed, duration);
        }
        for (delay, pause) in beside.into_iter().flat_map(Stops::iter) {
            self.record(Timed::Delay, delay);
            self.record(Timed::Pause, pause);
        }
    }

    /// Takes down how long a mutator assisted.
    pub fn assisted(&self, time: Duration) {
        let _totals = lock(&self.totals);
        self.record(Timed::Assist, time);
    }

    /// Takes a stop down that was no cycle's, after it: how long it was in coming, and in all.
    pub fn other_stop(&self, delay: Duration, pause: Duration) {
        let _totals = lock(&self.totals);
        self.record(Timed::Delay, delay);
        self.record(Timed::OtherPause, pause);
    }

    fn record(&self, timed: Timed, duration: Duration) {
        self.histograms.get(timed as usize).record(ns(duration));
    }

    /// Keeps readers and writers outside.
    pub fn hold(&self) -> Held<'_> {
        hold(&self.totals)
    }

    /// Shows the record, held still meanwhile: who collects waits for it after its stop, so be short.
    pub fn read<R>(&self, f: impl FnOnce(View<'_>) -> R) -> R {
        let totals = lock(&self.totals);
        f(View { totals: &totals, histograms: &self.histograms })
    }

    /// A cycle left so many pages to be swept.
    pub fn sweep_due(&self, pages: Pages) {
        self.pages_due.fetch_add(pages.0 as u64, Relaxed);
    }

    /// The background sweeper swept so many.
    pub fn swept_in_background(&self, pages: Pages) {
        self.pages_in_background.fetch_add(pages.0 as u64, Release);
    }

    /// So many were swept because all had to be.
    pub fn swept_to_finish(&self, pages: Pages) {
        self.pages_finished.fetch_add(pages.0 as u64, Release);
    }

    /// Pages that cycles left to be swept, ever.
    pub fn pages_due(&self) -> u64 {
        self.pages_due.load(Relaxed)
    }

    /// Pages that the background sweeper swept, ever.
    pub fn pages_in_background(&self) -> u64 {
        self.pages_in_background.load(Acquire)
    }

    /// Pages that were swept because all had to be, ever.
    pub fn pages_finished(&self) -> u64 {
        self.pages_finished.load(Acquire)
    }
}

fn ns(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const PHASES: [Timed; 6] =
        [Timed::FinishSweep, Timed::Stop, Timed::Flush, Timed::Roots, Timed::Mark, Timed::End];

    /// The equations on [`Measures`].
    fn check(view: &View<'_>) {
        let cycles = view.totals.all_cycles();
        let count = |timed| view.durations(timed).count();
        let sum = |timed| view.durations(timed).sum();
        assert!(count(Timed::Pause) >= cycles);
        for timed in PHASES.into_iter().chain([Timed::Start, Timed::Beside]) {
            assert_eq!(count(timed), cycles, "{timed:?}");
        }
        let phases = sum(Timed::Start) + PHASES[1..].iter().map(|&timed| sum(timed)).sum::<u64>();
        assert_eq!(sum(Timed::Pause) + sum(Timed::Beside), phases);
        assert_eq!(count(Timed::Delay), count(Timed::Pause) + count(Timed::OtherPause));
    }

    #[test]
    fn a_cycle_is_taken_apart_into_its_phases() {
        let measures = Measures::new().expect("memory");
        let t = Duration::from_nanos;
        let marked = Marked {
            roots: Bytes(800),
            root_time: t(30),
            drain_time: t(500),
            cpu: t(900),
            ..Marked::default()
        };
        let times = Times { sweep: t(7), stop: t(100), marked: t(650), pause: t(1000), start: t(0) };
        measures.cycle(Cause::Forced, &marked, times, None);
        measures.cycle(Cause::Limit, &marked, times, None);
        measures.other_stop(t(4), t(11));
        measures.read(|view| {
            check(&view);
            let (pace, forced, every, limit) = (0, 1, 0, 1);
            let totals = Totals {
                cycles: [pace, forced, every, limit],
                mark_ns: 1800,
                stop_ns: 2 * (100 + 20 + 350),
                sweep_ns: 14,
                roots: 800,
            };
            assert_eq!(*view.totals, totals);
            assert_eq!(totals.all_ns(), 1800 + 940 + 14);
            let sums = PHASES.map(|timed| view.durations(timed).sum() / 2);
            assert_eq!(sums, [7, 100, 20, 30, 500, 350]);
            assert_eq!(view.durations(Timed::Delay).sum(), 204);
            assert_eq!(view.durations(Timed::OtherPause).sum(), 11);
        });
    }

    #[test]
    fn a_cycle_beside_the_program_stops_it_for_its_ends_only() {
        let measures = Measures::new().expect("memory");
        let t = Duration::from_nanos;
        let marked = Marked { root_time: t(3000), drain_time: t(50_000), ..Marked::default() };
        let mut stops = Stops::default();
        stops.push(t(10), t(40), t(3));
        stops.push(t(5), t(20), t(0));
        let times = Times { sweep: t(7), stop: t(100), marked: t(150), pause: t(180), start: stops.total() };
        measures.cycle(Cause::Pace, &marked, times, Some(&stops));
        measures.read(|view| {
            check(&view);
            let sum = |timed| view.durations(timed).sum();
            assert_eq!((sum(Timed::Pause), sum(Timed::Beside)), (240, 53_000));
            assert_eq!((sum(Timed::Flush), sum(Timed::End), sum(Timed::Start)), (50, 30, 60));
            assert_eq!((view.durations(Timed::Pause).count(), sum(Timed::Delay)), (3, 115));
            assert_eq!((view.totals.stop_ns, stops.borrowed()), (240, t(3)));
        });
    }

    #[test]
    fn a_reader_sees_all_of_a_record_or_nothing() {
        let measures = Measures::new().expect("memory");
        std::thread::scope(|scope| {
            for thread in 0..2u64 {
                let measures = &measures;
                scope.spawn(move || {
                    for i in 0..20_000u64 {
                        let t = |n| Duration::from_nanos(n);
                        let marked = Marked { root_time: t(i), drain_time: t(3 * i), ..Marked::default() };
                        let mut stops = Stops::default();
                        stops.push(t(i), t(2 * i), t(0));
                        let beside = (i % 2 == 0).then_some(&stops);
                        let start = beside.map_or(t(0), Stops::total);
                        let times =
                            Times { sweep: t(i), stop: t(i), marked: t(6 * i), pause: t(9 * i), start };
                        measures.cycle(Cause::Pace, &marked, times, beside);
                        if i % 3 == thread {
                            measures.other_stop(t(i), t(2 * i));
                        }
                    }
                });
            }
            let mut seen = 0;
            while seen < 40_000 {
                seen = measures.read(|view| {
                    check(&view);
                    view.totals.all_cycles()
                });
            }
        });
    }
}
