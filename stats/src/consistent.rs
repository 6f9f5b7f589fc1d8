//! Heap statistics whose fields are read together, consistently, without stopping anybody.
//!
//! A ring of three records and a generation. Each P has a sequence number, odd while it writes. A writer adds
//! into the record of the generation it saw; a reader turns the generation, waits until each P is past the write
//! that it was in, if any, and then owns the record that was current. Three records are what it takes: one being
//! written, one being read, one emptied for the next turn.
//!
//! What this gives, beyond each field's own total: the additions of one guard are in a snapshot all or not at
//! all, and a guard that happens after another (same thread, or ordered by any synchronization) is in no
//! snapshot that the other is missing from.

use core::array::from_fn;

use crate::delta::{BALANCES, HeapStatsDelta, SIZE_CLASSES};
use crate::fatal;
use crate::sync::{
    AccessCheck, AtomicI64, AtomicU32, AtomicU64, Held, Mutex, MutexGuard, Ordering, fence, hold, lock,
    spin_loop, yield_now,
};

/// Records in the ring.
const RECORDS: usize = 3;

/// How often a read looks at open guards before it yields the processor between two looks. Higher: a reader burns
/// more when a writer has been descheduled. Lower: a system call for a section of a few dozen instructions.
const SPINS: u32 = 64;

/// The sequence number of one P: odd while that P holds a guard. Zeroed memory is a valid one.
#[repr(transparent)]
pub struct StatsSeq(AtomicU32);

impl StatsSeq {
    /// The sequence of a P that has not written yet.
    pub fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Waits until the guard that is open now, if any, is closed, and calls `pause` after each look that finds it open.
    ///
    /// Not until no guard is open: a writer that never rests would be found in one guard after another. One will do.
    /// The reader has stored the generation, fenced, and seen the sequence at s, odd. A later guard's
    /// read-modify-write follows s in the order of the sequence's values, and the reader did not see it; so the
    /// fence after it comes later than the reader's, and the guard sees the new generation. Guard s alone may add to
    /// the old record, and any value but s says that it is closed. (Should s come back after 2^31 guards, the reader
    /// waits for one more.)
    fn wait(&self, mut pause: impl FnMut(u32)) {
        // Acquire, here and below, with the Release that closes a guard: what it added is visible to the reader, also
        // if a later guard is open by now, whose read-modify-write continues the release sequence.
        let first = self.0.load(Ordering::Acquire);
        if first & 1 == 0 {
            return;
        }
        loop {
            pause(first);
            if self.0.load(Ordering::Acquire) != first {
                return;
            }
        }
    }
}

impl Default for StatsSeq {
    fn default() -> Self {
        Self::new()
    }
}

/// One record of the ring: a [`HeapStatsDelta`] that many threads add into. Aligned so that two records
/// never share a cache line: the reader empties one while writers fill another.
#[repr(align(64))]
struct Record {
    signed: [AtomicI64; BALANCES],
    large: [AtomicU64; 4],
    small_alloc: [AtomicU64; SIZE_CLASSES],
    small_free: [AtomicU64; SIZE_CLASSES],
    /// Shared by the open guards of its generation, then the reader's alone.
    access: AccessCheck,
}

impl Record {
    fn new() -> Self {
        Self {
            signed: from_fn(|_| AtomicI64::new(0)),
            large: from_fn(|_| AtomicU64::new(0)),
            small_alloc: from_fn(|_| AtomicU64::new(0)),
            small_free: from_fn(|_| AtomicU64::new(0)),
            access: AccessCheck::default(),
        }
    }

    fn load(&self) -> HeapStatsDelta {
        self.access.exclusive();
        let mut delta = HeapStatsDelta::ZERO;
        for (to, from) in delta.signed_mut().into_iter().zip(&self.signed) {
            *to = from.load(Ordering::Relaxed);
        }
        for (to, from) in delta.large_mut().into_iter().zip(&self.large) {
            *to = from.load(Ordering::Relaxed);
        }
        for (to, from) in delta.small_alloc_count.iter_mut().zip(&self.small_alloc) {
            *to = from.load(Ordering::Relaxed);
        }
        for (to, from) in delta.small_free_count.iter_mut().zip(&self.small_free) {
            *to = from.load(Ordering::Relaxed);
        }
        delta
    }

