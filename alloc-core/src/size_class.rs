//! Size classes: the slot sizes in which small objects are served, and the spans that hold them.
//!
//! The table follows from four rules, worked out at compile time (they are those of the Go runtime, without its
//! class of 8 bytes):
//!
//! 1. Sizes step by 8 bytes from 16, by 16 from 32, by `size / 8` from each power of two from 128 on, and by
//!    256 from 2048 on.
//! 2. A span is the least number of pages whose tail waste is at most 1/8 of it.
//! 3. Of sizes that get equally many slots out of equally many pages only the largest is kept.
//! 4. A size grows as far as its count of slots allows, down to a multiple of 128.
//!
//! | class | size | pages | slots | | class | size | pages | slots | | class | size | pages | slots |
//! |--:|--:|--:|--:|-|--:|--:|--:|--:|-|--:|--:|--:|--:|
//! | 1 | 16 | 1 | 512 | | 23 | 448 | 1 | 18 | | 45 | 5376 | 2 | 3 |
//! | 2 | 24 | 1 | 341 | | 24 | 480 | 1 | 17 | | 46 | 6144 | 3 | 4 |
//! | 3 | 32 | 1 | 256 | | 25 | 512 | 1 | 16 | | 47 | 6528 | 4 | 5 |
//! | 4 | 48 | 1 | 170 | | 26 | 576 | 1 | 14 | | 48 | 6784 | 5 | 6 |
//! | 5 | 64 | 1 | 128 | | 27 | 640 | 1 | 12 | | 49 | 6912 | 6 | 7 |
//! | 6 | 80 | 1 | 102 | | 28 | 704 | 1 | 11 | | 50 | 8192 | 1 | 1 |
//! | 7 | 96 | 1 | 85 | | 29 | 768 | 1 | 10 | | 51 | 9472 | 7 | 6 |
//! | 8 | 112 | 1 | 73 | | 30 | 896 | 1 | 9 | | 52 | 9728 | 6 | 5 |
//! | 9 | 128 | 1 | 64 | | 31 | 1024 | 1 | 8 | | 53 | 10240 | 5 | 4 |
//! | 10 | 144 | 1 | 56 | | 32 | 1152 | 1 | 7 | | 54 | 10880 | 4 | 3 |
//! | 11 | 160 | 1 | 51 | | 33 | 1280 | 1 | 6 | | 55 | 12288 | 3 | 2 |
//! | 12 | 176 | 1 | 46 | | 34 | 1408 | 2 | 11 | | 56 | 13568 | 5 | 3 |
//! | 13 | 192 | 1 | 42 | | 35 | 1536 | 1 | 5 | | 57 | 14336 | 7 | 4 |
//! | 14 | 208 | 1 | 39 | | 36 | 1792 | 2 | 9 | | 58 | 16384 | 2 | 1 |
//! | 15 | 224 | 1 | 36 | | 37 | 2048 | 1 | 4 | | 59 | 18432 | 9 | 4 |
//! | 16 | 240 | 1 | 34 | | 38 | 2304 | 2 | 7 | | 60 | 19072 | 7 | 3 |
//! | 17 | 256 | 1 | 32 | | 39 | 2688 | 1 | 3 | | 61 | 20480 | 5 | 2 |
//! | 18 | 288 | 1 | 28 | | 40 | 3072 | 3 | 8 | | 62 | 21760 | 8 | 3 |
//! | 19 | 320 | 1 | 25 | | 41 | 3200 | 2 | 5 | | 63 | 24576 | 3 | 1 |
//! | 20 | 352 | 1 | 23 | | 42 | 3456 | 3 | 7 | | 64 | 27264 | 10 | 3 |
//! | 21 | 384 | 1 | 21 | | 43 | 4096 | 1 | 2 | | 65 | 28672 | 7 | 2 |
//! | 22 | 416 | 1 | 19 | | 44 | 4864 | 3 | 5 | | 66 | 32768 | 4 | 1 |

use crate::units::PAGE_SIZE;

/// The number of a size class; 0 is that of large objects, which have a span each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SizeClass(pub u8);

/// Size classes, with class 0.
pub const SIZE_CLASS_COUNT: usize = 67;
/// The largest size with a class. Higher: more classes, each with slots that waste up to 1/8. Lower: objects of
/// middling size pay for a span of their own, rounded up to whole pages.
pub const MAX_SMALL: usize = 32768;

