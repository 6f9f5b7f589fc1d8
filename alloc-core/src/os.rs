//! What the allocator asks of the system: mappings, threads, stack bounds, processors.
//!
//! Everything that can fail says so by value. Nothing here allocates on the C heap, except inside the C library
//! when it creates a thread or looks up the main thread's stack.

use besom_stats::race_detector;
use libc::{c_int, c_void};
use memmap2::{Advice, MmapOptions, MmapRaw};
use std::cell::Cell;
use std::ffi::CStr;
use std::io::Read as _;
use std::time::Duration;
use std::{mem::MaybeUninit, ptr};

/// The system refused memory or a thread, or the heap's limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory;

/// What a new mapping is for.
enum Purpose {
    /// A table: readable, writable, zero, committed page by page as it is touched.
    Table,
    /// Addresses only.
    Reservation,
}

enum Mapped {
    Table(MmapRaw),
    Reservation(*mut u8),
}

/// The only place that maps memory: by `mmap64` for tables and `mmap` for reservations, which is what a
/// test that makes the n-th call fail has to wrap.
fn map(bytes: usize, purpose: Purpose) -> Result<Mapped, OutOfMemory> {
    match purpose {
        Purpose::Table => {
            let map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon().map_err(|_| OutOfMemory)?;
            // A huge page would commit 2 MiB for the first touch of each of a heap's tables. A kernel
            // without huge pages refuses the advice, and is right.
            let _ = map.advise(Advice::NoHugePage);
            Ok(Mapped::Table(map.into()))
        }
        Purpose::Reservation => {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            // SAFETY: a new anonymous mapping at an address of the system's choice touches nobody's memory.
            let ptr = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
            if ptr == libc::MAP_FAILED { Err(OutOfMemory) } else { Ok(Mapped::Reservation(ptr.cast())) }
        }
    }
}

/// Zeroed memory outside the heap that costs nothing until it is touched; given back when dropped.
pub struct Mapping {
    raw: MmapRaw,
}

impl Mapping {
    /// `bytes` zero bytes, aligned to the system's pages.
    pub fn lazy_zeroed(bytes: usize) -> Result<Mapping, OutOfMemory> {
        match map(bytes, Purpose::Table)? {
            Mapped::Table(raw) => Ok(Mapping { raw }),
            Mapped::Reservation(_) => Err(OutOfMemory),
        }
    }

    /// The same, of half as many bytes, and half again down to `least`, when the system refuses: one that does not
    /// promise more than it has counts addresses as memory.
    pub fn lazy_zeroed_down_to(mut bytes: usize, least: usize) -> Result<Mapping, OutOfMemory> {
        loop {
            match Mapping::lazy_zeroed(bytes) {
                Err(_) if bytes / 2 >= least => bytes /= 2,
                result => return result,
            }
        }
    }

    /// Its first byte.
    #[inline(always)]
    pub fn ptr(&self) -> *mut u8 {
        self.raw.as_mut_ptr()
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives the memory behind a part of it, in whole pages, back to the system: it reads as zero afterwards.
    pub fn discard(&self, from: usize, bytes: usize) {
        debug_assert!(from + bytes <= self.len() && from.is_multiple_of(page_size()));
        // SAFETY: the part lies within the mapping, which is ours; what it held is not needed, says the caller.
        unsafe { libc::madvise(self.ptr().add(from).cast(), bytes, libc::MADV_DONTNEED) };
    }
}

/// Addresses that belong to us and have no memory behind them; given back, memory and all, when dropped.
pub(crate) struct Reservation {
    start: *mut u8,
    len: usize,
}

// SAFETY: a range of addresses belongs to no thread; what is done with the memory is the users' business.
unsafe impl Send for Reservation {}
// SAFETY: as above; the two fields never change.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Reserves `bytes` addresses.
    pub(crate) fn new(bytes: usize) -> Result<Reservation, OutOfMemory> {
        match map(bytes, Purpose::Reservation)? {
            Mapped::Reservation(start) => Ok(Reservation { start, len: bytes }),
            Mapped::Table(_) => Err(OutOfMemory),
        }
    }

    /// Its first address.
    pub(crate) fn start(&self) -> usize {
        self.start as usize
    }

    /// The part `start..start + bytes` as arguments for a system call.
    fn part(&self, start: usize, bytes: usize) -> *mut c_void {
        let offset = start.wrapping_sub(self.start());
        if offset > self.len || bytes > self.len - offset {
            besom_stats::fatal(format_args!("{bytes} bytes at {start:#x} are outside the reservation"));
        }
        self.start.wrapping_add(offset).cast()
    }

