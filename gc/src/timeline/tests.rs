use super::*;
use crate::mark::Marked;
use besom_alloc_core::units::Bytes;
use serde_json::Value;
use std::path::PathBuf;

/// A file that is gone with the test.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Temporary {
        Temporary(std::env::temp_dir().join(format!("besom-{name}-{}.json", std::process::id())))
    }

    fn read(&self) -> Value {
        serde_json::from_slice(&std::fs::read(&self.0).expect("a file")).expect("JSON")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn timeline(capacity: usize) -> Timeline {
    Timeline::with_capacity(7, Instant::now(), capacity)
}

/// The events of one phase letter.
fn of(file: &Value, letter: &str) -> Vec<Value> {
    let events = file["traceEvents"].as_array().expect("events");
    events.iter().filter(|e| e["ph"] == letter).cloned().collect()
}

fn wait_until(ns: u64, timeline: &Timeline) {
    while timeline.now() < ns {
        std::thread::yield_now();
    }
}

#[test]
fn what_is_recorded_is_what_is_read() {
    for kind in KINDS {
        for note in 0..4 {
            let event =
                Event { kind, note, tid: WORLD - 1, start: u64::MAX, duration: 3, args: [1, u64::MAX, 0, 4] };
            assert_eq!(Event::of(event.words()), Some(event));
        }
    }
    for (n, kind) in KINDS.into_iter().enumerate() {
        assert_eq!(kind as usize, n);
    }
    for (n, (cause, why)) in CAUSES.into_iter().zip(REASONS).enumerate() {
        assert_eq!((cause as usize, why as usize), (n, n));
    }
    assert_eq!(Event::of([KINDS.len() as u64, 0, 0, 0, 0, 0, 0]), None);
}

#[test]
fn what_finds_no_room_is_counted() {
    let (timeline, file) = (timeline(16), Temporary::new("full"));
    for (events, kept, dropped) in [(20, 16, 4), (16, 16, 0), (3, 3, 0), (0, 0, 0)] {
        timeline.start(&file.0).expect("a session");
        for n in 0..events {
            timeline.end(timeline.begin(), Kind::Release, [n, 0, 0, 0]);
        }
        timeline.stop().expect("a file");
        let read = file.read();
        let bytes: Vec<_> =
            of(&read, "X").iter().map(|e| e["args"]["bytes"].as_u64().expect("bytes")).collect();
        assert_eq!(bytes, (0..kept).collect::<Vec<_>>(), "{events} events");
        assert_eq!(read["otherData"]["events"], kept);
        assert_eq!(read["otherData"]["dropped"], dropped);
        let names: Vec<_> = of(&read, "M").iter().map(|e| e["name"].clone()).collect();
        assert_eq!(names.contains(&Value::from("process_labels")), dropped != 0, "{names:?}");
        assert_eq!(names.contains(&Value::from("thread_name")), kept != 0, "{names:?}");
    }
}

#[test]
fn a_slice_lies_in_one_session() {
    let (timeline, file) = (timeline(16), Temporary::new("sessions"));
    assert!(timeline.begin().is_none() && !timeline.is_on());
    timeline.end(None, Kind::Release, [0; 4]);
    timeline.start(&file.0).expect("a session");
    assert!(timeline.is_on());
    let over = timeline.begin();
    let mut slice = Gathered::default();
    timeline.gather(&mut slice, Kind::SweepAssist, over.expect("a session"), Pages(1));
    timeline.stop().expect("a file");
    assert_eq!(of(&file.read(), "X"), [Value::Null; 0]);
    timeline.end(over, Kind::Release, [0; 4]);
    timeline.start(&file.0).expect("a session");
    timeline.end(over, Kind::Release, [0; 4]);
    timeline.end_gathered(&mut slice, Kind::SweepAssist);
    timeline.end(timeline.begin(), Kind::Stopped, [0; 4]);
    timeline.stop().expect("a file");
    let slices = of(&file.read(), "X");
    assert_eq!((slices.len(), &slices[0]["name"]), (1, &Value::from("stopped")));
}

#[test]
fn sessions_do_not_overlap_and_files_can_be_refused() {
    let (timeline, file, other) = (timeline(16), Temporary::new("refused"), Temporary::new("other"));
    assert_eq!(timeline.stop(), Err(TimelineError::State));
    let nowhere = file.0.with_file_name("besom-no-such-directory").join("file");
    assert_eq!(timeline.start(&nowhere), Err(TimelineError::CannotCreate));
    assert!(!timeline.is_on());
    timeline.start(&file.0).expect("a session");
    assert_eq!(timeline.start(&other.0), Err(TimelineError::State));
    assert!(!other.0.exists(), "a session that is refused makes no file");
    timeline.stop().expect("a file");
    assert_eq!(timeline.stop(), Err(TimelineError::State));
    timeline.start(Path::new("/dev/full")).expect("a device");
    timeline.end(timeline.begin(), Kind::Release, [0; 4]);
    assert_eq!(timeline.stop(), Err(TimelineError::CannotWrite));
    assert!(!timeline.is_on(), "over all the same");
    timeline.start(&file.0).expect("a session");
    timeline.stop().expect("a file");
    assert_eq!(of(&file.read(), "X"), [Value::Null; 0]);
}

#[test]
fn steps_that_follow_each_other_are_one_slice() {
    let (timeline, file) = (timeline(16), Temporary::new("steps"));
    timeline.start(&file.0).expect("a session");
    let mut slice = Gathered::default();
    let step = |slice: &mut Gathered, pages| {
        timeline.gather(slice, Kind::SweepAssist, timeline.begin().expect("a session"), Pages(pages));
    };
    // A gap may be longer than meant, if the thread is not scheduled; then there are more slices, and this begins anew.
    let mut attempts = 0;
    let three = loop {
        let before = slice;
        (1..=3).for_each(|pages| step(&mut slice, pages));
        if slice.pages == 6 && slice.start > before.end {
            break slice;
        }
        attempts += 1;
        assert!(attempts < 1000, "three steps are never one slice");
        slice = Gathered::default();
    };
    assert!(three.busy <= three.end - three.start);
    wait_until(slice.end + GATHER_NS + 1, &timeline);
    step(&mut slice, 10);
    // Another thread's step is a slice of its own.
    std::thread::scope(|scope| scope.spawn(|| step(&mut slice, 20)).join().expect("a thread"));
    timeline.end_gathered(&mut slice, Kind::SweepAssist);
    timeline.end_gathered(&mut slice, Kind::SweepAssist);
    timeline.stop().expect("a file");
    let mut pages: Vec<_> =
        of(&file.read(), "X").iter().map(|e| e["args"]["pages"].as_u64().expect("pages")).collect();
    pages.sort_unstable();
    assert_eq!(pages, [6, 10, 20]);
}

#[test]
fn samples_of_growth_are_a_millisecond_apart() {
    let (timeline, file) = (timeline(16), Temporary::new("samples"));
    timeline.start(&file.0).expect("a session");
    let first = timeline.begin().expect("a session");
    assert!(timeline.sample_is_due(&first));
    assert!(!timeline.sample_is_due(&first));
    wait_until(first.ns + SAMPLE_NS, &timeline);
    assert!(timeline.sample_is_due(&timeline.begin().expect("a session")));
    timeline.sample(first, 1, u64::MAX, 3);
    timeline.stop().expect("a file");
    let samples = of(&file.read(), "C");
    assert_eq!(samples.len(), 1);
    assert_eq!(samples[0]["args"], serde_json::json!({ "live": 1, "footprint": 3 }), "no goal is no number");
}

/// What a reader that cuts off makes of a time, read from text, is what was recorded; and so for one that rounds.
#[test]
fn times_come_back_exactly() {
    let mut text = Vec::new();
    let mut check = |ns: u64| {
        text.clear();
        serde_json::to_writer(&mut text, &json::time(ns)).expect("a number");
        let us: f64 = std::str::from_utf8(&text).expect("text").parse().expect("a number");
        // Some parsers are off by a bit.
        for us in [us.next_down(), us, us.next_up()] {
            assert_eq!(((us * 1000.0) as u64, (us * 1000.0).round() as u64), (ns, ns));
        }
    };
    (0..2_000_000).for_each(&mut check);
    // From a millisecond up, in steps that share no factor with the powers: 2^49 ns are 6 days.
    for power in 20..49 {
        (0..20_000).for_each(|step| check((1 << power) + step * 7919 % (1 << power)));
        (0..1000).for_each(|before| check((1 << power) - before));
    }
}

/// A cycle for which the slots do not do is dropped whole.
#[test]
fn a_cycle_is_not_cut_off() {
    let (timeline, file) = (timeline(16), Temporary::new("cut"));
    let parts = 9;
    for before in 0..=16 {
        timeline.start(&file.0).expect("a session");
        for n in 0..before {
            timeline.end(timeline.begin(), Kind::Release, [n, 0, 0, 0]);
        }
        timeline.cycle(timeline.begin(), &cycle());
        timeline.end(timeline.begin(), Kind::Release, [before, 0, 0, 0]);
        timeline.stop().expect("a file");
        let read = file.read();
        let named = |name: &str| of(&read, "X").iter().filter(|e| e["name"] == name).count() as u64;
        let whole = before + parts <= 16;
        let after = u64::from(before + parts < 16);
        let kept = if whole { before + parts + after } else { before };
        assert_eq!(named("release"), before + after, "{before} events before it");
        assert_eq!((named("cycle"), named("world stopped")), (u64::from(whole), u64::from(whole)));
        assert_eq!(read["otherData"]["events"], kept, "{before} events before it");
        assert_eq!(read["otherData"]["dropped"], before + parts + 1 - kept, "{before} events before it");
    }
}

fn cycle() -> CycleRecord {
    let ns = Duration::from_nanos;
    CycleRecord {
        number: 5,
        cause: Cause::Limit,
        since_start: ns(0),
        gc_cpu: ns(0),
        total: ns(2100),
        sweep: ns(100),
        start: ns(0),
        pause: ns(0),
        flush: ns(0),
        stop: ns(200),
        marked: Marked {
            live: Bytes(50),
            root_time: ns(300),
            drain_time: ns(1000),
            workers: 1,
            ..Marked::default()
        },
        end: ns(400),
        resume: ns(50),
        before: 60,
        goal: 70,
        beside: None,
    }
}

/// The phases are side by side, and fill the cycle.
#[test]
fn a_cycle_is_its_phases() {
    let (timeline, file) = (timeline(16), Temporary::new("cycle"));
    timeline.start(&file.0).expect("a session");
    let began = timeline.begin();
    timeline.cycle(began, &cycle());
    timeline.stop().expect("a file");
    let start = began.expect("a session").ns;
    let slices: Vec<_> = of(&file.read(), "X")
        .iter()
        .map(|e| {
            let ns = |field: &str| (e[field].as_f64().expect("a time") * 1000.0) as u64;
            (e["name"].as_str().expect("a name").to_owned(), ns("ts") - start, ns("dur"))
        })
        .collect();
    let expected = [
        ("cycle", 0, 2100),
        ("finish sweep", 0, 100),
        ("stop", 100, 200),
        ("flush", 300, 100),
        ("roots", 400, 300),
        ("mark", 700, 1000),
        ("end", 1700, 350),
        ("resume", 2050, 50),
        ("world stopped", 300, 1750),
    ];
    assert_eq!(slices, expected.map(|(name, at, ns)| (name.to_owned(), at, ns)));
    let slices = of(&file.read(), "X");
    assert_eq!(
        slices[0]["args"],
        serde_json::json!({ "number": 5, "cause": "limit", "live_before": 60, "live_after": 50, "goal": 70 })
    );
    assert_eq!(slices[8]["args"], serde_json::json!({ "why": "cycle", "cycle": 5 }));
}
