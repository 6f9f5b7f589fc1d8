//! Stores: while objects are marked they hand in what they overwrite, and if asked they check.

use super::heap_of;
use crate::heap::Heap;
use crate::mutator::Mutator;
use besom_gc::Phase;
use besom_stats::fatal;
use besom_stats::sync::raw::{AtomicU64, Ordering::*};
use std::ffi::c_void;

/// Words that `besom_write_range` overwrites one by one in the mutator's buffer. Higher: more of them are handed in one by
/// one. Lower: a guest for a few words.
const FEW: usize = 16;

fn check(heap: &Heap, object: *const c_void, function: &str) {
    if !object.is_null() && heap.checks_stores() && !heap.is_object(object.addr()) {
        fatal(format_args!("{function}: {:#x} is no object of this heap", object.addr()));
    }
}

/// One store, watched; for `function`, of C or of the Rust face.
///
/// # Safety
/// `m` must be the calling thread's, attached and not blocked; `slot` must be a writable, aligned word of `object`, or of a
/// root range if that is null.
pub(crate) unsafe fn store(
    heap: &Heap,
    m: *mut Mutator,
    object: *const c_void,
    slot: *mut c_void,
    value: u64,
    function: &str,
) {
    check(heap, object, function);
    // SAFETY: the caller's promise.
    unsafe {
        let slot = &*slot.cast::<AtomicU64>();
        // Before the store, with no safepoint between.
        heap.shade(m, slot.load(Relaxed) as usize);
        slot.store(value, Release);
    }
}

/// `besom_write`, when it overwrites something while objects are marked, or all stores are to call.
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
        let heap = heap_of(m, "besom_write");
        store(heap, m, object, slot, value.expose_provenance() as u64, "besom_write");
    }
}

/// `besom_write_value`, likewise.
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
        let heap = heap_of(m, "besom_write_value");
        store(heap, m, object, slot.cast(), value, "besom_write_value");
    }
}

/// Copies words whole, each by one store, since a marker may read them; the ranges may overlap.
///
/// # Safety
/// Both must be ranges of so many words.
unsafe fn copy_words(from: *const u64, to: *mut u64, words: usize) {
    // SAFETY: the caller's promise.
    let copy = |i| unsafe {
        let word = AtomicU64::from_ptr(from.add(i).cast_mut()).load(Relaxed);
        AtomicU64::from_ptr(to.add(i)).store(word, Release);
    };
    if to.addr() <= from.addr() { (0..words).for_each(copy) } else { (0..words).rev().for_each(copy) }
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
        let heap = heap_of(m, "besom_write_range");
        store_range(heap, m, object, to.cast(), from.cast(), words, "besom_write_range");
    }
}

/// The same for a heap's own thread; for `function`, of C or of the Rust face.
///
/// # Safety
/// As for [`besom_write_range`]; `m` must be the calling thread's, attached and not blocked.
pub(crate) unsafe fn store_range(
    heap: &Heap,
    m: *mut Mutator,
    object: *const c_void,
    to: *mut u64,
    from: *const u64,
    words: usize,
    function: &str,
) {
    check(heap, object, function);
    // SAFETY: the caller's promise.
    unsafe {
        if heap.collector.phase() == Phase::Idle {
            return std::ptr::copy(from, to, words);
        }
        if words <= FEW {
            (0..words).for_each(|i| heap.shade(m, AtomicU64::from_ptr(to.add(i)).load(Relaxed) as usize));
        } else {
            heap.shade_range(to.cast(), words);
        }
        copy_words(from, to, words);
    }
}
