//! The barrier tortured: threads that only move the last pointer to an object around, while cycles run back to back, each
//! of them marked a second time. And each barrier left out in turn, which must be found.
//!
//! The seed is printed, and `BESOM_STRESS_SEED` sets it; `BESOM_STRESS_SECONDS` sets the length.

use besom::options::{CONCURRENT, STOP_THE_WORLD};
use besom::{Heap, Kind, Options};
use besom_stats::sync::raw::Ordering::*;
use besom_tests::lasting::Lasting;
use besom_tests::objects::{BOXED, PLAIN};
use besom_tests::process::{abort_on_panic, number_from_env};
use besom_tests::rng::{Rng, mix};
use besom_tests::torture::{Ground, MOVERS, Mover, OMISSIONS, Omit, trace};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a run lasts whose barrier is left out, if nobody finds it.
const CONTROL: Duration = Duration::from_secs(60);
/// Time of a round with its options.
const ROUND: Duration = Duration::from_secs(2);

/// Options of a round. `omit`: those in which a missing barrier shows.
fn options(rng: &mut Rng, omit: Omit) -> Options {
    let precise = omit != Omit::Nothing;
    Options {
        scan_native_stacks: i32::from(!precise && rng.one_in(3)),
        mode: if !precise && rng.one_in(6) { STOP_THE_WORLD } else { CONCURRENT },
        procs: if precise { 0 } else { [0, 0, 2, 3][rng.below(4)] },
        mark_workers: [0, 1, 2][rng.below(3)],
        gc_percent: if rng.one_in(2) { 1 } else { 100 },
        encoding: if rng.one_in(2) { BOXED } else { PLAIN },
        trace: Some(trace),
        verify: if precise || rng.one_in(2) { 1 } else { 3 },
        clobber_free: 1,
        ..Options::default()
    }
}

/// What came of a round.
#[derive(Debug, Default)]
struct Came {
    cycles: u64,
    moves: u64,
    /// Objects that came out of weak references and ephemerons, those that were dead, and those that finalizers got.
    taken_back: u64,
    dead: u64,
    finalized: u64,
}

impl Came {
    fn add(&mut self, more: &Came) {
        self.cycles += more.cycles;
        self.moves += more.moves;
        self.taken_back += more.taken_back;
        self.dead += more.dead;
        self.finalized += more.finalized;
    }

    /// In the mean of the rounds: one may meet a machine that is busy with something else.
    fn is_enough(&self, rounds: u64) -> bool {
        let [cycles, moves, taken_back, dead, finalized] =
            [self.cycles, self.moves, self.taken_back, self.dead, self.finalized].map(|n| n / rounds);
        cycles > 10 && moves > 10_000 && taken_back > 100 && dead > 10 && finalized > 10
    }
}

fn round(seed: u64, omit: Omit, length: Duration) -> Came {
    let mut rng = Rng::new(seed);
    let options = options(&mut rng, omit);
    let heap = Heap::new(&options).expect("a heap");
    let mut m = heap.attach().expect("attach");
    let ground = Ground::new(&mut m, options.encoding, options.scan_native_stacks == 1, omit);
    std::thread::scope(|scope| {
        let ground = &ground;
        let movers: Vec<_> = (0..MOVERS)
            .map(|n| {
                let rng = Rng::new(mix(seed ^ (n as u64 + 1) << 32));
                scope.spawn(move || Mover::new(ground, n, rng).play())
            })
            .collect();
        scope.spawn(|| ground.free_handles());
        let end = Instant::now() + length;
        while Instant::now() < end {
            // Cycles by request, or by what is allocated: then by the collector's own thread, and with assists.
            if options.gc_percent == 1 {
                (0..1000).for_each(|_| _ = m.alloc(1000, Kind::NoScan).expect("memory"));
            } else {
                m.collect();
            }
            m.blocked(|| std::thread::sleep(Duration::from_micros(rng.below(1000) as u64)));
        }
        ground.over.store(true, Relaxed);
        m.blocked(|| movers.into_iter().for_each(|mover| mover.join().expect("a mover")));
    });
    // What they have put there since the thread for it ended.
    ground.free_handles();
    ground.finalize(&mut m);
    let [moves, taken_back, dead, finalized] =
        [&ground.moves, &ground.taken_back, &ground.dead, &ground.finalized].map(|n| n.load(Relaxed));
    drop(ground);
    m.collect();
    let s = heap.stats();
    if options.scan_native_stacks == 0 {
        assert_eq!((s.alloc_count - s.free_count, s.live_bytes), (0, 0), "{s:?}");
    }
    Came { cycles: s.cycles, moves, taken_back, dead, finalized }
}

#[test]
fn the_last_pointer_is_never_lost() {
    let seconds = number_from_env("BESOM_STRESS_SECONDS", 6);
    let seed = number_from_env("BESOM_STRESS_SEED", u64::from(std::process::id()) ^ 0x7047);
    println!("BESOM_STRESS_SEED={seed}");
    let length = Lasting::new(Duration::from_secs(seconds));
    let (mut n, mut all) = (0, Came::default());
    while length.goes_on(n > 2 && all.is_enough(n), &all) {
        abort_on_panic(format!("BESOM_STRESS_SEED={seed}, failed in round {n} (round 0 of {})", seed + n));
        let came = round(seed + n, Omit::Nothing, ROUND);
        println!("round {n}: {came:?}");
        all.add(&came);
        n += 1;
    }
}

const CHILD: &str = "TORTURE_OMIT";

/// Each barrier is left out in turn, in a process of its own: the second marker finds that an object is lost.
#[test]
fn each_barrier_that_is_left_out_is_missed() {
    if let Ok(name) = std::env::var(CHILD) {
        let (_, omit) = OMISSIONS.into_iter().find(|(known, _)| *known == name).expect("a name");
        let end = Instant::now() + CONTROL;
        for seed in 0.. {
            if Instant::now() > end {
                std::process::exit(0);
            }
            round(seed, omit, ROUND);
        }
    }
    for (name, _) in OMISSIONS {
        let begin = Instant::now();
        let output = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "each_barrier_that_is_left_out_is_missed", "--nocapture", "--test-threads=1"])
            .env(CHILD, name)
            .output()
            .expect("a child");
        let text = String::from_utf8_lossy(&output.stderr);
        let found = text
            .lines()
            .filter(|line| line.starts_with("besom: verify: "))
            // The latter a cycle later, if it lay behind an object that was left where nothing keeps it.
            .any(|line| line.ends_with(", which is not marked") || line.ends_with(", where no object is"));
        assert!(
            output.status.signal() == Some(6) && found,
            "{name}: {:?} after {:?}: {text}",
            output.status,
            begin.elapsed()
        );
        println!("without the barrier of {name}: found after {:?}", begin.elapsed());
    }
}
