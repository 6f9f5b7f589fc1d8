//! A read waits for one guard of each writer, however soon the writer opens the next.

#![cfg(not(loom))]

use std::cell::Cell;
use std::iter::{from_fn, once};
use std::sync::atomic::{AtomicBool, Ordering};

use besom_stats::{ConsistentHeapStats, StatsGuard, StatsSeq};

fn pair(guard: &StatsGuard<'_>) {
    guard.in_heap(1);
    guard.small_alloc(1, 1);
}

/// No sequence is even whenever the reader looks: each time it has looked, every writer closes its guard and opens the
/// next.
#[test]
fn a_read_ends_though_a_guard_is_open_at_every_look() {
    let stats = ConsistentHeapStats::new();
    let seqs: [StatsSeq; 3] = Default::default();
    let writers = || seqs.iter().map(|seq| stats.writer(seq)).chain([stats.unattached()]);
    let mut guards = Vec::new();
    let mut opened = 0;
    let mut next = || {
        guards.clear();
        guards.extend(writers().map(|writer| {
            let guard = writer.acquire();
            pair(&guard);
            guard
        }));
        opened += guards.len() as u64;
        opened
    };
    let mut before = next();
    for _ in 0..7 {
        let (mut looks, mut after) = (0, before);
        let snapshot = stats.read_pausing(seqs.iter(), |_| {
            looks += 1;
            assert!(looks <= 4, "it waits for a second guard of one of the four");
            after = next();
        });
        assert_eq!(looks, 4, "it waits for the guard that is open");
        // All of the guards that were open when it came, and nothing of a later one.
        assert_eq!((snapshot.in_heap as u64, snapshot.small_alloc_count[1]), (before, before));
        before = after;
    }
}

/// Ends the writers, also if the test fails.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two writers that never rest, one of them without a P, and a reader that never does.
#[test]
fn a_reader_beside_writers_that_never_rest() {
    const READS: u32 = 30_000;
    let (stats, seq, done) = (ConsistentHeapStats::new(), StatsSeq::new(), AtomicBool::new(false));
    let mut waits = 0;
    let written = std::thread::scope(|s| {
        let writers = [stats.writer(&seq), stats.unattached()].map(|writer| {
            let done = &done;
            s.spawn(move || {
                let mut guards = 0;
                while !done.load(Ordering::Relaxed) {
                    pair(&writer.acquire());
                    guards += 1;
                }
                guards
            })
        });
        let end = EndOnDrop(&done);
        let mut last = 0;
        for _ in 0..READS {
            // The sequences that the read comes to in turn: the P's, then that of those without one.
            let (turn, seen) = (Cell::new(0), [const { Cell::new(None) }; 2]);
            let seqs = once(&seq).chain(from_fn(|| {
                turn.set(1);
                None
            }));
            let snapshot = stats.read_pausing(seqs, |at| {
                let before = seen[turn.get()].replace(Some(at));
                assert!(before.is_none_or(|before| before == at), "it waits for a second guard");
                std::thread::yield_now();
            });
            waits += seen.iter().filter(|seen| seen.get().is_some()).count();
            assert_eq!(snapshot.in_heap as u64, snapshot.small_alloc_count[1]);
            assert!(snapshot.small_alloc_count[1] >= last);
            last = snapshot.small_alloc_count[1];
        }
        drop(end);
        writers.map(|w| w.join().expect("writer")).iter().sum::<u64>()
    });
    assert_eq!(stats.read([&seq].into_iter()).small_alloc_count[1], written);
    println!("{READS} reads waited {waits} times beside {written} guards");
}
