//! A record of what the collector did and when, for a picture: each slice of time and each sample of the heap's
//! size, of a session between a start and a stop, which writes them to a file (`json`).
//!
//! While no session is on, each place that would record costs one relaxed load. A slice is recorded when it ends, by
//! the thread whose it is, if the session in which it began is on still: so each lies in its session. Where they are
//! kept meanwhile is `recorder`'s.

pub mod json;
pub mod recorder;

use crate::cycle::{Cause, CycleRecord};
use besom_alloc_core::heap_tables::ZeroedTable;
use besom_alloc_core::os::OutOfMemory;
use besom_alloc_core::units::Pages;
use besom_stats::sync::raw;
use besom_stats::sync::{Held, Mutex, hold, lock};
use json::Head;
use recorder::{Buffer, Recorder, Session, Slot, WORDS};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Events of a session at most. Higher: 64 bytes of address space each, and of memory when recorded. Lower: a longer
/// run is cut off; a busy one makes some thousands a second.
pub const CAPACITY: usize = 1 << 20;

/// Steps of a thread's sweeping that are less far apart than this are one slice. Higher: a slice says less about when
/// it was swept. Lower: one event for each refill.
const GATHER_NS: u64 = 100_000;

/// Time between two samples of the heap's size while it grows. Higher: a coarser curve. Lower: more events.
const SAMPLE_NS: u64 = 1_000_000;

/// A thread that goes on after it blocked and waited less than this shows no wait. Higher: short waits are missed.
/// Lower: a program that blocks often fills the buffer.
const WAIT_NS: u64 = 10_000;

/// Events of a cycle.
const CYCLE_EVENTS: usize = 9;

/// An enumeration, and its values by their number, for those that are read back from a slot.
macro_rules! numbered {
    ($(#[$about:meta])* $name:ident, $all:ident; $($(#[$doc:meta])* $value:ident,)+) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$doc])* $value,)+
        }

        /// All of them, by number.
        const $all: [$name; [$($name::$value),+].len()] = [$($name::$value),+];
    };
}

numbered! {
    /// What a slice is; a line in the table of names in `json`.
    Kind, KINDS;
    /// A cycle: number, live bytes before, after, the goal; its cause is the note.
    Cycle,
    /// Of a cycle: finishing the last sweep.
    FinishSweep,
    /// Of a cycle: from the request to the stopped world.
    Stop,
    /// Of a cycle: the caches are flushed.
    Flush,
    /// Of a cycle: the roots are scanned.
    Roots,
    /// Of a cycle: the rest of marking.
    Mark,
    /// Of a cycle: from the end of marking until the world may go on.
    End,
    /// Of a cycle: threads are told that they may go on, and the first do.
    Resume,
    /// A stop that is no cycle, from the request to the resumed world; [`Why`] is the note.
    Hold,
    /// The world stands still: the cycle's number; [`Why`] is the note.
    WorldStopped,
    /// A mark helper takes part: bytes that it marked.
    MarkHelper,
    /// Sweeping beside the program: pages, nanoseconds of work.
    BackgroundSweep,
    /// Sweeping before an allocation: pages, nanoseconds of work.
    SweepAssist,
    /// Sweeping all that is left.
    SweepRest,
    /// A thread waits at a safepoint for the end of a stop.
    Stopped,
    /// A thread waits for a P, or for the end of a stop after it blocked.
    WaitForP,
    /// A thread waits for another's collection.
    WaitForCycle,
    /// A thread marks, or waits for those who do, before it allocates more: bytes that it marked.
    MarkAssist,
    /// The leader of a cycle beside the program finds out which specials are dead.
    Resolve,
    /// A thread scans its own roots.
    OwnRoots,
    /// A thread attaches, and waits for what it needs for that.
    Attach,
    /// Memory goes back to the system: bytes.
    Release,
    /// The same in the background: bytes.
    Scavenge,
    /// A sample: live bytes, the goal, the footprint. Not a slice.
    Heap,
}

numbered! {
    /// Why the world was stopped.
    Why, REASONS;
    /// A cycle.
    Cycle,
    /// A cycle beside the program: marking begins, or did not end yet.
    Mark,
    /// A walk over all objects.
    Walk,
    /// A check of the heap's structures.
    Verify,
    /// Statistics that need a stop.
    Statistics,
}

/// Causes by their number, for notes.
const CAUSES: [Cause; 4] = [Cause::Pace, Cause::Forced, Cause::Every, Cause::Limit];

