//! Models of the heap statistics' ring, and of the pause log.
//!
//! Two fields stand for all: `in_heap` for pages, `small_alloc_count[1]` / `small_free_count[1]` for objects.
//! Besides what each model asserts, the ring checks (by `AccessCheck`) that a record is never touched by a writer
//! and by the reader without a happens-before between them.

#![cfg(loom)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;

use besom_stats::sync::{AtomicU32, Mutex, Ordering, lock, yield_now};
use besom_stats::{ConsistentHeapStats, HeapStatsDelta, PauseLog, StatsSeq, Writer};
use loom::sync::Arc;
use loom::thread;

/// Explores every execution with at most `preemptions` preemptions.
fn model(preemptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(run);
}

/// The ring, and the set of `PS` Ps: the lock pins it, and says which are alive.
struct World<const PS: usize> {
    stats: ConsistentHeapStats,
    seqs: [StatsSeq; PS],
    alive: Mutex<[bool; PS]>,
}

impl<const PS: usize> World<PS> {
    fn new(alive: [bool; PS]) -> Arc<Self> {
        Arc::new(Self {
            stats: ConsistentHeapStats::new(),
            seqs: core::array::from_fn(|_| StatsSeq::new()),
            alive: Mutex::new(alive),
        })
    }

    fn writer(&self, p: usize) -> Writer<'_> {
        self.stats.writer(&self.seqs[p])
    }

    fn set_alive(&self, p: usize, alive: bool) {
        lock(&self.alive)[p] = alive;
    }

    fn read(&self) -> HeapStatsDelta {
        let alive = lock(&self.alive);
        self.stats.read(self.seqs.iter().zip(alive.iter()).filter(|(_, a)| **a).map(|(s, _)| s))
    }
}

/// Both fields in one guard: a snapshot has both or none.
fn pair(writer: Writer<'_>) {
    let guard = writer.acquire();
    guard.in_heap(1);
    guard.small_alloc(1, 1);
}

/// The pairs in a snapshot, which is not torn.
fn pairs(snapshot: &HeapStatsDelta) -> u64 {
    assert_eq!(snapshot.in_heap as u64, snapshot.small_alloc_count[1], "torn");
    snapshot.small_alloc_count[1]
}

/// A reader that reads twice while others write: each snapshot whole, the second no less than the first.
fn read_twice<const PS: usize>(world: &World<PS>, most: u64) {
    let first = pairs(&world.read());
    let second = pairs(&world.read());
    assert!(first <= second && second <= most, "{first} then {second}, of {most}");
}

/// With everybody gone nothing is lost and nothing counted twice.
fn settled<const PS: usize>(world: &World<PS>, total: u64) {
    assert_eq!(pairs(&world.stats.read_stopped()), total);
    assert_eq!(pairs(&world.read()), total);
}

#[test]
fn two_writers_and_a_reader_that_reads_twice() {
    model(3, || {
        let world = World::new([true; 2]);
        let writers: Vec<_> = [(0, 2), (1, 1)]
            .map(|(p, times)| {
                let world = Arc::clone(&world);
                thread::spawn(move || (0..times).for_each(|_| pair(world.writer(p))))
            })
            .into();
        read_twice(&world, 3);
        writers.into_iter().for_each(|w| w.join().unwrap());
        settled(&world, 3);
    });
}

#[test]
fn three_turns_reuse_the_first_record() {
    model(3, || {
        let world = World::new([true]);
        let writer = {
            let world = Arc::clone(&world);
            thread::spawn(move || (0..3).for_each(|_| pair(world.writer(0))))
        };
        read_twice(&world, 3);
        read_twice(&world, 3);
        writer.join().unwrap();
        settled(&world, 3);
    });
}

#[test]
fn a_p_destroyed_between_two_reads() {
    model(3, || {
        let world = World::new([true; 2]);
        let leaver = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                pair(world.writer(0));
                world.set_alive(0, false);
            })
        };
        let stayer = {
            let world = Arc::clone(&world);
            thread::spawn(move || pair(world.writer(1)))
        };
        read_twice(&world, 2);
        leaver.join().unwrap();
        stayer.join().unwrap();
        settled(&world, 2);
    });
}

