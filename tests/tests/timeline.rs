//! The timeline: a file that says what happened, all of it and nothing twice, while threads allocate, collect, block,
//! come and go.

use besom::options::{CONCURRENT, STOP_THE_WORLD};
use besom::{Error, Heap, Kind, Options};
use besom_stats::sync::raw::{AtomicBool, AtomicU64, Ordering::*};
use besom_tests::lasting::Lasting;
use besom_tests::objects::precise;
use besom_tests::process::abort_on_panic;
use besom_tests::rng::{Rng, mix};
use besom_tests::timeline::{Temporary, Trace};
use std::time::Duration;

const THREADS: u64 = 4;

/// What threads did that the file must show.
#[derive(Default)]
struct Deeds {
    walks: AtomicU64,
    checks: AtomicU64,
}

/// Allocates, with all that can happen between, and keeps some: a heap of some MiB, so that helpers mark.
fn work(heap: &Heap, seed: u64, over: &AtomicBool, deeds: &Deeds) {
    let mut rng = Rng::new(mix(seed));
    let mut m = heap.attach().expect("attach");
    let mut kept = Vec::new();
    while !over.load(Relaxed) {
        for _ in 0..500 {
            let object = m.alloc(16 + rng.below(500), Kind::Values).expect("memory");
            if rng.below(40) == 0 {
                let at = rng.below(4000);
                let handle = m.handle(object.as_ptr()).expect("a handle");
                if at < kept.len() { kept[at] = handle } else { kept.push(handle) }
            }
        }
        match rng.below(64) {
            0 => m.collect(),
            1..4 => m.blocked(|| std::thread::sleep(Duration::from_micros(100))),
            4..8 => {
                m.alloc(100_000 + rng.below(1 << 20), Kind::NoScan).expect("memory");
            }
            8 => {
                deeds.walks.fetch_add(1, Relaxed);
                // SAFETY: the visit does nothing.
                unsafe { m.walk(|_, _, _| ()) };
            }
            9 => {
                deeds.checks.fetch_add(1, Relaxed);
                m.verify();
            }
            10 => {
                heap.release_memory();
            }
            11 => {
                drop(m);
                m = heap.attach().expect("attach");
            }
            _ => {}
        }
    }
    drop(kept);
}

