//! Marking: everything that is reachable, nothing else, with one worker and with several, when the queue's memory is
//! used up; and the second marker, which finds what the first missed.

mod yard;

use besom_alloc_core::heap_tables::mark_word;
use besom_alloc_core::size_class::{SizeClass, class_of_aligned};
use besom_alloc_core::span_class::{Kind, SpanClass};
use besom_alloc_core::units::Bytes;
use besom_gc::mark::{Marked, Marker};
use besom_gc::scan::PIECE;
use besom_gc::timeline::Timeline;
use besom_gc::verify::verify_marks;
use besom_gc::{Encoding, Specials, Tracer};
use std::ffi::c_void;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;
use yard::Yard;

/// Live bytes from which on helpers take part.
const MANY: Bytes = Bytes(64 << 20);
const QUEUE_LEAST: Bytes = Bytes(1);

fn write(object: *mut u64, word: usize, value: *mut u64) {
    // SAFETY: callers write words of their objects.
    unsafe { object.add(word).write(value.expose_provenance() as u64) };
}

fn mark(yard: &mut Yard, marker: &Marker, likely: Bytes, roots: &[*mut u64]) -> Marked {
    let stopped = yard.stop();
    let helpers = marker.prepare(likely);
    let timeline = Timeline::new(1, Instant::now());
    let specials = Specials::new(Bytes(1 << 30)).expect("specials");
    marker.mark(&yard.heap, &yard.shapes, &specials, &stopped, helpers, &timeline, |visitor| {
        roots.iter().for_each(|root| visitor.any(root.addr()));
        Bytes(roots.len() * 8)
    })
}

fn verified(yard: &Yard, roots: &[*mut u64]) -> Option<usize> {
    verify_marks(&yard.heap, &yard.shapes, false, |visitor| {
        roots.iter().for_each(|root| visitor.any(root.addr()));
        Bytes(0)
    })
}

/// The same for words of a native stack, after threads ran beside the first marker, or not.
fn verified_stack(yard: &Yard, beside: bool, words: &[*mut u64]) -> Option<usize> {
    verify_marks(&yard.heap, &yard.shapes, beside, |visitor| {
        words.iter().for_each(|word| visitor.stale(word.addr()));
        Bytes(0)
    })
}

fn is_marked(yard: &Yard, object: *mut u64) -> bool {
    yard.heap.tables().is_marked(yard.heap.find(object.addr()).expect("an object").offset)
}

/// Marked objects, by a walk.
fn marked(yard: &mut Yard) -> usize {
    let stopped = yard.stop();
    let mut count = 0;
    yard.heap.for_each_span(&stopped, |page, span| {
        yard.heap
            .for_each_object(page, span, |offset| count += usize::from(yard.heap.tables().is_marked(offset)));
    });
    count
}

#[test]
fn what_is_reachable_is_marked_and_nothing_else() {
    let mut yard = Yard::new(Encoding::default(), None);
    let root = yard.alloc(32, Kind::Values);
    let (left, right) = (yard.alloc(64, Kind::Conservative), yard.alloc(50_000, Kind::Values));
    let (leaf, cycle) = (yard.alloc(16, Kind::NoScan), yard.alloc(16, Kind::Values));
    let (dead, deader) = (yard.alloc(16, Kind::Values), yard.alloc(16, Kind::Values));
    write(root, 0, left);
    write(root, 3, right);
    write(left, 7, leaf.wrapping_byte_add(15));
    write(right, 6249, cycle);
    write(cycle, 1, root);
    // A pointer in an object without pointers; the dead lead to the living, and to each other.
    write(leaf, 0, dead);
    write(dead, 0, root);
    write(dead, 1, deader);
    write(deader, 0, dead);
    let marker = Marker::new(1, QUEUE_LEAST).expect("a marker");
    let found = mark(&mut yard, &marker, Bytes(0), &[root]);
    for (name, object) in [("root", root), ("left", left), ("right", right), ("leaf", leaf), ("cycle", cycle)]
    {
        assert!(is_marked(&yard, object), "{name}");
    }
    assert!(!is_marked(&yard, dead) && !is_marked(&yard, deader));
    assert_eq!(found.live, Bytes(32 + 64 + 57_344 + 16 + 16));
    assert_eq!((found.roots, found.workers), (Bytes(8), 1));
    assert_eq!(verified(&yard, &[root]), Some(5));
}

