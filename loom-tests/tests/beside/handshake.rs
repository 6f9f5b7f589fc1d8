//! Stops, scans of roots and handshakes against threads that come, go, block, rest, and lead cycles themselves.

use super::toy::{OBJECTS, TABLES, Toy};
use besom_alloc_core::units::Bytes;
use besom_loom_tests::{Patience, model, start};
use besom_stats::sync::{raw::Ordering::*, yield_now};

/// Two share one P, which goes from one to the other while objects are marked.
#[test]
fn the_only_p_is_handed_over() {
    model(3, || {
        let (toy, _) = Toy::new(1);
        let mover = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.move_last(0, 1, |_| ());
            guest.run_until(|| toy.turns.load(Relaxed) == 1);
            guest.detach();
        });
        let other = start(&toy, |toy| {
            let guest = toy.attach();
            toy.turns.store(1, Relaxed);
            guest.detach();
        });
        toy.collect_unseated();
        mover.join().unwrap();
        other.join().unwrap();
    });
}

/// A thread that only polls is waited for by stops and handshakes, answers them, and goes on; so does one that waits for
/// nothing.
#[test]
fn a_thread_polls_all_the_time() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.run_until(|| toy.cycles() == 1);
            guest.detach();
        });
        while toy.scheduler.attached() < 2 {
            yield_now();
        }
        toy.collect_unseated();
        other.join().unwrap();
    });
}

/// Stops and handshakes wait for the last who runs, and he leaves; another comes into his seat.
#[test]
fn the_last_mutator_leaves() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let other = start(&toy, |toy| {
            toy.attach().detach();
            toy.attach().detach();
        });
        toy.collect_unseated();
        other.join().unwrap();
    });
}

/// Of two who run, one blocks and one leaves.
#[test]
fn one_blocks_and_one_leaves() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let blocker = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.hold(0, TABLES[0]);
            guest.block();
            guest.unblock();
            guest.detach();
        });
        let leaver = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.hold(0, TABLES[1]);
            guest.detach();
        });
        toy.collect_unseated();
        blocker.join().unwrap();
        leaver.join().unwrap();
    });
}

/// A mutator leads its own cycle, stepped aside; another wants one, too, and waits or leads the next.
#[test]
fn two_mutators_want_a_cycle() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.move_last(0, 1, |_| ());
            guest.collect();
            guest.detach();
        });
        let mut own = toy.attach();
        own.hold(0, TABLES[1]);
        own.collect();
        own.detach();
        other.join().unwrap();
        assert!(toy.cycles() > 0);
    });
}

/// A mutator's own cycle against that of `besom-gc`.
#[test]
fn a_mutator_wants_a_cycle_beside_the_drivers() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.move_last(0, 1, |_| ());
            guest.collect();
            guest.detach();
        });
        toy.collect_unseated();
        other.join().unwrap();
        assert!(toy.cycles() > 0);
    });
}

/// An assist that finds neither credit nor work rests, without an end of its own: the end of the cycle wakes it at the
/// latest. What is earned is taken once.
#[test]
fn debtors_rest_until_there_is_credit_or_the_cycle_ends() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let debtors = [(); 2].map(|()| {
            start(&toy, |toy| {
                let mut guest = toy.attach();
                let mut paid = 0;
                while toy.is_marking() {
                    paid = toy.reports.take_credit(Bytes(1)).0;
                    if paid != 0 {
                        break;
                    }
                    guest.rest();
                }
                guest.detach();
                paid
            })
        });
        toy.collect_unseated();
        let paid: usize = debtors.into_iter().map(|t| t.join().unwrap()).sum();
        let left = toy.reports.take_credit(Bytes(OBJECTS)).0;
        let scanned = toy.marks.iter().filter(|mark| mark.load(Relaxed)).count();
        assert_eq!(paid + left, scanned, "credit is taken once");
    });
}

/// Who must wait for the end of a cycle has an object in its hands while the leader finds nothing grey: the handshake waits for
/// that object's. Then it rests, until the end.
#[test]
fn who_must_wait_helps_until_the_end() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.hold(0, TABLES[0]);
            guest.run_until(|| toy.is_marking() || toy.cycles() > 0);
            guest.help_until_the_end();
            guest.detach();
        });
        toy.collect_unseated();
        other.join().unwrap();
        assert!(toy.cycles() > 0);
    });
}

/// Who has come to the goal rests from before the cycle to its end, wakes at any moment because the time is over, and rests
/// again.
#[test]
fn one_rests_at_the_goal() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.hold(0, TABLES[0]);
            while toy.cycles() == 0 {
                guest.rest();
            }
            guest.detach();
        });
        let clock = start(&toy, |toy| toy.scheduler.let_rests_end());
        toy.collect_unseated();
        other.join().unwrap();
        clock.join().unwrap();
    });
}

/// Who waited for the first cycle may wake in the second.
#[test]
fn a_cycle_follows_a_cycle() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.hold(0, TABLES[1]);
            guest.collect();
            guest.detach();
        });
        toy.collect_unseated();
        toy.collect_unseated();
        other.join().unwrap();
        assert!(toy.cycles() > 1);
    });
}

/// Neither stops nor handshakes wait for who is blocked, though he stays so.
#[test]
fn one_is_blocked_until_the_cycle_is_over() {
    model(3, || {
        let (toy, _) = Toy::new(0);
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.hold(0, TABLES[0]);
            guest.block();
            let patience = Patience::default();
            while toy.cycles() == 0 {
                patience.in_vain();
                yield_now();
            }
            guest.unblock();
            guest.detach();
        });
        toy.collect_unseated();
        other.join().unwrap();
    });
}

/// The only P stays with who polls, so that who waits for it does so until the cycle is over: the leader scans his roots.
#[test]
fn one_waits_for_a_p_until_the_cycle_is_over() {
    model(3, || {
        let (toy, _) = Toy::new(1);
        let waiter = start(&toy, |toy| {
            let mut guest = toy.attach();
            guest.hold(0, TABLES[0]);
            guest.block();
            guest.unblock();
            guest.detach();
        });
        let other = start(&toy, |toy| {
            let mut guest = toy.attach();
            let patience = Patience::default();
            while toy.cycles() == 0 {
                guest.safepoint();
                patience.in_vain();
                yield_now();
            }
            guest.detach();
        });
        toy.collect_unseated();
        waiter.join().unwrap();
        other.join().unwrap();
    });
}
