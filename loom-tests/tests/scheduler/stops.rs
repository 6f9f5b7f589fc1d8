//! Stops and collections, beside threads that come and go.

use super::toy::Toy;
use besom_loom_tests::{model, start};
use besom_stats::sync::{Ordering::*, yield_now};

#[test]
fn a_thread_blocks_and_unblocks_during_a_stop() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.block_and_unblock();
            guest.detach();
        });
        assert!(own.collect());
        own.detach();
        other.join().unwrap();
        toy.settled();
    });
}

/// A stop waits for nobody who is blocked, though he stays so.
#[test]
fn a_thread_is_blocked_until_the_collection_is_over() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.block_until(1);
            guest.detach();
        });
        assert!(own.collect());
        toy.turns.fetch_add(1, Relaxed);
        own.detach();
        other.join().unwrap();
        toy.settled();
    });
}

/// Those who were stopped, and those who came meanwhile, run before the collection is over.
#[test]
fn the_world_goes_on_while_the_collector_sweeps() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let others = [(); 2].map(|()| {
            start(&toy, |toy| {
                let mut guest = toy.attach();
                guest.run_until(|| toy.collections() > 0);
                toy.turns.fetch_add(1, Relaxed);
                guest.detach();
            })
        });
        assert!(own.collect_and(|| own.wait_for_turns(2)));
        own.detach();
        others.into_iter().for_each(|t| t.join().unwrap());
        toy.settled();
    });
}

#[test]
fn threads_attach_and_detach_during_a_stop() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let others = [start(&toy, |toy| toy.attach().detach()), start(&toy, |toy| toy.attach().detach())];
        assert!(own.collect());
        own.detach();
        others.into_iter().for_each(|t| t.join().unwrap());
        toy.settled();
    });
}

/// The last one to be waited for is gone, or comes back in another's seat.
#[test]
fn a_seat_changes_hands_during_a_stop() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let other = start(&toy, |toy| {
            toy.attach().detach();
            toy.attach().detach();
        });
        assert!(own.collect());
        own.detach();
        other.join().unwrap();
        toy.settled();
    });
}

/// A thread that does nothing but look at its poll word is stopped, and goes on.
#[test]
fn a_stop_reaches_a_thread_that_polls() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.run_until(|| toy.collections() > 0);
            guest.detach();
        });
        while toy.scheduler.attached() < 2 {
            yield_now();
        }
        assert!(own.collect());
        own.detach();
        other.join().unwrap();
        toy.settled();
    });
}

#[test]
fn two_collect_at_once() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let other = start(&toy, |toy| {
            let guest = toy.attach();
            guest.collect_surely();
            guest.detach();
        });
        own.collect_surely();
        own.detach();
        other.join().unwrap();
        assert_eq!(toy.collections(), 2);
        toy.settled();
    });
}

/// Who waited for the first collection may wake in the second's stop.
#[test]
fn a_collection_follows_a_collection() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let other = start(&toy, |toy| {
            let guest = toy.attach();
            guest.collect();
            guest.detach();
        });
        own.collect();
        own.collect();
        own.detach();
        other.join().unwrap();
        toy.settled();
    });
}

#[test]
fn three_collect_at_once() {
    model(2, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let others = [(); 2].map(|()| {
            start(&toy, |toy| {
                let guest = toy.attach();
                guest.collect();
                guest.detach();
            })
        });
        own.collect();
        own.detach();
        others.into_iter().for_each(|t| t.join().unwrap());
        toy.settled();
    });
}

/// One collection serves all who asked for it while it ran.
#[test]
fn two_want_a_collection_while_a_third_blocks() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let other = start(&toy, |toy| {
            let guest = toy.attach();
            let collected = guest.collect();
            guest.detach();
            collected
        });
        let third = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.block_and_unblock();
            guest.detach();
        });
        let collected = own.collect();
        own.detach();
        let both = usize::from(collected) + usize::from(other.join().unwrap());
        third.join().unwrap();
        assert!(both >= 1 && both == toy.collections());
        toy.settled();
    });
}
