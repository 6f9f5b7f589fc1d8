//! The background scavenger: a thread that gives free memory back to the system, slowly.
//!
//! It is woken when a cycle has ended and when sweeping has, and starts when there is first something to do. It gives
//! back what is above the goal (`goal`), a run at a time, and sleeps so that it takes 1 % of one processor
//! (`throttle`). What is or was dense in this period of the scavenge index is spared; a period is a cycle, or
//! a second without one. Nobody waits for it: see `page_heap`.

mod goal;
mod throttle;

use crate::heap::Heap;
use besom_alloc_core::os::{self, Thread};
use besom_alloc_core::page_heap::{Pass, Step};
use besom_alloc_core::units::{Bytes, Pages};
use besom_gc::timeline::Kind;
use besom_stats::race_detector::inside;
use besom_stats::sync::raw::{AtomicU64, Ordering::*};
use besom_stats::sync::{self, Condvar, Mutex, MutexGuard, hold, lock};
use goal::{Goal, Held};
use std::ffi::c_void;
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use throttle::Throttle;

/// Pages given back in one step, a huge page of the usual size. Higher: page faults beside it wait longer. Lower: huge
/// pages are broken, and more system calls.
const STEP: Pages = Pages(256);
/// Processor time after which it sleeps. Higher: the program on its processor waits longer at a time. Lower: waking
/// up, some microseconds of processor time each, makes up more of the 1 %.
const BURST: Duration = Duration::from_micros(250);
/// A period of the scavenge index, where no cycle ends it. Higher: a program that has gone quiet keeps what was dense
/// for longer. Lower: one that pauses loses memory that it wants again.
const PERIOD: Duration = Duration::from_secs(1);
/// Periods without a cycle before it sleeps until it is woken. What was dense in one may go in the next; what is dense
/// still stays.
const QUIET_PERIODS: u32 = 2;

#[derive(Default)]
struct State {
    work: bool,
    quit: bool,
    thread: Option<Thread>,
}

/// The scavenger of one heap; started at the first call of [`Scavenger::wake`] that finds work.
pub struct Scavenger {
    state: Mutex<State>,
    changed: Condvar,
    goal: Goal,
    /// Processor time of its threads.
    cpu_ns: AtomicU64,
    /// Bytes that it gave back, ever.
    released: AtomicU64,
}

impl Scavenger {
    /// No thread yet, and nothing that is too much.
    pub fn new() -> Scavenger {
        Scavenger {
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
            goal: Goal::new(),
            cpu_ns: AtomicU64::new(0),
            released: AtomicU64::new(0),
        }
    }

    /// A cycle has ended, at whose beginning so many bytes were allocated and not found dead.
    pub fn cycle_ended(&self, heap: &Heap, live_before: u64) {
        let pages = heap.spans.pages();
        self.goal.cycle_ended(pages.in_use().bytes(), live_before);
        pages.next_period();
        self.wake(heap);
    }

    /// Has what is too much given back in the background. Without a thread, if the system refuses one, it stays until
    /// it is asked for.
    pub fn wake(&self, heap: &Heap) {
        if self.excess(heap).0 == 0 && !heap.spans.pages().has_refused_huge() {
            return;
        }
        let mut state = lock(&self.state);
        state.work = true;
        if state.thread.is_none() && !state.quit {
            let arg = std::ptr::from_ref(heap).cast_mut().cast::<c_void>();
            // SAFETY: a heap joins its scavenger before any part of it goes.
            state.thread = unsafe { os::spawn_thread(c"besom-scavenge", run, arg) }.ok();
        }
        self.changed.notify_one();
    }

    /// Keeps the thread from its next look at what is wanted, and everybody from starting it.
    pub fn hold(&self) -> sync::Held<'_> {
        hold(&self.state)
    }

    /// In the child of a fork: there is no thread any more.
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

    /// Processor time of the scavenger.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_ns.load(Relaxed))
    }

    /// Bytes that it gave back, ever.
    pub fn released(&self) -> Bytes {
        Bytes(self.released.load(Relaxed) as usize)
    }

    /// Bytes of free memory that are too much.
    fn excess(&self, heap: &Heap) -> Bytes {
        let (pages, pacer) = (heap.spans.pages(), heap.collector.pacer());
        let free = pages.free_pages().bytes();
        self.goal.excess(&Held {
            ready: pages.in_use().bytes() + free,
            free,
            footprint: pages.footprint(),
            goal: pacer.goal(),
            memory_limit: pages.soft_limit(),
        })
    }
}

