//! Weak references, ephemerons, cleanups, finalizers.

use super::{Status, heap, heap_of, status};
use crate::heap::Heap;
use crate::mutator::Mutator;
use crate::specials::{CleanupFn, FinalizerFn};
use crate::status::Error;
use besom_gc::specials::weak::WeakEntry;
use besom_stats::race_detector::inside;
use std::ffi::{c_int, c_void};

/// `besom_weak_new`.
///
/// # Safety
/// `m` must be a mutator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_weak_new(m: *mut Mutator, object: *mut c_void) -> *const WeakEntry {
    // SAFETY: the caller's promise.
    let heap = unsafe { heap_of(m, "besom_weak_new") };
    let _inside = inside(heap);
    heap.weak_new(object.expose_provenance()).map_or(std::ptr::null(), std::ptr::from_ref)
}

/// `besom_weak_get`.
///
/// # Safety
/// `m` must be a mutator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_weak_get(m: *mut Mutator, weak: *const WeakEntry) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe {
        let heap = heap_of(m, "besom_weak_get");
        let _inside = inside(heap);
        std::ptr::with_exposed_provenance_mut(heap.weak_get(m, weak.addr()))
    }
}

/// `besom_weak_free`.
///
/// # Safety
/// `h` must be null or a heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_weak_free(h: *mut Heap, weak: *mut WeakEntry) {
    // SAFETY: the caller's promise.
    if let Ok(heap) = unsafe { heap(h, "besom_weak_free") }
        && !weak.is_null()
    {
        let _inside = inside(heap);
        heap.weak_free(weak.addr());
    }
}

entry! {
    /// `besom_ephemeron_new`.
    besom_ephemeron_new(m: *mut Mutator, key: *mut c_void, value: *mut c_void) -> *mut c_void = ephemeron_new
}

/// # Safety
/// `m` must be a mutator with its registers captured.
unsafe extern "C" fn ephemeron_new(m: *mut Mutator, key: *mut c_void, value: *mut c_void) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe {
        let heap = heap_of(m, "besom_ephemeron_new");
        let _inside = inside(heap);
        heap.ephemeron_new(m, key.expose_provenance(), value.expose_provenance()).cast()
    }
}

/// `besom_ephemeron_key`.
///
/// # Safety
/// `m` must be a mutator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_ephemeron_key(m: *mut Mutator, ephemeron: *const c_void) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe {
        let heap = heap_of(m, "besom_ephemeron_key");
        let _inside = inside(heap);
        std::ptr::with_exposed_provenance_mut(heap.ephemeron_key(m, ephemeron.addr()))
    }
}

/// `besom_ephemeron_value`.
///
/// # Safety
/// `m` must be a mutator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_ephemeron_value(m: *mut Mutator, ephemeron: *const c_void) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe {
        let heap = heap_of(m, "besom_ephemeron_value");
        let _inside = inside(heap);
        std::ptr::with_exposed_provenance_mut(heap.ephemeron_value(m, ephemeron.addr()))
    }
}

/// `besom_cleanup_add`.
///
/// # Safety
/// `m` must be a mutator, `out` null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_cleanup_add(
    m: *mut Mutator,
    object: *mut c_void,
    run: Option<CleanupFn>,
    arg: *mut c_void,
    out: *mut u64,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        let heap = heap_of(m, "besom_cleanup_add");
        let _inside = inside(heap);
        let Some(run) = run else { return Error::Invalid as Status };
        status(heap.cleanup_add(object.expose_provenance(), run, arg).map(|number| {
            if !out.is_null() {
                out.write(number);
            }
        }))
    }
}

/// `besom_cleanup_cancel`.
///
/// # Safety
/// `h` must be null or a heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_cleanup_cancel(h: *mut Heap, cleanup: u64) -> c_int {
    // SAFETY: the caller's promise.
    let Ok(heap) = (unsafe { heap(h, "besom_cleanup_cancel") }) else { return 0 };
    let _inside = inside(heap);
    heap.cleanup_cancel(cleanup).into()
}

/// `besom_finalizer_set`.
///
/// # Safety
/// `m` must be a mutator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_finalizer_set(
    m: *mut Mutator,
    object: *mut c_void,
    run: Option<FinalizerFn>,
    data: *mut c_void,
) -> Status {
    // SAFETY: the caller's promise.
    let heap = unsafe { heap_of(m, "besom_finalizer_set") };
    let _inside = inside(heap);
    status(heap.finalizer_set(object.expose_provenance(), run, data))
}

/// `besom_finalizers_run`. Notes no registers: it does so itself, when it stops between two calls of the VM's functions.
///
/// # Safety
/// `m` must be a mutator; what runs are the VM's functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_finalizers_run(m: *mut Mutator, at_most: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let heap: *const Heap = heap_of(m, "besom_finalizers_run");
        let _inside = inside(heap);
        Heap::run_due(heap, m, at_most)
    }
}
