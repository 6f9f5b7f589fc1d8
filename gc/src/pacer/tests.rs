//! Goals, totals and sweeping, each by itself.

use super::goal::TABLE_SHARE;
use super::*;

fn end(live: usize, pages: usize) -> CycleEnd {
    CycleEnd { live: Bytes(live), pages: Pages(pages), ..CycleEnd::default() }
}

#[test]
fn the_goal_follows_live_bytes_and_roots() {
    let pacer = Pacer::new(100, Bytes(0), Bytes(0), None);
    assert_eq!(pacer.goal(), 4 << 20);
    pacer.end_cycle(CycleEnd { roots: Bytes(1 << 19), specials: Bytes(1 << 19), ..end(10 << 20, 0) });
    let less_tables = |bytes: u64| bytes - bytes / TABLE_SHARE;
    assert_eq!(pacer.goal(), less_tables(21 << 20));
    pacer.set_percent(50);
    assert_eq!(pacer.goal(), less_tables((10 << 20) + (11 << 20) / 2));
    pacer.set_percent(0);
    assert_eq!(pacer.goal(), u64::MAX);
    assert_eq!(pacer.percent(), 0);
    pacer.set_percent(u32::MAX);
    assert!(pacer.goal() > 1 << 40);
}

#[test]
fn a_limit_wins_but_leaves_a_runway() {
    let pacer = Pacer::new(100, Bytes(64 << 20), Bytes(0), None);
    pacer.end_cycle(CycleEnd { overhead: Bytes(4 << 20), ..end(40 << 20, 0) });
    assert_eq!(pacer.goal(), 60 << 20);
    pacer.end_cycle(end(64 << 20, 0));
    assert_eq!(pacer.goal(), 68 << 20);
    pacer.set_memory_limit(Bytes(1));
    assert_eq!(pacer.goal(), 68 << 20);
}

#[test]
fn the_last_change_of_each_input_counts() {
    let pacer = Pacer::new(100, Bytes(0), Bytes(0), None);
    for round in 0..2000u32 {
        let (live, percent) = ((8 + round as usize % 7) << 20, 50 + round % 13);
        std::thread::scope(|threads| {
            threads.spawn(|| pacer.set_percent(percent));
            pacer.end_cycle(end(live, 0));
        });
        let alone = Pacer::new(percent, Bytes(0), Bytes(0), None);
        alone.end_cycle(end(live, 0));
        assert_eq!(pacer.goal(), alone.goal(), "round {round}");
    }
}

#[test]
fn totals_are_all_that_was_credited_and_found_dead() {
    let pacer = Pacer::new(100, Bytes(0), Bytes(0), None);
    pacer.credit(10_000);
    pacer.credit(-2_000);
    assert_eq!(pacer.totals(), (8_000, 0));
    pacer.end_cycle(end(3_000, 0));
    pacer.credit(500);
    assert_eq!(pacer.totals(), (8_500, 5_000));
    pacer.end_cycle(end(3_500, 0));
    assert_eq!((pacer.totals(), pacer.live()), ((8_500, 5_000), 3_500));
}

/// Allocates until a cycle is due, and pays what is to be swept for it; the pages.
fn sweep_until_due(pacer: &Pacer) -> usize {
    let mut swept = 0;
    while !pacer.due_with(0) {
        pacer.credit(8192);
        let debt = pacer.sweep_debt(0);
        pacer.swept(Some(debt));
        swept += debt.0;
    }
    swept
}

#[test]
fn all_pages_are_due_before_the_goal() {
    let pacer = Pacer::new(100, Bytes(0), Bytes(0), None);
    pacer.end_cycle(end(8 << 20, 1000));
    assert_eq!(sweep_until_due(&pacer), 1000);
    pacer.swept(None);
    assert_eq!(pacer.sweep_debt(1 << 30), Pages(0));
}

