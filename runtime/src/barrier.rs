//! A mutator's part in marking beside the program: it hands in what it overwrites, scans its own roots, and assists.
//!
//! The barrier is Yuasa's: what is reachable when marking begins is a snapshot that is kept whole, and a store hands in
//! what it overwrites, since that may be the last way to a part of it. New objects are born black, so that what is stored
//! needs no barrier. (Collector pages of others hand in both, since their threads' roots are scanned one after the other
//! while others run; here no thread runs between the start of marking and the scan of its own roots.)

use crate::heap::Heap;
use crate::mutator::{ATTACHED, COLLECTING, Mutator, SCANNING};
use crate::scheduler::Seat;
use crate::status::Result;
use besom_alloc_core::units::Bytes;
use besom_gc::timeline::Kind;
use besom_gc::{Cause, Phase, Visitor};
use besom_stats::race_detector::release;
use besom_stats::sync::raw::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Bytes that an assist marks at least, in advance if it owes less. Higher: an assist is longer. Lower: each costs some
/// microseconds beside what it marks.
const ASSIST_LEAST: i64 = 4 << 10;
/// The part of a greater debt that an assist pays. Higher: the background pays for more of it meanwhile, and a mutator that must pay all
/// pays more often. Lower: an assist is longer.
const ASSIST_PART: i64 = 4;
/// Bytes that a mutator marks at a time which must wait for the end of the cycle. Higher: stops wait for it for longer. Lower:
/// each costs some microseconds beside what it marks.
const HELP: i64 = 32 << 10;
/// Bytes of debt that a mutator may have when nothing is to be found to mark. Higher: the heap may outgrow its goal by
/// more. Lower: mutators wait for the last objects to be marked.
const DEBT_MOST: i64 = 256 << 10;
/// How long a mutator waits that cannot pay, before it looks again.
const WAIT: Duration = Duration::from_micros(200);

/// What a store has to do beside storing; the numbers are known to `besom.h`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Stores {
    Free = 0,
    /// While objects are marked: what it overwrites is handed in, if it is anything.
    HandIn = 1,
    /// All go through the library: their objects are checked; or a race detector is not to see them beside the VM's trace function.
    Call = 2,
}

impl Heap {
    /// The mutator is about to overwrite `word`, which is a pointer or a value, or has got hold of an object in a way that is
    /// no edge: while objects are marked, it is kept.
    ///
    /// # Safety
    /// `m` must be the calling thread's, attached and not blocked.
    #[inline]
    pub(crate) unsafe fn shade(&self, m: *mut Mutator, word: usize) {
        if self.collector.phase() != Phase::Marking {
            return;
        }
        // SAFETY: the caller's promise.
        unsafe {
            self.keep(m, word);
            if let Some(address) = self.decoded(word) {
                self.keep(m, address);
            }
        }
    }

    /// The address in a word of the VM's encoding, if that is another one than the word.
    fn decoded(&self, word: usize) -> Option<usize> {
        let encoding = &self.options.encoding;
        let word = word as u64;
        let address = word & encoding.address;
        (word & encoding.mask == encoding.tag && address != word).then_some(address as usize)
    }

    /// # Safety
    /// As for [`Self::shade`].
    unsafe fn keep(&self, m: *mut Mutator, word: usize) {
        if self.spans.tables().offset_of(word).is_none() {
            return;
        }
        // SAFETY: the caller's promise.
        unsafe {
            if (*m).overwritten.keep(word) {
                self.hand_in(m);
            }
        }
    }

    /// Marks what the mutator has overwritten since it did so last.
    ///
    /// # Safety
    /// As for [`Self::shade`].
    #[inline]
    pub(crate) unsafe fn hand_in(&self, m: *mut Mutator) {
        // SAFETY: the caller's promise.
        unsafe {
            if !(*m).overwritten.is_empty() {
                self.hand_in_some(m);
            }
        }
    }

    /// # Safety
    /// As for [`Self::shade`].
    #[inline(never)]
    unsafe fn hand_in_some(&self, m: *mut Mutator) {
        // SAFETY: the caller's promise.
        let kept = unsafe { &mut (*m).overwritten };
        // They may lie anywhere.
        let offsets = kept.words().iter().filter_map(|word| self.spans.tables().offset_of(*word));
        offsets.for_each(|offset| self.spans.tables().prefetch_for(offset));
        self.as_guest(|visitor| kept.hand_in(|word| visitor.any(word)));
    }

