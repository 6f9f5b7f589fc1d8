//! Finalizers: functions that the VM has run on an object that nothing else reaches any more, which they get alive.
//!
//! There is one an object at most, so they are found by their object: a hash table whose buckets are chains through the
//! entries. It grows by linear hashing, one bucket split for each entry that is added, so that no thread waits for a rehash, in
//! a mapping, so that nothing moves. The collector looks through the entries chunk by chunk, under the lock that
//! threads take to set one: they wait for a chunk, not for the walk.

use super::due::{Item, Links, List};
use super::slab::{Slab, Slot};
use besom_alloc_core::heap_tables::GRANULE_SHIFT;
use besom_alloc_core::os::{Mapping, OutOfMemory};
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::units::Bytes;
use besom_stats::sync;
use besom_stats::sync::raw::{AtomicU32, Ordering::Relaxed as RawRelaxed};
use besom_stats::sync::{AtomicU64, AtomicUsize, Mutex, Ordering::*, lock};
use besom_stats::{SysMemStat, fatal};

/// The share of the reservation that finalizers may take: 27 million at 1 TiB. Higher: address space. Lower: a VM with a
/// finalizer an object runs out.
const RESERVE_SHARE: usize = 1024;
/// Bytes for those of a small heap: 800,000.
const LEAST: usize = 32 << 20;
/// Entries that the collector looks at under one lock. Higher: a thread that sets a finalizer waits longer (some 2 us).
/// Lower: more time goes into the lock.
const CHUNK: usize = 256;

const FREE: u64 = 0;
/// Its object was alive when it was last looked at; it is in the table.
const WAITING: u64 = 1;
/// Nothing but the due queue reaches its object; it is in no chain, or about to be in the queue.
const DUE: u64 = 2;

/// One finalizer.
///
/// - `link` is that of free entries, of a chain of the table, or of the due queue, by `state`
#[derive(Default)]
#[repr(C)]
pub struct FinalizerEntry {
    object: AtomicUsize,
    run: AtomicUsize,
    data: AtomicUsize,
    state: AtomicU64,
    link: AtomicU64,
}

// SAFETY: made of atomics; a state of 0 is a free entry's.
unsafe impl Slot for FinalizerEntry {
    fn link(&self) -> &AtomicU64 {
        &self.link
    }
}

impl FinalizerEntry {
    /// The entry, which is the caller's, is an object's from here on.
    pub fn fill(&self, object: usize) {
        self.object.store(object, Relaxed);
    }

    /// Sets what is to be run on the object.
    pub fn set(&self, finalizer: Finalizer) {
        self.run.store(finalizer.run, Relaxed);
        self.data.store(finalizer.data, Relaxed);
        self.state.store(WAITING, Release);
    }

    /// Nothing but the due queue, into which the caller puts it, reaches the object.
    pub fn set_due(&self) {
        self.state.store(DUE, Release);
    }

    /// The object.
    pub fn object(&self) -> usize {
        self.object.load(Relaxed)
    }

    /// Shows the object if it is due; whether it is. When somebody takes it from the queue meanwhile, and uses the entry again,
    /// it may be another object, which its finalizer does not keep, but the program does.
    pub fn visit_due(&self, visit: impl FnOnce(usize)) -> bool {
        let due = self.state.load(Acquire) == DUE;
        if due {
            visit(self.object.load(Relaxed));
        }
        due
    }

    /// Frees a due one, which the caller took from the queue, and whose object it holds: what is to be run.
    pub fn take(&self) -> Finalizer {
        let finalizer = Finalizer { run: self.run.load(Relaxed), data: self.data.load(Relaxed) };
        self.free();
        finalizer
    }

    fn free(&self) {
        self.state.store(FREE, Release);
    }
}

/// The buckets: how many of them are in use.
///
/// - an object is in bucket `h mod 2^n` if that is below `buckets`, else in `h mod 2^(n-1)`, with `2^(n-1) < buckets <= 2^n`
/// - `entries <= buckets`, unless the mapping has no more
#[derive(Default)]
struct Table {
    buckets: usize,
    entries: usize,
}

