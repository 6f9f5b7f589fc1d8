//! Metrics: the two texts say what the batch says, each batch is consistent while threads work, the book's table is the
//! registry's.

use besom::metrics::export::prometheus_name;
use besom::metrics::{METRICS, MetricKind, MetricValue, Metrics};
use besom::options::{CONCURRENT, STOP_THE_WORLD};
use besom::{Heap, Kind, Options};
use besom_stats::sync::raw::{AtomicBool, Ordering::*};
use besom_tests::lasting::Lasting;
use besom_tests::metric::{histogram, number};
use besom_tests::objects::precise;
use besom_tests::process::abort_on_panic;
use besom_tests::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

fn names() -> impl Iterator<Item = &'static str> {
    METRICS.iter().map(|metric| metric.name().to_str().expect("text"))
}

/// A family of Prometheus' text: its type, its plain sample, or its buckets with their ends.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    value: Option<String>,
    buckets: Vec<(f64, u64)>,
    sum: Option<f64>,
    count: Option<u64>,
}

/// Parses Prometheus' text format, version 0.0.4, as far as it is written here, and panics at what is not.
fn parse_prometheus(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    assert!(text.ends_with('\n'), "the last line has no end");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            let letters = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(!name.is_empty() && name.chars().all(letters), "{line}");
            assert!(!help.is_empty() && !help.contains('\\'), "{line}");
            let family = Family { help: help.into(), ..Family::default() };
            assert!(families.insert(name.into(), family).is_none(), "twice: {line}");
            current = name.into();
            continue;
        }
        let family = families.get_mut(&current).unwrap_or_else(|| panic!("before any HELP: {line}"));
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let kind = rest.strip_prefix(current.as_str()).and_then(|r| r.strip_prefix(' '));
            assert!(family.kind.is_empty(), "twice: {line}");
            family.kind = kind.unwrap_or_else(|| panic!("of another family: {line}")).into();
            assert!(["gauge", "counter", "histogram"].contains(&family.kind.as_str()), "{line}");
            continue;
        }
        assert!(!family.kind.is_empty(), "before its TYPE: {line}");
        let rest = line.strip_prefix(current.as_str()).unwrap_or_else(|| panic!("of another family: {line}"));
        let (label, value) = rest.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        if family.kind != "histogram" {
            assert!(label.is_empty() && family.value.is_none(), "{line}");
            assert!(value.parse::<f64>().expect(line).is_finite());
            family.value = Some(value.into());
            continue;
        }
        match label {
            "_sum" => assert!(family.sum.replace(value.parse().expect(line)).is_none(), "{line}"),
            "_count" => assert!(family.count.replace(value.parse().expect(line)).is_none(), "{line}"),
            _ => {
                let end = label.strip_prefix("_bucket{le=\"").and_then(|l| l.strip_suffix("\"}"));
                let end = match end.unwrap_or_else(|| panic!("no bucket: {line}")) {
                    "+Inf" => f64::INFINITY,
                    end => end.parse().expect(line),
                };
                let value = value.parse().expect(line);
                if let Some((last_end, last)) = family.buckets.last() {
                    assert!(end > *last_end && value >= *last, "{line}");
                }
                assert!(family.sum.is_none() && family.count.is_none(), "{line}");
                family.buckets.push((end, value));
            }
        }
    }
    for (name, family) in &families {
        if family.kind == "histogram" {
            let last = family.buckets.last().copied();
            assert_eq!(last, family.count.map(|count| (f64::INFINITY, count)), "{name}");
            assert!(family.sum.is_some(), "{name}");
        } else {
            assert!(family.value.is_some(), "{name}");
            assert_eq!(family.kind == "counter", name.ends_with("_total"), "{name}");
        }
    }
    families
}

fn texts(metrics: &Metrics) -> (BTreeMap<String, Family>, serde_json::Map<String, serde_json::Value>) {
    let (mut text, mut json) = (String::new(), Vec::new());
    metrics.prometheus(&mut text).expect("text");
    metrics.json(&mut json).expect("json");
    (parse_prometheus(&text), serde_json::from_slice(&json).expect("an object"))
}

