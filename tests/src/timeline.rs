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
        cycles.iter().for_each(|cycle| self.check_cycle(cycle));
        // A cycle that the session's start or end cut off is not there, but who helped in it may be.
        let whole =
            cycles.first().map_or(0, |cycle| cycle.start)..cycles.last().map_or(0, |cycle| cycle.end());
        for helper in self.slices.iter().filter(|s| s.category == "mark" && whole.contains(&s.start)) {
            let marks = |cycle: &&Slice| match self.is_beside(cycle) {
                // Who pays in advance when the last is marked sees only later that the cycle is over.
                true => (self.phase(cycle, "finish sweep").end()..self.phase(cycle, "mark").end())
                    .contains(&helper.start),
                false => self.last_stop(cycle).holds(helper),
            };
            assert!(cycles.iter().any(marks), "{helper:?} marks while nobody collects");
        }
    }

    fn phase(&self, cycle: &Slice, name: &str) -> &Slice {
        let of = |slice: &&Slice| {
            slice.name == name && slice.category == "phase" && slice.tid == cycle.tid && cycle.holds(slice)
        };
        let found: Vec<_> = self.slices.iter().filter(of).collect();
        assert_eq!(found.len(), 1, "{name} of {cycle:?}: {found:?}");
        found[0]
    }

    fn last_stop(&self, cycle: &Slice) -> &Slice {
        let number = cycle.arg("number");
        let of = |s: &&Slice| s.name == "world stopped" && s.args["cycle"] == number;
        let stops: Vec<_> = self.slices.iter().filter(of).collect();
        assert_eq!(stops.len(), 1, "of {cycle:?}");
        stops[0]
    }

    /// Whether a cycle marked beside the program.
    pub fn is_beside(&self, cycle: &Slice) -> bool {
        self.phase(cycle, "stop").start != self.phase(cycle, "finish sweep").end()
    }

    fn check_cycle(&self, cycle: &Slice) {
        let phases = |names: &[&str]| {
            let phases: Vec<_> = names.iter().map(|name| self.phase(cycle, name)).collect();
            let gap = phases.windows(2).find(|two| two[0].end() != two[1].start);
            assert!(gap.is_none(), "{gap:?} of {cycle:?}");
            (phases[0].start, phases[names.len() - 1].end())
        };
        if self.is_beside(cycle) {
            let (roots, _) = phases(&["roots", "mark", "stop", "flush", "end", "resume"]);
            let swept = self.phase(cycle, "finish sweep").end();
            self.check_start(cycle, swept..roots);
        } else {
            phases(&["finish sweep", "stop", "flush", "roots", "mark", "end", "resume"]);
        }
        assert_eq!(self.phase(cycle, "finish sweep").start, cycle.start, "{cycle:?}");
        assert_eq!(self.phase(cycle, "resume").end(), cycle.end(), "{cycle:?}");
        let stood = self.phase(cycle, "flush").start..self.phase(cycle, "resume").start;
        let stop = self.last_stop(cycle);
        assert_eq!((stop.start..stop.end(), &stop.args["why"]), (stood, &"cycle".into()));
    }

    /// In the first stop of a cycle beside the program, `within` that time, marking begins; in others it did not end yet.
    fn check_start(&self, cycle: &Slice, within: std::ops::Range<u64>) {
        let of = |category: &str| -> Vec<&Slice> {
            let of = |s: &&Slice| s.args["why"] == "mark" && s.category == category && cycle.holds(s);
            self.slices.iter().filter(of).collect()
        };
        let (holds, stops): (Vec<_>, Vec<_>) =
            of("stop").into_iter().partition(|slice| slice.name == "mark" && slice.tid == cycle.tid);
        assert!(!holds.is_empty() && holds.len() == stops.len(), "{holds:?} {stops:?} of {cycle:?}");
        assert!(holds.iter().zip(&stops).all(|(hold, stop)| hold.holds(stop)), "{holds:?} {stops:?}");
        assert!(
            within.start <= holds[0].start && holds[0].end() <= within.end,
            "{:?} of {cycle:?}",
            holds[0]
        );
        let mark = self.phase(cycle, "mark");
        assert!(holds[1..].iter().all(|hold| mark.holds(hold)), "{holds:?} of {cycle:?}");
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
