//! Forks of the process. In the child only the thread that forked exists, and the heap is as the others left it. So they must
//! not leave it in the middle of anything: handlers of the system's library (`pthread_atfork`) stop the world of every heap
//! before the fork, without a cycle going on, and take every lock. The child then takes up one heap after the other, by
//! [`Heap::after_fork`]: it forgets the threads that do not exist there.
//!
//! Who forks may be a mutator. Before it waits for anything it steps aside, so that another stop need not wait for it. It
//! waits for a heap by asking again and again, and holds nothing meanwhile that another thread may want on its way to a
//! safepoint; the locks are taken when all worlds stand still, in an order that is everybody's.
//!
//! A trace function or a visit that forks is called by who stopped a world, or is waited for by a cycle: it waits for nobody,
//! the heaps are left alone, and its child can only exec.

use crate::heap::Heap;
use crate::mutator::{ATTACHED, BLOCKED, FORKING, Mutator, capture};
use crate::scheduler::Seat;
use crate::status::{Error, Result};
#[cfg(feature = "c-library")]
use crate::system_memory;
use besom_alloc_core::os;
use besom_stats::race_detector::{acquire, inside, release};
use besom_stats::sync::Held;
use besom_stats::sync::raw::{AtomicBool, AtomicU32, AtomicU64, Ordering::*};
use std::cell::UnsafeCell;
// Of the processor itself also in a model: a static cannot be loom's, and no model is about these.
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Time between two looks at worlds that do not stand still yet. Higher: a fork takes longer. Lower: it burns more.
const LOOK: Duration = Duration::from_micros(50);

/// Locks of a heap.
const LOCKS: usize = 28;

/// What is to be done in a child yet, once for each heap.
///
/// - `seat` and `state` are of the thread that forked, if it has a seat; else [`NO_SEAT`]
pub(crate) struct Forked {
    awaits: AtomicBool,
    seat: AtomicU32,
    state: AtomicU32,
}

const NO_SEAT: u32 = u32::MAX;

impl Forked {
    /// Nothing.
    pub(crate) fn new() -> Forked {
        Forked { awaits: AtomicBool::new(false), seat: AtomicU32::new(NO_SEAT), state: AtomicU32::new(0) }
    }

    /// Whether this is the child of a fork, and [`Heap::after_fork`] was not called.
    pub(crate) fn awaits(&self) -> bool {
        self.awaits.load(Relaxed)
    }
}

/// A heap whose world stands still, with every lock.
struct Still {
    heap: &'static Heap,
    _locks: [Held<'static>; LOCKS],
}

// SAFETY: taken and released by the thread that forks, between which nobody else has it.
unsafe impl Send for Still {}

/// The heaps of the process.
///
/// - `still` is empty but in a fork, and has room for as many as there are heaps
struct List {
    heaps: Vec<&'static Heap>,
    still: Vec<Still>,
}

static LIST: Mutex<List> = Mutex::new(List { heaps: Vec::new(), still: Vec::new() });
/// Of those who fork, one at a time.
static TURN: Mutex<()> = Mutex::new(());
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// The fork that is going on.
struct Going {
    /// The `pthread_t` of who forks; 0: nobody.
    thread: AtomicU64,
    /// Its locks, from before the fork to after it.
    guards: UnsafeCell<Option<Guards>>,
}

type Guards = (MutexGuard<'static, ()>, MutexGuard<'static, List>);

// SAFETY: `guards` is touched by who holds `TURN` only.
unsafe impl Sync for Going {}

static GOING: Going = Going { thread: AtomicU64::new(0), guards: UnsafeCell::new(None) };

impl Going {
    fn is_callers(&self) -> bool {
        self.thread.load(Relaxed) == current_thread()
    }

    /// Takes the guards of the caller, who forks.
    fn take(&self) -> Option<Guards> {
        // SAFETY: the caller holds `TURN`, by way of the guards.
        let guards = unsafe { (*self.guards.get()).take() };
        self.thread.store(0, Relaxed);
        guards
    }
}

fn current_thread() -> u64 {
    // SAFETY: no preconditions.
    unsafe { libc::pthread_self() }
}

fn held<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has forks mind a heap, from here to [`delist`].
pub(crate) fn enlist(heap: &Heap) -> Result<()> {
    // Two threads may both do so: the handlers see to it that the second time is none.
    if !INSTALLED.load(Acquire) {
        // SAFETY: functions that may be called around each fork.
        if unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) } != 0 {
            return Err(Error::NoMemory);
        }
        INSTALLED.store(true, Release);
    }
    let mut list = held(&LIST);
    let most = list.heaps.len() + 1;
    list.heaps.try_reserve(1).map_err(|_| Error::NoMemory)?;
    list.still.try_reserve(most).map_err(|_| Error::NoMemory)?;
    // SAFETY: it stays where it is until it is dropped, which takes it off the list first.
    list.heaps.push(unsafe { &*std::ptr::from_ref(heap) });
    Ok(())
}

