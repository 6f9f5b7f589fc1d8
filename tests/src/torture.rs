//! The ground on which barriers are tortured: what all threads share, and the places where an object can be held.
//!
//! Each object is held in one place, and threads move it to others, as fast as they can while cycles run. Some places are
//! looked at early in a cycle, others late: behind a long list, at the end of a large range, after many handles. So a store
//! that does not hand in what it overwrites, in a late place, loses it to an early one, or to a stack. And some objects are
//! left for a while where nothing keeps them, in weak references and the like: those are dead when a cycle has come between,
//! and others take their places.

mod mover;
mod places;
mod weakly;

pub use mover::Mover;

use crate::c;
use crate::rng::mix;
use besom::{Encoding, HandleRef, Heap, Kind, Mutator, Tracer};
use besom_stats::sync::raw::{AtomicBool, AtomicU64, Ordering::*};
use besom_stats::sync::{Mutex, lock};
use std::ffi::{c_int, c_void};

/// A barrier that is left out, for a run that must be caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omit {
    /// None is.
    Nothing,
    /// Of stores into objects.
    Write,
    /// Of copies into objects.
    Copy,
    /// Of stores into a range.
    Range,
    /// Of a range's removal.
    Remove,
    /// Of giving a handle another object.
    HandleSet,
    /// Of freeing a handle.
    HandleFree,
    /// Of freeing a handle on a thread that is not attached.
    HandleFreeElsewhere,
    /// Of a slot in which an object is in a form that only the trace function knows: it is shown to no store.
    Hidden,
    /// Of taking an object out of a slot in which another thread left it.
    Hub,
    /// Of taking an object out of a weak reference, which may be the only thing that names it.
    WeakGet,
    /// Of an ephemeron's key, likewise.
    EphemeronKey,
    /// Of its value.
    EphemeronValue,
}

/// All that can be left out, with their names.
///
/// What comes out of a weak reference, an ephemeron or the due queue the library hands in itself, and a read without that is
/// also one without a look whether the object is dead. So these were left out in the library, too, one at a time, and found:
/// the hand-in of `besom_weak_get` (4 of 4 runs, within 1 s), of `besom_ephemeron_key` (5 of 5, 7 s) and `_value` (4 of 4, 11
/// s), and of what a finalizer gets (6 of 6, 5 s); the look of each of the first three (4, 4 and 3 runs, all, within 11 s).
pub const OMISSIONS: [(&str, Omit); 12] = [
    ("write", Omit::Write),
    ("copy", Omit::Copy),
    ("range", Omit::Range),
    ("remove", Omit::Remove),
    ("handle-set", Omit::HandleSet),
    ("handle-free", Omit::HandleFree),
    ("handle-free-elsewhere", Omit::HandleFreeElsewhere),
    ("hidden", Omit::Hidden),
    ("hub", Omit::Hub),
    ("weak-get", Omit::WeakGet),
    ("ephemeron-key", Omit::EphemeronKey),
    ("ephemeron-value", Omit::EphemeronValue),
];

/// Threads that move objects, at most.
pub const MOVERS: usize = 4;
/// Words of the range before those that movers use.
const RANGE: usize = 1 << 18;
/// Words of the range, of a range of its own, and of the stack, that a mover uses.
const PART: usize = 32;
/// Slots in which movers leave objects to each other.
const HUB: usize = 48;
/// Objects of the list that leads to what is found late.
const LIST: usize = 20_000;
/// Handles before those that movers use.
const HANDLES: usize = 30_000;
/// Late arrays of each mover.
const LATE: usize = 3;

/// An object that is moved; it leads to another one.
#[derive(Clone, Copy, Debug)]
struct Token {
    address: usize,
    id: u64,
}

/// What a place holds: an object, or a box with it.
#[derive(Clone, Copy, Debug)]
struct Content {
    token: Token,
    boxed: usize,
}

impl Content {
    fn held(&self) -> usize {
        if self.boxed == 0 { self.token.address } else { self.boxed }
    }
}

