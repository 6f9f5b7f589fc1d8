//! Scenarios, and what must hold in each.

use super::*;
use crate::pacer::{BACKGROUND_SHARE, HEAD_START, LEEWAY, LIMIT};

const STEADY: Scenario = Scenario {
    cpus: 4,
    percent: 100,
    memory_limit: 0.0,
    mark_rate: 1000.0 * MIB,
    scanned: 1.0,
    workers: 1.0,
    noise: 0.02,
    load: |_, _| BUSY,
};
const BUSY: Load = Load { running: 4.0, rate: 40.0 * MIB, reachable: 64.0 * MIB, large: None };
/// More than the background share can mark for.
const FAST: Load = Load { rate: 400.0 * MIB, ..BUSY };
/// One thread that allocates as fast as it can.
const ALONE: Load = Load { running: 1.0, rate: 3000.0 * MIB, ..BUSY };
/// Cycles that are enough to learn from the start.
const LEARNT: usize = 25;
/// And after a change.
const ADAPTED: usize = 6;
/// How far from its goal a heap may be.
const GOAL: f64 = 0.05;
/// How far from its share the collector may be.
const SHARE: f64 = 0.01;

/// What holds in every scenario: over any time of this length, the program has half of the processors it wants.
fn window() -> f64 {
    (LEEWAY.as_secs_f64() + UPDATE as f64 * TICK) / (0.5 - LIMIT)
}

fn run(scenario: Scenario) -> Simulation {
    let simulation = Simulation::run(scenario, 60);
    let least = simulation.least_share(window());
    assert!(least >= 0.5, "the program has {least:.3} of the processors for {:.1} s", window());
    simulation
}

impl Simulation {
    /// The cycles in which the pacer knows what goes on, if that changed in the cycle `change`.
    fn learnt(&self, change: usize) -> impl Iterator<Item = (usize, &Cycle)> {
        let known = move |at: usize| at >= LEARNT && !(change..change + ADAPTED).contains(&at);
        self.cycles.iter().enumerate().filter(move |cycle| known(cycle.0))
    }

    fn meets_its_goal(&self, change: usize) {
        for (number, cycle) in self.learnt(change) {
            let off = cycle.ended / cycle.goal - 1.0;
            assert!(cycle.began < cycle.goal, "cycle {number} starts too late: {cycle:?}");
            assert!(off.abs() <= GOAL, "cycle {number} ends {off:.3} off its goal: {cycle:?}");
        }
    }

    fn takes_its_share(&self, change: usize) {
        for (number, cycle) in self.learnt(change) {
            let off = cycle.background + cycle.assist - BACKGROUND_SHARE;
            assert!(off.abs() <= SHARE, "cycle {number} takes {off:.3} off its share: {cycle:?}");
        }
    }
}

/// Runs, and holds it to both; in the cycle `change`, something else begins.
fn settles_again(scenario: Scenario, change: usize) -> Simulation {
    let simulation = run(scenario);
    simulation.meets_its_goal(change);
    simulation.takes_its_share(change);
    simulation
}

fn settles(scenario: Scenario) -> Simulation {
    settles_again(scenario, 0)
}

#[test]
fn steady() {
    for noise in [0.0, 0.05] {
        let steady = settles(Scenario { noise, ..STEADY });
        // One processor of four marks 64 MiB at 1000 MiB in a second.
        assert!(steady.learnt(0).all(|(_, cycle)| (0.055..0.07).contains(&cycle.elapsed)));
    }
    settles(Scenario { percent: 400, ..STEADY });
    settles(Scenario { percent: 50, load: |_, _| Load { rate: 25.0 * MIB, ..BUSY }, ..STEADY });
    settles(Scenario { scanned: 0.2, ..STEADY });
}

#[test]
fn on_machines_of_all_sizes() {
    settles(Scenario { cpus: 1, load: |_, _| Load { running: 1.0, ..BUSY }, ..STEADY });
    settles(Scenario { cpus: 2, load: |_, _| Load { running: 2.0, ..BUSY }, ..STEADY });
    settles(Scenario { cpus: 3, load: |_, _| Load { running: 3.0, ..BUSY }, ..STEADY });
    settles(Scenario { cpus: 6, load: |_, _| Load { running: 6.0, ..BUSY }, ..STEADY });
    settles(Scenario { cpus: 16, load: |_, _| Load { running: 40.0, ..BUSY }, ..STEADY });
}

