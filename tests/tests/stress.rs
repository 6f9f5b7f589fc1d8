//! Random histories of eight threads on one heap, against a model, with every check of the library switched on.
//!
//! The seed is printed, and `BESOM_STRESS_SEED` sets it; `BESOM_STRESS_SECONDS` sets the length. Threads work on
//! objects of their own and on frozen ones that they handed to each other. Between phases all are blocked but one,
//! which collects and compares the walk with the union of the models: what they reach must be there, and, if native
//! stacks are no roots, nothing else. Beside the models' objects, threads have some with weak references, ephemerons, finalizers and
//! cleanups, which are gone when they meet.

use besom::options::{CONCURRENT, STOP_THE_WORLD};
use besom::{Error, Heap, Mutator, Options, Stats};
use besom_stats::sync::raw::{AtomicBool, AtomicUsize, Ordering::*};
use besom_stats::sync::{Mutex, lock};
use besom_tests::model::{Expected, Model, Parcel, shape};
use besom_tests::mortals::{Mortals, Own, run_due};
use besom_tests::objects::{BOXED, PLAIN, Setup, trace};
use besom_tests::process::{abort_on_panic, number_from_env};
use besom_tests::rng::{Rng, mix};
use besom_tests::{c, process};
use std::sync::Barrier;
use std::time::{Duration, Instant};

const THREADS: usize = 8;
/// Objects that one model may hold before it lets roots go.
const OBJECTS_MOST: usize = 1500;
const OPERATIONS: usize = 1200;
const PHASES: usize = 3;

struct Round<'h> {
    heap: &'h Heap,
    setup: &'h Setup,
    precise: bool,
    limited: bool,
    barrier: Barrier,
    mail: Mutex<Vec<Parcel<'h>>>,
    expected: Mutex<Expected>,
    over: AtomicBool,
    refused: AtomicUsize,
    mortals: Mortals,
}

fn random_options(rng: &mut Rng) -> Options {
    Options {
        scan_native_stacks: i32::from(rng.one_in(4)),
        procs: [0, 0, 1, 2, 3][rng.below(5)],
        mark_workers: 1 + rng.below(3) as u32,
        gc_percent: [25, 100, 100, 400][rng.below(4)],
        heap_limit: if rng.one_in(4) { 24 << 20 } else { 0 },
        memory_limit: if rng.one_in(4) { 8 << 20 } else { 0 },
        tiny: i32::from(!rng.one_in(4)),
        encoding: if rng.one_in(2) { BOXED } else { PLAIN },
        trace: Some(trace),
        verify: 3,
        clobber_free: 1,
        collect_every: if rng.one_in(6) { 300 } else { 0 },
        mode: if rng.one_in(4) { STOP_THE_WORLD } else { CONCURRENT },
        ..Options::default()
    }
}

/// One thread's history; the mutator is gone in between, now and then.
struct Player<'r, 'h> {
    round: &'r Round<'h>,
    model: Model<'h>,
    mortals: Own<'r, 'h>,
    m: Option<Mutator<'h>>,
    rng: Rng,
}

