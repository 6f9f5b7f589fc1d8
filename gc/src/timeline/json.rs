//! The file of a session, in the Chrome trace event format: an object with one array of events, which Perfetto and
//! `chrome://tracing` open. Times are microseconds, with the nanoseconds behind the point, and a quarter more: see
//! `time`.
//!
//! Events come by track, each track's in the order of their beginnings and an outer slice before its inner ones: readers
//! nest slices that begin together in the order of the file. Each track begins with its name.

use super::{Event, Kind, WORLD, Why};
use crate::cycle::Cause;
use serde::Serialize;
use std::io::{self, BufWriter, Write};

/// Bytes of a write. Higher: fewer calls; from 8 KiB on the buffer is a mapping, which the system may refuse. Lower:
/// more calls.
const BUFFER: usize = 4096;

/// What is told of a session beside its events.
pub struct Head {
    /// The heap's number in the process.
    pub heap: u64,
    /// The heap's own thread that leads cycles; 0: there is none.
    pub leader: u32,
    /// Events that follow.
    pub events: usize,
    /// Events that found no room.
    pub dropped: usize,
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cat: Option<&'a str>,
    ph: char,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<u32>,
    args: Args<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Args<'a> {
    Name {
        name: &'a str,
    },
    Labels {
        labels: &'a str,
    },
    Order {
        sort_index: u32,
    },
    Cycle {
        number: u64,
        cause: &'a str,
        live_before: u64,
        live_after: u64,
        /// None when no cycle is due at any size.
        #[serde(skip_serializing_if = "Option::is_none")]
        goal: Option<u64>,
    },
    Stop {
        why: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        cycle: Option<u64>,
    },
    Sweep {
        pages: u64,
        busy_us: f64,
    },
    Bytes {
        bytes: u64,
    },
    Size {
        live: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        goal: Option<u64>,
        footprint: u64,
    },
    None {},
}

#[derive(Serialize)]
struct Other<'a> {
    library: &'a str,
    heap: u64,
    events: usize,
    dropped: usize,
    time: &'a str,
}

/// What an event is called, and the category by which viewers filter.
fn name(event: &Event) -> (&'static str, &'static str) {
    match event.kind {
        Kind::Cycle => ("cycle", "cycle"),
        Kind::FinishSweep => ("finish sweep", "phase"),
        Kind::Stop => ("stop", "phase"),
        Kind::Flush => ("flush", "phase"),
        Kind::Roots => ("roots", "phase"),
        Kind::Mark => ("mark", "phase"),
        Kind::End => ("end", "phase"),
        Kind::Resume => ("resume", "phase"),
        Kind::Hold => (why(event), "stop"),
        Kind::WorldStopped => ("world stopped", "stop"),
        Kind::MarkHelper => ("mark", "mark"),
        Kind::BackgroundSweep => ("sweep", "sweep"),
        Kind::SweepAssist => ("sweep assist", "sweep"),
        Kind::SweepRest => ("sweep the rest", "sweep"),
        Kind::Stopped => ("stopped", "wait"),
        Kind::WaitForP => ("waits for a P", "wait"),
        Kind::WaitForCycle => ("waits for a collection", "wait"),
        Kind::MarkAssist => ("mark assist", "mark"),
        Kind::Resolve => ("resolve specials", "mark"),
        Kind::OwnRoots => ("own roots", "mark"),
        Kind::Attach => ("attach", "wait"),
        Kind::Release => ("release", "memory"),
        Kind::Scavenge => ("scavenge", "memory"),
        Kind::Heap => ("heap", "memory"),
    }
}

fn why(event: &Event) -> &'static str {
    match event.why() {
        Some(Why::Cycle) => "cycle",
        Some(Why::Mark) => "mark",
        Some(Why::Walk) => "walk",
        Some(Why::Verify) => "verify",
        Some(Why::Statistics) => "statistics",
        None => "",
    }
}