/// What is to be run, on what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finalizer {
    /// The function's address.
    pub run: usize,
    /// Its last argument.
    pub data: usize,
}

/// The finalizers of one heap.
pub struct Finalizers {
    slab: Slab<FinalizerEntry>,
    /// Index + 1 of the first entry of each bucket's chain.
    heads: Mapping,
    table: Mutex<Table>,
}

impl Finalizers {
    /// None yet.
    pub fn new(reserve: Bytes) -> Result<Finalizers, OutOfMemory> {
        let bytes = (reserve.0 / RESERVE_SHARE).max(LEAST);
        Ok(Finalizers {
            slab: Slab::new(bytes, 64 << 10)?,
            heads: Mapping::lazy_zeroed_down_to(bytes / 8, 16 << 10)?,
            table: Mutex::default(),
        })
    }

    fn head(&self, bucket: usize) -> &AtomicU32 {
        debug_assert!((bucket + 1) * 4 <= self.heads.len());
        // SAFETY: the bucket is in the table, and so its head in the mapping.
        unsafe { &*self.heads.ptr().cast::<AtomicU32>().add(bucket) }
    }

    /// Keeps everybody from setting and removing one, and out of the table.
    pub fn hold(&self) -> [sync::Held<'_>; 2] {
        [sync::hold(&self.table), self.slab.hold_out()]
    }

    /// Where the chain of an entry goes on.
    fn next(&self, index: usize) -> u32 {
        self.slab.get(index).link.load(Relaxed) as u32
    }

    /// The entry of an object, and the one before it in its chain.
    fn find(&self, table: &Table, object: usize) -> Option<(usize, Option<usize>)> {
        let (mut at, mut before) = (self.head(table.bucket_of(object)?).load(RawRelaxed), None);
        while at != 0 {
            let index = (at - 1) as usize;
            if self.slab.get(index).object.load(Relaxed) == object {
                return Some((index, before));
            }
            (at, before) = (self.next(index), Some(index));
        }
        None
    }

    fn chain(&self, table: &Table, index: usize) {
        let entry = self.slab.get(index);
        if let Some(bucket) = table.bucket_of(entry.object.load(Relaxed)) {
            let head = self.head(bucket);
            entry.link.store(head.load(RawRelaxed).into(), Relaxed);
            head.store(index as u32 + 1, RawRelaxed);
        }
    }

    /// Takes an entry out of its chain.
    fn unchain(&self, table: &mut Table, index: usize, before: Option<usize>) {
        let next = self.next(index);
        match before {
            Some(before) => self.slab.get(before).link.store(next.into(), Relaxed),
            None => {
                let object = self.slab.get(index).object.load(Relaxed);
                table
                    .bucket_of(object)
                    .into_iter()
                    .for_each(|bucket| self.head(bucket).store(next, RawRelaxed));
            }
        }
        table.entries -= 1;
    }

    /// Adds a bucket: what belongs there leaves the bucket in which it was.
    fn split(&self, table: &mut Table, memory: &SysMemStat) {
        if (table.buckets + 1) * 4 > self.heads.len() {
            return;
        }
        table.buckets += 1;
        memory.add(4);
        let Some(from) = split_from(table.buckets - 1) else { return };
        let mut at = self.head(from).swap(0, RawRelaxed);
        while at != 0 {
            let index = (at - 1) as usize;
            at = self.next(index);
            self.chain(table, index);
        }
    }

    /// Sets the finalizer of an object, in place of the one that it has, if it has one; false if there is no room.
    pub fn set(&self, object: usize, finalizer: Finalizer, memory: &SysMemStat) -> bool {
        let mut table = lock(&self.table);
        let index = match self.find(&table, object) {
            Some((index, _)) => index,
            None => {
                let Some(index) = self.slab.hold().take(memory) else { return false };
                self.slab.get(index).fill(object);
                table.entries += 1;
                if table.entries > table.buckets {
                    self.split(&mut table, memory);
                }
                self.chain(&table, index);
                index
            }
        };
        self.slab.get(index).set(finalizer);
        true
    }

