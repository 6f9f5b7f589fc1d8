//! The metrics of a heap: one table of what there is, in the manner of Go's `runtime/metrics`, and how it is read.
//!
//! Everything that names metrics comes from [`METRICS`]: the registry of `besom.h`, both exporters, and the table in
//! the book. Reading stops nobody, and what is read costs nothing until then: it is what the heap counts anyway.

mod batch;
pub mod export;

use crate::heap::Heap;
use crate::scheduler::Census;
use crate::statistics::Stats;
use besom_alloc_core::size_class::{CLASS_SIZE, SIZE_CLASS_COUNT};
use besom_gc::{Cause, Timed, Totals};
use besom_stats::{BOUNDS, Histogram};
use std::ffi::CStr;

pub use batch::{HistogramValue, MetricValue, Metrics};

/// What the numbers of a metric are like; in C the same numbers as `besom_metric_kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum MetricKind {
    /// What is now.
    Gauge = 0,
    /// What was so far: it only grows.
    Counter = 1,
    /// Values so far, counted by size.
    Histogram = 2,
}

/// One metric: what it is called and what it says.
#[derive(Clone, Copy)]
pub struct Metric {
    name: &'static CStr,
    description: &'static CStr,
    kind: MetricKind,
    source: Source,
}

/// Where the numbers of a metric come from.
#[derive(Clone, Copy)]
enum Source {
    /// The consistent snapshot, and what is read with it.
    Stats(fn(&Stats) -> u64),
    /// The scheduler.
    Threads(fn(&Census) -> u64),
    /// The record of cycles and stops.
    Cycles(fn(&Totals) -> u64),
    /// Another part of the heap, read for itself before the others.
    Heap(fn(&Heap) -> u64),
    /// A histogram of that record.
    Durations(Timed),
    /// A histogram of the snapshot.
    Sizes(fn(&Stats) -> Sizes<'_>),
}

/// Objects by size: counts by size class, those of large ones, and the bytes of all.
#[derive(Clone, Copy)]
pub(crate) struct Sizes<'a> {
    small: &'a [u64],
    large: u64,
    bytes: u64,
}

/// Buckets of a histogram of object sizes: the size classes, and large objects.
const SIZE_BUCKETS: usize = SIZE_CLASS_COUNT;
/// Their bounds: what has slots of a size is larger than the size before.
static SIZE_BOUNDS: [u64; SIZE_BUCKETS + 1] = {
    let mut bounds = [u64::MAX; SIZE_BUCKETS + 1];
    let mut class = 0;
    while class < SIZE_CLASS_COUNT {
        bounds[class] = CLASS_SIZE[class] as u64 + 1;
        class += 1;
    }
    bounds
};

const fn metric(kind: MetricKind, name: &'static CStr, source: Source, description: &'static CStr) -> Metric {
    Metric { name, description, kind, source }
}

const fn gauge(name: &'static CStr, source: Source, description: &'static CStr) -> Metric {
    metric(MetricKind::Gauge, name, source, description)
}

const fn counter(name: &'static CStr, source: Source, description: &'static CStr) -> Metric {
    metric(MetricKind::Counter, name, source, description)
}

const fn durations(name: &'static CStr, timed: Timed, description: &'static CStr) -> Metric {
    metric(MetricKind::Histogram, name, Source::Durations(timed), description)
}

/// Every metric there is.
pub static METRICS: [Metric; TABLE.len()] = {
    let mut metrics = [TABLE[0]; TABLE.len()];
    let mut i = 0;
    while i < TABLE.len() {
        metrics[i] = TABLE[i];
        i += 1;
    }
    metrics
};

