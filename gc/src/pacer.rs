//! When to collect, how much to mark and to sweep on the way there.
//!
//! ```text
//! goal    = live + (live + roots + specials) * percent / 100 - its tables,  at least MIN_HEAP * percent / 100
//! limit   = memory limit - max(what the heap holds beside live objects, the tables' share of the limit)
//! goal    = min(goal, max(limit, live + least runway))
//! trigger = goal - runway, between 80 and 95 percent of the way there; the goal itself, if marking stops the world
//! ```
//!
//! The tables beside the heap (2.4 %) count as growth: who sets the percentage means memory.
//!
//! `live` grows by what the caches are credited with, so it is what could be allocated by now, and is exact when the
//! caches are flushed. Sweeping is paid in proportion to it: all pages are swept by the time the trigger is met. So
//! is marking, from there to the goal.

mod assist;
mod goal;
mod limiter;
mod runway;
mod share;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use limiter::{LEEWAY, LIMIT, Limiter, Spent};
pub use share::{Allowance, BACKGROUND_SHARE, Share};

use assist::Assist;
use besom_alloc_core::units::{Bytes, Pages};
use besom_stats::sync::raw::{AtomicI64, AtomicU64, Ordering::Relaxed};
use besom_stats::sync::{Held, Mutex, hold, lock};
use goal::{Inputs, Lines};
use runway::Runway;
use std::time::Duration;

/// The least goal at 100 percent. Higher: a small program's memory. Lower: it collects more often than a
/// collection is worth.
pub const MIN_HEAP: u64 = 4 << 20;
/// Bytes of allocation that the sweep is ahead of its schedule, so that the last page is not due at the trigger.
const SWEEP_AHEAD: u64 = 1 << 20;
/// The most of that, as a part of the way to the trigger. Higher: in a small heap, the last page is due near the trigger. Lower: the first
/// allocation after a cycle sweeps before the background has begun to.
const SWEEP_AHEAD_PART: u64 = 16;
/// Mutators may be ahead of the workers by one part in so many of a cycle's work. Higher: a burst, or workers that wake
/// up late, make them assist, though there will be nothing left to assist with. Lower: if they do have to assist, it
/// comes later, and is steeper.
const HEAD_START: u64 = 10;
/// The least of that, in bytes, but never more than half of the work, so that the other half is done before the goal. Higher: if no worker
/// gets a processor, what is left is steeper. Lower: mutators assist although a worker has done all there is within the time that an assist
/// takes to begin.
const HEAD_START_LEAST: u64 = 256 << 10;
/// Of all that may live, one part in so many is taken to live, whatever the last cycle found. Higher: a heap that has grown is marked by one core
/// at first. Lower: helpers are woken for a heap that is nearly all garbage.
const LIVE_PART: u64 = 8;

/// A number of processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus(pub u32);

/// How marking beside the program went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marking {
    /// Bytes scanned, as told to [`Pacer::revise`].
    pub work: Bytes,
    /// Bytes allocated meanwhile, black and white.
    pub allocated: Bytes,
    /// From the start of marking to its end.
    pub elapsed: Duration,
    /// Processor time of background workers: dedicated, fractional, idle.
    pub background: Duration,
    /// Mutators' time at work in assists.
    pub assist: Duration,
    /// How many mutators ran, in the mean, those at work in assists among them; 0: not known, and nothing is learnt.
    pub running: f64,
}

/// What a cycle found, for the next goal.
#[derive(Clone, Copy, Debug, Default)]
pub struct CycleEnd {
    /// Bytes of marked slots, with those allocated black.
    pub live: Bytes,
    /// Bytes of roots.
    pub roots: Bytes,
    /// Bytes of the specials' tables, which each cycle goes through.
    pub specials: Bytes,
    /// Pages in use, all of which are to be swept.
    pub pages: Pages,
    /// Bytes the heap holds of the system beside live objects: metadata, part-filled spans.
    pub overhead: Bytes,
    /// The hard limit; 0: none.
    pub hard_limit: Bytes,
    /// How marking beside the program went; `None`: it stopped the world.
    pub marking: Option<Marking>,
}

/// The pacer of one heap: no clock, no threads.
///
/// - `(goal, trigger, held, stretched, wait) == inputs.lines()` whenever nobody holds `inputs`
/// - `live + dead` is all that was ever credited; with the caches flushed, the bytes allocated ever
/// - `dead` == bytes freed ever, and what is found dead and not swept yet
pub struct Pacer {
    /// Held from the change of an input to the store of the goal, so that the last change is the one that counts.
    /// Nobody stops while holding it.
    inputs: Mutex<Inputs>,
    /// Bytes allocated and not found dead, as the caches were credited.
    live: AtomicI64,
    /// Bytes that cycles found dead, ever.
    dead: AtomicI64,
    goal: AtomicU64,
    trigger: AtomicU64,
    held: AtomicU64,
    stretched: AtomicU64,
    wait: AtomicU64,
    assist: Assist,
    limiter: Limiter,
    cpus: Option<Cpus>,
    marked: AtomicU64,
    sweep_pages: AtomicU64,
    swept: AtomicU64,
}

