//! How pointers are found in memory: by kind, by the VM's encoding, by layout, by its trace function.
//!
//! One scanner serves the marker, the verifier and the roots; who calls it says through [`Visitor`] what is to
//! be done with what was found.

use crate::layout::Layouts;
use besom_alloc_core::span_class::{ClassFacts, Kind, SpanClass};
use besom_alloc_core::span_heap::SpanHeap;
use besom_stats::race_detector::outside;
use besom_stats::sync::raw::{AtomicUsize, Ordering::Relaxed};
use besom_stats::{fatal, memory_checker};
use std::ffi::c_void;

/// How words of kind [`Kind::Values`] hold pointers: `w` is one if `(w & mask) == tag`, to the object that
/// starts at `w & address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Encoding {
    /// The bits that tell a pointer from other values.
    pub mask: u64,
    /// What they are in a pointer.
    pub tag: u64,
    /// The bits that make up the address.
    pub address: u64,
}

impl Default for Encoding {
    /// Plain pointers, aligned to 8 bytes.
    fn default() -> Encoding {
        Encoding { mask: 7, tag: 0, address: !7 }
    }
}

/// Who is shown pointers.
pub trait Visitor {
    /// A pointer to the start of an object (or into a tiny block); null and foreign addresses are skipped.
    fn exact(&mut self, address: usize);
    /// Any word: a pointer if it lies in an allocated slot.
    fn any(&mut self, word: usize);
    /// The same for a word of a native stack, which may have been left there by a call that is over.
    fn stale(&mut self, word: usize) {
        self.any(word);
    }
    /// The ephemeron at an offset, whose value is an edge only if its key is reached otherwise.
    fn ephemeron(&mut self, offset: usize);
    /// What is known of shapes, for ranges that a trace function names.
    fn shapes(&self) -> &Shapes;
}

/// What a trace function gets: an edge it names goes to the visitor behind it.
pub struct Tracer<'a> {
    visitor: &'a mut dyn Visitor,
}

