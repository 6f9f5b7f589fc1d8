//! What names an object without keeping it: a weak reference, an ephemeron as key or value, a finalizer. An object that is left
//! in one of these and nowhere else comes out whole, or is dead and does not; but for its finalizer, which always gets it.

use super::places::write;
use super::{Content, Ground, Omit, word};
use crate::c;
use crate::rng::Rng;
use besom::{HandleRef, Kind, Mutator};
use besom_stats::sync::lock;
use besom_stats::sync::raw::Ordering::*;
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::with_exposed_provenance_mut;

/// Ephemerons of a mover.
const EPHEMERONS: usize = 8;
/// Objects that a mover leaves in weak references at a time.
const WEAKS: usize = 8;

thread_local! {
    /// What the finalizer that ran last on this thread got: the object, and the number of its note.
    static FINALIZED: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
}

unsafe extern "C" fn finalizer(_: *mut c_void, object: *mut c_void, data: *mut c_void) {
    let before = FINALIZED.replace(Some((object.expose_provenance(), data.addr())));
    assert_eq!(before, None, "two finalizers ran");
}

/// In a weak reference, and perhaps in a note for its finalizer.
struct InWeak {
    weak: usize,
    content: Content,
    note: Option<usize>,
}

/// In an ephemeron. The key may be one that is held elsewhere.
#[derive(Clone, Copy, Debug)]
struct InEphemeron {
    key: Option<Content>,
    value: Content,
}

/// What one mover has left so.
pub(super) struct Weakly<'h> {
    weaks: Vec<InWeak>,
    /// By the slots of the array.
    ephemerons: [Option<InEphemeron>; EPHEMERONS],
    array: HandleRef<'h>,
    /// The key that is held.
    key: HandleRef<'h>,
    /// A weak reference to an object that was taken out of it, which is held since.
    held: Option<InWeak>,
}

impl<'h> Weakly<'h> {
    pub fn new(m: &mut Mutator<'h>) -> Weakly<'h> {
        let mut alloc = |words: usize| {
            let object = m.alloc(words * 8, Kind::Values).expect("memory").as_ptr();
            m.handle(object).expect("a handle")
        };
        let (array, key) = (alloc(EPHEMERONS), alloc(2));
        Weakly { weaks: Vec::new(), ephemerons: [None; EPHEMERONS], array, key, held: None }
    }

    /// Leaves an object, which the caller holds, in a weak reference, and with `finalizer` as that, too. False: there are
    /// enough of them.
    pub fn leave_in_weak(
        &mut self,
        ground: &Ground<'h>,
        m: &Mutator<'h>,
        content: Content,
        finalizer: bool,
    ) -> bool {
        if self.weaks.len() == WEAKS {
            return false;
        }
        // SAFETY: the mutator is this thread's, the object alive.
        let weak = unsafe { c::besom_weak_new(m.as_raw(), with_exposed_provenance_mut(content.held())) };
        let weak = weak.expose_provenance();
        assert!(weak != 0, "a weak reference");
        // What is read without a look at the mark may be on the way to its finalizer.
        let note =
            (finalizer && ground.omit != Omit::WeakGet).then(|| leave_to_finalizer(ground, m, content));
        assert_eq!(read_weak(m, weak), content.held(), "a weak reference to what is held");
        self.weaks.push(InWeak { weak, content, note });
        true
    }

    /// Leaves an object in an ephemeron, and another one as its key, if there is one; the caller holds them. False: there are
    /// enough of them.
    pub fn leave_in_ephemeron(
        &mut self,
        ground: &Ground<'h>,
        m: &mut Mutator<'h>,
        key: Option<Content>,
        value: Content,
    ) -> bool {
        let Some(at) = self.ephemerons.iter().position(Option::is_none) else { return false };
        let of_key = key.map_or(self.key.get(), |key| with_exposed_provenance_mut(key.held()));
        // SAFETY: the mutator is this thread's, the key alive.
        let ephemeron = unsafe {
            c::besom_ephemeron_new(m.as_raw(), of_key.cast(), with_exposed_provenance_mut(value.held()))
        };
        assert!(!ephemeron.is_null(), "memory");
        self.ephemerons[at] = Some(InEphemeron { key, value });
        let array = self.array.get().expose_provenance();
        write(ground, m, array, at, ground.encode(ephemeron.expose_provenance()), Omit::Write);
        true
    }

    /// Takes an object back, or two if `both` is true, for the caller to hold before it comes to a safepoint.
    pub fn take(
        &mut self,
        ground: &Ground<'h>,
        m: &mut Mutator<'h>,
        rng: &mut Rng,
        both: bool,
    ) -> [Option<Content>; 2] {
        if rng.one_in(2) {
            [self.take_out_of_weak(ground, m, rng), None]
        } else {
            self.take_out_of_ephemeron(ground, m, rng, both)
        }
    }

    fn take_out_of_weak(&mut self, ground: &Ground<'h>, m: &Mutator<'h>, rng: &mut Rng) -> Option<Content> {
        if self.weaks.is_empty() {
            return None;
        }
        let left = self.weaks.swap_remove(rng.below(self.weaks.len()));
        let found = if ground.omit == Omit::WeakGet {
            // The object is the first word.
            word(left.weak, 0).load(Relaxed) as usize
        } else {
            read_weak(m, left.weak)
        };
        if found == 0 {
            free_weak(ground, left.weak);
            if left.note.is_none() {
                ground.count_dead();
            }
            return None;
        }
        assert_eq!(found, left.content.held(), "what a weak reference gives");
        if let Some(note) = left.note {
            // Its finalizer is not due, and never will be.
            set_finalizer(m, found, None);
            lock(&ground.finalizers)[note] = None;
        }
        ground.taken_back.fetch_add(1, Relaxed);
        let content = left.content;
        self.let_go(ground, m);
        self.held = Some(left);
        Some(content)
    }

    fn take_out_of_ephemeron(
        &mut self,
        ground: &Ground<'h>,
        m: &mut Mutator<'h>,
        rng: &mut Rng,
        both: bool,
    ) -> [Option<Content>; 2] {
        let at = rng.below(EPHEMERONS);
        let Some(left) = self.ephemerons[at].take() else { return [None; 2] };
        let array = self.array.get().expose_provenance();
        let ephemeron = ground.decode(word(array, at).load(Relaxed));
        let key = |m: &Mutator<'h>| {
            let content = left.key?;
            let found = if ground.omit == Omit::EphemeronKey {
                // The key is the first word.
                word(ephemeron, 0).load(Relaxed) as usize
            } else {
                // SAFETY: the mutator is this thread's; the array holds the ephemeron.
                unsafe { c::besom_ephemeron_key(m.as_raw(), with_exposed_provenance_mut(ephemeron)) }.addr()
            };
            assert!(found == 0 || found == content.held(), "{found:#x}: the key of an ephemeron: {left:x?}");
            (found != 0).then_some(content)
        };
        let value = |m: &Mutator<'h>| {
            let found = if ground.omit == Omit::EphemeronValue {
                // The value is the second word.
                word(ephemeron, 1).load(Relaxed) as usize
            } else {
                // SAFETY: as above.
                unsafe { c::besom_ephemeron_value(m.as_raw(), with_exposed_provenance_mut(ephemeron)) }.addr()
            };
            let may_be_dead = left.key.is_some();
            assert!(
                found == left.value.held() || found == 0 && may_be_dead,
                "{found:#x}: the value of an ephemeron: {left:x?}"
            );
            (found != 0).then_some(left.value)
        };
        // One of the two alone: the other does not keep it.
        let way = rng.below(if both { 4 } else { 2 });
        let taken = match (left.key.is_some(), way) {
            (true, 0) => [key(m), None],
            (true, 2) => [key(m), value(m)],
            (true, 3) => {
                let value = value(m);
                [key(m), value]
            }
            _ => [None, value(m)],
        };
        if way >= 2 && left.key.is_some() && ground.omit == Omit::Nothing {
            assert_eq!(taken[0].is_some(), taken[1].is_some(), "key and value live together: {left:x?}");
        }
        write(ground, m, array, at, ground.encode(0), Omit::Write);
        ground.taken_back.fetch_add(taken.iter().flatten().count() as u64, Relaxed);
        for (left, taken) in [(left.key, taken[0]), (Some(left.value), taken[1])] {
            if left.is_some() && taken.is_none() {
                ground.count_dead();
            }
        }
        taken
    }

    /// What was taken out of a weak reference last is held since, so that this names it still.
    pub fn let_go(&mut self, ground: &Ground<'h>, m: &Mutator<'h>) {
        if let Some(InWeak { weak, content, .. }) = self.held.take() {
            let found = read_weak(m, weak);
            assert!(
                found == content.held() || ground.omit == Omit::WeakGet,
                "{found:#x}: {content:x?} is held"
            );
            free_weak(ground, weak);
        }
    }

    /// Frees what the heap knows of.
    pub fn leave(&mut self, ground: &Ground<'h>) {
        self.weaks.iter().chain(&self.held).for_each(|left| free_weak(ground, left.weak));
    }
}

