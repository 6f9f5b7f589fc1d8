//! Ephemerons: heap objects that keep a value for as long as something else keeps their key.
//!
//! An ephemeron that the marker meets is in one of these states, which its words tell:
//!
//! | state | key | link | flag | until |
//! |---|---|---|---|---|
//! | at rest | an object | anything | 0 | it is scanned: a marked key makes its value an edge, and it stays at rest |
//! | waiting | an object | the next that waits, in no order | 1 | all else is marked |
//! | watched | an object | the next in its bucket | 1 | the end of the cycle; once its key is marked it is queued anew |
//! | closed | 0 | anything | 0 | it dies itself |
//!
//! So a cycle first marks all that needs no ephemeron. If some wait then, it begins to *watch*: they go into a table by their
//! keys, and whoever has marked an object looks there, from then on to the end of the cycle, for ephemerons to be queued: when it
//! scans the object, or at once if that has no pointers.
//! Each ephemeron is scanned at most twice, whatever the order of a chain. The links are the ephemerons' own words, so
//! nothing is allocated; the table is a mapping, as large as there are ephemerons, given back after the cycle.
//!
//! One that comes to the table while its key is being marked: who adds it looks at the mark afterwards, who marks looks at
//! the table afterwards, so that one of them sees the other ([`wait`], [`wake`]; there is a loom model).

use crate::phase::Phase;
use besom_alloc_core::heap_tables::GRANULE_SHIFT;
use besom_alloc_core::os::{Mapping, OutOfMemory};
use besom_alloc_core::span_class::EPHEMERON;
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::units::Bytes;
use besom_stats::sync::raw;
use besom_stats::sync::{AtomicU64, Ordering::*, fence};

/// The share of the reservation that the table may take. Higher: address space. Lower: longer chains where the heap is
/// full of ephemerons.
const RESERVE_SHARE: usize = 128;
/// The least and the most bytes of it.
const LEAST: usize = 64 << 10;
const MOST: usize = 1 << 30;
/// Buckets that a cycle which watches has at least.
const BUCKETS_LEAST: usize = 512;

/// The words of an ephemeron, in the heap.
#[repr(C)]
pub struct Ephemeron {
    key: raw::AtomicUsize,
    value: raw::AtomicUsize,
    link: raw::AtomicU64,
    flag: raw::AtomicU64,
}

impl Ephemeron {
    /// The ephemeron at an offset.
    ///
    /// # Safety
    /// A slot of class [`EPHEMERON`] must be there that is not freed while the reference lives.
    pub unsafe fn at(heap: &SpanHeap, offset: usize) -> &Ephemeron {
        // SAFETY: the caller's promise; any words are valid.
        unsafe { &*heap.address(offset).cast::<Ephemeron>() }
    }

    /// Sets what a new one holds.
    pub fn fill(&self, key: usize, value: usize) {
        self.value.store(value, Relaxed);
        self.key.store(key, Relaxed);
    }

    /// The key, or 0 if it is found dead; see [`super::weak::WeakEntry::read`].
    #[inline]
    pub fn key(&self, phase: Phase, is_marked: impl FnOnce(usize) -> bool) -> usize {
        let key = self.key.load(Acquire);
        if key == 0 || phase != Phase::Resolving {
            return key;
        }
        if !is_marked(key) {
            return 0;
        }
        fence(Acquire);
        self.key.load(Relaxed)
    }

    /// The value, or 0 if the key is found dead.
    #[inline]
    pub fn value(&self, phase: Phase, is_marked: impl FnOnce(usize) -> bool) -> usize {
        let value = self.value.load(Relaxed);
        if self.key(phase, is_marked) == 0 { 0 } else { value }
    }

    /// Key and value as they are, for who checks in a stopped world.
    pub(crate) fn contents(&self) -> (usize, usize) {
        (self.key.load(Relaxed), self.value.load(Relaxed))
    }

    /// The link, which is the verifier's outside cycles.
    pub(crate) fn link(&self) -> u64 {
        self.link.load(Relaxed)
    }