    /// Makes addresses readable and writable, still without memory.
    pub(crate) fn allow_access(&self, start: usize, bytes: usize) -> Result<(), OutOfMemory> {
        let part = self.part(start, bytes);
        // SAFETY: the range lies in our own mapping, by `part`, and access is only widened.
        let failed = unsafe { libc::mprotect(part, bytes, libc::PROT_READ | libc::PROT_WRITE) } != 0;
        if failed {
            return Err(OutOfMemory);
        }
        race_detector::watch(start, bytes);
        Ok(())
    }

    /// Drops the memory behind addresses that may be accessed; they read as zero afterwards. False: the system
    /// would not (memory locked by the program), and nothing changed.
    ///
    /// # Safety
    /// Nobody uses what the range holds.
    pub(crate) unsafe fn drop_memory(&self, start: usize, bytes: usize) -> bool {
        let part = self.part(start, bytes);
        // SAFETY: the range lies in our own mapping, by `part`, and nobody uses its contents, by contract.
        unsafe { libc::madvise(part, bytes, libc::MADV_DONTNEED) == 0 }
    }

    /// Tells the system whether huge pages are wanted in a range. Advice only: failure means nothing.
    pub(crate) fn advise_huge(&self, start: usize, bytes: usize, wanted: bool) {
        let advice = if wanted { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        let part = self.part(start, bytes);
        // SAFETY: the range lies in our own mapping, by `part`; the advice does not change contents.
        unsafe { libc::madvise(part, bytes, advice) };
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, and is given up with its only owner.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// Bytes in a page of the system.
pub fn page_size() -> usize {
    // SAFETY: reads a constant of the system.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Bytes in a huge page of the system; 0: it has none, or does not tell.
pub(crate) fn huge_page_size() -> usize {
    number_from("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
}

/// The number at the start of a file of the system's; 0: there is none.
fn number_from(path: &str) -> usize {
    let mut text = [0; 64];
    let Ok(n) = std::fs::File::open(path).and_then(|mut f| f.read(&mut text)) else { return 0 };
    let digits = text[..n].iter().take_while(|b| b.is_ascii_digit());
    digits.fold(0, |sum, b| sum * 10 + usize::from(b - b'0'))
}

/// Addresses that the process may still map under its resource limit (`ulimit -v`); `None` without a limit.
pub(crate) fn address_space_left() -> Option<usize> {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: the call writes one `rlimit` where it is told to.
    if unsafe { libc::getrlimit(libc::RLIMIT_AS, limit.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: written by the call, which succeeded.
    let limit = unsafe { limit.assume_init() }.rlim_cur;
    if limit == libc::RLIM_INFINITY {
        return None;
    }
    Some(usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(mapped_bytes()))
}

/// Addresses mapped by the process now; 0 where the system does not tell.
pub(crate) fn mapped_bytes() -> usize {
    number_from("/proc/self/statm") * page_size()
}

/// Processors that this process may run on, by affinity and by quota; at least 1.
pub fn cpu_count() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Processor time that the calling thread has used; 0 where the system does not tell.
pub fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one `timespec` where it is told to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The native stack of the calling thread as (lowest address, address past the highest).
pub fn native_stack_bounds() -> Option<(usize, usize)> {
    let mut attr = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: the call initialises `attr`, or fails.
    if unsafe { libc::pthread_getattr_np(libc::pthread_self(), attr.as_mut_ptr()) } != 0 {
        return None;
    }
    let (mut low, mut size) = (ptr::null_mut(), 0);
    // SAFETY: `attr` was initialised by the call above, and is destroyed exactly once.
    let failed = unsafe {
        let failed = libc::pthread_attr_getstack(attr.as_ptr(), &mut low, &mut size) != 0;
        libc::pthread_attr_destroy(attr.as_mut_ptr());
        failed
    };
    (!failed && !low.is_null()).then(|| (low as usize, low as usize + size))
}

/// The body of a thread.
pub type ThreadBody = unsafe extern "C" fn(*mut c_void) -> *mut c_void;

/// A thread of the runtime's own; dropped without [`Thread::join`], it runs on by itself.
#[must_use = "a thread that is not joined may outlive what it works on"]
pub struct Thread {
    handle: libc::pthread_t,
}

impl Thread {
    /// Waits for the end of the thread, and gives what its body returned.
    pub fn join(self) -> *mut c_void {
        let mut result = ptr::null_mut();
        // SAFETY: the handle is of a thread that was neither joined nor detached: `self` owned it.
        let error = unsafe { libc::pthread_join(self.handle, &mut result) };
        if error != 0 {
            besom_stats::fatal(format_args!("cannot join a thread of the runtime (error {error})"));
        }
        self.forget();
        result
    }

    /// Neither joins nor detaches it, ever. So in the child of a fork, in which the thread does not exist: to join it would
    /// fail, to detach it would touch what the system's library has taken back.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

thread_local! {
    static OWN: Cell<bool> = const { Cell::new(false) };
}

/// To be called first by the body of a thread of the runtime's own that may call the program's functions.
pub fn enter_own_thread() {
    OWN.set(true);
}

/// Whether the calling thread has done so.
pub fn is_own_thread() -> bool {
    OWN.get()
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: as in `join`, which forgets `self`.
        unsafe { libc::pthread_detach(self.handle) };
    }
}

/// Starts a thread with every signal blocked, so that the program's handlers never run on it. At most
/// 15 bytes of name; a longer one leaves the thread unnamed.
///
/// # Safety
/// `body(arg)` must be sound to run on another thread, for as long as the thread lives.
pub unsafe fn spawn_thread(name: &CStr, body: ThreadBody, arg: *mut c_void) -> Result<Thread, OutOfMemory> {
    unsafe extern "C" {
        fn pthread_create(
            handle: *mut libc::pthread_t,
            attr: *const libc::pthread_attr_t,
            body: ThreadBody,
            arg: *mut c_void,
        ) -> c_int;
    }
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut old = MaybeUninit::<libc::sigset_t>::uninit();
    let mut handle = 0;
    // SAFETY: the signal sets are initialised by the calls before they are read; a thread inherits
    // the mask of its creator, whose own is restored; the body is sound to run, by contract; the
    // handle is valid until it is joined or detached, which happens in `Thread` only.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
        let error = pthread_create(&mut handle, ptr::null(), body, arg);
        libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), ptr::null_mut());
        if error != 0 {
            return Err(OutOfMemory);
        }
        libc::pthread_setname_np(handle, name.as_ptr());
    }
    Ok(Thread { handle })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_zero_and_writable() {
        let m = Mapping::lazy_zeroed(1 << 30).unwrap();
        assert_eq!((m.len(), m.is_empty()), (1 << 30, false));
        // SAFETY: the last byte of the mapping.
        unsafe {
            let last = m.ptr().add(m.len() - 1);
            assert_eq!(*last, 0);
            *last = 7;
            assert_eq!(*last, 7);
        }
    }

    #[test]
    fn more_than_the_address_space_is_refused() {
        assert!(Mapping::lazy_zeroed(1 << 60).is_err());
        assert!(Reservation::new(1 << 60).is_err());
    }

    #[test]
    fn dropped_memory_reads_as_zero() {
        let r = Reservation::new(1 << 20).unwrap();
        let p = r.start() as *mut u8;
        r.allow_access(r.start(), 1 << 16).unwrap();
        // SAFETY: the range was made accessible, and nobody else knows it.
        unsafe {
            p.write_bytes(0xAA, 1 << 16);
            assert!(r.drop_memory(r.start(), 1 << 15));
            assert_eq!(*p, 0);
            assert_eq!(*p.add(1 << 15), 0xAA);
        }
    }

    #[test]
    fn a_range_outside_is_fatal() {
        let r = Reservation::new(1 << 20).unwrap();
        // SAFETY: the child only makes the call under test, which ends it; the parent waits for it.
        let status = unsafe {
            let child = libc::fork();
            if child == 0 {
                let _ = r.allow_access(r.start() + (1 << 19), 1 << 20);
                libc::_exit(0);
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            status
        };
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGABRT);
    }

    #[test]
    fn the_stack_bounds_hold_a_local() {
        for bounds in [native_stack_bounds, || std::thread::spawn(native_stack_bounds).join().unwrap()] {
            let (low, high) = bounds().unwrap();
            assert!(low < high);
        }
        let local = 0u8;
        let (low, high) = native_stack_bounds().unwrap();
        assert!((low..high).contains(&(&raw const local as usize)));
    }

    #[test]
    fn system_facts_are_plausible() {
        assert!(page_size().is_power_of_two() && page_size() >= 4096);
        assert!(cpu_count() >= 1);
        assert!(mapped_bytes() > 1 << 20);
        assert!(huge_page_size() == 0 || huge_page_size() > page_size());
    }

    unsafe extern "C" fn body(arg: *mut c_void) -> *mut c_void {
        let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: reads the thread's mask into `mask`; `arg` is the test's own counter, alive until the join.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), mask.as_mut_ptr());
            *arg.cast::<i32>() = libc::sigismember(mask.as_ptr(), libc::SIGUSR1);
        }
        arg
    }

    #[test]
    fn a_thread_runs_with_signals_blocked() {
        let mut blocked = -1i32;
        let arg: *mut c_void = (&raw mut blocked).cast();
        // SAFETY: the counter outlives the thread, which is joined below.
        let thread = unsafe { spawn_thread(c"besom test", body, arg) }.unwrap();
        assert_eq!(thread.join(), arg);
        assert_eq!(blocked, 1);
        let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: reads this thread's mask.
        let here = unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), mask.as_mut_ptr());
            libc::sigismember(mask.as_ptr(), libc::SIGUSR1)
        };
        assert_eq!(here, 0, "the creator's own mask is restored");
    }
}
