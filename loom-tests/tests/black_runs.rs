//! Models of runs that are handed out while objects are marked: who finds an allocated slot by chance finds it marked.
//!
//! The bits lie in mapped memory and are no loom objects, so the protocol is told again with loom's atomics, in the order of
//! `SpanHeap::next_run`, `SpanHeap::find` and `Worker::mark`: one word of allocation bits, one of mark bits, two slots, whose
//! words the marker would scan.

#![cfg(loom)]

use besom_loom_tests::{model, start};
use besom_stats::sync::{AccessCheck, AtomicU64, AtomicUsize, Ordering::*};
use loom::sync::Arc;

const SLOTS: usize = 2;

#[derive(Default)]
struct Toy {
    allocated: AtomicU64,
    marks: AtomicU64,
    /// Touched by the thread that zeroes and fills a slot, and by a marker that scans it.
    words: [AccessCheck; SLOTS],
    /// Where the program stores a pointer to an object: its slot + 1.
    field: AtomicUsize,
}

impl Toy {
    /// `next_run`: only the owner of the span writes allocation bits; markers set mark bits of the same word.
    fn next_run(&self, slot: usize) {
        self.marks.fetch_or(1 << slot, Relaxed);
        let bits = self.allocated.load(Relaxed);
        self.allocated.store(bits | 1 << slot, Release);
        self.words[slot].exclusive();
    }

    /// `give_back` of a slot that was not used: bits are unset by load and store.
    fn give_back(&self, slot: usize) {
        for bits in [&self.allocated, &self.marks] {
            bits.store(bits.load(Relaxed) & !(1 << slot), Relaxed);
        }
    }

    /// What a marker does with a word that may point to a slot.
    fn reach(&self, slot: usize) {
        if self.allocated.load(Acquire) & 1 << slot == 0 {
            return;
        }
        let bit = 1 << slot;
        if self.marks.load(Relaxed) & bit == 0 && self.marks.fetch_or(bit, Relaxed) & bit == 0 {
            self.words[slot].exclusive();
        }
    }

    /// What a marker does with an exact pointer, which is to an object.
    fn reach_exactly(&self, slot: usize) {
        let bit = 1 << slot;
        if self.marks.load(Relaxed) & bit == 0 && self.marks.fetch_or(bit, Relaxed) & bit == 0 {
            self.words[slot].exclusive();
        }
    }
}

/// A stale word on some stack names a slot that is being handed out.
#[test]
fn a_word_names_a_slot_by_chance() {
    model(4, || {
        let toy = Arc::new(Toy::default());
        let owner = start(&toy, |toy| toy.next_run(0));
        toy.reach(0);
        owner.join().unwrap();
        assert_eq!(toy.marks.load(Relaxed) & 1, 1);
    });
}

/// Two markers and the owner set bits of one word: an old object's and a new one's.
#[test]
fn two_markers_and_an_owner_share_a_word() {
    model(3, || {
        let toy = Arc::new(Toy::default());
        toy.words[1].exclusive();
        toy.allocated.store(1 << 1, Relaxed);
        let owner = start(&toy, |toy| toy.next_run(0));
        let other = start(&toy, |toy| {
            toy.reach(0);
            toy.reach(1);
        });
        toy.reach(1);
        toy.reach(0);
        owner.join().unwrap();
        other.join().unwrap();
        assert_eq!(toy.marks.load(Relaxed), 3, "no bit is lost");
        assert_eq!(toy.allocated.load(Relaxed), 3);
    });
}

/// A pointer to the new object lies where a marker reads it: the store publishes the mark, and the marker, which loads it
/// without an order, sees it through the pointer's release and its own fetch of the bit.
#[test]
fn a_marker_is_led_to_a_new_object() {
    model(4, || {
        let toy = Arc::new(Toy::default());
        let owner = start(&toy, |toy| {
            toy.next_run(0);
            toy.field.store(1, Release);
        });
        if toy.field.load(Relaxed) == 1 {
            toy.reach_exactly(0);
        }
        owner.join().unwrap();
    });
}

/// A thread comes to a stop in which it is found that somebody marks still, by what another thread has handed in: a black run
/// stays in the thread's cache, a white one goes back before anybody marks.
#[test]
fn a_thread_stops_while_somebody_marks() {
    model(4, || {
        let toy = Arc::new(Toy::default());
        toy.allocated.store(1 << 1, Relaxed);
        // The run that the thread has: slot 0.
        toy.next_run(0);
        let black = toy.marks.load(Relaxed) & 1 != 0;
        let marker = start(&toy, |toy| toy.reach_exactly(1));
        if !black {
            toy.give_back(0);
        }
        marker.join().unwrap();
        assert_ne!(toy.marks.load(Relaxed) & 1 << 1, 0, "no mark is lost");
        toy.give_back(0);
        assert_eq!(toy.marks.load(Relaxed), 1 << 1);
    });
}
