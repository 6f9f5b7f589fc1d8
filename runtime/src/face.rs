//! The Rust face: the same operations as in C, with the rules that the compiler can check checked by it.
//!
//! ```
//! use besom::{Heap, Kind, Options};
//!
//! let heap = Heap::new(&Options::default())?;
//! let mut m = heap.attach()?;
//! let object = m.alloc(24, Kind::Values).ok_or(besom::Error::NoMemory)?;
//! let kept = m.handle(object.as_ptr())?;
//! m.collect();
//! assert_eq!(kept.get(), object.as_ptr());
//! assert!(heap.stats().forced_cycles == 1);
//! # Ok::<(), besom::Error>(())
//! ```

use crate::ffi::stores;
use crate::handles::Handle;
use crate::heap::Heap;
use crate::mutator::{Mutator as Raw, capture};
use crate::status::{Error, Result};
use besom_alloc_core::span_class::Kind;
use besom_gc::Cause;
use besom_gc::timeline::Why;
use besom_stats::MemStats;
use besom_stats::sync::raw::{AtomicU64, Ordering::*};
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// A thread attached to a heap. Detaches when dropped; stays on its thread.
pub struct Mutator<'h> {
    raw: *mut Raw,
    heap: &'h Heap,
    _stays: PhantomData<*mut ()>,
}

/// A strong root. Freed when dropped.
pub struct HandleRef<'h> {
    handle: *const Handle,
    heap: &'h Heap,
}

// SAFETY: handles are atomics and locks in memory of the heap's, for any thread of the process.
unsafe impl Send for HandleRef<'_> {}
// SAFETY: as above.
unsafe impl Sync for HandleRef<'_> {}

impl Heap {
    /// Attaches the calling thread. `State`: it is attached already.
    pub fn attach(&self) -> Result<Mutator<'_>> {
        Ok(Mutator { raw: self.attach_raw()?, heap: self, _stays: PhantomData })
    }
}

impl<'h> Mutator<'h> {
    /// What every method does first that may reach a safepoint: its frame, and those of its callers, are scanned.
    #[inline(always)]
    fn enter(&mut self) -> *mut Raw {
        // SAFETY: the mutator is this thread's.
        unsafe { capture(self.raw) };
        self.raw
    }

    /// Zeroed memory for an object, or `None` when memory is short even after a collection. The object lives while a
    /// root leads to it: a handle, a range, or, if native stacks are scanned, a pointer in a local.
    pub fn alloc(&mut self, bytes: usize, kind: Kind) -> Option<NonNull<u8>> {
        if !matches!(kind, Kind::NoScan | Kind::Conservative | Kind::Values | Kind::Traced) {
            return None;
        }
        // SAFETY: the mutator is this thread's, and `&mut self` shows that it is not blocked.
        NonNull::new(unsafe { self.heap.alloc(self.enter(), bytes, kind) })
    }

    /// A zeroed object of a registered layout. `Err`: the layout is not registered.
    pub fn new_object(&mut self, layout: u32) -> Result<Option<NonNull<u8>>> {
        let layouts = &self.heap.collector.shapes().layouts;
        let (number, _) = layouts.registered(layout).ok_or(Error::Invalid)?;
        // SAFETY: as in `alloc`; the layout is registered.
        Ok(NonNull::new(unsafe { self.heap.new_object(self.enter(), layout, number) }))
    }

    /// A zeroed array of `count` elements of a registered layout. `Err`: the layout is not registered.
    pub fn new_array(&mut self, layout: u32, count: usize) -> Result<Option<NonNull<u8>>> {
        let layouts = &self.heap.collector.shapes().layouts;
        let (number, _) = layouts.registered(layout).ok_or(Error::Invalid)?;
        // SAFETY: as in `new_object`.
        Ok(NonNull::new(unsafe { self.heap.new_array(self.enter(), number, count) }))
    }

    /// Takes part in a stop or hands its P over, if that is wanted.
    pub fn safepoint(&mut self) {
        // SAFETY: as in `alloc`.
        unsafe {
            if Raw::polled(self.raw) {
                self.heap.safepoint(self.enter());
            }
        }
    }

