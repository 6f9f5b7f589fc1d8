//! Ps: threads that share few are served in turn; their number changes under load; threads leave while others run.

use besom::options::{CONCURRENT, STOP_THE_WORLD};
use besom::{Error, Heap, Kind, Mutator, Options};
use besom_stats::sync::raw::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use besom_stats::sync::{Mutex, MutexGuard, lock};
use besom_tests::c;
use besom_tests::lasting::Lasting;
use besom_tests::metric::number_now;
use besom_tests::process::abort_on_panic;
use besom_tests::rng::{Rng, mix};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// How long a thread runs before one that waits gets its P, as `besom.h` has it.
const SLICE: Duration = Duration::from_millis(10);
/// What the system may add to a slice on a machine that does other things as well.
const SLACK: u32 = 12;

fn options(procs: u32) -> Options {
    Options { scan_native_stacks: 0, procs, ..Options::default() }
}

/// Tests that measure time run one at a time.
fn alone(context: &str) -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = lock(&ALONE);
    abort_on_panic(context.to_owned());
    alone
}

/// Ps that there are.
fn ps(heap: &Heap) -> u64 {
    number_now(heap, "besom/sched/procs:procs")
}

fn work(m: &mut Mutator<'_>, rng: &mut Rng) {
    for _ in 0..50 {
        m.alloc(rng.below(300), Kind::Values).expect("memory");
    }
}

#[test]
fn threads_that_share_one_p_take_turns() {
    let _alone = alone("one P, four threads");
    const THREADS: usize = 4;
    let heap = Heap::new(&options(1)).expect("a heap");
    let start = Barrier::new(THREADS);
    let inside = AtomicUsize::new(0);
    let gaps: Vec<(Duration, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS as u64)
            .map(|n| {
                let (heap, start, inside) = (&heap, &start, &inside);
                scope.spawn(move || {
                    let mut rng = Rng::new(n);
                    start.wait();
                    let mut m = heap.attach().expect("attach");
                    let begin = Instant::now();
                    let (mut last, mut longest, mut rounds) = (begin, Duration::ZERO, 0);
                    while begin.elapsed() < SLICE * 100 {
                        // No safepoint in here: whoever is inside holds the only P.
                        assert_eq!(inside.fetch_add(1, SeqCst), 0, "two threads run on one P");
                        for _ in 0..200 {
                            std::hint::spin_loop();
                        }
                        inside.fetch_sub(1, SeqCst);
                        work(&mut m, &mut rng);
                        longest = longest.max(last.elapsed());
                        last = Instant::now();
                        rounds += 1;
                    }
                    (longest, rounds)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("a thread")).collect()
    });
    let most = SLICE * (THREADS as u32 - 1) * SLACK;
    for (longest, rounds) in &gaps {
        assert!(*longest < most, "one waited {longest:?} for its turn: {gaps:?}");
        assert!(*rounds > 10, "one hardly ran: {gaps:?}");
    }
    let total: u64 = gaps.iter().map(|g| g.1).sum();
    let least = gaps.iter().map(|g| g.1).min().unwrap_or(0);
    assert!(least * THREADS as u64 * 4 > total, "one had less than a quarter of its share: {gaps:?}");
}

#[test]
fn a_p_is_handed_over_after_a_slice_and_not_before_a_safepoint() {
    let _alone = alone("hand-over");
    let heap = Heap::new(&options(1)).expect("a heap");
    let mut m = heap.attach().expect("attach");
    let attached = AtomicBool::new(false);
    let asked = Barrier::new(2);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            asked.wait();
            let _m = heap.attach().expect("attach");
            attached.store(true, SeqCst);
        });
        asked.wait();
        // Long past the slice, but nothing here is a safepoint.
        std::thread::sleep(SLICE * 5);
        assert!(!attached.load(SeqCst), "the P was taken from a thread that was at no safepoint");
        // The thread that waits gets the P at a safepoint, and this one gets it back.
        let begin = Instant::now();
        while !attached.load(SeqCst) {
            assert!(begin.elapsed() < SLICE * 100, "safepoints hand nothing over");
            m.safepoint();
        }
        waiter.join().expect("the waiter");
    });
    m.alloc(100, Kind::Values).expect("memory");
}

#[test]
fn a_blocked_thread_leaves_its_p_to_others() {
    let _alone = alone("blocked");
    let heap = Heap::new(&options(1)).expect("a heap");
    let mut m = heap.attach().expect("attach");
    for _ in 0..20 {
        m.blocked(|| {
            std::thread::scope(|scope| {
                scope
                    .spawn(|| {
                        let begin = Instant::now();
                        let mut other = heap.attach().expect("attach");
                        other.alloc(100, Kind::Values).expect("memory");
                        other.collect();
                        assert!(
                            begin.elapsed() < SLICE * SLACK,
                            "waited {:?} for a P that was free",
                            begin.elapsed()
                        );
                    })
                    .join()
                    .expect("the other");
            });
        });
        m.alloc(100, Kind::Values).expect("memory");
    }
    assert_eq!(heap.stats().forced_cycles, 20);
}

#[test]
fn the_number_of_ps_changes_under_load() {
    let _alone = alone("set_procs under load");
    [CONCURRENT, STOP_THE_WORLD].into_iter().for_each(number_changes);
}

