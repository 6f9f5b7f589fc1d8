//! The allocator below the caches: size classes, address space, pages, spans, central lists.

pub mod os;
pub mod size_class;
pub mod units;
