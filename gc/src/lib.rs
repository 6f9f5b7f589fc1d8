//! The collector: roots, marking, sweeping in step with allocation, pacing, verification.
//!
//! It knows spans and statistics, and it knows threads only through [`World`].

pub mod cycle;
pub mod layout;
pub mod mark;
pub mod measures;
pub mod pacer;
pub mod phase;
pub mod scan;
pub mod specials;
pub mod timeline;
pub mod trace_log;
pub mod verify;
pub mod world;

pub use cycle::{Cause, Collector, Config};
pub use layout::{LayoutError, Layouts};
pub use measures::{Measures, Timed, Totals};
pub use phase::Phase;
pub use scan::{Encoding, Shapes, TraceFn, Tracer, Visitor};
pub use specials::Specials;
pub use world::World;