/// Four threads on three Ps for some thirty cycles, all in one session; its file, which tells of them what the heap's
/// statistics tell.
fn recorded(mode: i32) -> Trace {
    let file = Temporary::new("all");
    let heap = Heap::new(&Options { procs: 3, mark_workers: 2, mode, ..precise() }).expect("a heap");
    heap.timeline_start(&file.0).expect("a session");
    let (over, deeds) = (AtomicBool::new(false), Deeds::default());
    std::thread::scope(|scope| {
        for n in 0..THREADS {
            let (heap, over, deeds) = (&heap, &over, &deeds);
            scope.spawn(move || work(heap, n, over, deeds));
        }
        let many =
            || heap.stats().cycles > 30 && deeds.walks.load(Relaxed) > 3 && deeds.checks.load(Relaxed) > 3;
        while !many() {
            std::thread::sleep(Duration::from_millis(10));
        }
        over.store(true, Relaxed);
    });
    // After one that goes on still.
    heap.attach().expect("attach").collect();
    let stats = heap.stats();
    heap.timeline_stop().expect("a file");
    let trace = Trace::read(&file.0);
    trace.check();
    assert_eq!(trace.dropped, 0);

    let mut cycles = trace.named("cycle");
    assert_eq!(cycles.len() as u64, stats.cycles);
    cycles.sort_by_key(|cycle| cycle.arg("number"));
    let last = cycles.last().expect("a cycle");
    assert_eq!((cycles[0].arg("number"), last.arg("number")), (1, stats.cycles));
    assert!(cycles.windows(2).all(|two| two[0].end() <= two[1].start), "two cycles at once");
    assert_eq!((last.arg("live_after"), last.arg("goal")), (stats.live_bytes, stats.next_goal));
    let forced = cycles.iter().filter(|cycle| cycle.args["cause"] == "forced").count() as u64;
    assert_eq!(forced, stats.forced_cycles);
    assert!(cycles.iter().all(|cycle| trace.is_beside(cycle) == (mode == CONCURRENT)));
    let count =
        |why: &str| trace.named("world stopped").iter().filter(|s| s.args["why"] == why).count() as u64;
    assert_eq!(count("cycle"), stats.cycles);
    let sum = |name: &str, category: &str| {
        let of = |s: &&besom_tests::timeline::Slice| s.name == name && s.category == category;
        trace.slices.iter().filter(of).map(|slice| slice.ns).sum::<u64>()
    };
    if mode == CONCURRENT {
        // A pause is a cycle's last phases and its stops before, to the nanosecond.
        let last = ["stop", "flush", "end", "resume"].map(|name| sum(name, "phase")).iter().sum::<u64>();
        assert_eq!(last + sum("mark", "stop"), stats.pause_total_ns);
        assert!(count("mark") >= stats.cycles);
    } else {
        // A pause is a cycle without its first phase, to the nanosecond.
        let cycles = cycles.iter().map(|cycle| cycle.ns).sum::<u64>();
        assert_eq!(cycles - sum("finish sweep", "phase"), stats.pause_total_ns);
        assert_eq!(count("mark"), 0);
    }
    assert_eq!((count("walk"), count("verify")), (deeds.walks.into_inner(), deeds.checks.into_inner()));
    for why in ["walk", "verify"] {
        assert_eq!(trace.named(why).len() as u64, count(why), "{why}");
    }
    for slice in &trace.slices {
        let track = match (slice.name.as_str(), slice.category.as_str()) {
            ("world stopped", _) => "world stopped",
            ("sweep", _) => "besom-sweep",
            ("mark", "mark") => "besom-mark",
            ("scavenge", _) => "besom-scavenge",
            ("cycle", "cycle") if mode == CONCURRENT && slice.args["cause"] == "pace" => "besom-gc",
            // Of a cycle, which is on the track of who leads it.
            (_, "phase" | "stop") | ("resolve specials" | "sweep the rest" | "release", _)
                if trace.names[&slice.tid] == "besom-gc" =>
            {
                "besom-gc"
            }
            _ => "mutator",
        };
        assert_eq!(trace.names[&slice.tid], track, "{slice:?}");
        if slice.args["pages"].is_u64() {
            let busy = slice.args["busy_us"].as_f64().expect("a time");
            assert!(slice.arg("pages") > 0 && busy * 1000.0 <= slice.ns as f64 + 0.5, "{slice:?}");
        }
    }
    assert!(trace.samples.len() as u64 >= 2 * stats.cycles, "a sample at each end of each cycle");
    assert!(trace.samples.iter().all(|s| s.footprint <= stats.peak_footprint && s.goal.is_some()));
    trace
}

/// Who gets to sweep and who must wait is for the system to choose: in a few runs each happens.
#[test]
fn a_file_shows_all_that_happened() {
    abort_on_panic("a timeline while threads work".to_owned());
    let always = [
        ("attach", "wait"),
        ("stopped", "wait"),
        ("waits for a P", "wait"),
        ("waits for a collection", "wait"),
        ("sweep the rest", "sweep"),
        ("sweep assist", "sweep"),
        ("sweep", "sweep"),
        ("release", "memory"),
        ("mark", "mark"),
    ];
    for (mode, more) in
        [(CONCURRENT, &[("own roots", "mark"), ("mark assist", "mark")][..]), (STOP_THE_WORLD, &[])]
    {
        let mut missing = [&always, more].concat();
        for _ in 0..20 {
            let trace = recorded(mode);
            missing
                .retain(|kind| !trace.slices.iter().any(|s| (s.name.as_str(), s.category.as_str()) == *kind));
            if missing.is_empty() {
                break;
            }
        }
        assert!(missing.is_empty(), "never seen: {missing:?}");
    }
}

