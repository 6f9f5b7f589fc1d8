//! A mutator: an attached thread, as C sees it and as the collector does.

use crate::barrier::Stores;
use crate::cells::{Cell as AllocationCell, NO_CELLS};
use crate::heap::Heap;
use crate::mcache::P;
use crate::overwritten::Overwritten;
use crate::quarantine;
use crate::scan_turn::ScanTurn;
use crate::scheduler::{POLL_STOP, Seat};
use besom_alloc_core::span_class::Kind;
use besom_alloc_core::units::Bytes;
use besom_gc::scan::{scan_stack, scan_words};
use besom_gc::{Phase, TraceFn, Tracer, Visitor};
use besom_stats::race_detector::{outside, unwatch};
use besom_stats::sync::raw::{AtomicU32, AtomicU64, Ordering::*};
use besom_stats::{fatal, memory_checker};
use std::cell::Cell;
use std::ffi::c_void;

/// Seats of a heap. Higher: address space, 256 bytes each. Lower: programs with very many threads are refused.
pub const MUTATORS_MOST: usize = 1 << 16;

/// A linked frame on the native stack; `besom_frame` in C.
#[repr(C)]
pub struct Frame {
    previous: *const Frame,
    count: usize,
    slots: *const *const *mut c_void,
}

impl Frame {
    /// A frame inside `previous`, of the locals to which `slots` lead.
    pub(crate) fn new(previous: *const Frame, slots: &[*const *mut c_void]) -> Frame {
        Frame { previous, count: slots.len(), slots: slots.as_ptr() }
    }
}

/// What a thread keeps in registers that its callees must preserve, and where its stack ends.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Registers {
    words: [usize; 12],
    stack_pointer: usize,
}

/// A thread's native stack, and room for a snapshot of it.
pub(crate) struct NativeStack {
    /// Its lowest address.
    pub low: usize,
    /// Where it began; 0: it is not scanned.
    pub base: usize,
    /// Room for the words of a snapshot.
    pub snapshot: *mut usize,
    /// How many.
    pub room: usize,
}

/// Attached and running, or parked.
pub const ATTACHED: u32 = 0x0a77_ac4d;
/// Between block and unblock.
pub const BLOCKED: u32 = 0x0b10_c4ed;
/// Collecting, or walking the heap, with the world stopped or about to be: the VM's functions are called, and must not
/// call back.
pub const COLLECTING: u32 = 0x0c01_1ec7;
/// The same, and the thread counts as blocked: it scans what its snapshot holds, on its way out of `besom_unblock`.
pub const SCANNING: u32 = 0x05ca_4416;
/// About to fork, and parked for that; in the child, until the heap is taken up there.
pub const FORKING: u32 = 0x0f04_c1ed;

/// A mutator; `besom_mutator` in C. Lies in an array of the heap's, so that its memory outlives the thread.
///
/// The first four fields are C's. `poll` is written by other threads, `state` read by them; all else belongs to
/// the thread, and to the collector while the thread is stopped or blocked.
#[repr(C)]
pub struct Mutator {
    pub(crate) cells: *const AllocationCell,
    poll: AtomicU32,
    barrier: AtomicU32,
    frames: *const Frame,
    pub(crate) heap: *const Heap,
    pub(crate) p: *const P,
    pub(crate) seat: u32,
    state: AtomicU32,
    /// The thread's `pthread_t`. Atomic, since any thread looks whether a seat is its own.
    thread: AtomicU64,
    tid: u64,
    registers: Registers,
    /// The native stack's addresses, `[stack_low, stack_base)`; base 0: it is not scanned.
    stack_low: usize,
    stack_base: usize,
    /// Of a blocked thread: the words of its stack that lie in the heap, as they were when it blocked.
    snapshot: *mut usize,
    snapshot_room: usize,
    snapshot_len: usize,
    /// The most words that ever were in the seat's snapshot, which is what it takes of memory.
    snapshot_most: usize,
    value_base: usize,
    value_top: *const usize,
    value_kind: u32,
    /// Allocations until the next cycle, with `collect_every`.
    pub(crate) until_cycle: u32,
    roots: Option<TraceFn>,
    roots_data: *mut c_void,
    /// An object that is not in the program's hands yet.
    pub(crate) newborn: usize,
    /// Whose turn it is to scan the thread's roots in this cycle.
    scan: ScanTurn,
    /// What the thread overwrote while objects are marked, and the collector does not know yet. Empty unless it runs.
    pub(crate) overwritten: Overwritten,
    /// Arguments that a function of the library keeps alive.
    pub(crate) held: [usize; 2],
    /// The innermost call of `besom_finalizers_run` that has not returned.
    pub(crate) runs: *const Run,
}

