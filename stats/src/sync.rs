//! The one shim for concurrency: atomics, locks, threads and cells are named here and nowhere else.
//!
//! Under `cfg(loom)` they are loom's, so that the protocols built on them can be model-checked as they
//! stand. [`raw`] is the exception: atomics that live in mapped memory (mark bits, page tables, the fields
//! that C reads) cannot be loom's objects, so they are always the processor's; so are plain counters that order
//! nothing and that no model is about.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

#[cfg(loom)]
pub use loom::{
    hint::spin_loop,
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread::yield_now,
};
#[cfg(not(loom))]
pub use std::{
    hint::spin_loop,
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread::yield_now,
};

/// Atomics of the processor itself, also under loom: for memory that is mapped or shared with C, and for counters
/// that order nothing.
pub mod raw {
    pub use core::sync::atomic::{
        AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
        fence,
    };
}

/// Says who may touch data made of relaxed atomics, and when. Nothing in a build; in a loom model each call is
/// checked as an access to memory that is not atomic: sharers exclude owners, and what keeps them apart must be a
/// happens-before. (Loom orders the stores to one atomic as they are run, so it would not see by itself that a
/// relaxed addition may come before the store that empties the counter.) With `--cfg race_check` it is such memory, for
/// ThreadSanitizer to watch.
#[derive(Default)]
pub struct AccessCheck(
    #[cfg(loom)] loom::cell::UnsafeCell<()>,
    #[cfg(race_check)] core::cell::UnsafeCell<u8>,
);

// SAFETY: there is no data; loom's cell reports the races that the type is there to find.
#[cfg(any(loom, race_check))]
unsafe impl Sync for AccessCheck {}

impl AccessCheck {
    /// This thread, perhaps among others, touches the data now.
    #[inline]
    pub fn shared(&self) {
        #[cfg(loom)]
        self.0.with(|_| ());
        #[cfg(race_check)]
        // SAFETY: a byte that is there to be watched.
        unsafe {
            self.0.get().read_volatile();
        }
    }

    /// This thread alone touches the data now.
    #[inline]
    pub fn exclusive(&self) {
        #[cfg(loom)]
        self.0.with_mut(|_| ());
        #[cfg(race_check)]
        // SAFETY: as above.
        unsafe {
            self.0.get().write_volatile(0);
        }
    }
}

/// A lock that is held, whatever it guards: for who has to hold very many for a while, all of one type.
pub struct Held<'a> {
    /// A `MutexGuard<'a, T>`.
    guard: MaybeUninit<[usize; GUARD_WORDS]>,
    release: unsafe fn(*mut usize),
    _holds: PhantomData<(&'a (), *mut ())>,
}

/// Room for a guard.
const GUARD_WORDS: usize = if cfg!(loom) { 8 } else { 2 };

/// [`lock`], and forgets what it guards.
pub fn hold<T>(mutex: &Mutex<T>) -> Held<'_> {
    hold_on(lock(mutex))
}

/// Forgets what a lock guards.
pub fn hold_on<T>(lock: MutexGuard<'_, T>) -> Held<'_> {
    /// # Safety
    /// A guard of a `Mutex<T>` must lie there, and is gone afterwards.
    unsafe fn release<T>(guard: *mut usize) {
        // SAFETY: the caller's promise.
        unsafe { guard.cast::<MutexGuard<'_, T>>().drop_in_place() };
    }
    const { assert!(size_of::<MutexGuard<'_, T>>() <= GUARD_WORDS * 8 && align_of::<MutexGuard<'_, T>>() <= 8) };
    let mut held = Held { guard: MaybeUninit::uninit(), release: release::<T>, _holds: PhantomData };
    // SAFETY: there is room, as just asserted; who drops it knows the type.
    unsafe { held.guard.as_mut_ptr().cast::<MutexGuard<'_, T>>().write(lock) };
    held
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // SAFETY: `hold` has put the guard there, of the function's type, and nobody has dropped it.
        unsafe { (self.release)(self.guard.as_mut_ptr().cast()) };
    }
}

/// Locks a mutex whose holders never panic: a poisoned lock means a broken invariant, and aborts.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.lock() {
        Ok(guard) => guard,
        Err(_) => crate::fatal(format_args!("lock poisoned")),
    }
}
