//! Memory: the hard limit, memory given back, what an idle and a full heap cost, heaps that come and go.
//!
//! Figures of the process are read by several tests, so they run one at a time.

use besom::{Error, Heap, Kind, Mutator, Options};
use besom_tests::list::{length, push};
use besom_tests::objects::precise;
use besom_tests::process::{alone, descriptors, mappings, resident, threads};
use besom_tests::{model, rng::Rng};
use std::ffi::{c_int, c_void};

const MIB: usize = 1 << 20;

/// A list whose head a handle holds, 1 KiB a node, until the heap says no. The count.
fn fill(m: &mut Mutator<'_>, head: &besom::HandleRef<'_>) -> usize {
    let mut count = 0;
    while let Some(node) = m.alloc(1024, Kind::Values) {
        // SAFETY: a new object; nothing has been allocated since.
        unsafe { push(head, node) };
        count += 1;
        assert!(count < MIB, "there is no limit");
    }
    count
}

#[test]
fn the_hard_limit_is_none_and_the_heap_usable_afterwards() {
    let _alone = alone();
    let limit = 24 * MIB;
    let heap = Heap::new(&Options { heap_limit: limit, verify: 3, ..precise() }).expect("a heap");
    let mut m = heap.attach().expect("attach");
    let head = m.handle(std::ptr::null_mut()).expect("a handle");
    let first = fill(&mut m, &head);
    assert!((16 << 10..24 << 10).contains(&first), "{first} objects of 1 KiB in 24 MiB");
    assert!(heap.stats().committed as usize <= limit, "{:?}", heap.stats());
    assert!(heap.stats().peak_footprint as usize <= limit, "{:?}", heap.stats());
    assert_eq!(m.alloc(1000, Kind::Values), None, "still full");
    assert_eq!(m.alloc(3 * MIB, Kind::NoScan), None, "no room for a large one");
    assert_eq!(length(&head), first, "what was refused changed nothing");
    m.collect();
    assert_eq!(length(&head), first);
    head.set(std::ptr::null_mut());
    let large = m.alloc(3 * MIB, Kind::NoScan).expect("room, after a collection");
    // SAFETY: a new object of that many bytes.
    assert!(unsafe { std::slice::from_raw_parts(large.as_ptr(), 3 * MIB) }.iter().all(|b| *b == 0), "zeroed");
    let second = fill(&mut m, &head);
    assert!(second * 10 > first * 7, "{second} objects after {first}: the heap is as good as new");
    head.set(std::ptr::null_mut());
    assert_eq!(m.alloc(limit + 1, Kind::NoScan), None, "never fits");
    assert!(m.alloc(1, Kind::NoScan).is_some(), "usable");
    assert_eq!(m.alloc(usize::MAX, Kind::NoScan), None, "no such size");
    assert_eq!(m.alloc(isize::MAX as usize, Kind::Values), None, "no such size");
    m.verify();
}

#[test]
fn threads_that_meet_the_limit_together_all_get_an_answer() {
    let _alone = alone();
    let heap = Heap::new(&Options { heap_limit: 16 * MIB, procs: 2, ..precise() }).expect("a heap");
    let counts: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut m = heap.attach().expect("attach");
                    let head = m.handle(std::ptr::null_mut()).expect("a handle");
                    let count = fill(&mut m, &head);
                    assert_eq!(length(&head), count);
                    count
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("a thread")).collect()
    });
    let most = counts.iter().max().copied().unwrap_or(0);
    assert!(most > 1000, "{counts:?}");
    let mut m = heap.attach().expect("attach");
    m.collect();
    assert!(m.alloc(8 * MIB, Kind::NoScan).is_some(), "all of it is free again");
}

struct Cache {
    handle: *const besom::HandleRef<'static>,
    gives: usize,
    asked: Vec<usize>,
}

