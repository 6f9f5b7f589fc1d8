//! The one shim for concurrency: atomics, locks, threads and cells are named here and nowhere else.
//!
//! Under `cfg(loom)` they are loom's, so that the protocols built on them can be model-checked as they
//! stand. [`raw`] is the exception: atomics that live in mapped memory (mark bits, page tables, the fields
//! that C reads) cannot be loom's objects, so they are always the processor's; so are plain counters that order
//! nothing and that no model is about.

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

/// Locks a mutex whose holders never panic: a poisoned lock means a broken invariant, and aborts.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.lock() {
        Ok(guard) => guard,
        Err(_) => crate::fatal(format_args!("lock poisoned")),
    }
}