impl Default for Scavenger {
    fn default() -> Scavenger {
        Scavenger::new()
    }
}

/// # Safety
/// `arg` must be a heap that joins this thread before it goes.
unsafe extern "C" fn run(arg: *mut c_void) -> *mut c_void {
    // SAFETY: the caller's promise.
    let heap = unsafe { &*arg.cast::<Heap>() };
    let _inside = inside(heap);
    Run { heap, throttle: Throttle::new(), began: Instant::now(), told: Duration::ZERO }.serve();
    std::ptr::null_mut()
}

/// The thread.
struct Run<'h> {
    heap: &'h Heap,
    throttle: Throttle,
    began: Instant,
    /// Its processor time, as far as it was accounted for.
    told: Duration,
}

impl<'h> Run<'h> {
    /// Until the heap goes.
    fn serve(&mut self) {
        let scavenger = &self.heap.scavenger;
        let mut quiet = 0;
        let mut state = lock(&scavenger.state);
        while !state.quit {
            if std::mem::take(&mut state.work) {
                quiet = 0;
            } else if quiet < QUIET_PERIODS && scavenger.excess(self.heap).0 > 0 {
                state = Run::wait(state, &scavenger.changed, Some(PERIOD));
                if state.quit || state.work {
                    continue;
                }
                quiet += 1;
                self.heap.spans.pages().next_period();
            } else {
                state = Run::wait(state, &scavenger.changed, None);
                continue;
            }
            drop(state);
            self.huge_again();
            self.pass();
            state = lock(&scavenger.state);
        }
    }

    /// Waits until something changes, or for that long.
    fn wait<'a>(
        state: MutexGuard<'a, State>,
        changed: &Condvar,
        most: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        match most {
            None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(most) => changed.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0,
        }
    }

    /// Gives back what is too much, as far as there is something that may go.
    fn pass(&mut self) {
        let (heap, mut pass) = (self.heap, Pass::new());
        loop {
            let excess = heap.scavenger.excess(heap);
            if excess.0 == 0 {
                break;
            }
            let began = heap.collector.timeline().begin();
            let most = STEP.min(Pages::to_hold(excess));
            let step = heap.spans.pages().release_step(&mut pass, most, heap.spans.stats().unattached());
            if let Step::Released(pages) = step {
                let bytes = pages.bytes().0 as u64;
                heap.scavenger.released.fetch_add(bytes, Relaxed);
                heap.collector.timeline().end(began, Kind::Scavenge, [bytes, 0, 0, 0]);
            }
            if step == Step::Nothing || !self.rest(BURST) {
                break;
            }
        }
        self.rest(Duration::ZERO);
    }

    /// Gives chunks that are dense again their huge pages back.
    fn huge_again(&mut self) {
        let mut chunk = Some(0);
        while let Some(from) = chunk {
            chunk = self.heap.spans.pages().huge_again(from);
            if !self.rest(BURST) {
                return;
            }
        }
    }

    /// Sleeps for what was done since, if that was `burst` or more; false: the heap goes.
    fn rest(&mut self, burst: Duration) -> bool {
        let cpu = os::thread_cpu_time();
        let done = cpu.saturating_sub(self.told);
        if done <= burst {
            return true;
        }
        self.told = cpu;
        let scavenger = &self.heap.scavenger;
        scavenger.cpu_ns.fetch_add(done.as_nanos() as u64, Relaxed);
        self.throttle.worked(self.began.elapsed(), done);
        let mut state = lock(&scavenger.state);
        loop {
            let left = self.throttle.rest(self.began.elapsed());
            if state.quit || left.is_zero() {
                return !state.quit;
            }
            state = Run::wait(state, &scavenger.changed, Some(left));
        }
    }
}
