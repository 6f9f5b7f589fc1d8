//! A metric by its name.

use besom::Heap;
use besom::metrics::{HistogramValue, MetricValue, Metrics};

/// A number of a batch.
pub fn number(metrics: &Metrics, name: &str) -> u64 {
    match metrics.get(name) {
        Some(MetricValue::Number(number)) => number,
        other => panic!("{name} is {other:?}, expected a number"),
    }
}

/// A number of a heap, now.
pub fn number_now(heap: &Heap, name: &str) -> u64 {
    number(&heap.metrics().expect("memory"), name)
}

/// A histogram of a batch.
pub fn histogram<'a>(metrics: &'a Metrics, name: &str) -> HistogramValue<'a> {
    match metrics.get(name) {
        Some(MetricValue::Histogram(histogram)) => histogram,
        other => panic!("{name} is {other:?}, expected a histogram"),
    }
}
