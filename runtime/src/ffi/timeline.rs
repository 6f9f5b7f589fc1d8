//! Pictures of a run.

use super::{Status, heap, status};
use crate::heap::Heap;
use crate::status::Error;
use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// `besom_timeline_start`.
///
/// # Safety
/// `h` must be null or a heap, `path` null or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_timeline_start(h: *mut Heap, path: *const c_char) -> Status {
    if path.is_null() {
        return Error::Invalid as Status;
    }
    // SAFETY: the caller's promise.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
    // SAFETY: the caller's promise.
    status(unsafe { heap(h, "besom_timeline_start") }.and_then(|heap| heap.timeline_start(path)))
}

/// `besom_timeline_stop`.
///
/// # Safety
/// `h` must be null or a heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_timeline_stop(h: *mut Heap) -> Status {
    // SAFETY: the caller's promise.
    status(unsafe { heap(h, "besom_timeline_stop") }.and_then(Heap::timeline_stop))
}