/// An event, as it is recorded and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is.
    pub kind: Kind,
    /// A [`Cause`] or a [`Why`], by the kind.
    pub note: u8,
    /// The thread; [`WORLD`] or 0 for what is no thread's.
    pub tid: u32,
    /// Nanoseconds since the heap was made.
    pub start: u64,
    /// Nanoseconds.
    pub duration: u64,
    /// By the kind.
    pub args: [u64; 4],
}

/// The track of the stopped world: the first number that no thread has, since Linux numbers them below 2^22.
pub const WORLD: u32 = 1 << 22;

impl Event {
    fn words(&self) -> [u64; WORDS] {
        let what = u64::from(self.tid) << 32 | u64::from(self.note) << 8 | self.kind as u64;
        let [a, b, c, d] = self.args;
        [what, self.start, self.duration, a, b, c, d]
    }

    fn of([what, start, duration, a, b, c, d]: [u64; WORDS]) -> Option<Event> {
        let kind = *KINDS.get(usize::from(what as u8))?;
        let (note, tid) = ((what >> 8) as u8, (what >> 32) as u32);
        Some(Event { kind, note, tid, start, duration, args: [a, b, c, d] })
    }

    /// Of a cycle.
    pub fn cause(&self) -> Option<Cause> {
        CAUSES.get(usize::from(self.note)).copied()
    }

    /// Of a stop.
    pub fn why(&self) -> Option<Why> {
        REASONS.get(usize::from(self.note)).copied()
    }
}

/// The beginning of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Began {
    session: Session,
    ns: u64,
}

/// A slice that grows by steps of one thread. All zero is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gathered {
    session: Session,
    tid: u32,
    start: u64,
    end: u64,
    /// Nanoseconds of it that were steps.
    busy: u64,
    pages: u64,
}

/// Why a session could not be started, or came to no good end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimelineError {
    /// One is on already, or none is.
    State,
    /// The system refused memory.
    NoMemory,
    /// The file cannot be made.
    CannotCreate,
    /// The file cannot be written to its end.
    CannotWrite,
}

impl From<OutOfMemory> for TimelineError {
    fn from(_: OutOfMemory) -> TimelineError {
        TimelineError::NoMemory
    }
}

/// The slots, in a mapping that is made at the first start and stays.
struct Mapped {
    slots: OnceLock<ZeroedTable<Slot>>,
    capacity: usize,
}

impl Buffer for Mapped {
    fn slot(&self, index: usize) -> Option<&Slot> {
        if index < self.capacity { self.slots.get().map(|slots| slots.get(index)) } else { None }
    }
}

/// A session that is on.
struct Running {
    file: File,
    /// Room for the events' order, so that a stop asks for no memory. Not touched before.
    order: Vec<u32>,
}

/// The timeline of one heap.
pub struct Timeline {
    recorder: Recorder<Mapped>,
    /// Held for a start and a stop, file and all; by nobody who records.
    running: Mutex<Option<Running>>,
    heap: u64,
    epoch: Instant,
    /// When the heap's size is sampled next.
    next_sample: raw::AtomicU64,
    /// The heap's own thread that leads cycles; 0: there is none.
    leader: raw::AtomicU32,
}

impl Timeline {
    /// That of heap number `heap`, which was made at `epoch`.
    pub fn new(heap: u64, epoch: Instant) -> Timeline {
        Timeline::with_capacity(heap, epoch, CAPACITY)
    }

    fn with_capacity(heap: u64, epoch: Instant, capacity: usize) -> Timeline {
        Timeline {
            recorder: Recorder::new(Mapped { slots: OnceLock::new(), capacity }),
            running: Mutex::new(None),
            heap,
            epoch,
            next_sample: raw::AtomicU64::new(0),
            leader: raw::AtomicU32::new(0),
        }
    }

    /// The calling thread is the heap's own that leads cycles, from its start to its end; it gets a track of that name.
    pub fn leads(&self) {
        self.leader.store(current_tid(), raw::Ordering::Relaxed);
    }

    /// Starts a session that its stop writes to a new file at `path`.
    pub fn start(&self, path: &Path) -> Result<(), TimelineError> {
        let mut running = lock(&self.running);
        if running.is_some() {
            return Err(TimelineError::State);
        }
        let Mapped { slots, capacity } = self.recorder.buffer();
        let mut order = Vec::new();
        order.try_reserve_exact(*capacity).map_err(|_| TimelineError::NoMemory)?;
        if slots.get().is_none() {
            // The lock is held: nobody else sets it.
            let _ = slots.set(ZeroedTable::new(*capacity)?);
        }
        let file = create(path).map_err(|_| TimelineError::CannotCreate)?;
        *running = Some(Running { file, order });
        self.next_sample.store(0, raw::Ordering::Relaxed);
        self.recorder.start();
        Ok(())
    }