    fn store(&self, delta: &HeapStatsDelta) {
        for (to, from) in self.signed.iter().zip(delta.signed()) {
            to.store(from, Ordering::Relaxed);
        }
        for (to, from) in self.large.iter().zip(delta.large()) {
            to.store(from, Ordering::Relaxed);
        }
        for (to, from) in self.small_alloc.iter().zip(delta.small_alloc_count) {
            to.store(from, Ordering::Relaxed);
        }
        for (to, from) in self.small_free.iter().zip(delta.small_free_count) {
            to.store(from, Ordering::Relaxed);
        }
        self.access.exclusive();
    }
}

/// Keeps the generation, which every writer reads, off the lines of the locks and records.
#[repr(align(64))]
struct Generation(AtomicU32);

/// Who writes without a P: one at a time, at a sequence that they share. The reader waits for the sequence as for a
/// P's, and never for the lock, at which others may overtake it.
#[derive(Default)]
struct Unattached {
    seq: StatsSeq,
    /// Held by the open guard.
    turn: Mutex<()>,
}

/// The ring.
///
/// With g = `generation`, between two reads:
/// - `records[(g + 2) % 3]` is the answer of the last read: the sum of everything before it;
/// - `records[g]` has what was added since;
/// - `records[(g + 1) % 3]` is zero;
/// - a guard that is open adds into `records[g]`.
///
/// During a read the last holds for g or g - 1, and for g alone once every sequence has been waited for.
pub struct ConsistentHeapStats {
    records: [Record; RECORDS],
    /// Below [`RECORDS`]. Turned by a reader.
    generation: Generation,
    unattached: Unattached,
    /// Held during a read; the reader's copy of the generation. Order: `reader`, then `unattached`.
    reader: Mutex<u32>,
}

impl ConsistentHeapStats {
    /// A ring in which nothing has been counted. It lives where it is put: nothing is allocated.
    pub fn new() -> Self {
        Self {
            records: from_fn(|_| Record::new()),
            generation: Generation(AtomicU32::new(0)),
            unattached: Unattached::default(),
            reader: Mutex::new(0),
        }
    }

    /// The writer of the P whose sequence is `seq`.
    pub fn writer<'a>(&'a self, seq: &'a StatsSeq) -> Writer<'a> {
        Writer { stats: self, seq: Some(seq) }
    }

    /// The writer of a thread without a P. Its guards exclude each other, over all threads.
    pub fn unattached(&self) -> Writer<'_> {
        Writer { stats: self, seq: None }
    }

    /// A consistent snapshot, without a stop. Waits for at most one guard of each writer, and for other readers.
    ///
    /// `seqs` are the sequences of all Ps. The caller pins that set until this returns: a P joins it before it
    /// first writes, and leaves it after its last guard is closed, each ordered with this read by whatever
    /// pins the set. The calling thread holds no guard.
    pub fn read<'s>(&self, seqs: impl Iterator<Item = &'s StatsSeq>) -> HeapStatsDelta {
        let mut looks = 0;
        self.read_pausing(seqs, |_| {
            looks += 1;
            if cfg!(loom) || looks > SPINS {
                yield_now();
            } else {
                spin_loop();
            }
        })
    }

    /// [`read`](Self::read) that calls `pause` whenever it has found a guard of a P open, with that P's sequence number,
    /// and then looks again: for tests and measurements of the wait.
    pub fn read_pausing<'s>(
        &self,
        seqs: impl Iterator<Item = &'s StatsSeq>,
        mut pause: impl FnMut(u32),
    ) -> HeapStatsDelta {
        let mut generation = lock(&self.reader);
        let current = *generation as usize;
        *generation = (*generation + 1) % RECORDS as u32;
        // Release: a writer that sees the new generation sees its record emptied.
        self.generation.0.store(*generation, Ordering::Release);
        // Store buffering, with the fence in `acquire`: either this thread sees the sequence odd (and waits),
        // or the writer sees the new generation.
        fence(Ordering::SeqCst);
        for seq in seqs {
            seq.wait(&mut pause);
        }
        self.unattached.seq.wait(&mut pause);
        // From here on nobody else touches these two: loads and stores, no read-modify-write.
        let before = &self.records[(current + RECORDS - 1) % RECORDS];
        let mut total = before.load();
        total.merge(&self.records[current].load());
        self.records[current].store(&total);
        before.store(&HeapStatsDelta::ZERO);
        total
    }

    /// The same with the world stopped, which the caller promises: no P has a guard open, and all that Ps wrote
    /// happens before this call. Writers without a P and readers may be running, and are waited for.
    pub fn read_stopped(&self) -> HeapStatsDelta {
        let _reader = lock(&self.reader);
        let _unattached = lock(&self.unattached.turn);
        let mut total = HeapStatsDelta::ZERO;
        for record in &self.records {
            total.merge(&record.load());
        }
        total
    }

    /// Keeps readers, and writers without a P, outside.
    pub fn hold(&self) -> [Held<'_>; 2] {
        [hold(&self.reader), hold(&self.unattached.turn)]
    }
}

