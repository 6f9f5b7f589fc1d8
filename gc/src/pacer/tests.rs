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
    pacer.end_cycle(CycleEnd { roots: Bytes(1 << 20), ..end(10 << 20, 0) });
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

#[test]
fn all_pages_are_due_before_the_goal() {
    let pacer = Pacer::new(100, Bytes(0), Bytes(0), None);
    pacer.end_cycle(end(8 << 20, 1000));
    let mut swept = 0;
    while !pacer.due() {
        pacer.credit(8192);
        let debt = pacer.sweep_debt(0);
        pacer.swept(Some(debt));
        swept += debt.0;
    }
    assert_eq!(swept, 1000);
    pacer.swept(None);
    assert_eq!(pacer.sweep_debt(1 << 30), Pages(0));
}
