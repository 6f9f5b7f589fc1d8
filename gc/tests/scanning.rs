//! The scanner: which words of which objects it shows, and how.

mod yard;

use besom_alloc_core::size_class::class_of_aligned;
use besom_alloc_core::span_class::{Kind, OWN_LAYOUTS, SpanClass};
use besom_gc::scan::{PIECE, scan_object, scan_words};
use besom_gc::{Encoding, LayoutError, Shapes, Tracer, Visitor};
use std::ffi::c_void;
use yard::Yard;

/// Notes what it is shown: exact addresses and any words.
struct Notes<'a> {
    shapes: &'a Shapes,
    exact: Vec<usize>,
    any: Vec<usize>,
}

impl Visitor for Notes<'_> {
    fn exact(&mut self, address: usize) {
        self.exact.push(address);
    }

    fn any(&mut self, word: usize) {
        self.any.push(word);
    }

    fn ephemeron(&mut self, _: usize) {
        unreachable!("there are none");
    }

    fn shapes(&self) -> &Shapes {
        self.shapes
    }
}

impl Notes<'_> {
    /// The order of showing is the scanner's own affair.
    fn sort(mut self) -> Self {
        self.exact.sort_unstable();
        self.any.sort_unstable();
        self
    }
}

/// Scans a whole object: what was shown, sorted, and how many pieces it took.
fn scan(yard: &mut Yard, object: *mut u64) -> (Notes<'_>, usize) {
    yard.stop();
    let yard = &*yard;
    let heap = &yard.heap;
    let found = heap.find(object.addr()).expect("an object");
    let facts = heap.classes().get(found.class).facts();
    let mut notes = Notes { shapes: &yard.shapes, exact: Vec::new(), any: Vec::new() };
    let (mut offset, mut pieces) = (found.offset, 1);
    // SAFETY: an object of the yard's, which nobody writes now.
    while let Some(next) = unsafe { scan_object(heap, &yard.shapes, offset, found.class, facts, &mut notes) }
    {
        (offset, pieces) = (next, pieces + 1);
    }
    (notes.sort(), pieces)
}

fn write(object: *mut u64, word: usize, value: u64) {
    // SAFETY: callers write words of their objects.
    unsafe { object.add(word).write(value) };
}

fn number(object: *mut u64, count: usize) {
    (0..count).for_each(|n| write(object, n, n as u64 + 1));
}

#[test]
fn objects_without_pointers_show_none() {
    let mut yard = Yard::new(Encoding::default(), None);
    for bytes in [16, 4096, 200_000] {
        let object = yard.alloc(bytes, Kind::NoScan);
        number(object, bytes / 8);
        let (notes, _) = scan(&mut yard, object);
        assert_eq!((notes.exact.len(), notes.any.len()), (0, 0), "{bytes} bytes");
    }
}

#[test]
fn conservative_objects_show_every_word_once() {
    let mut yard = Yard::new(Encoding::default(), None);
    for (bytes, pieces) in
        [(16, 1), (32768, 1), (PIECE, 1), (PIECE + 8, 2), (3 * PIECE, 3), (3 * PIECE + 4096, 4)]
    {
        let object = yard.alloc(bytes, Kind::Conservative);
        number(object, bytes / 8);
        let (notes, took) = scan(&mut yard, object);
        assert_eq!(notes.any, (1..=bytes / 8).collect::<Vec<_>>(), "{bytes} bytes");
        assert_eq!((notes.exact.len(), took), (0, pieces), "{bytes} bytes");
    }
}

#[test]
fn a_large_objects_last_bytes_are_scanned() {
    let mut yard = Yard::new(Encoding::default(), None);
    // 12 bytes less than whole words of a page: the last word is part of the object.
    let object = yard.alloc(40_000 - 4, Kind::Conservative);
    write(object, 4999, 77);
    assert_eq!(scan(&mut yard, object).0.any.last(), Some(&77));
    assert_eq!(scan(&mut yard, object).0.any.len(), 5000);
}