/// The heap is going.
pub(crate) fn delist(heap: &Heap) {
    held(&LIST).heaps.retain(|&listed| !std::ptr::eq(listed, heap));
}

/// Before a fork.
unsafe extern "C" fn prepare() {
    // A trace function, on a collector's thread or a mutator's, and a visit: others wait for the caller.
    if os::is_own_thread() || GOING.is_callers() || is_called_back() {
        return;
    }
    while let Some((heap, m)) = own_in(ATTACHED) {
        // SAFETY: the mutator is the caller's, which does not leave this function before its roots can be scanned no more.
        unsafe {
            capture(m);
            heap.step_aside(m);
        }
    }
    let turn = held(&TURN);
    GOING.thread.store(current_thread(), Relaxed);
    let mut list = loop {
        let list = held(&LIST);
        let stopped = |all, heap: &&Heap| all & (heap.forked.awaits() || heap.scheduler.stop_for_fork(*heap));
        if list.heaps.iter().fold(true, stopped) {
            break list;
        }
        drop(list);
        std::thread::sleep(LOOK);
    };
    let List { heaps, still } = &mut *list;
    // There is room, so that nothing is allocated.
    still.extend(heaps.iter().filter(|heap| !heap.forked.awaits()).map(|heap| heap.hold()));
    #[cfg(feature = "c-library")]
    system_memory::hold();
    // SAFETY: `TURN` is held.
    unsafe { *GOING.guards.get() = Some((turn, list)) };
}

/// After it, in the parent: all goes on.
unsafe extern "C" fn parent() {
    if !GOING.is_callers() {
        return;
    }
    #[cfg(feature = "c-library")]
    system_memory::release();
    let Some((turn, mut list)) = GOING.take() else { return };
    for still in &list.still {
        if let Some(m) = still.heap.own() {
            // SAFETY: the mutator is the caller's; nobody scans its roots in a stopped world. From here on this function's
            // frame is what they end at, and `prepare`'s is gone.
            unsafe { capture(m) };
        }
    }
    while let Some(Still { heap, _locks }) = list.still.pop() {
        drop(_locks);
        release(heap);
        heap.scheduler.end_fork(heap);
    }
    drop(list);
    drop(turn);
    while let Some((heap, m)) = own_in(FORKING) {
        // SAFETY: the mutator is the caller's.
        unsafe { heap.step_back(m) };
    }
}

/// After it, in the child: the locks are free, and each heap waits for [`Heap::after_fork`].
unsafe extern "C" fn child() {
    if !GOING.is_callers() {
        return;
    }
    #[cfg(feature = "c-library")]
    system_memory::release();
    let Some((turn, mut list)) = GOING.take() else { return };
    while let Some(Still { heap, _locks }) = list.still.pop() {
        drop(_locks);
        heap.is_forked();
    }
    drop(list);
    drop(turn);
}

/// Whether a heap calls a function of the VM's on this thread that must not call back.
fn is_called_back() -> bool {
    // SAFETY: the state is atomic.
    held(&LIST).heaps.iter().any(|heap| heap.own().is_some_and(|m| unsafe { Mutator::calls_back(m) }))
}

/// A heap in which the caller is in such a state, and its mutator; none that awaits [`Heap::after_fork`].
fn own_in(state: u32) -> Option<(&'static Heap, *mut Mutator)> {
    let list = held(&LIST);
    list.heaps.iter().filter(|heap| !heap.forked.awaits()).find_map(|heap| {
        // SAFETY: the state is atomic.
        heap.own().filter(|&m| unsafe { Mutator::state(m) } == state).map(|m| (*heap, m))
    })
}

impl Heap {
    /// The caller's mutator, if it is attached.
    fn own(&self) -> Option<*mut Mutator> {
        // SAFETY: entries are mapped, and what is read of them is atomic.
        self.mutators().find(|&m| unsafe { Mutator::seats_caller(m) })
    }

