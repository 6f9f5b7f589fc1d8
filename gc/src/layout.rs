//! Registered layouts: which words of an object hold pointers.
//!
//! The first [`OWN_LAYOUTS`] that fit into a slot have a span class each, so that neither their objects nor
//! their slots need a header. The others, and all arrays, use the shared form: the slot's last word, or a
//! large object's span, names the layout, and the element's pattern repeats over the whole object.

use besom_alloc_core::heap_tables::{Zeroable, ZeroedTable};
use besom_alloc_core::os::OutOfMemory;
use besom_alloc_core::size_class::{MAX_SMALL, class_of};
use besom_alloc_core::span_class::{FIRST_LAYOUT, OWN_LAYOUTS};
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::units::Bytes;
use besom_stats::sync::raw::{AtomicPtr, AtomicU32, AtomicU64, Ordering::*};
use besom_stats::sync::{Held, Mutex, MutexGuard, hold, lock};
use bitvec::prelude::{BitVec, Lsb0};

/// All layouts of a heap. Higher: 32 bytes of address space each, and nothing else. Lower: a VM that makes a
/// layout for each shape of a dynamic language meets `BESOM_ERR_LIMIT`.
pub const MAX_LAYOUTS: usize = 1 << 16;
/// Numbers of layouts: all may share, and then those that would own a class are unused.
const NUMBERS: usize = OWN_LAYOUTS + MAX_LAYOUTS;

/// Why a layout was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// No bytes, too many, or a pointer outside the object or off its 8-byte alignment.
    Invalid,
    /// [`MAX_LAYOUTS`] are registered.
    Limit,
    /// The system refused memory.
    NoMemory,
}

/// One layout. Written once, before its number is shown to anybody.
///
/// - `mask` has the bits of the first 64 words; `more` all bits when `words > 64` and there are pointers, else null
#[repr(C)]
pub struct Layout {
    words: AtomicU32,
    _room: AtomicU32,
    mask: AtomicU64,
    more: AtomicPtr<BitVec<u64, Lsb0>>,
    _align: AtomicU64,
}

// SAFETY: made of atomics; all zero is a layout of no words.
unsafe impl Zeroable for Layout {}

impl Layout {
    /// Words of one object, or of one element of an array.
    #[inline(always)]
    pub fn words(&self) -> usize {
        self.words.load(Relaxed) as usize
    }

    /// Bytes that it takes: its entry, and its bits if those have a place of their own.
    fn bytes(&self) -> Bytes {
        // SAFETY: set once from a box, and freed only with the table.
        let more = unsafe { self.more.load(Acquire).as_ref() };
        Bytes(size_of::<Layout>() + more.map_or(0, |bits| bits.len().div_ceil(64) * 8))
    }

    /// Whether it has no pointers at all.
    pub fn is_pointer_free(&self) -> bool {
        self.mask.load(Relaxed) == 0 && self.more.load(Acquire).is_null()
    }

    /// The words that hold pointers, as bits, if all are among the first 64.
    #[inline(always)]
    pub fn mask_of_all(&self) -> Option<u64> {
        self.more.load(Acquire).is_null().then(|| self.mask.load(Relaxed))
    }

    /// The words of the object that hold pointers, in order.
    #[inline(always)]
    pub fn for_each_pointer(&self, mut visit: impl FnMut(usize)) {
        let more = self.more.load(Acquire);
        if more.is_null() {
            let mut mask = self.mask.load(Relaxed);
            while mask != 0 {
                visit(mask.trailing_zeros() as usize);
                mask &= mask - 1;
            }
        } else {
            // SAFETY: set once from a box, and freed only with the table.
            unsafe { &*more }.iter_ones().for_each(visit);
        }
    }

