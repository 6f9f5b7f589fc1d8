//! The driver: the thread that leads the cycles that go on beside the program, when the pacer wants one.

use crate::background::{self, Body};
use crate::heap::Heap;
use crate::requests::{Next, Requests};
use besom_alloc_core::os::Thread;
use besom_stats::sync::{Held, Mutex, hold, lock};
use std::ffi::CStr;

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
            let mut thread = lock(&self.thread);
            *thread = background::spawn::<Driver>(heap).ok();
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

impl Body for Driver {
    const NAME: &'static CStr = c"besom-gc";

    fn run(heap: &Heap) {
        heap.collector.timeline().leads();
        loop {
            match heap.driver.requests.next() {
                Next::Serve(bytes) => heap.collect_unseated(bytes),
                Next::Quit => return,
            }
        }
    }
}
