//! Objects with weak references, ephemerons, finalizers and cleanups, in histories in which cycles run at any moment: what can
//! be said for sure then.
//!
//! - what a thread holds is given by the weak references to it, and keeps the values of its ephemerons, whole
//! - what was let go is given whole, and may be held again, or it is dead; once dead, always dead
//! - a finalizer gets its object whole, as often as it was set, and after it was let go
//! - a cleanup that is not cancelled runs once, after that; one that is cancelled does not

use crate::c;
use crate::rng::{Rng, mix};
use besom::{HandleRef, Kind, Mutator};
use besom_stats::sync::raw::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::*};
use besom_stats::sync::{Mutex, lock};
use std::ffi::c_void;
use std::ptr::{with_exposed_provenance, with_exposed_provenance_mut};
use std::sync::Arc;

/// Mortals that a thread knows at a time.
const KNOWN_MOST: usize = 40;

/// What all threads know of one.
struct Mortal {
    id: u64,
    address: AtomicUsize,
    /// No thread holds it, and no ephemeron for the sake of what one holds.
    let_go: AtomicBool,
    /// How often its finalizer is to run yet.
    finalizers: AtomicU32,
    /// Cleanups that are to run yet.
    cleanups: AtomicU32,
}

/// All mortals of one heap: finalizers and cleanups lead here.
#[derive(Default)]
pub struct Mortals {
    all: Mutex<Vec<Arc<Mortal>>>,
    next: AtomicU64,
}

impl Mortals {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.next.load(Relaxed)
    }

    /// Nobody holds any, and nothing is due: all that was to run has run.
    pub fn are_settled(&self) {
        for mortal in std::mem::take(&mut *lock(&self.all)) {
            let left = (mortal.finalizers.load(Acquire), mortal.cleanups.load(Acquire));
            assert_eq!(left, (0, 0), "finalizers and cleanups of {:#x} that did not run", mortal.id);
        }
    }
}

/// Runs what is due, at most `at_most`; how many.
pub fn run_due(m: &Mutator<'_>, at_most: usize) -> usize {
    // SAFETY: the mutator is this thread's.
    unsafe { c::besom_finalizers_run(m.as_raw(), at_most) }
}

fn stamp(id: u64) -> u64 {
    0x7000_0000_0000_0001 | mix(id) >> 4 & !7
}

fn word(address: usize, at: usize) -> &'static AtomicU64 {
    // SAFETY: callers name words of objects that are alive.
    unsafe { AtomicU64::from_ptr(with_exposed_provenance_mut::<u64>(address).add(at)) }
}

impl Mortal {
    /// Compares the object, and what it leads to, with its number.
    fn check(&self, address: usize) {
        assert_eq!(address, self.address.load(Relaxed), "the object of {:#x}", self.id);
        let first = word(address, 0).load(Relaxed);
        assert_eq!(first, stamp(self.id), "the first word of {:#x} at {address:#x}", self.id);
        let child = word(address, 1).load(Relaxed) as usize;
        if child != 0 {
            assert_eq!(word(child, 0).load(Relaxed), stamp(!self.id), "what {:#x} leads to", self.id);
        }
    }
}

unsafe extern "C" fn finalizer(m: *mut c_void, object: *mut c_void, data: *mut c_void) {
    // SAFETY: a mortal that all of its heap keep until it has run.
    let mortal = unsafe { &*data.cast_const().cast::<Mortal>() };
    mortal.check(object.expose_provenance());
    assert!(mortal.let_go.load(Acquire), "{:#x} is held, and its finalizer runs", mortal.id);
    let left = mortal.finalizers.fetch_sub(1, AcqRel);
    assert!((1..10).contains(&left), "the finalizer of {:#x} runs again", mortal.id);
    if left > 1 {
        set_finalizer(m, mortal, object);
    }
}

unsafe extern "C" fn cleanup(arg: *mut c_void) {
    // SAFETY: as above.
    let mortal = unsafe { &*arg.cast_const().cast::<Mortal>() };
    assert!(mortal.let_go.load(Acquire), "{:#x} is held, and its cleanup runs", mortal.id);
    assert_eq!(mortal.finalizers.load(Acquire), 0, "{:#x} is gone before its finalizer ran", mortal.id);
    assert_eq!(mortal.cleanups.fetch_sub(1, AcqRel), 1, "cleanups of {:#x}", mortal.id);
}

fn set_finalizer(m: *mut c_void, mortal: &Mortal, object: *mut c_void) {
    let data = std::ptr::from_ref(mortal).cast_mut().cast();
    // SAFETY: the mutator is this thread's, the object alive.
    let status = unsafe { c::besom_finalizer_set(m, object, Some(finalizer), data) };
    assert_eq!(status, 0, "besom_finalizer_set");
}