fn read_weak(m: &Mutator<'_>, weak: usize) -> usize {
    // SAFETY: the mutator is this thread's, the weak reference live.
    unsafe { c::besom_weak_get(m.as_raw(), with_exposed_provenance_mut(weak)) }.addr()
}

fn free_weak(ground: &Ground<'_>, weak: usize) {
    // SAFETY: as above; nobody else uses it.
    unsafe { c::besom_weak_free(c::heap(ground.heap), with_exposed_provenance_mut(weak)) };
}

fn set_finalizer(m: &Mutator<'_>, object: usize, note: Option<usize>) {
    let run = note.map(|_| finalizer as c::Finalizer);
    let data = with_exposed_provenance_mut(note.unwrap_or(0));
    // SAFETY: the mutator is this thread's, the object alive.
    let status =
        unsafe { c::besom_finalizer_set(m.as_raw(), with_exposed_provenance_mut(object), run, data) };
    assert_eq!(status, 0, "besom_finalizer_set");
}

/// Leaves an object, which the caller holds, to a finalizer; the number of its note.
pub(super) fn leave_to_finalizer(ground: &Ground<'_>, m: &Mutator<'_>, content: Content) -> usize {
    let mut notes = lock(&ground.finalizers);
    let note = notes.iter().position(Option::is_none).unwrap_or_else(|| {
        notes.push(None);
        notes.len() - 1
    });
    notes[note] = Some(content);
    set_finalizer(m, content.held(), Some(note));
    note
}

/// Runs one finalizer, of any mover's object, if one is due: the object, for the caller to hold before it comes to a safepoint.
pub(super) fn run_finalizer(ground: &Ground<'_>, m: &Mutator<'_>) -> Option<Content> {
    // SAFETY: the mutator is this thread's.
    let ran = unsafe { c::besom_finalizers_run(m.as_raw(), 1) };
    let finalized = FINALIZED.take();
    assert_eq!(ran, usize::from(finalized.is_some()), "the number of what ran");
    let (object, note) = finalized?;
    let content = lock(&ground.finalizers)[note].take().expect("a finalizer of what was not taken back");
    assert_eq!(object, content.held(), "what a finalizer gets");
    ground.check(content.token);
    ground.finalized.fetch_add(1, Relaxed);
    Some(content)
}
