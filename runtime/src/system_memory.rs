//! The library's own memory, in a C program: from mappings, never from the process's `malloc`.
//!
//! A VM may wrap `malloc`, or hold its lock when it enters the library. Small requests are still met when the
//! system refuses a mapping, out of a reserve in the program's image: the crates that the library uses cannot
//! report such a refusal, and a status is owed for it, not an abort.

use besom_alloc_core::os::page_size;
use besom_stats::race_detector::inside;
use besom_stats::sync::raw::{AtomicBool, Ordering::*};
use dlmalloc::{Allocator, Dlmalloc};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::null_mut;

/// Bytes of the reserve; not resident until it is used.
const RESERVE: usize = 256 << 10;

#[repr(align(4096))]
struct Reserve(UnsafeCell<[u8; RESERVE]>);

// SAFETY: handed out as a whole, once.
unsafe impl Sync for Reserve {}

static RESERVED: Reserve = Reserve(UnsafeCell::new([0; RESERVE]));
static RESERVE_TAKEN: AtomicBool = AtomicBool::new(false);

/// Mappings, and the reserve when there are none.
struct System;

// SAFETY: memory comes from `mmap`, or from the reserve, which is handed out once and never taken back.
unsafe impl Allocator for System {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let at = map(size);
        if !at.is_null() {
            (at, size, 0)
        } else if size <= RESERVE && !RESERVE_TAKEN.swap(true, AcqRel) {
            (RESERVED.0.get().cast(), RESERVE, 1)
        } else {
            (null_mut(), 0, 0)
        }
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, at: *mut u8, size: usize) -> bool {
        if at == RESERVED.0.get().cast() {
            return false;
        }
        // SAFETY: a mapping that `alloc` made, as a whole.
        unsafe { libc::munmap(at.cast(), size) == 0 }
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        page_size()
    }
}

/// A mapping of that size, zeroed; null when the system refuses.
fn map(size: usize) -> *mut u8 {
    // SAFETY: an anonymous private mapping at an address of the system's choice.
    let at = unsafe {
        libc::mmap(
            null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED { null_mut() } else { at.cast() }
}

/// From here on a request has a mapping of its own, which goes back to the system when it is freed: a heap's struct
/// is such. Higher: memory of freed heaps stays. Lower: more system calls.
const LARGE: usize = 8 << 10;

fn is_large(layout: Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= 4096
}

struct Memory {
    busy: AtomicBool,
    heap: UnsafeCell<Dlmalloc<System>>,
}

// SAFETY: `heap` is used by the one who holds `busy` only.
unsafe impl Sync for Memory {}

impl Memory {
    fn with<R>(&self, f: impl FnOnce(&mut Dlmalloc<System>) -> R) -> R {
        let _inside = inside(self);
        self.take();
        // SAFETY: `busy` was false and is ours.
        let result = f(unsafe { &mut *self.heap.get() });
        self.busy.store(false, Release);
        result
    }

    fn take(&self) {
        while self.busy.compare_exchange_weak(false, true, Acquire, Relaxed).is_err() {
            besom_stats::sync::yield_now();
        }
    }
}

/// Keeps everybody from the library's own memory until [`release`]: a fork in the middle of a request would leave it torn
/// in the child. Nothing may be allocated meanwhile, nor freed.
pub(crate) fn hold() {
    MEMORY.take();
}

/// See [`hold`]; in the parent and in the child.
pub(crate) fn release() {
    MEMORY.busy.store(false, Release);
}

// SAFETY: dlmalloc keeps the contract; the lock makes it usable from every thread.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return map(layout.size());
        }
        // SAFETY: the caller's promise.
        self.with(|heap| unsafe { heap.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return map(layout.size());
        }
        // SAFETY: the caller's promise.
        self.with(|heap| unsafe { heap.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if is_large(layout) {
            System.free(at, layout.size());
            return;
        }
        // SAFETY: the caller's promise.
        self.with(|heap| unsafe { heap.free(at, layout.size(), layout.align()) });
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise: the new size is valid with the alignment.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if is_large(layout) || is_large(new) {
            // SAFETY: the caller's promise; both blocks hold the bytes that are copied.
            unsafe {
                let to = self.alloc(new);
                if !to.is_null() {
                    to.copy_from_nonoverlapping(at, layout.size().min(size));
                    self.dealloc(at, layout);
                }
                return to;
            }
        }
        // SAFETY: the caller's promise.
        self.with(|heap| unsafe { heap.realloc(at, layout.size(), layout.align(), size) })
    }
}

#[global_allocator]
static MEMORY: Memory =
    Memory { busy: AtomicBool::new(false), heap: UnsafeCell::new(Dlmalloc::new_with_allocator(System)) };