    /// Removes the finalizer of an object, if it has one that is not due.
    pub fn remove(&self, object: usize) {
        let mut table = lock(&self.table);
        if let Some((index, before)) = self.find(&table, object) {
            self.unchain(&mut table, index, before);
            self.free(index);
        }
    }

    fn free(&self, index: usize) {
        self.slab.get(index).free();
        self.slab.hold().give(index);
    }

    /// Moves those whose objects are not marked from the table to the list.
    pub(super) fn collect_dead(&self, heap: &SpanHeap, list: &mut List, links: &impl Links) {
        let used = self.slab.used();
        for from in (0..used).step_by(CHUNK) {
            let mut table = lock(&self.table);
            for index in from..used.min(from + CHUNK) {
                let entry = self.slab.get(index);
                let object = entry.object.load(Relaxed);
                if entry.state.load(Relaxed) != WAITING || super::is_marked(heap, object) {
                    continue;
                }
                if let Some((found, before)) = self.find(&table, object) {
                    debug_assert_eq!(found, index);
                    self.unchain(&mut table, index, before);
                    entry.set_due();
                    list.push(Item::finalizer(index), links);
                }
            }
        }
    }

    /// The link of a due one.
    pub(super) fn link(&self, index: usize) -> &AtomicU64 {
        &self.slab.get(index).link
    }

    /// The object of a due one, which keeps it alive.
    pub fn object(&self, index: usize) -> usize {
        self.slab.get(index).object()
    }

    /// Frees a due one, which the caller took from the queue: what is to be run. The caller holds the object.
    pub fn take(&self, index: usize) -> Finalizer {
        let finalizer = self.slab.get(index).take();
        self.slab.hold().give(index);
        finalizer
    }

    /// Shows the objects of those that are due; the bytes that these take. Takes no lock.
    pub(super) fn for_each_due(&self, mut visit: impl FnMut(usize)) -> Bytes {
        let mut due = 0;
        for entry in (0..self.slab.used()).map(|index| self.slab.get(index)) {
            due += usize::from(entry.visit_due(&mut visit));
        }
        Bytes(due * size_of::<FinalizerEntry>())
    }

    /// How many there are, due ones too.
    pub fn count(&self) -> usize {
        self.slab.live()
    }

    /// Bytes that they and their table take.
    pub fn bytes(&self) -> Bytes {
        Bytes(self.slab.bytes().0 + lock(&self.table).buckets * 4)
    }

    /// Aborts if one waits for an object that is not marked: after the dead were collected, in a stopped world.
    pub(crate) fn verify(&self, heap: &SpanHeap) {
        for entry in (0..self.slab.used()).map(|index| self.slab.get(index)) {
            let object = entry.object.load(Relaxed);
            if entry.state.load(Relaxed) == WAITING && !super::is_marked(heap, object) {
                fatal(format_args!("verify: a finalizer waits for {object:#x}, which is not marked"));
            }
        }
    }
}

impl Table {
    /// The bucket of an object; `None` while there are none.
    fn bucket_of(&self, object: usize) -> Option<usize> {
        let wide = self.buckets.checked_next_power_of_two().filter(|_| self.buckets != 0)?;
        // Its high bits depend on all of the address, and the least of them change least with a wider mask.
        let hash = (object >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - 2 * GRANULE_SHIFT - 32);
        let bucket = hash & (wide - 1);
        Some(if bucket < self.buckets { bucket } else { bucket & (wide / 2 - 1) })
    }
}