fn args(event: &Event) -> Args<'static> {
    let [a, b, c, d] = event.args;
    let size = |bytes| (bytes != u64::MAX).then_some(bytes);
    match event.kind {
        Kind::Cycle => Args::Cycle {
            number: a,
            cause: match event.cause() {
                Some(Cause::Pace) => "pace",
                Some(Cause::Forced) => "forced",
                Some(Cause::Every) => "collect_every",
                Some(Cause::Limit) => "limit",
                None => "",
            },
            live_before: b,
            live_after: c,
            goal: size(d),
        },
        Kind::Hold | Kind::WorldStopped => Args::Stop { why: why(event), cycle: (a != 0).then_some(a) },
        Kind::BackgroundSweep | Kind::SweepAssist => Args::Sweep { pages: a, busy_us: micros(b) },
        Kind::MarkHelper | Kind::MarkAssist | Kind::OwnRoots | Kind::Release | Kind::Scavenge => {
            Args::Bytes { bytes: a }
        }
        Kind::Heap => Args::Size { live: a, goal: size(b), footprint: c },
        _ => Args::None {},
    }
}

/// A begin or a length for the file: microseconds, and a quarter of a nanosecond. Perfetto makes nanoseconds of them again
/// by `(int64_t)(us * 1000.0)`, which cuts off: of the nearest number some would come out one short, and a slice that begins
/// or ends so overlaps its neighbour in part, and is dropped. With the quarter who cuts off and who rounds both find
/// what was recorded, also if they read the text not quite exactly, up to 2^50 nanoseconds, 13 days.
pub(super) fn time(ns: u64) -> f64 {
    (ns as f64 + 0.25) / 1000.0
}

fn micros(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

/// A track's name, and its place from the top.
fn track(event: &Event, leader: u32) -> (&'static str, u32) {
    match event.kind {
        _ if event.tid == WORLD => ("world stopped", 0),
        Kind::BackgroundSweep => ("besom-sweep", 3),
        Kind::MarkHelper => ("besom-mark", 4),
        Kind::Scavenge => ("besom-scavenge", 5),
        _ if event.tid == leader => ("besom-gc", 1),
        _ => ("mutator", 2),
    }
}

/// Writes a session. `events` are in the order in which they are to stand there.
pub fn write(out: impl Write, head: &Head, events: impl Iterator<Item = Event>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, out);
    let pid = std::process::id();
    let other = Other {
        library: concat!("besom ", env!("CARGO_PKG_VERSION")),
        heap: head.heap,
        events: head.events,
        dropped: head.dropped,
        time: "since the heap was made",
    };
    out.write_all(b"{\"displayTimeUnit\":\"ms\",\"otherData\":")?;
    serde_json::to_writer(&mut out, &other)?;
    out.write_all(b",\"traceEvents\":[\n")?;
    let told = |name, tid, args| Line { name, cat: None, ph: 'M', ts: None, dur: None, pid, tid, args };
    let process = format!("besom heap {}", head.heap);
    let labels = format!("{} events dropped", head.dropped);
    serde_json::to_writer(&mut out, &told("process_name", None, Args::Name { name: &process }))?;
    if head.dropped != 0 {
        line(&mut out, &told("process_labels", None, Args::Labels { labels: &labels }))?;
    }
    let mut last = 0;
    for event in events {
        let (title, cat) = name(&event);
        let (cat, ts, args) = (Some(cat), Some(time(event.start)), args(&event));
        if event.kind == Kind::Heap {
            line(&mut out, &Line { name: title, cat, ph: 'C', ts, dur: None, pid, tid: None, args })?;
            continue;
        }
        let tid = Some(event.tid);
        if event.tid != last {
            last = event.tid;
            let (name, sort_index) = track(&event, head.leader);
            line(&mut out, &told("thread_name", tid, Args::Name { name }))?;
            line(&mut out, &told("thread_sort_index", tid, Args::Order { sort_index }))?;
        }
        let dur = Some(time(event.duration));
        line(&mut out, &Line { name: title, cat, ph: 'X', ts, dur, pid, tid, args })?;
    }
    out.write_all(b"\n]}\n")?;
    out.flush()
}

fn line(out: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
    out.write_all(b",\n")?;
    Ok(serde_json::to_writer(out, line)?)
}