/// What the first word of an object says that has this number: no pointer in any encoding.
fn stamp(id: u64) -> u64 {
    0x7000_0000_0000_0001 | mix(id) >> 4 & !7
}

/// Word `at` of an object, a range or a handle.
fn word(address: usize, at: usize) -> &'static AtomicU64 {
    let at = std::ptr::with_exposed_provenance_mut::<u64>(address).wrapping_add(at);
    // SAFETY: callers name words that are mapped as long as the heap or the ground lives, which they do not outlive.
    unsafe { AtomicU64::from_ptr(at) }
}

/// Hides an address from everybody but the trace function; nothing stays nothing. And shows it again.
fn hide(address: usize) -> usize {
    if address == 0 { 0 } else { address ^ 0x5a5a_0000_0000_a5a0 }
}

/// The trace function: a count, and so many hidden pointers.
///
/// # Safety
/// Called by the collector only.
pub unsafe extern "C" fn trace(tracer: *mut Tracer<'_>, object: *mut c_void, _: *mut c_void) {
    let address = object.expose_provenance();
    for at in 1..=word(address, 0).load(Acquire) as usize {
        let edge = hide(word(address, at).load(Acquire) as usize);
        // SAFETY: the collector's promise.
        unsafe { (*tracer).trace(std::ptr::without_provenance(edge)) };
    }
}

/// What movers share.
pub struct Ground<'h> {
    heap: &'h Heap,
    encoding: Encoding,
    omit: Omit,
    /// Locals are roots: an object may be nowhere else for a while.
    native: bool,
    layout: u32,
    /// The range of all, and then one for each mover.
    words: Box<[AtomicU64]>,
    /// What is found late: the array behind the list, and in it the hub.
    late: usize,
    hub: usize,
    left: Mutex<Vec<Option<Content>>>,
    _list: HandleRef<'h>,
    _handles: Vec<HandleRef<'h>>,
    /// Handles for the thread that is not attached.
    to_free: Mutex<Vec<usize>>,
    /// What is left to finalizers, by their notes.
    finalizers: Mutex<Vec<Option<Content>>>,
    /// Objects that were made.
    made: AtomicU64,
    /// And of these those that were found dead.
    pub dead: AtomicU64,
    /// Movers end.
    pub over: AtomicBool,
    /// Stores of an object in another place.
    pub moves: AtomicU64,
    /// Objects that came out of weak references and ephemerons.
    pub taken_back: AtomicU64,
    /// Objects that finalizers got.
    pub finalized: AtomicU64,
}

impl<'h> Ground<'h> {
    /// A ground on a heap with this encoding, and with [`trace`].
    pub fn new(m: &mut Mutator<'h>, encoding: Encoding, native: bool, omit: Omit) -> Ground<'h> {
        let heap = m.heap();
        let alloc = |m: &mut Mutator<'h>, words: usize| {
            let object = m.alloc(words * 8, Kind::Values).expect("memory").as_ptr();
            (object.expose_provenance(), m.handle(object).expect("a handle"))
        };
        let encode = |address: usize| address as u64 | encoding.tag;
        let (late, list) = alloc(m, 1 + MOVERS * LATE);
        let (hub, hub_handle) = alloc(m, HUB);
        // SAFETY: a word of the array.
        unsafe { m.write(list.get(), word(late, MOVERS * LATE).as_ptr(), encode(hub)) };
        drop(hub_handle);
        for _ in 0..LIST {
            let node = m.alloc(32, Kind::Values).expect("memory").as_ptr();
            word(node.expose_provenance(), 1).store(encode(list.get().addr()), Relaxed);
            list.set(node);
        }
        let handles = (0..HANDLES).map(|_| m.handle(list.get()).expect("a handle")).collect();
        let words: Box<[AtomicU64]> =
            (0..RANGE + 2 * MOVERS * PART).map(|_| AtomicU64::new(encode(list.get().addr()))).collect();
        words[RANGE..].iter().for_each(|word| word.store(encode(0), Relaxed));
        let ground = Ground {
            heap,
            encoding,
            omit,
            native,
            layout: heap.register_layout(8, &[0]).expect("a layout"),
            words,
            late,
            hub,
            left: Mutex::new(vec![None; HUB]),
            _list: list,
            _handles: handles,
            to_free: Mutex::new(Vec::new()),
            finalizers: Mutex::new(Vec::new()),
            made: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            over: AtomicBool::new(false),
            moves: AtomicU64::new(0),
            taken_back: AtomicU64::new(0),
            finalized: AtomicU64::new(0),
        };
        ground.add_range(0, RANGE + MOVERS * PART);
        ground
    }