/// Sessions while others work, by a thread that is not attached.
#[test]
fn sessions_follow_each_other_while_threads_work() {
    abort_on_panic("sessions while threads work".to_owned());
    [CONCURRENT, STOP_THE_WORLD].into_iter().for_each(sessions);
}

fn sessions(mode: i32) {
    let file = Temporary::new("sessions");
    let heap = Heap::new(&Options { mark_workers: 2, mode, ..precise() }).expect("a heap");
    let (over, deeds) = (AtomicBool::new(false), Deeds::default());
    let mut cycles = 0;
    std::thread::scope(|scope| {
        for n in 0..THREADS {
            let (heap, over, deeds) = (&heap, &over, &deeds);
            scope.spawn(move || work(heap, n, over, deeds));
        }
        let mut end = 0;
        let length = Lasting::new(Duration::from_millis(800));
        for n in 0.. {
            if !length.goes_on(n >= 40 && cycles > 10, cycles) {
                break;
            }
            heap.timeline_start(&file.0).expect("a session");
            std::thread::sleep(Duration::from_millis(n % 40));
            heap.timeline_stop().expect("a file");
            let trace = Trace::read(&file.0);
            trace.check();
            assert!(trace.slices.iter().all(|slice| slice.start >= end), "a slice of an earlier session");
            end = trace.slices.iter().map(|slice| slice.end()).max().unwrap_or(end);
            cycles += trace.named("cycle").len();
        }
        over.store(true, Relaxed);
    });
}

/// A thread alone is never stopped and waits for nobody, if it is the one who collects. Beside the program another does.
#[test]
fn a_thread_alone_only_collects_and_sweeps() {
    let trace = alone(STOP_THE_WORLD);
    assert!(trace.slices.iter().all(|slice| slice.category != "wait"), "{:?}", trace.slices);
    let mutators = trace.names.values().filter(|name| *name == "mutator").count();
    assert_eq!(mutators, 1, "{:?}", trace.names);
    let trace = alone(CONCURRENT);
    let leaders = trace.names.values().filter(|name| *name == "besom-gc").count();
    assert_eq!(leaders, 1, "{:?}", trace.names);
    let stopped = trace.named("stopped");
    let stops = trace.named("world stopped");
    assert!(!stopped.is_empty() && stopped.len() <= stops.len(), "{stopped:?} {stops:?}");
    let waits = |name: &str| ["stopped", "waits for a collection"].contains(&name);
    assert!(trace.slices.iter().all(|s| s.category != "wait" || waits(&s.name)), "{:?}", trace.slices);
}

fn alone(mode: i32) -> Trace {
    let file = Temporary::new("alone");
    let heap = Heap::new(&Options { mode, ..precise() }).expect("a heap");
    let mut m = heap.attach().expect("attach");
    heap.timeline_start(&file.0).expect("a session");
    for _ in 0..40_000 {
        m.alloc(1000, Kind::NoScan).expect("memory");
    }
    // A cycle that goes on now would be in the statistics, and not in the file.
    drop(m);
    heap.timeline_stop().expect("a file");
    let trace = Trace::read(&file.0);
    trace.check();
    assert!(trace.named("cycle").len() > 3);
    trace
}

/// Steps of sweeping are kept by the P until a later one is far enough away. A thread that stops the session does not
/// lose its own.
#[test]
fn a_thread_sees_its_own_last_sweeping() {
    let file = Temporary::new("own");
    let heap = Heap::new(&precise()).expect("a heap");
    let mut m = heap.attach().expect("attach");
    // The sweeper beside it may be faster, but not each time.
    for _ in 0..500 {
        heap.timeline_start(&file.0).expect("a session");
        let cycles = heap.stats().cycles;
        while heap.stats().cycles == cycles {
            m.alloc(1000, Kind::NoScan).expect("memory");
        }
        heap.timeline_stop().expect("a file");
        let trace = Trace::read(&file.0);
        trace.check();
        // A cycle beside the program is counted a moment before it is recorded.
        let Some(over) = trace.named("cycle").first().map(|cycle| cycle.end()) else { continue };
        if trace.named("sweep assist").iter().any(|slice| slice.start >= over) {
            return;
        }
    }
    panic!("the sweeping after a cycle is never seen");
}

