//! Allocation: what the inline functions of the header leave to the library.

use super::{Status, heap, heap_of, status};
use crate::heap::Heap;
use crate::mutator::Mutator;
use crate::status::{Error, Result};
use besom_alloc_core::span_class::Kind;
use besom_gc::LayoutError;
use besom_stats::fatal;
use besom_stats::race_detector::{inside, within};
use std::ffi::{c_int, c_void};

entry! {
    /// `besom_alloc`, when the cell is used up or the arguments are not the usual ones.
    besom_alloc_slow(m: *mut Mutator, bytes: usize, kind: c_int) -> *mut c_void = alloc
}

/// # Safety
/// `m` must be a mutator with its registers captured.
unsafe extern "C" fn alloc(m: *mut Mutator, bytes: usize, kind: c_int) -> *mut c_void {
    // SAFETY: the caller's promise.
    let heap = unsafe { heap_of(m, "besom_alloc") };
    let Some(kind) = u32::try_from(kind).ok().and_then(Kind::from_public) else {
        fatal(format_args!("besom_alloc: kind {kind}, expected 0..3"))
    };
    // SAFETY: `heap_of` checked the mutator.
    within(heap, || unsafe { heap.alloc(m, bytes, kind).cast() })
}

entry! {
    /// `besom_new`, likewise.
    besom_new_slow(m: *mut Mutator, layout: u32) -> *mut c_void = new_object
}

/// # Safety
/// `m` must be a mutator with its registers captured.
unsafe extern "C" fn new_object(m: *mut Mutator, layout: u32) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe {
        let heap = heap_of(m, "besom_new");
        let _inside = inside(heap);
        let number = registered(heap, layout, "besom_new");
        heap.new_object(m, layout, number).cast()
    }
}

entry! {
    /// `besom_new_array`.
    besom_new_array(m: *mut Mutator, layout: u32, count: usize) -> *mut c_void = new_array
}

/// # Safety
/// `m` must be a mutator with its registers captured.
unsafe extern "C" fn new_array(m: *mut Mutator, layout: u32, count: usize) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe {
        let heap = heap_of(m, "besom_new_array");
        let _inside = inside(heap);
        let number = registered(heap, layout, "besom_new_array");
        heap.new_array(m, number, count).cast()
    }
}

fn registered(heap: &Heap, layout: u32, function: &str) -> u32 {
    match heap.collector.shapes().layouts.registered(layout) {
        Some((number, _)) => number,
        None => fatal(format_args!("{function}: layout {layout} is not registered")),
    }
}

/// `besom_layout_register`.
///
/// # Safety
/// `h` must be null or a heap; `offsets` must have `n` elements; `out` must be null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_layout_register(
    h: *mut Heap,
    bytes: usize,
    offsets: *const u32,
    n: usize,
    out: *mut u32,
) -> Status {
    let register = || -> Result<()> {
        // SAFETY: the caller's promise.
        let heap = unsafe { heap(h, "besom_layout_register") }?;
        if out.is_null() || (offsets.is_null() && n != 0) {
            return Err(Error::Invalid);
        }
        // SAFETY: the caller's promise; an empty slice needs no memory.
        let offsets = if n == 0 { &[] } else { unsafe { std::slice::from_raw_parts(offsets, n) } };
        let layout = heap.register_layout(bytes, offsets)?;
        // SAFETY: the caller's promise.
        unsafe { out.write(layout) };
        Ok(())
    };
    status(register())
}

impl From<LayoutError> for Error {
    fn from(error: LayoutError) -> Error {
        match error {
            LayoutError::Invalid => Error::Invalid,
            LayoutError::Limit => Error::Limit,
            LayoutError::NoMemory => Error::NoMemory,
        }
    }
}

/// `besom_size`.
///
/// # Safety
/// `h` must be null or a heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_size(h: *mut Heap, object: *const c_void) -> usize {
    // SAFETY: the caller's promise.
    unsafe { heap(h, "besom_size") }.map_or(0, |heap| heap.size(object.addr()))
}

/// `besom_base`.
///
/// # Safety
/// `h` must be null or a heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_base(h: *mut Heap, interior: *const c_void) -> *mut c_void {
    // SAFETY: the caller's promise.
    let base = unsafe { heap(h, "besom_base") }.ok().and_then(|heap| heap.base(interior.addr()));
    base.map_or(std::ptr::null_mut(), |p| p.cast())
}