/// Tail waste of a span is at most one part in this. Higher: less waste, longer spans, so that more memory
/// idles in the span that each cache holds. Lower: the reverse.
const TAIL_WASTE_PARTS: usize = 8;
/// Above [`FINE_MAX`] the look-up goes by steps of this, so sizes there are multiples of it.
const COARSE: usize = 128;
/// Up to here the look-up goes by steps of [`FINE`].
const FINE_MAX: usize = 1024;
const FINE: usize = 8;

/// Entries of the look-up table for sizes up to 1024, indexed by `(bytes + 7) / 8`.
pub const FINE_COUNT: usize = FINE_MAX / FINE + 1;
/// Entries of the look-up table above, indexed by `(bytes - 1024 + 127) / 128`.
pub const COARSE_COUNT: usize = (MAX_SMALL - FINE_MAX) / COARSE + 1;

struct Table {
    size: [u32; SIZE_CLASS_COUNT],
    pages: [u8; SIZE_CLASS_COUNT],
    slots: [u32; SIZE_CLASS_COUNT],
    magic: [u32; SIZE_CLASS_COUNT],
}

/// Rule 1: the distance from `size` to the next candidate, given the distance up to here.
const fn step_at(size: usize, step: usize) -> usize {
    if !size.is_power_of_two() {
        step
    } else if size >= 2048 {
        256
    } else if size >= 128 {
        size / 8
    } else if size >= 32 {
        16
    } else {
        step
    }
}

/// Rule 2.
const fn pages_for(size: usize) -> usize {
    let mut bytes = PAGE_SIZE;
    while bytes % size > bytes / TAIL_WASTE_PARTS {
        bytes += PAGE_SIZE;
    }
    bytes / PAGE_SIZE
}

const fn generate() -> Table {
    let mut t = Table {
        size: [0; SIZE_CLASS_COUNT],
        pages: [0; SIZE_CLASS_COUNT],
        slots: [0; SIZE_CLASS_COUNT],
        magic: [0; SIZE_CLASS_COUNT],
    };
    let mut last = 0;
    let mut step = 8;
    let mut size = 16;
    while size <= MAX_SMALL {
        step = step_at(size, step);
        let pages = pages_for(size);
        let slots = pages * PAGE_SIZE / size;
        // Rule 3: a larger size with the same yield takes the smaller one's place.
        let same = last > 0 && t.pages[last] as usize == pages && t.slots[last] as usize == slots;
        if !same {
            last += 1;
        }
        t.size[last] = size as u32;
        t.pages[last] = pages as u8;
        t.slots[last] = slots as u32;
        size += step;
    }
    assert!(last == SIZE_CLASS_COUNT - 1);
    let mut class = 1;
    while class < SIZE_CLASS_COUNT {
        // Rule 4.
        let span = t.pages[class] as usize * PAGE_SIZE;
        let grown = span / t.slots[class] as usize / COARSE * COARSE;
        if grown > t.size[class] as usize {
            t.size[class] = grown as u32;
        }
        t.magic[class] = (1u64 << 32).div_ceil(t.size[class] as u64) as u32;
        class += 1;
    }
    t
}

const TABLE: Table = generate();

/// Bytes of a slot, by class; 0 for class 0.
pub const CLASS_SIZE: [u32; SIZE_CLASS_COUNT] = TABLE.size;
/// Pages of a span, by class.
pub const CLASS_PAGES: [u8; SIZE_CLASS_COUNT] = TABLE.pages;
/// Slots of a span, by class.
pub const CLASS_SLOTS: [u32; SIZE_CLASS_COUNT] = TABLE.slots;
/// `ceil(2^32 / size)`: `(offset * magic) >> 32 == offset / size` for every offset in the span.
pub const CLASS_MAGIC: [u32; SIZE_CLASS_COUNT] = TABLE.magic;

/// The least class of at least `bytes`.
const fn least(bytes: usize) -> u8 {
    let mut class = 1;
    while (CLASS_SIZE[class] as usize) < bytes {
        class += 1;
    }
    class as u8
}

const fn look_up<const N: usize>(first: usize, step: usize) -> [u8; N] {
    let mut table = [0; N];
    let mut i = 0;
    while i < N {
        table[i] = least(first + i * step);
        i += 1;
    }
    table
}

