//! The C interface, function by function as `besom.h` documents them: checks, then one call of the Rust side.

mod alloc;
mod heap;
mod roots;
mod stores;
mod threads;

use crate::heap::Heap;
use crate::mutator::Mutator;
use crate::status::{Error, Result};
use std::ffi::c_int;

/// `besom_status`: 0, or an [`Error`].
type Status = c_int;

fn status(result: Result<()>) -> Status {
    match result {
        Ok(()) => 0,
        Err(error) => error as Status,
    }
}

/// The heap of a mutator that the caller may use now; aborts otherwise, in the name of `function`.
///
/// # Safety
/// `m` must be a mutator of a heap that is not freed.
#[inline(always)]
unsafe fn heap_of<'h>(m: *mut Mutator, function: &str) -> &'h Heap {
    // SAFETY: the caller's promise.
    unsafe {
        (*m).check(function);
        &*(*m).heap
    }
}

/// # Safety
/// `heap` must be null or a heap that is not freed.
unsafe fn heap<'h>(heap: *mut Heap) -> Result<&'h Heap> {
    // SAFETY: the caller's promise.
    unsafe { heap.as_ref() }.ok_or(Error::Invalid)
}
