//! Two seconds of writers with Ps that come and go, one writer without a P, spans handed from thread to thread,
//! and readers that check every snapshot.

#![cfg(not(loom))]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use besom_stats::{ConsistentHeapStats, HeapStatsDelta, SIZE_CLASSES, StatsSeq, Writer};

const SPAN: u64 = 8192;

/// A span with `count` objects, all allocated, of a class whose slots are `slot(class)` bytes.
struct Span {
    class: usize,
    count: u64,
}

fn slot(class: usize) -> u64 {
    16 * class as u64
}

#[derive(Default)]
struct World {
    stats: ConsistentHeapStats,
    /// The set of Ps: the lock pins it.
    ps: Mutex<Vec<Arc<StatsSeq>>>,
    /// Spans that any thread may sweep.
    full: Mutex<Vec<Span>>,
    done: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("another thread failed")
}

/// xorshift: a test must be able to say which run failed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// One turn of a mutator, credits in the order in which the heap gives them; also counted in `oracle`.
fn step(world: &World, writer: Writer<'_>, random: &mut Random, oracle: &mut HeapStatsDelta) {
    let class = 1 + random.below(SIZE_CLASSES as u64 - 1) as usize;
    match random.below(4) {
        0 | 1 => {
            let guard = writer.acquire();
            // Both in one guard: no snapshot has one without the other.
            guard.committed(SPAN as i64);
            guard.in_heap(SPAN as i64);
            drop(guard);
            let count = SPAN / slot(class);
            writer.acquire().small_alloc(class, count);
            oracle.committed += SPAN as i64;
            oracle.in_heap += SPAN as i64;
            oracle.small_alloc_count[class] += count;
            lock(&world.full).push(Span { class, count });
        }
        2 => {
            let Some(Span { class, count }) = lock(&world.full).pop() else { return };
            // The free first, then the pages.
            writer.acquire().small_free(class, count);
            let guard = writer.acquire();
            guard.in_heap(-(SPAN as i64));
            guard.committed(-(SPAN as i64));
            drop(guard);
            oracle.small_free_count[class] += count;
            oracle.in_heap -= SPAN as i64;
            oracle.committed -= SPAN as i64;
        }
        _ => {
            let bytes = SPAN * (5 + random.below(10));
            let pages = |n: i64| {
                let guard = writer.acquire();
                guard.in_heap(n);
                guard.committed(n);
            };
            pages(bytes as i64);
            writer.acquire().large_alloc(bytes);
            writer.acquire().large_free(bytes);
            pages(-(bytes as i64));
            oracle.large_alloc += bytes;
            oracle.large_alloc_count += 1;
            oracle.large_free += bytes;
            oracle.large_free_count += 1;
        }
    }
}

/// A mutator whose P is destroyed and made again every so often.
fn mutator(world: &World, seed: u64) -> HeapStatsDelta {
    let (mut random, mut oracle) = (Random(seed), HeapStatsDelta::default());
    while !world.done.load(Ordering::Relaxed) {
        let seq = Arc::new(StatsSeq::new());
        lock(&world.ps).push(Arc::clone(&seq));
        for _ in 0..1 + random.below(200) {
            step(world, world.stats.writer(&seq), &mut random, &mut oracle);
        }
        lock(&world.ps).retain(|p| !Arc::ptr_eq(p, &seq));
    }
    oracle
}

fn unattached(world: &World, seed: u64) -> HeapStatsDelta {
    let (mut random, mut oracle) = (Random(seed), HeapStatsDelta::default());
    while !world.done.load(Ordering::Relaxed) {
        step(world, world.stats.unattached(), &mut random, &mut oracle);
    }
    oracle
}

fn read(world: &World) -> HeapStatsDelta {
    let ps = lock(&world.ps);
    world.stats.read(ps.iter().map(|p| &**p))
}

/// Reads until the end; the number of snapshots.
fn reader(world: &World) -> u64 {
    let mut before = HeapStatsDelta::default();
    let mut reads = 0;
    while !world.done.load(Ordering::Relaxed) {
        let now = read(world);
        for class in 0..SIZE_CLASSES {
            assert!(now.small_alloc_count[class] >= now.small_free_count[class], "class {class}: {now:?}");
            assert!(now.small_alloc_count[class] >= before.small_alloc_count[class]);
            assert!(now.small_free_count[class] >= before.small_free_count[class]);
        }
        assert!(now.large_alloc >= now.large_free && now.large_alloc_count >= now.large_free_count);
        assert!(now.large_alloc >= before.large_alloc && now.large_free >= before.large_free);
        assert_eq!(now.committed, now.in_heap);
        assert!(now.in_heap >= 0 && now.in_heap as u64 >= now.live_bytes(slot), "{now:?}");
        before = now;
        reads += 1;
    }
    reads
}

#[test]
fn every_snapshot_is_consistent() {
    let world = World::default();
    let mut oracle = HeapStatsDelta::default();
    std::thread::scope(|s| {
        let mutators: Vec<_> = (1..=3)
            .map(|i| {
                s.spawn({
                    let w = &world;
                    move || mutator(w, 0x9e37 * i)
                })
            })
            .collect();
        let scavenger = s.spawn(|| unattached(&world, 77));
        let readers = [s.spawn(|| reader(&world)), s.spawn(|| reader(&world))];
        let end = Instant::now() + Duration::from_secs(2);
        // A thread that failed has poisoned nothing the others stop at: look for it, so that the rest end.
        while Instant::now() < end && !readers.iter().any(|r| r.is_finished()) {
            std::thread::sleep(Duration::from_millis(10));
        }
        world.done.store(true, Ordering::Relaxed);
        for writer in mutators.into_iter().chain([scavenger]) {
            oracle.merge(&writer.join().expect("writer"));
        }
        for r in readers {
            assert!(r.join().expect("reader") > 10);
        }
    });
    assert_eq!(read(&world), oracle);
    assert_eq!(world.stats.read_stopped(), oracle);
    assert!(oracle.alloc_count() > 1000);
}
