//! Blocks of the mark queue, and the pool they come from.
//!
//! A block is a page of offsets. The pool is one mapping, reserved with the heap and committed as it is used,
//! so that nothing is allocated in a stopped world; when it is used up, the marker falls back to a rescan.

use besom_alloc_core::os::{Mapping, OutOfMemory};
use besom_alloc_core::units::Bytes;
use besom_stats::sync::{Mutex, lock};

/// Entries of a block. Higher: less sharing. Lower: more trips to the pool and the deque.
pub const BLOCK_ENTRIES: usize = 510;
const BLOCK_BYTES: usize = size_of::<Block>();
/// The queue's share of the reservation: a list of `n` 16-byte objects never needs more than a few entries, a
/// pointer array of fresh objects one a word. Higher: address space. Lower: rescans.
const RESERVE_SHARE: usize = 64;
/// What the pool keeps between cycles.
const KEEP: usize = 256 << 10;

/// A block: part of one worker's stack, in the deque, or free.
#[repr(C)]
pub struct Block {
    /// The block below in a stack, or the next free one.
    pub next: *mut Block,
    /// Entries in use.
    pub len: usize,
    /// Offsets of objects.
    pub entries: [usize; BLOCK_ENTRIES],
}

const _: () = assert!(BLOCK_BYTES == 4096);

struct Free {
    head: *mut Block,
    /// Blocks from here on were never used since the last trim.
    fresh: usize,
}

/// The pool of one heap.
pub struct BlockPool {
    mapping: Mapping,
    free: Mutex<Free>,
}

// SAFETY: the raw pointers lead into the pool's own mapping and are guarded by its lock.
unsafe impl Sync for BlockPool {}
// SAFETY: as above.
unsafe impl Send for BlockPool {}

impl BlockPool {
    /// A pool for a heap of this reservation.
    pub fn new(reserve: Bytes) -> Result<BlockPool, OutOfMemory> {
        let bytes = (reserve.0 / RESERVE_SHARE).clamp(1 << 20, 16 << 30);
        let mapping = Mapping::lazy_zeroed(bytes)?;
        Ok(BlockPool { mapping, free: Mutex::new(Free { head: std::ptr::null_mut(), fresh: 0 }) })
    }

    /// An empty block; null when the pool is used up.
    pub fn take(&self) -> *mut Block {
        let mut free = lock(&self.free);
        let block = free.head;
        if !block.is_null() {
            // SAFETY: a free block is the pool's.
            free.head = unsafe { (*block).next };
        } else if (free.fresh + 1) * BLOCK_BYTES <= self.mapping.len() {
            let fresh = free.fresh;
            free.fresh += 1;
            // SAFETY: within the mapping, and no block yet.
            let block = unsafe { self.mapping.ptr().cast::<Block>().add(fresh) };
            return empty(block);
        } else {
            return block;
        }
        empty(block)
    }

    /// # Safety
    /// `block` must come from [`Self::take`], and belong to the caller.
    pub unsafe fn give(&self, block: *mut Block) {
        let mut free = lock(&self.free);
        // SAFETY: the caller's block.
        unsafe { (*block).next = free.head };
        free.head = block;
    }

    /// Gives what a large cycle used back to the system. All blocks are free.
    pub fn trim(&self) {
        let mut free = lock(&self.free);
        let used = free.fresh * BLOCK_BYTES;
        if used > KEEP {
            self.mapping.discard(KEEP, used - KEEP);
            *free = Free { head: std::ptr::null_mut(), fresh: 0 };
        }
    }

    /// Bytes that blocks occupy.
    pub fn committed(&self) -> Bytes {
        Bytes(lock(&self.free).fresh * BLOCK_BYTES)
    }
}

fn empty(block: *mut Block) -> *mut Block {
    // SAFETY: the caller was just given the block.
    unsafe {
        (*block).next = std::ptr::null_mut();
        (*block).len = 0;
    }
    block
}
