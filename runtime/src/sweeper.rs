//! The background sweeper: a thread that sweeps after each cycle, so that mutators seldom have to.

use crate::heap::Heap;
use besom_alloc_core::os::{self, Thread};
use besom_gc::timeline::{Gathered, Kind};
use besom_stats::race_detector::inside;
use besom_stats::sync::{Condvar, Held, Mutex, hold, lock};
use std::ffi::c_void;
use std::sync::PoisonError;

#[derive(Default)]
struct State {
    work: bool,
    quit: bool,
    thread: Option<Thread>,
}

/// The sweeper of one heap; started at the first call of [`Sweeper::wake`].
pub struct Sweeper {
    state: Mutex<State>,
    changed: Condvar,
}

impl Sweeper {
    /// No thread yet.
    pub fn new() -> Sweeper {
        Sweeper { state: Mutex::new(State::default()), changed: Condvar::new() }
    }

    /// Has everything swept in the background, soon. Without a thread, if the system refuses one, mutators sweep
    /// what they need, and the next cycle the rest.
    pub fn wake(&self, heap: &Heap) {
        let mut state = lock(&self.state);
        state.work = true;
        if state.thread.is_none() {
            let arg = std::ptr::from_ref(heap).cast_mut().cast::<c_void>();
            // SAFETY: a heap joins its sweeper before any part of it goes.
            state.thread = unsafe { os::spawn_thread(c"besom-sweep", run, arg) }.ok();
        }
        self.changed.notify_one();
    }

    /// Keeps the thread from its next look at what is wanted, and everybody from starting it.
    pub fn hold(&self) -> Held<'_> {
        hold(&self.state)
    }

    /// In the child of a fork: there is no thread any more. What is not swept waits for the next cycle, or for those who
    /// need it.
    pub fn after_fork(&self) {
        if let Some(thread) = lock(&self.state).thread.take() {
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
}

impl Default for Sweeper {
    fn default() -> Sweeper {
        Sweeper::new()
    }
}

/// # Safety
/// `arg` must be a heap that joins this thread before it goes.
unsafe extern "C" fn run(arg: *mut c_void) -> *mut c_void {
    // SAFETY: the caller's promise.
    let heap = unsafe { &*arg.cast::<Heap>() };
    let _inside = inside(heap);
    let sweeper = &heap.sweeper;
    let mut state = lock(&sweeper.state);
    loop {
        if state.quit {
            return std::ptr::null_mut();
        }
        if state.work {
            state.work = false;
            drop(state);
            let mut shown = Gathered::default();
            while heap.collector.sweep_in_background(&heap.spans, &mut shown) {
                if lock(&sweeper.state).quit {
                    break;
                }
            }
            heap.collector.timeline().end_gathered(&mut shown, Kind::BackgroundSweep);
            heap.collector.sample(&heap.spans);
            heap.scavenger.wake(heap);
            state = lock(&sweeper.state);
        } else {
            state = sweeper.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
