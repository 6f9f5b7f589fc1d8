//! Histories of one thread with weak references, ephemerons, finalizers and cleanups, against the model that foretells
//! what each cycle does; shrunk when they fail.

use besom::{Heap, Options};
use besom_tests::model::{Model, shape};
use besom_tests::objects::{BOXED, PLAIN, Setup, trace};
use besom_tests::specials::Specials;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Alloc { what: u64, root: u64 },
    Link { from: u64, to: u64, choice: u64 },
    Unlink { from: u64, choice: u64 },
    Drop(u64),
    Ephemeron { key: u64, value: u64, root: u64 },
    Weak(u64),
    ReadWeak { which: u64, root: u64 },
    FreeWeak(u64),
    Finalizer { object: u64, set: bool },
    Cleanup(u64),
    Cancel(u64),
    Run { at_most: usize, keep: u64 },
    Collect,
    Check,
}

fn step() -> impl Strategy<Value = Step> {
    let n = any::<u64>;
    prop_oneof![
        12 => (n(), n()).prop_map(|(what, root)| Step::Alloc { what, root }),
        10 => (n(), n(), n()).prop_map(|(from, to, choice)| Step::Link { from, to, choice }),
        2 => (n(), n()).prop_map(|(from, choice)| Step::Unlink { from, choice }),
        10 => n().prop_map(Step::Drop),
        8 => (n(), n(), n()).prop_map(|(key, value, root)| Step::Ephemeron { key, value, root }),
        4 => n().prop_map(Step::Weak),
        2 => (n(), n()).prop_map(|(which, root)| Step::ReadWeak { which, root }),
        1 => n().prop_map(Step::FreeWeak),
        4 => (n(), prop::bool::weighted(0.8)).prop_map(|(object, set)| Step::Finalizer { object, set }),
        4 => n().prop_map(Step::Cleanup),
        1 => n().prop_map(Step::Cancel),
        2 => (0usize..8, n()).prop_map(|(at_most, keep)| Step::Run { at_most, keep }),
        3 => Just(Step::Collect),
        1 => Just(Step::Check),
    ]
}

fn play(steps: &[Step], options: u64) {
    let bit = |n: u32| (options >> n & 1) as i32;
    let options = Options {
        scan_native_stacks: 0,
        // Objects of a block live together, which the model does not know.
        tiny: 0,
        gc_percent: 0,
        clobber_free: bit(0),
        verify: 3,
        mark_workers: 1 + bit(1) as u32,
        encoding: if bit(2) == 1 { BOXED } else { PLAIN },
        trace: Some(trace),
        ..Options::default()
    };
    let heap = Heap::new(&options).expect("a heap");
    let setup = Setup::new(&heap, options.encoding, false);
    let mut model = Model::new(&heap, &setup, 1 + bit(3) as u64);
    let mut specials = Specials::default();
    let mut m = heap.attach().expect("attach");
    model.roots.attach(&m);
    for step in steps {
        match *step {
            Step::Alloc { what, root } => {
                let (shape, size) = shape(&setup, what);
                model.alloc(&mut m, shape, size % 4000, root).expect("memory");
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
            Step::Drop(choice) => model.roots.drop_one(&mut m, choice),
            Step::Ephemeron { key, value, root } => {
                if let (Some(key), Some(value)) = (model.pick(key), model.pick(value)) {
                    model.ephemeron(&mut m, key, value, root).expect("memory");
                }
            }
            Step::Weak(of) => {
                if let Some(object) = model.pick(of) {
                    specials.weak(&m, object);
                }
            }
            Step::ReadWeak { which, root } => {
                // It may be unreachable, if no cycle has run since, and becomes reachable again.
                if let Some(object) = specials.read_weak(&m, which) {
                    model.hold(&mut m, object, root);
                }
            }
            Step::FreeWeak(choice) => specials.free_weak(&m, choice),
            Step::Finalizer { object, set } => {
                if let Some(object) = model.pick(object) {
                    specials.finalizer(&m, object, set);
                }
            }
            Step::Cleanup(of) => {
                if let Some(object) = model.pick(of) {
                    specials.cleanup(&m, object);
                }
            }
            Step::Cancel(choice) => specials.cancel(&m, choice),
            Step::Run { at_most, keep } => {
                for (n, object) in specials.run(&m, at_most).into_iter().enumerate() {
                    if keep >> n & 1 == 1 {
                        model.hold(&mut m, object, keep.rotate_left(n as u32 * 8));
                    }
                }
            }
            Step::Collect => specials.collect(&mut m, &mut model),
            Step::Check => specials.check(&m, &model),
        }
    }
    // All comes to an end: what is due runs until nothing is.
    specials.collect(&mut m, &mut model);
    model.roots.detach();
    for n in 0..64 {
        (0..256).for_each(|n| model.roots.drop_one(&mut m, (n << 8) | (n % 8)));
        specials.collect(&mut m, &mut model);
        if specials.run(&m, if n % 2 == 0 { usize::MAX } else { 1 }).is_empty() && n > 4 {
            break;
        }
    }
    let (counted, walked) = m.mem_stats_slow();
    assert!(counted == walked, "{}", counted.difference(&walked).expect("a difference"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_dies_specially_is_seen_to_as_foretold(
        steps in prop::collection::vec(step(), 1..400),
        options in any::<u64>(),
    ) {
        play(&steps, options);
    }
}