#[test]
fn little_is_due_at_once_in_a_small_heap() {
    let pacer = Pacer::new(100, Bytes(0), Bytes(0), CPUS);
    pacer.end_cycle(end(64 << 10, 1000));
    // 1 MiB ahead would be a third of all.
    assert!((1..=70).contains(&pacer.sweep_debt(8192).0), "{:?}", pacer.sweep_debt(8192));
    pacer.end_cycle(end(1 << 30, 1000));
    assert_eq!(pacer.sweep_debt(8192), Pages(1));
}

#[test]
fn what_is_likely_to_live() {
    for percent in [0, 100, 10_000] {
        let pacer = Pacer::new(percent, Bytes(0), Bytes(0), CPUS);
        // Nothing is known.
        pacer.credit(3 << 20);
        assert_eq!(pacer.likely_live(), Bytes(3 << 20));
        pacer.end_cycle(end(100 << 10, 0));
        pacer.credit(500 << 10);
        assert_eq!(pacer.likely_live(), Bytes(100 << 10));
        // It has grown.
        pacer.credit(15 << 20);
        assert_eq!(pacer.likely_live(), Bytes((600 << 10 | 15 << 20) / 8));
        pacer.end_cycle(end(64 << 20, 0));
        assert_eq!(pacer.likely_live(), Bytes(64 << 20));
    }
}

const CPUS: Option<Cpus> = Some(Cpus(4));

#[test]
fn the_lines_are_in_order() {
    let mut random = 1u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % below
    };
    for round in 0..100_000 {
        let size = 1 << next(36);
        let percent = [0, 1, 10, 100, 1000, u32::MAX][next(6) as usize];
        let concurrent = next(2) == 1;
        let limit = next(2) * next(2 * size);
        let mut inputs = Inputs {
            percent,
            memory_limit: Bytes(limit as usize),
            concurrent,
            last: CycleEnd { roots: Bytes(next(1 << 20) as usize), ..end(next(size) as usize, 0) },
            runway: Runway::default(),
        };
        if next(2) == 1 {
            let time = Duration::from_millis(100);
            let [work, allocated] = [next(size), next(size)].map(|bytes| Bytes(bytes as usize));
            let marking =
                Marking { work, allocated, elapsed: time, background: time, assist: time, running: 4.0 };
            inputs.runway.learn(&marking, Cpus(4));
            inputs.last.marking = Some(marking);
        }
        let (lines, live) = (inputs.lines(), inputs.last.live.0 as u64);
        let Lines { goal, trigger, held, stretched, wait } = lines;
        let ordered =
            live <= trigger && trigger <= goal && goal <= stretched && stretched <= wait && trigger <= held;
        assert!(ordered && (concurrent || trigger == goal), "round {round}: {live} {lines:?}");
    }
}

/// A cycle of 40 MiB found live and 20 MiB scanned, in which the program allocated 3 MiB in all of its time.
fn paced(pacer: &Pacer) {
    let elapsed = Duration::from_millis(20);
    let marking = Marking {
        work: Bytes(20 << 20),
        allocated: Bytes(3 << 20),
        elapsed,
        background: elapsed,
        assist: Duration::ZERO,
        running: 4.0,
    };
    pacer.end_cycle(CycleEnd { marking: Some(marking), ..end(40 << 20, 0) });
}

#[test]
fn a_stopped_world_starts_at_the_goal() {
    let pacer = Pacer::new(100, Bytes(0), Bytes(0), None);
    for live in [0, 1 << 20, 100 << 20] {
        pacer.end_cycle(end(live, 0));
        assert_eq!(pacer.trigger(), pacer.goal());
        assert!(!pacer.due_with(pacer.goal() as i64 - live as i64 - 1));
        assert!(pacer.due_with(pacer.goal() as i64 - live as i64));
    }
}