impl Pacer {
    /// A pacer before its first cycle. Percent 0: collections on request only, or near a limit. `concurrent`: marking
    /// runs beside the program, on a share of so many processors.
    pub fn new(percent: u32, memory_limit: Bytes, hard_limit: Bytes, concurrent: Option<Cpus>) -> Pacer {
        let inputs = Inputs {
            percent,
            memory_limit,
            concurrent: concurrent.is_some(),
            last: CycleEnd { hard_limit, ..CycleEnd::default() },
            runway: Runway::default(),
        };
        let Lines { goal, trigger, held, stretched, wait } = inputs.lines();
        Pacer {
            live: AtomicI64::new(0),
            dead: AtomicI64::new(0),
            goal: AtomicU64::new(goal),
            trigger: AtomicU64::new(trigger),
            held: AtomicU64::new(held),
            stretched: AtomicU64::new(stretched),
            wait: AtomicU64::new(wait),
            assist: Assist::default(),
            // Where the world is stopped, all of it is.
            limiter: Limiter::new(concurrent.unwrap_or(Cpus(1))),
            cpus: concurrent,
            marked: AtomicU64::new(0),
            sweep_pages: AtomicU64::new(0),
            swept: AtomicU64::new(0),
            inputs: Mutex::new(inputs),
        }
    }

    /// Credits or takes back bytes that a cache may hand out.
    pub fn credit(&self, bytes: i64) {
        self.live.fetch_add(bytes, Relaxed);
    }

    /// Whether `bytes` more pass the line from which on a collection may be due.
    #[inline]
    pub fn is_past_trigger(&self, bytes: i64) -> bool {
        self.live_with(bytes) >= self.trigger.load(Relaxed)
    }

    /// Whether a collection is due before `bytes` more are allocated, if none runs.
    #[inline]
    pub fn due_with(&self, bytes: i64) -> bool {
        self.is_past_trigger(bytes)
            && (!self.limiter.limiting() || self.live_with(bytes) >= self.held.load(Relaxed))
    }

    /// Whether `bytes` more pass the goal.
    pub fn is_past_goal(&self, bytes: i64) -> bool {
        self.live_with(bytes) >= self.goal()
    }

    #[inline(always)]
    fn live_with(&self, bytes: i64) -> u64 {
        self.live.load(Relaxed).saturating_add(bytes).max(0) as u64
    }

    /// Whether so much is allocated, with `bytes` more, that mutators must wait for the end of a cycle beside the program, which
    /// they help on. What they owe does not hold them: near the end it is little, and what workers have done, or they in
    /// advance, pays for much.
    #[inline]
    pub fn must_wait(&self, bytes: i64) -> bool {
        self.live_with(bytes) > self.wait.load(Relaxed) && !self.limiter.limiting()
    }

    /// Bytes that a cycle is likely to mark: as many as the last did, or, since a heap may have grown, a part of all that may live; all of that
    /// if no cycle has found anything yet.
    pub fn likely_live(&self) -> Bytes {
        let likely = match self.marked.load(Relaxed) {
            0 => self.live(),
            marked => marked.max(self.live() / LIVE_PART),
        };
        Bytes(likely as usize)
    }

    /// Begins marking beside the program; the world is stopped. The work that mutators need not do, as if background
    /// workers had done it.
    pub fn begin_marking(&self) -> i64 {
        let (expected, roots) = {
            let inputs = lock(&self.inputs);
            (inputs.expected(), inputs.last.roots.0 as u64)
        };
        let live = self.live();
        self.assist.begin(live, expected, live + roots);
        self.revise(0);
        (expected / HEAD_START).max(HEAD_START_LEAST.min(expected / 2)) as i64
    }

    /// Sets the assists anew: `work` bytes were scanned in this cycle by now. To be called for each MiB or so.
    pub fn revise(&self, work: u64) {
        self.assist.revise(work, self.live(), self.goal.load(Relaxed), self.stretched.load(Relaxed));
    }

    /// Bytes to be scanned, or taken from what workers scanned, by who allocates `bytes`; 0: no marking runs, or the
    /// limiter is on.
    #[inline]
    pub fn assist_work(&self, bytes: i64) -> i64 {
        match self.assist.owed(bytes) {
            0 => 0,
            _ if self.limiter.limiting() => 0,
            owed => owed,
        }
    }