impl<'a> Tracer<'a> {
    /// A tracer for one call of a trace function.
    pub fn new(visitor: &'a mut dyn Visitor) -> Tracer<'a> {
        Tracer { visitor }
    }

    /// One strong edge. Interior pointers count, since the trace function may run on roots of any sort.
    pub fn trace(&mut self, object: *const c_void) {
        self.visitor.any(object.addr());
    }

    /// Words of a kind: [`Kind::NoScan`], [`Kind::Conservative`] or [`Kind::Values`].
    ///
    /// # Safety
    /// The words must be readable.
    pub unsafe fn trace_range(&mut self, start: *const c_void, words: usize, kind: Kind) {
        let encoding = self.visitor.shapes().encoding;
        // SAFETY: the caller's promise.
        unsafe { scan_words(start.cast(), words, kind, &encoding, &mut *self.visitor) };
    }
}

/// A trace function of the VM.
pub type TraceFn = unsafe extern "C" fn(*mut Tracer<'_>, *mut c_void, *mut c_void);

/// What is known of the shapes of a heap's objects.
pub struct Shapes {
    /// For [`Kind::Values`].
    pub encoding: Encoding,
    /// For [`Kind::Traced`].
    pub trace: Option<TraceFn>,
    /// Handed to the trace functions.
    pub data: *mut c_void,
    /// For [`Kind::Typed`] and [`Kind::TypedShared`].
    pub layouts: Layouts,
}

// SAFETY: `data` is the VM's; it is only handed back to the VM's functions, which may be called from any
// thread of the collector, as the interface says.
unsafe impl Sync for Shapes {}
// SAFETY: as above.
unsafe impl Send for Shapes {}

/// Bytes of a large object that are scanned in one go. Higher: one array serialises marking, and who assists comes later to a safepoint. Lower: more
/// entries in the queue for each array.
pub const PIECE: usize = 32 << 10;

/// Reads a word that the VM may have written in any way, or writes at this moment.
#[inline(always)]
pub(crate) unsafe fn read(at: *const usize) -> usize {
    // SAFETY: the caller's promise: the word is readable, and aligned.
    unsafe { AtomicUsize::from_ptr(at.cast_mut()).load(Relaxed) }
}

/// Shows the pointers among `words` words to the visitor.
///
/// # Safety
/// The words must be readable.
#[inline(always)]
pub unsafe fn scan_words<V: Visitor + ?Sized>(
    start: *const usize,
    words: usize,
    kind: Kind,
    encoding: &Encoding,
    visitor: &mut V,
) {
    match kind {
        Kind::NoScan => {}
        Kind::Conservative => {
            for i in 0..words {
                // SAFETY: the caller's promise.
                visitor.any(unsafe { read(start.add(i)) });
            }
        }
        Kind::Values => {
            for i in (0..words).rev() {
                // SAFETY: the caller's promise.
                let word = unsafe { read(start.add(i)) } as u64;
                if word & encoding.mask == encoding.tag {
                    visitor.exact((word & encoding.address) as usize);
                }
            }
        }
        // Not kinds of ranges: they add no edges.
        Kind::Traced | Kind::Typed | Kind::TypedShared | Kind::Ephemeron => {}
    }
}

/// Shows the words of a native stack to the visitor, where words may lie that were never written.
///
/// # Safety
/// As for [`scan_words`].
pub unsafe fn scan_stack<V: Visitor + ?Sized>(start: *const usize, words: usize, visitor: &mut V) {
    let tracked = memory_checker::tracks_values();
    for i in 0..words {
        // SAFETY: the caller's promise.
        let word = unsafe { read(start.add(i)) };
        visitor.stale(if tracked { memory_checker::known(word) } else { word });
    }
}

/// Shows the pointers of the object (or of the piece of a large object) at `offset` to the visitor. Returns
/// the offset of the next piece, if the object has more.
///
/// # Safety
/// `offset` must be the start of an allocated slot of class `class`, or a piece's start in a large object.
#[inline(always)]
pub unsafe fn scan_object<V: Visitor>(
    heap: &SpanHeap,
    shapes: &Shapes,
    offset: usize,
    class: SpanClass,
    facts: ClassFacts,
    visitor: &mut V,
) -> Option<usize> {
    if facts.slot_bytes == 0 {
        // SAFETY: the caller's promise.
        return unsafe { scan_large(heap, shapes, offset, facts.kind, visitor) };
    }
    let start = heap.address(offset).cast_const().cast::<usize>();
    let words = facts.slot_bytes as usize / 8;
    match facts.kind {
        Kind::NoScan => {}
        // SAFETY: the slot's words belong to the object.
        Kind::Values => unsafe { scan_words(start, words, Kind::Values, &shapes.encoding, visitor) },
        // SAFETY: as above.
        Kind::Conservative => unsafe {
            scan_words(start, words, Kind::Conservative, &shapes.encoding, visitor);
        },
        Kind::Typed => {
            let layout = shapes.layouts.get(heap.classes().get(class).layout());
            // A loop, not a closure, for the usual ones: it is to be part of the marker's loop.
            if let Some(mut mask) = layout.mask_of_all() {
                while mask != 0 {
                    // SAFETY: a layout's words lie within the slot.
                    visitor.exact(unsafe { read(start.add(mask.trailing_zeros() as usize)) });
                    mask &= mask - 1;
                }
            } else {
                // SAFETY: as above.
                layout.for_each_pointer(|word| visitor.exact(unsafe { read(start.add(word)) }));
            }
        }
        Kind::TypedShared => {
            // SAFETY: the slot's last word holds the layout's number.
            let number = unsafe { read(start.add(words - 1)) } as u64;
            // SAFETY: the words before it belong to the object.
            unsafe { scan_elements(shapes, number, start, 0, words - 1, visitor) };
        }
        Kind::Traced => trace(shapes, start, visitor),
        Kind::Ephemeron => visitor.ephemeron(offset),
    }
    None
}

/// # Safety
/// As for [`scan_object`].
unsafe fn scan_large<V: Visitor>(
    heap: &SpanHeap,
    shapes: &Shapes,
    offset: usize,
    kind: Kind,
    visitor: &mut V,
) -> Option<usize> {
    let (span, page) = heap.span_of(offset);
    let object = heap.address(page.offset()).cast_const().cast::<usize>();
    if kind == Kind::Traced {
        trace(shapes, object, visitor);
        return None;
    }
    let (from, bytes) = (offset - page.offset(), span.large_bytes().0);
    let to = bytes.min(from + PIECE);
    // SAFETY: the piece lies within the object.
    unsafe {
        if kind == Kind::TypedShared {
            scan_elements(shapes, span.layout().into(), object, from / 8, to / 8, visitor);
        } else {
            scan_words(object.byte_add(from), (to - from) / 8, kind, &shapes.encoding, visitor);
        }
    }
    (to < bytes).then_some(offset + PIECE)
}

/// Shows the pointers in words `from..to` of an array whose elements repeat a layout.
///
/// # Safety
/// Those words must be the object's.
unsafe fn scan_elements<V: Visitor>(
    shapes: &Shapes,
    number: u64,
    object: *const usize,
    from: usize,
    to: usize,
    visitor: &mut V,
) {
    let Some(layout) = shapes.layouts.numbered(number) else {
        fatal(format_args!("mark: object {object:p} names layout {number}, which is not registered"));
    };
    let words = layout.words();
    for element in from / words..to.div_ceil(words) {
        let first = element * words;
        // SAFETY: the caller's promise.
        let visit = |word| visitor.exact(unsafe { read(object.add(first + word)) });
        if from <= first && first + words <= to {
            layout.for_each_pointer(visit);
        } else {
            layout.for_each_pointer_in(from.saturating_sub(first), words.min(to - first), visit);
        }
    }
}

fn trace<V: Visitor>(shapes: &Shapes, object: *const usize, visitor: &mut V) {
    let Some(function) = shapes.trace else { return };
    let mut tracer = Tracer::new(visitor);
    // SAFETY: the VM's function, on the VM's object, with the VM's data.
    outside(|| unsafe { function(&mut tracer, object.cast_mut().cast(), shapes.data) });
}