/// One call of `besom_finalizers_run`, on the stack. What it runs may detach the mutator, and free the heap.
pub(crate) struct Run {
    pub outer: *const Run,
    pub detached: Cell<bool>,
}

impl Mutator {
    /// Where the captured registers lie, for code that is not Rust.
    pub(crate) const REGISTERS: usize = std::mem::offset_of!(Mutator, registers);
}

const _: () = assert!(size_of::<Mutator>() <= 1024);
// What docs/scale.md says.
#[cfg(all(target_arch = "x86_64", not(loom)))]
const _: () = assert!(size_of::<Mutator>() == 560);
// What `besom.h` says of the same.
const _: () =
    assert!(std::mem::offset_of!(Mutator, poll) == 8 && std::mem::offset_of!(Mutator, barrier) == 12);
const _: () =
    assert!(std::mem::offset_of!(Mutator, frames) == 16 && std::mem::offset_of!(Mutator, cells) == 0);
const _: () = assert!(size_of::<Frame>() == 24);
const _: () = assert!(Stores::Free as u32 == 0 && Stores::HandIn as u32 == 1 && Stores::Call as u32 == 2);

/// The calling thread, as the system numbers it.
pub(crate) fn current_tid() -> u64 {
    // SAFETY: no preconditions.
    unsafe { libc::gettid() as u64 }
}

fn current_thread() -> libc::pthread_t {
    // SAFETY: no preconditions.
    unsafe { libc::pthread_self() }
}

impl Mutator {
    /// Makes a mutator of zeroed or left memory, for the calling thread.
    ///
    /// # Safety
    /// `m` must be a seat's entry that the caller has just been given.
    pub(crate) unsafe fn init(m: *mut Mutator, heap: &Heap, seat: Seat, stack: &NativeStack) {
        // SAFETY: the caller's promise; `poll` is left to the scheduler.
        unsafe {
            unwatch(&raw const (*m).poll);
            (*m).cells = NO_CELLS.as_ptr();
            (*m).barrier.store(heap.stores(heap.collector.phase() != Phase::Idle) as u32, Relaxed);
            (*m).scan.init();
            (*m).overwritten.init();
            (*m).frames = std::ptr::null();
            (*m).heap = heap;
            (*m).p = std::ptr::null();
            (*m).seat = seat.0;
            (*m).thread.store(current_thread(), Relaxed);
            (*m).tid = current_tid();
            (*m).registers = Registers::default();
            (*m).stack_low = stack.low;
            (*m).stack_base = stack.base;
            (*m).snapshot = stack.snapshot;
            (*m).snapshot_room = stack.room;
            (*m).snapshot_len = 0;
            (*m).value_base = 0;
            (*m).value_top = std::ptr::null();
            (*m).roots = None;
            (*m).until_cycle = heap.collect_every();
            (*m).newborn = 0;
            (*m).held = [0; 2];
            (*m).runs = std::ptr::null();
            (*m).state.store(ATTACHED, Release);
        }
    }

    pub(crate) fn ring(m: *const Mutator, poll: u32) {
        // SAFETY: the entry is mapped as long as its heap lives, and the word is atomic.
        unsafe { (*m).poll.store(poll, Relaxed) };
    }

    /// # Safety
    /// As for all of these: `m` must be an entry of a heap that is not freed. They look at single fields, since
    /// the owner may write the others at the same time.
    #[inline(always)]
    pub(crate) unsafe fn polled(m: *const Mutator) -> bool {
        // SAFETY: the caller's promise.
        unsafe { (*m).poll.load(Relaxed) != 0 }
    }