impl<'h> Player<'_, 'h> {
    fn m(&mut self) -> &mut Mutator<'h> {
        self.m.as_mut().expect("attached")
    }

    fn attach(&mut self) {
        let m = self.round.heap.attach().expect("attach");
        assert_eq!(self.round.heap.attach().err(), Some(Error::State), "attached twice");
        self.model.roots.attach(&m);
        self.m = Some(m);
    }

    fn detach(&mut self) {
        self.model.roots.detach();
        self.m = None;
    }

    fn link(&mut self, from: usize, to: usize, choice: u64) {
        self.model.link(self.m.as_mut().expect("attached"), from, to, choice);
    }

    fn drop_one(&mut self) {
        let choice = self.rng.next();
        self.model.roots.drop_one(self.m.as_mut().expect("attached"), choice);
    }

    fn pick(&mut self) -> Option<usize> {
        self.model.pick(self.rng.next())
    }

    fn alloc(&mut self) {
        let (shape, size) = shape(self.round.setup, self.rng.next());
        let root = self.rng.next();
        let Some(m) = self.m.as_mut() else { return };
        match self.model.alloc(m, shape, size, root) {
            Some(new) => {
                for _ in 0..self.rng.below(3) {
                    let choice = self.rng.next();
                    if let Some(other) = self.pick() {
                        let (from, to) = if choice & 1 == 0 { (new, other) } else { (other, new) };
                        self.link(from, to, choice);
                    }
                }
            }
            None => {
                assert!(self.round.limited, "{shape:?} of {size}: no memory, without a limit");
                self.round.refused.fetch_add(1, Relaxed);
                (0..50).for_each(|_| self.drop_one());
            }
        }
    }

    /// Exact statistics, counted and walked; each identity between them is checked by the call.
    fn twins(&mut self) {
        let (counted, walked) = self.m().mem_stats_slow();
        assert!(counted == walked, "{}", counted.difference(&walked).expect("a difference"));
    }

    fn step(&mut self) {
        let choice = self.rng.next();
        match self.rng.below(1000) {
            0..330 => self.alloc(),
            330..400 => self.mortals.step(self.m.as_mut().expect("attached"), &mut self.rng),
            400..620 => {
                if let (Some(from), Some(to)) = (self.pick(), self.pick()) {
                    self.link(from, to, choice);
                }
            }
            620..660 => {
                if let Some(from) = self.pick() {
                    self.model.unlink(self.m.as_mut().expect("attached"), from, choice);
                }
            }
            660..720 => {
                if let (Some(from), Some(of)) = (self.pick(), self.pick()) {
                    self.model.decoy(from, of, choice);
                }
            }
            720..840 => {
                if let Some(at) = self.pick() {
                    self.model.check(self.round.heap, at);
                }
            }
            840..920 => self.drop_one(),
            920..950 => self.m().safepoint(),
            950..965 => {
                let wait = Duration::from_micros(choice % 300);
                self.m().blocked(|| std::thread::sleep(wait));
            }
            965..972 => {
                self.detach();
                self.attach();
            }
            972..982 => self.give(),
            982..992 => {
                let parcel = lock(&self.round.mail).pop();
                if let Some(parcel) = parcel {
                    self.model.unpack(parcel);
                }
            }
            992..995 => self.m().collect(),
            995..997 => self.twins(),
            997 => self.m().verify(),
            _ => self.model.check_all(),
        }
        if self.model.len() > OBJECTS_MOST {
            self.model.forget();
            while self.model.len() > OBJECTS_MOST / 2 {
                (0..10).for_each(|_| self.drop_one());
                self.model.forget();
            }
        }
    }

    fn give(&mut self) {
        let Some(target) = self.pick() else { return };
        let Some(m) = self.m.as_mut() else { return };
        if lock(&self.round.mail).len() < 16
            && let Some(parcel) = self.model.pack(m, target, 200)
        {
            lock(&self.round.mail).push(parcel);
        }
    }

    /// All threads come together; one of them compares.
    fn meet(&mut self) {
        let round = self.round;
        self.model.check_all();
        self.mortals.forget_all(self.m.as_ref().expect("attached"));
        lock(&round.expected).add(self.model.objects());
        let leads = self.m().blocked(|| round.barrier.wait().is_leader());
        if leads {
            let mut expected = std::mem::take(&mut *lock(&round.expected));
            for parcel in lock(&round.mail).iter() {
                expected.add(parcel.nodes.iter().map(|(address, node)| (*address, node)));
            }
            settle(self.m(), round);
            let precise = round.precise;
            expected.compare(self.m(), precise);
            self.m().verify();
            equations(&round.heap.stats());
            self.twins();
        }
        self.m().blocked(|| round.barrier.wait());
        self.model.check_all();
    }

    fn play(mut self) {
        self.attach();
        for _ in 0..PHASES {
            for _ in 0..OPERATIONS {
                self.step();
            }
            self.meet();
        }
        self.detach();
    }
}

/// Nobody holds what has finalizers and cleanups: they are due, run, and the objects are gone.
fn settle(m: &mut Mutator<'_>, round: &Round<'_>) {
    m.collect();
    while run_due(m, usize::MAX) != 0 {
        m.collect();
    }
    if round.precise {
        round.mortals.are_settled();
    }
}