const TABLE: &[Metric] = &[
    // ---- Memory: where the heap's pages are.
    gauge(
        c"besom/memory/committed:bytes",
        Source::Stats(|s| unsigned(s.committed)),
        c"Heap pages that the system may back with memory, and the mark queues.",
    ),
    gauge(
        c"besom/memory/released:bytes",
        Source::Stats(|s| unsigned(s.released)),
        c"Heap pages without memory: never used yet, or given back to the system.",
    ),
    gauge(
        c"besom/memory/in-heap:bytes",
        Source::Stats(|s| unsigned(s.in_heap)),
        c"Pages in use for objects.",
    ),
    gauge(
        c"besom/memory/mapped:bytes",
        Source::Stats(|s| unsigned(s.mapped)),
        c"Memory that may be touched: committed and released together.",
    ),
    gauge(
        c"besom/memory/in-stacks:bytes",
        Source::Stats(|s| unsigned(s.in_stacks)),
        c"Pages in use for stacks.",
    ),
    gauge(
        c"besom/memory/in-work-bufs:bytes",
        Source::Stats(|s| unsigned(s.in_work_bufs)),
        c"Memory of the collector's mark queues.",
    ),
    gauge(
        c"besom/memory/metadata:bytes",
        Source::Stats(|s| unsigned(s.in_metadata)),
        c"The heap's tables beside the pages, and the caches of Ps.",
    ),
    gauge(
        c"besom/memory/footprint:bytes",
        Source::Heap(|heap| heap.spans.pages().footprint().0 as u64),
        c"Pages with memory behind them and the tables, as the limits count them.",
    ),
    gauge(
        c"besom/memory/peak-footprint:bytes",
        Source::Stats(|s| s.peak_footprint),
        c"The most that the footprint ever was.",
    ),
    gauge(
        c"besom/memory/limit/hard:bytes",
        Source::Heap(|heap| heap.spans.pages().limit().0 as u64),
        c"The hard limit, heap_limit; 0: none.",
    ),
    gauge(
        c"besom/memory/limit/soft:bytes",
        Source::Heap(|heap| heap.collector.pacer().memory_limit().0 as u64),
        c"The soft limit, memory_limit; 0: none.",
    ),
    // ---- Heap: objects.
    gauge(
        c"besom/heap/live:bytes",
        Source::Stats(|s| s.live_bytes),
        c"Slots that the last cycle marked.",
    ),
    gauge(
        c"besom/heap/goal:bytes",
        Source::Stats(|s| s.next_goal),
        c"Allocated bytes at which the next cycle is due; 2^64 - 1: none is.",
    ),
    gauge(
        c"besom/heap/objects:bytes",
        Source::Stats(|s| s.total_alloc_bytes - s.total_free_bytes),
        c"Objects allocated and not swept away: allocs less frees.",
    ),
    gauge(
        c"besom/heap/objects:objects",
        Source::Stats(|s| s.alloc_count - s.free_count),
        c"Objects allocated and not swept away; tiny ones count as the blocks that they share.",
    ),
    counter(
        c"besom/heap/allocs:bytes",
        Source::Stats(|s| s.total_alloc_bytes),
        c"Allocated, in whole slots; of large objects in whole pages.",
    ),
    counter(
        c"besom/heap/allocs:objects",
        Source::Stats(|s| s.alloc_count),
        c"Objects allocated, tiny ones included.",
    ),
    counter(c"besom/heap/frees:bytes", Source::Stats(|s| s.total_free_bytes), c"Freed, in whole slots; of large objects in whole pages."),
    counter(
        c"besom/heap/frees:objects",
        Source::Stats(|s| s.free_count),
        c"Objects freed; tiny ones at once, their blocks when swept.",
    ),
    counter(
        c"besom/heap/tiny/allocs:objects",
        Source::Stats(|s| s.tiny_allocs),
        c"Tiny objects that shared a block.",
    ),
    metric(
        MetricKind::Histogram,
        c"besom/heap/allocs-by-size:bytes",
        Source::Sizes(allocs),
        c"Objects allocated, by the size of their slots, each size class a bucket; a tiny block is one of 16 bytes.",
    ),
    metric(
        MetricKind::Histogram,
        c"besom/heap/frees-by-size:bytes",
        Source::Sizes(frees),
        c"Objects freed, by the size of their slots, each size class a bucket; a tiny block is one of 16 bytes.",
    ),
    // ---- Cycles.
    counter(c"besom/gc/cycles:cycles", Source::Cycles(Totals::all_cycles), c"Collections finished."),
    counter(
        c"besom/gc/cycles/pace:cycles",
        Source::Cycles(|t| t.cycles[Cause::Pace as usize]),
        c"Collections that began because the goal was met.",
    ),
    counter(
        c"besom/gc/cycles/forced:cycles",
        Source::Cycles(|t| t.cycles[Cause::Forced as usize]),
        c"Collections that besom_collect asked for.",
    ),
    counter(
        c"besom/gc/cycles/every:cycles",
        Source::Cycles(|t| t.cycles[Cause::Every as usize]),
        c"Collections of collect_every.",
    ),
    counter(
        c"besom/gc/cycles/limit:cycles",
        Source::Cycles(|t| t.cycles[Cause::Limit as usize]),
        c"Collections that began because memory was refused.",
    ),
    gauge(
        c"besom/gc/percent:percent",
        Source::Heap(|heap| u64::from(heap.collector.pacer().percent())),
        c"Growth before the next cycle, gc_percent; 0: collect on request and at a limit only.",
    ),
    gauge(
        c"besom/gc/scan/roots:bytes",
        Source::Cycles(|t| t.roots),
        c"Roots that the last cycle looked at: stacks, ranges, handles.",
    ),
    gauge(
        c"besom/gc/specials/weak:references",
        Source::Heap(|heap| heap.collector.specials().weaks().count() as u64),
        c"Weak references that are not freed.",
    ),
    gauge(
        c"besom/gc/specials/finalizers:finalizers",
        Source::Heap(|heap| heap.collector.specials().finalizers().count() as u64),
        c"Finalizers that are set, and those that are due.",
    ),
    gauge(
        c"besom/gc/specials/cleanups:cleanups",
        Source::Heap(|heap| heap.collector.specials().cleanups().count() as u64),
        c"Cleanups that were added and not cancelled, and those that are due.",
    ),
    gauge(
        c"besom/gc/specials/due:calls",
        Source::Heap(|heap| heap.collector.specials().due() as u64),
        c"Finalizers and cleanups that wait for besom_finalizers_run.",
    ),
    counter(
        c"besom/gc/specials/ephemeron-steps:steps",
        Source::Heap(|heap| heap.collector.ephemerons().steps()),
        c"Ephemerons that cycles looked at to find those that waited for an object, when they had marked it.",
    ),
    durations(
        c"besom/gc/pauses:nanoseconds",
        Timed::Pause,
        c"Stops of cycles, each from the request until the world went on. A cycle beside the program has two or more.",
    ),
    durations(
        c"besom/gc/phases/finish-sweep:nanoseconds",
        Timed::FinishSweep,
        c"Phase of a cycle, before its stop and beside the program: sweeping what the last one left, or waiting for who does.",
    ),
    durations(
        c"besom/gc/phases/stop:nanoseconds",
        Timed::Stop,
        c"Phase of a cycle: from the request of its (last) stop until the world stood still.",
    ),
    durations(
        c"besom/gc/phases/flush:nanoseconds",
        Timed::Flush,
        c"Phase of a cycle: the world stands still, the rest of the caches is given back, with verify the heap is checked.",
    ),
    durations(c"besom/gc/phases/roots:nanoseconds", Timed::Roots, c"Phase of a cycle: scanning roots, beside the program or in the stop."),
    durations(c"besom/gc/phases/mark:nanoseconds", Timed::Mark, c"Phase of a cycle: marking what roots lead to, beside the program or in the stop."),
    durations(
        c"besom/gc/phases/end:nanoseconds",
        Timed::End,
        c"Phase of a cycle: from the end of marking until the world went on, a second marking of verify included.",
    ),
    durations(
        c"besom/gc/phases/start:nanoseconds",
        Timed::Start,
        c"Phase of a cycle beside the program: its stops before the last one, in which marking begins. In a stop-the-world heap 0.",
    ),
    durations(
        c"besom/gc/phases/beside:nanoseconds",
        Timed::Beside,
        c"Of a cycle beside the program, the phases roots and mark, which are in no stop. In a stop-the-world heap 0.",
    ),
    durations(
        c"besom/gc/assists:nanoseconds",
        Timed::Assist,
        c"Times that a thread marked before it was given memory, its waits for something to mark included.",
    ),
    counter(
        c"besom/cpu/gc:nanoseconds",
        Source::Cycles(Totals::all_ns),
        c"Collecting threads' time: in marking, in stops, and for finishing a sweep; not that of others who sweep.",
    ),
    counter(
        c"besom/cpu/gc/mark:nanoseconds",
        Source::Cycles(|t| t.mark_ns),
        c"Processor time that threads spent marking, in sum.",
    ),
    counter(
        c"besom/cpu/gc/stop:nanoseconds",
        Source::Cycles(|t| t.stop_ns),
        c"Collecting threads' time in stops beside marking: the phases start, stop, flush and end.",
    ),
    counter(
        c"besom/cpu/gc/sweep:nanoseconds",
        Source::Cycles(|t| t.sweep_ns),
        c"Collecting threads' time for the phase finish-sweep.",
    ),
    counter(
        c"besom/cpu/scavenge:nanoseconds",
        Source::Heap(|heap| heap.scavenger.cpu().as_nanos() as u64),
        c"Processor time of the thread that gives free memory back in the background.",
    ),
    counter(
        c"besom/scavenge/background:bytes",
        Source::Heap(|heap| heap.scavenger.released().0 as u64),
        c"Memory that this thread gave back to the system.",
    ),
    // ---- Sweeping. What is due is read after what was swept of it: it is never less.
    counter(
        c"besom/sweep/background:pages",
        Source::Heap(|heap| heap.collector.measures().pages_in_background()),
        c"Pages that the background sweeper swept.",
    ),
    counter(
        c"besom/sweep/finish:pages",
        Source::Heap(|heap| heap.collector.measures().pages_finished()),
        c"Pages swept because all had to be: by besom_collect, before a cycle, when memory is short.",
    ),
    counter(
        c"besom/sweep/due:pages",
        Source::Heap(|heap| heap.collector.measures().pages_due()),
        c"Pages of 8 KiB that cycles left to be swept: in the background, to finish, or by threads that allocate.",
    ),
    // ---- Threads and stops.
    gauge(c"besom/sched/procs:procs", Source::Threads(|c| c.ps as u64), c"Ps that there are."),
    gauge(
        c"besom/sched/procs/limit:procs",
        Source::Threads(|c| c.limit as u64),
        c"The most Ps, procs; 0: as many as threads are attached.",
    ),
    gauge(c"besom/sched/threads/attached:threads", Source::Threads(|c| c.attached as u64), c"Attached threads."),
    gauge(
        c"besom/sched/threads/running:threads",
        Source::Threads(|c| c.running as u64),
        c"Attached threads that hold a P and run.",
    ),
    gauge(
        c"besom/sched/threads/waiting:threads",
        Source::Threads(|c| c.waiting as u64),
        c"Attached threads that wait for a P.",
    ),
    durations(
        c"besom/sched/stops/delay:nanoseconds",
        Timed::Delay,
        c"From the request of any stop until the world stood still: how late threads are at their safepoints.",
    ),
    durations(
        c"besom/sched/pauses/other:nanoseconds",
        Timed::OtherPause,
        c"Stops that were no cycle's (a walk, a check, exact statistics), from the request until the world went on.",
    ),
];