#[test]
fn growing() {
    let grown = settles(Scenario {
        load: |cycle, _| Load { reachable: 8.0 * 1.06f64.powi(cycle as i32) * MIB, ..BUSY },
        ..STEADY
    });
    assert!(grown.cycles.last().unwrap().marked > 200.0 * MIB);
}

/// Nothing dies until there are 128 MiB: each cycle finds more than was expected.
#[test]
fn building_up() {
    for percent in [50, 100, 400] {
        let load = |_, _| Load { reachable: 128.0 * MIB, rate: 27.0 * MIB, ..BUSY };
        let built = run(Scenario { percent, load, ..STEADY });
        built.meets_its_goal(0);
        let building = built.cycles.iter().take_while(|cycle| cycle.marked < 128.0 * MIB);
        let building: Vec<_> = building.filter(|cycle| cycle.goal > 10.0 * MIB).collect();
        assert!(building.len() >= 2);
        for cycle in building {
            assert!(cycle.assist <= SHARE, "assists though the next goal is far: {cycle:?}");
            assert!(cycle.ended <= cycle.goal * 1.25, "{cycle:?}");
        }
    }
}

#[test]
fn shrinking() {
    let shrunk = settles(Scenario {
        load: |cycle, _| Load { reachable: 256.0 * 0.97f64.powi(cycle as i32) * MIB, ..BUSY },
        ..STEADY
    });
    assert!(shrunk.cycles.last().unwrap().marked < 64.0 * MIB);
}

#[test]
fn a_step() {
    settles_again(
        Scenario {
            load: |cycle, _| Load { reachable: if cycle < 30 { 32.0 } else { 128.0 } * MIB, ..BUSY },
            ..STEADY
        },
        30,
    );
    settles_again(
        Scenario {
            load: |cycle, _| Load { rate: if cycle < 30 { 20.0 } else { 80.0 } * MIB, ..BUSY },
            ..STEADY
        },
        30,
    );
}

#[test]
fn a_sawtooth() {
    settles(Scenario {
        load: |_, time| Load { reachable: (48.0 + 48.0 * (time / 4.0).fract()) * MIB, ..BUSY },
        ..STEADY
    });
    settles(Scenario {
        load: |_, time| Load { rate: (30.0 + 30.0 * (time / 4.0).fract()) * MIB, ..BUSY },
        ..STEADY
    });
    settles(Scenario {
        load: |cycle, _| Load { rate: if cycle.is_multiple_of(2) { 40.0 } else { 60.0 } * MIB, ..BUSY },
        ..STEADY
    });
}

#[test]
fn bursts_of_large_objects() {
    settles(Scenario { load: |_, _| Load { large: Some((MIB, 3.0 * MIB)), ..BUSY }, ..STEADY });
    // As large as the runway: the goal is met, but workers cannot mark as fast as such an object comes.
    let large =
        run(Scenario { load: |_, _| Load { large: Some((8.0 * MIB, 24.0 * MIB)), ..BUSY }, ..STEADY });
    large.meets_its_goal(0);
}

#[test]
fn many_idle_threads() {
    let idle =
        run(Scenario { cpus: 8, load: |_, _| Load { running: 1.0, rate: 400.0 * MIB, ..BUSY }, ..STEADY });
    idle.meets_its_goal(0);
    for (number, cycle) in idle.learnt(0) {
        assert!(cycle.assist <= SHARE, "cycle {number}: {cycle:?}");
        assert!(cycle.background > 0.8, "cycle {number} leaves processors idle: {cycle:?}");
    }
    // Who goes to work and rests again meets a runway that is too long rather than one that is too short.
    let now_and_then = run(Scenario {
        cpus: 8,
        load: |_, time| Load { running: if (time as usize).is_multiple_of(2) { 1.0 } else { 8.0 }, ..BUSY },
        ..STEADY
    });
    for (number, cycle) in now_and_then.learnt(0) {
        assert!(cycle.ended <= cycle.goal * (1.0 + GOAL), "cycle {number}: {cycle:?}");
    }
}

#[test]
fn what_workers_do_not_do_assists_do() {
    settles(Scenario { workers: 0.5, ..STEADY });
    // The head start is time in which nobody marks, if there are no workers: up to a tenth of the time, so up to a tenth of the share.
    let alone = run(Scenario { workers: 0.0, ..STEADY });
    alone.meets_its_goal(0);
    for (number, cycle) in alone.learnt(0) {
        let least = BACKGROUND_SHARE * (1.0 - 1.0 / HEAD_START as f64) - SHARE;
        assert!((least..BACKGROUND_SHARE + SHARE).contains(&cycle.assist), "cycle {number}: {cycle:?}");
    }
}

