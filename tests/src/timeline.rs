//! A timeline's file, read back.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A slice. Times are nanoseconds since the heap was made.
#[derive(Clone, Debug)]
pub struct Slice {
    /// What it is called.
    pub name: String,
    /// By which viewers filter.
    pub category: String,
    /// Its track.
    pub tid: u64,
    /// When it begins.
    pub start: u64,
    /// How long it is.
    pub ns: u64,
    /// The rest.
    pub args: Value,
}

impl Slice {
    /// When it ends.
    pub fn end(&self) -> u64 {
        self.start + self.ns
    }

    /// A number among the arguments.
    pub fn arg(&self, name: &str) -> u64 {
        self.args[name].as_u64().unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// Whether another lies in it.
    pub fn holds(&self, other: &Slice) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }
}

/// A sample of the heap's size.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When.
    pub at: u64,
    /// Live bytes.
    pub live: u64,
    /// The goal, unless there is none.
    pub goal: Option<u64>,
    /// Bytes that the heap has of the system.
    pub footprint: u64,
}

/// A whole file.
#[derive(Debug, Default)]
pub struct Trace {
    /// As the file tells it, of the process.
    pub process: String,
    /// In the order of the file.
    pub slices: Vec<Slice>,
    /// In the order of the file.
    pub samples: Vec<Sample>,
    /// Tracks' names.
    pub names: BTreeMap<u64, String>,
    /// Events without room.
    pub dropped: u64,
}

/// As Perfetto converts a time: it cuts off.
fn ns(value: &Value, event: &Value) -> u64 {
    let us = value.as_f64().unwrap_or_else(|| panic!("no time: {event}"));
    let ns = us * 1000.0;
    assert!(us >= 0.0 && (ns.fract() - 0.25).abs() < 0.2, "no whole nanoseconds and a quarter: {event}");
    ns as u64
}

fn text(value: &Value, event: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {event}")).to_owned()
}

fn number(value: &Value, event: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {event}"))
}

impl Trace {
    /// Reads a file; panics on an event without what it must have.
    pub fn read(path: &Path) -> Trace {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file: Value = serde_json::from_slice(&bytes).expect("JSON");
        let events = file["traceEvents"].as_array().expect("events");
        let mut trace =
            Trace { dropped: number(&file["otherData"]["dropped"], &file["otherData"]), ..Trace::default() };
        for event in events {
            assert_eq!(number(&event["pid"], event), u64::from(pid_of(events)), "{event}");
            let (name, args) = (text(&event["name"], event), &event["args"]);
            match event["ph"].as_str() {
                Some("M") => match name.as_str() {
                    "process_name" => trace.process = text(&args["name"], event),
                    "process_labels" => assert!(trace.dropped > 0, "{event}"),
                    "thread_name" => {
                        let tid = number(&event["tid"], event);
                        let before = trace.names.insert(tid, text(&args["name"], event));
                        assert!(before.is_none(), "named twice: {event}");
                    }
                    "thread_sort_index" => assert!(args["sort_index"].is_u64(), "{event}"),
                    _ => panic!("{event}"),
                },
                Some("C") => trace.samples.push(Sample {
                    at: ns(&event["ts"], event),
                    live: number(&args["live"], event),
                    goal: args.get("goal").map(|goal| number(goal, event)),
                    footprint: number(&args["footprint"], event),
                }),
                Some("X") => trace.slices.push(Slice {
                    name,
                    category: text(&event["cat"], event),
                    tid: number(&event["tid"], event),
                    start: ns(&event["ts"], event),
                    ns: ns(&event["dur"], event),
                    args: args.clone(),
                }),
                _ => panic!("{event}"),
            }
        }
        let said = number(&file["otherData"]["events"], &file["otherData"]);
        assert_eq!(said as usize, trace.slices.len() + trace.samples.len());
        trace
    }

    /// The slices of a name.
    pub fn named(&self, name: &str) -> Vec<&Slice> {
        self.slices.iter().filter(|slice| slice.name == name).collect()
    }

    /// Checks what holds in every file, whatever was recorded.
    pub fn check(&self) {
        assert!(self.process.starts_with("besom heap "), "{}", self.process);
        assert!(self.samples.windows(2).all(|two| two[0].at <= two[1].at), "samples out of order");
        for slice in &self.slices {
            assert!(self.names.contains_key(&slice.tid), "no name for the track of {slice:?}");
        }
        for tid in self.names.keys() {
            let track: Vec<_> = self.slices.iter().filter(|slice| slice.tid == *tid).collect();
            nested(&track);
        }
        let cycles = self.named("cycle");
        let stops = self.named("world stopped");
        assert!(
            stops.windows(2).all(|two| two[0].end() <= two[1].start),
            "the world is stopped twice at once"
        );
        let mut numbers: Vec<_> = cycles.iter().map(|cycle| cycle.arg("number")).collect();
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|two| two[0] + 1 == two[1]), "cycles are missing: {numbers:?}");
        for cycle in cycles {
            self.check_cycle(cycle);
        }
        // A stop that the session's start or end cut off is not there, but who helped in it may be.
        let whole = stops.first().map_or(0, |stop| stop.start)..stops.last().map_or(0, |stop| stop.end());
        for helper in self.slices.iter().filter(|s| s.category == "mark" && whole.contains(&s.start)) {
            assert!(stops.iter().any(|stop| stop.holds(helper)), "{helper:?} marks while the world goes on");
        }
    }

    fn check_cycle(&self, cycle: &Slice) {
        let phases = ["finish sweep", "stop", "flush", "roots", "mark", "end", "resume"];
        let mut stood = 0..0;
        let mut at = cycle.start;
        for name in phases {
            let of = |slice: &&Slice| {
                slice.name == name
                    && slice.category == "phase"
                    && slice.tid == cycle.tid
                    && cycle.holds(slice)
            };
            let found: Vec<_> = self.slices.iter().filter(of).collect();
            assert_eq!(found.len(), 1, "{name} of {cycle:?}: {found:?}");
            assert_eq!(found[0].start, at, "{name} of {cycle:?}");
            match name {
                "flush" => stood.start = at,
                "resume" => stood.end = at,
                _ => {}
            }
            at = found[0].end();
        }
        assert_eq!(at, cycle.end(), "{cycle:?}");
        let number = cycle.arg("number");
        let stops: Vec<_> =
            self.slices.iter().filter(|s| s.name == "world stopped" && s.args["cycle"] == number).collect();
        assert_eq!(stops.len(), 1, "of {cycle:?}");
        assert_eq!((stops[0].start..stops[0].end(), &stops[0].args["why"]), (stood, &"cycle".into()));
    }
}

fn pid_of(events: &[Value]) -> u32 {
    events.first().and_then(|event| event["pid"].as_u64()).expect("a process") as u32
}

/// No two slices of a track overlap in part; and the outer ones come first.
fn nested(track: &[&Slice]) {
    let mut open: Vec<&Slice> = Vec::new();
    let mut last = 0;
    for slice in track {
        assert!(slice.start >= last, "out of order: {slice:?}");
        last = slice.start;
        while open.last().is_some_and(|outer| outer.end() <= slice.start) {
            open.pop();
        }
        if let Some(outer) = open.last() {
            assert!(outer.holds(slice), "{slice:?} sticks out of {outer:?}");
        }
        open.push(slice);
    }
}

/// A path for a file that is removed with this.
pub struct Temporary(pub PathBuf);

impl Temporary {
    /// A path of the test's own.
    pub fn new(name: &str) -> Temporary {
        Temporary(std::env::temp_dir().join(format!("besom-{name}-{}.json", std::process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
