//! A lock-free set of spans: push anywhere, pop any.
//!
//! The links lie in the spans themselves, whose entries are type-stable, so a set needs no memory of its own. The
//! head carries a tag beside the span's number:
//!
//! `head == tag << 32 | (page + 1)`, and `0` in the low half is the empty set.
//!
//! A pop that read `next` of a span which others have popped and pushed again meanwhile is caught by the
//! tag, which every push and pop moves on (the ABA problem; Treiber, "Systems programming: coping with
//! parallelism", 1986). The tag wraps after 2^32 operations within one pop's window.

use crate::units::PageId;
use besom_stats::sync::{AtomicU64, Ordering::*};

/// Where the links of the members lie: one relaxed atomic word for each span.
pub trait Links {
    /// Reads the link of a span.
    fn next(&self, span: PageId) -> u32;
    /// Writes the link of a span that the caller owns.
    fn set_next(&self, span: PageId, next: u32);
}

/// The set. All zero is the empty set.
#[repr(transparent)]
pub struct SpanSet {
    head: AtomicU64,
}

impl Default for SpanSet {
    fn default() -> SpanSet {
        SpanSet { head: AtomicU64::new(0) }
    }
}

impl SpanSet {
    /// Puts a span in; it belongs to whoever pops it.
    pub fn push(&self, links: &impl Links, span: PageId) {
        let mut head = self.head.load(Relaxed);
        loop {
            links.set_next(span, head as u32);
            // Release: the popper sees the span as its last owner left it.
            match self.head.compare_exchange_weak(head, moved(head, span.0 + 1), Release, Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes a span out; the caller owns it from here.
    pub fn pop(&self, links: &impl Links) -> Option<PageId> {
        let mut head = self.head.load(Acquire);
        loop {
            let span = PageId((head as u32).checked_sub(1)?);
            let next = links.next(span);
            // Release: who sees the set empty sees what the popper did before, see `SpanHeap::finish_sweep`.
            match self.head.compare_exchange_weak(head, moved(head, next), AcqRel, Acquire) {
                Ok(_) => return Some(span),
                Err(now) => head = now,
            }
        }
    }

    /// Whether the set was empty at the moment of the look.
    pub fn is_empty(&self) -> bool {
        self.head.load(Acquire) as u32 == 0
    }
}

fn moved(head: u64, low: u32) -> u64 {
    ((head >> 32).wrapping_add(1) << 32) | u64::from(low)
}
