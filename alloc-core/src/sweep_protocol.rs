//! Who sweeps what: the protocol between threads that take spans, that sweep beside them, and the one that
//! must have everything swept. What a sweep does to a span's bits is in `sweep`.
//!
//! ## `sweepgen`
//!
//! With G the heap's sweep generation, which grows by 2 at the end of each mark phase:
//!
//! | value | meaning | who may touch the span |
//! |---|---|---|
//! | G-2 | holds garbage of the last cycle | nobody, until it is swept |
//! | G-1 | is being swept | the one who moved it there by compare-and-swap: [`Sweeping`] |
//! | G | swept | the one who popped it from a central set |
//! | G+3 | swept, then cached | the cache's P: [`SweepGen::uncache`] |
//!
//! All caches are flushed before G grows, so 'cached before sweep began' (G+1 in the field) does not occur.
//!
//! ## The end of sweeping
//!
//! A sweeper raises `sweepers` before it pops, and lowers it when the span is swept and, unless the sweeper keeps
//! it, given back. Who sees every unswept set empty, then `sweepers == 0`, knows that all is swept: the pop that
//! emptied a set is seen with the look, and with it the raise that came before. The look may be somebody
//! else's, learned from `cursor`, so `cursor` is released and acquired too.

use crate::central::Central;
use crate::span_set::Links;
use crate::units::{PageId, Pages};
use besom_stats::fatal;
use besom_stats::sync::{AtomicU32, Ordering::*};

/// Unswept spans that one [`SweepPhase::take`] tries before it gives up. Higher: a refill may sweep longer
/// before it gets memory. Lower: more new pages are taken while garbage lies in unswept spans.
const TAKE_TRIES: usize = 100;

/// The sweep generation of one span.
#[repr(transparent)]
pub struct SweepGen(AtomicU32);

impl SweepGen {
    /// Of a span that was swept in `generation`.
    pub fn new(generation: u32) -> SweepGen {
        SweepGen(AtomicU32::new(generation))
    }

    /// Makes it that of a new span, swept.
    pub fn set(&self, generation: u32) {
        self.0.store(generation, Release);
    }

    /// Its value; see the table above.
    pub fn get(&self) -> u32 {
        self.0.load(Acquire)
    }

    /// Takes an unswept span for sweeping. `None`: somebody else has it, or it is swept.
    fn try_sweep(&self, page: PageId, generation: u32) -> Option<Sweeping<'_>> {
        let unswept = generation.wrapping_sub(2);
        self.0
            .compare_exchange(unswept, generation.wrapping_sub(1), Acquire, Relaxed)
            .ok()
            .map(|_| Sweeping { state: self, page, generation })
    }

    /// Hands a swept span, which the caller owns, to a cache.
    pub fn cache(&self, generation: u32) {
        debug_assert_eq!(self.get(), generation);
        self.0.store(generation.wrapping_add(3), Relaxed);
    }

    /// Takes it back from the cache, swept.
    pub fn uncache(&self, generation: u32) {
        debug_assert_eq!(self.get(), generation.wrapping_add(3));
        self.0.store(generation, Release);
    }
}

/// The right to sweep one span. Only a [`SweepPhase`] hands it out; [`Sweeping::done`] ends it.
#[must_use = "a span that is never published stays out of reach for ever"]
pub struct Sweeping<'a> {
    state: &'a SweepGen,
    page: PageId,
    generation: u32,
}

impl Sweeping<'_> {
    /// The span's first page.
    pub fn page(&self) -> PageId {
        self.page
    }

    /// Publishes the span as swept; it still belongs to the caller until it is put into a set.
    pub fn done(self) {
        self.state.0.store(self.generation, Release);
    }
}

/// A span that the caller has swept and owns.
#[derive(Clone, Copy, Debug)]
pub struct Swept {
    /// Its first page.
    pub page: PageId,
    /// Some of its slots can be handed out.
    pub has_free: bool,
}

/// The spans that the protocol is about, and what sweeping does to one.
pub trait Sweepable: Links {
    /// What a sweeper brings along, for the statistics.
    type Stats<'a>: Copy;

