//! Blocks of the mark queue, and the pool they come from.
//!
//! A block is a page of entries, aligned to its size, so that a cursor alone tells its block, whether it is empty
//! and whether it is full. The pool is one mapping, reserved with the heap and committed as it is used,
//! so that nothing is allocated in a stopped world; when it is used up, the marker falls back to a rescan.

use besom_alloc_core::os::{Mapping, OutOfMemory};
use besom_alloc_core::units::Bytes;
use besom_stats::sync::raw::{AtomicU32, Ordering::*};
use besom_stats::sync::{Held, Mutex, hold, lock};

/// Bytes of a block. Higher: less sharing. Lower: more trips to the pool and the pile.
pub const BLOCK_BYTES: usize = 4096;
const HEADER: usize = 16;
/// The queue's share of the reservation: a list of `n` 16-byte objects never needs more than a few entries, a
/// pointer array of fresh objects one a word. Higher: address space. Lower: rescans.
const RESERVE_SHARE: usize = 64;
/// What the pool keeps between cycles.
const KEEP: usize = 256 << 10;
/// Blocks that guests find when all others are grey. Higher: 4 KiB each. Lower: guests wait for each other, never for those
/// who mark, which may wait for them.
const GUESTS: usize = 16;

/// A block: part of one worker's stack, in the pile, or free.
#[repr(C, align(4096))]
pub struct Block {
    /// The block below in a stack, or the next free one.
    pub next: *mut Block,
    /// Bytes of entries, of a block in the pile.
    pub filled: usize,
    entries: [u64; (BLOCK_BYTES - HEADER) / 8],
}

const _: () = assert!(size_of::<Block>() == BLOCK_BYTES && std::mem::offset_of!(Block, entries) == HEADER);

/// Where the next entry of a stack's top block goes.
///
/// - never null: a worker has at least one block
/// - `is_empty` and `is_full` look at the low bits only
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub *mut u64);

impl Cursor {
    /// At the first entry of a block.
    pub fn bottom(block: *mut Block) -> Cursor {
        Cursor(block.cast::<u64>().wrapping_byte_add(HEADER))
    }

    /// The block; of a full one, too.
    pub fn block(self) -> *mut Block {
        self.0.wrapping_sub(1).map_addr(|a| a & !(BLOCK_BYTES - 1)).cast()
    }

    /// No entry is below, in this block.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        self.0.addr() % BLOCK_BYTES == HEADER
    }

    /// No room is left in this block.
    #[inline(always)]
    pub fn is_full(self) -> bool {
        self.0.addr().is_multiple_of(BLOCK_BYTES)
    }

    /// Bytes of entries below.
    pub fn filled(self) -> usize {
        self.0.addr() - Cursor::bottom(self.block()).0.addr()
    }
}

struct Free {
    head: *mut Block,
    /// Blocks from here on were never used since the last trim.
    fresh: usize,
    /// Blocks from here on hold no memory of the system; `fresh <= touched`.
    touched: usize,
}

/// The pool of one heap. The first blocks of the mapping are the workers' own, one each, then those kept for guests.
pub struct BlockPool {
    mapping: Mapping,
    workers: usize,
    /// Blocks that are not `free`'s: the workers' and the guests'.
    own: usize,
    free: Mutex<Free>,
    /// Bit n is set if the guests' block n is free.
    guests: AtomicU32,
}

// SAFETY: the raw pointers lead into the pool's own mapping and are guarded by its lock.
unsafe impl Sync for BlockPool {}
// SAFETY: as above.
unsafe impl Send for BlockPool {}

impl BlockPool {
    /// A pool for a heap of this reservation and this many workers.
    pub fn new(reserve: Bytes, workers: usize) -> Result<BlockPool, OutOfMemory> {
        let blocks = workers + GUESTS;
        let own = blocks * BLOCK_BYTES;
        let bytes = (reserve.0 / RESERVE_SHARE).clamp(1 << 20, 16 << 30) + own;
        let mapping = Mapping::lazy_zeroed_down_to(bytes, (256 << 10) + own)?;
        Ok(BlockPool {
            mapping,
            workers,
            own: blocks,
            free: Mutex::new(Free { head: std::ptr::null_mut(), fresh: blocks, touched: blocks }),
            guests: AtomicU32::new((1 << GUESTS) - 1),
        })
    }

    fn block(&self, index: usize) -> *mut Block {
        self.mapping.ptr().cast::<Block>().wrapping_add(index)
    }

