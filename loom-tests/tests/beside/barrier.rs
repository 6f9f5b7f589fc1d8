//! The barrier against the marker: the last pointer to an object is moved while objects are marked.

use super::toy::{Guest, LAST, TABLES, Toy};
use besom_loom_tests::{model, start};

/// The barrier against the marker: the only pointer goes from the table that is scanned last to the one scanned first.
#[test]
fn the_last_pointer_is_moved() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let mover = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.move_last(0, 1, Guest::safepoint);
            guest.detach();
        });
        toy.collect_unseated();
        mover.join().unwrap();
    });
}

/// To and fro: the buffer is full once, and handed in by the store.
#[test]
fn the_last_pointer_is_moved_to_and_fro() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let mover = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.move_last(0, 1, Guest::safepoint);
            guest.move_last(1, 0, |_| ());
            guest.move_last(0, 1, |_| ());
            guest.safepoint();
            guest.detach();
        });
        toy.collect_unseated();
        mover.join().unwrap();
    });
}

/// The thread is blocked while its root is the only pointer; what it overwrote is handed in before.
#[test]
fn the_last_pointer_is_a_blocked_threads() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let mover = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.move_last(0, 1, |guest| {
                guest.block();
                guest.unblock();
            });
            guest.detach();
        });
        toy.collect_unseated();
        mover.join().unwrap();
    });
}

/// One moves it, the other moves it back, as soon as it is there.
#[test]
fn the_last_pointer_goes_from_thread_to_thread() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let movers = [(0, 1), (1, 0)].map(|(from, to)| {
            start(&toy, move |toy| {
                let mut guest = toy.attach();
                if guest.load(TABLES[from]) == LAST {
                    guest.move_last(from, to, |_| ());
                }
                guest.detach();
            })
        });
        toy.collect_unseated();
        movers.into_iter().for_each(|m| m.join().unwrap());
    });
}
