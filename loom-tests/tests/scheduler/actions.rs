//! Stops whose action is run by the last thread to park, and by who asked where that is nobody.

use super::toy::Toy;
use besom_loom_tests::{model, start};
use besom_stats::sync::{Ordering::*, yield_now};

/// Asked for by one who has no seat, of two who do nothing but look at their poll words. Both run before the collection is over.
#[test]
fn the_last_to_park_acts() {
    model(1, || {
        let toy = Toy::new(0);
        let others = [(); 2].map(|()| {
            start(&toy, |toy| {
                let mut guest = toy.attach();
                guest.run_until(|| toy.collections() > 0);
                toy.turns.fetch_add(1, Relaxed);
                guest.detach();
            })
        });
        while toy.scheduler.attached() < 2 {
            yield_now();
        }
        toy.collect_unseated(1, 2);
        assert_eq!(toy.acts.load(Relaxed), 1, "both run, so one of them acts");
        others.into_iter().for_each(|t| t.join().unwrap());
        toy.settled();
    });
}

/// The next stop is asked for while who acted is on his way out of the first.
#[test]
fn a_stop_follows_an_action() {
    model(3, || {
        let toy = Toy::new(0);
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.run_until(|| toy.collections() > 1);
            guest.detach();
        });
        while toy.scheduler.attached() == 0 {
            yield_now();
        }
        toy.collect_unseated(2, 0);
        assert_eq!(toy.acts.load(Relaxed), 2, "it runs again before the stop is over");
        other.join().unwrap();
        toy.settled();
    });
}

/// The last does not park, and nobody but who asked is there to act.
#[test]
fn the_last_blocks() {
    model(3, || {
        let toy = Toy::new(0);
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.block_until(1);
            guest.detach();
        });
        toy.collect_unseated(1, 0);
        assert_eq!(toy.acts.load(Relaxed), 0);
        toy.turns.fetch_add(1, Relaxed);
        other.join().unwrap();
        toy.settled();
    });
}

/// The last leaves: it waits for the end of the stop, which it may have to bring about.
#[test]
fn the_last_leaves() {
    model(3, || {
        let toy = Toy::new(0);
        let other = start(&toy, |toy| toy.attach().detach());
        toy.collect_unseated(1, 0);
        other.join().unwrap();
        toy.settled();
    });
}

/// The last steps aside, as before a fork or a cycle of its own.
#[test]
fn the_last_steps_aside() {
    model(3, || {
        let toy = Toy::new(0);
        let other = start(&toy, |toy| {
            let guest = toy.attach();
            toy.scheduler.step_aside(guest.seat);
            toy.scheduler.step_back(guest.seat);
            guest.detach();
        });
        toy.collect_unseated(1, 0);
        other.join().unwrap();
        toy.settled();
    });
}

/// One parks and another blocks, in either order; who comes or leaves meanwhile waits for the end of the stop.
#[test]
fn one_parks_and_one_blocks() {
    model(2, || {
        let toy = Toy::new(0);
        let others = [
            start(&toy, |toy| {
                let mut guest = toy.attach();
                guest.block_and_unblock();
                guest.detach();
            }),
            start(&toy, |toy| {
                let mut guest = toy.attach();
                guest.safepoint();
                guest.detach();
            }),
        ];
        toy.collect_unseated(1, 0);
        others.into_iter().for_each(|t| t.join().unwrap());
        toy.settled();
    });
}