/// The bucket that is split when `bucket` is added; the first is split from none.
fn split_from(bucket: usize) -> Option<usize> {
    (bucket != 0).then(|| bucket & !(1 << bucket.ilog2()))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::HashMap;

    static MEMORY: SysMemStat = SysMemStat::new();

    fn found(finalizers: &Finalizers, object: usize) -> Option<Finalizer> {
        let table = lock(&finalizers.table);
        let entry = finalizers.slab.get(finalizers.find(&table, object)?.0);
        Some(Finalizer { run: entry.run.load(Relaxed), data: entry.data.load(Relaxed) })
    }

    /// The longest chain, and whether the table's equations hold.
    fn longest(finalizers: &Finalizers) -> usize {
        let table = lock(&finalizers.table);
        let (mut longest, mut entries) = (0, 0);
        for bucket in 0..table.buckets {
            let (mut at, mut length) = (finalizers.head(bucket).load(RawRelaxed), 0);
            while at != 0 {
                let index = (at - 1) as usize;
                let object = finalizers.slab.get(index).object.load(Relaxed);
                assert_eq!(table.bucket_of(object), Some(bucket), "of {object:#x}");
                (at, length) = (finalizers.next(index), length + 1);
            }
            (longest, entries) = (longest.max(length), entries + length);
        }
        assert_eq!((entries, table.buckets.max(entries)), (table.entries, table.buckets));
        longest
    }

    #[test]
    fn the_table_is_a_map_by_object() {
        let finalizers = Finalizers::new(Bytes(1 << 30)).expect("finalizers");
        let mut model = HashMap::new();
        let mut state = 1u64;
        for n in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Neighbours, as objects of one class are.
            let object = 0x7f00_0000_0000 + (state >> 33) as usize % 30_000 * 32;
            let finalizer = Finalizer { run: n, data: n ^ 1 };
            if state >> 62 == 0 {
                finalizers.remove(object);
                model.remove(&object);
            } else {
                assert!(finalizers.set(object, finalizer, &MEMORY));
                model.insert(object, finalizer);
            }
            if n % 20_000 == 0 {
                longest(&finalizers);
            }
        }
        assert_eq!(finalizers.count(), model.len());
        for slot in 0..30_000 {
            let object = 0x7f00_0000_0000 + slot * 32;
            assert_eq!(found(&finalizers, object), model.get(&object).copied(), "of {object:#x}");
        }
        // 8 in a chain is what balls in as many boxes give, or so.
        assert!(longest(&finalizers) <= 12, "a chain of {}", longest(&finalizers));
        for object in model.keys() {
            finalizers.remove(*object);
        }
        assert_eq!((finalizers.count(), longest(&finalizers)), (0, 0));
    }

    #[test]
    fn objects_side_by_side_spread() {
        for stride in [8, 16, 32, 48, 8192, 1 << 16] {
            let finalizers = Finalizers::new(Bytes(1 << 30)).expect("finalizers");
            for n in 0..50_000 {
                let finalizer = Finalizer { run: 1, data: 2 };
                assert!(finalizers.set(0x7e12_3400_0000 + n * stride, finalizer, &MEMORY));
            }
            assert!(longest(&finalizers) <= 12, "a chain of {} at {stride}", longest(&finalizers));
        }
    }

    #[test]
    fn a_full_mapping_takes_no_more() {
        let finalizers = Finalizers {
            slab: Slab::new(1 << 14, 1 << 14).expect("a slab"),
            heads: Mapping::lazy_zeroed(4096).expect("a mapping"),
            table: Mutex::default(),
        };
        let finalizer = Finalizer { run: 1, data: 2 };
        let room = (1..).find(|n| !finalizers.set(n * 16, finalizer, &MEMORY)).expect("a limit") - 1;
        assert_eq!(room, (1 << 14) / size_of::<FinalizerEntry>());
        assert!(finalizers.set(room * 16, Finalizer { run: 3, data: 4 }, &MEMORY), "one that is there");
        finalizers.remove(16);
        assert!(finalizers.set(1 << 20, finalizer, &MEMORY));
    }
}
