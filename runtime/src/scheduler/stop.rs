//! Stops of the world, and how threads take part in them.

use super::moment::Stage;
use super::{House, Inner, POLL_HAND_OVER, POLL_STOP, Scheduler, Seat, wait};
use besom_stats::fatal;
use besom_stats::sync::{MutexGuard, lock};
use std::time::Instant;

impl Scheduler {
    /// Stops the world for the caller, who is the collector (or walks the heap as if it were), and is Running if it has a
    /// seat. Who has none is taken to stop it for a moment.
    pub fn stop(&self, house: &impl House, seat: Option<Seat>) {
        let mut inner = lock(&self.inner);
        if inner.stopping {
            fatal(format_args!("stop: the world is stopped already"));
        }
        inner.stopping = true;
        inner.momentary = seat.is_none() && inner.running < house.cpus();
        self.progress.set(Stage::Asked);
        if let Some(seat) = seat {
            inner.park(seat);
        }
        inner.ring_holders(house, POLL_STOP);
        if inner.momentary && inner.running != 0 {
            drop(inner);
            self.progress.look_for(Stage::Stands);
            inner = lock(&self.inner);
        }
        while inner.running != 0 {
            inner.stop_awaited = true;
            inner = wait(&self.stopped, inner);
        }
        inner.stop_awaited = false;
    }

    /// Lets the world go on; the caller is Running again, if it has a seat. When that was: before threads are woken, since they may
    /// get the caller's processor, and it would count how long they have it.
    pub fn resume(&self, house: &impl House, seat: Option<Seat>) -> Instant {
        let mut inner = lock(&self.inner);
        (inner.stopping, inner.momentary) = (false, false);
        if let Some(seat) = seat {
            inner.run_again(seat);
        }
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
        self.distribute(&mut inner);
        self.progress.set(Stage::Over);
        drop(inner);
        let now = Instant::now();
        self.resumed.notify_all();
        now
    }

    /// While the world is being stopped, the caller, who is Running, parks.
    pub(super) fn park_while_stopping<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
        seat: Seat,
    ) -> MutexGuard<'a, Inner> {
        if inner.stopping {
            inner.park(seat);
            self.announce(&inner);
            if inner.momentary {
                drop(inner);
                self.progress.look_for(Stage::Over);
                inner = lock(&self.inner);
            }
            while inner.stopping {
                inner = wait(&self.resumed, inner);
            }
            inner.run_again(seat);
        }
        inner
    }

    /// Tells who stops the world that nobody runs any more.
    pub(super) fn announce(&self, inner: &Inner) {
        if inner.stopping && inner.running == 0 {
            self.progress.set(Stage::Stands);
            if inner.stop_awaited {
                self.stopped.notify_all();
            }
        }
    }
}
