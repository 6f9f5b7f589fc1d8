//! The background scavenger: a thread that gives free memory back to the system, slowly.
//!
//! It is woken when a cycle has ended and when sweeping has, and starts when there is first something to do. It gives
//! back what is above the goal (`goal`), a run at a time, and sleeps so that it takes 1 % of one processor
//! (`throttle`). What is or was dense in this period of the scavenge index is spared; a period is a cycle, or
//! a second without one. Nobody waits for it: see `page_heap`.

mod goal;
mod throttle;

use crate::background::{Background, Body, Woken};
use crate::heap::Heap;
use besom_alloc_core::os;
use besom_alloc_core::page_heap::{Pass, Step};
use besom_alloc_core::units::{Bytes, Pages};
use besom_gc::timeline::Kind;
use besom_stats::sync;
use besom_stats::sync::raw::{AtomicU64, Ordering::*};
use goal::{Goal, Held};
use std::ffi::CStr;
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

/// The scavenger of one heap; started at the first call of [`Scavenger::wake`] that finds work.
pub struct Scavenger {
    background: Background,
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
            background: Background::default(),
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
        self.background.wake::<Scavenger>(heap);
    }

    /// Keeps the thread from its next look at what is wanted, and everybody from starting it.
    pub fn hold(&self) -> sync::Held<'_> {
        self.background.hold()
    }

    /// In the child of a fork: there is no thread any more.
    pub fn after_fork(&self) {
        self.background.after_fork();
    }

    /// Ends the thread, in the middle of its work if it must be.
    pub fn stop(&self) {
        self.background.stop();
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

impl Body for Scavenger {
    const NAME: &'static CStr = c"besom-scavenge";

    fn run(heap: &Heap) {
        Run { heap, throttle: Throttle::new(), began: Instant::now(), told: Duration::ZERO }.serve();
    }
}

/// The thread.
struct Run<'h> {
    heap: &'h Heap,
    throttle: Throttle,
    began: Instant,
    /// Its processor time, as far as it was accounted for.
    told: Duration,
}

impl Run<'_> {
    /// Until the heap goes.
    fn serve(&mut self) {
        let (heap, scavenger) = (self.heap, &self.heap.scavenger);
        let mut quiet = 0;
        loop {
            let looks_again = quiet < QUIET_PERIODS && scavenger.excess(heap).0 > 0;
            match scavenger.background.wait(looks_again.then_some(PERIOD)) {
                Woken::Quit => return,
                Woken::Work => quiet = 0,
                Woken::Late => {
                    quiet += 1;
                    heap.spans.pages().next_period();
                }
            }
            self.huge_again();
            self.pass();
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
        scavenger.background.sleep(|| self.throttle.rest(self.began.elapsed()))
    }
}