    /// Marks what a range of words, which is about to be overwritten, leads to.
    ///
    /// # Safety
    /// As for [`Self::shade`]; the words must be readable.
    pub(crate) unsafe fn shade_range(&self, start: *const usize, words: usize) {
        if self.collector.phase() != Phase::Marking {
            return;
        }
        // SAFETY: the caller's promise.
        self.as_guest(|visitor| unsafe { self.visit_any(start, words, visitor) });
    }

    /// Frees a handle; from any thread.
    pub(crate) fn remove_handle(&self, address: usize) {
        self.handles.remove(address, |object| self.as_guest(|visitor| visitor.any(object)));
    }

    /// Gives a handle another object; from any thread.
    pub(crate) fn set_handle(&self, address: usize, object: usize) {
        self.handles.replace(address, object, |before| self.as_guest(|visitor| visitor.any(before)));
    }

    /// Removes a root range; from any thread.
    pub(crate) fn remove_roots(&self, start: usize) -> Result<()> {
        self.roots.remove(start, &self.spans.system().other, |words, count| {
            // SAFETY: the program's promise: readable until the range is removed.
            self.as_guest(|visitor| unsafe { self.visit_any(words, count, visitor) });
        })
    }

    /// # Safety
    /// The words must be readable.
    unsafe fn visit_any(&self, start: *const usize, words: usize, visitor: &mut dyn Visitor) {
        for i in 0..words {
            // SAFETY: the caller's promise.
            let word = unsafe { AtomicUsize::from_ptr(start.add(i).cast_mut()) }.load(Relaxed);
            visitor.any(word);
            if let Some(address) = self.decoded(word) {
                visitor.any(address);
            }
        }
    }

    /// Shows `f` a visitor that marks.
    pub(crate) fn as_guest<R>(&self, f: impl FnOnce(&mut dyn Visitor) -> R) -> R {
        self.collector.marker().guest(&self.spans, self.collector.shapes(), f)
    }

    /// Scans the mutator's own roots, if a cycle waits for that: before it runs on after a stop.
    ///
    /// # Safety
    /// `m` must be the calling thread's, attached or still counted as blocked, with its registers captured.
    #[inline]
    pub(crate) unsafe fn scan_own_roots(&self, m: *mut Mutator) {
        // SAFETY: the caller's promise.
        unsafe {
            if self.collector.phase() == Phase::Marking && !Mutator::scan(m).is_black() {
                self.scan_roots_of(m);
            }
        }
    }

    /// # Safety
    /// As for [`Self::scan_own_roots`].
    #[cold]
    unsafe fn scan_roots_of(&self, m: *mut Mutator) {
        let began = self.collector.timeline().begin();
        // SAFETY: the caller's promise.
        unsafe {
            if !Mutator::scan(m).claim() {
                return Mutator::scan(m).wait();
            }
            let state = Mutator::state(m);
            // The VM's trace functions are called, and must not call back.
            let inside = if state == ATTACHED { COLLECTING } else { SCANNING };
            Mutator::set_state(m, inside);
            let bytes = self.as_guest(|visitor| (*m).visit_roots(visitor));
            Mutator::set_state(m, state);
            Mutator::scan(m).set_black();
            self.collector.marker().reports().scanned_roots(bytes);
            self.collector.timeline().end(began, Kind::OwnRoots, [bytes.0 as u64, 0, 0, 0]);
        }
    }

    /// The mutator runs again, on the P that it had: what a cycle wants of it first.
    ///
    /// # Safety
    /// As for [`Self::scan_own_roots`].
    pub(crate) unsafe fn come_back(&self, m: *mut Mutator) {
        // SAFETY: the caller's promise.
        unsafe {
            (*(*m).p).check_generation(self.context());
            self.scan_own_roots(m);
        }
    }

    /// Waits for a moment; stops do not wait for the mutator meanwhile, and the end of one ends it.
    ///
    /// # Safety
    /// As for [`Self::collect`].
    unsafe fn rest(&self, m: *mut Mutator) {
        let began = Instant::now();
        // SAFETY: the caller's promise.
        unsafe {
            self.hand_in(m);
            // A stop meanwhile takes what this thread has refilled, and another is given it.
            release(self);
            self.scheduler.rest(Seat((*m).seat), WAIT);
            self.come_back(m);
        }
        self.collector.marker().reports().waited(began.elapsed().as_nanos() as u64);
    }