#[test]
fn values_are_decoded_by_mask_tag_and_address() {
    let boxed = Encoding { mask: 0xffff << 48, tag: 0xfffc << 48, address: 0x0000_ffff_ffff_ffff };
    let tagged = Encoding { mask: 4, tag: 0, address: !7 };
    let address = 0x7f12_3456_7890u64;
    let cases = [
        (Encoding::default(), address, Some(address)),
        (Encoding::default(), address | 1, None),
        (Encoding::default(), 0, Some(0)),
        (boxed, address, None),
        (boxed, 0xfffc << 48 | address, Some(address)),
        (boxed, 0xfffd << 48 | address, None),
        (tagged, address | 3, Some(address)),
        (tagged, address | 4, None),
        (tagged, address | 7, None),
    ];
    for (encoding, word, expected) in cases {
        let mut yard = Yard::new(encoding, None);
        let object = yard.alloc(48, Kind::Values);
        // All other words are no pointers.
        let other = if encoding.tag == 0 { 5 } else { 0 };
        (0..6).for_each(|n| write(object, n, other));
        write(object, 5, word);
        let (notes, _) = scan(&mut yard, object);
        assert_eq!(notes.exact, expected.map(|a| a as usize).into_iter().collect::<Vec<_>>(), "{word:#x}");
        assert_eq!(notes.any.len(), 0);
    }
}

#[test]
fn own_layouts_show_their_words_only() {
    let mut yard = Yard::new(Encoding::default(), None);
    let long: Vec<u32> = (0..100).filter(|n| n % 3 == 0).map(|n| n * 8).collect();
    for (bytes, offsets) in [(24, &[0, 16][..]), (64, &[]), (512, &[504]), (520, &[512]), (800, &long[..])] {
        let layout = yard.shapes.layouts.register(&yard.heap, bytes, offsets).expect("a layout");
        let object = yard.alloc_class(SpanClass(layout as u16));
        number(object, bytes / 8);
        let (notes, _) = scan(&mut yard, object);
        assert_eq!(
            notes.exact,
            offsets.iter().map(|o| *o as usize / 8 + 1).collect::<Vec<_>>(),
            "{bytes} bytes"
        );
        assert_eq!(notes.any.len(), 0);
    }
}

#[test]
fn arrays_repeat_their_elements_layout() {
    let mut yard = Yard::new(Encoding::default(), None);
    let layout = yard.shapes.layouts.register(&yard.heap, 40, &[8, 32]).expect("a layout");
    let (layout, _) = yard.shapes.layouts.registered(layout).expect("registered");
    let expected = |count: usize| (0..count).flat_map(|n| [n * 5 + 2, n * 5 + 5]).collect::<Vec<_>>();
    // Small: the slot's last word names the layout; what lies between shows nothing that is not zero.
    for count in [1, 3, 100] {
        let object = yard.alloc_class(SpanClass::new(Kind::TypedShared, class_of_aligned(count * 40 + 8)));
        let slot = yard.heap.find(object.addr()).expect("an object").bytes.0;
        number(object, count * 5);
        write(object, slot / 8 - 1, u64::from(layout));
        let (notes, _) = scan(&mut yard, object);
        let shown: Vec<usize> = notes.exact.into_iter().filter(|a| *a != 0).collect();
        assert_eq!(shown, expected(count), "{count} elements");
        assert_eq!(notes.any.len(), 0);
    }
    // Large: the span names it; elements straddle the pieces.
    let count = 3 * PIECE / 40 + 1;
    let object = yard.alloc_large(count * 40, Kind::TypedShared, layout);
    number(object, count * 5);
    let (notes, pieces) = scan(&mut yard, object);
    assert_eq!(notes.exact, expected(count));
    assert_eq!(pieces, 4);
}

#[test]
fn a_layout_number_that_was_overwritten_is_named() {
    const CHILD: &str = "SCANNING_CHILD";
    let numbers = ["1", "66560", "4294967296", "18446744073709551615"];
    if let Ok(number) = std::env::var(CHILD) {
        let mut yard = Yard::new(Encoding::default(), None);
        yard.shapes.layouts.register(&yard.heap, 16, &[8]).expect("a layout, number 0");
        let object = yard.alloc_class(SpanClass::new(Kind::TypedShared, class_of_aligned(32)));
        write(object, 3, number.parse().expect("a number"));
        scan(&mut yard, object);
        std::process::exit(0);
    }
    for number in numbers {
        let output = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "a_layout_number_that_was_overwritten_is_named", "--nocapture"])
            .env(CHILD, number)
            .output()
            .expect("a child");
        let line = String::from_utf8_lossy(&output.stderr);
        assert!(line.contains(&format!("names layout {number}, which is not registered")), "{output:?}");
    }
}