    /// Sets that.
    pub(crate) fn set_link(&self, link: u64) {
        self.link.store(link, Relaxed);
    }

    fn close(&self) {
        self.key.store(0, Relaxed);
        self.value.store(0, Relaxed);
    }
}

/// The table of the watched, as the protocol needs it: ephemerons are numbers, not 0; keys have numbers, too.
pub trait Watched {
    /// The first ephemeron in the bucket of a key.
    fn bucket(&self, key: usize) -> &AtomicU64;
    /// The key of an ephemeron.
    fn key(&self, ephemeron: u64) -> usize;
    /// The ephemeron after it in its bucket.
    fn next(&self, ephemeron: u64) -> u64;
    /// Sets that.
    fn set_next(&self, ephemeron: u64, next: u64);
    /// Whether a key is marked.
    fn is_marked(&self, key: usize) -> bool;
}

/// Puts an ephemeron into the table. True: its key is marked, perhaps by somebody who did not see it there, and the
/// caller queues its value.
pub fn wait(watched: &impl Watched, ephemeron: u64) -> bool {
    let key = watched.key(ephemeron);
    let bucket = watched.bucket(key);
    let mut first = bucket.load(Relaxed);
    loop {
        watched.set_next(ephemeron, first);
        match bucket.compare_exchange(first, ephemeron, Release, Relaxed) {
            Ok(_) => break,
            Err(now) => first = now,
        }
    }
    fence(SeqCst);
    watched.is_marked(key)
}

/// Calls `found` with the ephemerons that wait for a key, which the caller has just marked; the number of those that it
/// looked at.
pub fn wake(watched: &impl Watched, key: usize, mut found: impl FnMut(u64)) -> usize {
    fence(SeqCst);
    let mut ephemeron = watched.bucket(key).load(Acquire);
    let mut looked = 0;
    while ephemeron != 0 {
        if watched.key(ephemeron) == key {
            found(ephemeron);
        }
        ephemeron = watched.next(ephemeron);
        looked += 1;
    }
    looked
}

/// What a scan of an ephemeron finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// The value, if it is an edge now, else 0.
    pub value: usize,
    /// It was scanned before in this cycle.
    pub again: bool,
}

/// The ephemerons of one heap, as its marker sees them.
///
/// - `pending` leads through all that wait, `buckets` (a power of two of them while watching) to all that are watched
/// - `open` only while all who mark call [`Self::wake`], and that only while `watching`
/// - there are at most `seen_last + made - made_last` ephemerons
pub struct Ephemerons {
    table: Mapping,
    pending: raw::AtomicU64,
    watching: raw::AtomicBool,
    /// Those who mark add to the table: everybody who does wakes what is in it.
    open: raw::AtomicBool,
    buckets: raw::AtomicUsize,
    /// Made since the heap was, and until the last cycle that ended began to count; and scanned in that.
    made: raw::AtomicUsize,
    made_last: raw::AtomicUsize,
    seen_last: raw::AtomicUsize,
    /// Scanned in this cycle, and what was made before it.
    seen: raw::AtomicUsize,
    made_before: raw::AtomicUsize,
    steps: raw::AtomicU64,
}

/// The table, and the heap in which its ephemerons lie.
struct InHeap<'h> {
    all: &'h Ephemerons,
    heap: &'h SpanHeap,
}

impl InHeap<'_> {
    fn words(&self, ephemeron: u64) -> &Ephemeron {
        // SAFETY: numbers are made of offsets of marked ephemerons, which no sweep frees in this cycle.
        unsafe { Ephemeron::at(self.heap, ephemeron as usize - 1) }
    }
}

impl Watched for InHeap<'_> {
    fn bucket(&self, key: usize) -> &AtomicU64 {
        let buckets = self.all.buckets.load(Relaxed);
        let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24;
        self.all.bucket(hash & (buckets - 1))
    }

    fn key(&self, ephemeron: u64) -> usize {
        self.words(ephemeron).key.load(Relaxed).wrapping_sub(self.heap.tables().base()) >> GRANULE_SHIFT
    }

    fn next(&self, ephemeron: u64) -> u64 {
        self.words(ephemeron).link.load(Relaxed)
    }

    fn set_next(&self, ephemeron: u64, next: u64) {
        self.words(ephemeron).link.store(next, Relaxed);
    }

    fn is_marked(&self, key: usize) -> bool {
        self.heap.tables().is_marked(key << GRANULE_SHIFT)
    }
}