unsafe extern "C" fn give(_: *mut Heap, bytes: usize, data: *mut c_void) -> c_int {
    // SAFETY: `data` is the test's cache, and the test's thread is the one that allocates.
    let cache = unsafe { &mut *data.cast::<Cache>() };
    cache.asked.push(bytes);
    if cache.gives == 0 {
        return 0;
    }
    cache.gives -= 1;
    // SAFETY: the handle outlives the heap's use.
    unsafe { (*cache.handle).set(std::ptr::null_mut()) };
    1
}

#[test]
fn the_callback_is_asked_and_honoured() {
    let _alone = alone();
    let mut cache = Cache { handle: std::ptr::null(), gives: 0, asked: Vec::new() };
    let data = &raw mut cache;
    let options = Options { heap_limit: 16 * MIB, out_of_memory: Some(give), data: data.cast(), ..precise() };
    let heap = Heap::new(&options).expect("a heap");
    let mut m = heap.attach().expect("attach");
    let head = m.handle(std::ptr::null_mut()).expect("a handle");
    // SAFETY: nobody else uses the cache, except the callback on this thread.
    let cache = unsafe { &mut *data };
    cache.handle = (&raw const head).cast();
    let first = fill(&mut m, &head);
    assert_eq!(cache.asked, [1024], "asked once, said no");
    cache.gives = 1;
    assert!(m.alloc(2 * MIB, Kind::NoScan).is_some(), "the callback made room");
    assert_eq!(cache.asked, [1024, 2 * MIB]);
    assert_eq!(length(&head), 0, "the cache is gone");
    cache.asked.clear();
    let cycles = heap.stats().cycles;
    assert_eq!(m.alloc(64 * MIB, Kind::NoScan), None);
    assert_eq!((cache.asked.len(), heap.stats().cycles), (0, cycles), "nothing could make room for it");
    let kept = m.alloc(4 * MIB, Kind::NoScan).expect("room");
    let kept = m.handle(kept.as_ptr()).expect("a handle");
    cache.gives = 3;
    assert_eq!(m.alloc(14 * MIB, Kind::NoScan), None);
    assert_eq!(
        cache.asked,
        [14 * MIB; 4],
        "asked as often as it says that it freed something, and once more"
    );
    drop(kept);
    cache.gives = 2;
    let second = fill(&mut m, &head);
    assert!(second > first, "{second} after {first}: each answer made room while the list grew");
}

#[test]
fn threads_that_meet_the_limit_together_share_cycles() {
    let _alone = alone();
    const THREADS: usize = 16;
    let heap = Heap::new(&Options { heap_limit: 24 * MIB, gc_percent: 0, ..precise() }).expect("a heap");
    let mut m = heap.attach().expect("attach");
    let head = m.handle(std::ptr::null_mut()).expect("a handle");
    fill(&mut m, &head);
    let before = heap.stats().cycles;
    m.blocked(|| {
        let together = std::sync::Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let mut m = heap.attach().expect("attach");
                    m.blocked(|| together.wait());
                    assert_eq!(m.alloc(4 * MIB, Kind::NoScan), None);
                });
            }
        });
    });
    let cycles = heap.stats().cycles - before;
    assert!((1..THREADS as u64 * 3 / 4).contains(&cycles), "{cycles} cycles for {THREADS} threads");
}

#[test]
fn limits_too_small_to_live_with_are_refusals() {
    let _alone = alone();
    for limit in [1, 4096, 65536, 300 << 10, MIB, 2 * MIB, 6 * MIB] {
        let options = Options { heap_limit: limit, ..precise() };
        let heap = match Heap::new(&options) {
            Ok(heap) => heap,
            Err(error) => {
                assert_eq!(error, Error::NoMemory, "limit {limit}");
                continue;
            }
        };
        let Ok(mut m) = heap.attach() else { continue };
        let mut got = 0;
        // Garbage: what fits once fits again and again.
        while got < 8192 && m.alloc(1000, Kind::Values).is_some() {
            got += 1;
        }
        assert!(got == 0 || got == 8192, "limit {limit}: {got} objects of 1 KB, all garbage, then none");
        m.collect();
        m.verify();
        let peak = heap.stats().peak_footprint as usize;
        assert!(got == 0 || peak <= limit, "limit {limit}: {peak} bytes");
    }
}

