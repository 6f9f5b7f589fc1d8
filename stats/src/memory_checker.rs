//! What memory checkers are told, so that a program under one learns at the line where it happens that it uses an object
//! after its end: AddressSanitizer, if the program is built with it, and Valgrind's memcheck.
//!
//! To neither the heap is more than one mapping. So memory of a heap that is no object's is withheld: what was never
//! handed out, and what was swept. An object is lent when it is handed out, and taken back when it is swept. Memcheck keeps
//! the stacks of both calls, for its report: to it a heap is a pool. That is told object by object, so under a checker the
//! cells hold no more than one slot, and tiny objects do not share blocks.
//!
//! A thread of the library's may read and write what is withheld as far as AddressSanitizer goes, which sees of the library
//! only its calls of `memset` and the like; not as far as memcheck goes.

use crate::sync::raw::{AtomicU8, Ordering::Relaxed};
use core::ffi::c_void;

/// [`ASAN`] and [`MEMCHECK`], once [`detect`] was called.
static PRESENT: AtomicU8 = AtomicU8::new(0);
const ASAN: u8 = 1;
const MEMCHECK: u8 = 2;

/// Finds out which checkers watch this process. To be called before the first heap is made.
pub fn detect() {
    let asan = asan().map_or(0, |_| ASAN);
    let memcheck = if memcheck::is_present() { MEMCHECK } else { 0 };
    PRESENT.store(asan | memcheck, Relaxed);
}

/// Whether memory is to be lent object by object, with the functions below. A relaxed load.
#[inline(always)]
pub fn is_present() -> bool {
    PRESENT.load(Relaxed) != 0
}

/// Whether a word that was never written, or is made of such words, must be [`known`] before anything depends on it.
#[inline(always)]
pub fn tracks_values() -> bool {
    PRESENT.load(Relaxed) & MEMCHECK != 0
}

/// A heap begins; its first address is its name.
pub fn open(heap: usize) {
    if tracks_values() {
        memcheck::create_pool(heap);
    }
}

/// Addresses of a heap that are no object's, and never were.
pub fn withhold(start: usize, bytes: usize) {
    if is_present() {
        poison(start, bytes);
        if tracks_values() {
            memcheck::forbid(start, bytes);
        }
    }
}

/// An object is handed out: zero, once the caller has zeroed it after this.
#[cold]
pub fn lend(heap: usize, start: usize, bytes: usize) {
    unpoison(start, bytes);
    if tracks_values() {
        memcheck::allocate(heap, start, bytes);
    }
}

/// Part of an object that was lent is the library's own.
#[inline(always)]
pub fn keep_back(start: usize, bytes: usize) {
    if is_present() {
        // Memcheck would see the library's own look at it.
        poison(start, bytes);
    }
}

/// All of an object that was lent is the caller's, who fills it before it is taken back.
#[inline(always)]
pub fn open_up(start: usize, bytes: usize) {
    if is_present() {
        unpoison(start, bytes);
    }
}

/// An object that was lent is no more.
#[cold]
pub fn take_back(heap: usize, start: usize, bytes: usize) {
    poison(start, bytes);
    if tracks_values() {
        memcheck::free(heap, start);
    }
}

/// A heap ends, of whose addresses no more than `bytes` were withheld or lent. They may be anybody's afterwards.
pub fn close(heap: usize, bytes: usize) {
    if is_present() {
        unpoison(heap, bytes);
        if tracks_values() {
            memcheck::destroy_pool(heap);
        }
    }
}

/// The same word; what is done with it depends on nothing that was never written.
pub fn known(word: usize) -> usize {
    let at = &raw const word;
    memcheck::allow(at.addr(), size_of::<usize>());
    // SAFETY: the argument above; volatile, since its value comes from memory that Valgrind was told of.
    unsafe { at.read_volatile() }
}

#[cold]
#[inline(never)]
fn poison(start: usize, bytes: usize) {
    if let Some(asan) = asan() {
        // SAFETY: the runtime's own function, on memory of a heap, in which nobody holds an object.
        unsafe { (asan.poison)(start, bytes) };
    }
}