    /// Those of them in words `from..to`, which are within the object: the others cost nothing.
    pub fn for_each_pointer_in(&self, from: usize, to: usize, mut visit: impl FnMut(usize)) {
        debug_assert!(from <= to && to <= self.words());
        let more = self.more.load(Acquire);
        if !more.is_null() {
            // SAFETY: as above.
            let bits = unsafe { &*more };
            bits[from..to].iter_ones().for_each(|word| visit(from + word));
        } else if from < to.min(64) {
            let mut mask = self.mask.load(Relaxed) & !0 << from & !0 >> (64 - to.min(64));
            while mask != 0 {
                visit(mask.trailing_zeros() as usize);
                mask &= mask - 1;
            }
        }
    }
}

/// The layouts of one heap, by number: `0..OWN_LAYOUTS` own a span class, the rest share.
///
/// - `taken[0] <= OWN_LAYOUTS`, `taken[0] + taken[1] <= MAX_LAYOUTS`
pub struct Layouts {
    table: ZeroedTable<Layout>,
    /// How many of the two parts are taken. Held while a layout is registered.
    taken: Mutex<[usize; 2]>,
}

impl Layouts {
    /// No layouts yet.
    pub fn new() -> Result<Layouts, OutOfMemory> {
        Ok(Layouts { table: ZeroedTable::new(NUMBERS)?, taken: Mutex::new([0, 0]) })
    }

    /// A layout by its number.
    #[inline(always)]
    pub fn get(&self, number: u32) -> &Layout {
        self.table.get(number as usize)
    }

    /// A layout by the number that a user knows it by, if it is registered.
    pub fn registered(&self, public: u32) -> Option<(u32, &Layout)> {
        let number = public.checked_sub(FIRST_LAYOUT as u32)?;
        self.numbered(number.into()).map(|layout| (number, layout))
    }

    /// A layout by its number, if it is registered: a number that was read from memory may be anything.
    #[inline(always)]
    pub fn numbered(&self, number: u64) -> Option<&Layout> {
        let layout = (number < NUMBERS as u64).then(|| self.get(number as u32))?;
        (layout.words() != 0).then_some(layout)
    }

    /// Registers an object of `bytes` with pointers at these offsets; returns its public number, which is its
    /// span class when it has one.
    pub fn register(&self, heap: &SpanHeap, bytes: usize, offsets: &[u32]) -> Result<u32, LayoutError> {
        let words = bytes.div_ceil(8);
        if bytes == 0 || bytes > u32::MAX as usize || (!offsets.is_empty() && !bytes.is_multiple_of(8)) {
            return Err(LayoutError::Invalid);
        }
        if offsets.iter().any(|&o| !o.is_multiple_of(8) || o as usize + 8 > bytes) {
            return Err(LayoutError::Invalid);
        }
        let more = if words > 64 && !offsets.is_empty() { Some(bitmap(words, offsets)?) } else { None };
        let mut taken = lock(&self.taken);
        let own = words * 8 <= MAX_SMALL && taken[0] < OWN_LAYOUTS;
        let number = if own { taken[0] } else { OWN_LAYOUTS + taken[1] };
        if taken[0] + taken[1] >= MAX_LAYOUTS {
            return Err(LayoutError::Limit);
        }
        let layout = self.get(number as u32);
        let mask = offsets.iter().filter(|&&o| o < 512).fold(0, |mask, o| mask | 1u64 << (o / 8));
        layout.mask.store(mask, Relaxed);
        layout.more.store(more.map_or(std::ptr::null_mut(), Box::into_raw), Release);
        layout.words.store(words as u32, Release);
        taken[usize::from(!own)] += 1;
        heap.system().gc.add(layout.bytes().0 as i64);
        if own {
            let class = heap.register_layout(class_of(words * 8)).ok_or(LayoutError::Limit)?;
            if layout.is_pointer_free() {
                heap.classes().get(class).set_pointer_free();
            }
        }
        Ok(FIRST_LAYOUT as u32 + number as u32)
    }
}

impl Layouts {
    /// Holds the layouts as they are.
    pub fn hold(&self) -> HeldLayouts<'_> {
        HeldLayouts { layouts: self, taken: lock(&self.taken) }
    }

    /// The same, for who is not interested in them.
    pub fn hold_out(&self) -> Held<'_> {
        hold(&self.taken)
    }
}

