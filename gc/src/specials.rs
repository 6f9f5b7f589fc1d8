//! What dies in a special way: weak references, ephemerons, finalizers, cleanups.
//!
//! They lie in tables beside the heap (ephemerons in the heap), which mutators add to and the collector goes through once all
//! that is reachable is marked: see [`Specials::resolve`] for the order. What is to be run then waits in the due queue
//! until the VM asks for it.

pub mod cleanups;
pub mod due;
pub mod ephemerons;
pub mod finalizers;
mod resolve;
pub mod slab;
pub mod weak;

use besom_alloc_core::os::OutOfMemory;
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::units::Bytes;
use besom_stats::sync::{self, AtomicU64};
use cleanups::Cleanups;
use due::{Due, Item, Links};
use finalizers::{Finalizer, Finalizers};
use weak::Weaks;

/// The specials of one heap, but for ephemerons, which are the marker's.
pub struct Specials {
    weaks: Weaks,
    finalizers: Finalizers,
    cleanups: Cleanups,
    due: Due,
}

/// Something that was due, taken out of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A finalizer.
    Finalizer(Finalizer),
    /// A cleanup: its function's address, and its argument.
    Cleanup {
        /// The function's address.
        run: usize,
        /// Its argument.
        arg: usize,
    },
}

impl Specials {
    /// None yet.
    pub fn new(reserve: Bytes) -> Result<Specials, OutOfMemory> {
        Ok(Specials {
            weaks: Weaks::new(reserve)?,
            finalizers: Finalizers::new(reserve)?,
            cleanups: Cleanups::new(reserve)?,
            due: Due::default(),
        })
    }

    /// The weak references.
    #[inline]
    pub fn weaks(&self) -> &Weaks {
        &self.weaks
    }

    /// The finalizers.
    pub fn finalizers(&self) -> &Finalizers {
        &self.finalizers
    }

    /// The cleanups.
    pub fn cleanups(&self) -> &Cleanups {
        &self.cleanups
    }

    /// Keeps everybody from what there are locks for.
    pub fn hold(&self) -> [sync::Held<'_>; 5] {
        let [table, finalizers] = self.finalizers.hold();
        [table, finalizers, self.weaks.hold(), self.cleanups.hold(), self.due.hold()]
    }

    /// How many finalizers and cleanups are due.
    #[inline]
    pub fn due(&self) -> usize {
        self.due.len()
    }

    /// Whether there is nothing that [`Self::resolve`] would have to look at.
    pub fn is_empty(&self) -> bool {
        self.weaks.count() + self.finalizers.count() + self.cleanups.count() == 0
    }

    /// The number of what comes to be due next.
    pub fn due_end(&self) -> u64 {
        self.due.end()
    }

    /// Takes what is due first, if its number is below `end`. `hold` is given the object of a finalizer, to keep from then on,
    /// before the queue lets it go.
    pub fn take_due(&self, end: u64, hold: impl FnOnce(usize)) -> Option<Taken> {
        let item = self.due.take(end, self)?;
        Some(if item.is_finalizer() {
            hold(self.finalizers.object(item.index()));
            Taken::Finalizer(self.finalizers.take(item.index()))
        } else {
            let (run, arg) = self.cleanups.take(item.index());
            Taken::Cleanup { run, arg }
        })
    }

    /// Shows the objects that wait for their finalizers; the bytes looked at. Who takes one from the queue meanwhile holds it
    /// before that lets it go, and while the collector marks beside the program tells it so.
    pub fn for_each_due_object(&self, visit: impl FnMut(usize)) -> Bytes {
        if self.due.is_empty() { Bytes(0) } else { self.finalizers.for_each_due(visit) }
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> Bytes {
        self.weaks.bytes() + self.finalizers.bytes() + self.cleanups.bytes()
    }
}

impl Links for Specials {
    fn link(&self, item: Item) -> &AtomicU64 {
        if item.is_finalizer() {
            self.finalizers.link(item.index())
        } else {
            self.cleanups.link(item.index())
        }
    }
}

/// Whether the object at an address, or the tiny block in which it lies, is marked.
#[inline]
pub fn is_marked(heap: &SpanHeap, address: usize) -> bool {
    heap.tables().is_marked(address.wrapping_sub(heap.tables().base()))
}