#[test]
fn the_trigger_leaves_the_runway_that_was_seen() {
    let pacer = Pacer::new(100, Bytes(0), Bytes(0), CPUS);
    pacer.end_cycle(end(40 << 20, 0));
    let growth = pacer.goal() - (40 << 20);
    // Not known yet: as early as it may be.
    assert_eq!(pacer.trigger(), (40 << 20) + growth / 100 * 80);
    paced(&pacer);
    assert_eq!(pacer.trigger(), pacer.goal() - (3 << 20));
    let live = pacer.live() as i64;
    assert!(
        !pacer.due_with(pacer.trigger() as i64 - live - 1) && pacer.due_with(pacer.trigger() as i64 - live)
    );
    pacer.set_percent(50);
    assert_eq!(pacer.trigger(), pacer.goal() - (3 << 20));
    // No later than this, and no earlier than that.
    pacer.set_percent(1000);
    assert_eq!(pacer.trigger(), pacer.goal() - (4 << 20));
    pacer.set_percent(10);
    assert_eq!(pacer.trigger(), (40 << 20) + (pacer.goal() - (40 << 20)) / 100 * 80);
    // Collections on request only.
    pacer.set_percent(0);
    assert_eq!(pacer.trigger(), u64::MAX);
    assert!(!pacer.due_with(i64::MAX));
}

#[test]
fn a_small_percentage_is_less_than_the_tables_but_grows() {
    for concurrent in [None, CPUS] {
        let pacer = Pacer::new(1, Bytes(0), Bytes(0), concurrent);
        pacer.end_cycle(end(100 << 20, 0));
        assert!(pacer.goal() >= (100 << 20) + (256 << 10));
        assert!(!pacer.due_with(0));
    }
}

#[test]
fn work_and_room_end_together() {
    let pacer = Pacer::new(100, Bytes(0), Bytes(0), CPUS);
    assert_eq!(pacer.assist_work(1 << 20), 0, "no marking runs");
    paced(&pacer);
    let growth = (pacer.trigger() - pacer.live()) as i64;
    pacer.credit(growth);
    assert_eq!(pacer.assist_work(1 << 20), 0);
    assert_eq!(pacer.begin_marking(), (20 << 20) / 10);
    // 20 MiB of work in 3 MiB.
    let near = |owed: i64, work: f64| (owed as f64 - work).abs() < 16.0;
    assert!(near(pacer.assist_work(3 << 20), 20.0 * 1048576.0), "{}", pacer.assist_work(3 << 20));
    pacer.credit(1 << 20);
    pacer.revise(15 << 20);
    assert!(near(pacer.assist_work(2 << 20), 5.0 * 1048576.0));
    // As expected, and nothing is left.
    pacer.revise(20 << 20);
    assert!(pacer.assist_work(2 << 20) <= 1000);
    // More than expected: as steep as at first.
    pacer.credit(2 << 20);
    pacer.revise((20 << 20) + 1);
    assert!((pacer.assist_work(3 << 20) as f64 / 1048576.0 - 20.0).abs() < 0.1);
    // Beyond the goal, and beyond the next: all that is left within a little.
    pacer.credit((pacer.goal() * 2) as i64);
    pacer.revise(20 << 20);
    assert!(pacer.assist_work(pacer.goal() as i64 / 50) > 20 << 20);
    pacer.end_marking();
    pacer.revise(21 << 20);
    assert_eq!(pacer.assist_work(1 << 30), 0);
}

#[test]
fn a_small_heap_has_a_head_start_of_half_its_work() {
    for (live, credit) in
        [(64 << 10, 32 << 10), (512 << 10, 256 << 10), (2 << 20, 256 << 10), (4 << 20, (4 << 20) / 10)]
    {
        let pacer = Pacer::new(100, Bytes(0), Bytes(0), CPUS);
        pacer.end_cycle(end(live, 0));
        assert_eq!(pacer.begin_marking(), credit, "{live}");
    }
}

