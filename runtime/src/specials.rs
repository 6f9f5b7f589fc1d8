//! Weak references, ephemerons, finalizers, cleanups, as mutators use them.

use crate::heap::Heap;
use crate::mutator::{Frame, Mutator, Run, capture};
use crate::status::{Error, Result};
use besom_alloc_core::span_class::EPHEMERON;
use besom_gc::Specials;
use besom_gc::specials::ephemerons::{self, Ephemeron};
use besom_gc::specials::finalizers::Finalizer;
use besom_gc::specials::weak::WeakEntry;
use besom_gc::specials::{Taken, is_marked};
use besom_stats::fatal;
use besom_stats::race_detector::{acquire, outside, release};
use std::cell::Cell;
use std::ffi::c_void;

/// A finalizer of the VM's; `run` of `besom_finalizer_set`.
pub type FinalizerFn = unsafe extern "C" fn(*mut Mutator, *mut c_void, *mut c_void);
/// A cleanup of the VM's; `run` of `besom_cleanup_add`.
pub type CleanupFn = unsafe extern "C" fn(*mut c_void);

impl Heap {
    fn specials(&self) -> &Specials {
        self.collector.specials()
    }

    /// Aborts unless a live object starts at an address.
    fn check_object(&self, address: usize, function: &str) {
        if !self.is_live_object(address) {
            fatal(format_args!("{function}: {address:#x} is no object of the heap"));
        }
    }

    /// A weak reference, or `None` when there are too many.
    pub(crate) fn weak_new(&self, object: usize) -> Option<&WeakEntry> {
        self.check_object(object, "besom_weak_new");
        self.specials().weaks().add(object, &self.spans.system().gc)
    }

    /// The object of a weak reference, or 0.
    ///
    /// # Safety
    /// `m` must be the calling thread's, attached and not blocked.
    #[inline]
    pub(crate) unsafe fn weak_get(&self, m: *mut Mutator, weak: usize) -> usize {
        let entry = self.specials().weaks().check(weak, "besom_weak_get");
        let object = entry.read(self.collector.phase(), |object| is_marked(&self.spans, object));
        // SAFETY: the caller's promise.
        unsafe { self.handed_out(m, object) }
    }

    /// Frees a weak reference.
    pub(crate) fn weak_free(&self, weak: usize) {
        self.specials().weaks().remove(weak, "besom_weak_free");
    }

    /// An ephemeron, or null when memory is short.
    ///
    /// # Safety
    /// `m` must be the calling thread's, attached and not blocked, with its registers captured.
    pub(crate) unsafe fn ephemeron_new(&self, m: *mut Mutator, key: usize, value: usize) -> *mut u8 {
        self.check_object(key, "besom_ephemeron_new");
        // Before it is there: a cycle may find it at once.
        self.collector.ephemerons().count_new();
        // SAFETY: the caller's promise; the slot is new, and no safepoint comes before it is filled.
        unsafe {
            (*m).held = [key, value];
            let object = self.alloc_own(m, EPHEMERON, 16);
            if let Some(offset) = self.spans.tables().offset_of(object.addr()) {
                Ephemeron::at(&self.spans, offset).fill(key, value);
            }
            (*m).held = [0; 2];
            object
        }
    }

    /// The ephemeron at an address; aborts in the name of `function` if none is there.
    fn ephemeron(&self, address: usize, function: &str) -> &Ephemeron {
        match ephemerons::offset_of(&self.spans, address) {
            // SAFETY: one is there, which the caller holds.
            Some(offset) => unsafe { Ephemeron::at(&self.spans, offset) },
            None => fatal(format_args!("{function}: {address:#x} is no ephemeron of the heap")),
        }
    }

    /// The key of an ephemeron, or 0.
    ///
    /// # Safety
    /// As for [`Self::weak_get`].
    pub(crate) unsafe fn ephemeron_key(&self, m: *mut Mutator, ephemeron: usize) -> usize {
        let ephemeron = self.ephemeron(ephemeron, "besom_ephemeron_key");
        let key = ephemeron.key(self.collector.phase(), |key| is_marked(&self.spans, key));
        // SAFETY: the caller's promise.
        unsafe { self.handed_out(m, key) }
    }

    /// The value of an ephemeron, or 0.
    ///
    /// # Safety
    /// As for [`Self::weak_get`].
    pub(crate) unsafe fn ephemeron_value(&self, m: *mut Mutator, ephemeron: usize) -> usize {
        let ephemeron = self.ephemeron(ephemeron, "besom_ephemeron_value");
        let value = ephemeron.value(self.collector.phase(), |key| is_marked(&self.spans, key));
        // SAFETY: the caller's promise.
        unsafe { self.handed_out(m, value) }
    }

