//! Roots, handles, and the functions that trace functions call.

use super::{Status, heap, heap_of, status};
use crate::handles::Handle;
use crate::heap::Heap;
use crate::mutator::Mutator;
use crate::status::Error;
use besom_alloc_core::span_class::Kind;
use besom_gc::{TraceFn, Tracer};
use besom_stats::race_detector::inside;
use std::ffi::{c_int, c_void};

fn kind(number: c_int) -> Option<Kind> {
    u32::try_from(number).ok().and_then(Kind::from_public)
}

/// `besom_trace`.
///
/// # Safety
/// `tracer` must be the argument of the trace function that calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_trace(tracer: *mut Tracer<'_>, object: *const c_void) {
    // SAFETY: the caller's promise.
    unsafe { (*tracer).trace(object) };
}

/// `besom_trace_range`.
///
/// # Safety
/// As for [`besom_trace`]; the words must be readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_trace_range(
    tracer: *mut Tracer<'_>,
    start: *const c_void,
    words: usize,
    number: c_int,
) {
    if let Some(kind) = kind(number) {
        // SAFETY: the caller's promise.
        unsafe { (*tracer).trace_range(start, words, kind) };
    }
}

/// `besom_roots_add`.
///
/// # Safety
/// `h` must be null or a heap; the words must stay readable until they are removed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_roots_add(
    h: *mut Heap,
    start: *mut c_void,
    words: usize,
    number: c_int,
) -> Status {
    // SAFETY: the caller's promise.
    status(unsafe { heap(h, "besom_roots_add") }.and_then(|heap| {
        let kind = kind(number).ok_or(Error::Invalid)?;
        // SAFETY: the caller's promise.
        unsafe { heap.roots.add(start.expose_provenance(), words, kind, &heap.spans.system().other) }
    }))
}

/// `besom_roots_remove`.
///
/// # Safety
/// `h` must be null or a heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_roots_remove(h: *mut Heap, start: *mut c_void) -> Status {
    // SAFETY: the caller's promise.
    status(unsafe { heap(h, "besom_roots_remove") }.and_then(|heap| heap.remove_roots(start.addr())))
}

/// `besom_stack_set`.
///
/// # Safety
/// `m` must be a mutator; the words from `base` to `*top` must be readable at every safepoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_stack_set(
    m: *mut Mutator,
    base: *mut c_void,
    top: *mut *mut c_void,
    number: c_int,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        heap_of(m, "besom_stack_set");
        if base.is_null() {
            Mutator::set_value_stack(m, 0, std::ptr::null(), Kind::NoScan);
            return 0;
        }
        let kind = kind(number).filter(|kind| matches!(kind, Kind::Conservative | Kind::Values));
        let (Some(kind), false) = (kind, top.is_null()) else { return Error::Invalid as Status };
        if !base.addr().is_multiple_of(8) || (*top).addr() < base.addr() {
            return Error::Invalid as Status;
        }
        Mutator::set_value_stack(m, base.expose_provenance(), top.cast(), kind);
    }
    0
}

/// `besom_mutator_roots`.
///
/// # Safety
/// `m` must be a mutator; the function must keep to the rules of trace functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_mutator_roots(
    m: *mut Mutator,
    trace: Option<TraceFn>,
    data: *mut c_void,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        heap_of(m, "besom_mutator_roots");
        Mutator::set_roots(m, trace, data);
    }
    0
}

/// `besom_handle_new`.
///
/// # Safety
/// `m` must be a mutator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_handle_new(m: *mut Mutator, object: *mut c_void) -> *const Handle {
    // SAFETY: the caller's promise.
    let heap = unsafe { heap_of(m, "besom_handle_new") };
    let _inside = inside(heap);
    let memory = &heap.spans.system().other;
    heap.handles.add(object.expose_provenance(), memory).map_or(std::ptr::null(), std::ptr::from_ref)
}

/// `besom_handle_get`.
///
/// # Safety
/// `m` must be a mutator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_handle_get(m: *mut Mutator, handle: *const Handle) -> *mut c_void {
    // SAFETY: the caller's promise.
    let heap = unsafe { heap_of(m, "besom_handle_get") };
    let _inside = inside(heap);
    std::ptr::with_exposed_provenance_mut(heap.handles.get(handle.addr()))
}

/// `besom_handle_set`.
///
/// # Safety
/// `m` must be a mutator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_handle_set(m: *mut Mutator, handle: *mut Handle, object: *mut c_void) {
    // SAFETY: the caller's promise.
    let heap = unsafe { heap_of(m, "besom_handle_set") };
    let _inside = inside(heap);
    let before = heap.handles.set(handle.addr(), object.expose_provenance());
    // SAFETY: as above.
    unsafe { heap.shade(m, before) };
}

/// `besom_handle_free`.
///
/// # Safety
/// `h` must be null or a heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_handle_free(h: *mut Heap, handle: *mut Handle) {
    // SAFETY: the caller's promise.
    if let Ok(heap) = unsafe { heap(h, "besom_handle_free") }
        && !handle.is_null()
    {
        let _inside = inside(heap);
        heap.remove_handle(handle.addr());
    }
}