fn number_changes(mode: i32) {
    const THREADS: u64 = 6;
    let heap = Heap::new(&Options { verify: 2, mode, ..options(0) }).expect("a heap");
    let over = AtomicBool::new(false);
    let running = AtomicUsize::new(0);
    let most = AtomicUsize::new(0);
    let done: Vec<AtomicU64> = (0..THREADS).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for n in 0..THREADS {
            let (heap, over, running, most, done) = (&heap, &over, &running, &most, &done[n as usize]);
            scope.spawn(move || {
                let mut rng = Rng::new(mix(n));
                let mut m = heap.attach().expect("attach");
                while !over.load(Relaxed) {
                    most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                    std::hint::spin_loop();
                    running.fetch_sub(1, SeqCst);
                    work(&mut m, &mut rng);
                    m.safepoint();
                    done.fetch_add(1, Relaxed);
                }
            });
        }
        let mut rng = Rng::new(42);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(900) {
            let procs = rng.below(THREADS as usize + 3) as u32;
            heap.set_procs(procs).expect("set_procs");
            // SAFETY: the heap lives.
            assert_eq!(unsafe { c::besom_procs(c::heap(&heap)) }, procs);
            std::thread::sleep(Duration::from_micros(rng.below(2000) as u64));
        }
        // Down to one: after a safepoint of each, one runs at a time, for its slice.
        heap.set_procs(1).expect("set_procs");
        let length = Lasting::new(SLICE * 10);
        while length.goes_on(ps(&heap) == 1, ps(&heap)) {
            std::thread::sleep(SLICE);
        }
        most.store(0, SeqCst);
        std::thread::sleep(SLICE * 10);
        assert_eq!(most.load(SeqCst), 1, "threads that run at once with one P");
        // And up again: everybody makes progress at once.
        let before: Vec<u64> = done.iter().map(|d| d.load(Relaxed)).collect();
        heap.set_procs(0).expect("set_procs");
        let begin = Instant::now();
        for (n, d) in done.iter().enumerate() {
            while d.load(Relaxed) <= before[n] + 3 {
                assert!(begin.elapsed() < SLICE * 30 * SLACK, "thread {n} stands still with a P for each");
                std::thread::sleep(SLICE);
            }
        }
        over.store(true, Relaxed);
    });
    assert_eq!(heap.set_procs(4097), Err(Error::Limit));
    let mut m = heap.attach().expect("attach");
    m.collect();
    m.verify();
    let s = heap.stats();
    assert_eq!((s.alloc_count, s.in_heap), (s.free_count, 0), "{s:?}");
}

#[test]
fn threads_come_and_go_while_others_run() {
    let _alone = alone("attach and detach");
    for (procs, mode) in [(0, CONCURRENT), (2, CONCURRENT), (2, STOP_THE_WORLD)] {
        let options = Options { verify: 1, clobber_free: 1, mode, ..options(procs) };
        let heap = Heap::new(&options).expect("a heap");
        let over = AtomicBool::new(false);
        let visits = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for n in 0..2 {
                let (heap, over) = (&heap, &over);
                scope.spawn(move || {
                    let mut rng = Rng::new(n);
                    let mut m = heap.attach().expect("attach");
                    while !over.load(Relaxed) {
                        work(&mut m, &mut rng);
                    }
                });
            }
            for n in 0..4 {
                let (heap, over, visits) = (&heap, &over, &visits);
                scope.spawn(move || {
                    let mut rng = Rng::new(mix(n));
                    while !over.load(Relaxed) {
                        let mut m = heap.attach().expect("attach");
                        let object = m.alloc(64, Kind::Values).expect("memory");
                        // SAFETY: a word of a new object.
                        unsafe { object.as_ptr().cast::<u64>().write(n << 8 | 1) };
                        let kept = m.handle(object.as_ptr()).expect("a handle");
                        work(&mut m, &mut rng);
                        drop(m);
                        // The handle stays when the thread goes.
                        std::thread::sleep(Duration::from_micros(rng.below(500) as u64));
                        let m = heap.attach().expect("attach");
                        // SAFETY: the handle held the object meanwhile.
                        let word = unsafe { kept.get().cast::<u64>().read() };
                        assert_eq!(word, n << 8 | 1, "an object of a handle whose thread was away");
                        drop(m);
                        visits.fetch_add(1, Relaxed);
                    }
                });
            }
            let length = Lasting::new(Duration::from_millis(700));
            let mut collector = heap.attach().expect("attach");
            while length.goes_on(visits.load(Relaxed) > 40, &visits) {
                collector.collect();
                collector.blocked(|| std::thread::sleep(Duration::from_millis(1)));
            }
            over.store(true, Relaxed);
        });
        let mut m = heap.attach().expect("attach");
        m.collect();
        let s = heap.stats();
        assert_eq!((s.alloc_count, s.total_alloc_bytes), (s.free_count, s.total_free_bytes), "{s:?}");
    }
}

#[test]
fn a_stop_waits_for_no_blocked_thread() {
    let _alone = alone("stop and block");
    let heap = Heap::new(&options(0)).expect("a heap");
    let gate = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut m = heap.attach().expect("attach");
            let object = m.alloc(64, Kind::Values).expect("memory");
            let kept = m.handle(object.as_ptr()).expect("a handle");
            m.blocked(|| {
                gate.wait();
                gate.wait();
            });
            assert_eq!(kept.get(), object.as_ptr());
        });
        gate.wait();
        let mut m = heap.attach().expect("attach");
        for _ in 0..10 {
            let begin = Instant::now();
            m.collect();
            assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
        }
        assert_eq!(heap.stats().live_bytes, 64);
        m.blocked(|| gate.wait());
    });
}
