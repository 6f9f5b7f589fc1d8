//! A heap: the value that holds everything else.

use crate::barrier::Stores;
use crate::cells::NO_CELLS;
use crate::driver::Driver;
use crate::fork::{self, Forked};
use crate::handles::Handles;
use crate::mcache::{Context, P, PCache};
use crate::mutator::{ATTACHED, COLLECTING, MUTATORS_MOST, Mutator, NativeStack};
use crate::options::{CONCURRENT, Options};
use crate::p_set::PSet;
use crate::quarantine;
use crate::roots::Roots;
use crate::scavenger::Scavenger;
use crate::scheduler::{House, PId, Refused, Scheduler, Seat};
use crate::status::{Error, Result};
use crate::sweeper::Sweeper;
use besom_alloc_core::address_space::DEFAULT_RESERVE;
use besom_alloc_core::os::{self, Mapping};
use besom_alloc_core::span_class::Kind;
use besom_alloc_core::span_heap::{Found, SpanHeap};
use besom_alloc_core::units::Bytes;
use besom_gc::timeline::Kind as Slice;
use besom_gc::{Collector, Config};
use besom_stats::sync::raw::{AtomicU32, AtomicU64, Ordering::*};
use besom_stats::sync::{Held, Mutex, hold, lock};
use besom_stats::{memory_checker, race_detector};
use std::alloc::Layout;
use std::marker::PhantomPinned;
use std::mem::ManuallyDrop;
use std::pin::Pin;

/// Addresses that a heap with a limit reserves, in multiples of the limit. Higher: fewer heaps fit into a process.
/// Lower: a heap whose free pages lie scattered finds no room for a large object below its limit.
const RESERVE_OVER_LIMIT: usize = 8;

/// Room in a snapshot for the registers, beside the words of the stack.
const SNAPSHOT_EXTRA: usize = 256;
/// The most room for a snapshot of a native stack, in bytes of address space a thread. Lower: a thread that blocks with
/// more heap pointers on a very deep stack aborts.
const SNAPSHOT_MOST: usize = 64 << 20;

/// A heap; `besom_heap` in C. Several live in one process and share nothing. It stays where it was made, since
/// mutators and its sweeper point to it.
pub struct Heap {
    pub(crate) options: Options,
    pub(crate) spans: SpanHeap,
    pub(crate) collector: Collector,
    pub(crate) scheduler: Scheduler,
    pub(crate) handles: Handles,
    pub(crate) roots: Roots,
    pub(crate) sweeper: Sweeper,
    pub(crate) driver: Driver,
    pub(crate) scavenger: Scavenger,
    pub(crate) tiny_allocs: AtomicU64,
    /// Every allocation takes the slow path, for a slot of its own: `collect_every`, or a memory checker.
    single: bool,
    mutators: ManuallyDrop<Mapping>,
    /// Room for what blocked threads hold, by seat.
    snapshots: Mutex<Vec<Option<Mapping>>>,
    /// Seats from here on were never taken.
    seats_used: AtomicU32,
    pub(crate) ps: PSet<P>,
    pub(crate) forked: Forked,
    /// Whether it is freed, in the checked build.
    #[cfg(debug_assertions)]
    pub(crate) life: quarantine::Life,
    _stays: PhantomPinned,
}

// SAFETY: the raw pointers in the options are the VM's, handed back to its functions only; all else is atomic or
// locked, or belongs to the thread that holds a P.
unsafe impl Sync for Heap {}
// SAFETY: as above; nothing in it is tied to a thread.
unsafe impl Send for Heap {}

