//! The checks bite: each falsifies one counter or one structure in a child process, which must end with the line that
//! names it.

use crate::{Heap, Kind, Mutator, Options};
use besom_alloc_core::page_cache::PageCache;
use besom_alloc_core::runs::Colour;
use besom_alloc_core::size_class::class_of_aligned;
use besom_alloc_core::span_class::SpanClass;
use besom_alloc_core::units::Bytes;
use besom_gc::pacer::CycleEnd;
use besom_stats::StatsGuard;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::Pin;
use std::process::Command;

const CHILD: &str = "BESOM_TEST_FALSIFIED";

/// A heap with some of everything on it: slots of several classes, large objects, garbage that is swept and that is not.
fn furnished() -> Pin<Box<Heap>> {
    let options = Options { scan_native_stacks: 0, gc_percent: 0, ..Options::default() };
    let heap = Heap::new(&options).expect("a heap");
    let mut m = heap.attach().expect("attach");
    let kept: Vec<_> = [16, 48, 112, 4096, 40_000, 200_000]
        .into_iter()
        .map(|bytes| {
            let object = m.alloc(bytes, Kind::NoScan).expect("memory");
            m.handle(object.as_ptr()).expect("a handle")
        })
        .collect();
    for n in 0..2000 {
        m.alloc(n % 1000, Kind::Values).expect("memory");
        m.alloc(n % 15, Kind::NoScan).expect("memory");
    }
    m.collect();
    for n in 0..200 {
        m.alloc(n * 7 % 300, Kind::Conservative).expect("memory");
    }
    std::mem::forget(kept);
    drop(m);
    heap
}

/// Falsifies, in a child process, and reads the statistics; the child must abort and its one line begin with `line`.
fn is_told(test: &str, line: &str, read: fn(&mut Mutator<'_>), falsify: impl FnOnce(&Heap)) {
    if std::env::var_os(CHILD).is_some() {
        let heap = furnished();
        let mut m = heap.attach().expect("attach");
        let (counted, walked) = m.mem_stats_slow();
        assert!(counted == walked, "they agree before anything is falsified");
        falsify(&heap);
        read(&mut m);
        std::process::exit(0);
    }
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", &format!("mem_stats::tests::{test}"), "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .expect("a child");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "{test}: {output:?}");
    assert!(said.starts_with(line) && said.lines().count() == 1, "{test} said {said:?}, expected {line:?}");
}

fn slow(m: &mut Mutator<'_>) {
    m.mem_stats_slow();
}

/// Without the walk: the identities alone, which debug builds check.
#[cfg(debug_assertions)]
fn fast(m: &mut Mutator<'_>) {
    m.mem_stats();
}

macro_rules! told {
    ($read:ident; $($name:ident: $line:literal, $falsify:expr;)+) => {
        $(
            #[test]
            fn $name() {
                is_told(stringify!($name), $line, $read, $falsify);
            }
        )+
    };
}