    /// Runs `f`, which may wait, without a P; no collection waits for it.
    pub fn blocked<R>(&mut self, f: impl FnOnce() -> R) -> R {
        /// Unblocks, also when `f` unwinds.
        struct Blocked<'h>(&'h Heap, *mut Raw);
        impl Drop for Blocked<'_> {
            fn drop(&mut self) {
                // SAFETY: the mutator is this thread's, and blocked.
                unsafe { self.0.unblock(self.1) };
            }
        }
        let m = self.enter();
        // SAFETY: as in `alloc`.
        unsafe { self.heap.block(m) };
        let _blocked = Blocked(self.heap, m);
        f()
    }

    /// A whole cycle, marked and swept.
    pub fn collect(&mut self) {
        // SAFETY: as in `alloc`.
        unsafe { self.heap.collect(self.enter(), Cause::Forced) };
    }

    /// Visits every object, in address order, with the world stopped: its address, its bytes, its kind's number.
    ///
    /// # Safety
    /// `visit` must not allocate, unwind, nor wait for a thread that is attached.
    pub unsafe fn walk(&mut self, mut visit: impl FnMut(*mut u8, usize, u32)) {
        // SAFETY: as in `alloc`, and the caller's promise.
        unsafe {
            self.heap.walk(self.enter(), |object, bytes, kind| {
                visit(object, bytes.0, kind);
                0
            })
        };
    }

    /// Checks every equation of the heap's structures, and aborts on the first that does not hold.
    pub fn verify(&mut self) {
        // SAFETY: as in `alloc`.
        unsafe {
            self.heap.with_world_stopped(self.enter(), Why::Verify, |stopped| self.heap.spans.check(stopped))
        };
    }

    /// Exact statistics, with the world stopped.
    pub fn mem_stats(&mut self) -> MemStats {
        // SAFETY: as in `alloc`.
        unsafe { self.heap.mem_stats(self.enter()) }
    }

    /// The same, and its twin, for which every span, slot, page and P was counted in the same stop; they are equal. Aborts
    /// when they are not, or an identity between the counters does not hold.
    pub fn mem_stats_slow(&mut self) -> (MemStats, MemStats) {
        // SAFETY: as in `alloc`.
        unsafe { self.heap.mem_stats_slow(self.enter()) }
    }

    /// Stores what may be a pointer: `slot` is a word of `object`, or of a registered root range if that is null. Every such
    /// store goes through this or [`Self::write_range`], but the first ones into an object that was allocated since the
    /// last safepoint. What is overwritten is read as a pointer and in the heap's encoding.
    ///
    /// # Safety
    /// `slot` must be an aligned word of the object or range, and the program's to write.
    #[inline]
    pub unsafe fn write(&mut self, object: *const u8, slot: *mut u64, value: u64) {
        // SAFETY: the mutator is this thread's, and not blocked; the caller's promise.
        unsafe {
            let word = AtomicU64::from_ptr(slot);
            if Raw::just_stores(self.raw, || word.load(Relaxed)) {
                word.store(value, Release);
            } else {
                stores::store(self.heap, self.raw, object.cast(), slot.cast(), value, "Mutator::write");
            }
        }
    }

    /// Copies words into a part of `object`, or of a registered root range if that is null; they may overlap.
    ///
    /// # Safety
    /// `to` must be so many words of the object or range, the program's to write, `from` as many readable ones.
    pub unsafe fn write_range(&mut self, object: *const u8, to: *mut u64, from: *const u64, words: usize) {
        // SAFETY: as in `write`.
        unsafe {
            stores::store_range(self.heap, self.raw, object.cast(), to, from, words, "Mutator::write_range");
        }
    }

    /// A strong root on an object. `Err(Limit)`: there are too many.
    pub fn handle(&mut self, object: *mut u8) -> Result<HandleRef<'h>> {
        let memory = &self.heap.spans.system().other;
        let handle = self.heap.handles.add(object.expose_provenance(), memory).ok_or(Error::Limit)?;
        Ok(HandleRef { handle, heap: self.heap })
    }

    /// The same mutator for functions of `besom.h`.
    pub fn as_raw(&self) -> *mut c_void {
        self.raw.cast()
    }

    /// The heap.
    pub fn heap(&self) -> &'h Heap {
        self.heap
    }
}

impl Drop for Mutator<'_> {
    fn drop(&mut self) {
        // SAFETY: as in `alloc`; the mutator is not used again.
        unsafe { self.heap.detach_raw(self.raw) };
    }
}

impl HandleRef<'_> {
    /// The object.
    pub fn get(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.heap.handles.get(self.handle.addr()))
    }

    /// Holds another object from here on.
    pub fn set(&self, object: *mut u8) {
        self.heap.set_handle(self.handle.addr(), object.expose_provenance());
    }
}

impl Drop for HandleRef<'_> {
    fn drop(&mut self) {
        self.heap.remove_handle(self.handle.addr());
    }
}