/// The layouts, of which none is registered meanwhile.
pub struct HeldLayouts<'l> {
    layouts: &'l Layouts,
    taken: MutexGuard<'l, [usize; 2]>,
}

impl HeldLayouts<'_> {
    /// Bytes that they take, counted one by one.
    pub fn bytes(&self) -> Bytes {
        let [own, shared] = *self.taken;
        let numbers = (0..own).chain(OWN_LAYOUTS..OWN_LAYOUTS + shared);
        Bytes(numbers.map(|number| self.layouts.get(number as u32).bytes().0).sum())
    }
}

impl Drop for Layouts {
    fn drop(&mut self) {
        let taken = *lock(&self.taken);
        for number in (0..taken[0]).chain(OWN_LAYOUTS..OWN_LAYOUTS + taken[1]) {
            let more = self.get(number as u32).more.swap(std::ptr::null_mut(), Acquire);
            if !more.is_null() {
                // SAFETY: made by `Box::into_raw` in `register`, and taken out of the table just now.
                drop(unsafe { Box::from_raw(more) });
            }
        }
    }
}

fn bitmap(words: usize, offsets: &[u32]) -> Result<Box<BitVec<u64, Lsb0>>, LayoutError> {
    let mut store: Vec<u64> = Vec::new();
    let n = words.div_ceil(64);
    store.try_reserve_exact(n).map_err(|_| LayoutError::NoMemory)?;
    store.resize(n, 0);
    let mut bits = BitVec::<u64, Lsb0>::try_from_vec(store).map_err(|_| LayoutError::Invalid)?;
    bits.truncate(words);
    for o in offsets {
        bits.set(*o as usize / 8, true);
    }
    Ok(Box::new(bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use besom_alloc_core::size_class::SizeClass;
    use besom_alloc_core::span_class::{Kind, SpanClass};

    fn heap() -> (SpanHeap, Layouts) {
        (SpanHeap::new(Bytes(64 << 20), Bytes(0), false).expect("a heap"), Layouts::new().expect("layouts"))
    }

    fn pointers(layout: &Layout) -> Vec<usize> {
        let mut words = Vec::new();
        layout.for_each_pointer(|w| words.push(w));
        words
    }

    #[test]
    fn bad_shapes_are_refused_and_take_no_number() {
        let (heap, layouts) = heap();
        let too_large = u32::MAX as usize + 1;
        let bad: [(usize, &[u32]); 10] = [
            (0, &[]),
            (too_large, &[]),
            (8, &[8]),
            (16, &[12]),
            (16, &[4]),
            (16, &[0, 16]),
            (12, &[0]),
            (7, &[0]),
            (24, &[u32::MAX]),
            (24, &[u32::MAX - 7]),
        ];
        for (bytes, offsets) in bad {
            assert_eq!(
                layouts.register(&heap, bytes, offsets),
                Err(LayoutError::Invalid),
                "{bytes} {offsets:?}"
            );
        }
        assert_eq!(layouts.register(&heap, 8, &[0]), Ok(FIRST_LAYOUT as u32));
        assert!(layouts.registered(FIRST_LAYOUT as u32 + 1).is_none());
        assert!(layouts.registered(u32::MAX).is_none() && layouts.registered(0).is_none());
    }

    #[test]
    fn pointers_are_those_that_were_named() {
        let (heap, layouts) = heap();
        for (bytes, offsets) in [
            (16, vec![]),
            (12, vec![]),
            (16, vec![8, 0, 8]),
            (512, vec![0, 504]),
            (520, vec![0, 504, 512]),
            (80_000, vec![512, 79_992, 0]),
        ] {
            let public = layouts.register(&heap, bytes, &offsets).expect("a layout");
            let (number, layout) = layouts.registered(public).expect("registered");
            let mut words: Vec<usize> = offsets.iter().map(|o| *o as usize / 8).collect();
            words.sort_unstable();
            words.dedup();
            assert_eq!(pointers(layout), words, "{bytes} bytes");
            assert_eq!((layout.words(), layout.is_pointer_free()), (bytes.div_ceil(8), words.is_empty()));
            assert_eq!(pointers(layouts.get(number)), words);
        }
    }

    #[test]
    fn a_span_class_is_the_public_number() {
        let (heap, layouts) = heap();
        for (bytes, class) in [(8, 1), (24, 2), (20, 2), (32, 3), (32768, 66)] {
            let public = layouts.register(&heap, bytes, &[]).expect("a layout");
            let facts = heap.classes().get(SpanClass(public as u16)).facts();
            assert_eq!((facts.kind, facts.size_class), (Kind::Typed, SizeClass(class)), "{bytes} bytes");
            let (number, _) = layouts.registered(public).expect("registered");
            assert_eq!(heap.classes().get(SpanClass(public as u16)).layout(), number);
        }
    }

    #[test]
    fn a_range_of_words_shows_its_pointers() {
        let (heap, layouts) = heap();
        for (bytes, offsets) in [
            (8, vec![0]),
            (512, vec![0, 8, 248, 504]),
            (512, vec![]),
            (80_000, vec![0, 504, 512, 520, 40_000, 79_992]),
        ] {
            let public = layouts.register(&heap, bytes, &offsets).expect("a layout");
            let (_, layout) = layouts.registered(public).expect("registered");
            let ends =
                [0, 1, 2, 31, 32, 63, 64, 65, 5000, 5001, 9999, 10_000].map(|w: usize| w.min(bytes / 8));
            for (from, to) in ends.into_iter().flat_map(|from| ends.map(|to| (from, to.max(from)))) {
                let mut shown = Vec::new();
                layout.for_each_pointer_in(from, to, |word| shown.push(word));
                let within: Vec<_> =
                    pointers(layout).into_iter().filter(|w| (from..to).contains(w)).collect();
                assert_eq!(shown, within, "{bytes} bytes, {from}..{to}");
            }
        }
    }

    #[test]
    fn a_number_from_memory_may_be_anything() {
        let (heap, layouts) = heap();
        layouts.register(&heap, 16, &[8]).expect("a layout");
        assert!(layouts.numbered(0).is_some());
        for number in [1, MAX_LAYOUTS as u64, NUMBERS as u64 - 1, NUMBERS as u64, 1 << 32, u64::MAX] {
            assert!(layouts.numbered(number).is_none(), "{number:#x}");
        }
    }

    #[test]
    fn as_many_may_share() {
        let (heap, layouts) = heap();
        for n in 0..MAX_LAYOUTS {
            let public = layouts.register(&heap, 40_000, &[]).expect("a layout");
            assert_eq!(public as usize, FIRST_LAYOUT + OWN_LAYOUTS + n);
        }
        assert_eq!(layouts.register(&heap, 40_000, &[]), Err(LayoutError::Limit));
        assert_eq!(layouts.register(&heap, 16, &[8]), Err(LayoutError::Limit));
    }

    #[test]
    fn a_class_without_pointers_is_known_for_it() {
        let (heap, layouts) = heap();
        for (offsets, free) in [(&[][..], true), (&[8][..], false)] {
            let public = layouts.register(&heap, 16, offsets).expect("a layout");
            assert_eq!(heap.classes().get(SpanClass(public as u16)).facts().pointer_free, free);
        }
    }

    #[test]
    fn they_run_out_at_the_limit() {
        let (heap, layouts) = heap();
        for n in 0..MAX_LAYOUTS {
            assert_eq!(layouts.register(&heap, 16, &[8]), Ok((FIRST_LAYOUT + n) as u32));
        }
        assert_eq!(layouts.register(&heap, 16, &[8]), Err(LayoutError::Limit));
        assert_eq!(layouts.register(&heap, 100_000, &[8]), Err(LayoutError::Limit));
        let last = (FIRST_LAYOUT + MAX_LAYOUTS - 1) as u32;
        assert_eq!(layouts.registered(last).map(|(_, l)| pointers(l)), Some(vec![1]));
        assert!(layouts.registered(last + 1).is_none());
    }
}
