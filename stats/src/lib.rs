//! Statistics that agree with each other at every moment, without stopping anybody.

pub mod sync;
mod fatal;

pub use fatal::fatal;