impl Default for ConsistentHeapStats {
    fn default() -> Self {
        Self::new()
    }
}

/// Who adds to the statistics: a P, or a thread without one.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    stats: &'a ConsistentHeapStats,
    seq: Option<&'a StatsSeq>,
}

impl<'a> Writer<'a> {
    /// Opens a guard. A reader waits until it is dropped: keep it short, do not stop at a safepoint or
    /// hand the P over inside it, and do not open another of the same P (which aborts) or, without a P, of any.
    pub fn acquire(self) -> StatsGuard<'a> {
        let (seq, turn) = match self.seq {
            Some(seq) => (seq, None),
            None => (&self.stats.unattached.seq, Some(lock(&self.stats.unattached.turn))),
        };
        // A read-modify-write, so that two threads that use one P are caught as well.
        let before = seq.0.fetch_add(1, Ordering::Relaxed);
        if before & 1 == 1 {
            reentered();
        }
        // Store buffering, with the fence in `read`.
        fence(Ordering::SeqCst);
        let generation = self.stats.generation.0.load(Ordering::Acquire);
        let record = &self.stats.records[generation as usize];
        record.access.shared();
        StatsGuard { record, seq, even: before.wrapping_add(2), _turn: turn }
    }
}

#[cold]
#[inline(never)]
fn reentered() -> ! {
    fatal(format_args!("heap statistics: a P opened a second guard while one of its guards is open"))
}

/// The right to add to the current record. All that is added through one guard appears in a snapshot at once.
pub struct StatsGuard<'a> {
    record: &'a Record,
    /// Odd, which keeps a reader out of the record.
    seq: &'a StatsSeq,
    /// Its next value, stored by nobody else meanwhile.
    even: u32,
    /// Of a writer without a P.
    _turn: Option<MutexGuard<'a, ()>>,
}

impl StatsGuard<'_> {
    /// Adds to the bytes that are backed by memory.
    pub fn committed(&self, bytes: i64) {
        self.signed(0, bytes);
    }

    /// Adds to the bytes given back to the system.
    pub fn released(&self, bytes: i64) {
        self.signed(1, bytes);
    }

    /// Adds to the bytes of object spans. Taking pages: before any object in them is credited. Giving pages
    /// back: after the free of the objects in them is.
    pub fn in_heap(&self, bytes: i64) {
        self.signed(2, bytes);
    }

    /// Adds to the bytes of stack spans.
    pub fn in_stacks(&self, bytes: i64) {
        self.signed(3, bytes);
    }

    /// Adds to the bytes of work buffer spans.
    pub fn in_work_bufs(&self, bytes: i64) {
        self.signed(4, bytes);
    }

    /// Adds to the bytes of metadata spans.
    pub fn in_metadata(&self, bytes: i64) {
        self.signed(5, bytes);
    }

    /// Adds to the bytes that may be touched; in the same guard that commits or releases them.
    pub fn mapped(&self, bytes: i64) {
        self.signed(6, bytes);
    }

    /// One large object of `bytes` was allocated.
    pub fn large_alloc(&self, bytes: u64) {
        add(&self.record.large[0], bytes);
        add(&self.record.large[1], 1);
    }

    /// One large object of `bytes` was freed.
    pub fn large_free(&self, bytes: u64) {
        add(&self.record.large[2], bytes);
        add(&self.record.large[3], 1);
    }

    /// `n` objects of `class` were allocated. Nothing is taken back, so that no snapshot counts fewer than one before.
    pub fn small_alloc(&self, class: usize, n: u64) {
        add(&self.record.small_alloc[class], n);
    }

    /// `n` objects of `class` were freed.
    pub fn small_free(&self, class: usize, n: u64) {
        add(&self.record.small_free[class], n);
    }

    fn signed(&self, field: usize, bytes: i64) {
        // Relaxed: the closing of the guard publishes it.
        self.record.signed[field].fetch_add(bytes, Ordering::Relaxed);
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Drop for StatsGuard<'_> {
    fn drop(&mut self) {
        self.record.access.shared();
        // Release: a reader that sees this value, or the next guard's, sees what was added.
        self.seq.0.store(self.even, Ordering::Release);
    }
}