    /// Stops the session and writes its file. Also when that fails, the session is over.
    pub fn stop(&self) -> Result<(), TimelineError> {
        let mut running = lock(&self.running);
        let Some(Running { file, mut order }) = running.take() else { return Err(TimelineError::State) };
        let mut recorded = self.recorder.stop();
        let used = recorded.events;
        let event = |index: u32| self.recorder.event(index as usize).and_then(Event::of);
        // The cycle that the last slots cut off, if they do, and what else is behind its beginning: its own events.
        let cut = used.saturating_sub(CYCLE_EVENTS - 1)..used;
        if let Some(cycle) = cut.into_iter().find(|&i| event(i as u32).is_some_and(|e| e.kind == Kind::Cycle))
        {
            recorded.dropped += used - cycle;
            recorded.events = cycle;
        }
        order.extend(0..recorded.events as u32);
        // By track, and there the outer slice before the inner ones, also when they begin together.
        order.sort_unstable_by_key(|&index| {
            event(index).map(|e| (e.tid, e.start, std::cmp::Reverse(e.duration), e.kind))
        });
        let leader = self.leader.load(raw::Ordering::Relaxed);
        let head = Head { heap: self.heap, leader, events: recorded.events, dropped: recorded.dropped };
        let events = order.iter().filter_map(|&index| event(index));
        let written = json::write(file, &head, events);
        if let Some(slots) = self.recorder.buffer().slots.get() {
            slots.clear(used);
        }
        written.map_err(|_| TimelineError::CannotWrite)
    }