impl Ephemerons {
    /// None yet.
    pub fn new(reserve: Bytes) -> Result<Ephemerons, OutOfMemory> {
        let bytes = (reserve.0 / RESERVE_SHARE).clamp(LEAST, MOST);
        Ok(Ephemerons {
            table: Mapping::lazy_zeroed_down_to(bytes, 4096)?,
            pending: raw::AtomicU64::new(0),
            watching: raw::AtomicBool::new(false),
            open: raw::AtomicBool::new(false),
            buckets: raw::AtomicUsize::new(0),
            made: raw::AtomicUsize::new(0),
            made_last: raw::AtomicUsize::new(0),
            seen_last: raw::AtomicUsize::new(0),
            seen: raw::AtomicUsize::new(0),
            made_before: raw::AtomicUsize::new(0),
            steps: raw::AtomicU64::new(0),
        })
    }

    fn bucket(&self, at: usize) -> &AtomicU64 {
        debug_assert!((at + 1) * 8 <= self.table.len());
        // SAFETY: buckets in use lie in the mapping.
        unsafe { &*self.table.ptr().cast::<AtomicU64>().add(at) }
    }

    /// Counts one that is about to be made.
    pub fn count_new(&self) {
        self.made.fetch_add(1, Relaxed);
    }

    /// Whether the marker must call [`Self::wake`] for what it marks.
    #[inline]
    pub fn is_watching(&self) -> bool {
        self.watching.load(Acquire)
    }

    /// Ephemerons that were looked at so far because somebody marked an object of their bucket.
    pub fn steps(&self) -> u64 {
        self.steps.load(Relaxed)
    }

    /// Bytes of the table; 0 outside cycles.
    pub fn bytes(&self) -> Bytes {
        Bytes(self.buckets.load(Relaxed) * 8)
    }

    /// A cycle begins to mark.
    pub fn begin_cycle(&self) {
        self.seen.store(0, Relaxed);
        self.made_before.store(self.made.load(Relaxed), Relaxed);
    }

    /// Scans one that is marked: its value is an edge, or it waits for its key.
    pub fn scan(&self, heap: &SpanHeap, offset: usize) -> Scanned {
        let table = InHeap { all: self, heap };
        let number = offset as u64 + 1;
        let ephemeron = table.words(number);
        let again = ephemeron.flag.load(Relaxed) != 0;
        if !again {
            self.seen.fetch_add(1, Relaxed);
        }
        let waits = match ephemeron.key.load(Relaxed) {
            0 => return Scanned { value: 0, again },
            _ if table.is_marked(table.key(number)) => false,
            // It is in the table or the list: who marks its key, or takes it off the list, sees to it.
            _ if again => true,
            // Of two who scan it at the same time one has it wait.
            _ if ephemeron.flag.swap(1, Relaxed) != 0 => true,
            _ => {
                // While some who mark do not know of the table yet, it is not for those who do.
                if self.open.load(Acquire) {
                    !wait(&table, number)
                } else {
                    let push = |first| {
                        table.set_next(number, first);
                        Some(number)
                    };
                    _ = self.pending.fetch_update(Release, Relaxed, push);
                    true
                }
            }
        };
        Scanned { value: if waits { 0 } else { ephemeron.value.load(Relaxed) }, again }
    }