    /// Has a cycle begin before `bytes` more are allocated: beside the program, soon, and if they would pass the goal, before
    /// the caller goes on; else now.
    ///
    /// # Safety
    /// As for [`Self::collect`].
    pub(crate) unsafe fn collect_soon(&self, m: *mut Mutator, bytes: i64) {
        if !self.collector.is_concurrent() || !self.driver.wake(self, bytes) {
            // SAFETY: the caller's promise.
            return unsafe { self.collect(m, Cause::Pace) };
        }
        let collector = &self.collector;
        let cycles = collector.cycles().0;
        // Not for a second cycle: if one does not help, the goal is too low for what is to be allocated.
        let waits = || {
            collector.is_due(bytes)
                && collector.pacer().is_past_goal(bytes)
                && collector.cycles().0 == cycles
                && self.driver.wake(self, bytes)
        };
        if waits() {
            self.waiting(Kind::WaitForCycle, || {
                while waits() {
                    // SAFETY: as above.
                    unsafe { self.rest(m) };
                }
            });
        }
    }

    /// Before `bytes` more than those owed are allocated: pays what the mutator owes to marking, in work, or out of what the
    /// background has done. If so much is allocated that it must wait for the end of the cycle, helps until then; the P may be
    /// another afterwards.
    ///
    /// # Safety
    /// As for [`Self::collect`].
    #[inline]
    pub(crate) unsafe fn assist(&self, m: *mut Mutator, bytes: i64) {
        // SAFETY: the caller's promise.
        unsafe {
            // What was paid in advance may last for megabytes where little is left to be marked.
            let waits = self.collector.must_wait(bytes);
            if waits || (*(*m).p).debt() > 0 && !self.collector.pacer().limiter().limiting() {
                self.pay_debt(m, bytes);
            }
        }
    }

    /// # Safety
    /// As for [`Self::collect`].
    #[cold]
    unsafe fn pay_debt(&self, m: *mut Mutator, bytes: i64) {
        let reports = self.collector.marker().reports();
        let (began, shown) = (Instant::now(), self.collector.timeline().begin());
        let (mut marked, mut now) = (0, began);
        let cycles = self.collector.cycles().0;
        // SAFETY: the caller's promise; the P is looked up anew after each safepoint.
        unsafe {
            loop {
                // What finalizers get is marked while nobody owes anything; mutators may have to wait for its end.
                let marks = match self.collector.phase() {
                    Phase::Idle => break,
                    // If one cycle does not help, too much is to be allocated.
                    _ if self.collector.cycles().0 != cycles
                        || self.collector.pacer().limiter().limiting() =>
                    {
                        break;
                    }
                    Phase::Marking => true,
                    Phase::Resolving => false,
                };
                let debt = (*(*m).p).debt();
                (*(*m).p).pay(reports.take_credit(Bytes(debt.max(0) as usize)).0 as i64);
                let debt = (*(*m).p).debt();
                let waits = self.collector.must_wait(bytes);
                if !(marks && debt > 0 || waits) {
                    break;
                }
                let work = if waits { HELP } else { (debt / ASSIST_PART).max(ASSIST_LEAST) };
                let done = self.assist_with(m, work);
                (*(*m).p).pay(done);
                if done != 0 {
                    marked += done;
                    let since = std::mem::replace(&mut now, Instant::now());
                    // At once: the limiter looks at it while this goes on.
                    reports.assisted((now - since).as_nanos() as u64);
                }
                if waits && Mutator::polled(m) {
                    self.safepoint(m);
                } else if done == 0 && (waits || (*(*m).p).debt() > DEBT_MOST) {
                    self.rest(m);
                } else if !waits {
                    break;
                }
                // What was waited is no assist's.
                now = Instant::now();
            }
        }
        if marked != 0 {
            self.collector.measures().assisted(now - began);
            self.collector.timeline().end(shown, Kind::MarkAssist, [marked as u64, 0, 0, 0]);
        }
    }

    /// # Safety
    /// As for [`Self::collect`].
    unsafe fn assist_with(&self, m: *mut Mutator, work: i64) -> i64 {
        // SAFETY: the caller's promise.
        unsafe {
            // The VM's trace functions are called, and must not call back.
            Mutator::set_state(m, COLLECTING);
            let shapes = self.collector.shapes();
            let done = self.collector.marker().assist(&self.spans, shapes, Bytes(work as usize));
            Mutator::set_state(m, ATTACHED);
            done.0 as i64
        }
    }
}
