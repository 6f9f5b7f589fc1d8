//! Models of what dies in a special way: a weak reference that is read while the collector resolves, cleanups that are
//! cancelled, found due and run, the due queue, ephemerons that come to wait while their key is being marked.
//!
//! `WeakEntry`, `CleanupEntry`, `Due`, `wait` and `wake` are the code as it stands; marks are one flag an object.

#![cfg(loom)]

use besom_gc::Phase;
use besom_gc::specials::cleanups::CleanupEntry;
use besom_gc::specials::due::{Due, Item, Links, List};
use besom_gc::specials::ephemerons::{Watched, wait, wake};
use besom_gc::specials::slab::Slot;
use besom_gc::specials::weak::WeakEntry;
use besom_loom_tests::{model, start};
use besom_stats::sync::{
    AccessCheck, AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering::*, fence, lock, raw,
};
use loom::sync::Arc;

/// Two objects, of which the second is reachable.
const DEAD: usize = 16;
const LIVE: usize = 32;

struct Weak {
    entry: WeakEntry,
    /// Marks of the two.
    marks: [AtomicBool; 2],
}

impl Weak {
    fn new(object: usize) -> Arc<Weak> {
        let weak =
            Weak { entry: WeakEntry::default(), marks: [AtomicBool::new(false), AtomicBool::new(true)] };
        weak.entry.fill(object);
        Arc::new(weak)
    }

    fn is_marked(&self, object: usize) -> bool {
        self.marks[object / 16 - 1].load(Relaxed)
    }

    fn clear(&self) {
        self.entry.clear_if_dead(|object| self.is_marked(object));
    }

    fn read(&self) -> usize {
        self.entry.read(Phase::Resolving, |object| self.is_marked(object))
    }
}

/// The collector clears the entry, and then marks the object for its finalizer, another thread's mark among it.
#[test]
fn nobody_reads_an_object_that_only_its_finalizer_reaches() {
    model(3, || {
        let weak = Weak::new(DEAD);
        let collector = start(&weak, |weak| {
            weak.clear();
            // As in `resolve`.
            fence(Release);
            weak.marks[0].store(true, Relaxed);
        });
        // Started last: see MUTATIONS.md on threads that only look.
        let reader = start(&weak, |weak| assert_eq!(weak.read(), 0));
        collector.join().unwrap();
        reader.join().unwrap();
        assert_eq!(weak.read(), 0);
    });
}

