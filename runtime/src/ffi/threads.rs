//! Threads, safepoints, collections.

use super::{Status, heap, heap_of, status};
use crate::heap::Heap;
use crate::mutator::{ATTACHED, BLOCKED, Mutator};
use crate::quarantine;
use crate::status::Error;
use besom_gc::Cause;
use besom_stats::fatal;
use besom_stats::race_detector::{inside, outside};
use std::ffi::{c_int, c_void};

/// `besom_attach`.
///
/// # Safety
/// `h` must be null or a heap, `out` null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_attach(h: *mut Heap, out: *mut *mut Mutator) -> Status {
    if out.is_null() {
        return Error::Invalid as Status;
    }
    let _inside = inside(h);
    // SAFETY: the caller's promise.
    match unsafe { heap(h, "besom_attach") }.and_then(Heap::attach_raw) {
        Ok(m) => {
            // SAFETY: the caller's promise.
            unsafe { out.write(m) };
            0
        }
        Err(error) => error as Status,
    }
}

/// `besom_detach`. Its thread's roots are forgotten, so no registers are noted, and any argument can be told.
///
/// # Safety
/// `m` must be null or a mutator of a heap that is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_detach(m: *mut Mutator) -> Status {
    if m.is_null() {
        return Error::Invalid as Status;
    }
    // SAFETY: the caller's promise.
    unsafe {
        quarantine::check_mutator(m, "besom_detach");
        if Mutator::state(m) != ATTACHED || !Mutator::is_own(m) {
            return Error::State as Status;
        }
        let _inside = inside((*m).heap);
        (*(*m).heap).detach_raw(m);
    }
    0
}

/// `besom_after_fork_child`.
///
/// # Safety
/// `h` must be null or a heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_after_fork_child(h: *mut Heap) -> Status {
    let _inside = inside(h);
    // SAFETY: the caller's promise.
    status(unsafe { heap(h, "besom_after_fork_child") }.and_then(Heap::after_fork))
}

entry! {
    /// `besom_safepoint`, when something is wanted.
    besom_safepoint_slow(m: *mut Mutator) = safepoint
}

/// # Safety
/// `m` must be a mutator with its registers captured.
unsafe extern "C" fn safepoint(m: *mut Mutator) {
    // SAFETY: the caller's promise.
    unsafe {
        let heap = heap_of(m, "besom_safepoint");
        let _inside = inside(heap);
        heap.safepoint(m);
    }
}

entry! {
    /// `besom_block`.
    besom_block(m: *mut Mutator) = block
}

/// # Safety
/// `m` must be a mutator with its registers captured.
unsafe extern "C" fn block(m: *mut Mutator) {
    // SAFETY: the caller's promise.
    unsafe {
        if Mutator::state(m) == BLOCKED && Mutator::is_own(m) {
            fatal(format_args!("besom_block: mutator is blocked already"));
        }
        let heap = heap_of(m, "besom_block");
        let _inside = inside(heap);
        heap.block(m);
    }
}

/// `besom_unblock`.
///
/// # Safety
/// `m` must be a mutator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_unblock(m: *mut Mutator) {
    // SAFETY: the caller's promise.
    unsafe {
        if Mutator::state(m) == ATTACHED && Mutator::is_own(m) {
            fatal(format_args!("besom_unblock: mutator is not blocked"));
        }
        if Mutator::state(m) != BLOCKED || !Mutator::is_own(m) {
            Mutator::misused(m, "besom_unblock");
        }
        let _inside = inside((*m).heap);
        (*(*m).heap).unblock(m);
    }
}

entry! {
    /// `besom_collect`.
    besom_collect(m: *mut Mutator) -> Status = collect
}

/// # Safety
/// `m` must be a mutator with its registers captured.
unsafe extern "C" fn collect(m: *mut Mutator) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        let heap = heap_of(m, "besom_collect");
        let _inside = inside(heap);
        heap.collect(m, Cause::Forced);
    }
    0
}

/// `visit` of `besom_walk`.
type Visit = unsafe extern "C" fn(*mut c_void, usize, c_int, *mut c_void) -> c_int;

entry! {
    /// `besom_walk`.
    besom_walk(m: *mut Mutator, visit: Visit, data: *mut c_void) -> c_int = walk
}

/// # Safety
/// `m` must be a mutator with its registers captured.
unsafe extern "C" fn walk(m: *mut Mutator, visit: Visit, data: *mut c_void) -> c_int {
    // SAFETY: the caller's promise; the VM's function gets the VM's objects and data.
    unsafe {
        let heap = heap_of(m, "besom_walk");
        let _inside = inside(heap);
        heap.walk(m, |object, bytes, kind| outside(|| visit(object.cast(), bytes.0, kind as c_int, data)))
    }
}