#[test]
fn a_p_created_during_a_read() {
    model(3, || {
        let world = World::new([true, false]);
        let old = {
            let world = Arc::clone(&world);
            thread::spawn(move || pair(world.writer(0)))
        };
        let new = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.set_alive(1, true);
                pair(world.writer(1));
            })
        };
        read_twice(&world, 2);
        old.join().unwrap();
        new.join().unwrap();
        settled(&world, 2);
    });
}

#[test]
fn an_unattached_writer_beside_an_attached_one() {
    model(3, || {
        let world = World::new([true]);
        let attached = {
            let world = Arc::clone(&world);
            thread::spawn(move || pair(world.writer(0)))
        };
        let unattached = {
            let world = Arc::clone(&world);
            thread::spawn(move || (0..2).for_each(|_| pair(world.stats.unattached())))
        };
        read_twice(&world, 3);
        attached.join().unwrap();
        unattached.join().unwrap();
        settled(&world, 3);
    });
}

/// Pages taken by one P, an object in them allocated by another, freed by the first: in no snapshot is there an
/// object without pages, or a free without its allocation.
#[test]
fn no_snapshot_has_the_effect_without_the_cause() {
    model(3, || {
        let world = World::new([true; 2]);
        let turn = Arc::new(AtomicU32::new(0));
        let first = {
            let (world, turn) = (Arc::clone(&world), Arc::clone(&turn));
            thread::spawn(move || {
                world.writer(0).acquire().in_heap(1);
                turn.store(1, Ordering::Release);
            })
        };
        let second = {
            let (world, turn) = (Arc::clone(&world), Arc::clone(&turn));
            thread::spawn(move || {
                if turn.load(Ordering::Acquire) == 1 {
                    world.writer(1).acquire().small_alloc(1, 1);
                    world.writer(1).acquire().small_free(1, 1);
                    world.writer(1).acquire().in_heap(-1);
                }
            })
        };
        for _ in 0..2 {
            let s = world.read();
            assert!(s.small_alloc_count[1] >= s.small_free_count[1], "{s:?}");
            assert!(s.in_heap as u64 >= s.small_alloc_count[1] - s.small_free_count[1], "{s:?}");
        }
        first.join().unwrap();
        second.join().unwrap();
    });
}

/// A writer that never rests: it has the next guard open before the reader looks again, and closes that one only when
/// the reader has left. A reader that wants to see no guard open waits for ever.
#[test]
fn a_reader_waits_for_one_guard() {
    static WAITED: AtomicUsize = AtomicUsize::new(0);
    model(3, || {
        let world = World::new([true]);
        // How often the reader has found the first guard open, and whether it is done.
        let (found, done) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let writer = {
            let (world, found, done) = (Arc::clone(&world), Arc::clone(&found), Arc::clone(&done));
            thread::spawn(move || {
                pair(world.writer(0));
                let guard = world.writer(0).acquire();
                guard.in_heap(1);
                guard.small_alloc(1, 1);
                while found.load(Ordering::Acquire) > 0 && done.load(Ordering::Acquire) == 0 {
                    yield_now();
                }
            })
        };
        let mut found_first = false;
        let snapshot = world.stats.read_pausing(world.seqs.iter(), |seq| {
            if seq == 1 {
                found_first = true;
                found.fetch_add(1, Ordering::Release);
            }
            yield_now();
        });
        done.store(1, Ordering::Release);
        // The second guard was opened after the generation had turned.
        assert!(pairs(&snapshot) <= if found_first { 1 } else { 2 });
        WAITED.fetch_add(usize::from(found_first), Ordering::Relaxed);
        writer.join().unwrap();
        settled(&world, 2);
    });
    assert!(WAITED.load(Ordering::Relaxed) > 0, "no execution in which the reader waited");
}

/// Threads without a P take turns among themselves, and the reader waits for one guard of theirs as well.
#[test]
fn two_unattached_writers() {
    model(3, || {
        let world = World::new([true]);
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || pair(world.stats.unattached()))
        };
        let twice = {
            let world = Arc::clone(&world);
            thread::spawn(move || (0..2).for_each(|_| pair(world.stats.unattached())))
        };
        read_twice(&world, 3);
        other.join().unwrap();
        twice.join().unwrap();
        settled(&world, 3);
    });
}

