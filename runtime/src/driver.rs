//! The driver: the thread that leads the cycles that go on beside the program, when the pacer wants one.

use crate::heap::Heap;
use besom_alloc_core::os::{self, Thread};
use besom_gc::pacer::Spent;
use besom_stats::race_detector::inside;
use besom_stats::sync::raw::{AtomicBool, Ordering::*};
use besom_stats::sync::{Condvar, Mutex, lock};
use std::ffi::c_void;
use std::sync::PoisonError;
use std::time::Duration;

/// Between two looks of the limiter's at the clock, while it limits.
const TICK: Duration = Duration::from_millis(10);

#[derive(Default)]
struct State {
    /// A cycle is wanted, before so many bytes are allocated.
    wanted: Option<i64>,
    quit: bool,
    thread: Option<Thread>,
}

/// The driver of one heap; its thread is started at the first call of [`Driver::wake`].
///
/// - `awake == state.wanted.is_some()`, or the driver is about to make it so
#[derive(Default)]
pub struct Driver {
    /// So that those who want a cycle that is wanted already pay one load.
    awake: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

impl Driver {
    /// No thread yet.
    pub fn new() -> Driver {
        Driver::default()
    }

    /// Has a cycle begin soon, if one is due then before `bytes` more are allocated. False: the system refuses a thread.
    pub fn wake(&self, heap: &Heap, bytes: i64) -> bool {
        if self.awake.load(Relaxed) {
            return true;
        }
        let mut state = lock(&self.state);
        if state.thread.is_none() {
            let arg = std::ptr::from_ref(heap).cast_mut().cast::<c_void>();
            // SAFETY: a heap joins its driver before any part of it goes.
            state.thread = unsafe { os::spawn_thread(c"besom-gc", run, arg) }.ok();
            if state.thread.is_none() {
                return false;
            }
        }
        state.wanted = Some(bytes.max(state.wanted.unwrap_or(0)));
        self.awake.store(true, Relaxed);
        self.changed.notify_one();
        true
    }

    /// Ends the thread; a cycle that it leads must have been abandoned.
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

/// # Safety
/// `arg` must be a heap that joins this thread before it goes.
unsafe extern "C" fn run(arg: *mut c_void) -> *mut c_void {
    // SAFETY: the caller's promise.
    let heap = unsafe { &*arg.cast::<Heap>() };
    let _inside = inside(heap);
    let driver = &heap.driver;
    let mut state = lock(&driver.state);
    loop {
        if state.quit {
            return std::ptr::null_mut();
        }
        if let Some(bytes) = state.wanted {
            drop(state);
            heap.collect_unseated(bytes);
            state = lock(&driver.state);
            state.wanted = None;
            driver.awake.store(false, Relaxed);
        } else if heap.collector.pacer().limiter().limiting() {
            // It lets go with time; who waits for a cycle does not look at the clock.
            let (guard, timeout) =
                driver.changed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            if timeout.timed_out() {
                let spent = Spent { running: heap.scheduler.running() as f64, ..Spent::default() };
                heap.collector.pacer().limiter().update(TICK, spent);
            }
        } else {
            state = driver.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