#[test]
fn memory_given_back_leaves_the_resident_set_and_comes_back_zeroed() {
    let _alone = alone();
    let heap = Heap::new(&Options { gc_percent: 0, ..precise() }).expect("a heap");
    let mut m = heap.attach().expect("attach");
    let before = resident();
    let touch = |object: std::ptr::NonNull<u8>, bytes| {
        // SAFETY: an object of that many bytes.
        unsafe { object.as_ptr().write_bytes(0xee, bytes) };
    };
    touch(m.alloc(32 * MIB, Kind::NoScan).expect("memory"), 32 * MIB);
    for _ in 0..32 << 10 {
        touch(m.alloc(1024, Kind::NoScan).expect("memory"), 1024);
    }
    let full = resident() - before;
    assert!(full >= 64 * MIB, "{full} bytes resident of 64 MiB touched");
    assert!(heap.release_memory().0 < MIB, "nothing is free yet");
    m.collect();
    let released = heap.release_memory().0;
    let left = resident().saturating_sub(before);
    assert!(released >= 63 * MIB, "{released} bytes given back");
    assert!(left <= 2 * MIB, "{left} bytes resident after {released} were given back");
    let s = heap.stats();
    assert!(s.released as usize >= 63 * MIB && s.committed as usize <= 2 * MIB, "{s:?}");
    assert_eq!(heap.release_memory().0, 0, "there is no more");
    for _ in 0..1000 {
        let object = m.alloc(30 << 10, Kind::NoScan).expect("memory");
        // SAFETY: a new object of that many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(object.as_ptr(), 30 << 10) };
        assert!(bytes.iter().all(|b| *b == 0), "memory that was given back comes back zeroed");
    }
    m.verify();
}

#[test]
fn tables_cost_at_most_five_percent_of_32_byte_objects() {
    let _alone = alone();
    let heap = Heap::new(&precise()).expect("a heap");
    let mut m = heap.attach().expect("attach");
    let before = resident();
    let head = m.handle(std::ptr::null_mut()).expect("a handle");
    let count = 32 * MIB / 32;
    for _ in 0..count {
        let node = m.alloc(32, Kind::Values).expect("memory");
        // SAFETY: a new object; nothing has been allocated since. Its last word is touched too.
        unsafe {
            node.as_ptr().cast::<u64>().add(3).write(1);
            push(&head, node);
        }
    }
    m.collect();
    let s = heap.stats();
    let held = resident() - before;
    assert!(s.live_bytes as usize >= count * 32);
    assert!(s.in_metadata > 0 && s.in_metadata as usize * 20 <= count * 32, "by the statistics: {s:?}");
    // The queue's pages of the last cycle and the cache of pages stay beside the tables.
    let beside = held - count * 32;
    assert!(beside * 20 <= count * 32, "by the system: {held} bytes resident for {} of objects", count * 32);
}

#[test]
fn an_idle_heap_takes_less_than_a_mebibyte() {
    let _alone = alone();
    const HEAPS: usize = 8;
    drop(Heap::new(&Options::default()).expect("a heap"));
    let before = resident();
    let heaps: Vec<_> = (0..HEAPS).map(|_| Heap::new(&Options::default()).expect("a heap")).collect();
    let idle = resident() - before;
    assert!(idle < (HEAPS * 64) << 10, "{idle} bytes for {HEAPS} heaps that nobody uses");
    let mut mutators: Vec<_> = heaps.iter().map(|h| h.attach().expect("attach")).collect();
    for m in &mut mutators {
        m.alloc(100, Kind::Values).expect("memory");
        m.collect();
    }
    let attached = resident() - before;
    assert!(attached < HEAPS * MIB, "{attached} bytes for {HEAPS} heaps with a thread and an object each");
}

