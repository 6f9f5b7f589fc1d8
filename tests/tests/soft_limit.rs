//! The soft limit: cycles come sooner near it, it holds while collecting for it takes no more than half of the processors, and
//! what is live may pass it.
//!
//! Figures of the process are read by several tests, so they run one at a time.

use besom::{Heap, Kind, Options, Tracer};
use besom_stats::sync::raw::{AtomicBool, AtomicU64, Ordering::Relaxed};
use besom_tests::c;
use besom_tests::lasting::Lasting;
use besom_tests::list::{length, push};
use besom_tests::objects::precise;
use besom_tests::process::alone;
use std::ffi::c_void;
use std::sync::OnceLock;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

#[test]
fn holes_are_given_back_before_the_soft_limit_is_passed() {
    let _alone = alone();
    let heap = Heap::new(&Options { gc_percent: 0, memory_limit: 32 * MIB, ..precise() }).expect("a heap");
    let mut m = heap.attach().expect("attach");
    let kept: Vec<_> = (0..12)
        .filter_map(|n| {
            let object = m.alloc(2 * MIB, Kind::NoScan).expect("memory");
            (n % 2 == 1).then(|| m.handle(object.as_ptr()).expect("a handle"))
        })
        .collect();
    m.collect();
    assert!(heap.stats().committed >= 24 << 20, "{:?}", heap.stats());
    // 12 MiB are live, and no hole holds 16.
    m.alloc(16 * MIB, Kind::NoScan).expect("memory");
    let s = heap.stats();
    assert!(s.committed + s.in_metadata <= 33 << 20, "{s:?}");
    drop(kept);
}

#[test]
fn the_soft_limit_collects_sooner() {
    let _alone = alone();
    let heap =
        Heap::new(&Options { gc_percent: 100_000, memory_limit: 32 * MIB, ..precise() }).expect("a heap");
    let mut m = heap.attach().expect("attach");
    for _ in 0..256 << 10 {
        m.alloc(1024, Kind::NoScan).expect("memory");
    }
    let s = heap.stats();
    assert!(s.peak_footprint as usize <= 34 * MIB, "256 MiB of garbage: {s:?}");
    assert!((4..100).contains(&s.cycles), "{} cycles for 256 MiB", s.cycles);
    // SAFETY: the heap lives.
    unsafe { c::besom_memory_limit_set(c::heap(&heap), 16 * MIB) };
    for _ in 0..64 << 10 {
        m.alloc(1024, Kind::NoScan).expect("memory");
    }
    let s = heap.stats();
    assert!(s.committed + s.in_metadata <= 18 << 20, "lowered to 16 MiB: {s:?}");
    // Soft: what is live passes it, and not at the price of a cycle for each allocation.
    let head = m.handle(std::ptr::null_mut()).expect("a handle");
    for _ in 0..32 << 10 {
        let node = m.alloc(1024, Kind::Values).expect("memory");
        // SAFETY: a new object; nothing has been allocated since.
        unsafe { push(&head, node) };
    }
    assert_eq!(length(&head), 32 << 10);
    let cycles = heap.stats().cycles - s.cycles;
    assert!(cycles < 64, "{cycles} cycles while 32 MiB grew past a limit of 16 MiB");
}

static THE_MUTATORS: OnceLock<ThreadId> = OnceLock::new();
static TIMES_LATE: AtomicU64 = AtomicU64::new(0);

/// A worker takes 15 ms to read the object, in which a mutator could allocate as much again.
extern "C" fn late(_: *mut Tracer<'_>, _: *mut c_void, _: *mut c_void) {
    if THE_MUTATORS.get() != Some(&std::thread::current().id()) {
        std::thread::sleep(Duration::from_millis(15));
        TIMES_LATE.fetch_add(1, Relaxed);
    }
}

