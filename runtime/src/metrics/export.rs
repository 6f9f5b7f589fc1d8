//! A batch as text for others: Prometheus' format, version 0.0.4, and JSON.
//!
//! `prometheus-client` writes the one: it is Prometheus' own crate, keeps whole numbers whole, and streams, so that
//! nothing of the text's size is allocated. `serde_json` writes the other.

use super::{HistogramValue, Metric, MetricKind, MetricValue, Metrics};
use besom_stats::BOUNDS;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::fmt;
use std::io;

/// The durations that end buckets in Prometheus' text: one for each power of two nanoseconds from this exponent on.
/// Lower: more series for buckets that stay empty. Higher: short stops are not told apart.
const DURATIONS_FROM: u32 = 10;
/// And up to this one. Higher: the same. Lower: long stops are not told apart; 2^36 ns are 69 seconds.
const DURATIONS_TO: u32 = 36;

/// The most buckets with an end that a histogram has in Prometheus' text.
const BUCKETS_MOST: usize = 128;

/// The name of a metric in Prometheus' text, less the `_total` of counters: the words of the path, and the unit unless
/// one of those is it. Durations are in seconds there.
pub fn prometheus_name(metric: &Metric) -> String {
    let name = metric.name().to_string_lossy();
    let (path, unit) = name.split_once(':').unwrap_or((&name, ""));
    let unit = if is_duration(metric) { "seconds" } else { unit };
    let mut words: Vec<&str> = path.split(['/', '-']).collect();
    if !words.contains(&unit) {
        words.push(unit);
    }
    words.join("_")
}

fn is_duration(metric: &Metric) -> bool {
    metric.unit().to_bytes() == b"nanoseconds"
}

impl Metrics {
    /// Writes Prometheus' text format, version 0.0.4: durations in seconds, histograms of them with a bucket for each
    /// power of two.
    pub fn prometheus(&self, to: &mut impl fmt::Write) -> fmt::Result {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        prometheus_text::encode(to, &registry)
    }

    /// Writes JSON: an object with a member for each metric, by its name. Of histograms, buckets that are empty are
    /// left out.
    pub fn json(&self, to: impl io::Write) -> io::Result<()> {
        Ok(serde_json::to_writer(to, self)?)
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (metric, value) in self.iter() {
            let name = prometheus_name(metric);
            let help = metric.description().to_string_lossy();
            let kind = match metric.kind() {
                MetricKind::Gauge => MetricType::Gauge,
                MetricKind::Counter => MetricType::Counter,
                MetricKind::Histogram => MetricType::Histogram,
            };
            let mut to = encoder.encode_descriptor(&name, &help, None, kind)?;
            let seconds = is_duration(metric);
            match value {
                MetricValue::Number(number) => match (metric.kind(), seconds) {
                    (MetricKind::Counter, false) => to.encode_counter::<NoLabelSet, _, f64>(&number, None)?,
                    (MetricKind::Counter, true) => {
                        to.encode_counter::<NoLabelSet, _, f64>(&in_seconds(number), None)?
                    }
                    (_, false) => to.encode_gauge(&number)?,
                    (_, true) => to.encode_gauge(&in_seconds(number))?,
                },
                MetricValue::Histogram(histogram) => {
                    let mut buckets = [(0.0, 0); BUCKETS_MOST];
                    let n = ended_buckets(&histogram, seconds, &mut buckets);
                    let sum = if seconds { in_seconds(histogram.sum) } else { histogram.sum as f64 };
                    to.encode_histogram::<NoLabelSet>(sum, histogram.count, &buckets[..n], None)?;
                }
            }
        }
        Ok(())
    }
}

fn in_seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// The buckets that have an end in Prometheus' text, each with its largest value, that included, and its own count; how
/// many. What is beyond the last end is left to the bucket without one.
fn ended_buckets(
    histogram: &HistogramValue<'_>,
    seconds: bool,
    to: &mut [(f64, u64); BUCKETS_MOST],
) -> usize {
    let mut n = 0;
    let mut count = 0;
    for (own, end) in histogram.counts.iter().zip(&histogram.bounds[1..]) {
        count += own;
        let ends = *end != u64::MAX
            && (!seconds
                || (end.is_power_of_two() && (DURATIONS_FROM..=DURATIONS_TO).contains(&end.ilog2())));
        if ends {
            to[n] = (if seconds { in_seconds(end - 1) } else { (end - 1) as f64 }, count);
            n += 1;
            count = 0;
        }
    }
    n
}

const _: () = {
    assert!(super::SIZE_BUCKETS <= BUCKETS_MOST && (DURATIONS_TO - DURATIONS_FROM) < BUCKETS_MOST as u32);
    assert!(BOUNDS[BOUNDS.len() - 1] == u64::MAX);
};

impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (metric, value) in self.iter() {
            map.serialize_entry(&*metric.name().to_string_lossy(), &Member { metric, value })?;
        }
        map.end()
    }
}

/// A metric and its value, as JSON has them.
struct Member<'a> {
    metric: &'static Metric,
    value: MetricValue<'a>,
}

impl Serialize for Member<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Member { metric, value } = self;
        let mut map = serializer.serialize_map(None)?;
        let kind = match metric.kind() {
            MetricKind::Gauge => "gauge",
            MetricKind::Counter => "counter",
            MetricKind::Histogram => "histogram",
        };
        map.serialize_entry("kind", kind)?;
        map.serialize_entry("unit", &metric.unit().to_string_lossy())?;
        map.serialize_entry("description", &metric.description().to_string_lossy())?;
        match value {
            MetricValue::Number(number) => map.serialize_entry("value", number)?,
            MetricValue::Histogram(histogram) => {
                map.serialize_entry("count", &histogram.count)?;
                map.serialize_entry("sum", &histogram.sum)?;
                map.serialize_entry("buckets", &Buckets(histogram))?;
            }
        }
        map.end()
    }
}

/// The buckets that are not empty: where each begins, where it ends, its count.
struct Buckets<'a>(&'a HistogramValue<'a>);

impl Serialize for Buckets<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let HistogramValue { counts, bounds, .. } = self.0;
        let buckets = counts.iter().zip(bounds.windows(2));
        serializer.collect_seq(
            buckets.filter(|(count, _)| **count != 0).map(|(count, ends)| [ends[0], ends[1], *count]),
        )
    }
}