impl Heap {
    /// Makes a heap. `Invalid`: an option is out of its range. `NoMemory`: the system refused.
    pub fn new(options: &Options) -> Result<Pin<Box<Heap>>> {
        options.check()?;
        race_detector::detect();
        memory_checker::detect();
        let wanted = Bytes(options.heap_limit.saturating_mul(RESERVE_OVER_LIMIT).min(DEFAULT_RESERVE.0));
        let mut spans = SpanHeap::new(wanted, Bytes(options.heap_limit), options.clobber_free != 0)?;
        let single = options.collect_every != 0 || memory_checker::is_present();
        if single {
            spans.reuse_late();
        }
        spans.pages().set_soft_limit(Bytes(options.memory_limit));
        let reserve = spans.pages().reserved().bytes();
        let cpus = os::cpu_count();
        let workers = match options.mark_workers {
            0 => cpus,
            n => n as usize,
        };
        let config = Config {
            encoding: options.encoding,
            trace: options.trace,
            data: options.data,
            mark_workers: workers.max(1),
            cpus: cpus as u32,
            percent: options.gc_percent,
            memory_limit: Bytes(options.memory_limit),
            hard_limit: Bytes(options.heap_limit),
            concurrent: options.mode == CONCURRENT,
            verify_marks: options.verify & 1 != 0,
            verify_heap: options.verify & 2 != 0,
            gc_trace: options.gc_trace != 0,
        };
        let heap = Heap {
            options: *options,
            spans,
            collector: Collector::new(config, reserve)?,
            scheduler: Scheduler::new(options.procs as usize, MUTATORS_MOST),
            handles: Handles::new(reserve)?,
            roots: Roots::new(),
            sweeper: Sweeper::new(),
            driver: Driver::new(),
            scavenger: Scavenger::new(),
            tiny_allocs: AtomicU64::new(0),
            single,
            snapshots: Mutex::new(Vec::new()),
            seats_used: AtomicU32::new(0),
            ps: PSet::new(MUTATORS_MOST)?,
            forked: Forked::new(),
            // The last that can be refused: it would not be dropped with the others.
            mutators: ManuallyDrop::new(Mapping::lazy_zeroed(MUTATORS_MOST * size_of::<Mutator>())?),
            #[cfg(debug_assertions)]
            life: quarantine::Life::new(),
            _stays: PhantomPinned,
        };
        heap.spans.system().other.add(size_of::<Heap>() as i64);
        heap.spans.system().gc.add(heap.collector.own_bytes().0 as i64);
        let layout = Layout::new::<Heap>();
        // SAFETY: the layout is not empty; memory of the global allocator is what a box is made of, written just here.
        let heap = unsafe {
            let at = std::alloc::alloc(layout).cast::<Heap>();
            if at.is_null() {
                return Err(Error::NoMemory);
            }
            at.write(heap);
            Pin::new_unchecked(Box::from_raw(at))
        };
        fork::enlist(&heap)?;
        Ok(heap)
    }

    /// What stores have to do while objects are marked, or are not.
    pub(crate) fn stores(&self, marking: bool) -> Stores {
        match (self.checks_stores(), marking) {
            (true, _) => Stores::Call,
            (false, false) => Stores::Free,
            (false, true) if race_detector::is_present() => Stores::Call,
            (false, true) => Stores::HandIn,
        }
    }

    /// Whether stores are checked, and so take the slow path.
    pub(crate) fn checks_stores(&self) -> bool {
        self.options.verify & 2 != 0
    }

    /// Allocations from one cycle to the next; 0: cycles start by the pacer.
    pub(crate) fn collect_every(&self) -> u32 {
        self.options.collect_every as u32
    }

