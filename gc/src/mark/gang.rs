//! Helper threads of the marker: started once, asleep between cycles.
//!
//! A job is open from the caller's `run` until the caller has finished its own part. A helper that wakes in
//! time joins; the caller then waits for those who joined, and for nobody else, so a helper that the system
//! does not schedule delays nothing.
//!
//! `left <= joined <= wanted`; the job's closure lives until `left == joined` with the job closed.

use besom_alloc_core::os::{self, Thread};
use besom_stats::race_detector::{acquire, inside, release};
use besom_stats::sync::raw::{AtomicUsize, Ordering::*};
use besom_stats::sync::{Condvar, Held, Mutex, hold, lock};
use std::ffi::c_void;
use std::sync::{Arc, PoisonError};

type Job = *const (dyn Fn(usize) + Sync);

#[derive(Default)]
struct State {
    job: Option<Job>,
    round: u64,
    wanted: usize,
    joined: usize,
    left: usize,
    quit: bool,
}

// SAFETY: the job's pointer is used only while `run` keeps the closure alive, see `State`'s invariant.
unsafe impl Send for State {}

#[derive(Default)]
struct Core {
    state: Mutex<State>,
    changed: Condvar,
    next_index: AtomicUsize,
}

/// The helpers of one heap.
pub struct Gang {
    core: Arc<Core>,
    most: usize,
    threads: Mutex<Vec<Thread>>,
    started: AtomicUsize,
}

impl Gang {
    /// A gang of at most `most` helpers, none started.
    pub fn new(most: usize) -> Gang {
        Gang {
            core: Arc::default(),
            most,
            threads: Mutex::new(Vec::with_capacity(most)),
            started: AtomicUsize::new(0),
        }
    }

    /// Starts the helpers that are missing. One that the system refuses is asked for again next time.
    pub fn ensure_started(&self) {
        if self.started() == self.most {
            return;
        }
        let mut threads = lock(&self.threads);
        while threads.len() < self.most {
            let arg = Arc::into_raw(self.core.clone()).cast_mut().cast::<c_void>();
            // SAFETY: the helper works on the core, of which it has a reference of its own.
            match unsafe { os::spawn_thread(c"besom-mark", helper, arg) } {
                Ok(thread) => threads.push(thread),
                Err(_) => {
                    // SAFETY: the thread that was to own this reference does not exist.
                    drop(unsafe { Arc::from_raw(arg.cast::<Core>()) });
                    break;
                }
            }
        }
        self.started.store(threads.len(), Release);
    }

    /// Helpers that exist.
    pub fn started(&self) -> usize {
        self.started.load(Acquire)
    }

    /// Keeps helpers from starting and from beginning a job; there is none.
    pub fn hold(&self) -> [Held<'_>; 2] {
        [hold(&self.threads), hold(&self.core.state)]
    }

    /// In the child of a fork that was made while [`Self::hold`] was held: there are no helpers any more.
    pub fn after_fork(&self) {
        for thread in lock(&self.threads).drain(..) {
            thread.forget();
            // SAFETY: each helper had a reference of its own to the core, and will not drop it.
            unsafe { Arc::decrement_strong_count(Arc::as_ptr(&self.core)) };
        }
        self.core.next_index.store(0, Relaxed);
        self.started.store(0, Release);
    }

    /// Runs `own` here, which is what it returns, and `job(1..)` on at most `helpers` helpers that wake before `own` has ended.
    pub fn run<R>(&self, helpers: usize, job: &(dyn Fn(usize) + Sync), own: impl FnOnce() -> R) -> R {
        if helpers == 0 {
            return own();
        }
        let core: *const Core = &raw const *self.core;
        release(core);
        {
            let mut state = lock(&self.core.state);
            // SAFETY: only the lifetime changes; `run` does not return while a helper uses the closure.
            let job = unsafe {
                std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(job)
            };
            state.job = Some(job);
            state.round += 1;
            (state.wanted, state.joined, state.left) = (helpers, 0, 0);
            self.core.changed.notify_all();
        }
        let result = own();
        let mut state = lock(&self.core.state);
        state.job = None;
        while state.left != state.joined {
            state = self.core.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        acquire(core);
        result
    }
}

impl Drop for Gang {
    fn drop(&mut self) {
        lock(&self.core.state).quit = true;
        self.core.changed.notify_all();
        for thread in lock(&self.threads).drain(..) {
            thread.join();
        }
    }
}

/// # Safety
/// `arg` must be a reference to the core, given away by [`Arc::into_raw`].
unsafe extern "C" fn helper(arg: *mut c_void) -> *mut c_void {
    // SAFETY: the caller's promise.
    let core = unsafe { Arc::from_raw(arg.cast::<Core>()) };
    let _inside = inside(&raw const *core);
    os::enter_own_thread();
    let index = core.next_index.fetch_add(1, Relaxed) + 1;
    let mut seen = 0;
    let mut state = lock(&core.state);
    loop {
        if state.quit {
            return std::ptr::null_mut();
        }
        match state.job {
            Some(job) if state.round != seen && state.joined < state.wanted => {
                seen = state.round;
                state.joined += 1;
                drop(state);
                acquire(&raw const *core);
                // SAFETY: `run` waits for everybody who joined before it lets the closure go.
                unsafe { (*job)(index) };
                release(&raw const *core);
                state = lock(&core.state);
                state.left += 1;
                core.changed.notify_all();
            }
            _ => state = core.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_join_a_job_at_most_once_and_are_waited_for() {
        let gang = Gang::new(3);
        gang.ensure_started();
        assert_eq!(gang.started(), 3);
        for round in 0..200 {
            let wanted = round % 4;
            let inside = AtomicUsize::new(0);
            let joined = Mutex::new(Vec::new());
            let job = |index: usize| {
                inside.fetch_add(1, SeqCst);
                lock(&joined).push(index);
                std::thread::yield_now();
                inside.fetch_sub(1, SeqCst);
            };
            // Waits until all have joined, so that the job's end is seen from every helper.
            gang.run(wanted, &job, || {
                while lock(&joined).len() < wanted {
                    std::thread::yield_now();
                }
            });
            assert_eq!(inside.load(SeqCst), 0, "somebody is inside a job that is over");
            let mut joined = std::mem::take(&mut *lock(&joined));
            joined.sort_unstable();
            joined.dedup();
            assert_eq!(joined.len(), wanted, "round {round}: {joined:?}");
            assert!(joined.iter().all(|index| (1..=3).contains(index)), "{joined:?}");
        }
    }

    #[test]
    fn a_job_without_helpers_is_the_callers_own() {
        let gang = Gang::new(0);
        gang.ensure_started();
        assert_eq!(gang.started(), 0);
        let mut ran = false;
        gang.run(0, &|_| unreachable!("there are no helpers"), || ran = true);
        assert!(ran);
    }
}