    /// Keeps those who start and stop outside; who records is not.
    pub fn hold(&self) -> Held<'_> {
        hold(&self.running)
    }

    /// In the child of a fork: the session, if one is on, is the parent's, and so are its file and the thread that leads.
    pub fn after_fork(&self) {
        self.leader.store(0, raw::Ordering::Relaxed);
        if lock(&self.running).take().is_some() {
            let used = self.recorder.forget();
            if let Some(slots) = self.recorder.buffer().slots.get() {
                slots.clear(used.min(self.recorder.buffer().capacity));
            }
        }
    }

    /// Whether a session is on.
    pub fn is_on(&self) -> bool {
        self.recorder.session().is_some()
    }

    /// A slice begins, if a session is on.
    #[inline(always)]
    pub fn begin(&self) -> Option<Began> {
        self.recorder.session().map(|session| self.begin_in(session))
    }

    #[cold]
    fn begin_in(&self, session: Session) -> Began {
        Began { session, ns: self.now() }
    }

    /// A slice begins, if a session is on, and the moment in which it does, from which its parts are measured. (Were the
    /// clock read twice, a thread that loses its processor in between would move them all.)
    #[inline]
    pub fn begin_now(&self) -> (Instant, Option<Began>) {
        // The session first: what it records began after its start.
        let session = self.recorder.session();
        let now = Instant::now();
        let ns = now.saturating_duration_since(self.epoch).as_nanos() as u64;
        (now, session.map(|session| Began { session, ns }))
    }

    /// The slice ends now.
    #[inline(always)]
    pub fn end(&self, began: Option<Began>, kind: Kind, args: [u64; 4]) {
        if let Some(began) = began {
            self.end_of(began, kind, args);
        }
    }

    #[cold]
    fn end_of(&self, began: Began, kind: Kind, args: [u64; 4]) {
        let duration = self.now() - began.ns;
        if kind != Kind::WaitForP || duration >= WAIT_NS {
            self.record(began, kind, 0, current_tid(), 0..duration, args);
        }
    }

    /// The slices of a cycle that ended just now.
    #[inline(always)]
    pub fn cycle(&self, began: Option<Began>, cycle: &CycleRecord) {
        if let Some(began) = began {
            self.phases(began, cycle);
        }
    }

    #[cold]
    fn phases(&self, began: Began, cycle: &CycleRecord) {
        let ns = |d: Duration| d.as_nanos() as u64;
        let tid = current_tid();
        let all = ns(cycle.total);
        let swept = ns(cycle.sweep);
        let (end, ready) = (all - ns(cycle.end), all - ns(cycle.resume));
        let (roots, drain) = (ns(cycle.marked.root_time), ns(cycle.marked.drain_time));
        // In the stop, between the flush and the end; or beside the program, before the stop.
        let (asked, marked) = cycle.beside.map_or((swept, end), |asked| (ns(asked), ns(asked)));
        let (stopped, rooted) = (asked + ns(cycle.stop), marked - drain);
        let flushed = if cycle.beside.is_some() { end } else { rooted - roots };
        let number = [cycle.number, 0, 0, 0];
        let facts = [cycle.number, cycle.before, cycle.marked.live.0 as u64, cycle.goal];
        let phase = |kind, from, to| event(began, kind, 0, tid, from..to, [0; 4]);
        // At once, and side by side, so that a file has a cycle with all its phases or none of them: see `stop`.
        let events: [Event; CYCLE_EVENTS] = [
            event(began, Kind::Cycle, cycle.cause as u8, tid, 0..all, facts),
            phase(Kind::FinishSweep, 0, swept),
            phase(Kind::Stop, asked, stopped),
            phase(Kind::Flush, stopped, flushed),
            phase(Kind::Roots, rooted - roots, rooted),
            phase(Kind::Mark, rooted, marked),
            phase(Kind::End, end, ready),
            phase(Kind::Resume, ready, all),
            event(began, Kind::WorldStopped, Why::Cycle as u8, WORLD, stopped..ready, number),
        ];
        self.recorder.record(began.session, events.map(|event| event.words()));
    }

    /// A stop for `why` ended then: [`Kind::WorldStopped`] before the world goes on, [`Kind::Hold`] as it does.
    #[inline(always)]
    pub fn end_stop(&self, began: Option<Began>, kind: Kind, why: Why, then: Instant) {
        if let Some(began) = began {
            self.end_stop_of(began, kind, why, then);
        }
    }

    #[cold]
    fn end_stop_of(&self, began: Began, kind: Kind, why: Why, then: Instant) {
        let tid = if kind == Kind::WorldStopped { WORLD } else { current_tid() };
        let ns = then.saturating_duration_since(self.epoch).as_nanos() as u64;
        self.record(began, kind, why as u8, tid, 0..ns - began.ns, [0; 4]);
    }

    /// Adds a step that ends now to a slice, or ends the slice and begins one with it.
    #[cold]
    pub fn gather(&self, slice: &mut Gathered, kind: Kind, began: Began, pages: Pages) {
        let (tid, now) = (current_tid(), self.now());
        if slice.session != began.session || slice.tid != tid || began.ns - slice.end > GATHER_NS {
            self.end_gathered(slice, kind);
            *slice = Gathered { session: began.session, tid, start: began.ns, ..Gathered::default() };
        }
        slice.end = now;
        slice.busy += now - began.ns;
        slice.pages += pages.0 as u64;
    }

    /// Ends a slice that was gathered, if there is one.
    #[inline(always)]
    pub fn end_gathered(&self, slice: &mut Gathered, kind: Kind) {
        if slice.pages != 0 {
            self.record_gathered(std::mem::take(slice), kind);
        }
    }

    #[cold]
    fn record_gathered(&self, slice: Gathered, kind: Kind) {
        let Gathered { session, tid, start, end, busy, pages } = slice;
        self.record(Began { session, ns: start }, kind, 0, tid, 0..end - start, [pages, busy, 0, 0]);
    }

    /// Whether a sample of the heap's size, while it grows, is due.
    pub fn sample_is_due(&self, began: &Began) -> bool {
        let due = self.next_sample.load(raw::Ordering::Relaxed);
        let next = began.ns + SAMPLE_NS;
        let relaxed = raw::Ordering::Relaxed;
        began.ns >= due && self.next_sample.compare_exchange(due, next, relaxed, relaxed).is_ok()
    }

    /// Records a sample of the heap's size.
    #[cold]
    pub fn sample(&self, began: Began, live: u64, goal: u64, footprint: u64) {
        self.record(began, Kind::Heap, 0, 0, 0..0, [live, goal, footprint, 0]);
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn record(&self, began: Began, kind: Kind, note: u8, tid: u32, at: Range<u64>, args: [u64; 4]) {
        self.recorder.record(began.session, [event(began, kind, note, tid, at, args).words()]);
    }
}

/// `at` is nanoseconds after `began`.
fn event(began: Began, kind: Kind, note: u8, tid: u32, at: Range<u64>, args: [u64; 4]) -> Event {
    Event { kind, note, tid, start: began.ns + at.start, duration: at.end - at.start, args }
}

/// Makes or empties the file. Waits for nobody: a pipe that no one reads is an error, and one that is read is written
/// as files are.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    // SAFETY: the file is open, and the flags that can be set are none but this one, which goes.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(file),
    }
}

pub(crate) fn current_tid() -> u32 {
    // SAFETY: no preconditions.
    unsafe { libc::gettid() as u32 }
}

#[cfg(all(test, not(loom)))]
mod tests;
