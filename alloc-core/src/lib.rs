//! The allocator below the caches: size classes, address space, pages, spans, central lists.

pub mod address_space;
pub mod central;
mod check;
pub mod heap_tables;
mod late_runs;
pub mod os;
mod page_alloc;
mod page_bits;
pub mod page_cache;
pub mod page_heap;
pub mod runs;
mod scavenge_index;
pub mod size_class;
pub mod span;
pub mod span_class;
pub mod span_heap;
pub mod span_set;
pub mod stopped;
pub mod sweep;
pub mod sweep_protocol;
pub mod units;