#[test]
fn a_list_of_any_length_is_followed() {
    let mut yard = Yard::new(Encoding::default(), None);
    let mut head = std::ptr::null_mut();
    const LENGTH: usize = 300_000;
    for _ in 0..LENGTH {
        let node = yard.alloc(16, Kind::Values);
        write(node, 0, head);
        head = node;
    }
    let marker = Marker::new(1, QUEUE_LEAST).expect("a marker");
    assert_eq!(mark(&mut yard, &marker, Bytes(0), &[head]).live, Bytes(LENGTH * 16));
    assert_eq!(verified(&yard, &[head]), Some(LENGTH));
}

/// An array of `count` objects that each lead to one more.
fn bush(yard: &mut Yard, count: usize) -> *mut u64 {
    let array = yard.alloc(count * 8, Kind::Values);
    for n in 0..count {
        let (inner, leaf) = (yard.alloc(16, Kind::Values), yard.alloc(32, Kind::Values));
        write(inner, 1, leaf);
        write(array, n, inner);
    }
    array
}

#[test]
fn a_queue_that_overflows_loses_nothing() {
    for (workers, likely) in [(1, Bytes(0)), (3, MANY)] {
        let mut yard = Yard::new(Encoding::default(), None);
        // More pointers in one array than the least queue has entries.
        const COUNT: usize = 400_000;
        let array = bush(&mut yard, COUNT);
        let dead = yard.alloc(64, Kind::Values);
        let marker = Marker::new(workers, QUEUE_LEAST).expect("a marker");
        let found = mark(&mut yard, &marker, likely, &[array]);
        assert_eq!(verified(&yard, &[array]), Some(2 * COUNT + 1), "{workers} workers");
        assert_eq!(marked(&mut yard), 2 * COUNT + 1, "{workers} workers");
        assert!(!is_marked(&yard, dead));
        let pages = (COUNT * 8usize).next_multiple_of(8192);
        assert_eq!(found.live, Bytes(COUNT * 48 + pages), "{workers} workers");
        assert!(marker.work_bytes() <= Bytes(2 << 20), "{:?}", marker.work_bytes());
    }
}

#[test]
fn workers_together_mark_what_one_marks() {
    let mut yard = Yard::new(Encoding::default(), None);
    let roots: Vec<_> = (0..20).map(|_| bush(&mut yard, 5000)).collect();
    let marker = Marker::new(4, Bytes(1 << 30)).expect("a marker");
    let found = mark(&mut yard, &marker, MANY, &roots);
    assert_eq!(verified(&yard, &roots), Some(20 * 10_001));
    assert_eq!(marked(&mut yard), 20 * 10_001);
    assert_eq!(found.live, Bytes(20 * (5000 * 48 + 40_960)));
    assert!((1..=4).contains(&found.workers), "{found:?}");
}

#[test]
fn a_marker_can_be_used_again_and_again() {
    let mut yard = Yard::new(Encoding::default(), None);
    let root = bush(&mut yard, 2000);
    let marker = Marker::new(3, Bytes(1 << 30)).expect("a marker");
    for round in 0..50 {
        let likely = if round % 3 == 0 { Bytes(0) } else { MANY };
        let found = mark(&mut yard, &marker, likely, &[root]);
        assert_eq!(marked(&mut yard), 4001, "round {round}");
        assert_eq!(found.live, Bytes(2000 * 48 + 16_384), "round {round}");
        // The next round: all marks away, as the sweep leaves them.
        let stopped = yard.stop();
        yard.heap.advance_generation(&stopped);
        yard.heap.finish_sweep(yard.heap.stats().unattached());
        yard.heap.check(&stopped);
        assert_eq!(marked(&mut yard), 0);
    }
}

/// Runs `broken` in a child process, which must be aborted with a line that holds `parts`.
fn dies(test: &str, parts: &[&str], broken: impl FnOnce()) {
    const CHILD: &str = "MARKING_CHILD";
    if std::env::var_os(CHILD).is_some() {
        broken();
        std::process::exit(0);
    }
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .expect("a child");
    let line = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "{output:?}");
    assert!(parts.iter().all(|part| line.contains(part)), "{line}");
}