/// The mark is set by a helper of the collector's, which was given the work under a lock.
#[test]
fn nor_one_that_a_helper_marks() {
    model(3, || {
        struct Toy(Arc<Weak>, Mutex<bool>);
        let toy = Arc::new(Toy(Weak::new(DEAD), Mutex::new(false)));
        let collector = start(&toy, |toy| {
            toy.0.clear();
            *lock(&toy.1) = true;
        });
        let helper = start(&toy, |toy| {
            if *lock(&toy.1) {
                // As in `Worker::new`.
                fence(Release);
                toy.0.marks[0].store(true, Relaxed);
            }
        });
        let reader = start(&toy, |toy| assert_eq!(toy.0.read(), 0));
        collector.join().unwrap();
        helper.join().unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn a_live_object_is_read_whatever_the_collector_does() {
    model(3, || {
        let weak = Weak::new(LIVE);
        let collector = start(&weak, Weak::clear);
        assert_eq!(weak.read(), LIVE);
        collector.join().unwrap();
        assert_eq!(weak.read(), LIVE);
    });
}

/// An entry of a dead object is freed, and taken for a live one, while the collector looks at it.
#[test]
fn an_entry_that_is_used_again_is_not_cleared() {
    model(3, || {
        let weak = Weak::new(DEAD);
        let collector = start(&weak, Weak::clear);
        weak.entry.fill(LIVE);
        assert_eq!(weak.read(), LIVE);
        collector.join().unwrap();
        assert_eq!(weak.read(), LIVE);
    });
}

const CLEANUPS: usize = 2;

struct Cleanups {
    entries: [CleanupEntry; CLEANUPS],
    due: Due,
    /// Touched by who makes an entry due, and by who takes it then.
    queued: [AccessCheck; CLEANUPS],
    runs: [raw::AtomicU32; CLEANUPS],
}

impl Links for Cleanups {
    fn link(&self, item: Item) -> &AtomicU64 {
        self.entries[item.index()].link()
    }
}

impl Cleanups {
    /// Cleanups of a dead object, and their generations.
    fn new() -> (Arc<Cleanups>, [u32; CLEANUPS]) {
        let cleanups = Cleanups {
            entries: Default::default(),
            due: Due::default(),
            queued: Default::default(),
            runs: Default::default(),
        };
        let generations = core::array::from_fn(|n| cleanups.entries[n].fill(DEAD, n + 1, n + 100));
        (Arc::new(cleanups), generations)
    }

    fn collect(&self) {
        let mut list = List::default();
        for (n, entry) in self.entries.iter().enumerate() {
            if entry.due_if_dead(|object| object == LIVE) {
                self.queued[n].exclusive();
                list.push(Item::cleanup(n), self);
            }
        }
        self.due.append(list, self);
    }

    fn run_one(&self) -> bool {
        let Some(item) = self.due.take(u64::MAX, self) else { return false };
        let n = item.index();
        self.queued[n].exclusive();
        assert_eq!(self.entries[n].take(), (n + 1, n + 100));
        self.runs[n].fetch_add(1, Relaxed);
        true
    }

    fn ran(&self, n: usize) -> u32 {
        self.runs[n].load(Relaxed)
    }
}

#[test]
fn a_cleanup_is_cancelled_or_runs_once() {
    model(3, || {
        let (cleanups, generations) = Cleanups::new();
        let collector = start(&cleanups, |c| {
            c.collect();
            c.collect();
        });
        let runner = start(&cleanups, |c| _ = c.run_one());
        let cancelled = cleanups.entries[0].cancel(generations[0]);
        assert!(!cleanups.entries[0].cancel(generations[0]), "twice");
        collector.join().unwrap();
        runner.join().unwrap();
        while cleanups.run_one() {}
        assert_eq!((cleanups.ran(0), cleanups.ran(1)), (u32::from(!cancelled), 1));
        assert!(!cleanups.entries[1].cancel(generations[1]), "one that has run");
    });
}

#[test]
fn two_who_cancel_do_not_both() {
    model(3, || {
        let (cleanups, generations) = Cleanups::new();
        let other = start(&cleanups, move |c| c.entries[0].cancel(generations[0]));
        let own = cleanups.entries[0].cancel(generations[0]);
        assert!(own != other.join().unwrap());
    });
}

/// A cleanup is cancelled and its entry filled for a live object, while the collector looks at it.
#[test]
fn the_cleanup_of_a_live_object_stays() {
    model(3, || {
        let (cleanups, generations) = Cleanups::new();
        let collector = start(&cleanups, Cleanups::collect);
        let again = cleanups.entries[0].cancel(generations[0]).then(|| cleanups.entries[0].fill(LIVE, 7, 8));
        collector.join().unwrap();
        while cleanups.run_one() {}
        assert_eq!(cleanups.ran(0), u32::from(again.is_none()));
        if let Some(generation) = again {
            assert!(cleanups.entries[0].cancel(generation), "it waits still");
        }
    });
}

/// One who fills the entry after it has run must not be taken for it.
#[test]
fn two_runners_share_the_queue() {
    model(3, || {
        let (cleanups, _) = Cleanups::new();
        let collector = start(&cleanups, Cleanups::collect);
        let runner = start(&cleanups, |c| _ = c.run_one());
        cleanups.run_one();
        collector.join().unwrap();
        runner.join().unwrap();
        while cleanups.run_one() {}
        assert_eq!((cleanups.ran(0), cleanups.ran(1)), (1, 1));
        assert!(cleanups.due.is_empty());
    });
}

/// Two ephemerons; keys 0 and 1 share the one bucket.
struct Table {
    bucket: AtomicU64,
    nexts: [AtomicU64; 2],
    keys: [usize; 2],
    /// Touched by who writes an ephemeron's link, and by who finds it in the table.
    links: [AccessCheck; 2],
    marks: [AtomicBool; 2],
    found: [AtomicUsize; 2],
}

impl Watched for Table {
    fn bucket(&self, _: usize) -> &AtomicU64 {
        &self.bucket
    }

    fn key(&self, ephemeron: u64) -> usize {
        self.keys[ephemeron as usize - 1]
    }

    fn next(&self, ephemeron: u64) -> u64 {
        self.links[ephemeron as usize - 1].shared();
        self.nexts[ephemeron as usize - 1].load(Relaxed)
    }

    fn set_next(&self, ephemeron: u64, next: u64) {
        self.links[ephemeron as usize - 1].exclusive();
        self.nexts[ephemeron as usize - 1].store(next, Relaxed);
    }

    fn is_marked(&self, key: usize) -> bool {
        self.marks[key].load(Relaxed)
    }
}

impl Table {
    fn new(keys: [usize; 2]) -> Arc<Table> {
        Arc::new(Table {
            bucket: AtomicU64::new(0),
            nexts: Default::default(),
            keys,
            links: Default::default(),
            marks: Default::default(),
            found: Default::default(),
        })
    }

    fn find(&self, ephemeron: u64) {
        self.found[ephemeron as usize - 1].fetch_add(1, Relaxed);
    }

    fn scan(&self, ephemeron: u64) {
        if self.is_marked(self.key(ephemeron)) || wait(self, ephemeron) {
            self.find(ephemeron);
        }
    }

    fn mark(&self, key: usize) {
        if !self.marks[key].fetch_or(true, Relaxed) {
            wake(self, key, |ephemeron| self.find(ephemeron));
        }
    }

    fn found(&self) -> [bool; 2] {
        [0, 1].map(|n| self.found[n].load(Relaxed) > 0)
    }
}

#[test]
fn an_ephemeron_that_comes_while_its_key_is_marked_is_found() {
    model(3, || {
        let table = Table::new([0, 1]);
        let marker = start(&table, |table| table.mark(0));
        table.scan(1);
        marker.join().unwrap();
        assert_eq!(table.found(), [true, false]);
    });
}

#[test]
fn two_that_come_at_once_are_found() {
    for keys in [[0, 0], [0, 1]] {
        model(3, move || {
            let table = Table::new(keys);
            let scanner = start(&table, |table| table.scan(2));
            let marker = start(&table, |table| table.mark(0));
            table.scan(1);
            scanner.join().unwrap();
            marker.join().unwrap();
            assert_eq!(table.found(), [true, keys[1] == 0]);
        });
    }
}

/// Both keys are marked, by two, while both ephemerons come.
#[test]
fn two_markers_wake_each_its_own() {
    model(3, || {
        let table = Table::new([0, 1]);
        let marker = start(&table, |table| {
            table.mark(1);
            table.scan(1);
        });
        table.scan(2);
        table.mark(0);
        marker.join().unwrap();
        assert_eq!(table.found(), [true, true]);
    });
}
