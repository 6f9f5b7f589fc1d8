//! Blocks of grey objects that are nobody's: shared by workers that have some when others want some, left by those who mark for a
//! while, taken by whoever looks for work. A list with a lock, not a deque for each worker: blocks move only when somebody has
//! nothing to do, some 500 objects at a time, and nothing of it is allocated, also where a thread comes to it for the first time.
//! (Go's work buffers are such lists, too.)

use super::block::Block;
use besom_stats::sync::{AtomicUsize, Mutex, Ordering::*, lock};
use std::ptr::null_mut;

/// The top of a list of blocks.
struct Top(*mut Block);

// SAFETY: the blocks below are the pile's, and are reached under its lock only.
unsafe impl Send for Top {}

/// The pile of one heap.
///
/// - `count` is the number of blocks, and read without the lock by those who only wonder whether there are any
pub struct Pile {
    top: Mutex<Top>,
    count: AtomicUsize,
}

impl Default for Pile {
    fn default() -> Pile {
        Pile::new()
    }
}

impl Pile {
    /// No blocks.
    pub fn new() -> Pile {
        Pile { top: Mutex::new(Top(null_mut())), count: AtomicUsize::new(0) }
    }

    /// Whether it is empty. Who leaves [`super::termination::Termination`] after a push has it seen by who sees it gone.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count.load(SeqCst) == 0
    }

    /// Adds a block, whose `filled` is set.
    ///
    /// # Safety
    /// The block must be the caller's.
    pub unsafe fn push(&self, block: *mut Block) {
        let mut top = lock(&self.top);
        // SAFETY: the caller's block.
        unsafe { (*block).next = top.0 };
        top.0 = block;
        self.count.fetch_add(1, SeqCst);
    }

    /// Takes a block, which is the caller's then.
    pub fn take(&self) -> Option<*mut Block> {
        if self.is_empty() {
            return None;
        }
        let mut top = lock(&self.top);
        let block = top.0;
        if block.is_null() {
            return None;
        }
        // SAFETY: a block of the pile's.
        top.0 = unsafe { (*block).next };
        self.count.fetch_sub(1, SeqCst);
        Some(block)
    }
}