/// A balance of bytes, which in a snapshot is not negative.
fn unsigned(bytes: i64) -> u64 {
    bytes.max(0) as u64
}

fn allocs(stats: &Stats) -> Sizes<'_> {
    let bytes = stats.total_alloc_bytes;
    Sizes { small: &stats.small_alloc_count, large: stats.large_alloc_count, bytes }
}

fn frees(stats: &Stats) -> Sizes<'_> {
    let bytes = stats.total_free_bytes;
    Sizes { small: &stats.small_free_count, large: stats.large_free_count, bytes }
}

impl Metric {
    /// Its name: a path, a colon, the unit.
    pub const fn name(&self) -> &'static CStr {
        self.name
    }

    /// Its unit, which ends the name.
    pub const fn unit(&self) -> &'static CStr {
        let mut at = self.name;
        // Each step leaves the nul where it is.
        while let [byte, rest @ ..] = at.to_bytes_with_nul() {
            at = match CStr::from_bytes_with_nul(rest) {
                Ok(rest) => rest,
                Err(_) => break,
            };
            if *byte == b':' {
                break;
            }
        }
        at
    }

    /// What it says, in one sentence.
    pub const fn description(&self) -> &'static CStr {
        self.description
    }

    /// Its kind.
    pub const fn kind(&self) -> MetricKind {
        self.kind
    }

    /// Its buckets, 0 unless it is a histogram.
    pub const fn buckets(&self) -> usize {
        self.bounds().len().saturating_sub(1)
    }

    /// Where its buckets begin, and at last where the last one ends; empty unless it is a histogram.
    pub const fn bounds(&self) -> &'static [u64] {
        match self.source {
            Source::Durations(_) => &BOUNDS,
            Source::Sizes(_) => &SIZE_BOUNDS,
            _ => &[],
        }
    }
}

