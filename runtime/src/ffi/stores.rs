//! Stores. Without concurrent marking they only check, and only when asked.

use super::heap_of;
use crate::heap::Heap;
use crate::mutator::Mutator;
use besom_stats::fatal;
use besom_stats::sync::raw::{AtomicU64, Ordering::Relaxed};
use std::ffi::c_void;

fn check(heap: &Heap, object: *const c_void, function: &str) {
    if !object.is_null() && heap.checks_stores() && !heap.is_object(object.addr()) {
        fatal(format_args!("{function}: {:#x} is no object of this heap", object.addr()));
    }
}

/// # Safety
/// `slot` must be a writable, aligned word.
unsafe fn store(slot: *mut c_void, value: u64) {
    // SAFETY: the caller's promise.
    unsafe { (*slot.cast::<AtomicU64>()).store(value, Relaxed) };
}

/// `besom_write`, when stores are watched.
///
/// # Safety
/// `m` must be a mutator, `slot` a word of `object` or of a root range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_write_slow(
    m: *mut Mutator,
    object: *mut c_void,
    slot: *mut c_void,
    value: *mut c_void,
) {
    // SAFETY: the caller's promise.
    unsafe {
        check(heap_of(m, "besom_write"), object, "besom_write");
        store(slot, value.expose_provenance() as u64);
    }
}

/// `besom_write_value`, when stores are watched.
///
/// # Safety
/// As for [`besom_write_slow`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_write_value_slow(
    m: *mut Mutator,
    object: *mut c_void,
    slot: *mut u64,
    value: u64,
) {
    // SAFETY: the caller's promise.
    unsafe {
        check(heap_of(m, "besom_write_value"), object, "besom_write_value");
        store(slot.cast(), value);
    }
}

/// `besom_write_range`.
///
/// # Safety
/// `m` must be a mutator; `to` must be `words` words of `object` or of a root range, `from` as many readable ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_write_range(
    m: *mut Mutator,
    object: *mut c_void,
    to: *mut c_void,
    from: *const c_void,
    words: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        check(heap_of(m, "besom_write_range"), object, "besom_write_range");
        std::ptr::copy(from.cast::<u64>(), to.cast::<u64>(), words);
    }
}