    /// Central lists that can hold spans.
    fn lists(&self) -> u32;
    /// A central list.
    fn list(&self, list: u32) -> &Central;
    /// Where the sweep generation of a span lies.
    fn sweepgen(&self, page: PageId) -> &SweepGen;
    /// Sweeps a span, and ends `sweeping`.
    fn sweep(&self, sweeping: Sweeping<'_>, stats: Self::Stats<'_>) -> Swept;
    /// Gives a span that was swept back; its pages.
    fn give_back(&self, swept: Swept, stats: Self::Stats<'_>) -> Pages;
}

/// How far the sweep of one heap has come.
///
/// - no span is unswept when `generation` grows
/// - `sweepers == 0` in a stopped world after [`Self::finish`]
pub struct SweepPhase {
    /// G: grows by 2 at the end of each mark phase, with the world stopped.
    generation: AtomicU32,
    /// Threads between the pop of an unswept span and its return, and those about to pop.
    sweepers: AtomicU32,
    /// Lists below this hold nothing unswept in this cycle.
    cursor: AtomicU32,
}

impl Default for SweepPhase {
    fn default() -> SweepPhase {
        SweepPhase { generation: AtomicU32::new(2), sweepers: AtomicU32::new(0), cursor: AtomicU32::new(0) }
    }
}

impl SweepPhase {
    /// G.
    #[inline(always)]
    pub fn generation(&self) -> u32 {
        self.generation.load(Relaxed)
    }

    /// Makes every swept span an unswept one. The world is stopped, the caches are flushed and nothing is unswept.
    pub fn advance(&self) {
        self.generation.store(self.generation().wrapping_add(2), Relaxed);
        self.cursor.store(0, Relaxed);
    }

    /// A swept span of the list with free slots, which the caller owns from here.
    pub fn take<S: Sweepable>(&self, spans: &S, list: u32, stats: S::Stats<'_>) -> Option<PageId> {
        let central = spans.list(list);
        let generation = self.generation();
        if let Some(page) = central.pop_partial(spans, generation) {
            return Some(page);
        }
        for _ in 0..TAKE_TRIES {
            let swept = self.sweep_unswept(spans, list, stats)?;
            if swept.has_free {
                return Some(swept.page);
            }
            central.put(spans, swept.page, false, generation);
        }
        None
    }

    /// Takes an unswept span of the list and sweeps it. The caller owns it.
    fn sweep_unswept<S: Sweepable>(&self, spans: &S, list: u32, stats: S::Stats<'_>) -> Option<Swept> {
        let central = spans.list(list);
        let generation = self.generation();
        if central.all_swept(generation) {
            return None;
        }
        self.sweepers.fetch_add(1, AcqRel);
        let swept = central.pop_unswept(spans, generation).map(|page| {
            let state = spans.sweepgen(page);
            match state.try_sweep(page, generation) {
                Some(sweeping) => spans.sweep(sweeping, stats),
                None => fatal(format_args!(
                    "sweep: span at page {} is in an unswept set, with sweepgen {} at generation {generation}",
                    page.0,
                    state.get(),
                )),
            }
        });
        self.sweepers.fetch_sub(1, AcqRel);
        swept
    }

    /// Sweeps one span of any list and gives it back; the pages that were swept. `None`: nothing is left to be
    /// swept, though somebody else may be sweeping still.
    pub fn sweep_one<S: Sweepable>(&self, spans: &S, stats: S::Stats<'_>) -> Option<Pages> {
        let lists = spans.lists();
        let mut list = self.cursor.load(Acquire);
        while list < lists {
            self.sweepers.fetch_add(1, AcqRel);
            let swept = self.sweep_unswept(spans, list, stats).map(|swept| spans.give_back(swept, stats));
            self.sweepers.fetch_sub(1, AcqRel);
            if swept.is_some() {
                return swept;
            }
            // Empty now is empty until G grows: unswept sets only shrink. Losing the race leaves a lower
            // cursor, which costs a look.
            let _ = self.cursor.compare_exchange(list, list + 1, Release, Relaxed);
            list += 1;
        }
        None
    }

    /// Sweeps all that is left, and waits for those who sweep something still; the pages that the caller swept.
    pub fn finish<S: Sweepable>(&self, spans: &S, stats: S::Stats<'_>) -> Pages {
        let mut pages = Pages(0);
        while let Some(swept) = self.sweep_one(spans, stats) {
            pages.0 += swept.0;
        }
        while self.sweepers.load(Acquire) != 0 {
            besom_stats::sync::yield_now();
        }
        pages
    }

    /// Whether no sweep of this cycle is going on, or to be done.
    pub fn is_done<S: Sweepable>(&self, spans: &S) -> bool {
        self.cursor.load(Acquire) >= spans.lists() && self.sweepers.load(Acquire) == 0
    }
}
