//! A program and a marker that exist as numbers only, paced by the real pacer: time goes in steps, and work takes
//! time.
//!
//! The mutators are one stream of allocations on as many processors as they are left; what assists owe, they do
//! before they go on. What is reachable when marking begins is what is marked, and what is allocated from then on is
//! live.

mod scenarios;

use super::{Cpus, CycleEnd, Marking, Pacer, Share, Spent};
use besom_alloc_core::units::Bytes;
use std::time::Duration;

const MIB: f64 = 1048576.0;
/// Seconds.
const TICK: f64 = 0.0002;
/// Bytes that are allocated at once: a span.
const SPAN: f64 = 16384.0;
/// The least time that a simulation runs for.
const SECONDS: f64 = 8.0;
/// Bytes scanned between revisions of the assists.
const REVISE: f64 = 1.0 * MIB;
/// Ticks between updates of the limiter.
const UPDATE: usize = 50;

/// What the program does now.
#[derive(Clone, Copy)]
struct Load {
    /// Mutators that want to run.
    running: f64,
    /// Bytes that one allocates in a second of processor time.
    rate: f64,
    /// What is to be reachable; it grows no faster than by what is allocated.
    reachable: f64,
    /// An object of this size once in so many bytes.
    large: Option<(f64, f64)>,
}

struct Scenario {
    cpus: u32,
    percent: u32,
    memory_limit: f64,
    /// Bytes scanned in a second of processor time.
    mark_rate: f64,
    /// The part of what is reachable that must be scanned.
    scanned: f64,
    /// The part of what they are allowed that background workers get.
    workers: f64,
    /// Rates vary by as much, up and down, from one ten milliseconds to the next.
    noise: f64,
    load: fn(cycle: usize, time: f64) -> Load,
}

/// A cycle that ended.
#[derive(Clone, Copy, Debug)]
struct Cycle {
    goal: f64,
    /// Live bytes when marking began, and ended.
    began: f64,
    ended: f64,
    marked: f64,
    elapsed: f64,
    /// Of all processors, while it ran.
    background: f64,
    assist: f64,
}

/// A cycle that runs.
struct Running {
    goal: f64,
    began: f64,
    start: f64,
    marked: f64,
    work: f64,
    left: f64,
    unrevised: f64,
    credit: f64,
    background: f64,
    assist: f64,
    program: f64,
}

struct Simulation {
    scenario: Scenario,
    pacer: Pacer,
    share: Share,
    time: f64,
    ticks: usize,
    reachable: f64,
    to_large: f64,
    /// Work that an assist has still to do, and time that was used ahead.
    owing: f64,
    ahead: f64,
    cycle: Option<Running>,
    cycles: Vec<Cycle>,
    since_update: Spent,
    /// For each tick, what the program could use of the processors, and what it got.
    shares: Vec<(f64, f64)>,
    highest: f64,
    limited_ticks: usize,
    random: u64,
    jitter: f64,
}

impl Simulation {
    fn run(scenario: Scenario, cycles: usize) -> Simulation {
        let limit = Bytes(scenario.memory_limit as usize);
        let cpus = Cpus(scenario.cpus);
        let mut simulation = Simulation {
            pacer: Pacer::new(scenario.percent, limit, Bytes(0), Some(cpus)),
            share: Share::new(cpus),
            scenario,
            time: 0.0,
            ticks: 0,
            reachable: 0.0,
            to_large: 0.0,
            owing: 0.0,
            ahead: 0.0,
            cycle: None,
            cycles: Vec::new(),
            since_update: Spent::default(),
            shares: Vec::new(),
            highest: 0.0,
            limited_ticks: 0,
            random: 1,
            jitter: 0.0,
        };
        while simulation.cycles.len() < cycles || simulation.time < SECONDS {
            simulation.tick();
            assert!(simulation.time < 300.0, "only {} cycles", simulation.cycles.len());
        }
        simulation
    }