    /// Begins to watch, if some wait and it is not done already; whether it did. All else is marked; `memory` counts the
    /// table. Everybody who comes to mark after it is to call [`Self::wake`] for what is marked; those who had come before must
    /// have left before [`Self::watch_waiting`].
    pub fn begin_watch(&self, memory: &besom_stats::SysMemStat) -> bool {
        if self.is_watching() || !self.has_waiting() {
            return false;
        }
        let most = (self.table.len() / 8 + 1).next_power_of_two() / 2;
        let since = self.made.load(Relaxed).wrapping_sub(self.made_last.load(Relaxed));
        let bound = self.seen_last.load(Relaxed) + since;
        let buckets = bound.next_power_of_two().max(BUCKETS_LEAST).min(most);
        self.buckets.store(buckets, Relaxed);
        memory.add((buckets * 8) as i64);
        self.watching.store(true, Release);
        true
    }

    /// Whether some wait that are not in the table.
    pub fn has_waiting(&self) -> bool {
        self.pending.load(Relaxed) != 0
    }

    /// Opens the table, puts all that wait into it, and shows the values of those whose keys were marked meanwhile.
    pub fn watch_waiting(&self, heap: &SpanHeap, mut visit: impl FnMut(usize)) {
        self.open.store(true, Release);
        let table = InHeap { all: self, heap };
        let mut number = self.pending.swap(0, Acquire);
        while number != 0 {
            let next = table.next(number);
            if wait(&table, number) {
                visit(table.words(number).value.load(Relaxed));
            }
            number = next;
        }
    }

    /// Calls `found` with the offsets of those whose key starts at `offset`, which the caller has just marked.
    pub fn wake(&self, heap: &SpanHeap, offset: usize, mut found: impl FnMut(usize)) {
        let table = InHeap { all: self, heap };
        let looked = wake(&table, offset >> GRANULE_SHIFT, |number| found(number as usize - 1));
        if looked != 0 {
            self.steps.fetch_add(looked as u64, Relaxed);
        }
    }

    /// Closes the watched ones whose keys are not marked. Nobody marks meanwhile; the program may read them.
    pub fn close(&self, heap: &SpanHeap) {
        self.close_and(heap, |_| ());
    }

    /// Ends the cycle: closes likewise, and forgets all. `memory` counts the table.
    pub fn end_cycle(&self, heap: &SpanHeap, memory: &besom_stats::SysMemStat) {
        self.seen_last.store(self.seen.load(Relaxed), Relaxed);
        self.made_last.store(self.made_before.load(Relaxed), Relaxed);
        if !self.is_watching() {
            return;
        }
        self.close_and(heap, |ephemeron| ephemeron.flag.store(0, Relaxed));
        let buckets = self.buckets.load(Relaxed);
        // Memory that the program has locked would not read as zero otherwise.
        (0..buckets)
            .map(|at| self.bucket(at))
            .filter(|b| b.load(Relaxed) != 0)
            .for_each(|b| b.store(0, Relaxed));
        self.table.discard(0, buckets * 8);
        memory.add(-((buckets * 8) as i64));
        self.buckets.store(0, Relaxed);
        self.open.store(false, Relaxed);
        self.watching.store(false, Relaxed);
    }

    /// Closes the watched ones whose keys are not marked, and calls `then` with each that is watched.
    fn close_and(&self, heap: &SpanHeap, mut then: impl FnMut(&Ephemeron)) {
        let table = InHeap { all: self, heap };
        for at in 0..self.buckets.load(Relaxed) {
            let mut number = self.bucket(at).load(Acquire);
            while number != 0 {
                let (ephemeron, next) = (table.words(number), table.next(number));
                // One that is closed has no key.
                if ephemeron.key.load(Relaxed) != 0 && !table.is_marked(table.key(number)) {
                    ephemeron.close();
                }
                then(ephemeron);
                number = next;
            }
        }
    }
}

/// Whether an ephemeron that is handed out starts at an address; by the page, without a lock.
#[inline]
pub fn offset_of(heap: &SpanHeap, address: usize) -> Option<usize> {
    use besom_alloc_core::units::PageId;
    let offset = heap.tables().offset_of(address)?;
    let is_one = heap.tables().class_of(PageId::of_offset(offset)) == Some(EPHEMERON)
        && offset.is_multiple_of(size_of::<Ephemeron>())
        && heap.tables().is_allocated(offset);
    is_one.then_some(offset)
}