/// An ephemeron whose key is another mortal.
struct OfKey<'h> {
    handle: HandleRef<'h>,
    value: Arc<Mortal>,
    closed: bool,
}

/// What one thread knows of one.
struct Known<'h> {
    mortal: Arc<Mortal>,
    handle: Option<HandleRef<'h>>,
    weak: usize,
    /// The weak reference gave nothing.
    dead: bool,
    cleanup: Option<u64>,
    ephemeron: Option<OfKey<'h>>,
}

/// What one thread knows.
pub struct Own<'r, 'h> {
    of: &'r Mortals,
    known: Vec<Known<'h>>,
}

impl<'r, 'h> Own<'r, 'h> {
    /// None yet.
    pub fn new(of: &'r Mortals) -> Own<'r, 'h> {
        Own { of, known: Vec::new() }
    }

    /// Does something to one of them.
    pub fn step(&mut self, m: &mut Mutator<'h>, rng: &mut Rng) {
        let at = rng.below(self.known.len());
        match rng.below(100) {
            0..25 => self.make(m, rng),
            25..40 if at < self.known.len() => self.known[at].let_go(),
            40..75 if at < self.known.len() => self.known[at].read(m, rng),
            75..80 if at < self.known.len() => self.known[at].cancel(m),
            80..90 if at < self.known.len() => self.add_ephemeron(m, rng, at),
            90..93 if at < self.known.len() => self.known[at].drop_ephemeron(),
            93..96 => self.forget(m, at),
            _ => _ = run_due(m, rng.below(20)),
        }
    }

    /// An object that a handle holds; `None`: memory is short.
    fn birth(&self, m: &mut Mutator<'h>, rng: &mut Rng) -> Option<(Arc<Mortal>, HandleRef<'h>)> {
        let object = m.alloc(16 + rng.below(100), Kind::Conservative)?.as_ptr();
        let handle = m.handle(object).expect("a handle");
        let (id, address) = (self.of.next.fetch_add(1, Relaxed), object.expose_provenance());
        word(address, 0).store(stamp(id), Relaxed);
        if let Some(child) = m.alloc(16, Kind::NoScan) {
            let child = child.as_ptr().expose_provenance();
            word(child, 0).store(stamp(!id), Relaxed);
            // SAFETY: a word of the object.
            unsafe { m.write(with_exposed_provenance(address), word(address, 1).as_ptr(), child as u64) };
        }
        let mortal = Arc::new(Mortal {
            id,
            address: AtomicUsize::new(address),
            let_go: AtomicBool::new(false),
            finalizers: AtomicU32::new(0),
            cleanups: AtomicU32::new(0),
        });
        lock(&self.of.all).push(mortal.clone());
        if rng.one_in(2) {
            mortal.finalizers.store(1 + u32::from(rng.one_in(4)), Release);
            set_finalizer(m.as_raw(), &mortal, with_exposed_provenance_mut(address));
        }
        Some((mortal, handle))
    }

    fn make(&mut self, m: &mut Mutator<'h>, rng: &mut Rng) {
        if self.known.len() == KNOWN_MOST {
            return self.forget(m, rng.below(KNOWN_MOST));
        }
        let Some((mortal, handle)) = self.birth(m, rng) else { return };
        let object = with_exposed_provenance_mut(mortal.address.load(Relaxed));
        // SAFETY: the mutator is this thread's, the object alive.
        let weak = unsafe { c::besom_weak_new(m.as_raw(), object) }.expose_provenance();
        assert!(weak != 0, "a weak reference");
        let cleanup = rng.one_in(2).then(|| {
            let (mut name, arg) = (0, Arc::as_ptr(&mortal).cast_mut().cast());
            mortal.cleanups.store(1, Release);
            // SAFETY: as above.
            let status = unsafe { c::besom_cleanup_add(m.as_raw(), object, cleanup, arg, &mut name) };
            assert_eq!(status, 0, "besom_cleanup_add");
            name
        });
        self.known.push(Known { mortal, handle: Some(handle), weak, dead: false, cleanup, ephemeron: None });
    }