#[cold]
#[inline(never)]
fn unpoison(start: usize, bytes: usize) {
    if let Some(asan) = asan() {
        // SAFETY: as in `poison`; it allows what was forbidden there.
        unsafe { (asan.unpoison)(start, bytes) };
    }
}

/// The functions of AddressSanitizer's runtime that are used.
#[repr(C)]
struct Asan {
    poison: unsafe extern "C" fn(usize, usize),
    unpoison: unsafe extern "C" fn(usize, usize),
}

const ASAN_FUNCTIONS: usize = 2;

// Weak references: a program without AddressSanitizer links, and finds zeros.
core::arch::global_asm!(
    ".weak __asan_poison_memory_region",
    ".weak __asan_unpoison_memory_region",
    ".pushsection .data.rel.ro.besom_asan,\"aw\",@progbits",
    ".balign 8",
    ".globl __besom_asan",
    ".hidden __besom_asan",
    "__besom_asan:",
    ".quad __asan_poison_memory_region",
    ".quad __asan_unpoison_memory_region",
    ".popsection",
);

fn asan() -> Option<&'static Asan> {
    unsafe extern "C" {
        #[link_name = "__besom_asan"]
        static FUNCTIONS: [*const c_void; ASAN_FUNCTIONS];
    }
    const { assert!(size_of::<Asan>() == ASAN_FUNCTIONS * size_of::<usize>()) };
    // SAFETY: words, which the dynamic linker has written before the program began.
    let functions = unsafe { &FUNCTIONS };
    if functions.iter().any(|f| f.is_null()) {
        return None;
    }
    // SAFETY: none is null, and they are what the assembly names, in this order.
    Some(unsafe { &*(&raw const *functions).cast::<Asan>() })
}

/// The requests to memcheck that are used, and those to any tool of Valgrind's that knows of pools.
mod memcheck {
    use crate::valgrind::{of_tool, request};

    const FORBID: usize = of_tool(*b"MC");
    const ALLOW: usize = FORBID + 2;
    const CREATE_POOL: usize = 0x1303;
    const DESTROY_POOL: usize = 0x1304;
    const ALLOCATE: usize = 0x1305;
    const FREE: usize = 0x1306;

    /// Whether this runs under memcheck (another tool of Valgrind's knows nothing of the request).
    pub fn is_present() -> bool {
        let byte = 0u8;
        request(ALLOW, (&raw const byte).addr(), 1, 0) == usize::MAX
    }

    /// An access to these addresses is an error from here on.
    pub fn forbid(start: usize, bytes: usize) {
        request(FORBID, start, bytes, 0);
    }

    /// It is none, and what they hold is known.
    pub fn allow(start: usize, bytes: usize) {
        request(ALLOW, start, bytes, 0);
    }

    /// A pool without red zones; what is allocated in it is known to be zero.
    pub fn create_pool(name: usize) {
        request(CREATE_POOL, name, 0, 1);
    }

    /// All that is allocated in it may not be accessed from here on.
    pub fn destroy_pool(name: usize) {
        request(DESTROY_POOL, name, 0, 0);
    }

    /// What was forbidden may be accessed, and is allocated here.
    pub fn allocate(pool: usize, start: usize, bytes: usize) {
        request(ALLOCATE, pool, start, bytes);
    }

    /// What was allocated at `start` is forbidden, and was freed here.
    pub fn free(pool: usize, start: usize) {
        request(FREE, pool, start, 0);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn nobody_watches_a_test() {
        // The references are weak, or this would not link; the requests do nothing, or this would not return.
        assert_eq!((asan().is_none(), memcheck::is_present()), (true, false));
        detect();
        assert_eq!((is_present(), tracks_values(), known(7)), (false, false, 7));
        let object = [1u64; 4];
        let (start, bytes) = ((&raw const object).addr(), size_of_val(&object));
        open(start);
        withhold(start, bytes);
        lend(start, start, bytes);
        keep_back(start, 8);
        open_up(start, bytes);
        take_back(start, start, bytes);
        close(start, bytes);
        assert_eq!(object, [1; 4]);
    }
}
