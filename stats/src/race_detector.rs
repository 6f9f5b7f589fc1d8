//! What race detectors are told, so that a program that uses this library can be run under one: ThreadSanitizer, if
//! the program is built with it, and Valgrind's helgrind.
//!
//! Neither sees what keeps the library's threads apart: it is not instrumented, its locks are no pthread locks, and its
//! atomics look to helgrind like any load and store. Memory that one thread gives up and another is given (slots,
//! cells, seats) would be reported as a race of the program's. So each call into the library that moves memory
//! between threads says that it happens after every such call that was entered before it returned. That is what a
//! stop and the library's locks amount to, and a little more.
//!
//! What the library itself does inside is nothing for a detector of the program's races. ThreadSanitizer, which sees the
//! library's calls of `memset` and `mmap`, is told to look away, but while the VM's functions run. Helgrind knows no such
//! request: see `tests/c/helgrind.supp`.

use crate::sync::raw::{AtomicU8, Ordering::Relaxed};
use core::ffi::{c_char, c_int, c_void};

/// [`TSAN`] and [`HELGRIND`], once [`detect`] was called.
static PRESENT: AtomicU8 = AtomicU8::new(0);
const TSAN: u8 = 1;
const HELGRIND: u8 = 2;
/// Names the memory that was handed to [`watch`].
const MEMORY: *const AtomicU8 = &raw const PRESENT;

/// Finds out which detectors watch this process. To be called before the first [`inside`].
pub fn detect() {
    let tsan = tsan().map_or(0, |_| TSAN);
    let helgrind = if helgrind::is_present() { HELGRIND } else { 0 };
    PRESENT.store(tsan | helgrind, Relaxed);
}

/// Whether a detector watches this process.
pub fn is_present() -> bool {
    PRESENT.load(Relaxed) != 0
}

/// The calling thread is inside the library until this is dropped. The owner's address, or 0 if nobody watches.
#[must_use]
pub struct Inside(usize);

/// To be called first by a function of the library that may take memory from one thread or give it to another.
/// `owner` names the memory: calls with different owners have nothing to do with each other; null owns nothing. Costs a
/// relaxed load when no detector is present.
#[inline(always)]
pub fn inside<T>(owner: *const T) -> Inside {
    if PRESENT.load(Relaxed) == 0 {
        return Inside(0);
    }
    Inside::enter(owner.addr())
}

impl Drop for Inside {
    #[inline(always)]
    fn drop(&mut self) {
        if self.0 != 0 {
            self.leave();
        }
    }
}

/// Likewise, around `call`, for where it is to cost no more than the load: there is nothing to drop.
#[inline(always)]
pub fn within<T, R>(owner: *const T, call: impl FnOnce() -> R) -> R {
    #[cold]
    #[inline(never)]
    fn watched<R>(owner: usize, call: impl FnOnce() -> R) -> R {
        let _inside = Inside::enter(owner);
        call()
    }
    if PRESENT.load(Relaxed) == 0 { call() } else { watched(owner.addr(), call) }
}

/// Around a call of the VM's function by a thread that is [`inside`]: that is the program's code, to be watched. The
/// order of what it does and what other threads do is told by the caller, if it is the library that sees to it.
#[inline(always)]
pub fn outside<R>(call: impl FnOnce() -> R) -> R {
    if PRESENT.load(Relaxed) & TSAN == 0 {
        return call();
    }
    heed();
    let result = call();
    ignore();
    result
}

/// In the middle of the library: what this thread did is before all that follows an [`acquire`] of the same owner, or
/// the end of a call that it is [`inside`] of, later on.
#[inline(always)]
pub fn release<T>(owner: *const T) {
    if PRESENT.load(Relaxed) != 0 {
        tell_release(owner.addr());
    }
}

/// See [`release`].
#[inline(always)]
pub fn acquire<T>(owner: *const T) {
    if PRESENT.load(Relaxed) != 0 {
        tell_acquire(owner.addr());
    }
}

/// To be called when addresses that were reserved may be accessed from here on. Helgrind would never look at them; and to it
/// they are the calling thread's, until another leaves the library.
pub fn watch(start: usize, bytes: usize) {
    if PRESENT.load(Relaxed) & HELGRIND != 0 {
        helgrind::watch(start, bytes);
        helgrind::before(MEMORY.addr());
    }
}

/// To be called of memory that a program's inline functions and another thread in the library use without a lock. Helgrind, to which an atomic load is
/// a plain one, does not look at accesses to it from here on.
pub fn unwatch<T>(place: *const T) {
    if PRESENT.load(Relaxed) & HELGRIND != 0 {
        helgrind::unwatch(place.addr(), size_of::<T>());
    }
}

impl Inside {
    #[cold]
    #[inline(never)]
    fn enter(owner: usize) -> Inside {
        if owner == 0 {
            return Inside(0);
        }
        tell_release(owner);
        ignore();
        Inside(owner)
    }

    #[cold]
    #[inline(never)]
    fn leave(&self) {
        heed();
        tell_acquire(self.0);
    }
}