#[test]
fn elements_larger_than_a_piece_are_shown_once() {
    let mut yard = Yard::new(Encoding::default(), None);
    let bytes = PIECE + PIECE / 2;
    let offsets = [0, PIECE as u32 - 8, PIECE as u32, bytes as u32 - 8];
    let layout = yard.shapes.layouts.register(&yard.heap, bytes, &offsets).expect("a layout");
    let (layout, _) = yard.shapes.layouts.registered(layout).expect("registered");
    assert!(layout as usize >= OWN_LAYOUTS, "too large for a span class of its own");
    let object = yard.alloc_large(2 * bytes, Kind::TypedShared, layout);
    number(object, 2 * bytes / 8);
    let expected: Vec<usize> =
        (0..2).flat_map(|n| offsets.map(|o| n * bytes / 8 + o as usize / 8 + 1)).collect();
    assert_eq!(scan(&mut yard, object).0.exact, expected);
}

/// Shows its words but the first, which is their count; also as a range of values.
unsafe extern "C" fn trace_words(tracer: *mut Tracer<'_>, object: *mut c_void, _: *mut c_void) {
    let words = object.cast_const().cast::<usize>();
    // SAFETY: the tests write such objects.
    unsafe {
        for n in 1..=words.read() {
            (*tracer).trace(std::ptr::without_provenance(words.add(n).read()));
        }
        (*tracer).trace_range(words.add(1).cast(), words.read(), Kind::Values);
        (*tracer).trace_range(words.add(1).cast(), 1, Kind::Conservative);
        (*tracer).trace_range(words.add(1).cast(), 1, Kind::NoScan);
        (*tracer).trace_range(words.add(1).cast(), 1, Kind::Traced);
    }
}

#[test]
fn traced_objects_show_what_their_function_names() {
    let mut yard = Yard::new(Encoding::default(), Some(trace_words));
    for bytes in [64, 200_000] {
        let object = yard.alloc(bytes, Kind::Traced);
        write(object, 0, 3);
        (1..8).for_each(|n| write(object, n, n as u64 * 4));
        let (notes, pieces) = scan(&mut yard, object);
        assert_eq!(notes.any, [4, 4, 8, 12], "{bytes} bytes: one by one, and a conservative range of one");
        assert_eq!(notes.exact, [8], "of the range of values, those with no low bit of three");
        assert_eq!(pieces, 1);
    }
    let mut yard = Yard::new(Encoding::default(), None);
    let object = yard.alloc(64, Kind::Traced);
    number(object, 8);
    let (notes, _) = scan(&mut yard, object);
    assert_eq!((notes.any.len(), notes.exact.len()), (0, 0), "without a function there are no edges");
}

#[test]
fn ranges_are_read_as_their_kind() {
    let yard = Yard::new(Encoding::default(), None);
    let words = [8usize, 9, 16];
    let shown = |kind| {
        let mut notes = Notes { shapes: &yard.shapes, exact: Vec::new(), any: Vec::new() };
        // SAFETY: an array of that many words.
        unsafe { scan_words(words.as_ptr(), 3, kind, &yard.shapes.encoding, &mut notes) };
        let notes = notes.sort();
        (notes.any, notes.exact)
    };
    assert_eq!(shown(Kind::Conservative), (vec![8, 9, 16], vec![]));
    assert_eq!(shown(Kind::Values), (vec![], vec![8, 16]));
    for kind in [Kind::NoScan, Kind::Traced, Kind::Typed, Kind::TypedShared] {
        assert_eq!(shown(kind), (vec![], vec![]), "{kind:?} is no kind of ranges");
    }
}

#[test]
fn layouts_have_a_span_class_while_there_are_some() {
    let yard = Yard::new(Encoding::default(), None);
    let layouts = &yard.shapes.layouts;
    let large = layouts.register(&yard.heap, 40_000, &[0]).expect("a layout");
    for n in 0..OWN_LAYOUTS {
        let own = layouts.register(&yard.heap, 16 + n % 50 * 8, &[8]).expect("a layout");
        assert_eq!(yard.heap.classes().get(SpanClass(own as u16)).facts().kind, Kind::Typed);
        assert_eq!(layouts.registered(own).map(|(number, _)| number), Some(n as u32));
    }
    let shared = layouts.register(&yard.heap, 16, &[8]).expect("a layout");
    assert_eq!(shared, large + 1, "small ones follow the large when the classes are used up");
    assert_eq!(layouts.registered(shared + 1).map(|_| ()), None);
    assert_eq!(layouts.registered(0).map(|_| ()), None);
    assert_eq!(layouts.register(&yard.heap, 0, &[]), Err(LayoutError::Invalid));
}
