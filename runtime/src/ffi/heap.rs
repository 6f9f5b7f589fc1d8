//! Status, options, heaps, statistics.

use super::{Status, heap, heap_of, status};
use crate::heap::Heap;
use crate::mutator::Mutator;
use crate::options::Options;
use crate::quarantine;
use crate::statistics::Stats;
use crate::status::Error;
use besom_alloc_core::units::Bytes;
use besom_stats::MemStats;
use besom_stats::race_detector::inside;
use std::ffi::{c_char, c_int, c_uint};
use std::pin::Pin;

/// `besom_status_name`.
#[unsafe(no_mangle)]
pub extern "C" fn besom_status_name(status: c_int) -> *const c_char {
    let name = match status {
        0 => c"BESOM_OK",
        1 => c"BESOM_ERR_NO_MEMORY",
        2 => c"BESOM_ERR_INVALID",
        3 => c"BESOM_ERR_STATE",
        4 => c"BESOM_ERR_LIMIT",
        _ => c"unknown status",
    };
    name.as_ptr()
}

/// `besom_version`.
#[unsafe(no_mangle)]
pub extern "C" fn besom_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// `besom_options_init`.
///
/// # Safety
/// `options` must point to room for them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_options_init(options: *mut Options) {
    // SAFETY: the caller's promise.
    unsafe { options.write(Options::from_environment()) };
}

/// `besom_heap_new`.
///
/// # Safety
/// `options` must be null or initialised, `out` null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_heap_new(options: *const Options, out: *mut *mut Heap) -> Status {
    if out.is_null() {
        return Error::Invalid as Status;
    }
    // SAFETY: the caller's promise; the size comes first, and is checked before the rest is read.
    let options = unsafe {
        if options.is_null() {
            Options::from_environment()
        } else if (&raw const (*options).struct_size).read() != size_of::<Options>() {
            return Error::Invalid as Status;
        } else {
            options.read()
        }
    };
    match Heap::new(&options) {
        Ok(heap) => {
            // SAFETY: the caller's promise.
            unsafe { out.write(Box::into_raw(Pin::into_inner_unchecked(heap))) };
            0
        }
        Err(error) => error as Status,
    }
}

/// `besom_heap_free`.
///
/// # Safety
/// `h` must be null or a heap that is not freed, and in no other thread's use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_heap_free(h: *mut Heap) -> Status {
    // SAFETY: the caller's promise.
    let Ok(heap) = (unsafe { heap(h, "besom_heap_free") }) else { return 0 };
    if heap.forked.awaits() || heap.scheduler.attached() != 0 {
        return Error::State as Status;
    }
    // SAFETY: made by `besom_heap_new`, and nobody is attached.
    unsafe { quarantine::free(h) };
    0
}

/// `besom_procs_set`.
///
/// # Safety
/// `h` must be null or a heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_procs_set(h: *mut Heap, n: c_uint) -> Status {
    let _inside = inside(h);
    // SAFETY: the caller's promise.
    status(unsafe { heap(h, "besom_procs_set") }.and_then(|heap| heap.set_procs(n)))
}

/// `besom_procs`.
///
/// # Safety
/// `h` must be a heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_procs(h: *mut Heap) -> c_uint {
    // SAFETY: the caller's promise.
    unsafe { heap(h, "besom_procs") }.map_or(0, |heap| heap.scheduler.limit() as c_uint)
}

/// `besom_gc_percent_set`.
///
/// # Safety
/// `h` must be a heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_gc_percent_set(h: *mut Heap, percent: c_uint) {
    // SAFETY: the caller's promise.
    if let Ok(heap) = unsafe { heap(h, "besom_gc_percent_set") } {
        heap.collector.pacer().set_percent(percent);
    }
}

/// `besom_memory_limit_set`.
///
/// # Safety
/// `h` must be a heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_memory_limit_set(h: *mut Heap, bytes: usize) {
    // SAFETY: the caller's promise.
    if let Ok(heap) = unsafe { heap(h, "besom_memory_limit_set") } {
        heap.set_memory_limit(Bytes(bytes));
    }
}

/// `besom_release_memory`.
///
/// # Safety
/// `h` must be a heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_release_memory(h: *mut Heap) -> usize {
    let _inside = inside(h);
    // SAFETY: the caller's promise.
    unsafe { heap(h, "besom_release_memory") }.map_or(0, |heap| heap.release_memory().0)
}

/// `besom_stats_read`.
///
/// # Safety
/// `h` must be a heap, `out` writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_stats_read(h: *mut Heap, out: *mut Stats) {
    // SAFETY: the caller's promise.
    unsafe {
        if let Ok(heap) = heap(h, "besom_stats_read") {
            out.write(heap.stats());
        }
    }
}

entry! {
    /// `besom_mem_stats_read`.
    besom_mem_stats_read(m: *mut Mutator, out: *mut MemStats) = mem_stats
}

/// # Safety
/// `m` must be a mutator with its registers captured, `out` writable.
unsafe extern "C" fn mem_stats(m: *mut Mutator, out: *mut MemStats) {
    // SAFETY: the caller's promise.
    unsafe {
        let heap = heap_of(m, "besom_mem_stats_read");
        let inside = inside(heap);
        let stats = heap.mem_stats(m);
        drop(inside);
        out.write(stats);
    }
}

entry! {
    /// `besom_mem_stats_read_slow`.
    besom_mem_stats_read_slow(m: *mut Mutator, counted: *mut MemStats, walked: *mut MemStats) = mem_stats_slow
}

/// # Safety
/// `m` must be a mutator with its registers captured, `counted` and `walked` writable.
unsafe extern "C" fn mem_stats_slow(m: *mut Mutator, counted: *mut MemStats, walked: *mut MemStats) {
    // SAFETY: the caller's promise.
    unsafe {
        let heap = heap_of(m, "besom_mem_stats_read_slow");
        let inside = inside(heap);
        let both = heap.mem_stats_slow(m);
        drop(inside);
        counted.write(both.0);
        walked.write(both.1);
    }
}
