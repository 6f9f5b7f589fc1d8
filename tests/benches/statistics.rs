//! What the consistent statistics cost: a read, by the number of Ps; a guard; the wait of a reader; and the claim that a
//! counter of tiny allocations does not belong in them.
//!
//! Prints lines `row|unit|value`, of which `tests/bench/run.sh statistics` makes a table; `N` rounds (5), in which what is
//! to be compared takes turns, `SCALE` times the usual work. Without `--features bench` the claim is left out.
//!
//! `statistics guards COUNT` opens as many guards and ends, for callgrind to count the instructions.

use std::cell::Cell;
use std::hint::{black_box, spin_loop};
use std::iter::from_fn;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use besom_stats::{ConsistentHeapStats, StatsSeq, Writer};

/// Numbers of Ps.
const CROWDS: [usize; 4] = [1, 16, 256, 4096];

/// A P's sequence number, as far from the next one as in a heap, where each lies at the same place of a mapping of its
/// own: one cache line and one entry of the TLB for each P, and all in the same set of the nearest cache.
#[repr(align(4096))]
struct Seat(StatsSeq);

fn seats(n: usize) -> Vec<Seat> {
    (0..n).map(|_| Seat(StatsSeq::new())).collect()
}

fn environment(name: &str, otherwise: f64) -> f64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// So much work, scaled.
fn scaled(n: u64) -> u64 {
    ((n as f64 * environment("SCALE", 1.0)) as u64).max(1)
}

/// Whether a measurement that began then has taken its time, a second at most: where the processors are shared, a reader
/// waits for writers that do not run.
fn is_late(start: Instant) -> bool {
    start.elapsed() > Duration::from_secs_f64(environment("SCALE", 1.0).clamp(0.02, 1.0))
}

fn row(name: &str, unit: &str, value: f64) {
    println!("{name}|{unit}|{value:.6}");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [command, count] = arguments.as_slice()
        && command == "guards"
    {
        return guards(count.parse().expect("a number"));
    }
    for _ in 0..environment("N", 5.0) as u32 {
        for n in CROWDS {
            reads(n, false);
            reads(n, true);
        }
        waits(1);
        waits(2);
        guard_costs();
        #[cfg(feature = "bench")]
        claim::compare();
    }
    if !cfg!(feature = "bench") {
        eprintln!("The claim is left out. To have it: --features bench");
    }
}

/// Until it is dropped threads go on.
struct Going<'a>(&'a AtomicBool);

impl Drop for Going<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

/// Opens guards of one addition, until told to stop.
fn write_on(writer: Writer<'_>, class: usize, going: &AtomicBool) {
    while going.load(Relaxed) {
        writer.acquire().small_alloc(class, 1);
    }
}

/// The median time of a read with so many Ps, of which one may write without a rest.
fn reads(ps: usize, busy: bool) {
    const BATCH: u32 = 16;
    let (stats, seats) = (ConsistentHeapStats::new(), seats(ps));
    let going = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let going_on = Going(&going);
        if busy {
            scope.spawn(|| write_on(stats.writer(&seats[ps / 2].0), 1, &going));
        }
        let (begin, mut times) = (Instant::now(), Vec::new());
        while times.len() < 3 || !is_late(begin) && times.len() < 5000 {
            let start = Instant::now();
            for _ in 0..BATCH {
                black_box(stats.read(seats.iter().map(|s| &s.0)));
            }
            times.push(start.elapsed().as_nanos() as u64);
        }
        drop(going_on);
        times.sort_unstable();
        let writers = if busy { "a writer at work" } else { "idle" };
        let name = format!("read, {ps} P{}, {writers}", if ps == 1 { "" } else { "s" });
        row(&name, "ns", times[times.len() / 2] as f64 / f64::from(BATCH));
    });
}

/// How long a reader waits for one of so many writers that never rest: the longest in guards, and times.
fn waits(writers: usize) {
    let (stats, seats) = (ConsistentHeapStats::new(), seats(writers));
    let going = AtomicBool::new(true);
    let (mut most, mut times) = (0, Vec::new());
    std::thread::scope(|scope| {
        let going_on = Going(&going);
        for (n, seat) in seats.iter().enumerate() {
            let (stats, going) = (&stats, &going);
            scope.spawn(move || write_on(stats.writer(&seat.0), 1 + n, going));
        }
        let begin = Instant::now();
        while times.is_empty() || !is_late(begin) && times.len() < 1_000_000 {
            let wait = Wait::default();
            let mut left = seats.iter();
            let next = from_fn(|| {
                // What was waited for until here is closed.
                if let Some((time, guards)) = wait.end() {
                    times.push(time);
                    most = most.max(guards);
                }
                left.next().map(|s| &s.0)
            });
            stats.read_pausing(next, |guard| wait.look(guard));
        }
        drop(going_on);
    });
    times.sort_unstable();
    let of = format!("wait for a P, {writers} writer{}", if writers == 1 { "" } else { "s" });
    row(&format!("{of}, longest"), "guards", f64::from(most));
    row(&format!("{of}, median"), "ns", times[times.len() / 2] as f64);
    row(&format!("{of}, 99 of 100"), "ns", times[times.len() * 99 / 100] as f64);
    row(&format!("{of}, longest"), "ns", times[times.len() - 1] as f64);
}

/// A reader's wait for one P.
#[derive(Default)]
struct Wait {
    since: Cell<Option<Instant>>,
    /// The guard seen last, how many were seen, how often one was looked at.
    guard: Cell<Option<u32>>,
    guards: Cell<u32>,
    looks: Cell<u32>,
}

