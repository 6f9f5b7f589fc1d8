//! What marking beside the program wants of the scheduler: a collector that does not run, handshakes, rests, and seats that do
//! not come to run while their roots are claimed.

use super::moment::Stage;
use super::{Chair, House, Inner, POLL_HANDSHAKE, Scheduler, Seat, State, wait, wait_most};
use besom_stats::sync::lock;
use std::time::Duration;

impl Scheduler {
    /// [`Self::begin_collection`] for a thread that has no seat: it waits until nobody else is the collector, and is it then.
    pub fn begin_collection_unseated(&self) {
        let mut inner = lock(&self.inner);
        while inner.collecting {
            inner = wait(&self.resumed, inner);
        }
        inner.collecting = true;
    }

    /// The collector, who is Running, does not run from here on, and keeps its P: its stops do not wait for it.
    pub fn step_aside(&self, seat: Seat) {
        let mut inner = lock(&self.inner);
        self.answer(&mut inner, seat);
        inner.park(seat);
        self.announce(&inner);
    }

    /// It runs again.
    pub fn step_back(&self, seat: Seat) {
        let mut inner = lock(&self.inner);
        while inner.stopping {
            inner = wait(&self.resumed, inner);
        }
        inner.run_again(seat);
    }

    /// The caller, who is Running, rests for a moment and keeps its P; stops do not wait for it.
    pub fn rest(&self, seat: Seat, most: Duration) {
        let mut inner = lock(&self.inner);
        self.answer(&mut inner, seat);
        inner.park(seat);
        self.announce(&inner);
        let (mut inner, _) = wait_most(&self.resumed, inner, most);
        while inner.stopping {
            inner = wait(&self.resumed, inner);
        }
        inner.run_again(seat);
    }

    /// Returns once every seat that is Running now has passed a safepoint, or runs no more. The caller is not Running.
    pub fn handshake(&self, house: &impl House) {
        let mut inner = lock(&self.inner);
        for n in 0..inner.seats.len() {
            if inner.seats[n].state == State::Running {
                inner.seats[n].owes = true;
                inner.owed += 1;
                inner.add_poll(house, Seat(n as u32), POLL_HANDSHAKE);
            }
        }
        if inner.owed != 0 && inner.running < house.cpus() {
            self.handshake.set(Stage::Asked);
            drop(inner);
            self.handshake.look_for_the_end();
            inner = lock(&self.inner);
        }
        while inner.owed != 0 {
            inner.answers_awaited = true;
            inner = wait(&self.answered, inner);
        }
        inner.answers_awaited = false;
    }

    pub(super) fn answer(&self, inner: &mut Inner, seat: Seat) {
        let chair = inner.chair(seat);
        if chair.owes {
            chair.owes = false;
            inner.owed -= 1;
            if inner.owed == 0 {
                self.handshake.set(Stage::Over);
                if inner.answers_awaited {
                    self.answered.notify_all();
                }
            }
        }
    }

    /// Marking goes on beside the program, or does not any more; the world is stopped.
    pub fn set_marking(&self, marking: bool) {
        lock(&self.inner).marking = marking;
    }

    /// Calls `claim` with each seat from `from` on that is taken and not Running, until it says that it has one; nobody of them
    /// comes to run meanwhile.
    pub fn claim_resting(&self, from: Seat, mut claim: impl FnMut(Seat) -> bool) -> Option<Seat> {
        let inner = lock(&self.inner);
        let resting = |c: &Chair| matches!(c.state, State::Parked | State::Waiting | State::Blocked);
        let seats = inner.seats.iter().enumerate().skip(from.0 as usize).filter(|(_, c)| resting(c));
        seats.map(|(n, _)| Seat(n as u32)).find(|&seat| claim(seat))
    }

    /// Seats that run.
    pub fn running(&self) -> usize {
        lock(&self.inner).running
    }

    /// In a model time passes when the model says so: whoever rests has rested long enough. (What does not say so models rests without an end of their own.)
    #[cfg(loom)]
    pub fn let_rests_end(&self) {
        self.resumed.notify_all();
    }
}