/// Classes of sizes up to 1024.
pub static FINE_CLASS: [u8; FINE_COUNT] = look_up(0, FINE);
/// Classes of sizes above.
pub static COARSE_CLASS: [u8; COARSE_COUNT] = look_up(FINE_MAX, COARSE);

/// The class of a size that asks for 8-byte alignment only, so that 17 to 24 bytes get the class of 24. 0 bytes
/// get the least class.
///
/// `bytes` is at most [`MAX_SMALL`].
#[inline(always)]
pub fn class_of(bytes: usize) -> SizeClass {
    debug_assert!(bytes <= MAX_SMALL);
    SizeClass(if bytes <= FINE_MAX {
        FINE_CLASS[bytes.div_ceil(FINE)]
    } else {
        COARSE_CLASS[(bytes - FINE_MAX).div_ceil(COARSE)]
    })
}

/// The class of a size whose slots are aligned to 16 bytes: all but that of 24 are.
///
/// `bytes` is at most [`MAX_SMALL`].
#[inline(always)]
pub fn class_of_aligned(bytes: usize) -> SizeClass {
    class_of(if bytes > 16 { bytes.max(32) } else { bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: [u32; SIZE_CLASS_COUNT - 1] = [
        16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352, 384,
        416, 448, 480, 512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048, 2304, 2688,
        3072, 3200, 3456, 4096, 4864, 5376, 6144, 6528, 6784, 6912, 8192, 9472, 9728, 10240, 10880, 12288,
        13568, 14336, 16384, 18432, 19072, 20480, 21760, 24576, 27264, 28672, 32768,
    ];

    fn classes() -> impl Iterator<Item = usize> {
        1..SIZE_CLASS_COUNT
    }

    #[test]
    fn the_rules_give_the_listed_sizes() {
        assert_eq!(CLASS_SIZE[1..], LISTED);
    }

    #[test]
    fn the_printed_table_is_the_table() {
        let mut rows = Vec::new();
        for line in include_str!("size_class.rs").lines() {
            let Some(row) = line.strip_prefix("//! |") else { continue };
            let cells: Vec<u32> = row.split('|').filter_map(|c| c.trim().parse().ok()).collect();
            rows.extend(cells.chunks_exact(4).map(|c| [c[0], c[1], c[2], c[3]]));
        }
        rows.sort_unstable();
        let table: Vec<[u32; 4]> =
            classes().map(|c| [c as u32, CLASS_SIZE[c], u32::from(CLASS_PAGES[c]), CLASS_SLOTS[c]]).collect();
        assert_eq!(rows, table);
    }

    #[test]
    fn waste_is_bounded_and_slots_are_aligned() {
        for c in classes() {
            let (size, span) = (CLASS_SIZE[c] as usize, CLASS_PAGES[c] as usize * PAGE_SIZE);
            assert_eq!(span / size, CLASS_SLOTS[c] as usize);
            assert!((span - CLASS_SLOTS[c] as usize * size) * 8 <= span, "tail of class {c}");
            assert!(size % 16 == 0 || size == 24);
            // From 144 on a step is at most 1/8 of the size; rule 3 and 4 only merge sizes.
            if CLASS_SIZE[c - 1] >= 128 {
                assert!((size - CLASS_SIZE[c - 1] as usize) * 6 <= size, "step to class {c}");
            }
        }
    }

    #[test]
    fn magic_divides_every_offset() {
        for c in classes() {
            for offset in 0..u64::from(CLASS_PAGES[c]) * PAGE_SIZE as u64 {
                assert_eq!((offset * u64::from(CLASS_MAGIC[c])) >> 32, offset / u64::from(CLASS_SIZE[c]));
            }
        }
    }

    #[test]
    fn every_size_gets_its_least_class() {
        for bytes in 0..=MAX_SMALL {
            let class = class_of(bytes).0 as usize;
            assert!(CLASS_SIZE[class] as usize >= bytes && class > 0);
            assert!(class == 1 || (CLASS_SIZE[class - 1] as usize) < bytes);
            let aligned = class_of_aligned(bytes).0 as usize;
            assert_eq!(CLASS_SIZE[aligned] % 16, 0);
            assert_eq!(aligned, if (17..=24).contains(&bytes) { 3 } else { class });
        }
    }
}