#[test]
fn heaps_share_nothing() {
    let _alone = alone();
    let mut rng = Rng::new(7);
    let heaps: Vec<_> =
        (0..4).map(|_| Heap::new(&Options { verify: 3, ..precise() }).expect("a heap")).collect();
    let mut mutators: Vec<_> = heaps.iter().map(|h| h.attach().expect("attach")).collect();
    let mut held: Vec<Vec<_>> = heaps.iter().map(|_| Vec::new()).collect();
    for n in 0..4000usize {
        let at = n % heaps.len();
        let object = mutators[at].alloc(model::size(rng.next()).max(16), Kind::Conservative).expect("memory");
        let kept = held[at].last().map_or(std::ptr::null_mut(), besom::HandleRef::get);
        // An address of the other heap: it must not keep anything there, nor be followed here.
        let foreign = held[(at + 1) % heaps.len()].last().map_or(std::ptr::null_mut(), besom::HandleRef::get);
        // SAFETY: words of a new object.
        unsafe { object.as_ptr().cast::<[*mut u8; 2]>().write([kept, foreign]) };
        held[at].push(mutators[at].handle(object.as_ptr()).expect("a handle"));
        for (other, heap) in heaps.iter().enumerate() {
            let base = heap.base(object.as_ptr().addr());
            assert_eq!(base.is_some(), other == at, "heap {other} about an object of heap {at}");
        }
    }
    held[0].clear();
    let others: Vec<u64> = heaps[1..].iter().map(|h| h.stats().cycles).collect();
    mutators[0].collect();
    assert_eq!(heaps[0].stats().live_bytes, 0, "nothing leads from heap 1 into heap 0");
    assert_eq!(
        heaps[1..].iter().map(|h| h.stats().cycles).collect::<Vec<_>>(),
        others,
        "cycles of the others"
    );
    for m in &mut mutators[1..] {
        m.collect();
        let mut objects = 0;
        // SAFETY: nothing in it allocates or waits.
        unsafe { m.walk(|_, _, _| objects += 1) };
        assert_eq!(objects, 1000);
    }
}

/// A heap that is used a little: every third with a thread that collects, so that its sweeper has been there.
fn one_heap(n: usize) {
    let heap = Heap::new(&Options::default()).expect("a heap");
    if n.is_multiple_of(4) {
        heap.register_layout(600, &[0]).expect("a layout");
        let mut m = heap.attach().expect("attach");
        let kept = m.alloc(32, Kind::Values).expect("memory");
        let _handle = m.handle(kept.as_ptr()).expect("a handle");
        m.alloc(100 << 10, Kind::NoScan).expect("memory");
        if n.is_multiple_of(16) {
            m.collect();
        }
    }
}

#[test]
fn ten_thousand_heaps_leave_nothing_behind() {
    let _alone = alone();
    (0..64).for_each(one_heap);
    let before = (resident(), descriptors(), mappings(), threads());
    (0..10_000).for_each(one_heap);
    let after = (resident(), descriptors(), mappings(), threads());
    assert!(after.0 <= before.0 + (256 << 10), "resident bytes: {} before, {} after", before.0, after.0);
    assert_eq!(after.1, before.1, "descriptors");
    // The C library keeps some stacks of threads that ended, of a heap's three or four threads.
    assert!(after.2 <= before.2 + 8, "mappings: {} before, {} after", before.2, after.2);
    assert_eq!(after.3, before.3, "threads");
}

#[test]
fn bad_options_are_refused() {
    let good = Options::default();
    let bad = [
        Options { struct_size: good.struct_size - 8, ..good },
        Options { mode: 2, ..good },
        Options { mode: -1, ..good },
        Options { procs: 4097, ..good },
        Options { mark_workers: 257, ..good },
        Options { verify: 4, ..good },
        Options { verify: -1, ..good },
        Options { tiny: 2, ..good },
        Options { scan_native_stacks: -1, ..good },
        Options { gc_trace: 2, ..good },
        Options { clobber_free: 3, ..good },
        Options { collect_every: -1, ..good },
        Options { encoding: besom::Encoding { mask: 3, tag: 4, address: !3 }, ..good },
        Options { encoding: besom::Encoding { mask: 7, tag: 0, address: 0 }, ..good },
    ];
    for (n, options) in bad.iter().enumerate() {
        assert_eq!(Heap::new(options).err(), Some(Error::Invalid), "bad options {n}");
    }
}