    /// What Ps work against.
    #[inline(always)]
    pub(crate) fn context(&self) -> Context<'_> {
        Context {
            heap: &self.spans,
            collector: &self.collector,
            tiny_allocs: &self.tiny_allocs,
            single: self.single,
        }
    }

    /// The entry of a seat.
    pub(crate) fn mutator(&self, seat: Seat) -> *mut Mutator {
        // SAFETY: seats are below `MUTATORS_MOST`.
        unsafe { self.mutators.ptr().cast::<Mutator>().add(seat.0 as usize) }
    }

    /// Every entry that was ever used; zero is a detached one.
    pub(crate) fn mutators(&self) -> impl Iterator<Item = *mut Mutator> + '_ {
        (0..self.seats_used.load(Acquire)).map(|n| self.mutator(Seat(n)))
    }

    /// Keeps everybody from getting room for a snapshot.
    pub(crate) fn hold_snapshots(&self) -> Held<'_> {
        hold(&self.snapshots)
    }

    /// Attaches the calling thread. `State`: it is attached already, or the process was forked. The mutator belongs to it.
    pub fn attach_raw(&self) -> Result<*mut Mutator> {
        // SAFETY: entries are mapped, and what is read of them is atomic or the thread's own.
        if self.forked.awaits() || self.mutators().any(|m| unsafe { Mutator::seats_caller(m) }) {
            return Err(Error::State);
        }
        let seated = |seat: Seat| {
            if self.seats_used.fetch_max(seat.0 + 1, AcqRel) <= seat.0 {
                self.spans.system().other.add(size_of::<Mutator>() as i64);
            }
        };
        let (seat, p) =
            self.waiting(Slice::Attach, || self.scheduler.attach(self, seated)).map_err(|refused| {
                match refused {
                    Refused::NoMemory => Error::NoMemory,
                    Refused::Full => Error::Limit,
                }
            })?;
        let m = self.mutator(seat);
        let Ok(stack) = self.native_stack(seat) else {
            self.scheduler.detach(self, seat);
            return Err(Error::NoMemory);
        };
        // SAFETY: the scheduler gave the seat to this thread.
        unsafe {
            Mutator::init(m, self, seat, &stack);
            self.sit(m, p);
        }
        Ok(m)
    }

    /// The calling thread's native stack, if it is to be scanned, and the seat's room for a snapshot of it.
    fn native_stack(&self, seat: Seat) -> Result<NativeStack> {
        if self.options.scan_native_stacks == 0 {
            return Ok(NativeStack { low: 0, base: 0, snapshot: std::ptr::null_mut(), room: 0 });
        }
        let (low, base) = os::native_stack_bounds().ok_or(Error::NoMemory)?;
        let bytes = (base - low + SNAPSHOT_EXTRA).min(SNAPSHOT_MOST);
        let mut snapshots = lock(&self.snapshots);
        let index = seat.0 as usize;
        if snapshots.len() <= index {
            let more = index + 1 - snapshots.len();
            snapshots.try_reserve(more).map_err(|_| Error::NoMemory)?;
            snapshots.resize_with(index + 1, || None);
        }
        if snapshots[index].as_ref().is_none_or(|m| m.len() < bytes) {
            snapshots[index] = Some(Mapping::lazy_zeroed(bytes)?);
            // SAFETY: the seat is the calling thread's.
            unsafe {
                let m = self.mutator(seat);
                self.spans.system().other.add(-(Mutator::snapshot_bytes(m).0 as i64));
                Mutator::new_snapshot(m);
            }
        }
        let mapping = snapshots[index].as_ref().ok_or(Error::NoMemory)?;
        Ok(NativeStack { low, base, snapshot: mapping.ptr().cast(), room: mapping.len() / 8 })
    }

    /// Puts a mutator on a P.
    ///
    /// # Safety
    /// `m` must be the calling thread's, and `p` its own.
    pub(crate) unsafe fn sit(&self, m: *mut Mutator, p: PId) {
        let p = self.ps.get(p.0);
        // SAFETY: the caller's promise.
        unsafe {
            (*p).check_generation(self.context());
            (*m).p = p;
            (*m).cells = (*p).cells();
        }
    }

    /// Takes a mutator off its P.
    ///
    /// # Safety
    /// `m` must be the calling thread's.
    pub(crate) unsafe fn rise(&self, m: *mut Mutator) {
        // SAFETY: the caller's promise.
        unsafe {
            (*m).cells = NO_CELLS.as_ptr();
            (*m).p = std::ptr::null();
        }
        race_detector::release(self);
    }

    /// Gives a mutator's seat and P up, and its roots.
    ///
    /// # Safety
    /// `m` must be the calling thread's, and not blocked.
    pub(crate) unsafe fn detach_raw(&self, m: *mut Mutator) {
        // SAFETY: the caller's promise.
        unsafe {
            self.hand_in(m);
            Mutator::forget_roots(m);
            Mutator::end_runs(m);
            let seat = Seat((*m).seat);
            self.rise(m);
            self.scheduler.detach(self, seat);
        }
    }

    /// The object at an address, as far as a mutator has been given it.
    pub fn find(&self, address: usize) -> Option<Found> {
        let found = self.spans.find(address)?;
        let (span, page) = self.spans.span_of(found.offset);
        if span.sweepgen() == self.spans.generation().wrapping_add(3) {
            let base = self.spans.tables().base();
            let (first, start) = (base + page.offset(), base + found.offset);
            // With the scheduler's lock no stop begins or ends: within one a span may go from a cache and come back.
            let look = || self.ps.pin().iter().any(|p| p.holds_unused(found.class, first, start));
            if self.scheduler.with_ps_pinned(look) {
                return None;
            }
        }
        Some(found)
    }

    /// Usable bytes of an object that was found.
    pub(crate) fn usable(&self, found: &Found) -> Bytes {
        let facts = self.spans.classes().get(found.class).facts();
        if facts.slot_bytes == 0 {
            self.spans.span_of(found.offset).0.large_bytes()
        } else if facts.kind == Kind::TypedShared {
            Bytes(facts.slot_bytes as usize - 8)
        } else if facts.kind == Kind::Ephemeron {
            // Key and value; the rest is the collector's.
            Bytes(16)
        } else {
            Bytes(facts.slot_bytes as usize)
        }
    }

    /// Gives free pages back to the system now; the bytes.
    pub fn release_memory(&self) -> Bytes {
        self.release_pages(Bytes(usize::MAX))
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        fork::delist(self);
        // In a child it has no threads to be ended.
        let _ = self.after_fork();
        self.scheduler.no_fork(self);
        self.collector.abandon();
        self.driver.stop();
        // The sweeper wakes the scavenger.
        self.sweeper.stop();
        self.scavenger.stop();
        self.end_timeline();
        if !quarantine::keeps_mutators(self) {
            // SAFETY: the heap is going, and nobody uses it.
            unsafe { ManuallyDrop::drop(&mut self.mutators) };
        }
    }
}

