//! A fork of the process, as the scheduler takes part in it: a stop of the world without a cycle, so that the child finds
//! the heap whole; and the child's own first step, in which those who do not exist there lose their seats.
//!
//! Who forks may have to wait for several heaps, and must not hold one's lock while it waits for another: so it asks, and
//! asks again. It takes no turn with cycles that follow each other: the one that runs hands over to it.

use super::{House, Inner, POLL_STOP, Scheduler, Seat, State};
use besom_stats::sync::{Held, hold, lock};

/// How far a thread that is about to fork has come.
///
/// - `Holds` implies `collecting`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fork {
    /// Nobody is about to.
    None,
    /// It waits for the end of a cycle.
    Wanted,
    /// No cycle runs, and none begins.
    Holds,
}

impl Scheduler {
    /// For a thread that is about to fork and does not run: the world is to be stopped, with no cycle going on. True: it is,
    /// until [`Self::end_fork`]. False: not yet; to be asked again.
    pub fn stop_for_fork(&self, house: &impl House) -> bool {
        let mut inner = lock(&self.inner);
        if inner.fork != Fork::Holds {
            inner.fork = Fork::Wanted;
            if !inner.collecting {
                inner.collecting = inner.goes_to_fork();
            }
        }
        if inner.fork == Fork::Holds && !inner.stopping {
            inner.stopping = true;
            inner.ring_holders(house, POLL_STOP);
        }
        inner.stopping && inner.fork == Fork::Holds && inner.running == 0
    }

    /// In the parent: the world goes on.
    pub fn end_fork(&self, house: &impl House) {
        lock(&self.inner).fork = Fork::None;
        self.resume(house, None);
        self.end_collection();
    }

    /// The heap is going, and nobody asks any more for what somebody may have asked: the driver, which is to end, may wait for
    /// the end of a fork.
    pub fn no_fork(&self, house: &impl House) {
        let mut inner = lock(&self.inner);
        if inner.fork == Fork::Holds {
            drop(inner);
            self.end_fork(house);
        } else {
            inner.fork = Fork::None;
        }
    }

    /// Keeps everybody outside.
    pub fn hold(&self) -> Held<'_> {
        hold(&self.inner)
    }

    /// In the child, of whose threads only the one in seat `own` exists, if it had one: the others leave theirs, and the world
    /// goes on. Calls `leaves` with each of them first.
    pub fn after_fork(&self, house: &impl House, own: Option<Seat>, mut leaves: impl FnMut(Seat)) {
        let mut inner = lock(&self.inner);
        inner.queue.clear();
        for n in 0..inner.seats.len() {
            let seat = Seat(n as u32);
            inner.chair(seat).owes = false;
            inner.set_poll(house, seat, 0);
            if inner.chair(seat).state == State::Free || own == Some(seat) {
                continue;
            }
            leaves(seat);
            if let Some(p) = inner.chair(seat).p.take() {
                inner.free.push(p);
            }
            inner.chair(seat).state = State::Free;
            inner.attached -= 1;
            house.vacate(seat);
        }
        if let Some(seat) = own
            && inner.chair(seat).state == State::Parked
        {
            inner.run_again(seat);
        }
        (inner.owed, inner.stopping, inner.momentary) = (0, false, false);
        (inner.answers_awaited, inner.stop_awaited) = (false, false);
        (inner.collecting, inner.fork) = (false, Fork::None);
        inner.collections += 1;
        inner.destroy_surplus(house);
    }
}

impl Inner {
    /// A cycle is over: whether the right to begin one goes to who is about to fork.
    pub(super) fn goes_to_fork(&mut self) -> bool {
        if self.fork == Fork::Wanted {
            self.fork = Fork::Holds;
        }
        self.fork == Fork::Holds
    }
}