/// What one metric says now.
#[derive(Clone, Copy)]
pub(crate) enum Reading<'a> {
    /// A gauge or a counter.
    Number(u64),
    /// A histogram of durations.
    Durations(&'a Histogram),
    /// A histogram of sizes.
    Sizes(Sizes<'a>),
}

impl Reading<'_> {
    /// The value, or how many values a histogram counts.
    pub(crate) fn number(&self) -> u64 {
        match self {
            Reading::Number(number) => *number,
            Reading::Durations(histogram) => histogram.count(),
            Reading::Sizes(sizes) => sizes.small.iter().sum::<u64>() + sizes.large,
        }
    }

    /// The sum of a histogram's values.
    pub(crate) fn sum(&self) -> u64 {
        match self {
            Reading::Number(_) => 0,
            Reading::Durations(histogram) => histogram.sum(),
            Reading::Sizes(sizes) => sizes.bytes,
        }
    }

    /// Tells the count of each bucket of a histogram, in their order.
    pub(crate) fn counts(&self, mut tell: impl FnMut(u64)) {
        match self {
            Reading::Number(_) => {}
            Reading::Durations(histogram) => histogram.counts().for_each(tell),
            Reading::Sizes(sizes) => {
                // Class 0, which small objects do not have, makes room for that of the large ones.
                for class in 1..SIZE_CLASS_COUNT {
                    tell(sizes.small.get(class).copied().unwrap_or(0));
                }
                tell(sizes.large);
            }
        }
    }
}

