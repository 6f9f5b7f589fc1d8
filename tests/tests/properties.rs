//! Single-threaded histories against a model, shrunk when they fail, and what pointers keep alive and what they
//! do not.

use besom::options::{CONCURRENT, STOP_THE_WORLD};
use besom::{HandleRef, Heap, Kind, Mutator, Options};
use besom_tests::model::{Expected, Model, shape};
use besom_tests::objects::{BOXED, PLAIN, Setup, trace};
use besom_tests::rng::mix;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Step {
    Alloc { what: u64, root: u64 },
    Link { from: u64, to: u64, choice: u64 },
    Unlink { from: u64, choice: u64 },
    Decoy { from: u64, of: u64, choice: u64 },
    Drop(u64),
    Collect,
    Compare,
    Reattach,
    Block,
    Twins,
}

fn step() -> impl Strategy<Value = Step> {
    let n = any::<u64>;
    prop_oneof![
        12 => (n(), n()).prop_map(|(what, root)| Step::Alloc { what, root }),
        8 => (n(), n(), n()).prop_map(|(from, to, choice)| Step::Link { from, to, choice }),
        2 => (n(), n()).prop_map(|(from, choice)| Step::Unlink { from, choice }),
        3 => (n(), n(), n()).prop_map(|(from, of, choice)| Step::Decoy { from, of, choice }),
        5 => n().prop_map(Step::Drop),
        1 => Just(Step::Collect),
        1 => Just(Step::Compare),
        1 => Just(Step::Reattach),
        1 => Just(Step::Block),
        1 => Just(Step::Twins),
    ]
}

fn play(steps: &[Step], options: u64) {
    let bit = |n: u32| (options >> n & 1) as i32;
    let options = Options {
        scan_native_stacks: 0,
        tiny: bit(0),
        clobber_free: bit(1),
        verify: 3,
        mark_workers: 1 + bit(3) as u32,
        encoding: if bit(4) == 1 { BOXED } else { PLAIN },
        trace: Some(trace),
        collect_every: if bit(5) & bit(6) == 1 { 5 } else { 0 },
        mode: if bit(7) & bit(8) == 1 { STOP_THE_WORLD } else { CONCURRENT },
        ..Options::default()
    };
    let heap = Heap::new(&options).expect("a heap");
    let setup = Setup::new(&heap, options.encoding, false);
    let mut model = Model::new(&heap, &setup, 1 + options.tiny as u64);
    let mut m = heap.attach().expect("attach");
    model.roots.attach(&m);
    for step in steps {
        match *step {
            Step::Alloc { what, root } => {
                let (shape, size) = shape(&setup, what);
                model.alloc(&mut m, shape, size, root).expect("memory");
            }
            Step::Link { from, to, choice } => {
                if let (Some(from), Some(to)) = (model.pick(from), model.pick(to)) {
                    model.link(&mut m, from, to, choice);
                }
            }
            Step::Unlink { from, choice } => {
                if let Some(from) = model.pick(from) {
                    model.unlink(&mut m, from, choice);
                }
            }
            Step::Decoy { from, of, choice } => {
                if let (Some(from), Some(of)) = (model.pick(from), model.pick(of)) {
                    model.decoy(from, of, choice);
                }
            }
            Step::Drop(choice) => model.roots.drop_one(&mut m, choice),
            Step::Collect => m.collect(),
            Step::Compare => compare(&mut m, &mut model),
            Step::Reattach => {
                model.roots.detach();
                drop(m);
                m = heap.attach().expect("attach");
                model.roots.attach(&m);
            }
            Step::Block => m.blocked(|| ()),
            Step::Twins => twins(&mut m),
        }
    }
    compare(&mut m, &mut model);
}

/// Exact statistics are what a walk counts.
fn twins(m: &mut Mutator<'_>) {
    let (counted, walked) = m.mem_stats_slow();
    assert!(counted == walked, "{}", counted.difference(&walked).expect("a difference"));
}