#[test]
fn a_change_of_the_goal_counts_in_the_cycle_that_runs() {
    let pacer = Pacer::new(100, Bytes(0), Bytes(0), CPUS);
    paced(&pacer);
    pacer.begin_marking();
    let before = pacer.assist_work(1 << 20);
    pacer.set_percent(50);
    pacer.revise(0);
    assert!(pacer.assist_work(1 << 20) > before * 3 / 2);
    pacer.set_percent(0);
    pacer.revise(0);
    assert_eq!(pacer.assist_work(1 << 30), 0);
}

#[test]
fn the_limiter_ends_assists_and_holds_back_what_a_limit_asks_for() {
    let pacer = Pacer::new(400, Bytes(1), Bytes(0), CPUS);
    paced(&pacer);
    let tight = pacer.trigger();
    assert!(tight < 43 << 20);
    pacer.credit((tight - pacer.live()) as i64);
    assert!(pacer.due_with(0));
    pacer.begin_marking();
    assert!(pacer.assist_work(1 << 20) > 0);
    let second = Duration::from_secs(1);
    pacer.limiter().update(second, Spent { assist: second * 4, running: 4.0, ..Spent::default() });
    assert!(pacer.limiter().limiting());
    assert_eq!(pacer.assist_work(1 << 20), 0);
    paced(&pacer);
    pacer.credit((tight - pacer.live()) as i64);
    assert!(!pacer.due_with(0));
    // Up to a doubling.
    assert!((70 << 20..80 << 20).contains(&pacer.trigger()), "{}", pacer.trigger());
    pacer.credit((pacer.trigger() - pacer.live()) as i64);
    assert!(pacer.due_with(0));
    // It was no more than one update's overflow, so the program has its due after that much.
    pacer.limiter().update(second * 2, Spent { running: 4.0, ..Spent::default() });
    assert!(!pacer.limiter().limiting());
    assert_eq!(pacer.trigger(), tight);
}

#[test]
fn mutators_wait_a_little_past_the_goal_but_never_while_the_limiter_is_on() {
    let pacer = Pacer::new(400, Bytes(48 << 20), Bytes(0), CPUS);
    paced(&pacer);
    pacer.begin_marking();
    let goal = pacer.goal() as i64;
    pacer.credit(goal - pacer.live() as i64);
    assert!(pacer.is_past_goal(0) && !pacer.must_wait(0) && pacer.must_wait(goal / 40));
    pacer.credit(goal / 40);
    assert!(pacer.must_wait(0));
    let second = Duration::from_secs(1);
    pacer.limiter().update(second, Spent { assist: second * 4, running: 4.0, ..Spent::default() });
    assert!(pacer.limiter().limiting() && !pacer.must_wait(0));
    // Without a limit, past what a heap that has grown may come to.
    let pacer = Pacer::new(100, Bytes(0), Bytes(0), CPUS);
    paced(&pacer);
    pacer.begin_marking();
    pacer.credit(pacer.goal() as i64 * 3 / 2 - pacer.live() as i64);
    assert!(pacer.is_past_goal(0) && !pacer.must_wait(0));
    pacer.credit(pacer.goal() as i64);
    assert!(pacer.must_wait(0));
}

#[test]
fn the_limiter_counts_what_the_program_could_use() {
    let tick = Duration::from_millis(10);
    let limits = |running: f64, background: f64, assist: f64| {
        let limiter = Limiter::new(Cpus(8));
        let spent = Spent { background: tick.mul_f64(background), assist: tick.mul_f64(assist), running };
        for _ in 0..1000 {
            limiter.update(tick, spent);
        }
        limiter.limiting()
    };
    // The background share and idle processors are nobody's loss.
    assert!(!limits(8.0, 2.0, 0.0));
    assert!(!limits(1.0, 7.0, 0.0));
    assert!(!limits(0.0, 8.0, 0.0));
    // A little less than half, and a little more.
    assert!(!limits(8.0, 2.0, 1.4));
    assert!(limits(8.0, 2.0, 1.8));
    // One thread that marks more than it runs, with seven processors idle.
    assert!(!limits(1.0, 2.0, 0.4));
    assert!(limits(1.0, 2.0, 0.6));
}