    /// Whether a store that overwrites `old` is nothing but a store, as `besom_write` decides it, too.
    ///
    /// # Safety
    /// See [`Self::polled`].
    #[inline(always)]
    pub(crate) unsafe fn just_stores(m: *const Mutator, old: impl FnOnce() -> u64) -> bool {
        // SAFETY: the caller's promise.
        let stores = unsafe { (*m).barrier.load(Relaxed) };
        stores == Stores::Free as u32 || (stores == Stores::HandIn as u32 && old() == 0)
    }

    /// What stores have to do from here on; while the thread does not run.
    ///
    /// # Safety
    /// See [`Self::polled`].
    pub(crate) unsafe fn set_stores(m: *const Mutator, stores: Stores) {
        // SAFETY: the caller's promise.
        unsafe { (*m).barrier.store(stores as u32, Relaxed) };
    }

    /// Whose turn it is to scan the thread's roots.
    ///
    /// # Safety
    /// See [`Self::polled`].
    pub(crate) unsafe fn scan<'h>(m: *const Mutator) -> &'h ScanTurn {
        // SAFETY: the caller's promise; it is one atomic.
        unsafe { &(*m).scan }
    }

    /// Whether the world is being stopped.
    ///
    /// # Safety
    /// See [`Self::polled`].
    pub(crate) unsafe fn stops(m: *const Mutator) -> bool {
        // SAFETY: the caller's promise.
        unsafe { (*m).poll.load(Relaxed) & POLL_STOP != 0 }
    }