impl House for Heap {
    fn ring(&self, seat: Seat, poll: u32) {
        Mutator::ring(self.mutator(seat), poll);
    }

    fn vacate(&self, seat: Seat) {
        // SAFETY: entries are mapped; these fields are atomic.
        unsafe {
            let m = self.mutator(seat);
            Mutator::scan(m).leave();
            Mutator::set_state(m, 0);
        }
    }

    fn create_p(&self, p: PId) -> bool {
        let Ok(new) = P::new() else { return false };
        self.spans.system().mcaches.add(size_of::<PCache>() as i64);
        self.ps.insert(p.0, Box::new(new));
        // It may be another thread's before this one leaves the library.
        race_detector::release(self);
        true
    }

    fn destroy_p(&self, p: PId) {
        // SAFETY: the scheduler took the P from everybody, and no world is stopped.
        unsafe {
            (*self.ps.get(p.0)).release(self.context());
            drop(self.ps.remove(p.0));
        }
        self.spans.system().mcaches.add(-(size_of::<PCache>() as i64));
    }

    fn act<R>(&self, seat: Seat, action: impl FnOnce() -> R) -> R {
        let m = self.mutator(seat);
        // SAFETY: the entry is the calling thread's.
        unsafe {
            let state = Mutator::state(m);
            if state == 0 {
                // It leaves a seat that it has not sat down in: there was no memory.
                return action();
            }
            Mutator::set_state(m, COLLECTING);
            let result = action();
            Mutator::set_state(m, state);
            result
        }
    }

    fn cpus(&self) -> usize {
        self.collector.cpus()
    }
}

const _: () = assert!(ATTACHED != 0);
