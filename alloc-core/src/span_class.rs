//! Span classes: a size class and a layout kind, i.e. how large a slot is and how pointers are found in it.
//!
//! A span class is also the index of an allocation cell in every cache, and of a central list. The first
//! [`FIRST_LAYOUT`] of them are the products of kinds and size classes, and that of ephemerons; those after it belong to
//! registered layouts, one each, so that the allocation cell and the marking loop are specialised by layout.

use crate::heap_tables::ZeroedTable;
use crate::os::OutOfMemory;
use crate::size_class::{CLASS_SIZE, SIZE_CLASS_COUNT, SizeClass};
use crate::units::PAGE_SIZE;
use besom_stats::sync::raw::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// How the collector finds pointers in a slot. The numbers are part of the C interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// No pointers: never scanned.
    NoScan = 0,
    /// Any words: each that lies in an allocated slot counts, interior included.
    Conservative = 1,
    /// Words in the VM's own value encoding.
    Values = 2,
    /// An object with the VM's own header: its trace function is called.
    Traced = 3,
    /// Layouts that share spans; the slot's last word (or a large object's span) names the layout.
    TypedShared = 4,
    /// One registered layout per span.
    Typed = 5,
    /// An ephemeron: its value is kept as long as something else keeps its key. The collector's own kind.
    Ephemeron = 6,
}

impl Kind {
    /// The kind of this number in the C interface.
    pub const fn from_public(number: u32) -> Option<Kind> {
        match number {
            0 => Some(Kind::NoScan),
            1 => Some(Kind::Conservative),
            2 => Some(Kind::Values),
            3 => Some(Kind::Traced),
            _ => None,
        }
    }

    const fn from_number(number: u8) -> Kind {
        match number {
            0 => Kind::NoScan,
            1 => Kind::Conservative,
            2 => Kind::Values,
            3 => Kind::Traced,
            4 => Kind::TypedShared,
            5 => Kind::Typed,
            _ => Kind::Ephemeron,
        }
    }
}

/// Kinds that pair with every size class.
pub const PRODUCT_KINDS: usize = 5;
/// The span class of ephemerons: slots of four words.
pub const EPHEMERON: SpanClass = SpanClass((PRODUCT_KINDS * SIZE_CLASS_COUNT) as u16);
const EPHEMERON_SIZE: SizeClass = SizeClass(3);
const _: () = assert!(CLASS_SIZE[EPHEMERON_SIZE.0 as usize] == 32 && PAGE_SIZE.is_multiple_of(32));
/// The first span class that belongs to a registered layout.
pub const FIRST_LAYOUT: usize = PRODUCT_KINDS * SIZE_CLASS_COUNT + 1;
/// Layouts with a span class of their own. Higher: each cache and each central list grows by a cell a
/// layout (24 and 32 bytes, touched only when used), and a program with thousands of layouts of few objects
/// each keeps one part-filled span per layout: 1,024 x 8 KiB = 8 MiB at most. Lower: more programs pay the
/// shared form's header word and its slower path.
pub const OWN_LAYOUTS: usize = 1024;
/// All span classes, and so the length of a cache's array of cells.
pub const SPAN_CLASS_COUNT: usize = FIRST_LAYOUT + OWN_LAYOUTS;

/// The number of a span class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanClass(pub u16);

impl SpanClass {
    /// The span class of a kind and a size class.
    pub const fn new(kind: Kind, class: SizeClass) -> SpanClass {
        assert!((kind as usize) < PRODUCT_KINDS);
        SpanClass(kind as u16 * SIZE_CLASS_COUNT as u16 + class.0 as u16)
    }

    /// Its index in arrays of cells and central lists.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What the marker and the caches must know of a span class, in 16 bytes.
///
/// - `slot_bytes == CLASS_SIZE[size_class]`, and 0 for large objects
/// - `layout` is meaningful for [`Kind::Typed`] only
/// - `pointer_free` is set for all of [`Kind::NoScan`], and for such of [`Kind::Typed`] as have no pointers
///
/// Written once, before the class is first used; read by everybody.
#[repr(C)]
pub struct ClassInfo {
    /// slot_bytes | kind << 32 | size_class << 40 | pointer_free << 48.
    packed: AtomicU64,
    layout: AtomicU32,
    _room: AtomicU32,
}

/// A [`ClassInfo`] read out.
#[derive(Clone, Copy, Debug)]
pub struct ClassFacts {
    /// Bytes of a slot; 0 for large objects.
    pub slot_bytes: u32,
    /// How pointers are found.
    pub kind: Kind,
    /// The size class.
    pub size_class: SizeClass,
    /// No object of the class has pointers: none needs to be scanned.
    pub pointer_free: bool,
}

const POINTER_FREE: u64 = 1 << 48;

impl ClassInfo {
    /// The facts, in one load.
    #[inline(always)]
    pub fn facts(&self) -> ClassFacts {
        let packed = self.packed.load(Relaxed);
        ClassFacts {
            slot_bytes: packed as u32,
            kind: Kind::from_number((packed >> 32) as u8),
            size_class: SizeClass((packed >> 40) as u8),
            pointer_free: packed & POINTER_FREE != 0,
        }
    }