    /// # Safety
    /// See [`Self::polled`].
    pub(crate) unsafe fn state(m: *const Mutator) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { (*m).state.load(Acquire) }
    }

    /// Whether the thread may be in a function of the VM's that must not call back: a trace function or a visit.
    ///
    /// # Safety
    /// See [`Self::polled`].
    pub(crate) unsafe fn calls_back(m: *const Mutator) -> bool {
        // SAFETY: the caller's promise.
        matches!(unsafe { Self::state(m) }, COLLECTING | SCANNING)
    }

    /// # Safety
    /// See [`Self::polled`].
    pub(crate) unsafe fn set_state(m: *const Mutator, state: u32) {
        // SAFETY: the caller's promise.
        unsafe { (*m).state.store(state, Release) };
    }

    /// # Safety
    /// See [`Self::polled`].
    pub(crate) unsafe fn is_own(m: *const Mutator) -> bool {
        // SAFETY: the caller's promise.
        unsafe { (*m).thread.load(Relaxed) == current_thread() }
    }

    /// Whether an attached thread sits here, and it is the caller.
    ///
    /// # Safety
    /// See [`Self::polled`].
    pub(crate) unsafe fn seats_caller(m: *const Mutator) -> bool {
        // SAFETY: the caller's promise.
        unsafe { Self::state(m) != 0 && Self::is_own(m) }
    }

    /// Aborts unless the calling thread may use this mutator now.
    ///
    /// # Safety
    /// See [`Self::polled`].
    #[inline(always)]
    pub(crate) unsafe fn check(m: *const Mutator, function: &str) {
        // SAFETY: the caller's promise.
        unsafe {
            if Self::state(m) != ATTACHED || !Self::is_own(m) {
                Self::misused(m, function);
            }
        }
    }

    /// # Safety
    /// See [`Self::polled`].
    #[cold]
    pub(crate) unsafe fn misused(m: *const Mutator, function: &str) -> ! {
        // SAFETY: the caller's promise; the number was written before the state.
        unsafe {
            quarantine::check_mutator(m, function);
            if Self::state(m) == 0 {
                fatal(format_args!("{function}: mutator is detached"));
            }
            if !Self::is_own(m) {
                fatal(format_args!(
                    "{function}: called on another thread than the mutator's, attached on thread {}, called on {}",
                    (&raw const (*m).tid).read(),
                    current_tid()
                ));
            }
        }
        // SAFETY: as above.
        if unsafe { Self::calls_back(m) } {
            fatal(format_args!("{function}: called by a trace function or a visit"));
        }
        // SAFETY: as above.
        if unsafe { Self::state(m) } == FORKING {
            fatal(format_args!(
                "{function}: the process was forked, and besom_after_fork_child was not called"
            ));
        }
        fatal(format_args!("{function}: mutator is blocked, between besom_block and besom_unblock"))
    }

    /// In the child of a fork: the thread is what it was before.
    ///
    /// # Safety
    /// `m` must be the calling thread's.
    pub(crate) unsafe fn after_fork(m: *mut Mutator, state: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            (*m).tid = current_tid();
            Self::set_state(m, state);
        }
    }

    /// Forgets every root of the thread, which is about to leave.
    ///
    /// # Safety
    /// `m` must be the calling thread's.
    pub(crate) unsafe fn forget_roots(m: *mut Mutator) {
        // SAFETY: the caller's promise.
        unsafe {
            (*m).stack_base = 0;
            (*m).frames = std::ptr::null();
            (*m).value_base = 0;
            (*m).roots = None;
        }
    }

    /// Tells the calls of `besom_finalizers_run` that the mutator is no more.
    ///
    /// # Safety
    /// `m` must be the calling thread's.
    pub(crate) unsafe fn end_runs(m: *mut Mutator) {
        // SAFETY: the caller's promise; the calls have not returned, so that they are on the stack.
        unsafe {
            let mut run = std::mem::replace(&mut (*m).runs, std::ptr::null());
            while let Some(at) = run.as_ref() {
                at.detached.set(true);
                run = at.outer;
            }
        }
    }

    /// Makes a frame the innermost, or takes it away again; the one before.
    ///
    /// # Safety
    /// `m` must be the calling thread's; the frame must stay where it is until it is taken away.
    pub(crate) unsafe fn set_frames(m: *mut Mutator, frame: *const Frame) -> *const Frame {
        // SAFETY: the caller's promise.
        unsafe { std::mem::replace(&mut (*m).frames, frame) }
    }

    /// The words of the native stack, from the captured stack pointer on. Aborts if that is not in the thread's stack.
    ///
    /// # Safety
    /// The registers must be captured.
    unsafe fn stack_words(&self) -> (*const usize, usize) {
        let at = self.registers.stack_pointer;
        if !(self.stack_low..=self.stack_base).contains(&at) {
            fatal(format_args!(
                "roots: thread {} is on a stack at {at:#x}, not on its own, {:#x} to {:#x}; \
                 scan_native_stacks cannot follow",
                self.tid, self.stack_low, self.stack_base
            ));
        }
        let low = at & !7;
        (std::ptr::with_exposed_provenance(low), (self.stack_base - low) / 8)
    }

    /// Keeps the words of the stack and the registers that lie in the heap: the thread goes on, below and above
    /// the captured stack pointer, while the collector needs what it held when it blocked.
    ///
    /// # Safety
    /// `m` must be the calling thread's, with its registers captured.
    pub(crate) unsafe fn take_snapshot(m: *mut Mutator, heap: &Heap) {
        // SAFETY: the caller's promise: nobody else uses these fields; the stack is the thread's own.
        unsafe {
            if (*m).stack_base == 0 {
                return;
            }
            let (words, count) = (*m).stack_words();
            let stack = (0..count).map(|i| words.add(i).read_volatile());
            let tracked = memory_checker::tracks_values();
            let mut len = 0;
            for word in (*m).registers.words.into_iter().chain(stack) {
                let word = if tracked { memory_checker::known(word) } else { word };
                if heap.spans.tables().offset_of(word).is_some() {
                    if len == (*m).snapshot_room {
                        fatal(format_args!(
                            "besom_block: more than {len} words of the stack lie in the heap"
                        ));
                    }
                    (*m).snapshot.add(len).write(word);
                    len += 1;
                }
            }
            (*m).snapshot_len = len;
            if len > (*m).snapshot_most {
                heap.spans.system().other.add(((len - (*m).snapshot_most) * 8) as i64);
                (*m).snapshot_most = len;
            }
        }
    }

    /// Bytes that the seat's snapshot takes.
    ///
    /// # Safety
    /// `m` must be an entry whose thread is stopped, blocked or gone, or the caller's.
    pub(crate) unsafe fn snapshot_bytes(m: *const Mutator) -> Bytes {
        // SAFETY: the caller's promise.
        Bytes(unsafe { (&raw const (*m).snapshot_most).read() } * 8)
    }

    /// The seat's snapshot is another one, untouched.
    ///
    /// # Safety
    /// `m` must be the calling thread's seat.
    pub(crate) unsafe fn new_snapshot(m: *mut Mutator) {
        // SAFETY: the caller's promise.
        unsafe { (*m).snapshot_most = 0 };
    }

    /// # Safety
    /// `m` must be the calling thread's.
    pub(crate) unsafe fn set_value_stack(m: *mut Mutator, base: usize, top: *const usize, kind: Kind) {
        // SAFETY: the caller's promise.
        unsafe {
            (*m).value_top = top;
            (*m).value_kind = kind as u32;
            (*m).value_base = base;
        }
    }

    /// # Safety
    /// `m` must be the calling thread's.
    pub(crate) unsafe fn set_roots(m: *mut Mutator, function: Option<TraceFn>, data: *mut c_void) {
        // SAFETY: the caller's promise.
        unsafe {
            (*m).roots = function;
            (*m).roots_data = data;
        }
    }

    /// Shows everything that this thread holds; returns the bytes looked at.
    ///
    /// # Safety
    /// The thread must be stopped or blocked, with its registers captured.
    pub(crate) unsafe fn visit_roots(&self, visitor: &mut dyn Visitor) -> Bytes {
        let encoding = visitor.shapes().encoding;
        let mut words = 0;
        visitor.any(self.newborn);
        self.held.iter().for_each(|object| visitor.any(*object));
        // SAFETY: frames lie on the thread's stack, in calls that have not returned; their slots are locals of these
        // calls. The value stack is the VM's promise, and the native stack is readable from the captured pointer
        // to its base.
        unsafe {
            let mut frame = self.frames;
            while !frame.is_null() {
                for i in 0..(*frame).count {
                    visitor.any((*(*frame).slots.add(i)).read_volatile().addr());
                }
                words += (*frame).count;
                frame = (*frame).previous;
            }
            if self.value_base != 0 {
                let base = std::ptr::with_exposed_provenance::<usize>(self.value_base);
                let count = self.value_top.read_volatile().saturating_sub(self.value_base) / 8;
                let kind = Kind::from_public(self.value_kind).unwrap_or(Kind::Conservative);
                scan_words(base, count, kind, &encoding, visitor);
                words += count;
            }
            if self.stack_base != 0 && matches!(Self::state(self), BLOCKED | SCANNING) {
                (0..self.snapshot_len).for_each(|i| visitor.stale(self.snapshot.add(i).read()));
                words += self.snapshot_len;
            } else if self.stack_base != 0 {
                let (stack, count) = self.stack_words();
                scan_stack(self.registers.words.as_ptr(), self.registers.words.len(), visitor);
                scan_stack(stack, count, visitor);
                words += count;
            }
            if let Some(function) = self.roots {
                let mut tracer = Tracer::new(visitor);
                outside(|| function(&mut tracer, std::ptr::null_mut(), self.roots_data));
            }
        }
        Bytes(words * 8)
    }
}