#[test]
fn an_object_that_was_missed_is_named_with_its_path() {
    let parts = ["besom: verify: ", "from a root ", "64 bytes, which is not marked"];
    dies("an_object_that_was_missed_is_named_with_its_path", &parts, || {
        let mut yard = Yard::new(Encoding::default(), None);
        let (root, middle, missed) =
            (yard.alloc(16, Kind::Values), yard.alloc(16, Kind::Values), yard.alloc(64, Kind::Values));
        write(root, 0, middle);
        let marker = Marker::new(1, QUEUE_LEAST).expect("a marker");
        mark(&mut yard, &marker, Bytes(0), &[root]);
        // An edge that the first marker did not see.
        write(middle, 1, missed);
        verified(&yard, &[root]);
    });
}

#[test]
fn a_root_that_was_missed_is_named() {
    let parts = ["besom: verify: a root leads to ", "16 bytes, which is not marked"];
    dies("a_root_that_was_missed_is_named", &parts, || {
        let mut yard = Yard::new(Encoding::default(), None);
        let root = yard.alloc(16, Kind::Values);
        yard.stop();
        verified(&yard, &[root]);
    });
}

#[test]
fn what_a_call_left_on_a_stack_is_a_root_only_if_no_thread_ran_since() {
    let parts = ["besom: verify: a root leads to ", "32 bytes, which is not marked"];
    dies("what_a_call_left_on_a_stack_is_a_root_only_if_no_thread_ran_since", &parts, || {
        let mut yard = Yard::new(Encoding::default(), None);
        let (root, leaf, dead) =
            (yard.alloc(16, Kind::Values), yard.alloc(16, Kind::NoScan), yard.alloc(32, Kind::Values));
        write(root, 0, leaf);
        let marker = Marker::new(1, QUEUE_LEAST).expect("a marker");
        mark(&mut yard, &marker, Bytes(0), &[root]);
        assert_eq!(verified_stack(&yard, true, &[dead, root]), Some(2));
        verified_stack(&yard, false, &[dead, root]);
    });
}

#[test]
fn a_pointer_to_no_object_is_named() {
    let parts = ["besom: verify: ", "points to 0x", "where no object is"];
    dies("a_pointer_to_no_object_is_named", &parts, || {
        let mut yard = Yard::new(Encoding::default(), None);
        let root = yard.alloc(16, Kind::Values);
        let marker = Marker::new(1, QUEUE_LEAST).expect("a marker");
        mark(&mut yard, &marker, Bytes(0), &[root]);
        // The next slot of the span, which is not allocated.
        write(root, 0, root.wrapping_add(64));
        verified(&yard, &[root]);
    });
}

static TRACED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn count_calls(_: *mut Tracer<'_>, _: *mut c_void, _: *mut c_void) {
    TRACED.fetch_add(1, Relaxed);
}

#[test]
fn a_large_traced_object_is_traced_once() {
    let mut yard = Yard::new(Encoding::default(), Some(count_calls));
    let root = yard.alloc(1 << 20, Kind::Traced);
    let marker = Marker::new(1, QUEUE_LEAST).expect("a marker");
    assert_eq!(mark(&mut yard, &marker, Bytes(0), &[root]).live, Bytes(1 << 20));
    assert_eq!(TRACED.load(Relaxed), 1);
}

#[test]
fn objects_of_a_layout_without_pointers_are_marked_and_counted() {
    let mut yard = Yard::new(Encoding::default(), None);
    let [free, other] = [&[][..], &[0]].map(|offsets| {
        let public = yard.shapes.layouts.register(&yard.heap, 48, offsets).expect("a layout");
        SpanClass(public as u16)
    });
    let root = yard.alloc(32, Kind::Values);
    let (first, second, third) = (yard.alloc_class(free), yard.alloc_class(other), yard.alloc_class(free));
    write(root, 0, first);
    write(root, 1, second);
    write(second, 0, third);
    write(first, 0, yard.alloc(16, Kind::Values));
    let marker = Marker::new(1, QUEUE_LEAST).expect("a marker");
    assert_eq!(mark(&mut yard, &marker, Bytes(0), &[root]).live, Bytes(32 + 3 * 48));
    assert_eq!(marked(&mut yard), 4);
    assert_eq!(verified(&yard, &[root]), Some(4));
    // None of them waits to be scanned: more than a block would hold take no block.
    let array = yard.alloc(2000 * 8, Kind::Values);
    (0..2000).for_each(|n| write(array, n, yard.alloc_class(free)));
    mark(&mut yard, &marker, Bytes(0), &[array]);
    assert_eq!(marked(&mut yard), 4 + 2001);
    assert_eq!(marker.work_bytes(), Bytes(0));
}