    fn noise(&mut self) -> f64 {
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.random >> 33) as f64 / (1u64 << 30) as f64 - 1.0) * self.scenario.noise
    }

    fn tick(&mut self) {
        if self.ticks.is_multiple_of(UPDATE) {
            self.jitter = self.noise();
            let elapsed = Duration::from_secs_f64(TICK * UPDATE as f64);
            let mut spent = std::mem::take(&mut self.since_update);
            spent.running /= UPDATE as f64;
            self.pacer.limiter().update(elapsed, spent);
        }
        let load = (self.scenario.load)(self.cycles.len(), self.time);
        let cpus = f64::from(self.scenario.cpus);
        let running = load.running.min(cpus);
        let workers = self.background(load.running);
        let program = running.min(cpus - workers);
        let assist = self.mutators(load, program * TICK);
        self.shares.push((running * TICK, program * TICK - assist));
        self.since_update.background += Duration::from_secs_f64(workers * TICK);
        self.since_update.assist += Duration::from_secs_f64(assist);
        self.since_update.running += load.running;
        self.limited_ticks += usize::from(self.pacer.limiter().limiting());
        self.time += TICK;
        self.ticks += 1;
    }

    /// Background workers mark for a tick; how many.
    fn background(&mut self, running: f64) -> f64 {
        let Some(cycle) = &mut self.cycle else { return 0.0 };
        let elapsed = Duration::from_secs_f64(self.time - cycle.start);
        let allowed =
            self.share.allowance(running as u32, elapsed, Duration::from_secs_f64(cycle.background));
        let workers = (f64::from(allowed.full()) + allowed.fraction) * self.scenario.workers;
        let rate = self.scenario.mark_rate * (1.0 + self.jitter);
        let work = (workers * TICK * rate).min(cycle.left);
        cycle.background += workers * TICK;
        cycle.credit += work;
        self.mark(work);
        workers
    }

    /// Marks, and ends the cycle if that was all.
    fn mark(&mut self, work: f64) {
        let Some(cycle) = &mut self.cycle else { return };
        cycle.left -= work;
        cycle.unrevised += work;
        if cycle.unrevised >= REVISE {
            cycle.unrevised = 0.0;
            self.pacer.revise((cycle.work - cycle.left) as u64);
        }
        if cycle.left < 1.0 {
            self.end();
        }
    }

    /// Mutators run for so much processor time; the time in assists.
    fn mutators(&mut self, load: Load, time: f64) -> f64 {
        let mark_rate = self.scenario.mark_rate * (1.0 + self.jitter);
        let rate = load.rate * (1.0 + self.noise());
        let mut left = time - std::mem::take(&mut self.ahead);
        let mut assisted = 0.0;
        while left > 0.0 {
            if self.owing > 0.0 {
                if self.cycle.is_none() || self.pacer.limiter().limiting() {
                    self.owing = 0.0;
                    continue;
                }
                let work = self.owing.min(left * mark_rate).min(self.cycle.as_ref().unwrap().left);
                let took = work / mark_rate;
                self.owing -= work;
                left -= took;
                assisted += took;
                self.cycle.as_mut().unwrap().assist += took;
                self.mark(work);
                continue;
            }
            let mut bytes = SPAN;
            if let Some((size, every)) = load.large {
                self.to_large += SPAN;
                if self.to_large >= every {
                    (bytes, self.to_large) = (size, 0.0);
                }
            }
            if self.cycle.is_none() && self.pacer.due_with(bytes as i64) {
                self.begin();
            }
            if let Some(cycle) = &mut self.cycle {
                let owed = self.pacer.assist_work(bytes as i64) as f64;
                let stolen = owed.min(cycle.credit);
                cycle.credit -= stolen;
                self.owing += owed - stolen;
                cycle.program += bytes / rate;
            }
            self.pacer.credit(bytes as i64);
            self.highest = self.highest.max(self.pacer.live() as f64);
            self.reachable = load.reachable.min(self.reachable + bytes);
            left -= bytes / rate;
        }
        self.ahead = -left;
        assisted
    }

    fn begin(&mut self) {
        let work = self.reachable * self.scenario.scanned;
        let credit = self.pacer.begin_marking() as f64;
        self.cycle = Some(Running {
            goal: self.pacer.goal() as f64,
            began: self.pacer.live() as f64,
            start: self.time,
            marked: self.reachable,
            work,
            left: work,
            unrevised: 0.0,
            credit,
            background: 0.0,
            assist: 0.0,
            program: 0.0,
        });
    }

    fn end(&mut self) {
        let cycle = self.cycle.take().unwrap();
        // In the middle of a tick, that is.
        let elapsed = (self.time - cycle.start + TICK / 2.0).max(TICK / 2.0);
        let ended = self.pacer.live() as f64;
        let allocated = ended - cycle.began;
        let marking = Marking {
            work: Bytes(cycle.work as usize),
            allocated: Bytes(allocated as usize),
            elapsed: Duration::from_secs_f64(elapsed),
            background: Duration::from_secs_f64(cycle.background),
            assist: Duration::from_secs_f64(cycle.assist),
            running: (cycle.program + cycle.assist) / elapsed,
        };
        self.pacer.end_cycle(CycleEnd {
            live: Bytes((cycle.marked + allocated) as usize),
            marking: Some(marking),
            ..CycleEnd::default()
        });
        let all = elapsed * f64::from(self.scenario.cpus);
        self.cycles.push(Cycle {
            goal: cycle.goal,
            began: cycle.began,
            ended,
            marked: cycle.marked,
            elapsed,
            background: cycle.background / all,
            assist: cycle.assist / all,
        });
    }

    /// The least share of the processors it wanted that the program got over any `window` seconds.
    fn least_share(&self, window: f64) -> f64 {
        let window = ((window / TICK) as usize).min(self.shares.len());
        let (mut wanted, mut got, mut least) = (0.0, 0.0, 1.0f64);
        for (at, share) in self.shares.iter().enumerate() {
            wanted += share.0;
            got += share.1;
            if at >= window {
                wanted -= self.shares[at - window].0;
                got -= self.shares[at - window].1;
            }
            if at + 1 >= window && wanted > 0.0 {
                least = least.min(got / wanted);
            }
        }
        least
    }
}
