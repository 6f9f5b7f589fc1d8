//! A thread of the heap's own that works in the background: started when it is first wanted, asleep when there is nothing to
//! do, gone before the heap.

use crate::heap::Heap;
use besom_alloc_core::os::{self, OutOfMemory, Thread};
use besom_stats::race_detector::inside;
use besom_stats::sync::{Condvar, Held, Mutex, MutexGuard, hold, lock};
use std::ffi::{CStr, c_void};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Starts a thread that runs `body` on the heap, which joins it before any part of the heap goes.
pub fn spawn<B: Body>(heap: &Heap) -> Result<Thread, OutOfMemory> {
    let arg = std::ptr::from_ref(heap).cast_mut().cast::<c_void>();
    // SAFETY: the heap outlives the thread.
    unsafe { os::spawn_thread(B::NAME, run::<B>, arg) }
}

/// What such a thread does.
pub trait Body {
    /// How the system calls the thread.
    const NAME: &'static CStr;

    /// Until the heap goes.
    fn run(heap: &Heap);
}

/// # Safety
/// `arg` must be a heap that joins this thread before it goes.
unsafe extern "C" fn run<B: Body>(arg: *mut c_void) -> *mut c_void {
    // SAFETY: the caller's promise.
    let heap = unsafe { &*arg.cast::<Heap>() };
    let _inside = inside(heap);
    os::enter_own_thread();
    B::run(heap);
    std::ptr::null_mut()
}

#[derive(Default)]
struct State {
    work: bool,
    /// The thread waits for work and was not woken yet, rather than works or sleeps in the middle of it.
    waits: bool,
    quit: bool,
    thread: Option<Thread>,
}

/// Why a thread that waited goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// There is work, which was taken.
    Work,
    /// The time has passed.
    Late,
    /// The heap goes.
    Quit,
}

/// A thread that is woken for work, and what it is told. How much work there is it finds out for itself.
#[derive(Default)]
pub struct Background {
    state: Mutex<State>,
    changed: Condvar,
}

impl Background {
    /// Has the thread work, soon. If the system refuses one, the work is left to others.
    pub fn wake<B: Body>(&self, heap: &Heap) {
        self.wake_or_start(|| spawn::<B>(heap).ok());
    }

    /// The same; `start` starts the thread if there is none.
    pub fn wake_or_start(&self, start: impl FnOnce() -> Option<Thread>) {
        let mut state = lock(&self.state);
        state.work = true;
        if state.thread.is_none() && !state.quit {
            state.thread = start();
        }
        // Once: the thread takes all work that there is by then.
        let waits = std::mem::take(&mut state.waits);
        // The thread may get the caller's processor, and would wait for the lock.
        drop(state);
        if waits {
            self.changed.notify_one();
        }
    }

    /// Keeps the thread from its next look at what is wanted, and everybody from starting it.
    pub fn hold(&self) -> Held<'_> {
        hold(&self.state)
    }

    /// In the child of a fork: there is no thread any more. What it had begun is left to others.
    pub fn after_fork(&self) {
        let mut state = lock(&self.state);
        state.waits = false;
        if let Some(thread) = state.thread.take() {
            thread.forget();
        }
    }

    /// Ends the thread, in the middle of its work if it must be.
    pub fn stop(&self) {
        let mut state = lock(&self.state);
        state.quit = true;
        let thread = state.thread.take();
        drop(state);
        self.changed.notify_one();
        if let Some(thread) = thread {
            thread.join();
        }
    }

    /// For the thread: waits for work, at most so long.
    pub fn wait(&self, most: Option<Duration>) -> Woken {
        let end = most.map(|most| Instant::now() + most);
        let mut state = lock(&self.state);
        loop {
            if state.quit {
                return Woken::Quit;
            }
            if std::mem::take(&mut state.work) {
                return Woken::Work;
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Woken::Late;
            }
            state.waits = true;
            state = self.wait_once(state, left);
            state.waits = false;
        }
    }

    /// For the thread, in the middle of its work: sleeps while `left` says that time is left; false: the heap goes.
    pub fn sleep(&self, mut left: impl FnMut() -> Duration) -> bool {
        let mut state = lock(&self.state);
        loop {
            let left = left();
            if state.quit || left.is_zero() {
                return !state.quit;
            }
            state = self.wait_once(state, Some(left));
        }
    }

    /// For the thread, in the middle of its work: whether the heap goes.
    pub fn quits(&self) -> bool {
        lock(&self.state).quit
    }

    fn wait_once<'a>(&self, state: MutexGuard<'a, State>, most: Option<Duration>) -> MutexGuard<'a, State> {
        match most {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(most) => self.changed.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0,
        }
    }
}