#[test]
fn quiet_times_are_no_credit_and_a_series_of_cycles_no_debt() {
    let limiter = Limiter::new(Cpus(1));
    limiter.update(Duration::from_secs(100), Spent { running: 1.0, ..Spent::default() });
    let stop = |length: Duration| {
        limiter.update(length, Spent { assist: length, running: 1.0, ..Spent::default() });
    };
    stop(LEEWAY);
    assert!(!limiter.limiting());
    stop(LEEWAY);
    assert!(limiter.limiting());
    for _ in 0..1000 {
        stop(LEEWAY);
    }
    limiter.update(LEEWAY * 2, Spent { running: 1.0, ..Spent::default() });
    assert!(!limiter.limiting());
}

#[test]
fn workers_have_a_quarter_and_what_is_idle() {
    for cpus in 1..=64u32 {
        let share = Share::new(Cpus(cpus));
        let busy = share.allowance(cpus, Duration::ZERO, Duration::ZERO);
        let quarter = f64::from(cpus) * BACKGROUND_SHARE;
        assert_eq!((busy.dedicated, busy.idle), (cpus / 4, 0));
        assert_eq!(f64::from(busy.dedicated) + busy.fraction, quarter);
        // More threads than processors.
        assert_eq!(share.allowance(cpus * 3, Duration::ZERO, Duration::ZERO), busy);
        for running in 0..cpus {
            let allowed = share.allowance(running, Duration::ZERO, Duration::ZERO);
            let workers = f64::from(allowed.full()) + allowed.fraction;
            let free = cpus - running;
            let expected = if free > cpus / 4 { f64::from(free) } else { quarter };
            assert_eq!(workers, expected, "{running} of {cpus}: {allowed:?}");
        }
    }
}

#[test]
fn workers_that_run_when_they_may_have_their_share() {
    // The fractional worker runs for a step of 1 ms whenever the fractions since the last add up to one.
    for cpus in [1, 2, 3, 5, 6, 7] {
        let share = Share::new(Cpus(cpus));
        let (mut used, mut elapsed, mut turn) = (Duration::ZERO, Duration::ZERO, 0.0);
        let step = Duration::from_millis(1);
        for _ in 0..1000 {
            let allowed = share.allowance(cpus, elapsed, used);
            turn += allowed.fraction;
            used += step * allowed.full();
            if turn >= 1.0 {
                turn -= 1.0;
                used += step;
            }
            elapsed += step;
            let off = used.as_secs_f64() - share.of(elapsed).as_secs_f64();
            assert!(off.abs() <= 0.003, "{cpus} processors, {elapsed:?}: {off}");
        }
    }
}

#[test]
fn sweeping_is_done_when_the_next_cycle_starts() {
    let pacer = Pacer::new(100, Bytes(0), Bytes(0), CPUS);
    pacer.end_cycle(end(40 << 20, 1000));
    assert_eq!(sweep_until_due(&pacer), 1000);
    assert!(pacer.live() < pacer.goal() - (7 << 20));
}