/// A mark is that of the object whose start it is: of a neighbour that begins in the granule in which a word points, too.
#[test]
fn a_word_into_an_object_beside_a_marked_one_marks_it() {
    for class in 1..67 {
        let class = SpanClass::new(Kind::Values, SizeClass(class));
        let mut yard = Yard::new(Encoding::default(), None);
        let slot = yard.heap.classes().get(class).facts().slot_bytes as usize;
        // More than one of each, since every other slot of 24 bytes begins in the middle of a granule.
        let objects: Vec<_> = (0..4).map(|_| yard.alloc_class(class)).collect();
        for at in (0..slot).step_by(8).chain([slot - 1]) {
            for object in 0..4 {
                let marker = Marker::new(1, QUEUE_LEAST).expect("a marker");
                let word = objects[object].wrapping_byte_add(at);
                let roots: Vec<_> =
                    (0..4).filter(|n| *n != object).map(|n| objects[n]).chain([word]).collect();
                mark(&mut yard, &marker, Bytes(0), &roots);
                assert!(
                    objects.iter().all(|object| is_marked(&yard, *object)),
                    "{at} inside {object}, {slot} bytes"
                );
                for offset in objects.iter().map(|object| object.addr() - yard.heap.tables().base()) {
                    let (word, bit) = mark_word(offset);
                    yard.heap.tables().marks()[word].fetch_and(!bit, Relaxed);
                }
            }
            if slot > 1024 {
                break;
            }
        }
    }
}

/// Marks from an object that holds an exact pointer to `at` bytes inside one of this class.
fn mark_inside(class: SpanClass, at: usize) {
    let mut yard = Yard::new(Encoding { mask: 0, tag: 0, address: !0 }, None);
    let root = yard.alloc(16, Kind::Values);
    yard.alloc_class(class);
    let object = yard.alloc_class(class);
    // A neighbour, whose mark an inner pointer can hit.
    yard.alloc_class(class);
    write(root, 0, object.wrapping_byte_add(at));
    let marker = Marker::new(1, QUEUE_LEAST).expect("a marker");
    mark(&mut yard, &marker, Bytes(0), &[root]);
}

#[test]
fn an_exact_pointer_into_an_objects_first_granule_is_named() {
    let parts =
        ["besom: zombie: 0x", "is reached by an exact pointer, and lies 8 bytes inside the object at 0x"];
    let class = SpanClass::new(Kind::Values, class_of_aligned(48));
    dies("an_exact_pointer_into_an_objects_first_granule_is_named", &parts, || mark_inside(class, 8));
}

#[test]
fn an_exact_pointer_into_an_object_of_24_bytes_is_named() {
    let parts =
        ["besom: zombie: 0x", "is reached by an exact pointer, and lies 16 bytes inside the object at 0x"];
    let class = SpanClass::new(Kind::Values, SizeClass(2));
    dies("an_exact_pointer_into_an_object_of_24_bytes_is_named", &parts, || mark_inside(class, 16));
}

#[test]
fn exact_pointers_to_starts_are_none_of_these() {
    for class in 1..67 {
        mark_inside(SpanClass::new(Kind::Values, SizeClass(class)), 0);
    }
    // Tiny objects share a slot.
    mark_inside(SpanClass::new(Kind::NoScan, SizeClass(1)), 8);
}

/// As many as fill the least queue, of 1 MiB, and one more: the last finds no room.
const STEPS: usize = 9;
const WORDS: usize = PIECE / 8;

/// Arrays that lead to one more each, in the word that is scanned last and followed first; all other words lead to
/// objects, which wait: more than the least queue has entries. The last array leads to `last`.
fn steps(yard: &mut Yard, last: *mut u64) -> *mut u64 {
    steps_of(yard, STEPS, PIECE, last)
}

/// The same of any arrays.
fn steps_of(yard: &mut Yard, steps: usize, bytes: usize, last: *mut u64) -> *mut u64 {
    (0..steps).fold(last, |below, _| {
        let array = yard.alloc(bytes, Kind::Values);
        write(array, 0, below);
        let kind = |n| if n % 2 == 0 { Kind::Values } else { Kind::Traced };
        (1..bytes / 8).for_each(|n| write(array, n, yard.alloc(16, kind(n))));
        array
    })
}