/// Compares both texts of a batch with the batch.
fn texts_agree(metrics: &Metrics) {
    let (mut families, mut members) = texts(metrics);
    for (metric, value) in metrics.iter() {
        let name = metric.name().to_str().expect("text");
        let unit = metric.unit().to_str().expect("text");
        let description = metric.description().to_str().expect("text");
        let seconds = unit == "nanoseconds";
        let total = if metric.kind() == MetricKind::Counter { "_total" } else { "" };
        let member = members.remove(name).unwrap_or_else(|| panic!("{name} is not in the JSON"));
        let prometheus = prometheus_name(metric) + total;
        let family = families.remove(&prometheus).unwrap_or_else(|| panic!("no {prometheus}"));
        let kind = format!("{:?}", metric.kind()).to_lowercase();
        assert_eq!((family.kind.as_str(), family.help.as_str()), (kind.as_str(), description), "{name}");
        assert_eq!(member["kind"], kind, "{name}");
        assert_eq!((&member["unit"], &member["description"]), (&unit.into(), &description.into()), "{name}");
        match value {
            MetricValue::Number(number) => {
                assert_eq!(member["value"], number, "{name}");
                let value = family.value.expect("a value");
                if seconds {
                    assert_eq!(value.parse::<f64>().expect("a number"), number as f64 / 1e9, "{name}");
                } else {
                    assert_eq!(value, number.to_string(), "{name}");
                }
            }
            MetricValue::Histogram(histogram) => {
                assert_eq!(
                    (&member["count"], &member["sum"]),
                    (&histogram.count.into(), &histogram.sum.into())
                );
                let sum = histogram.sum as f64 / if seconds { 1e9 } else { 1.0 };
                assert_eq!((family.sum, family.count), (Some(sum), Some(histogram.count)), "{name}");
                let listed: Vec<[u64; 3]> =
                    serde_json::from_value(member["buckets"].clone()).expect("buckets");
                let mut all = histogram.counts.iter().zip(histogram.bounds.windows(2));
                let all: Vec<_> =
                    all.by_ref().filter(|(n, _)| **n > 0).map(|(n, b)| [b[0], b[1], *n]).collect();
                assert_eq!(listed, all, "{name}");
                assert_eq!(family.buckets.len(), if seconds { 28 } else { 67 }, "{name}");
                for (end, count) in family.buckets {
                    // An end of Prometheus' is the largest value in its bucket.
                    let within = |bound: u64| {
                        let largest = (bound - 1) as f64 / if seconds { 1e9 } else { 1.0 };
                        largest <= end
                    };
                    let below: u64 = listed.iter().filter(|b| within(b[1])).map(|b| b[2]).sum();
                    assert_eq!(count, below, "{name}, {end}");
                    let ends_there = histogram.bounds[1..].iter().any(|&bound| {
                        end.is_infinite() || (bound - 1) as f64 / if seconds { 1e9 } else { 1.0 } == end
                    });
                    assert!(ends_there, "{name}: no bucket ends at {end}");
                }
            }
        }
    }
    assert!(members.is_empty() && families.is_empty(), "{members:?} {families:?}");
}

