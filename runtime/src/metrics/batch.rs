//! A batch: what all metrics of a heap said at one time, kept.

use super::{METRICS, Metric, MetricKind};
use crate::heap::Heap;
use crate::status::{Error, Result};
use std::sync::Arc;

/// What all metrics of a heap said at one time. A clone shares it.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Batch>);

/// The value of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricValue<'a> {
    /// Of a gauge or a counter.
    Number(u64),
    /// Of a histogram.
    Histogram(HistogramValue<'a>),
}

/// The value of a histogram: `count == sum of counts`, and bucket i counts the values in `bounds[i]..bounds[i + 1]`, the
/// last one `u64::MAX` too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistogramValue<'a> {
    /// How many values were recorded.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// How many of them each bucket has.
    pub counts: &'a [u64],
    /// The buckets' bounds, one more than there are buckets.
    pub bounds: &'static [u64],
}

/// The numbers, in the order of [`METRICS`]; all histograms' buckets one behind the other.
#[derive(Debug)]
struct Batch {
    numbers: [(u64, u64); METRICS.len()],
    counts: Vec<u64>,
}

/// Where the buckets of each histogram begin among all.
const STARTS: [usize; METRICS.len() + 1] = {
    let mut starts = [0; METRICS.len() + 1];
    let mut i = 0;
    while i < METRICS.len() {
        starts[i + 1] = starts[i] + METRICS[i].buckets();
        i += 1;
    }
    starts
};

impl Heap {
    /// Reads all metrics, without a stop, from any thread. `NoMemory`: there is none to keep them in.
    pub fn metrics(&self) -> Result<Metrics> {
        let mut counts = Vec::new();
        counts.try_reserve_exact(STARTS[METRICS.len()]).map_err(|_| Error::NoMemory)?;
        let mut numbers = [(0, 0); METRICS.len()];
        self.read_metrics(|i, reading| {
            numbers[i] = (reading.number(), reading.sum());
            reading.counts(|count| counts.push(count));
        });
        Ok(Metrics(Arc::new(Batch { numbers, counts })))
    }
}

impl Metrics {
    /// Every metric with its value, in the registry's order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Metric, MetricValue<'_>)> {
        METRICS.iter().enumerate().map(|(i, metric)| {
            let (number, sum) = self.0.numbers[i];
            let value = if metric.kind() == MetricKind::Histogram {
                let counts = &self.0.counts[STARTS[i]..STARTS[i + 1]];
                MetricValue::Histogram(HistogramValue { count: number, sum, counts, bounds: metric.bounds() })
            } else {
                MetricValue::Number(number)
            };
            (metric, value)
        })
    }

    /// The value of the metric of that name, if there is one.
    pub fn get(&self, name: &str) -> Option<MetricValue<'_>> {
        self.iter().find(|(metric, _)| metric.name().to_bytes() == name.as_bytes()).map(|(_, value)| value)
    }
}
