//! The places of one mover, and the one store into each that is right.

use super::{Content, Ground, LATE, MOVERS, Omit, PART, RANGE, hide, word};
use crate::c;
use crate::rng::Rng;
use besom::{HandleRef, Kind, Mutator};
use besom_stats::sync::lock;
use besom_stats::sync::raw::{AtomicU64, Ordering::*};
use std::ffi::{c_int, c_void};

/// Slots of an array in which objects are held: its last ones.
pub(super) const SLOTS: usize = 48;
/// Handles of a mover.
const HANDLES: usize = 16;

/// A place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A slot of an array.
    Array(usize, usize),
    /// A word of the range of all.
    Range(usize),
    /// A word of a range of the mover's own, which it removes now and then.
    Own(usize),
    /// A word of the mover's stack.
    Stack(usize),
    /// A handle.
    Handle(usize),
}

/// In what form the slots of an array hold pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    /// The heap's encoding.
    Encoded,
    /// What only the trace function knows.
    Hidden,
}

impl Form {
    pub fn value(self, ground: &Ground<'_>, address: usize) -> u64 {
        match self {
            Form::Plain => address as u64,
            Form::Encoded => ground.encode(address),
            Form::Hidden => hide(address) as u64,
        }
    }

    fn address(self, ground: &Ground<'_>, value: u64) -> usize {
        match self {
            Form::Plain => value as usize,
            Form::Encoded => ground.decode(value),
            Form::Hidden => hide(value as usize),
        }
    }
}

pub(super) struct Array {
    pub address: usize,
    /// The first slot's word.
    pub first: usize,
    form: Form,
    _early: Option<HandleRef<'static>>,
}

pub(super) struct Places {
    /// The mover.
    number: usize,
    pub arrays: Vec<Array>,
    pub held: Vec<[Option<Content>; SLOTS]>,
    range: [Option<Content>; PART],
    pub own: [Option<Content>; PART],
    stack: [Option<Content>; PART],
    handles: [(usize, Option<Content>); HANDLES],
    words: Box<[AtomicU64]>,
    top: Box<AtomicU64>,
}