/// What `besom.h` says of every batch.
fn equations(metrics: &Metrics) {
    let number = |name: &str| number(metrics, name);
    let histogram = |name: &str| histogram(metrics, name);
    for (metric, value) in metrics.iter() {
        if let MetricValue::Histogram(h) = value {
            let least: u64 = h.counts.iter().zip(h.bounds).map(|(count, from)| count * from).sum();
            assert_eq!(h.counts.iter().sum::<u64>(), h.count, "{:?}", metric.name());
            assert!(least <= h.sum, "{:?}", metric.name());
        }
    }
    let cycles = number("besom/gc/cycles:cycles");
    let causes = ["pace", "forced", "every", "limit"];
    assert_eq!(cycles, causes.iter().map(|c| number(&format!("besom/gc/cycles/{c}:cycles"))).sum::<u64>());
    let pauses = histogram("besom/gc/pauses:nanoseconds");
    let phases = ["finish-sweep", "stop", "flush", "roots", "mark", "end", "start", "beside"]
        .map(|phase| histogram(&format!("besom/gc/phases/{phase}:nanoseconds")));
    assert!(pauses.count >= cycles);
    assert!(phases.iter().all(|phase| phase.count == cycles));
    let beside = phases[7].sum;
    assert_eq!(pauses.sum + beside, phases[1..7].iter().map(|phase| phase.sum).sum::<u64>());

    let other = histogram("besom/sched/pauses/other:nanoseconds");
    let delay = histogram("besom/sched/stops/delay:nanoseconds");
    assert_eq!(delay.count, pauses.count + other.count);
    assert!(delay.sum <= phases[1].sum + phases[6].sum + other.sum);
    let cpu = ["mark", "stop", "sweep"].map(|part| number(&format!("besom/cpu/gc/{part}:nanoseconds")));
    assert_eq!(number("besom/cpu/gc:nanoseconds"), cpu.iter().sum::<u64>());
    assert_eq!(cpu[1], [1, 2, 5, 6].map(|phase: usize| phases[phase].sum).iter().sum::<u64>());
    assert_eq!(cpu[2], phases[0].sum);
    let allocs = histogram("besom/heap/allocs-by-size:bytes");
    let frees = histogram("besom/heap/frees-by-size:bytes");
    let tiny = number("besom/heap/tiny/allocs:objects");
    assert!(allocs.counts.iter().zip(frees.counts).all(|(a, f)| f <= a));
    assert_eq!(number("besom/heap/allocs:bytes"), allocs.sum);
    assert_eq!(number("besom/heap/frees:bytes"), frees.sum);
    assert_eq!(number("besom/heap/allocs:objects"), allocs.count + tiny);
    assert_eq!(number("besom/heap/frees:objects"), frees.count + tiny);
    assert_eq!(number("besom/heap/objects:bytes"), allocs.sum - frees.sum);
    assert_eq!(number("besom/heap/objects:objects"), allocs.count - frees.count);
    let memory = |what: &str| number(&format!("besom/memory/{what}:bytes"));
    assert!(allocs.sum - frees.sum <= memory("in-heap"));
    assert!(memory("in-heap") + memory("in-stacks") + memory("in-work-bufs") <= memory("committed"));
    assert_eq!(memory("committed") + memory("released"), memory("mapped"));
    assert!(memory("footprint") <= memory("peak-footprint"));
    let swept = |who: &str| number(&format!("besom/sweep/{who}:pages"));
    assert!(swept("background") + swept("finish") <= swept("due"));
    let threads = |what: &str| number(&format!("besom/sched/threads/{what}:threads"));
    assert!(threads("running") + threads("waiting") <= threads("attached"));
}

#[test]
fn names_have_their_form_and_no_two_are_the_same() {
    let (mut seen, mut exported) = (BTreeSet::new(), BTreeSet::new());
    for (metric, name) in METRICS.iter().zip(names()) {
        let (path, unit) = name.split_once(':').expect("a unit");
        assert_eq!(metric.unit().to_str(), Ok(unit), "{name}");
        assert!(path.starts_with("besom/") && !unit.is_empty(), "{name}");
        let letters = |c: char| c.is_ascii_lowercase() || "/-".contains(c);
        assert!(path.chars().all(letters) && unit.chars().all(|c| c.is_ascii_lowercase()), "{name}");
        assert!(seen.insert(name), "{name} is there twice");
        let exported_name = prometheus_name(metric);
        assert!(!exported_name.contains("nanoseconds"), "{exported_name}");
        assert!(exported.insert(exported_name), "{name}: Prometheus has it twice");
        let description = metric.description().to_str().expect("text");
        assert!(description.ends_with('.') && description.chars().next().is_some_and(char::is_uppercase));
        assert_eq!(metric.buckets() > 0, metric.kind() == MetricKind::Histogram, "{name}");
    }
}

#[test]
fn both_texts_say_what_the_batch_says() {
    let heap = Heap::new(&precise()).expect("a heap");
    texts_agree(&heap.metrics().expect("memory"));
    let mut m = heap.attach().expect("a mutator");
    let mut rng = Rng::new(17);
    for _ in 0..100_000 {
        m.alloc(rng.below(3000), Kind::NoScan).expect("memory");
    }
    m.alloc(3_000_000, Kind::Values).expect("memory");
    m.collect();
    // SAFETY: the visit does nothing.
    unsafe { m.walk(|_, _, _| {}) };
    let metrics = heap.metrics().expect("memory");
    equations(&metrics);
    texts_agree(&metrics);
    assert!(number(&metrics, "besom/gc/cycles/pace:cycles") > 5);
    assert_eq!(histogram(&metrics, "besom/sched/pauses/other:nanoseconds").count, 1);
    // Beyond what a double can hold: the goal that there is not.
    let heap = Heap::new(&Options { gc_percent: 0, ..precise() }).expect("a heap");
    let metrics = heap.metrics().expect("memory");
    assert_eq!(number(&metrics, "besom/heap/goal:bytes"), u64::MAX);
    texts_agree(&metrics);
    assert!(metrics.get("besom/heap/goal").is_none() && metrics.get("").is_none());
}

