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
    /// See `besom.h`.
    pub fn besom_weak_new(m: *mut c_void, object: *mut c_void) -> *mut c_void;
    /// See `besom.h`.
    pub fn besom_weak_get(m: *mut c_void, weak: *mut c_void) -> *mut c_void;
    /// See `besom.h`.
    pub fn besom_weak_free(heap: *mut c_void, weak: *mut c_void);
    /// See `besom.h`.
    pub fn besom_ephemeron_new(m: *mut c_void, key: *mut c_void, value: *mut c_void) -> *mut c_void;
    /// See `besom.h`.
    pub fn besom_ephemeron_key(m: *mut c_void, ephemeron: *mut c_void) -> *mut c_void;
    /// See `besom.h`.
    pub fn besom_ephemeron_value(m: *mut c_void, ephemeron: *mut c_void) -> *mut c_void;
    /// See `besom.h`.
    pub fn besom_cleanup_add(
        m: *mut c_void,
        object: *mut c_void,
        run: Cleanup,
        arg: *mut c_void,
        out: *mut u64,
    ) -> c_int;
    /// See `besom.h`.
    pub fn besom_cleanup_cancel(heap: *mut c_void, cleanup: u64) -> c_int;
    /// See `besom.h`.
    pub fn besom_finalizer_set(
        m: *mut c_void,
        object: *mut c_void,
        run: Option<Finalizer>,
        data: *mut c_void,
    ) -> c_int;
    /// See `besom.h`.
    pub fn besom_finalizers_run(m: *mut c_void, at_most: usize) -> usize;
}

/// `run` of `besom_cleanup_add`.
pub type Cleanup = unsafe extern "C" fn(*mut c_void);
/// `run` of `besom_finalizer_set`.
pub type Finalizer = unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_void);

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