/// Notes the registers that callees preserve and the stack pointer, so that the stack can be scanned while the thread
/// is in the library: for callers in Rust, inlined into a function that does not return before the scan. The C
/// functions do it at their first instruction, see `ffi::entry`. Registers that callees may change count as changed
/// here, so that what the caller holds is in the others, or above the stack pointer.
///
/// # Safety
/// `m` must be the calling thread's mutator.
#[inline(always)]
pub(crate) unsafe fn capture(m: *mut Mutator) {
    // SAFETY: the caller's promise.
    let at: *mut Registers = unsafe { &raw mut (*m).registers };
    // SAFETY: stores of registers to memory that is ours.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::asm!(
            "mov [{0}], rbx", "mov [{0} + 8], rbp", "mov [{0} + 16], r12", "mov [{0} + 24], r13",
            "mov [{0} + 32], r14", "mov [{0} + 40], r15", "mov [{0} + 96], rsp",
            in(reg) at, clobber_abi("C"), options(nostack)
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!(
            "stp x19, x20, [{0}]", "stp x21, x22, [{0}, #16]", "stp x23, x24, [{0}, #32]",
            "stp x25, x26, [{0}, #48]", "stp x27, x28, [{0}, #64]", "str x29, [{0}, #80]",
            "mov {1}, sp", "str {1}, [{0}, #96]",
            in(reg) at, out(reg) _, clobber_abi("C"), options(nostack)
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    compile_error!("besom: no code yet that captures this processor's registers");
}