#[test]
fn values_are_those_of_the_statistics() {
    let heap = Heap::new(&precise()).expect("a heap");
    let mut m = heap.attach().expect("a mutator");
    for i in 0..5000 {
        m.alloc(i % 700, Kind::NoScan).expect("memory");
    }
    m.collect();
    m.collect();
    let (stats, metrics) = (heap.stats(), heap.metrics().expect("memory"));
    equations(&metrics);
    for (name, value) in [
        ("besom/memory/committed:bytes", stats.committed as u64),
        ("besom/memory/released:bytes", stats.released as u64),
        ("besom/memory/in-heap:bytes", stats.in_heap as u64),
        ("besom/memory/in-work-bufs:bytes", stats.in_work_bufs as u64),
        ("besom/memory/metadata:bytes", stats.in_metadata as u64),
        ("besom/memory/peak-footprint:bytes", stats.peak_footprint),
        ("besom/heap/live:bytes", stats.live_bytes),
        ("besom/heap/goal:bytes", stats.next_goal),
        ("besom/heap/allocs:bytes", stats.total_alloc_bytes),
        ("besom/heap/allocs:objects", stats.alloc_count),
        ("besom/heap/frees:bytes", stats.total_free_bytes),
        ("besom/heap/frees:objects", stats.free_count),
        ("besom/heap/tiny/allocs:objects", stats.tiny_allocs),
        ("besom/gc/cycles:cycles", stats.cycles),
        ("besom/gc/cycles/forced:cycles", stats.forced_cycles),
    ] {
        assert_eq!(number(&metrics, name), value, "{name}");
    }
    assert_eq!(histogram(&metrics, "besom/gc/pauses:nanoseconds").sum, stats.pause_total_ns);
    let swept = |who: &str| number(&metrics, &format!("besom/sweep/{who}:pages"));
    assert!(swept("due") > 0 && swept("finish") + swept("background") == swept("due"));
}

/// A stop that is late is seen to be late: in the delays, in the phase, in the pause. Beside the program it is the one in
/// which marking begins; others are not.
#[test]
fn a_late_thread_is_seen_in_the_delays() {
    for (mode, phase) in [(STOP_THE_WORLD, "stop"), (CONCURRENT, "start")] {
        let metrics = with_a_late_thread(mode);
        let phase = format!("besom/gc/phases/{phase}:nanoseconds");
        for name in ["besom/sched/stops/delay:nanoseconds", &phase, "besom/gc/pauses:nanoseconds"] {
            let h = histogram(&metrics, name);
            let late: u64 =
                h.counts.iter().zip(h.bounds).filter(|(_, b)| **b > 100_000_000).map(|(n, _)| n).sum();
            assert!(late >= 1 && h.sum > 100_000_000, "{name}: {h:?}");
            if mode == STOP_THE_WORLD || name == phase {
                let mut buckets = h.counts.iter().zip(h.bounds.windows(2));
                assert!(
                    h.count == 1 && buckets.any(|(n, b)| *n == 1 && (b[0]..b[1]).contains(&h.sum)),
                    "{h:?}"
                );
            } else {
                assert!(h.count >= 2, "{name}: {h:?}");
            }
        }
        let sum = |name: &str| histogram(&metrics, name).sum;
        assert!(sum("besom/gc/phases/mark:nanoseconds") < sum(&phase));
    }
}

fn with_a_late_thread(mode: i32) -> Metrics {
    let heap = Heap::new(&Options { mode, ..precise() }).expect("a heap");
    let late = Duration::from_millis(500);
    let asleep = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut m = heap.attach().expect("a mutator");
            asleep.store(true, Release);
            std::thread::sleep(late);
            m.safepoint();
        });
        let mut m = heap.attach().expect("a mutator");
        while !asleep.load(Acquire) {
            m.safepoint();
        }
        m.collect();
    });
    heap.metrics().expect("memory")
}

#[test]
fn threads_are_counted_by_what_they_do() {
    let heap = Heap::new(&Options { procs: 1, ..precise() }).expect("a heap");
    let seen = |what: &str| number(&heap.metrics().expect("memory"), &format!("besom/sched/{what}"));
    let until = |attached, running, waiting| {
        let begin = Instant::now();
        loop {
            let now = ["attached", "running", "waiting"].map(|what| seen(&format!("threads/{what}:threads")));
            if now == [attached, running, waiting] {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{now:?}");
        }
    };
    until(0, 0, 0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut m = heap.attach().expect("a mutator");
        until(1, 1, 0);
        assert_eq!((seen("procs:procs"), seen("procs/limit:procs")), (1, 1));
        scope.spawn(|| {
            let mut other = heap.attach().expect("a mutator");
            while !done.load(Acquire) {
                other.safepoint();
            }
        });
        until(2, 1, 1);
        m.blocked(|| until(2, 1, 0));
        heap.set_procs(0).expect("memory");
        until(2, 2, 0);
        assert_eq!((seen("procs:procs"), seen("procs/limit:procs")), (2, 0));
        done.store(true, Release);
        m.blocked(|| until(1, 0, 0));
    });
    until(0, 0, 0);
}