impl Heap {
    /// Reads all metrics in one batch, and tells each with its place in [`METRICS`]. What lies in the ring is of one
    /// moment, what is taken down of cycles and stops of another, and threads of a third; the rest is read singly.
    ///
    /// `tell` runs under a lock that collecting threads wait for after their stops: it only copies.
    pub(crate) fn read_metrics(&self, mut tell: impl FnMut(usize, Reading<'_>)) {
        // First, and in the table's order: the peak, which is the snapshot's, is never below the footprint.
        let singly = METRICS.each_ref().map(|metric| match metric.source {
            Source::Heap(of) => of(self),
            _ => 0,
        });
        let stats = self.stats();
        let census = self.scheduler.census();
        self.collector.measures().read(|record| {
            for (i, metric) in METRICS.iter().enumerate() {
                let reading = match metric.source {
                    Source::Stats(of) => Reading::Number(of(&stats)),
                    Source::Threads(of) => Reading::Number(of(&census)),
                    Source::Cycles(of) => Reading::Number(of(record.totals)),
                    Source::Heap(_) => Reading::Number(singly[i]),
                    Source::Durations(timed) => Reading::Durations(record.durations(timed)),
                    Source::Sizes(of) => Reading::Sizes(of(&stats)),
                };
                tell(i, reading);
            }
        });
    }
}
