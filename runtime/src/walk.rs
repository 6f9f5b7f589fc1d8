//! The walk over all objects, and what is known of one.

use crate::heap::Heap;
use crate::mutator::Mutator;
use besom_alloc_core::span_class::Kind;
use besom_alloc_core::span_heap::Found;
use besom_alloc_core::units::Bytes;
use besom_gc::timeline::Why;
use std::ops::ControlFlow::{Break, Continue};

impl Heap {
    /// Visits every allocated object in address order with the world stopped, until `visit` returns another number
    /// than 0; returns that.
    ///
    /// # Safety
    /// `m` must be the calling thread's, attached and not blocked; `visit` must not allocate.
    pub(crate) unsafe fn walk(
        &self,
        m: *mut Mutator,
        mut visit: impl FnMut(*mut u8, Bytes, u32) -> i32,
    ) -> i32 {
        let spans = &self.spans;
        // SAFETY: the caller's promise.
        let walked = unsafe {
            self.with_world_stopped(m, Why::Walk, |stopped| {
                spans.try_for_each_span(stopped, |page, span| {
                    let kind = match spans.classes().get(span.class()).facts().kind {
                        Kind::TypedShared | Kind::Typed | Kind::Ephemeron => 4,
                        kind => kind as u32,
                    };
                    spans.try_for_each_object(page, span, |offset| {
                        let Some(found) = spans.find(spans.address(offset).addr()) else {
                            return Continue(());
                        };
                        match visit(spans.address(offset), self.usable(&found), kind) {
                            0 => Continue(()),
                            result => Break(result),
                        }
                    })
                })
            })
        };
        match walked {
            Break(result) => result,
            Continue(()) => 0,
        }
    }

    /// Usable bytes of the object that starts there; 0 if none does.
    pub fn size(&self, address: usize) -> usize {
        match self.find(address) {
            Some(found) if self.spans.address(found.offset).addr() == address => self.usable(&found).0,
            _ => 0,
        }
    }

    /// Whether an object starts there, tiny ones included.
    pub fn is_object(&self, address: usize) -> bool {
        self.find_object(address).is_some()
    }

    /// The object that starts there. Tiny ones start anywhere in their block.
    fn find_object(&self, address: usize) -> Option<Found> {
        self.find(address).filter(|found| {
            let start = self.spans.address(found.offset).addr();
            start == address || (found.class.index() == 1 && self.options.tiny != 0)
        })
    }

    /// Whether an object starts there, tiny ones included, that no cycle has found dead.
    pub fn is_live_object(&self, address: usize) -> bool {
        self.find_object(address).is_some_and(|found| !self.spans.is_garbage(&found))
    }

    /// The start of the object that holds an address.
    pub fn base(&self, address: usize) -> Option<*mut u8> {
        self.find(address).map(|found| self.spans.address(found.offset))
    }

    /// Registers a layout: its size and the offsets of its pointers.
    pub fn register_layout(&self, bytes: usize, offsets: &[u32]) -> crate::status::Result<u32> {
        Ok(self.collector.shapes().layouts.register(&self.spans, bytes, offsets)?)
    }

    /// Changes the number of Ps; 0: one for each attached thread.
    pub fn set_procs(&self, n: u32) -> crate::status::Result<()> {
        if n > crate::options::PROCS_MAX {
            return Err(crate::status::Error::Limit);
        }
        self.scheduler.set_limit(self, n as usize).map_err(|_| crate::status::Error::NoMemory)
    }
}
