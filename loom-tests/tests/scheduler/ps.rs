//! Ps pass from hand to hand, and their number changes.

use super::toy::Toy;
use besom_loom_tests::{model, start};
use besom_stats::sync::Ordering::*;

/// The thread that has the only P looks at nothing but its poll word; both others get their turn.
#[test]
fn the_only_p_goes_to_all_who_wait() {
    model(3, || {
        let toy = Toy::new(1);
        let mut own = toy.attach();
        let others = [(); 2].map(|()| {
            start(&toy, |toy| {
                let guest = toy.attach();
                assert_eq!(toy.ps(), 1);
                toy.turns.fetch_add(1, Relaxed);
                guest.detach();
            })
        });
        own.run_until(|| toy.turns() == 2);
        own.detach();
        others.into_iter().for_each(|t| t.join().unwrap());
        toy.settled();
    });
}

/// Who blocks leaves the only P to who waits for it.
#[test]
fn a_blocked_thread_leaves_its_p() {
    model(3, || {
        let toy = Toy::new(1);
        let mut own = toy.attach();
        let other = start(&toy, |toy| {
            let guest = toy.attach();
            toy.turns.fetch_add(1, Relaxed);
            guest.detach();
        });
        own.block_until(1);
        own.detach();
        other.join().unwrap();
        toy.settled();
    });
}

/// Two that only poll take turns with the one P.
#[test]
fn two_pass_the_only_p_to_and_fro() {
    model(3, || {
        let toy = Toy::new(1);
        let mut own = toy.attach();
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            toy.turns.fetch_add(1, Relaxed);
            guest.run_until(|| toy.turns() == 2);
            guest.detach();
        });
        own.run_until(|| toy.turns() == 1);
        toy.turns.fetch_add(1, Relaxed);
        own.detach();
        other.join().unwrap();
        toy.settled();
    });
}

#[test]
fn a_stop_while_threads_wait_for_the_only_p() {
    model(3, || {
        let toy = Toy::new(1);
        let own = toy.attach();
        let other = start(&toy, |toy| {
            let guest = toy.attach();
            guest.collect_surely();
            guest.detach();
        });
        let third = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.block_and_unblock();
            guest.detach();
        });
        own.collect_surely();
        own.detach();
        other.join().unwrap();
        third.join().unwrap();
        assert_eq!(toy.collections(), 2);
        toy.settled();
    });
}

/// Two run with two Ps, then with one, then with two again.
#[test]
fn the_number_of_ps_goes_down_and_up() {
    model(3, || {
        let toy = Toy::new(2);
        let mut own = toy.attach();
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.run_until(|| toy.turns() == 1);
            toy.turns.fetch_add(1, Relaxed);
            guest.detach();
        });
        toy.scheduler.set_limit(&*toy, 1).unwrap();
        own.run_until(|| toy.ps() == 1);
        toy.scheduler.set_limit(&*toy, 2).unwrap();
        toy.turns.fetch_add(1, Relaxed);
        // Both run at once: this one does not hand its P over.
        own.wait_for_turns(2);
        own.detach();
        other.join().unwrap();
        toy.settled();
    });
}

/// The limit falls at any moment of a stop: one P goes, though nobody stops the world again.
#[test]
fn the_limit_falls_during_a_stop() {
    model(2, || {
        let toy = Toy::new(2);
        let mut own = toy.attach();
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.collect();
            guest.run_until(|| toy.turns() == 1 && toy.ps() == 1);
            guest.detach();
        });
        let third = start(&toy, |toy| {
            toy.scheduler.set_limit(toy, 1).unwrap();
            toy.turns.fetch_add(1, Relaxed);
        });
        own.collect();
        own.run_until(|| toy.turns() == 1 && toy.ps() == 1);
        own.detach();
        other.join().unwrap();
        third.join().unwrap();
        toy.settled();
    });
}

/// The limit falls while a P is idle: a stopped world keeps it, and it goes afterwards.
#[test]
fn an_idle_p_stays_in_a_stop() {
    model(3, || {
        let toy = Toy::new(2);
        let own = toy.attach();
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.block_and_unblock();
            guest.detach();
        });
        let third = start(&toy, |toy| toy.scheduler.set_limit(toy, 1).unwrap());
        assert!(own.collect());
        own.detach();
        other.join().unwrap();
        third.join().unwrap();
        toy.settled();
    });
}

/// Ps that somebody looks at do not go meanwhile.
#[test]
fn ps_are_pinned_beside_threads_that_leave() {
    model(3, || {
        let toy = Toy::new(0);
        let leavers = [(); 2].map(|()| start(&toy, |toy| toy.attach().detach()));
        let looker = start(&toy, |toy| {
            toy.scheduler.with_ps_pinned(|| {
                toy.ps.iter().filter(|p| p.exists.load(Acquire)).for_each(|p| p.pin.shared());
            });
        });
        leavers.into_iter().for_each(|t| t.join().unwrap());
        looker.join().unwrap();
        toy.settled();
    });
}
