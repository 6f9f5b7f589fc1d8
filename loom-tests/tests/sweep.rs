//! Models of sweeping: a thread that takes spans, one that sweeps in the background, one that finishes the sweep.
//!
//! The protocol is `SweepPhase`, `SweepGen`, `Central` and `SpanSet` as they stand; a toy span has no bits, but two
//! `AccessCheck`s: `owned`, touched by whoever has the span, and `bits`, touched by its sweep alone, so that
//! somebody who has seen the end of sweeping may touch it too.

#![cfg(loom)]

use besom_alloc_core::central::Central;
use besom_alloc_core::span_set::Links;
use besom_alloc_core::sweep_protocol::{SweepGen, SweepPhase, Sweepable, Sweeping, Swept};
use besom_alloc_core::units::{PageId, Pages};
use besom_loom_tests::{model, start};
use besom_stats::sync::{AccessCheck, AtomicU32, Mutex, Ordering::Relaxed, lock, raw};
use loom::sync::Arc;

/// What a sweep leaves of a span.
#[derive(Clone, Copy)]
enum Left {
    /// All its slots.
    Full,
    /// Some.
    Part,
    /// None: who gives it back frees its pages.
    Nothing,
}

struct ToySpan {
    sweepgen: SweepGen,
    next: AtomicU32,
    owned: AccessCheck,
    bits: AccessCheck,
    list: u32,
    left: Left,
    /// Sweeps in all cycles; a plain count, which the order of events does not hang on.
    sweeps: raw::AtomicU32,
}

struct Toy {
    phase: SweepPhase,
    lists: Vec<Central>,
    spans: Vec<ToySpan>,
    /// Held as `Collector::background` is.
    background: Mutex<()>,
}

impl Links for Toy {
    fn next(&self, span: PageId) -> u32 {
        self.span(span).next.load(Relaxed)
    }

    fn set_next(&self, span: PageId, next: u32) {
        self.span(span).next.store(next, Relaxed);
    }
}

impl Sweepable for Toy {
    type Stats<'a> = ();

    fn lists(&self) -> u32 {
        self.lists.len() as u32
    }

    fn list(&self, list: u32) -> &Central {
        &self.lists[list as usize]
    }

    fn sweepgen(&self, page: PageId) -> &SweepGen {
        &self.span(page).sweepgen
    }

    fn sweep(&self, sweeping: Sweeping<'_>, (): ()) -> Swept {
        let page = sweeping.page();
        let span = self.span(page);
        span.owned.exclusive();
        span.bits.exclusive();
        span.sweeps.fetch_add(1, Relaxed);
        sweeping.done();
        Swept { page, has_free: !matches!(span.left, Left::Full) }
    }

    fn give_back(&self, swept: Swept, (): ()) -> Pages {
        let span = self.span(swept.page);
        span.owned.exclusive();
        span.bits.exclusive();
        if !matches!(span.left, Left::Nothing) {
            self.put(swept.page);
        }
        Pages(1)
    }
}

impl Toy {
    /// Spans that were swept in the last cycle, by their list and what the next sweep leaves of them.
    fn new(lists: usize, spans: &[(u32, Left)]) -> Arc<Toy> {
        let phase = SweepPhase::default();
        let span = |&(list, left): &(u32, Left)| ToySpan {
            sweepgen: SweepGen::new(phase.generation()),
            next: AtomicU32::new(0),
            owned: AccessCheck::default(),
            bits: AccessCheck::default(),
            list,
            left,
            sweeps: raw::AtomicU32::new(0),
        };
        let spans: Vec<_> = spans.iter().map(span).collect();
        let lists = (0..lists).map(|_| Central::default()).collect();
        let toy = Toy { phase, lists, spans, background: Mutex::new(()) };
        (0..toy.spans.len()).for_each(|n| toy.put(PageId(n as u32)));
        toy.phase.advance();
        Arc::new(toy)
    }

    fn span(&self, page: PageId) -> &ToySpan {
        &self.spans[page.0 as usize]
    }

    fn put(&self, page: PageId) {
        let span = self.span(page);
        span.owned.exclusive();
        let has_free = !matches!(span.left, Left::Full);
        self.list(span.list).put(self, page, has_free, self.phase.generation());
    }

    /// What a mutator does: takes a span, fills its cache from it, and gives it back.
    fn take(&self, list: u32) -> Option<PageId> {
        let page = self.phase.take(self, list, ())?;
        let span = self.span(page);
        assert_eq!(span.sweepgen.get(), self.phase.generation(), "taken unswept");
        span.owned.exclusive();
        span.sweepgen.cache(self.phase.generation());
        Some(page)
    }

