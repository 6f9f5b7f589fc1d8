//! What a user of Besom would see, end to end: the tests' common parts.

pub mod c;
pub mod lasting;
pub mod list;
pub mod metric;
pub mod model;
pub mod mortals;
pub mod objects;
pub mod process;
pub mod rng;
pub mod roots;
pub mod specials;
pub mod timeline;
pub mod torture;