#[test]
fn batches_are_consistent_while_threads_work() {
    abort_on_panic("batches_are_consistent_while_threads_work".into());
    let heap = Heap::new(&Options { procs: 3, ..precise() }).expect("a heap");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..5 {
            let (heap, done) = (&heap, &done);
            scope.spawn(move || {
                let mut rng = Rng::new(thread);
                while !done.load(Relaxed) {
                    let mut m = heap.attach().expect("a mutator");
                    for _ in 0..20_000 {
                        let bytes = if rng.below(500) == 0 { 100_000 } else { rng.below(600) };
                        m.alloc(bytes, Kind::NoScan).expect("memory");
                    }
                    match rng.below(20) {
                        0 => m.collect(),
                        // SAFETY: the visit does nothing.
                        1 => unsafe { m.walk(|_, _, _| {}) },
                        2 => heap.set_procs(2 + rng.below(3) as u32).expect("memory"),
                        _ => m.blocked(|| ()),
                    }
                }
            });
        }
        let read = || {
            let mut last = heap.metrics().expect("memory");
            let (length, mut reads) = (Lasting::new(Duration::from_secs(3)), 0);
            let enough = |m: &Metrics| {
                histogram(m, "besom/sched/pauses/other:nanoseconds").count > 2 && reads_of(m) > 5
            };
            while length.goes_on(reads > 50 && enough(&last), (reads, &last)) {
                let now = heap.metrics().expect("memory");
                equations(&now);
                for ((metric, new), (_, old)) in now.iter().zip(last.iter()) {
                    let name = metric.name().to_str().expect("text");
                    if metric.kind() == MetricKind::Gauge {
                        continue;
                    }
                    match (new, old) {
                        (MetricValue::Histogram(new), MetricValue::Histogram(old)) => {
                            assert!(new.count >= old.count && new.sum >= old.sum, "{name}");
                            assert!(new.counts.iter().zip(old.counts).all(|(n, o)| n >= o), "{name}");
                        }
                        (MetricValue::Number(new), MetricValue::Number(old)) => assert!(new >= old, "{name}"),
                        _ => panic!("{name} changed its kind"),
                    }
                }
                if reads % 100 == 0 {
                    texts_agree(&now);
                }
                last = now;
                reads += 1;
            }
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        for reader in readers {
            reader.join().expect("a reader");
        }
        done.store(true, Relaxed);
    });
    let metrics = heap.metrics().expect("memory");
    equations(&metrics);
    assert_eq!(number(&metrics, "besom/sched/threads/attached:threads"), 0);
}

fn reads_of(metrics: &Metrics) -> u64 {
    number(metrics, "besom/gc/cycles:cycles")
}

/// The table in the book is made of the registry: `WRITE_DOCS=1 cargo test -p besom-tests --test metrics` writes it.
#[test]
fn the_books_table_is_the_registry() {
    const BEGIN: &str = "<!-- The registry's: WRITE_DOCS=1 cargo test -p besom-tests --test metrics -->\n";
    const END: &str = "<!-- End of the registry's. -->\n";
    let mut table =
        String::from("\n| Metric | Kind | Prometheus' name | What it says |\n|---|---|---|---|\n");
    for (metric, name) in METRICS.iter().zip(names()) {
        let kind = format!("{:?}", metric.kind()).to_lowercase();
        let total = if metric.kind() == MetricKind::Counter { "_total" } else { "" };
        let exported = prometheus_name(metric) + total;
        let description = metric.description().to_str().expect("text");
        table += &format!("| `{name}` | {kind} | `{exported}` | {description} |\n");
    }
    table.push('\n');
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let book = std::fs::read_to_string(path).expect("the chapter");
    let (before, rest) = book.split_once(BEGIN).expect("the begin of the table");
    let (found, after) = rest.split_once(END).expect("its end");
    if found != table && std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(path, [before, BEGIN, &table, END, after].concat()).expect("the chapter");
        return;
    }
    assert!(found == table, "docs/metrics.md is out of date; the table should be\n{table}");
}
