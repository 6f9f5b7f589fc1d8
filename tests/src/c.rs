//! The functions of `besom.h` that the Rust face has no method for.

use std::ffi::{c_int, c_uint, c_void};

unsafe extern "C" {
    /// See `besom.h`.
    pub fn besom_stack_set(m: *mut c_void, base: *mut c_void, top: *mut *mut c_void, kind: c_int) -> c_int;
    /// See `besom.h`.
    pub fn besom_roots_add(heap: *mut c_void, start: *mut c_void, words: usize, kind: c_int) -> c_int;
    /// See `besom.h`.
    pub fn besom_roots_remove(heap: *mut c_void, start: *mut c_void) -> c_int;
    /// See `besom.h`.
    pub fn besom_handle_new(m: *mut c_void, object: *mut c_void) -> *mut c_void;
    /// See `besom.h`.
    pub fn besom_handle_get(m: *mut c_void, handle: *mut c_void) -> *mut c_void;
    /// See `besom.h`.
    pub fn besom_handle_set(m: *mut c_void, handle: *mut c_void, object: *mut c_void);
    /// See `besom.h`.
    pub fn besom_handle_free(heap: *mut c_void, handle: *mut c_void);
    /// See `besom.h`.
    pub fn besom_gc_percent_set(heap: *mut c_void, percent: c_uint);
    /// See `besom.h`.
    pub fn besom_memory_limit_set(heap: *mut c_void, bytes: usize);
    /// See `besom.h`.
    pub fn besom_procs(heap: *mut c_void) -> c_uint;
}

/// The heap for the functions above.
pub fn heap(heap: &besom::Heap) -> *mut c_void {
    std::ptr::from_ref(heap).cast_mut().cast()
}

/// What `besom.h` shows of a mutator.
#[repr(C)]
pub struct MutatorPrefix {
    cells: *mut c_void,
    poll: u32,
    barrier: u32,
    /// The innermost frame.
    pub frames: *const Frame,
}

/// `struct besom_frame`.
#[repr(C)]
pub struct Frame {
    /// The next one out.
    pub previous: *const Frame,
    /// Slots.
    pub count: usize,
    /// The addresses of the locals.
    pub slots: *const *const u64,
}
