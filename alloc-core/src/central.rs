//! The central list of one span class: where caches get spans from and give them back.
//!
//! Two sets of spans with free slots (partial) and two without (full). One of each pair holds spans that are
//! swept in this cycle, the other those that are not; the two change roles when the sweep generation grows:
//!
//! | G/2 even | G/2 odd |
//! |---|---|
//! | `partial[0]` swept, `partial[1]` unswept | the reverse |
//!
//! Invariant: when G grows, both unswept sets are empty (every span was swept), so that the swept ones can
//! become the unswept ones of the new cycle. An empty span is in no set: its pages went back.

use crate::span_heap::SpanHeap;
use crate::span_set::{Links, SpanSet};
use crate::units::PageId;
use besom_stats::sync::raw::Ordering::Relaxed;

/// The sets of one span class; all zero is a list without spans.
#[derive(Default)]
#[repr(C)]
pub struct Central {
    partial: [SpanSet; 2],
    full: [SpanSet; 2],
}

/// Which of a pair is swept in generation G.
fn swept(generation: u32) -> usize {
    (generation as usize >> 1) & 1
}

impl Central {
    /// Gives a swept span back, by whether it has free slots.
    pub fn put(&self, links: &impl Links, span: PageId, has_free: bool, generation: u32) {
        let sets = if has_free { &self.partial } else { &self.full };
        sets[swept(generation)].push(links, span);
    }

    /// A swept span with free slots.
    pub fn pop_partial(&self, links: &impl Links, generation: u32) -> Option<PageId> {
        self.partial[swept(generation)].pop(links)
    }

    /// A span that nobody has swept in this cycle; those with free slots come first.
    pub fn pop_unswept(&self, links: &impl Links, generation: u32) -> Option<PageId> {
        let unswept = 1 - swept(generation);
        self.partial[unswept].pop(links).or_else(|| self.full[unswept].pop(links))
    }

    /// Whether every span of the list is swept, or in the hands of somebody who sweeps it.
    pub fn all_swept(&self, generation: u32) -> bool {
        let unswept = 1 - swept(generation);
        self.partial[unswept].is_empty() && self.full[unswept].is_empty()
    }
}

impl Links for SpanHeap {
    fn next(&self, span: PageId) -> u32 {
        self.tables().span(span).next.load(Relaxed)
    }

    fn set_next(&self, span: PageId, next: u32) {
        self.tables().span(span).next.store(next, Relaxed);
    }
}