    fn start(&self, at: usize) -> *mut c_void {
        self.words[at].as_ptr().cast()
    }

    fn add_range(&self, at: usize, words: usize) {
        // SAFETY: the words live until the ranges are removed.
        let status =
            unsafe { c::besom_roots_add(c::heap(self.heap), self.start(at), words, Kind::Values as c_int) };
        assert_eq!(status, 0, "besom_roots_add");
    }

    fn remove_range(&self, at: usize) {
        // SAFETY: the heap lives.
        let status = unsafe { c::besom_roots_remove(c::heap(self.heap), self.start(at)) };
        assert_eq!(status, 0, "besom_roots_remove");
    }

    fn encode(&self, address: usize) -> u64 {
        address as u64 | self.encoding.tag
    }

    fn decode(&self, word: u64) -> usize {
        (word & self.encoding.address) as usize
    }

    /// Whether objects are left where nothing keeps them. One that is lost is found out a cycle later if it lies behind such a
    /// one, so for the sake of the other barriers' controls they are not.
    fn leaves_weakly(&self) -> bool {
        matches!(self.omit, Omit::Nothing | Omit::WeakGet | Omit::EphemeronKey | Omit::EphemeronValue)
    }

    /// Whether movers go on.
    fn goes_on(&self) -> bool {
        !self.over.load(Relaxed)
    }

    fn free_handle(&self, handle: usize, omit: Omit) {
        if self.omit == omit {
            // The object is the first word.
            word(handle, 0).store(0, Relaxed);
        }
        // SAFETY: the handle is live, and nobody else's.
        unsafe { c::besom_handle_free(c::heap(self.heap), std::ptr::with_exposed_provenance_mut(handle)) };
    }

    /// Frees handles that movers have done with, on a thread that is not attached.
    pub fn free_handles(&self) {
        loop {
            let goes_on = self.goes_on();
            let handles = std::mem::take(&mut *lock(&self.to_free));
            if handles.is_empty() && !goes_on {
                return;
            }
            handles.into_iter().for_each(|handle| self.free_handle(handle, Omit::HandleFreeElsewhere));
            std::thread::yield_now();
        }
    }

    /// An object that nothing keeps is dead, or as good as that: movers make another one.
    fn count_dead(&self) {
        self.dead.fetch_add(1, Relaxed);
    }

    /// Runs the finalizers of all that was left to them, when movers are done: each comes.
    pub fn finalize(&self, m: &mut Mutator<'h>) {
        m.collect();
        while weakly::run_finalizer(self, m).is_some() {}
        let left = lock(&self.finalizers).iter().flatten().count();
        // What lies on a native stack may keep one.
        assert!(left == 0 || self.native, "{left} finalizers did not run");
    }

    /// Compares an object, and what it leads to, with its number.
    fn check(&self, token: Token) {
        let first = word(token.address, 0).load(Relaxed);
        assert!(first == stamp(token.id), "{token:x?}: its first word is {first:#x}");
        let child = self.decode(word(token.address, 1).load(Relaxed));
        if child != 0 {
            let first = word(child, 0).load(Relaxed);
            assert!(first == stamp(!token.id), "{token:x?}: the first word of {child:#x} is {first:#x}");
        }
    }
}

impl Drop for Ground<'_> {
    fn drop(&mut self) {
        self.remove_range(0);
    }
}