    /// The registered layout of a [`Kind::Typed`] class.
    #[inline(always)]
    pub fn layout(&self) -> u32 {
        self.layout.load(Relaxed)
    }

    fn set(&self, kind: Kind, class: SizeClass, layout: u32) {
        self.layout.store(layout, Relaxed);
        let packed = u64::from(CLASS_SIZE[class.0 as usize]) | (kind as u64) << 32 | u64::from(class.0) << 40;
        let free = if kind == Kind::NoScan { POINTER_FREE } else { 0 };
        self.packed.store(packed | free, Relaxed);
    }

    /// The class's layout has no pointers. The caller has not shown it to anybody yet.
    pub fn set_pointer_free(&self) {
        self.packed.store(self.packed.load(Relaxed) | POINTER_FREE, Relaxed);
    }
}

/// The facts of every span class of one heap.
pub struct ClassTable {
    infos: ZeroedTable<ClassInfo>,
}

impl ClassTable {
    /// The products of kinds and size classes; layouts are added as they are registered.
    pub fn new() -> Result<ClassTable, OutOfMemory> {
        let table = ClassTable { infos: ZeroedTable::new(SPAN_CLASS_COUNT)? };
        for kind in 0..PRODUCT_KINDS as u8 {
            for class in 0..SIZE_CLASS_COUNT as u8 {
                let (kind, class) = (Kind::from_number(kind), SizeClass(class));
                table.get(SpanClass::new(kind, class)).set(kind, class, 0);
            }
        }
        table.get(EPHEMERON).set(Kind::Ephemeron, EPHEMERON_SIZE, 0);
        Ok(table)
    }

    /// What is known of a class.
    #[inline(always)]
    pub fn get(&self, class: SpanClass) -> &ClassInfo {
        self.infos.get(class.index())
    }

    /// Bytes of the table.
    pub(crate) fn bytes(&self) -> usize {
        self.infos.bytes()
    }

    /// All of them, by index.
    pub fn infos(&self) -> &[ClassInfo] {
        self.infos.slice(0, SPAN_CLASS_COUNT)
    }

    /// Gives layout number `layout` (below [`OWN_LAYOUTS`]) its span class. The caller has not shown the
    /// layout to anybody yet.
    pub fn register_layout(&self, layout: u32, class: SizeClass) -> SpanClass {
        let span_class = SpanClass((FIRST_LAYOUT + layout as usize) as u16);
        self.get(span_class).set(Kind::Typed, class, layout);
        span_class
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_product_class_reads_back() {
        let table = ClassTable::new().unwrap();
        for kind in 0..PRODUCT_KINDS as u8 {
            for class in 0..SIZE_CLASS_COUNT as u8 {
                let k = Kind::from_number(kind);
                let facts = table.get(SpanClass::new(k, SizeClass(class))).facts();
                assert_eq!((facts.kind, facts.size_class), (k, SizeClass(class)));
                assert_eq!(facts.slot_bytes, CLASS_SIZE[class as usize]);
                assert_eq!(facts.pointer_free, k == Kind::NoScan);
            }
        }
        let class = table.register_layout(7, SizeClass(2));
        assert_eq!(class.index(), FIRST_LAYOUT + 7);
        assert_eq!((table.get(class).facts().kind, table.get(class).layout()), (Kind::Typed, 7));
        assert!(!table.get(class).facts().pointer_free);
        table.get(class).set_pointer_free();
        let facts = table.get(class).facts();
        assert!(facts.pointer_free);
        assert_eq!((facts.kind, facts.size_class, facts.slot_bytes), (Kind::Typed, SizeClass(2), 24));
    }
}