    /// Gives one that is held an ephemeron, which alone holds its value.
    fn add_ephemeron(&mut self, m: &mut Mutator<'h>, rng: &mut Rng, at: usize) {
        if self.known[at].handle.is_none() || self.known[at].ephemeron.is_some() {
            return;
        }
        let Some((value, holds_value)) = self.birth(m, rng) else { return };
        let known = &mut self.known[at];
        let key = with_exposed_provenance_mut(known.mortal.address.load(Relaxed));
        // SAFETY: the mutator is this thread's; handles hold both.
        let ephemeron =
            unsafe { c::besom_ephemeron_new(m.as_raw(), key, holds_value.get().cast::<c_void>()) };
        if ephemeron.is_null() {
            value.let_go.store(true, Release);
            return;
        }
        let handle = m.handle(ephemeron.cast()).expect("a handle");
        drop(holds_value);
        known.ephemeron = Some(OfKey { handle, value, closed: false });
    }

    /// Forgets one, which lives on or dies.
    fn forget(&mut self, m: &Mutator<'h>, at: usize) {
        if at < self.known.len() {
            let mut known = self.known.swap_remove(at);
            known.let_go();
            // SAFETY: the heap lives, and nobody else uses it.
            unsafe { c::besom_weak_free(c::heap(m.heap()), with_exposed_provenance_mut(known.weak)) };
        }
    }

    /// Forgets all.
    pub fn forget_all(&mut self, m: &Mutator<'h>) {
        (0..self.known.len()).rev().for_each(|at| self.forget(m, at));
    }
}

impl<'h> Known<'h> {
    fn let_go(&mut self) {
        if let Some(of_key) = &self.ephemeron {
            of_key.value.let_go.store(true, Release);
        }
        if let Some(handle) = self.handle.take() {
            self.mortal.let_go.store(true, Release);
            drop(handle);
        }
    }

    fn drop_ephemeron(&mut self) {
        if let Some(of_key) = self.ephemeron.take() {
            of_key.value.let_go.store(true, Release);
        }
    }

    /// Looks at the weak reference and the ephemeron; what was let go is held again, now and then.
    fn read(&mut self, m: &mut Mutator<'h>, rng: &mut Rng) {
        let keyed = self.read_ephemeron(m, rng.one_in(2));
        // SAFETY: the mutator is this thread's, the weak reference live.
        let object = unsafe { c::besom_weak_get(m.as_raw(), with_exposed_provenance_mut(self.weak)) };
        let found = object.expose_provenance();
        // No safepoint came between.
        assert!(keyed.is_none_or(|alive| alive == (found != 0)), "{:#x} is dead for some", self.mortal.id);
        if found == 0 {
            assert!(self.handle.is_none(), "a weak reference to {:#x}, which is held", self.mortal.id);
            self.dead = true;
            return;
        }
        assert!(!self.dead, "{:#x} was dead", self.mortal.id);
        self.mortal.check(found);
        if self.handle.is_none() && rng.one_in(2) {
            self.mortal.let_go.store(false, Release);
            self.handle = Some(m.handle(object.cast()).expect("a handle"));
        }
    }

    /// Whether the ephemeron has its key still, if there is one.
    fn read_ephemeron(&mut self, m: &Mutator<'h>, value_first: bool) -> Option<bool> {
        let of_key = self.ephemeron.as_mut()?;
        let ephemeron = of_key.handle.get().cast::<c_void>();
        // SAFETY: the mutator is this thread's; the handle holds the ephemeron.
        let key = || unsafe { c::besom_ephemeron_key(m.as_raw(), ephemeron) }.expose_provenance();
        // SAFETY: as above.
        let value = || unsafe { c::besom_ephemeron_value(m.as_raw(), ephemeron) }.expose_provenance();
        let (key, value) = if value_first {
            let value = value();
            (key(), value)
        } else {
            (key(), value())
        };
        assert_eq!(key == 0, value == 0, "key and value live together");
        if key == 0 {
            assert!(self.handle.is_none(), "an ephemeron of {:#x}, which is held", self.mortal.id);
            of_key.closed = true;
            return Some(false);
        }
        assert!(!of_key.closed, "an ephemeron of {:#x} was closed", self.mortal.id);
        self.mortal.check(key);
        of_key.value.check(value);
        Some(true)
    }

    fn cancel(&mut self, m: &Mutator<'h>) {
        let Some(name) = self.cleanup.take() else { return };
        // SAFETY: the heap lives.
        let cancel = || unsafe { c::besom_cleanup_cancel(c::heap(m.heap()), name) };
        match cancel() {
            1 => {
                assert_eq!(self.mortal.cleanups.fetch_sub(1, AcqRel), 1, "it ran, and was cancelled");
                assert_eq!(cancel(), 0, "it is cancelled");
            }
            _ => assert!(self.handle.is_none(), "{:#x} is held, and its cleanup due", self.mortal.id),
        }
    }
}
