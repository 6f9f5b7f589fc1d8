//! Allocation cells: what the inline functions of `besom.h` work on. Their layout is part of the C interface.

use besom_alloc_core::size_class::{CLASS_SIZE, SIZE_CLASS_COUNT};
use besom_alloc_core::span_class::{EPHEMERON, FIRST_LAYOUT, SPAN_CLASS_COUNT};

/// Cells of a P, indexed by span class. Cell 0 bumps through tiny blocks.
pub const CELL_COUNT: usize = SPAN_CLASS_COUNT;
/// The slot size of a cell that serves nothing: adding it to any cursor passes any limit.
pub const NO_SLOT: usize = 1 << 48;
/// The cell of the tiny blocks.
pub const TINY_CELL: usize = 0;
/// Tiny objects are smaller than this, the block that they share. None lies in two.
pub const TINY_BLOCK: usize = 16;

/// `[cursor, limit)` is zero and free, in whole slots.
///
/// - `cursor <= limit`, `(limit - cursor) % slot == 0`, `slot > 0`
/// - of the tiny cell, `limit` is a multiple of [`TINY_BLOCK`], `cursor` need not be, and `slot` counts the objects that
///   were handed out since the last flush
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Cell {
    /// The next slot.
    pub cursor: usize,
    /// The end of the last one.
    pub limit: usize,
    /// Bytes of a slot.
    pub slot: usize,
}

/// The cells of a mutator without a P: the inline functions find them empty, and the slow path names the
/// mistake. Never written, since nothing fits.
pub static NO_CELLS: [Cell; CELL_COUNT] = [Cell { cursor: 0, limit: 0, slot: NO_SLOT }; CELL_COUNT];

/// An empty cell of this index, on a P.
pub fn empty_cell(index: usize) -> Cell {
    let slot = if index == TINY_CELL {
        0
    } else if index < EPHEMERON.index() {
        match CLASS_SIZE[index % SIZE_CLASS_COUNT] {
            0 => NO_SLOT,
            bytes => bytes as usize,
        }
    } else {
        // Set when the class's first span is cached.
        NO_SLOT
    };
    Cell { cursor: 0, limit: 0, slot }
}

// What `besom.h` says of the same.
const _: () = assert!(size_of::<Cell>() == 24);
const _: () = assert!(std::mem::offset_of!(Cell, cursor) == 0 && std::mem::offset_of!(Cell, limit) == 8);
const _: () = assert!(SIZE_CLASS_COUNT == 67 && FIRST_LAYOUT == 336 && CELL_COUNT == 1360);
