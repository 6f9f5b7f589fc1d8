//! The background sweeper: a thread that sweeps after each cycle, so that mutators seldom have to.

use crate::background::{Background, Body, Woken};
use crate::heap::Heap;
use besom_gc::timeline::{Gathered, Kind};
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