    /// An object comes out of a table that does not keep it, into the hands of a mutator; or was kept by the due queue, which
    /// lets it go: while objects are marked, it is kept.
    ///
    /// # Safety
    /// As for [`Self::weak_get`].
    #[inline]
    unsafe fn handed_out(&self, m: *mut Mutator, object: usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe { self.shade(m, object) };
        object
    }

    /// Has `run(arg)` run once the object is dead; the number of that. `Limit`: there are too many.
    pub(crate) fn cleanup_add(&self, object: usize, run: CleanupFn, arg: *mut c_void) -> Result<u64> {
        self.check_object(object, "besom_cleanup_add");
        let (run, arg) = ((run as *const c_void).expose_provenance(), arg.expose_provenance());
        self.specials().cleanups().add(object, run, arg, &self.spans.system().gc).ok_or(Error::Limit)
    }

    /// Whether a cleanup was cancelled in time.
    pub(crate) fn cleanup_cancel(&self, number: u64) -> bool {
        self.specials().cleanups().cancel(number)
    }

    /// Sets or removes the finalizer of an object. `Limit`: there are too many.
    pub(crate) fn finalizer_set(
        &self,
        object: usize,
        run: Option<FinalizerFn>,
        data: *mut c_void,
    ) -> Result<()> {
        self.check_object(object, "besom_finalizer_set");
        let finalizers = self.specials().finalizers();
        let Some(run) = run else {
            finalizers.remove(object);
            return Ok(());
        };
        let (run, data) = ((run as *const c_void).expose_provenance(), data.expose_provenance());
        let set = finalizers.set(object, Finalizer { run, data }, &self.spans.system().gc);
        if set { Ok(()) } else { Err(Error::Limit) }
    }

    /// Runs what is due, at most `at_most`, and none that becomes due meanwhile; how many. Returns at once when what it runs
    /// detaches the mutator: then neither that nor the heap, which may be freed, is looked at again.
    ///
    /// # Safety
    /// `heap` must be a heap; `m` must be the calling thread's, attached and not blocked. The functions are the VM's.
    pub(crate) unsafe fn run_due(heap: *const Heap, m: *mut Mutator, at_most: usize) -> usize {
        // SAFETY: the caller's promise; nothing is looked at after a detach.
        unsafe {
            if (*heap).specials().due() == 0 {
                return 0;
            }
            let end = (*heap).specials().due_end();
            // The object whose finalizer runs: volatile, since the collector reads it.
            let mut held: *mut c_void = std::ptr::null_mut();
            let held = &raw mut held;
            let slots = [held.cast_const()];
            let run = Run { outer: (*m).runs, detached: Cell::new(false) };
            let outer = Mutator::set_frames(m, std::ptr::null());
            let frame = Frame::new(outer, &slots);
            Mutator::set_frames(m, &raw const frame);
            (*m).runs = &raw const run;
            let mut done = 0;
            while done < at_most {
                if Mutator::polled(m) {
                    capture(m);
                    (*heap).safepoint(m);
                }
                let hold = |object: usize| {
                    held.write_volatile(std::ptr::with_exposed_provenance_mut(object));
                    (*heap).handed_out(m, object);
                };
                let Some(taken) = (*heap).specials().take_due(end, hold) else { break };
                // What other threads did to the object is over.
                acquire(heap);
                outside(|| call(taken, m, held.read_volatile()));
                done += 1;
                if run.detached.get() {
                    return done;
                }
                Mutator::check(m, "besom_finalizers_run");
                release(heap);
                held.write_volatile(std::ptr::null_mut());
                // Frames that it left behind go.
                Mutator::set_frames(m, &raw const frame);
            }
            (*m).runs = run.outer;
            Mutator::set_frames(m, outer);
            done
        }
    }
}

/// Calls a function of the VM's.
///
/// # Safety
/// `taken` must be what the VM handed over, as [`Heap::cleanup_add`] and [`Heap::finalizer_set`] put it down.
unsafe fn call(taken: Taken, m: *mut Mutator, object: *mut c_void) {
    let pointer = std::ptr::with_exposed_provenance_mut::<c_void>;
    // SAFETY: the addresses are of functions of these types.
    unsafe {
        match taken {
            Taken::Finalizer(Finalizer { run, data }) => {
                let run = std::mem::transmute::<*mut c_void, FinalizerFn>(pointer(run));
                run(m, object, pointer(data));
            }
            Taken::Cleanup { run, arg } => {
                let run = std::mem::transmute::<*mut c_void, CleanupFn>(pointer(run));
                run(pointer(arg));
            }
        }
    }
}
