//! The background sweeper: a thread that sweeps after each cycle, so that mutators seldom have to.

use crate::background::{Background, Body, Woken};
use crate::heap::Heap;
use besom_gc::timeline::{Gathered, Kind};
use besom_stats::sync::Held;
use std::ffi::CStr;

/// The sweeper of one heap; started at the first call of [`Sweeper::wake`].
#[derive(Default)]
pub struct Sweeper(Background);

impl Sweeper {
    /// No thread yet.
    pub fn new() -> Sweeper {
        Sweeper::default()
    }

    /// Has everything swept in the background, soon. Without a thread, if the system refuses one, mutators sweep
    /// what they need, and the next cycle the rest.
    pub fn wake(&self, heap: &Heap) {
        self.0.wake::<Sweeper>(heap);
    }

    /// Keeps the thread from its next look at what is wanted, and everybody from starting it.
    pub fn hold(&self) -> Held<'_> {
        self.0.hold()
    }

    /// In the child of a fork: there is no thread any more. What is not swept waits for the next cycle, or for those who
    /// need it.
    pub fn after_fork(&self) {
        self.0.after_fork();
    }

    /// Ends the thread, in the middle of its work if it must be.
    pub fn stop(&self) {
        self.0.stop();
    }
}

impl Body for Sweeper {
    const NAME: &'static CStr = c"besom-sweep";

    fn run(heap: &Heap) {
        let background = &heap.sweeper.0;
        while background.wait(None) == Woken::Work {
            let mut shown = Gathered::default();
            while heap.collector.sweep_in_background(&heap.spans, &mut shown) && !background.quits() {}
            heap.collector.timeline().end_gathered(&mut shown, Kind::BackgroundSweep);
            heap.collector.sample(&heap.spans);
            heap.scavenger.wake(heap);
        }
    }
}
