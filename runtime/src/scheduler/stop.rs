//! Stops of the world, and how threads take part in them.

use super::action::Action;
use super::moment::Stage;
use super::{House, Inner, POLL_HAND_OVER, POLL_STOP, Scheduler, Seat, wait};
use besom_stats::fatal;
use besom_stats::sync::{MutexGuard, lock};
use std::time::Instant;

impl Scheduler {
    /// Stops the world for the caller, who is the collector (or walks the heap as if it were), and is Running.
    pub fn stop(&self, house: &impl House, seat: Seat) {
        let mut inner = lock(&self.inner);
        inner.park(seat);
        self.ask_for_stop(&mut inner, house);
        drop(self.wait_until_stopped(inner, |inner| inner.running == 0));
    }

    pub(super) fn ask_for_stop(&self, inner: &mut Inner, house: &impl House) {
        if inner.stopping {
            fatal(format_args!("stop: the world is stopped already"));
        }
        inner.stopping = true;
        self.progress.set(Stage::Asked);
        inner.ring_holders(house, POLL_STOP);
    }

    /// Lets the world go on; the caller is Running again, if it has a seat. When that was: before threads are woken, since they may
    /// get the caller's processor, and it would count how long they have it.
    pub fn resume(&self, house: &impl House, seat: Option<Seat>) -> Instant {
        let mut inner = lock(&self.inner);
        if let Some(seat) = seat {
            inner.run_again(seat);
        }
        let now = self.end_stop(&mut inner, house);
        drop(inner);
        self.resumed.notify_all();
        now
    }

    /// Those who sleep are to be woken.
    pub(super) fn end_stop(&self, inner: &mut Inner, house: &impl House) -> Instant {
        (inner.stopping, inner.momentary) = (false, false);
        for n in 0..inner.seats.len() {
            let seat = Seat(n as u32);
            let poll = inner.chair(seat).poll & !POLL_STOP;
            inner.set_poll(house, seat, poll);
        }
        inner.destroy_surplus(house);
        if inner.may_shrink() {
            // A limit that fell while objects were marked.
            inner.ring_holders(house, POLL_HAND_OVER);
        }
        self.distribute(inner);
        self.progress.set(Stage::Over);
        Instant::now()
    }

    /// While the world is being stopped, the caller, who is Running, parks.
    pub(super) fn park_while_stopping<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
        house: &impl House,
        seat: Seat,
    ) -> MutexGuard<'a, Inner> {
        if !inner.stopping {
            return inner;
        }
        inner.park(seat);
        let mut inner = match self.act(inner, house, seat) {
            Ok(inner) => return inner,
            Err(inner) => inner,
        };
        self.announce(&inner);
        if inner.momentary {
            drop(inner);
            self.progress.look_for_the_end();
            inner = lock(&self.inner);
        }
        while inner.stopping {
            inner = wait(&self.resumed, inner);
        }
        inner.run_again(seat);
        inner
    }

    /// Tells who stops the world that nobody runs any more.
    pub(super) fn announce(&self, inner: &Inner) {
        // (While an action runs, a thread that comes and waits tells nobody anything new.)
        if inner.stopping && inner.running == 0 && !matches!(inner.action, Action::Runs) {
            self.progress.set(Stage::Stands);
            if inner.stop_awaited {
                self.stopped.notify_all();
            }
        }
    }
}
