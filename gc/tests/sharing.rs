//! What workers share: the credit that they earn for mutators, and work for those who have none. Trace functions look from within
//! marking.

mod yard;

use besom_alloc_core::span_class::Kind;
use besom_alloc_core::units::Bytes;
use besom_gc::mark::Marker;
use besom_gc::mark::turn::Turns;
use besom_gc::timeline::Timeline;
use besom_gc::{Encoding, Specials, TraceFn, Tracer};
use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::ThreadId;
use std::time::{Duration, Instant};
use yard::Yard;

const SLOT: usize = 4096;

/// A tree of so many traced objects, each of which leads to two.
fn tree(yard: &mut Yard, count: usize) -> *mut u64 {
    let nodes: Vec<_> = (0..count).map(|_| yard.alloc(SLOT, Kind::Traced)).collect();
    for (n, node) in nodes.iter().enumerate() {
        for (word, child) in
            [2 * n + 1, 2 * n + 2].into_iter().enumerate().filter(|(_, child)| *child < count)
        {
            // SAFETY: a word of the object.
            unsafe { node.add(word).write(nodes[child].expose_provenance() as u64) };
        }
    }
    nodes[0]
}

/// Shows the two objects that `object` leads to.
///
/// # Safety
/// As for a trace function.
unsafe fn show(tracer: *mut Tracer<'_>, object: *mut c_void) {
    // SAFETY: the collector's promise.
    unsafe { (0..2).for_each(|word| (*tracer).trace(*object.cast::<*const c_void>().add(word))) };
}

fn yard<T>(trace: TraceFn, data: &T) -> Yard {
    let mut yard = Yard::new(Encoding::default(), Some(trace));
    yard.shapes.data = std::ptr::from_ref(data).cast_mut().cast();
    yard
}

/// Marks beside a program of which no thread runs.
fn mark_beside(yard: &mut Yard, marker: &Marker, helpers: usize, root: *mut u64) {
    marker.begin_beside(&yard.stop());
    let timeline = Timeline::new(1, Instant::now());
    let nobody = || 0;
    let turns = Turns::new(4, true, &nobody);
    marker.lead(&yard.heap, &yard.shapes, helpers, &turns, &timeline, |lead| {
        lead.visit(|visitor| visitor.any(root.addr()));
        assert!(lead.drain(|| true));
    });
}

struct Credit {
    marker: Marker,
    most: AtomicUsize,
    sum: AtomicUsize,
}

impl Credit {
    fn take(&self) {
        let taken = self.marker.reports().take_credit(Bytes(usize::MAX >> 1)).0;
        self.most.fetch_max(taken, Relaxed);
        self.sum.fetch_add(taken, Relaxed);
    }
}

unsafe extern "C" fn take_credit(tracer: *mut Tracer<'_>, object: *mut c_void, data: *mut c_void) {
    // SAFETY: the data are the test's, and live; the rest is the collector's promise.
    unsafe {
        (*data.cast::<Credit>()).take();
        show(tracer, object);
    }
}

/// A mutator that meets a worker in the middle of its turn finds what the worker has marked, but for the last bit.
#[test]
fn what_a_worker_marks_is_credit_long_before_its_turn_ends() {
    const COUNT: usize = 1000;
    let marker = Marker::new(1, Bytes(1 << 30)).expect("a marker");
    let credit = Credit { marker, most: AtomicUsize::new(0), sum: AtomicUsize::new(0) };
    let mut yard = yard(take_credit, &credit);
    let root = tree(&mut yard, COUNT);
    mark_beside(&mut yard, &credit.marker, 0, root);
    let during = credit.sum.load(Relaxed);
    credit.take();
    assert_eq!(credit.sum.load(Relaxed), COUNT * SLOT, "all that the background marks is credit, once");
    assert!(during > COUNT * SLOT - (64 << 10), "{during} bytes while objects were marked");
    let most = credit.most.load(Relaxed);
    assert!((1..=64 << 10).contains(&most), "{most} bytes at once");
}

#[derive(Default)]
struct Who(Mutex<Vec<ThreadId>>);

unsafe extern "C" fn note_who(tracer: *mut Tracer<'_>, object: *mut c_void, data: *mut c_void) {
    // SAFETY: the data are the test's, and live.
    let who = unsafe { &*data.cast::<Who>() };
    let me = std::thread::current().id();
    let alone = {
        let mut who = who.0.lock().expect("no panic");
        if !who.contains(&me) {
            who.push(me);
        }
        who.len() == 1
    };
    if alone {
        // So that a helper has the time to come and to ask.
        std::thread::sleep(Duration::from_micros(200));
    }
    // SAFETY: the collector's promise.
    unsafe { show(tracer, object) };
}

/// One worker has all the work, and another is given some of it: in a stopped world, and beside the program.
#[test]
fn helpers_are_given_work() {
    const COUNT: usize = 20_000;
    for beside in [false, true] {
        let who = Who::default();
        let mut yard = yard(note_who, &who);
        let root = tree(&mut yard, COUNT);
        let marker = Marker::new(2, Bytes(1 << 30)).expect("a marker");
        let helpers = marker.prepare(Bytes(COUNT * SLOT));
        assert_eq!(helpers, 1);
        if beside {
            mark_beside(&mut yard, &marker, helpers, root);
        } else {
            let stopped = yard.stop();
            let timeline = Timeline::new(1, Instant::now());
            let specials = Specials::new(Bytes(1 << 30)).expect("specials");
            marker.mark(&yard.heap, &yard.shapes, &specials, &stopped, helpers, &timeline, |visitor| {
                visitor.any(root.addr());
                Bytes(8)
            });
        }
        assert_eq!(who.0.lock().expect("no panic").len(), 2, "who marked, beside the program: {beside}");
    }
}