fn compare(m: &mut Mutator<'_>, model: &mut Model<'_>) {
    model.check_all();
    m.collect();
    let mut expected = Expected::default();
    expected.add(model.objects());
    expected.compare(m, true);
    m.verify();
    twins(m);
    model.check_all();
    for (address, _) in model.objects() {
        model.check(m.heap(), address);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_reachable_stays_and_nothing_else(
        steps in prop::collection::vec(step(), 1..250),
        options in any::<u64>(),
    ) {
        play(&steps, options);
    }

    /// Any object of any size: what its size says is its own, what its base says of every address, and what keeps it.
    #[test]
    fn an_address_keeps_the_object_that_it_lies_in(bytes in 16usize..120_000, at in any::<prop::sample::Index>()) {
        let inside = at.index(bytes);
        let heap = precise();
        let mut m = heap.attach().expect("attach");
        let object = m.alloc(bytes, Kind::NoScan).expect("memory").as_ptr();
        prop_assert_eq!(heap.base(object.addr() + inside), Some(object));
        let holder = conservative_holder(&mut m, object.addr() + inside);
        m.collect();
        prop_assert_eq!(objects(&mut m), BTreeSet::from([holder.get().addr(), object.addr()]));
    }
}

fn precise() -> std::pin::Pin<Box<Heap>> {
    Heap::new(&Options { scan_native_stacks: 0, verify: 3, clobber_free: 1, ..Options::default() })
        .expect("a heap")
}

/// A handle on an object whose one word is `word`, read as any word.
fn conservative_holder<'h>(m: &mut Mutator<'h>, word: usize) -> HandleRef<'h> {
    let holder = m.alloc(16, Kind::Conservative).expect("memory");
    // SAFETY: a word of a new object.
    unsafe { holder.as_ptr().cast::<usize>().add(1).write(word) };
    m.handle(holder.as_ptr()).expect("a handle")
}

fn objects(m: &mut Mutator<'_>) -> BTreeSet<usize> {
    let mut all = BTreeSet::new();
    // SAFETY: nothing in it allocates on the heap or waits.
    unsafe {
        m.walk(|object, _, _| {
            all.insert(object.addr());
        })
    };
    all
}

/// Whether an object that only `word` may lead to is there after a collection.
fn is_kept(m: &mut Mutator<'_>, object: usize, word: usize) -> bool {
    let _holder = conservative_holder(m, word);
    m.collect();
    objects(m).contains(&object)
}

#[test]
fn one_past_the_end_keeps_nothing() {
    let heap = precise();
    let mut m = heap.attach().expect("attach");
    for bytes in [16, 64, 112, 1024, 32768, 40960, 65536] {
        // Whole slots and pages: one past the end is the next slot, or the next page.
        let object = m.alloc(bytes, Kind::NoScan).expect("memory").as_ptr().addr();
        assert!(!is_kept(&mut m, object, object + bytes), "{bytes} bytes, one past the end");
        let object = m.alloc(bytes, Kind::NoScan).expect("memory").as_ptr().addr();
        assert!(!is_kept(&mut m, object, object - 1), "{bytes} bytes, one before the start");
        let object = m.alloc(bytes, Kind::NoScan).expect("memory").as_ptr().addr();
        assert!(is_kept(&mut m, object, object + bytes - 1), "{bytes} bytes, the last");
    }
}

#[test]
fn what_rounding_added_is_the_objects_own() {
    let heap = precise();
    let mut m = heap.attach().expect("attach");
    let object = m.alloc(33, Kind::NoScan).expect("memory").as_ptr().addr();
    assert_eq!(heap.size(object), 48);
    assert!(is_kept(&mut m, object, object + 47), "the last byte of the slot");
}

#[test]
fn a_free_slot_is_no_object() {
    let heap = precise();
    let mut m = heap.attach().expect("attach");
    let kept = m.alloc(64, Kind::NoScan).expect("memory");
    let kept = m.handle(kept.as_ptr()).expect("a handle");
    let dead = m.alloc(64, Kind::NoScan).expect("memory").as_ptr().addr();
    m.collect();
    assert_eq!(heap.base(dead), None);
    assert_eq!(heap.size(dead), 0);
    let _holder = conservative_holder(&mut m, dead);
    m.collect();
    assert!(!objects(&mut m).contains(&dead), "a word brought a free slot to life");
    assert!(objects(&mut m).contains(&kept.get().addr()));
}

#[test]
fn slots_that_the_cell_has_not_handed_out_are_no_objects() {
    let heap = precise();
    let mut m = heap.attach().expect("attach");
    let object = m.alloc(64, Kind::NoScan).expect("memory").as_ptr().addr();
    assert_eq!(heap.base(object).map(|b| b.addr()), Some(object));
    // The next slots of the run, and what is left of the span behind the last slot.
    for n in 1..4 {
        assert_eq!(heap.base(object + n * 64), None, "slot {n} beyond the cursor");
        assert_eq!(heap.size(object + n * 64), 0);
    }
    let holder = conservative_holder(&mut m, object + 64);
    m.collect();
    assert!(!objects(&mut m).contains(&(object + 64)));
    // Its word would keep what comes to lie there next.
    drop(holder);
    // 112-byte slots: 8192 = 73 * 112 + 16. The last 16 bytes of the page belong to no slot.
    let object = m.alloc(112, Kind::NoScan).expect("memory").as_ptr().addr();
    let page_end = (object & !8191) + 8192;
    assert_eq!(heap.base(page_end - 1), None, "the rest of a span behind its last slot");
    assert!(!is_kept(&mut m, object, page_end - 1));
}