/// Two threads use one P. If their guards would overlap the second is caught, in every execution; if one P is handed
/// from the first to the second, it is not.
#[test]
fn reentry_is_caught() {
    static CAUGHT: AtomicUsize = AtomicUsize::new(0);
    static PASSED: AtomicUsize = AtomicUsize::new(0);
    /// Opens and closes a guard, unless that is refused; `inside` are those who have one. False: refused.
    fn guard(world: &World<1>, inside: &AtomicUsize) -> bool {
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let guard = world.writer(0).acquire();
            assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0, "two guards of one P");
            guard.in_heap(1);
            guard.small_alloc(1, 1);
            inside.fetch_sub(1, Ordering::Relaxed);
        }));
        match opened {
            Ok(()) => true,
            Err(panic) => {
                let refused = panic.downcast_ref::<String>().map(String::as_str).unwrap_or_default();
                assert!(
                    refused.starts_with("besom: heap statistics: a P opened a second guard"),
                    "{refused}"
                );
                false
            }
        }
    }
    model(3, || {
        let world = World::new([true]);
        // Not the model's: what is counted is the order of execution itself.
        let inside = Arc::new(AtomicUsize::new(0));
        let handed = Arc::new(AtomicU32::new(0));
        let first = {
            let (world, inside, handed) = (Arc::clone(&world), Arc::clone(&inside), Arc::clone(&handed));
            thread::spawn(move || {
                let passed = guard(&world, &inside);
                handed.store(1, Ordering::Release);
                passed
            })
        };
        let was_handed = handed.load(Ordering::Acquire) == 1;
        let passed = guard(&world, &inside);
        assert!(passed || !was_handed, "a P that was handed over is refused");
        let both = first.join().unwrap() && passed;
        if both { &PASSED } else { &CAUGHT }.fetch_add(1, Ordering::Relaxed);
        if both {
            assert_eq!(pairs(&world.stats.read_stopped()), 2);
        }
    });
    let (caught, passed) = (CAUGHT.load(Ordering::Relaxed), PASSED.load(Ordering::Relaxed));
    assert!(caught > 0 && passed > 0, "{caught} executions were caught, {passed} passed");
}

#[test]
fn two_readers_take_turns() {
    model(3, || {
        let world = World::new([true]);
        // Without the lock of `World::read`: one P that is always there needs no pinning, the ring itself must
        // keep the readers apart.
        let read = |world: &World<1>| pairs(&world.stats.read(world.seqs.iter()));
        let writer = {
            let world = Arc::clone(&world);
            thread::spawn(move || pair(world.writer(0)))
        };
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || assert!(read(&world) <= 1))
        };
        assert!(read(&world) <= 1);
        writer.join().unwrap();
        other.join().unwrap();
        settled(&world, 1);
    });
}

/// With the world stopped a writer without a P and a reader may still be running.
#[test]
fn a_stopped_read_beside_unattached_threads() {
    model(3, || {
        let world = World::new([true]);
        pair(world.writer(0));
        let unattached = {
            let world = Arc::clone(&world);
            thread::spawn(move || pair(world.stats.unattached()))
        };
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || pairs(&world.stats.read(world.seqs.iter())))
        };
        let stopped = pairs(&world.stats.read_stopped());
        assert!((1..=2).contains(&stopped), "{stopped}");
        unattached.join().unwrap();
        assert!((1..=2).contains(&reader.join().unwrap()));
        settled(&world, 2);
    });
}

#[test]
fn the_pause_log_shows_no_half_pause() {
    model(3, || {
        let log = Arc::new(PauseLog::new());
        log.record(1, 1, 101);
        let writer = {
            let log = Arc::clone(&log);
            // The second of these overwrites the first pause.
            thread::spawn(move || {
                log.record(2, 2, 102);
                log.record(3, 3, 103);
            })
        };
        let count = log.count();
        assert!(log.total_ns() >= count * (count + 1) / 2 && log.max_ns() >= count);
        let mut newer = u64::MAX;
        for p in log.recent() {
            assert_eq!(p.end_unix_ns, 100 + p.ns, "half a pause");
            assert!(p.ns < newer);
            newer = p.ns;
        }
        writer.join().unwrap();
        assert_eq!((log.count(), log.total_ns(), log.max_ns()), (3, 6, 3));
        assert_eq!(log.recent().map(|p| p.ns).collect::<Vec<_>>(), [3, 2]);
    });
}
