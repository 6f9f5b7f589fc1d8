//! The driver: the thread that leads the cycles that go on beside the program, when the pacer wants one.

use crate::heap::Heap;
use crate::requests::{Next, Requests};
use besom_alloc_core::os::{self, Thread};
use besom_gc::pacer::Spent;
use besom_stats::race_detector::inside;
use besom_stats::sync::{Held, Mutex, hold, lock};
use std::ffi::c_void;
use std::time::Duration;

/// Between two looks of the limiter's at the clock, while it limits.
const TICK: Duration = Duration::from_millis(10);

/// The driver of one heap; its thread is started at the first call of [`Driver::wake`].
#[derive(Default)]
pub struct Driver {
    requests: Requests,
    thread: Mutex<Option<Thread>>,
}

impl Driver {
    /// No thread yet.
    pub fn new() -> Driver {
        Driver::default()
    }

    /// Has a cycle begin soon, if one is due then before `bytes` more are allocated. False: the system refuses a thread.
    pub fn wake(&self, heap: &Heap, bytes: i64) -> bool {
        self.requests.ask(bytes, || {
            let arg = std::ptr::from_ref(heap).cast_mut().cast::<c_void>();
            let mut thread = lock(&self.thread);
            // SAFETY: a heap joins its driver before any part of it goes.
            *thread = unsafe { os::spawn_thread(c"besom-gc", run, arg) }.ok();
            thread.is_some()
        })
    }

    /// Keeps the thread from its next request, and everybody from starting it.
    pub fn hold(&self) -> [Held<'_>; 2] {
        [self.requests.hold(), hold(&self.thread)]
    }

    /// In the child of a fork: there is no thread any more, and nothing is asked for.
    pub fn after_fork(&self) {
        self.requests.after_fork();
        if let Some(thread) = lock(&self.thread).take() {
            thread.forget();
        }
    }

    /// Ends the thread; a cycle that it leads must have been abandoned.
    pub fn stop(&self) {
        self.requests.quit();
        let thread = lock(&self.thread).take();
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
    os::enter_own_thread();
    let limiter = heap.collector.pacer().limiter();
    loop {
        // It lets go with time; who waits for a cycle does not look at the clock.
        match heap.driver.requests.next(|| limiter.limiting().then_some(TICK)) {
            Next::Serve(bytes) => heap.collect_unseated(bytes),
            Next::Tick => {
                let spent = Spent { running: heap.scheduler.running() as f64, ..Spent::default() };
                limiter.update(TICK, spent);
            }
            Next::Quit => return std::ptr::null_mut(),
        }
    }
}