impl Places {
    /// No object yet. Arrays are made of each kind, some early and some late.
    pub fn new<'h>(ground: &Ground<'h>, m: &mut Mutator<'h>, number: usize) -> Places {
        let words: Box<[AtomicU64]> = (0..PART).map(|_| AtomicU64::new(0)).collect();
        let end = words.as_ptr().wrapping_add(PART).expose_provenance() as u64;
        let mut places = Places {
            number,
            arrays: Vec::new(),
            held: Vec::new(),
            range: [None; PART],
            own: [None; PART],
            stack: [None; PART],
            handles: [(0, None); HANDLES],
            words,
            top: Box::new(AtomicU64::new(end)),
        };
        // Words, in what kind; none is a layout's.
        for (n, (words, kind, form)) in [
            (SLOTS, Some(Kind::Values), Form::Encoded),
            (SLOTS, Some(Kind::Conservative), Form::Plain),
            (SLOTS, None, Form::Plain),
            (40_000, Some(Kind::Values), Form::Encoded),
            (SLOTS + 1, Some(Kind::Traced), Form::Hidden),
        ]
        .into_iter()
        .enumerate()
        {
            let object = match kind {
                Some(kind) => m.alloc(words * 8, kind),
                None => m.new_array(ground.layout, words).expect("a layout"),
            };
            let object = object.expect("memory").as_ptr();
            let address = object.expose_provenance();
            let first = words - SLOTS;
            if kind == Some(Kind::Traced) {
                word(address, 0).store(SLOTS as u64, Relaxed);
            }
            let late = n.checked_sub(5 - LATE).map(|n| word(ground.late, number * LATE + n));
            let early = if let Some(slot) = late {
                let holder = std::ptr::with_exposed_provenance::<u8>(ground.late);
                // SAFETY: a slot of the array, which is this mover's.
                unsafe { m.write(holder, slot.as_ptr(), ground.encode(address)) };
                None
            } else {
                let handle = m.handle(object).expect("a handle");
                // SAFETY: the handle is dropped with the mover, which the heap outlives.
                Some(unsafe { std::mem::transmute::<HandleRef<'h>, HandleRef<'static>>(handle) })
            };
            places.arrays.push(Array { address, first, form, _early: early });
            places.held.push([None; SLOTS]);
        }
        ground.add_range(places.own_word(0), PART);
        places
    }

    /// The stack is the mutator's, which was just attached.
    pub fn attach(&self, m: &Mutator<'_>) {
        let base = self.words.as_ptr().cast_mut().cast::<c_void>();
        // SAFETY: the stack lives until the mutator is gone; the thread is the mutator's.
        let status = unsafe {
            c::besom_stack_set(m.as_raw(), base, self.top.as_ptr().cast(), Kind::Conservative as c_int)
        };
        assert_eq!(status, 0, "besom_stack_set");
    }

    /// Removes what the heap knows of.
    pub fn leave(&mut self, ground: &Ground<'_>) {
        ground.remove_range(self.own_word(0));
        for (handle, _) in self.handles.iter().filter(|(handle, _)| *handle != 0) {
            ground.free_handle(*handle, Omit::HandleFree);
        }
    }

    /// Where in the ground's words the mover's own range lies.
    pub fn own_word(&self, at: usize) -> usize {
        RANGE + (MOVERS + self.number) * PART + at
    }

    pub fn any(&self, rng: &mut Rng) -> Place {
        match rng.below(8) {
            0..3 => Place::Array(rng.below(self.arrays.len()), rng.below(SLOTS)),
            3 => Place::Range(rng.below(PART)),
            4 => Place::Own(rng.below(PART)),
            5 | 6 => Place::Stack(rng.below(PART)),
            _ => Place::Handle(rng.below(HANDLES)),
        }
    }

    /// A place that holds something, or nothing, as asked for; `None`: not found at once.
    pub fn find(&self, rng: &mut Rng, full: bool) -> Option<Place> {
        (0..16).map(|_| self.any(rng)).find(|&place| self.content(place).is_some() == full)
    }

    pub fn content(&self, place: Place) -> Option<Content> {
        match place {
            Place::Array(n, at) => self.held[n][at],
            Place::Range(at) => self.range[at],
            Place::Own(at) => self.own[at],
            Place::Stack(at) => self.stack[at],
            Place::Handle(at) => self.handles[at].1,
        }
    }

    /// What a place holds, as it stands there.
    pub fn load(&self, ground: &Ground<'_>, m: &Mutator<'_>, place: Place) -> Option<Content> {
        let content = self.content(place);
        let (n, found) = match place {
            Place::Array(n, at) => {
                let array = &self.arrays[n];
                let word = word(array.address, array.first + at).load(Relaxed);
                (n, array.form.address(ground, word))
            }
            Place::Range(at) => (0, ground.decode(ground.words[self.range_word(at)].load(Relaxed))),
            Place::Own(at) => (0, ground.decode(ground.words[self.own_word(at)].load(Relaxed))),
            Place::Stack(at) => (0, self.words[at].load(Relaxed) as usize),
            Place::Handle(at) => match self.handles[at].0 {
                0 => (0, 0),
                handle => {
                    let handle = std::ptr::with_exposed_provenance_mut(handle);
                    // SAFETY: the handle is live, and the thread is the mutator's.
                    (0, unsafe { c::besom_handle_get(m.as_raw(), handle) }.addr())
                }
            },
        };
        let expected = content.map_or(0, |content| content.held());
        assert!(found == expected, "{place:?} (array {n}) holds {found:#x}, not {expected:#x}");
        content
    }

    fn range_word(&self, at: usize) -> usize {
        RANGE + self.number * PART + at
    }

    /// Has a place hold something else. What it held is held elsewhere already, or by nobody else than the caller.
    pub fn store(
        &mut self,
        ground: &Ground<'_>,
        m: &mut Mutator<'_>,
        place: Place,
        content: Option<Content>,
        choice: u64,
    ) {
        let address = content.map_or(0, |content| content.held());
        match place {
            Place::Array(n, at) => {
                self.held[n][at] = content;
                let array = &self.arrays[n];
                let value = array.form.value(ground, address);
                self.show(ground, m, n, at);
                write(ground, m, array.address, array.first + at, value, Omit::Write);
            }
            Place::Range(at) => {
                self.range[at] = content;
                write_range_word(ground, m, self.range_word(at), address);
            }
            Place::Own(at) => {
                self.own[at] = content;
                write_range_word(ground, m, self.own_word(at), address);
            }
            Place::Stack(at) => {
                self.stack[at] = content;
                self.words[at].store(address as u64, Relaxed);
            }
            Place::Handle(at) => {
                let before = self.handles[at].0;
                self.handles[at].1 = content;
                if content.is_some() && before != 0 && choice & 1 == 0 {
                    return set_handle(ground, m, before, address);
                }
                self.handles[at].0 = if content.is_some() {
                    let object = std::ptr::with_exposed_provenance_mut(address);
                    // SAFETY: the thread is the mutator's.
                    unsafe { c::besom_handle_new(m.as_raw(), object) }.expose_provenance()
                } else {
                    0
                };
                if before != 0 && choice & 2 == 0 {
                    ground.free_handle(before, Omit::HandleFree);
                } else if before != 0 {
                    lock(&ground.to_free).push(before);
                }
            }
        }
    }

    pub fn form(&self, array: usize) -> Form {
        self.arrays[array].form
    }

    /// Shows a barrier what a slot holds that is about to be overwritten, if it could not read it there.
    pub fn show(&self, ground: &Ground<'_>, m: &mut Mutator<'_>, n: usize, at: usize) {
        let array = &self.arrays[n];
        if array.form == Form::Hidden && ground.omit != Omit::Hidden {
            let value = word(array.address, array.first + at).load(Relaxed);
            let mut shown = array.form.address(ground, value) as u64;
            // SAFETY: a word of this function's.
            unsafe { m.write(std::ptr::null(), &raw mut shown, 0) };
        }
    }

    /// All of the stack.
    pub fn on_stack(&self) -> impl Iterator<Item = Place> + use<> {
        (0..PART).map(Place::Stack)
    }

    /// An empty place on the stack.
    pub fn empty_on_stack(&self) -> Option<Place> {
        self.stack.iter().position(Option::is_none).map(Place::Stack)
    }
}