/// The head start of a small heap is half of its work: the rest is done in time even if there are no workers.
#[test]
fn small_heaps() {
    for (reachable, percent, workers) in
        [(64, 100, 1.0), (64, 100, 0.0), (1024, 100, 0.0), (1024, 10, 1.0), (1024, 10, 0.0)]
    {
        let load: fn(usize, f64) -> Load = match reachable {
            64 => |_, _| Load { reachable: 0.0625 * MIB, ..BUSY },
            _ => |_, _| Load { reachable: MIB, ..BUSY },
        };
        let small = run(Scenario { percent, workers, load, ..STEADY });
        for (number, cycle) in small.learnt(0) {
            assert!(
                cycle.ended <= cycle.goal * (1.0 + GOAL),
                "{reachable} KiB, {percent} %, {workers}: {number}: {cycle:?}"
            );
        }
    }
}

#[test]
fn more_than_the_background_share_can_mark_for() {
    let fast = run(Scenario { load: |_, _| FAST, ..STEADY });
    fast.meets_its_goal(0);
    assert_eq!(fast.limited_ticks, 0);
}

#[test]
fn a_limit_near_live() {
    // Lower than the goal without it, with room for the runway.
    let near = settles(Scenario { memory_limit: 120.0 * MIB, ..STEADY });
    assert!(near.highest <= 120.0 * MIB * (1.0 + GOAL), "{}", near.highest);
    // None for that: assists hold the line.
    let tight = run(Scenario { memory_limit: 76.0 * MIB, ..STEADY });
    tight.meets_its_goal(0);
    assert!(tight.highest <= 76.0 * MIB * (1.0 + GOAL), "{}", tight.highest);
}

#[test]
fn a_limit_below_live() {
    for (percent, limit) in [(100, 40.0 * MIB), (100, 1.0), (0, 1.0)] {
        let below = run(Scenario { percent, memory_limit: limit, ..STEADY });
        // The goal is the least runway beyond what is live, so it is met although the limit cannot be.
        below.meets_its_goal(0);
        assert!(below.highest <= 64.0 * MIB * 1.2, "{}", below.highest);
    }
}

#[test]
fn a_heap_that_is_too_small_slows_down() {
    // Nothing that leaves the program half of the processors can hold these. It must have that, so the heap outgrows
    // its limit, but by no more than a doubling.
    for (percent, limit) in [(100, 80.0 * MIB), (100, 1.0), (0, 1.0)] {
        let fast = run(Scenario { percent, memory_limit: limit, load: |_, _| FAST, ..STEADY });
        assert!(fast.limited_ticks > 0);
        assert!(fast.highest <= 64.0 * MIB * 2.2, "{}", fast.highest);
        let alone = run(Scenario { percent, memory_limit: limit, cpus: 8, load: |_, _| ALONE, ..STEADY });
        assert!(alone.highest <= 64.0 * MIB * 2.2, "{}", alone.highest);
    }
}

/// A stop of 64 ms after each 16 ms, if it were not for the limiter.
#[test]
fn stops_of_the_world_take_no_more_than_half() {
    let pacer = Pacer::new(0, Bytes(1), Bytes(0), None);
    let (mut ran, mut stopped, mut since) = (0.0, 0.0, 0);
    pacer.end_cycle(CycleEnd { live: Bytes(64 << 20), ..CycleEnd::default() });
    let pause = 0.064;
    while ran + stopped < 20.0 {
        pacer.credit((TICK * 240.0 * MIB) as i64);
        ran += TICK;
        since += 1;
        if since == UPDATE {
            since = 0;
            let elapsed = Duration::from_secs_f64(UPDATE as f64 * TICK);
            pacer.limiter().update(elapsed, Spent { running: 1.0, ..Spent::default() });
        }
        if pacer.due_with(0) {
            stopped += pause;
            pacer.end_cycle(CycleEnd { live: Bytes(64 << 20), ..CycleEnd::default() });
            let pause = Duration::from_secs_f64(pause);
            pacer.limiter().update(pause, Spent { assist: pause, running: 1.0, ..Spent::default() });
        }
    }
    let share = stopped / (ran + stopped);
    assert!((LIMIT - 0.03..LIMIT + 0.01).contains(&share), "{share}");
}