/// ThreadSanitizer looks away from what this thread does, until [`heed`].
#[cold]
#[inline(never)]
fn ignore() {
    if let Some(tsan) = tsan() {
        // SAFETY: the runtime's own functions, with a string that stays.
        unsafe {
            (tsan.ignore_reads)(c"besom".as_ptr(), 0);
            (tsan.ignore_writes)(c"besom".as_ptr(), 0);
        }
    }
}

#[cold]
#[inline(never)]
fn heed() {
    if let Some(tsan) = tsan() {
        // SAFETY: as in `ignore`, which came before.
        unsafe {
            (tsan.heed_writes)(c"besom".as_ptr(), 0);
            (tsan.heed_reads)(c"besom".as_ptr(), 0);
        }
    }
}

#[cold]
#[inline(never)]
fn tell_release(owner: usize) {
    if let Some(tsan) = tsan() {
        // SAFETY: the runtime's own function; an address is only a name to it.
        unsafe { (tsan.release)(owner) };
    }
    if PRESENT.load(Relaxed) & HELGRIND != 0 {
        helgrind::before(owner);
    }
}

#[cold]
#[inline(never)]
fn tell_acquire(owner: usize) {
    if let Some(tsan) = tsan() {
        // SAFETY: as in `tell_release`.
        unsafe { (tsan.acquire)(owner) };
    }
    if PRESENT.load(Relaxed) & HELGRIND != 0 {
        helgrind::after(owner);
        helgrind::after(MEMORY.addr());
    }
}

/// The functions of ThreadSanitizer's runtime that are used.
#[repr(C)]
struct Tsan {
    acquire: unsafe extern "C" fn(usize),
    release: unsafe extern "C" fn(usize),
    ignore_reads: unsafe extern "C" fn(*const c_char, c_int),
    heed_reads: unsafe extern "C" fn(*const c_char, c_int),
    ignore_writes: unsafe extern "C" fn(*const c_char, c_int),
    heed_writes: unsafe extern "C" fn(*const c_char, c_int),
}

const TSAN_FUNCTIONS: usize = 6;

// Weak references: a program without ThreadSanitizer links, and finds zeros.
core::arch::global_asm!(
    ".weak __tsan_acquire",
    ".weak __tsan_release",
    ".weak AnnotateIgnoreReadsBegin",
    ".weak AnnotateIgnoreReadsEnd",
    ".weak AnnotateIgnoreWritesBegin",
    ".weak AnnotateIgnoreWritesEnd",
    ".pushsection .data.rel.ro.besom_tsan,\"aw\",@progbits",
    ".balign 8",
    ".globl __besom_tsan",
    ".hidden __besom_tsan",
    "__besom_tsan:",
    ".quad __tsan_acquire",
    ".quad __tsan_release",
    ".quad AnnotateIgnoreReadsBegin",
    ".quad AnnotateIgnoreReadsEnd",
    ".quad AnnotateIgnoreWritesBegin",
    ".quad AnnotateIgnoreWritesEnd",
    ".popsection",
);

fn tsan() -> Option<&'static Tsan> {
    unsafe extern "C" {
        #[link_name = "__besom_tsan"]
        static FUNCTIONS: [*const c_void; TSAN_FUNCTIONS];
    }
    const { assert!(size_of::<Tsan>() == TSAN_FUNCTIONS * size_of::<usize>()) };
    // SAFETY: words, which the dynamic linker has written before the program began.
    let functions = unsafe { &FUNCTIONS };
    if functions.iter().any(|f| f.is_null()) {
        return None;
    }
    // SAFETY: none is null, and they are what the assembly names, in this order.
    Some(unsafe { &*(&raw const *functions).cast::<Tsan>() })
}

/// The requests to helgrind that are used.
mod helgrind {
    use crate::valgrind::{of_tool, request};

    const TOOL: usize = of_tool(*b"HG");
    const SEND: usize = TOOL + 0x121;
    const RECEIVE: usize = TOOL + 0x122;
    const ACCESSIBLE: usize = TOOL + 0x12e;
    const UNWATCH: usize = TOOL + 0x127;
    const WATCH: usize = TOOL + 0x128;

    /// Whether this runs under helgrind (another tool of Valgrind's knows nothing of the question).
    pub fn is_present() -> bool {
        let byte = 0u8;
        request(ACCESSIBLE, (&raw const byte).addr(), 0, 1) == 1
    }

    /// What this thread did is before all that follows an [`after`] with the same name, later on.
    pub fn before(name: usize) {
        request(SEND, name, 0, 0);
    }

    /// See [`before`].
    pub fn after(name: usize) {
        request(RECEIVE, name, 0, 0);
    }

    /// From here on accesses to these addresses are looked at.
    pub fn watch(start: usize, bytes: usize) {
        request(WATCH, start, bytes, 0);
    }

    /// From here on they are not.
    pub fn unwatch(start: usize, bytes: usize) {
        request(UNWATCH, start, bytes, 0);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn nobody_watches_a_test() {
        // The references are weak, or this would not link; the request does nothing, or this would not return.
        assert_eq!((tsan().is_none(), helgrind::is_present()), (true, false));
        detect();
        drop(inside(&0));
        assert_eq!((within(&0, || 1), outside(|| 2)), (1, 2));
        assert!(!is_present());
    }
}