fn guarded(heap: &Heap, add: impl FnOnce(&StatsGuard<'_>)) {
    add(&heap.spans.stats().unattached().acquire());
}

fn class(bytes: usize) -> usize {
    class_of_aligned(bytes).0 as usize
}

told! { slow;
    in_heap: "besom: mem_stats: heap_idle: ", |heap| guarded(heap, |g| g.in_heap(8192));
    released: "besom: mem_stats: heap_released: ", |heap| guarded(heap, |g| g.released(8192));
    committed: "besom: mem_stats: committed - stacks - work bufs - metadata, and pages in use and free: ",
        |heap| guarded(heap, |g| g.committed(-8192));
    mapped: "besom: mem_stats: sys: ", |heap| guarded(heap, |g| g.mapped(4096));
    work_bufs: "besom: mem_stats: sys: ",
        |heap| guarded(heap, |g| {
            g.in_work_bufs(4096);
            g.committed(4096);
            g.mapped(4096);
        });
    allocs: "besom: mem_stats: alloc: 280144 counted, 280096 walked; class 48 mallocs 44/43 frees 32/32",
        |heap| guarded(heap, |g| g.small_alloc(class(48), 1));
    frees: "besom: mem_stats: alloc: 280048 counted, 280096 walked; class 48 mallocs 43/44 frees 33/33",
        |heap| guarded(heap, |g| g.small_free(class(48), 1));
    large_frees: "besom: mem_stats: mallocs: ", |heap| guarded(heap, |g| g.large_free(0));
    one_object_for_another: "besom: mem_stats: mallocs: ",
        |heap| guarded(heap, |g| {
            g.small_alloc(class(48), 1u64.wrapping_neg());
            g.small_alloc(class(16), 3);
        });
    the_pacer: "besom: mem_stats: total_alloc, and the pacer's: ",
        |heap| heap.collector.pacer().credit(16);
    garbage_that_the_pacer_does_not_know: "besom: mem_stats: total_free and garbage, and the pacer's: ",
        |heap| {
            let pacer = heap.collector.pacer();
            pacer.end_cycle(CycleEnd { live: Bytes(pacer.live() as usize - 16), ..CycleEnd::default() });
        };
    a_span_that_told_less: "besom: mem_stats: class 48: ",
        |heap| {
            let object = object_before_a_free_slot(heap);
            heap.spans.tables().set_allocated(object + 48);
            guarded(heap, |g| g.small_alloc(class(48), 1));
        };
    spans_sys: "besom: mem_stats: sys: ", |heap| heap.spans.system().spans.add(64);
    page_tables_sys: "besom: mem_stats: sys: ", |heap| heap.spans.system().page_tables.add(8);
    mark_bits_sys: "besom: mem_stats: sys: ", |heap| heap.spans.system().mark_bits.add(8);
    mcaches_sys: "besom: mem_stats: sys: ", |heap| heap.spans.system().mcaches.add(8);
    gc_sys: "besom: mem_stats: sys: ", |heap| heap.spans.system().gc.add(8);
    other_sys: "besom: mem_stats: sys: ", |heap| heap.spans.system().other.add(8);
    one_kind_for_another: "besom: mem_stats: page_tables_sys: ",
        |heap| {
            heap.spans.system().page_tables.add(8);
            heap.spans.system().gc.add(-8);
        };
    an_allocation_bit: "besom: mem_stats: alloc: ",
        |heap| {
            let object = object_before_a_free_slot(heap);
            heap.spans.tables().set_allocated(object + 48);
        };
}

#[cfg(debug_assertions)]
told! { fast;
    in_heap_alone: "besom: mem_stats: in_heap, and the page heap's pages in use: ",
        |heap| guarded(heap, |g| g.in_heap(8192));
    released_alone: "besom: mem_stats: released, and the page heap's: ", |heap| guarded(heap, |g| g.released(8192));
    committed_alone: "besom: mem_stats: committed - stacks - work bufs - metadata, and pages in use and free: ",
        |heap| guarded(heap, |g| g.committed(-8192));
    mapped_alone: "besom: mem_stats: committed + released, and mapped: ", |heap| guarded(heap, |g| g.mapped(4096));
    work_bufs_alone: "besom: mem_stats: in_work_bufs, and the mark queue's: ",
        |heap| guarded(heap, |g| {
            g.in_work_bufs(4096);
            g.committed(4096);
            g.mapped(4096);
        });
    allocs_alone: "besom: mem_stats: total_alloc, and the pacer's: ",
        |heap| guarded(heap, |g| g.small_alloc(class(48), 1));
    frees_alone: "besom: mem_stats: total_free, and the pacer's: ",
        |heap| guarded(heap, |g| g.small_free(class(48), 1));
    more_frees_than_allocs: "besom: mem_stats: class 32768: 0 mallocs against 1 frees",
        |heap| guarded(heap, |g| g.small_free(class(32768), 1));
}

/// The offset of a new object of 48 bytes, behind which a slot is free.
fn object_before_a_free_slot(heap: &Heap) -> usize {
    let mut cache = PageCache::new();
    let writer = heap.spans.stats().unattached();
    let page = heap
        .spans
        .take(SpanClass::new(Kind::Traced, class_of_aligned(48)), &mut cache, writer)
        .expect("memory");
    let span = heap.spans.tables().span(page);
    span.cache(heap.spans.generation());
    let run = heap.spans.next_run(page, 1, Colour::White).expect("a run");
    writer.acquire().small_alloc(class(48), span.take_uncounted().into());
    heap.collector.pacer().credit(48);
    span.uncache(heap.spans.generation());
    heap.spans.put(page, Some(&mut cache), writer);
    heap.spans.pages().flush_cache(&mut cache, writer);
    run.start
}

/// What one reads of them in a heap whose history is known.
#[test]
fn each_field_is_what_happened() {
    let options = Options { scan_native_stacks: 0, gc_percent: 0, ..Options::default() };
    let heap = Heap::new(&options).expect("a heap");
    let mut m: Mutator<'_> = heap.attach().expect("attach");
    let object = m.alloc(40_000, Kind::NoScan).expect("memory");
    let _kept = m.handle(object.as_ptr()).expect("a handle");
    for _ in 0..300 {
        m.alloc(8, Kind::NoScan).expect("memory");
        m.alloc(100, Kind::Values).expect("memory");
    }
    let s = m.mem_stats();
    // 150 blocks of two tiny objects each.
    assert_eq!((s.mallocs, s.frees, s.tiny_allocs), (601, 150, 150));
    assert_eq!((s.heap_objects, s.heap_alloc), (1 + 150 + 300, 40_960 + 150 * 16 + 300 * 112));
    assert_eq!((s.total_alloc, s.num_gc), (s.heap_alloc, 0));
    m.collect();
    let s = m.mem_stats();
    assert_eq!((s.mallocs, s.frees, s.heap_objects, s.heap_alloc), (601, 600, 1, 40_960));
    assert_eq!((s.num_gc, s.num_forced_gc), (1, 1));
    assert_eq!(s.by_size[class(100)].frees, 300);
    assert_eq!((s.by_size[0].mallocs, s.by_size[0].frees), (1, 0));
    assert_eq!((s.heap_inuse, s.heap_sys), (40_960, 4 << 20));
    assert_eq!(s.pause_ns[0], s.pause_total_ns);
    assert!(s.pause_total_ns > 0 && s.gc_cpu_ns > 0 && s.last_gc_unix_ns == s.pause_end_unix_ns[0]);
    assert!(s.gc_cpu_fraction > 0.0 && s.gc_cpu_fraction <= 1.0);
    assert!(
        s.sys > s.heap_sys && s.mcaches_sys > 0 && s.gc_sys > 0 && s.other_sys > size_of::<Heap>() as u64
    );
}
