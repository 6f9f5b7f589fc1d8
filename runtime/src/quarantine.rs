//! What is left of a heap that a C program has freed: nothing, except in the checked build, the one with debug assertions.
//! There its struct stays, poisoned, and the array of its mutators, so that a late call can be told and named.

use crate::heap::Heap;
use crate::mutator::Mutator;
#[cfg(debug_assertions)]
use besom_stats::{
    fatal,
    sync::raw::{AtomicU64, Ordering::*},
};

/// Of a heap that is not freed: no pointer, no text, no small number.
#[cfg(debug_assertions)]
const LIVE: u64 = 0x6c69_7665_b350_4ea9;
/// Of one that is.
#[cfg(debug_assertions)]
const FREED: u64 = 0x6672_6565_b350_4ea9;
/// The state of a mutator of such a heap.
#[cfg(debug_assertions)]
const HEAP_FREED: u32 = 0x0f2e_ed4e;
/// What else is left of it: as the objects of `clobber_free`.
#[cfg(debug_assertions)]
const POISON: u8 = 0xdb;

/// Whether a heap is freed.
#[cfg(debug_assertions)]
pub(crate) struct Life(AtomicU64);

#[cfg(debug_assertions)]
impl Life {
    /// Of a heap that is made.
    pub(crate) const fn new() -> Life {
        Life(AtomicU64::new(LIVE))
    }
}

/// Aborts, in the name of `function`, if the heap is freed or no heap, as far as that is checked.
///
/// # Safety
/// `heap` must be readable.
#[inline(always)]
pub(crate) unsafe fn check(heap: *const Heap, function: &str) {
    #[cfg(debug_assertions)]
    // SAFETY: the caller's promise.
    match unsafe { (*heap).life.0.load(Acquire) } {
        LIVE => {}
        FREED => fatal(format_args!("{function}: heap is freed")),
        _ => fatal(format_args!("{function}: {:#x} is no heap", heap.addr())),
    }
    #[cfg(not(debug_assertions))]
    let _ = (heap, function);
}

/// Whether the array of a heap's mutators stays when the heap goes.
pub(crate) fn keeps_mutators(heap: &Heap) -> bool {
    #[cfg(debug_assertions)]
    return heap.life.0.load(Acquire) == FREED;
    #[cfg(not(debug_assertions))]
    {
        let _ = heap;
        false
    }
}

/// Aborts, in the name of `function`, if the mutator's heap is freed, as far as that is checked.
///
/// # Safety
/// `m` must be readable.
#[inline(always)]
pub(crate) unsafe fn check_mutator(m: *const Mutator, function: &str) {
    #[cfg(debug_assertions)]
    // SAFETY: the caller's promise.
    if unsafe { Mutator::state(m) } == HEAP_FREED {
        fatal(format_args!("{function}: heap is freed"));
    }
    #[cfg(not(debug_assertions))]
    let _ = (m, function);
}

/// Frees a heap.
///
/// # Safety
/// It must be boxed and in nobody's use, and is not used again.
pub(crate) unsafe fn free(heap: *mut Heap) {
    #[cfg(debug_assertions)]
    // SAFETY: the caller's promise; the box is never dropped, so that its memory stays.
    unsafe {
        (*heap).life.0.store(FREED, Release);
        (*heap).mutators().for_each(|m| Mutator::set_state(m, HEAP_FREED));
        heap.drop_in_place();
        heap.cast::<u8>().write_bytes(POISON, size_of::<Heap>());
        (*heap).life.0.store(FREED, Release);
    }
    #[cfg(not(debug_assertions))]
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(heap) });
}
