//! Models of the span set: nothing lost, nothing twice, and who pops a span owns it.
//!
//! Ownership is an `AccessCheck` for each span, touched after a pop and before a push: two owners, or one who does
//! not see what the last one did, are a race.

#![cfg(loom)]

use besom_alloc_core::span_set::{Links, SpanSet};
use besom_alloc_core::units::PageId;
use besom_loom_tests::{model, start};
use besom_stats::sync::{AccessCheck, AtomicU32, Ordering::Relaxed};
use loom::sync::Arc;

struct Toy<const N: usize> {
    set: SpanSet,
    links: [AtomicU32; N],
    owned: [AccessCheck; N],
}

impl<const N: usize> Links for Toy<N> {
    fn next(&self, span: PageId) -> u32 {
        self.links[span.0 as usize].load(Relaxed)
    }

    fn set_next(&self, span: PageId, next: u32) {
        self.links[span.0 as usize].store(next, Relaxed);
    }
}

impl<const N: usize> Toy<N> {
    /// A set of the first `members` spans, span 0 on top.
    fn new(members: usize) -> Arc<Self> {
        let toy = Toy {
            set: SpanSet::default(),
            links: core::array::from_fn(|_| AtomicU32::new(0)),
            owned: core::array::from_fn(|_| AccessCheck::default()),
        };
        (0..members).rev().for_each(|n| toy.push(n));
        Arc::new(toy)
    }

    fn push(&self, n: usize) {
        self.owned[n].exclusive();
        self.set.push(self, PageId(n as u32));
    }

    fn pop(&self) -> Option<usize> {
        let n = self.set.pop(self)?.0 as usize;
        self.owned[n].exclusive();
        Some(n)
    }

    /// With everybody gone: the spans in the set and the `kept` ones are all the spans, each once.
    fn settled(&self, kept: impl IntoIterator<Item = usize>) {
        let mut seen = [0; N];
        kept.into_iter().for_each(|n| seen[n] += 1);
        while let Some(n) = self.pop() {
            seen[n] += 1;
            assert_eq!(seen[n], 1, "span {n} twice");
        }
        assert_eq!(seen, [1; N], "lost, or twice");
        assert!(self.set.is_empty());
    }
}

#[test]
fn two_push_while_a_third_pops() {
    model(3, || {
        let toy = Toy::<3>::new(0);
        let one = start(&toy, |toy| (0..2).for_each(|n| toy.push(n)));
        let other = start(&toy, |toy| toy.push(2));
        let popper = start(&toy, |toy| [toy.pop(), toy.pop()]);
        one.join().unwrap();
        other.join().unwrap();
        toy.settled(popper.join().unwrap().into_iter().flatten());
    });
}

/// A span that a popper has looked at is popped, its successor too, and the span pushed again (ABA).
#[test]
fn a_span_that_comes_back_is_not_taken_for_the_one_before() {
    model(3, || {
        let toy = Toy::<3>::new(3);
        let other = start(&toy, |toy| {
            let (first, second) = (toy.pop(), toy.pop());
            if let Some(n) = first {
                toy.push(n);
            }
            second
        });
        let own = toy.pop();
        let kept = other.join().unwrap();
        toy.settled(own.into_iter().chain(kept));
    });
}

#[test]
fn three_pop_and_push_back() {
    model(2, || {
        let toy = Toy::<3>::new(3);
        let turn = |toy: &Toy<3>| {
            let n = toy.pop().expect("three spans for three threads");
            toy.push(n);
        };
        let threads = [start(&toy, turn), start(&toy, turn)];
        turn(&toy);
        threads.into_iter().for_each(|t| t.join().unwrap());
        toy.settled([]);
    });
}

/// Three want the last two spans.
#[test]
fn three_pop_two() {
    model(3, || {
        let toy = Toy::<2>::new(2);
        let threads = [start(&toy, Toy::pop), start(&toy, Toy::pop)];
        let own = toy.pop();
        let kept: Vec<_> = threads.into_iter().filter_map(|t| t.join().unwrap()).chain(own).collect();
        assert_eq!(kept.len(), 2);
        toy.settled(kept);
    });
}

/// Who sees the set empty sees what each popper did before its pop; the end of sweeping rests on it.
#[test]
fn an_empty_set_shows_what_the_poppers_did_before() {
    model(3, || {
        let toy = Toy::<2>::new(2);
        let raised = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let poppers = [0, 1].map(|i| {
            let raised = raised.clone();
            start(&toy, move |toy| {
                raised[i].store(1, Relaxed);
                toy.pop()
            })
        });
        let looker = start(&toy, move |toy| {
            if toy.set.is_empty() {
                assert_eq!([raised[0].load(Relaxed), raised[1].load(Relaxed)], [1, 1]);
            }
        });
        looker.join().unwrap();
        toy.settled(poppers.map(|t| t.join().unwrap()).into_iter().flatten());
    });
}
