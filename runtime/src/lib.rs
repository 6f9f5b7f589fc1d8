//! Besom: a garbage-collected runtime library for interpreters and virtual machines.
//!
//! A [`Heap`] is a value; threads attach to it as [`Mutator`]s and allocate. C programs use the same through
//! `besom.h`; see the book in `docs`.

mod alloc;
pub mod background;
mod barrier;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
pub mod cells;
mod collect;
mod driver;
mod face;
pub mod ffi;
mod fork;
pub mod handles;
mod heap;
mod mcache;
mod mem_stats;
pub mod metrics;
mod mutator;
pub mod options;
pub mod overwritten;
pub mod p_set;
mod quarantine;
pub mod requests;
mod roots;
pub mod scan_turn;
pub mod scavenger;
pub mod scheduler;
mod specials;
mod statistics;
mod status;
mod sweeper;
#[cfg(feature = "c-library")]
mod system_memory;
mod timeline;
mod walk;

pub use besom_alloc_core::span_class::Kind;
pub use besom_gc::{Encoding, TraceFn, Tracer};
pub use besom_stats::{MemStats, SizeCount};
pub use face::{HandleRef, Mutator};
pub use heap::Heap;
pub use metrics::{METRICS, Metric, MetricKind, MetricValue, Metrics};
pub use options::Options;
pub use statistics::Stats;
pub use status::{Error, Result};