#[test]
fn any_byte_of_a_tiny_block_keeps_all_of_it() {
    let heap = precise();
    let mut m = heap.attach().expect("attach");
    // Twelve bytes and four fill a block.
    let first = m.alloc(12, Kind::NoScan).expect("memory").as_ptr();
    let second = m.alloc(4, Kind::NoScan).expect("memory").as_ptr();
    assert_eq!(first.addr() + 12, second.addr(), "one block");
    // SAFETY: the bytes of both objects.
    unsafe {
        first.write_bytes(0x11, 12);
        second.write_bytes(0x22, 4);
    }
    let _holder = conservative_holder(&mut m, second.addr() + 3);
    m.collect();
    assert!(objects(&mut m).contains(&first.addr()), "the block");
    // SAFETY: the block is reachable.
    let bytes = unsafe { std::slice::from_raw_parts(first, 16) };
    assert_eq!((&bytes[..12], &bytes[12..]), (&[0x11; 12][..], &[0x22; 4][..]));
    assert_eq!(heap.base(second.addr() + 1), Some(first));
}

#[test]
fn the_middle_of_a_large_object_keeps_it() {
    let heap = precise();
    let mut m = heap.attach().expect("attach");
    const BYTES: usize = 1_000_000;
    for at in [0, 1, 8191, 8192, 131_072, 500_003, BYTES - 1] {
        let object = m.alloc(BYTES, Kind::NoScan).expect("memory").as_ptr().addr();
        assert_eq!(heap.base(object + at).map(|b| b.addr()), Some(object));
        assert!(is_kept(&mut m, object, object + at), "byte {at}");
        m.collect();
        assert!(!objects(&mut m).contains(&object), "and when the word is gone");
        assert_eq!(heap.base(object + at), None);
    }
}

#[test]
fn a_huge_array_is_followed_to_its_last_element() {
    let heap =
        Heap::new(&Options { scan_native_stacks: 0, verify: 3, mark_workers: 2, ..Options::default() });
    let heap = heap.expect("a heap");
    let mut m = heap.attach().expect("attach");
    let layout = heap.register_layout(40, &[16]).expect("a layout");
    // Elements of 40 bytes straddle the pieces in which the array is scanned.
    const COUNT: usize = 40_000;
    let array = m.new_array(layout, COUNT).expect("registered").expect("memory");
    let held = m.handle(array.as_ptr()).expect("a handle");
    for n in 0..COUNT {
        let object = m.alloc(16, Kind::NoScan).expect("memory").as_ptr();
        let decoy = m.alloc(16, Kind::NoScan).expect("memory").as_ptr();
        // SAFETY: words of a new object and of element `n`.
        unsafe {
            object.cast::<u64>().write(mix(n as u64));
            let element = held.get().cast::<u64>().add(n * 5);
            m.write(held.get(), element.add(2), object.expose_provenance() as u64);
            element.add(3).cast::<*mut u8>().write(decoy);
        }
    }
    m.collect();
    assert_eq!(objects(&mut m).len(), COUNT + 1, "the array, and one object for each element");
    for n in 0..COUNT {
        // SAFETY: the array is held, and so is what its elements lead to.
        let word = unsafe { held.get().cast::<*mut u64>().add(n * 5 + 2).read().read() };
        assert_eq!(word, mix(n as u64), "element {n}");
    }
}

#[test]
fn locals_keep_objects_when_native_stacks_are_roots() {
    let heap = Heap::new(&Options { verify: 3, clobber_free: 1, ..Options::default() }).expect("a heap");
    let mut m = heap.attach().expect("attach");
    let local = m.alloc(64, Kind::Values).expect("memory");
    // SAFETY: words of a new object.
    unsafe { local.as_ptr().cast::<u64>().write(77) };
    m.collect();
    m.blocked(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| heap.attach().expect("attach").collect()).join().expect("the other");
        });
    });
    // SAFETY: the local kept it, through a collection here and one from elsewhere.
    assert_eq!(unsafe { local.as_ptr().cast::<u64>().read() }, 77);
    assert_eq!(heap.base(local.as_ptr().addr()), Some(local.as_ptr()));
}