    /// The mutator runs no more, until [`Self::step_back`].
    ///
    /// # Safety
    /// `m` must be the calling thread's, attached and not blocked, with its registers captured.
    unsafe fn step_aside(&self, m: *mut Mutator) {
        let _inside = inside(self);
        // SAFETY: the caller's promise.
        unsafe {
            self.hand_in(m);
            Mutator::set_state(m, FORKING);
            self.scheduler.step_aside(Seat((*m).seat));
        }
    }

    /// # Safety
    /// As for [`Self::step_aside`], which came before.
    unsafe fn step_back(&self, m: *mut Mutator) {
        let _inside = inside(self);
        // SAFETY: the caller's promise.
        unsafe {
            self.scheduler.step_back(Seat((*m).seat));
            Mutator::set_state(m, ATTACHED);
            self.come_back(m);
        }
    }

    /// With the world stopped for a fork: gives the caches back, and takes every lock. The order is that of all who take two;
    /// those of one line are taken one at a time otherwise.
    fn hold(&'static self) -> Still {
        acquire(self);
        let cx = self.context();
        // Then a child that allocates without having taken the heap up comes to where it is told so.
        // SAFETY: the world is stopped, so that nobody holds a P, and none goes.
        unsafe { self.ps.iter().for_each(|p| p.release(cx)) };
        let [timeline, background] = self.collector.hold_first();
        let [requests, driver] = self.driver.hold();
        let (sweeper, scavenger) = (self.sweeper.hold(), self.scavenger.hold());
        let scheduler = self.scheduler.hold();
        let (snapshots, handles, roots) = (self.hold_snapshots(), self.handles.hold(), self.roots.hold_out());
        let layouts = self.collector.shapes().layouts.hold_out();
        let [advice, pages, late] = self.spans.pages().hold();
        let ps = self.ps.hold();
        let [reader, unattached] = self.spans.stats().hold();
        let [a, b, c, d, e, f, g, h, i, j, k] = self.collector.hold_last();
        let _locks = [
            timeline, background, requests, driver, sweeper, scavenger, scheduler, snapshots, handles, roots,
            layouts, advice, pages, late, ps, reader, unattached, a, b, c, d, e, f, g, h, i, j, k,
        ];
        Still { heap: self, _locks }
    }

    /// In the child: what the caller was is kept, and the heap is not to be used before [`Self::after_fork`].
    fn is_forked(&self) {
        let own = self.own();
        // SAFETY: the entry is the caller's.
        let (seat, state) = own.map_or((NO_SEAT, 0), |m| unsafe { ((*m).seat, Mutator::state(m)) });
        self.forked.seat.store(seat, Relaxed);
        self.forked.state.store(if state == BLOCKED { BLOCKED } else { ATTACHED }, Relaxed);
        self.forked.awaits.store(true, Relaxed);
        if let Some(m) = own {
            // SAFETY: as above.
            unsafe { Mutator::set_state(m, FORKING) };
        }
    }

    /// To be called in the child of a fork, by the only thread that exists there: the others are detached, their roots forgotten,
    /// the collector's threads are started anew when they are needed; a recording of the timeline is the parent's. `State`: this
    /// is no such child, or it was called, or a trace function forked.
    pub fn after_fork(&self) -> Result<()> {
        if !self.forked.awaits.swap(false, Relaxed) {
            return Err(Error::State);
        }
        self.driver.after_fork();
        self.sweeper.after_fork();
        self.scavenger.after_fork();
        self.collector.after_fork();
        let seat = self.forked.seat.load(Relaxed);
        let own = (seat != NO_SEAT).then_some(Seat(seat));
        self.scheduler.after_fork(self, own, |seat| {
            // SAFETY: the thread does not exist, so that the seat is nobody's.
            unsafe { Mutator::forget_roots(self.mutator(seat)) };
        });
        if let Some(seat) = own {
            let (m, state) = (self.mutator(seat), self.forked.state.load(Relaxed));
            // SAFETY: the thread that forked is the one that exists; it holds its P again, unless it is blocked.
            unsafe {
                Mutator::after_fork(m, state);
                if state == ATTACHED {
                    (*(*m).p).check_generation(self.context());
                }
            }
        }
        Ok(())
    }
}