/// Nothing else is left to be marked, so that next to nothing is owed; what is allocated meanwhile is bounded all the same.
#[test]
fn a_late_worker_is_waited_for() {
    let _alone = alone();
    THE_MUTATORS.set(std::thread::current().id()).expect("the only test with it");
    let limit = 48 * MIB;
    let options =
        Options { gc_percent: 10_000, memory_limit: limit, mark_workers: 1, trace: Some(late), ..precise() };
    let heap = Heap::new(&options).expect("a heap");
    let mut m = heap.attach().expect("attach");
    let kept = m.alloc(64, Kind::Traced).expect("memory");
    let _handle = m.handle(kept.as_ptr()).expect("a handle");
    let length = Lasting::new(Duration::ZERO);
    while length.goes_on(TIMES_LATE.load(Relaxed) > 5, &TIMES_LATE) {
        (0..10_000).for_each(|_| _ = m.alloc(1024, Kind::NoScan).expect("memory"));
    }
    let s = heap.stats();
    assert!(s.peak_footprint as usize <= limit * 21 / 20, "{s:?}");
}

/// 200 us for an object, whoever reads it.
extern "C" fn slow(_: *mut Tracer, _: *mut c_void, _: *mut c_void) {
    std::thread::sleep(Duration::from_micros(200));
}

/// The limit is below what is live, so that cycles follow each other, and in each, which takes most of a second, the program
/// soon comes to where it must help until the end. The limiter sees that while it goes on, and lets the program have its half,
/// of which a busy machine takes some.
#[test]
fn a_heap_that_is_too_small_leaves_the_program_half_of_its_time() {
    let _alone = alone();
    let options = Options { memory_limit: 1, mark_workers: 1, trace: Some(slow), ..precise() };
    let heap = Heap::new(&options).expect("a heap");
    let mut m = heap.attach().expect("attach");
    let _kept: Vec<_> = (0..5000)
        .map(|_| {
            let object = m.alloc(4096, Kind::Traced).expect("memory");
            m.handle(object.as_ptr()).expect("a handle")
        })
        .collect();
    let (begin, mut stood, mut longest) = (Instant::now(), Duration::ZERO, Duration::ZERO);
    let mut last = begin;
    while last - begin < Duration::from_secs(5) {
        m.alloc(1024, Kind::NoScan).expect("memory");
        let took = last.elapsed();
        last += took;
        if took > Duration::from_micros(50) {
            stood += took;
            longest = longest.max(took);
        }
    }
    eprintln!("{stood:?} of {:?}, {longest:?} at once, {} cycles", last - begin, heap.stats().cycles);
    assert!(stood <= (last - begin) * 4 / 5, "{stood:?} of {:?} were not the program's", last - begin);
}

/// The collector's threads are late then: they share processors with others. Two runs of three are enough: where the system holds
/// the leader of a cycle up for a fifth of a second, the limiter lets the program go on.
#[test]
fn the_soft_limit_holds_on_a_busy_machine() {
    let _alone = alone();
    let limit = 48 * MIB;
    let peaks: Vec<usize> = (0..3).map(|_| peak_on_a_busy_machine(limit)).collect();
    assert!(
        peaks.iter().filter(|peak| **peak <= limit * 21 / 20).count() >= 2,
        "1 GiB of garbage beside 8 MiB: peaks of {peaks:?}"
    );
}

fn peak_on_a_busy_machine(limit: usize) -> usize {
    let heap = Heap::new(&Options { gc_percent: 10_000, memory_limit: limit, ..precise() }).expect("a heap");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    std::hint::spin_loop()
                }
            });
        }
        let mut m = heap.attach().expect("attach");
        let head = m.handle(std::ptr::null_mut()).expect("a handle");
        for n in 0..1 << 20 {
            let node = m.alloc(1024, Kind::Values).expect("memory");
            if n < 8 << 10 {
                // SAFETY: a new object; nothing has been allocated since.
                unsafe { push(&head, node) };
            }
        }
        over.store(true, Relaxed);
        assert_eq!(length(&head), 8 << 10);
    });
    heap.stats().peak_footprint as usize
}