fn equations(s: &Stats) {
    assert!(s.free_count <= s.alloc_count && s.total_free_bytes <= s.total_alloc_bytes, "{s:?}");
    assert!((s.total_alloc_bytes - s.total_free_bytes) as i64 <= s.in_heap, "{s:?}");
    assert!(s.in_heap + s.in_stacks + s.in_work_bufs <= s.committed, "{s:?}");
}

/// A thread that is never attached turns every knob.
fn meddle(round: &Round<'_>, mut rng: Rng, memory_limit: usize) {
    let heap = c::heap(round.heap);
    while !round.over.load(Relaxed) {
        match rng.below(8) {
            0 | 1 => round.heap.set_procs(rng.below(THREADS + 2) as u32).expect("set_procs"),
            2..5 => equations(&round.heap.stats()),
            5 => {
                round.heap.release_memory();
            }
            6 => {
                // SAFETY: the heap lives.
                unsafe { c::besom_gc_percent_set(heap, 20 + rng.below(300) as u32) };
            }
            _ => {
                let limit = if rng.one_in(2) { memory_limit } else { 6 << 20 };
                // SAFETY: as above.
                unsafe { c::besom_memory_limit_set(heap, limit) };
            }
        }
        std::thread::sleep(Duration::from_micros(rng.below(3000) as u64));
    }
}

fn run_round(seed: u64) {
    let mut rng = Rng::new(seed);
    let options = random_options(&mut rng);
    let heap = Heap::new(&options).expect("a heap");
    let setup = Setup::new(&heap, options.encoding, rng.one_in(3));
    let round = Round {
        heap: &heap,
        setup: &setup,
        precise: options.scan_native_stacks == 0,
        limited: options.heap_limit != 0,
        barrier: Barrier::new(THREADS),
        mail: Mutex::new(Vec::new()),
        expected: Mutex::new(Expected::default()),
        over: AtomicBool::new(false),
        refused: AtomicUsize::new(0),
        mortals: Mortals::default(),
    };
    std::thread::scope(|scope| {
        let players: Vec<_> = (0..THREADS as u64)
            .map(|n| {
                let (round, setup) = (&round, round.setup);
                let rng = Rng::new(mix(seed ^ n << 32));
                scope.spawn(move || {
                    let (model, mortals) = (Model::new(round.heap, setup, n + 1), Own::new(&round.mortals));
                    Player { round, model, mortals, m: None, rng }.play();
                })
            })
            .collect();
        let (round, limit) = (&round, options.memory_limit);
        let meddler = scope.spawn(move || meddle(round, Rng::new(mix(seed ^ 99 << 32)), limit));
        for player in players {
            player.join().expect("a player");
        }
        round.over.store(true, Relaxed);
        meddler.join().expect("the meddler");
    });
    // All roots are gone with the models: so are all objects, from a thread that was not there.
    lock(&round.mail).clear();
    let mut m = heap.attach().expect("attach");
    settle(&mut m, &round);
    assert!(round.mortals.count() > 100, "{} mortals", round.mortals.count());
    if round.precise {
        Expected::default().compare(&mut m, true);
        let s = heap.stats();
        assert_eq!((s.alloc_count, s.total_alloc_bytes), (s.free_count, s.total_free_bytes), "{s:?}");
        assert_eq!((s.in_heap, s.live_bytes), (0, 0), "{s:?}");
    }
}

#[test]
fn random_histories_agree_with_the_model() {
    let seconds = number_from_env("BESOM_STRESS_SECONDS", 4);
    let seed = number_from_env("BESOM_STRESS_SEED", u64::from(std::process::id()) ^ 0xbe50);
    println!("BESOM_STRESS_SEED={seed}");
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut n, mut threads) = (0, 0);
    while n == 0 || Instant::now() < end {
        abort_on_panic(format!("BESOM_STRESS_SEED={seed}, failed in round {n} (round 0 of {})", seed + n));
        run_round(seed + n);
        n += 1;
        // Joined threads may be seen a little longer.
        threads = (0..100)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(1));
                process::threads()
            })
            .min()
            .unwrap_or(0);
    }
    println!("{n} rounds");
    assert!(threads <= 3, "{threads} threads are left");
}