/// Bytes of the largest small objects, and as many arrays of that size as [`STEPS`] are of pieces.
const SMALL: usize = 32 << 10;
const SMALL_STEPS: usize = STEPS * PIECE / SMALL;

#[test]
fn a_small_object_fills_more_than_a_block() {
    for (workers, likely) in [(1, Bytes(0)), (3, MANY)] {
        let mut yard = Yard::new(Encoding::default(), None);
        let leaf = yard.alloc(16, Kind::Values);
        // The first comes from the roots, the others from the stack.
        let top = steps_of(&mut yard, 3, SMALL, leaf);
        let marker = Marker::new(workers, Bytes(1 << 30)).expect("a marker");
        let found = mark(&mut yard, &marker, likely, &[top]);
        assert_eq!(marked(&mut yard), 3 * SMALL / 8 + 1, "{workers} workers");
        assert_eq!(verified(&yard, &[top]), Some(3 * SMALL / 8 + 1));
        assert_eq!(found.live, Bytes(3 * (SMALL + (SMALL / 8 - 1) * 16) + 16), "{workers} workers");
    }
}

#[test]
fn what_waits_too_deep_in_small_objects_is_found_again() {
    let mut yard = Yard::new(Encoding::default(), None);
    let (last, leaf) = (yard.alloc(SMALL, Kind::Values), yard.alloc(16, Kind::Values));
    write(last, SMALL / 8 - 1, leaf);
    let top = steps_of(&mut yard, SMALL_STEPS, SMALL, last);
    let marker = Marker::new(1, QUEUE_LEAST).expect("a marker");
    let found = mark(&mut yard, &marker, Bytes(0), &[top]);
    assert_eq!(verified(&yard, &[top]), Some(SMALL_STEPS * SMALL / 8 + 2));
    assert_eq!(found.live, Bytes(SMALL_STEPS * (SMALL + (SMALL / 8 - 1) * 16) + SMALL + 16));
}

#[test]
fn an_exact_pointer_into_an_object_is_named_when_the_queue_is_full_of_small_objects() {
    let parts =
        ["besom: zombie: 0x", "is reached by an exact pointer, and lies 8 bytes inside the object at 0x"];
    dies("an_exact_pointer_into_an_object_is_named_when_the_queue_is_full_of_small_objects", &parts, || {
        let mut yard = Yard::new(Encoding::default(), None);
        let small = yard.alloc(48, Kind::Values);
        let top = steps_of(&mut yard, SMALL_STEPS, SMALL, small.wrapping_byte_add(8));
        let marker = Marker::new(1, QUEUE_LEAST).expect("a marker");
        mark(&mut yard, &marker, Bytes(0), &[top]);
    });
}

#[test]
fn what_waits_too_deep_for_the_queue_is_found_again() {
    let mut yard = Yard::new(Encoding::default(), None);
    let (last, leaf) = (yard.alloc(100_000, Kind::Values), yard.alloc(16, Kind::Values));
    write(last, 12_000, leaf);
    let top = steps(&mut yard, last);
    let marker = Marker::new(1, QUEUE_LEAST).expect("a marker");
    let found = mark(&mut yard, &marker, Bytes(0), &[top]);
    assert_eq!(verified(&yard, &[top]), Some(STEPS * WORDS + 2));
    assert_eq!(found.live, Bytes(STEPS * (PIECE + (WORDS - 1) * 16) + 106_496 + 16));
}

#[test]
fn an_exact_pointer_into_a_large_object_is_named_when_the_queue_is_full() {
    let parts = [
        "besom: zombie: 0x",
        "is reached by an exact pointer, and lies 4096 bytes inside the large object at 0x",
    ];
    dies("an_exact_pointer_into_a_large_object_is_named_when_the_queue_is_full", &parts, || {
        let mut yard = Yard::new(Encoding::default(), None);
        let large = yard.alloc(100_000, Kind::Values);
        let top = steps(&mut yard, large.wrapping_byte_add(4096));
        let marker = Marker::new(1, QUEUE_LEAST).expect("a marker");
        mark(&mut yard, &marker, Bytes(0), &[top]);
    });
}