/// A store into an object; plain if the barrier is left out.
pub(super) fn write(
    ground: &Ground<'_>,
    m: &mut Mutator<'_>,
    object: usize,
    at: usize,
    value: u64,
    omit: Omit,
) {
    let slot = word(object, at);
    if ground.omit == omit {
        return slot.store(value, Release);
    }
    // SAFETY: a word of a live object that is this thread's to write.
    unsafe { m.write(std::ptr::with_exposed_provenance(object), slot.as_ptr(), value) };
}

fn write_range_word(ground: &Ground<'_>, m: &mut Mutator<'_>, at: usize, address: usize) {
    let (slot, value) = (&ground.words[at], ground.encode(address));
    if ground.omit == Omit::Range {
        return slot.store(value, Release);
    }
    // SAFETY: a word of a range, this mover's.
    unsafe { m.write(std::ptr::null(), slot.as_ptr(), value) };
}

fn set_handle(ground: &Ground<'_>, m: &Mutator<'_>, handle: usize, address: usize) {
    if ground.omit == Omit::HandleSet {
        // The object is the first word.
        return word(handle, 0).store(address as u64, Relaxed);
    }
    let (handle, object) =
        (std::ptr::with_exposed_provenance_mut(handle), std::ptr::with_exposed_provenance_mut(address));
    // SAFETY: the handle is live, and the thread is the mutator's.
    unsafe { c::besom_handle_set(m.as_raw(), handle, object) };
}