    fn uncache(&self, page: PageId) {
        self.span(page).owned.exclusive();
        self.span(page).sweepgen.uncache(self.phase.generation());
        self.put(page);
    }

    /// What the caller believes after sweeping has ended: each span was swept once in each of `cycles`, and
    /// nobody is at it.
    fn all_swept(&self, cycles: u32) {
        for (n, span) in self.spans.iter().enumerate() {
            assert_eq!(span.sweeps.load(Relaxed), cycles, "sweeps of span {n}");
            span.bits.exclusive();
        }
    }

    fn sweep_in_background(&self) {
        while self.phase.sweep_one(self, ()).is_some() {}
    }

    fn sweep_in_background_locked(&self) -> bool {
        let _held = lock(&self.background);
        self.phase.sweep_one(self, ()).is_some()
    }
}

#[test]
fn a_taker_a_background_sweeper_and_a_finisher() {
    model(2, || {
        let toy = Toy::new(1, &[(0, Left::Part), (0, Left::Full)]);
        let taker = start(&toy, |toy| toy.take(0));
        let sweeper = start(&toy, Toy::sweep_in_background);
        toy.phase.finish(&*toy, ());
        toy.all_swept(1);
        // None: the span with free slots was in the background sweeper's hands.
        if let Some(page) = taker.join().unwrap() {
            toy.uncache(page);
        }
        sweeper.join().unwrap();
        // Nothing is lost: all is there for the next cycle.
        toy.phase.advance();
        toy.phase.finish(&*toy, ());
        toy.all_swept(2);
    });
}

/// Each of them may learn from another's cursor that a list is empty.
#[test]
fn two_lists_and_three_that_sweep() {
    model(2, || {
        let toy = Toy::new(2, &[(0, Left::Nothing), (1, Left::Part)]);
        let sweepers = [start(&toy, Toy::sweep_in_background), start(&toy, Toy::sweep_in_background)];
        toy.phase.finish(&*toy, ());
        toy.all_swept(1);
        sweepers.into_iter().for_each(|t| t.join().unwrap());
    });
}

/// The first sweeps the last span, the second sees the list empty and says so in the cursor, the third reads only that.
/// (The third is started last, as loom would not try the second's store before the third's load else.)
#[test]
fn the_end_is_learned_from_the_cursor() {
    model(3, || {
        let toy = Toy::new(1, &[(0, Left::Nothing)]);
        let threads = [
            start(&toy, |toy| _ = toy.take(0)),
            start(&toy, Toy::sweep_in_background),
            start(&toy, |toy| {
                if toy.phase.is_done(toy) {
                    toy.all_swept(1);
                }
                toy.phase.finish(toy, ());
                toy.all_swept(1);
            }),
        ];
        threads.into_iter().for_each(|t| t.join().unwrap());
        toy.all_swept(1);
    });
}

#[test]
fn two_take_and_one_sweeps() {
    model(3, || {
        let toy = Toy::new(1, &[(0, Left::Part), (0, Left::Part)]);
        let sweeper = start(&toy, Toy::sweep_in_background);
        let other = start(&toy, |toy| toy.take(0));
        let own = toy.take(0);
        let other = other.join().unwrap();
        sweeper.join().unwrap();
        assert!(own.is_none() || own != other, "{own:?} {other:?}");
        toy.phase.finish(&*toy, ());
        toy.all_swept(1);
    });
}

/// A span goes from one cache to the other through the swept set.
#[test]
fn a_span_given_back_is_taken_by_another() {
    model(3, || {
        let toy = Toy::new(1, &[(0, Left::Part)]);
        let turn = |toy: &Toy| {
            if let Some(page) = toy.take(0) {
                toy.uncache(page);
            }
        };
        let threads = [start(&toy, turn), start(&toy, turn)];
        threads.into_iter().for_each(|t| t.join().unwrap());
        toy.all_swept(1);
        assert!(toy.take(0).is_some());
    });
}

/// The background sweeper, which no stop waits for, goes from one cycle to the next: what was swept is unswept now.
#[test]
fn the_generation_grows_beside_the_background_sweeper() {
    model(2, || {
        let toy = Toy::new(1, &[(0, Left::Part), (0, Left::Full)]);
        let sweeper = start(&toy, |toy| {
            for _ in 0..3 {
                toy.sweep_in_background_locked();
            }
        });
        let held = lock(&toy.background);
        toy.phase.finish(&*toy, ());
        toy.all_swept(1);
        toy.phase.advance();
        drop(held);
        toy.phase.finish(&*toy, ());
        toy.all_swept(2);
        sweeper.join().unwrap();
        toy.all_swept(2);
        assert!(toy.take(0).is_some() && toy.take(0).is_none());
    });
}