    /// The block that a worker starts with, and ends with.
    pub fn own(&self, worker: usize) -> *mut Block {
        debug_assert!(worker < self.workers);
        let block = self.block(worker);
        // SAFETY: within the mapping, and this worker's.
        unsafe { (*block).next = std::ptr::null_mut() };
        block
    }

    /// A block; null when the pool is used up.
    pub fn take(&self) -> *mut Block {
        let mut free = lock(&self.free);
        let block = free.head;
        if !block.is_null() {
            // SAFETY: a free block is the pool's.
            free.head = unsafe { (*block).next };
            return block;
        }
        if (free.fresh + 1) * BLOCK_BYTES > self.mapping.len() {
            return block;
        }
        free.fresh += 1;
        free.touched = free.touched.max(free.fresh);
        self.block(free.fresh - 1)
    }

    /// A block for a guest: any, or one of those that are kept for guests; null while they all are out.
    pub fn take_for_guest(&self) -> *mut Block {
        let block = self.take();
        if !block.is_null() {
            return block;
        }
        let lowest = |free: u32| (free != 0).then(|| free & (free - 1));
        match self.guests.fetch_update(Acquire, Relaxed, lowest) {
            Ok(free) => self.block(self.workers + free.trailing_zeros() as usize),
            Err(_) => block,
        }
    }

    /// # Safety
    /// `block` must come from this pool, and belong to the caller.
    pub unsafe fn give(&self, block: *mut Block) {
        if block < self.block(self.own) {
            let index = (block.addr() - self.mapping.ptr().addr()) / BLOCK_BYTES;
            if index >= self.workers {
                self.guests.fetch_or(1 << (index - self.workers), Release);
            }
            return;
        }
        let mut free = lock(&self.free);
        // SAFETY: the caller's block.
        unsafe { (*block).next = free.head };
        free.head = block;
    }

    /// Gives what a large cycle used back to the system. All blocks are free.
    pub fn trim(&self) {
        let mut free = lock(&self.free);
        let used = free.touched * BLOCK_BYTES;
        // The workers' and guests' own blocks stay.
        let keep = KEEP.max(self.own * BLOCK_BYTES);
        if used > keep {
            self.mapping.discard(keep, used - keep);
            *free = Free { head: std::ptr::null_mut(), fresh: self.own, touched: keep / BLOCK_BYTES };
        }
    }

    /// Keeps everybody outside.
    pub fn hold(&self) -> Held<'_> {
        hold(&self.free)
    }

    /// Bytes of the workers' own blocks, and the guests'.
    pub fn own_bytes(&self) -> Bytes {
        Bytes(self.own * BLOCK_BYTES)
    }

    /// Bytes that blocks hold of the system, without the workers' own.
    pub fn committed(&self) -> Bytes {
        Bytes((lock(&self.free).touched - self.own) * BLOCK_BYTES)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn guests_find_a_block_when_all_are_out() {
        let pool = BlockPool::new(Bytes(0), 2).expect("a pool");
        let all: Vec<_> = std::iter::from_fn(|| Some(pool.take()).filter(|b| !b.is_null())).collect();
        assert!(all.len() > 200 && pool.take().is_null());
        let mut kept: Vec<_> =
            std::iter::from_fn(|| Some(pool.take_for_guest()).filter(|b| !b.is_null())).collect();
        assert_eq!(kept.len(), GUESTS);
        kept.sort_unstable();
        kept.dedup();
        assert_eq!(kept.len(), GUESTS);
        // SAFETY: blocks of the pool's, each given once.
        unsafe {
            pool.give(kept[3]);
            assert_eq!(pool.take_for_guest(), kept[3]);
            assert!(pool.take_for_guest().is_null());
            pool.give(all[5]);
            assert_eq!(pool.take_for_guest(), all[5]);
        }
    }

    #[test]
    fn what_a_trim_leaves_is_still_counted() {
        for workers in [1, 2, 256] {
            let pool = BlockPool::new(Bytes(1 << 30), workers).expect("a pool");
            assert_eq!(pool.committed(), Bytes(0));
            let stays = KEEP.saturating_sub((workers + GUESTS) * BLOCK_BYTES);
            for round in 0..3 {
                let taken: Vec<_> = (0..200).map(|_| pool.take()).collect();
                assert!(taken.iter().all(|block| !block.is_null()));
                assert_eq!(pool.committed(), Bytes(200 * BLOCK_BYTES), "{workers} workers, round {round}");
                // SAFETY: blocks of the pool's, each given once.
                taken.into_iter().for_each(|block| unsafe { pool.give(block) });
                pool.trim();
                assert_eq!(pool.committed(), Bytes(stays), "{workers} workers, round {round}");
            }
        }
    }
}
