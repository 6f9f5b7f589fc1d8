//! Statistics that agree with each other at every moment, without stopping anybody.

mod consistent;
mod delta;
mod fatal;
mod histogram;
mod mem_stats;
pub mod memory_checker;
mod pause_log;
pub mod race_detector;
pub mod sync;
mod system;
mod valgrind;

pub use consistent::{ConsistentHeapStats, StatsGuard, StatsSeq, Writer};
pub use delta::{HeapStatsDelta, SIZE_CLASSES};
pub use fatal::{fatal, print_line};
pub use histogram::{BOUNDS, BUCKETS, Histogram, SUB_BUCKETS};
pub use mem_stats::{Beside, Difference, MemStats, SizeCount};
pub use pause_log::{PAUSES, Pause, PauseLog};
pub use system::{SysMemStat, SystemBytes, SystemStats};