#[test]
fn a_heap_that_goes_writes_its_file() {
    let file = Temporary::new("goes");
    let heap = Heap::new(&precise()).expect("a heap");
    heap.timeline_start(&file.0).expect("a session");
    let mut m = heap.attach().expect("attach");
    m.collect();
    m.collect();
    drop(m);
    drop(heap);
    let trace = Trace::read(&file.0);
    trace.check();
    assert_eq!(trace.named("cycle").len(), 2);
}

#[test]
fn what_cannot_be_done_is_told() {
    let (file, other) = (Temporary::new("told"), Temporary::new("untold"));
    let heap = Heap::new(&precise()).expect("a heap");
    assert_eq!(heap.timeline_stop(), Err(Error::State));
    assert_eq!(heap.timeline_start(&file.0.join("below a file")), Err(Error::Invalid));
    assert_eq!(heap.timeline_stop(), Err(Error::State));
    heap.timeline_start(&file.0).expect("a session");
    assert_eq!(heap.timeline_start(&other.0), Err(Error::State));
    assert!(!other.0.exists());
    heap.timeline_stop().expect("a file");
    Trace::read(&file.0).check();
    heap.timeline_start("/dev/full".as_ref()).expect("a device");
    assert_eq!(heap.timeline_stop(), Err(Error::Limit));
    assert_eq!(heap.timeline_stop(), Err(Error::State));
}

/// Two heaps share nothing, not even their timelines.
#[test]
fn each_heap_has_its_own() {
    let (first, second) = (Temporary::new("first"), Temporary::new("second"));
    let heaps = [&first, &second].map(|file| {
        let heap = Heap::new(&precise()).expect("a heap");
        heap.timeline_start(&file.0).expect("a session");
        heap
    });
    heaps[0].attach().expect("attach").collect();
    (0..3).for_each(|_| heaps[1].attach().expect("attach").collect());
    heaps.iter().for_each(|heap| heap.timeline_stop().expect("a file"));
    let traces = [&first, &second].map(|file| Trace::read(&file.0));
    assert_eq!(traces.each_ref().map(|trace| trace.named("cycle").len()), [1, 3]);
    assert_ne!(traces[0].process, traces[1].process);
}

/// The picture is drawn of what was recorded; a file or a cycle that is not there is told.
#[test]
fn a_file_can_be_drawn() {
    let file = Temporary::new("drawn");
    let heap = Heap::new(&precise()).expect("a heap");
    heap.timeline_start(&file.0).expect("a session");
    let mut m = heap.attach().expect("attach");
    (0..3).for_each(|_| m.collect());
    heap.timeline_stop().expect("a file");
    let draw = |arguments: &[&str]| {
        let program = std::process::Command::new(env!("CARGO_BIN_EXE_timeline-svg"))
            .arg(&file.0)
            .args(arguments)
            .output()
            .expect("a program");
        (program.status.code(), String::from_utf8(program.stdout).expect("text"))
    };
    for arguments in [&[][..], &["--cycles", "1", "3", "--zoom", "2", "--title", "a < b & c"]] {
        let (status, svg) = draw(arguments);
        assert_eq!(status, Some(0));
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        assert_eq!(svg.contains("Cycle 2"), !arguments.is_empty());
        assert_eq!(svg.contains("a &lt; b &amp; c"), !arguments.is_empty());
        assert!(svg.contains(">world stopped</text>") && svg.contains("class=\"live\""), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        for tag in ["g", "text", "svg", "title"] {
            let opened = svg.matches(&format!("<{tag}>")).count() + svg.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, svg.matches(&format!("</{tag}>")).count(), "{tag} in {svg}");
        }
    }
    assert_eq!(draw(&["--cycles", "1", "4"]).0, Some(65));
    assert_eq!(draw(&["--zoom"]).0, Some(64));
    assert_eq!(draw(&["--zoom", "two"]).0, Some(64));
}
