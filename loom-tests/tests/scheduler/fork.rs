//! Forks, between collections and beside who blocks.

use super::toy::{Guest, Toy};
use besom_loom_tests::{Patience, model, start};
use besom_stats::sync::{Mutex, lock, yield_now};
use loom::sync::Arc;

impl Toy {
    /// A thread that does not run forks: nobody else does, and no collection goes on.
    fn fork(&self) {
        let patience = Patience::default();
        while !self.scheduler.stop_for_fork(self) {
            patience.in_vain();
            yield_now();
        }
        self.look(&self.turns);
        self.scheduler.end_fork(self);
    }
}

impl Guest<'_> {
    fn fork(&self, turn: &Mutex<()>) {
        self.toy.scheduler.step_aside(self.seat);
        {
            let _turn = lock(turn);
            self.toy.fork();
        }
        self.toy.scheduler.step_back(self.seat);
        self.work();
    }
}

/// A thread without a seat forks.
#[test]
fn a_fork_stops_those_who_poll_and_those_who_come() {
    model(3, || {
        let toy = Toy::new(0);
        let mut own = toy.attach();
        let other = start(&toy, |toy| toy.attach().detach());
        let forker = start(&toy, Toy::fork);
        own.run_until(|| toy.turns() == 1);
        own.detach();
        other.join().unwrap();
        forker.join().unwrap();
        toy.settled();
    });
}

/// The last collection hands over to the fork, and those who want another wait for its end.
#[test]
fn a_fork_comes_between_collections() {
    model(3, || {
        let toy = Toy::new(0);
        let own = toy.attach();
        let forker = start(&toy, Toy::fork);
        own.collect_surely();
        own.collect_surely();
        own.detach();
        forker.join().unwrap();
        assert_eq!((toy.collections(), toy.turns()), (2, 1));
        toy.settled();
    });
}

/// Who waits for its turn is waited for by nobody.
#[test]
fn two_mutators_fork_at_once() {
    model(3, || {
        let toy = Toy::new(0);
        let turn = Arc::new(Mutex::new(()));
        let own = toy.attach();
        let others = turn.clone();
        let other = start(&toy, move |toy| {
            let guest = toy.attach();
            guest.fork(&others);
            guest.detach();
        });
        own.fork(&turn);
        own.detach();
        other.join().unwrap();
        assert_eq!(toy.turns(), 2);
        toy.settled();
    });
}

#[test]
fn a_mutator_forks_while_another_collects_and_a_third_blocks() {
    model(2, || {
        let toy = Toy::new(0);
        let turn = Mutex::new(());
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
        own.fork(&turn);
        own.detach();
        other.join().unwrap();
        third.join().unwrap();
        assert_eq!((toy.collections(), toy.turns()), (1, 1));
        toy.settled();
    });
}