impl Wait {
    /// The reader found this guard open.
    fn look(&self, guard: u32) {
        if self.since.get().is_none() {
            self.since.set(Some(Instant::now()));
        }
        if self.guard.replace(Some(guard)) != Some(guard) {
            self.guards.set(self.guards.get() + 1);
        }
        // As `ConsistentHeapStats::read` does.
        self.looks.set(self.looks.get() + 1);
        if self.looks.get() > 64 { std::thread::yield_now() } else { spin_loop() }
    }

    /// The reader goes on to another P: its time in ns and the guards seen, if it has waited.
    fn end(&self) -> Option<(u64, u32)> {
        let time = self.since.take()?.elapsed().as_nanos() as u64;
        self.guard.set(None);
        self.looks.set(0);
        Some((time, self.guards.take()))
    }
}

/// Runs the same on so many threads at once; the time of the slowest, in ns for each of `count`.
fn together(threads: usize, count: u64, work: impl Fn(usize) + Sync) -> f64 {
    let barrier = Barrier::new(threads);
    let slowest = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|n| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    barrier.wait();
                    let start = Instant::now();
                    work(n);
                    start.elapsed()
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("a thread")).max()
    });
    slowest.map_or(0.0, |time| time.as_nanos() as f64 / count as f64)
}

/// What a guard with one addition costs its writer.
fn guard_costs() {
    let (stats, seats) = (ConsistentHeapStats::new(), seats(2));
    let count = scaled(5_000_000);
    let time = |threads, class: fn(usize) -> usize| {
        together(threads, count, |n| {
            for _ in 0..count {
                black_box(stats.writer(&seats[n].0)).acquire().small_alloc(class(n), 1);
            }
        })
    };
    row("guard with one addition, 1 thread", "ns", time(1, |_| 1));
    row("guard with one addition, 2 threads, fields apart", "ns", time(2, |n| 1 + 32 * n));
    row("guard with one addition, 2 threads, one field", "ns", time(2, |_| 1));
}

/// What Go's scheme adds to a refill, to be counted.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn op_guard(stats: &ConsistentHeapStats, seq: &StatsSeq) {
    stats.writer(seq).acquire().small_alloc(1, 100);
}

fn guards(count: u64) {
    let (stats, seq) = (ConsistentHeapStats::new(), StatsSeq::new());
    for _ in 0..count {
        op_guard(black_box(&stats), black_box(&seq));
    }
}

/// Tiny allocations, counted as they are, or in the statistics.
#[cfg(feature = "bench")]
mod claim {
    use super::{black_box, row, scaled, together};
    use besom::{Heap, Options};
    use std::ffi::{c_int, c_void};

    /// `struct besom_cell` of `besom.h`.
    #[repr(C)]
    struct Cell {
        cursor: usize,
        limit: usize,
        slot: usize,
    }

    unsafe extern "C" {
        fn besom_alloc_slow(m: *mut c_void, bytes: usize, kind: c_int) -> *mut c_void;
    }

    /// `besom_alloc(m, 8, BESOM_NOSCAN)` of `besom.h`, but for the way in which the object is counted.
    ///
    /// # Safety
    /// `m` must be the calling thread's mutator; `count` must leave the cursor and the limit alone.
    #[inline(always)]
    unsafe fn alloc_8(m: *mut c_void, count: impl Fn(&mut Cell)) -> *mut c_void {
        // SAFETY: the caller's promise; the first word of a mutator leads to its cells, the first of which is the tiny one.
        unsafe {
            let cell = &mut **m.cast::<*mut Cell>();
            let start = (cell.cursor + 7) & !7;
            let end = start + 8;
            if end > cell.limit {
                return besom_alloc_slow(m, 8, 0);
            }
            cell.cursor = end;
            count(cell);
            std::ptr::with_exposed_provenance_mut(start)
        }
    }

    /// As built.
    #[inline(never)]
    fn plain(m: *mut c_void, n: u64) {
        for _ in 0..n {
            // SAFETY: the thread's own; the cell's third word counts.
            black_box(unsafe { alloc_8(m, |cell| cell.slot += 1) });
        }
    }

    /// A guard for each allocation. The count of class 0, which nothing else uses, stands for a field of its own. (The
    /// slow path counts its one object as ever, and the two add up to the same total.)
    #[inline(never)]
    fn in_the_ring(m: *mut c_void, n: u64) {
        for _ in 0..n {
            // SAFETY: the thread's own; the writer is used before anything else happens.
            black_box(unsafe { alloc_8(m, |_| besom::bench::writer(m).acquire().small_alloc(0, 1)) });
        }
    }

    /// Nanoseconds for each allocation of a thread.
    fn time(threads: usize, n: u64, allocate: fn(*mut c_void, u64)) -> f64 {
        let heap = Heap::new(&Options::default()).expect("a heap");
        let time = together(threads, n, |_| {
            let m = heap.attach().expect("attach");
            allocate(m.as_raw(), n);
        });
        assert_eq!(heap.stats().alloc_count, n * threads as u64, "each is counted once");
        time
    }

    pub fn compare() {
        let n = scaled(10_000_000);
        for (threads, on) in [(1, "1 thread"), (2, "2 threads")] {
            let counted = time(threads, n, plain);
            let in_ring = time(threads, n, in_the_ring);
            row(&format!("alloc 8 B bytes, plain counter, {on}"), "ns", counted);
            row(&format!("alloc 8 B bytes, counter in the ring, {on}"), "ns", in_ring);
            row(&format!("alloc 8 B bytes, {on}, the ring's time over the plain"), "x", in_ring / counted);
        }
    }
}
