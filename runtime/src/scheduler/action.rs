//! What is done in a stop: an action, run by the last thread to park, before it goes on itself.
//!
//! Were it always the thread that asked for the stop, each stop would last as long as it takes to wake that one, which is more than all else in
//! it. The last thread to come to a barrier runs its action: so does `CyclicBarrier` of `java.util.concurrent`. Who asked runs the
//! action only where the last came to rest otherwise than at a safepoint, or on its way out of its seat: it blocked, or waits for something.

use super::{House, Inner, Scheduler, Seat, wait};
use besom_stats::sync::{MutexGuard, lock};
use std::time::Instant;

/// What has become of a stop's action.
///
/// - `Waits` and `Runs` imply `stopping`; `Runs` implies `running == 0`; `Done` implies `collecting` and not `stopping`
#[derive(Default)]
pub(super) enum Action {
    /// There is none, or it is its owner who runs it.
    #[default]
    None,
    /// For the world to stand.
    Waits(Errand),
    /// On the last thread to park.
    Runs,
    /// It is over, and the stop with it, since then.
    Done(Instant),
}

/// A function of a thread that waits until another has called it.
pub(super) struct Errand(*mut (dyn FnMut() + Send));

// SAFETY: the function may be called on any thread, and who owns it waits meanwhile.
unsafe impl Send for Errand {}

impl Errand {
    /// # Safety
    /// The function must live until it was called, or the errand forgotten, and nobody else may use it before.
    unsafe fn new<'a>(action: &'a mut (dyn FnMut() + Send + 'a)) -> Errand {
        let action: *mut (dyn FnMut() + Send + 'a) = action;
        // SAFETY: only the lifetime differs, and the caller keeps it.
        Errand(unsafe {
            std::mem::transmute::<*mut (dyn FnMut() + Send + 'a), *mut (dyn FnMut() + Send + 'static)>(action)
        })
    }

    pub(super) fn run(self) {
        // SAFETY: the promise of whoever made it.
        unsafe { (*self.0)() }
    }
}

impl Scheduler {
    /// Stops the world for a moment, has `action` run in it, once, and lets the world go on; when that was. The caller is the
    /// collector, and is not Running.
    pub fn in_stop(&self, house: &impl House, action: &mut (dyn FnMut() + Send)) -> Instant {
        let mut inner = lock(&self.inner);
        self.ask_for_stop(&mut inner, house);
        if inner.running != 0 {
            inner.momentary = inner.running < house.cpus();
            // SAFETY: until it is done, or taken back, this function does not return, nor touch it.
            inner.action = Action::Waits(unsafe { Errand::new(action) });
            if inner.momentary {
                drop(inner);
                self.progress.look_past_asking();
                inner = lock(&self.inner);
            }
            inner = self.wait_until_stopped(inner, |inner| {
                matches!(inner.action, Action::Done(_))
                    || inner.running == 0 && matches!(inner.action, Action::Waits(_))
            });
            if let Action::Done(then) = std::mem::take(&mut inner.action) {
                return then;
            }
        }
        drop(inner);
        action();
        self.resume(house, None)
    }

    /// The caller has just parked: if it was the last, it runs the stop's action, ends the stop and runs again. The lock, or,
    /// if there is nothing for it to do, an error with it.
    pub(super) fn act<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
        house: &impl House,
        seat: Seat,
    ) -> Result<MutexGuard<'a, Inner>, MutexGuard<'a, Inner>> {
        if inner.running != 0 {
            return Err(inner);
        }
        match std::mem::replace(&mut inner.action, Action::Runs) {
            Action::Waits(errand) => {
                drop(inner);
                house.act(seat, || errand.run());
                inner = lock(&self.inner);
                inner.run_again(seat);
                inner.action = Action::Done(self.end_stop(&mut inner, house));
                // With the lock held: nobody may ask for the next stop before this thread is done with this one. The program
                // first.
                self.resumed.notify_all();
                if inner.stop_awaited {
                    self.stopped.notify_all();
                }
                Ok(inner)
            }
            none => {
                inner.action = none;
                Err(inner)
            }
        }
    }

    /// Sleeps until that is so, which can become so only where somebody tells who stops the world.
    pub(super) fn wait_until_stopped<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
        so: impl Fn(&Inner) -> bool,
    ) -> MutexGuard<'a, Inner> {
        while !so(&inner) {
            inner.stop_awaited = true;
            inner = wait(&self.stopped, inner);
        }
        inner.stop_awaited = false;
        inner
    }
}