    /// Ends marking beside the program, as [`Self::end_cycle`] does; the world is stopped. No assists from here on.
    pub fn end_marking(&self) {
        self.assist.end();
    }

    /// What keeps collections from taking the program's processors. Assists look at it now and then, and give up if it
    /// is limiting. If marking stops the world, it is told of stops as of assists of one mutator that runs.
    pub fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    /// Ends a cycle; the caches are flushed.
    pub fn end_cycle(&self, end: CycleEnd) {
        let before = self.live.swap(end.live.0 as i64, Relaxed);
        self.dead.fetch_add(before - end.live.0 as i64, Relaxed);
        self.marked.store(end.live.0 as u64, Relaxed);
        self.sweep_pages.store(end.pages.0 as u64, Relaxed);
        self.swept.store(0, Relaxed);
        self.end_marking();
        self.change(|inputs| {
            if let (Some(marking), Some(cpus)) = (&end.marking, self.cpus) {
                inputs.runway.learn(marking, cpus);
            }
            inputs.last = end;
        });
    }

    /// Changes an input, and the lines with it.
    fn change(&self, set: impl FnOnce(&mut Inputs)) {
        let mut inputs = lock(&self.inputs);
        set(&mut inputs);
        let Lines { goal, trigger, held, stretched, wait } = inputs.lines();
        self.goal.store(goal, Relaxed);
        self.trigger.store(trigger, Relaxed);
        self.held.store(held, Relaxed);
        self.stretched.store(stretched, Relaxed);
        self.wait.store(wait, Relaxed);
    }

    /// Changes the growth; takes effect at once.
    pub fn set_percent(&self, percent: u32) {
        self.change(|inputs| inputs.percent = percent);
    }

    /// Changes the soft limit; takes effect at once.
    pub fn set_memory_limit(&self, limit: Bytes) {
        self.change(|inputs| inputs.memory_limit = limit);
    }

    /// The growth.
    pub fn percent(&self) -> u32 {
        lock(&self.inputs).percent
    }

    /// The soft limit; 0: none.
    pub fn memory_limit(&self) -> Bytes {
        lock(&self.inputs).memory_limit
    }

    /// Bytes at which the next cycle ends.
    pub fn goal(&self) -> u64 {
        self.goal.load(Relaxed)
    }

    /// Bytes at which it starts.
    pub fn trigger(&self) -> u64 {
        let line = if self.limiter.limiting() { &self.held } else { &self.trigger };
        line.load(Relaxed)
    }

    /// Bytes that the last cycle marked.
    pub fn marked(&self) -> Bytes {
        Bytes(self.marked.load(Relaxed) as usize)
    }

    /// Bytes allocated and not found dead.
    pub fn live(&self) -> u64 {
        self.live.load(Relaxed).max(0) as u64
    }

    /// Bytes allocated, ever, and those of them that cycles found dead; exact when the caches are flushed.
    pub fn totals(&self) -> (u64, u64) {
        let (live, dead) = (self.live.load(Relaxed), self.dead.load(Relaxed));
        ((live + dead) as u64, dead as u64)
    }

    /// Keeps those who change the inputs outside.
    pub fn hold(&self) -> Held<'_> {
        hold(&self.inputs)
    }

    /// The goal, and what follows from its inputs at the same moment, which is the same.
    pub fn goal_twice(&self) -> (u64, u64) {
        let inputs = lock(&self.inputs);
        (self.goal(), inputs.lines().goal)
    }

    /// Pages that must be swept before `bytes` more are allocated.
    #[inline]
    pub fn sweep_debt(&self, bytes: i64) -> Pages {
        let pages = self.sweep_pages.load(Relaxed);
        let swept = self.swept.load(Relaxed);
        if swept >= pages {
            return Pages(0);
        }
        let base = self.marked.load(Relaxed);
        let runway = self.trigger.load(Relaxed).saturating_sub(base).max(1);
        let ahead = SWEEP_AHEAD.min(runway / SWEEP_AHEAD_PART) as i64;
        let allocated = (self.live.load(Relaxed) + bytes + ahead - base as i64).max(0) as u64;
        let due =
            (u128::from(pages) * u128::from(allocated) / u128::from(runway)).min(u128::from(pages)) as u64;
        Pages(due.saturating_sub(swept) as usize)
    }

    /// Counts pages as swept; `None`: nothing is left to be swept.
    pub fn swept(&self, pages: Option<Pages>) {
        match pages {
            Some(pages) => self.swept.fetch_add(pages.0 as u64, Relaxed),
            None => self.swept.swap(u64::MAX / 2, Relaxed),
        };
    }
}