#[test]
fn a_limit_is_not_stretched() {
    let in_sight = |memory_limit: usize, percent| {
        let pacer = Pacer::new(percent, Bytes(memory_limit), Bytes(0), CPUS);
        paced(&pacer);
        assert!(pacer.goal().abs_diff(60 << 20) <= 1, "{}", pacer.goal());
        pacer.credit(15 << 20);
        pacer.begin_marking();
        pacer.credit(3 << 20);
        // All of 55 MiB may be live, of which 20 were expected. 35 MiB are left to be scanned in this room:
        pacer.revise((20 << 20) + 1);
        35.0 * (1 << 20) as f64 / (pacer.assist_work(1 << 20) as f64 / (1 << 20) as f64)
    };
    let mib = 1048576.0;
    // With the tables of a heap that is as large.
    let limit = (60 << 20) * TABLE_SHARE / (TABLE_SHARE - 1);
    assert!((in_sight(limit as usize, 1000) / mib - 2.0).abs() < 0.1);
    // No limit, and this percentage for the same goal: 5 MiB for 20 MiB, as at first.
    let added = (60 << 20) * TABLE_SHARE / (TABLE_SHARE - 1) - (40 << 20);
    let percent = (added * 100).div_ceil(40 << 20) as u32;
    let pacer = Pacer::new(percent, Bytes(0), Bytes(0), CPUS);
    paced(&pacer);
    let (goal, began) = (pacer.goal(), 55 << 20);
    pacer.credit(15 << 20);
    pacer.begin_marking();
    let first = pacer.assist_work(1 << 20);
    pacer.credit(goal as i64 - began);
    pacer.revise((20 << 20) + 1);
    assert!((pacer.assist_work(1 << 20) as f64 / first as f64 - 1.0).abs() < 0.01);
}

#[test]
fn a_runway_is_what_it_would_be_without_assists() {
    let seen = |background: u64, assist: u64, running, allocated| {
        let mut runway = Runway::default();
        let [elapsed, background, assist] = [100, background, assist].map(Duration::from_millis);
        let work = Bytes(10_000_000);
        let marking = Marking { work, allocated: Bytes(allocated), elapsed, background, assist, running };
        runway.learn(&marking, Cpus(4));
        runway.bytes(20_000_000)
    };
    assert_eq!(seen(100, 0, 4.0, 1_000_000), Some(2_000_000));
    // Two thirds of the program's time, and half of the marking.
    assert_eq!(seen(100, 100, 4.0, 1_000_000), Some(6_000_000));
    // Workers that had half of their share will have it, or assists will make it up.
    assert_eq!(seen(50, 50, 4.0, 1_000_000), Some(2_000_000));
    // One thread, and three idle workers: as it was.
    assert_eq!(seen(300, 0, 1.0, 1_000_000), Some(2_000_000));
    // It assists half of the time, though: twice as fast without, and the workers mark what it did.
    assert_eq!(seen(300, 50, 1.0, 1_200_000), Some(5_600_000));
    // Nothing to learn from.
    assert_eq!(seen(100, 0, 4.0, 0), None);
    assert_eq!(seen(0, 0, 0.0, 1_000_000), None);
    // All the time in assists is taken for nine tenths.
    assert_eq!(seen(0, 400, 4.0, 1_000_000), Some(80_000_000));
}

#[test]
fn what_says_nothing_is_not_remembered() {
    let pacer = Pacer::new(100, Bytes(0), Bytes(0), CPUS);
    paced(&pacer);
    let marking = Marking { work: Bytes(20 << 20), elapsed: Duration::from_secs(1), ..Marking::default() };
    for _ in 0..10 {
        pacer.end_cycle(CycleEnd { marking: Some(marking), ..end(40 << 20, 0) });
    }
    assert_eq!(pacer.trigger(), pacer.goal() - (3 << 20));
}

#[test]
fn a_revision_that_is_overtaken_by_the_end_changes_nothing() {
    let assist = Assist::default();
    assist.begin(40 << 20, 20 << 20, 40 << 20);
    let late = assist.revised(0, 40 << 20, 60 << 20, 60 << 20).unwrap();
    assist.replace(late);
    assert_eq!(assist.owed(20 << 20), 20 << 20);
    let late = assist.revised(10 << 20, 40 << 20, 60 << 20, 60 << 20).unwrap();
    assist.end();
    assist.replace(late);
    assert_eq!(assist.owed(20 << 20), 0);
}
