//! The allocator below the caches: size classes, address space, pages, spans, central lists.

pub mod units;
