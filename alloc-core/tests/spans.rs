//! Spans end to end, against a plain model: runs are taken and given back, objects are marked, cycles turn.

use besom_alloc_core::page_cache::PageCache;
use besom_alloc_core::runs::{Colour, Run};
use besom_alloc_core::size_class::{CLASS_SIZE, CLASS_SLOTS, SIZE_CLASS_COUNT, SizeClass};
use besom_alloc_core::span_class::{Kind, SpanClass};
use besom_alloc_core::span_heap::SpanHeap;
use besom_alloc_core::stopped::Stopped;
use besom_alloc_core::units::{Bytes, PageId};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The heap, one cache of pages, and what should be allocated: offset to class.
struct Model {
    heap: SpanHeap,
    pages: PageCache,
    objects: BTreeMap<usize, SpanClass>,
    allocs: u64,
    frees: u64,
}

fn span_class(size: u8) -> SpanClass {
    SpanClass::new(Kind::Values, SizeClass(size))
}

impl Model {
    fn new() -> Model {
        Model {
            heap: SpanHeap::new(Bytes(1 << 30), Bytes(0), true).unwrap(),
            pages: PageCache::new(),
            objects: BTreeMap::new(),
            allocs: 0,
            frees: 0,
        }
    }

    fn stopped() -> Stopped<'static> {
        // SAFETY: these tests have one thread.
        unsafe { Stopped::new() }
    }

    /// Takes a span, uses `runs` of its runs but for the last `back` slots, and puts it back.
    fn allocate(&mut self, class: SpanClass, runs: usize, most: u32, back: usize) {
        let stats = self.heap.stats().unattached();
        let slot = self.heap.classes().get(class).facts().slot_bytes as usize;
        let size = self.heap.classes().get(class).facts().size_class.0 as usize;
        let page = self.heap.take(class, &mut self.pages, stats).expect("there is memory");
        let span = self.heap.tables().span(page);
        span.cache(self.heap.generation());
        assert!(span.free_count() > 0, "take gives a span with free slots");
        for _ in 0..runs {
            let Some(run) = self.heap.next_run(page, most, Colour::White) else { break };
            assert!(run.end > run.start && (run.end - run.start).is_multiple_of(slot));
            // SAFETY: the run's memory is this test's.
            let bytes =
                unsafe { std::slice::from_raw_parts_mut(self.heap.address(run.start), run.end - run.start) };
            assert!(bytes.iter().all(|&b| b == 0), "a run is zero");
            bytes.fill(0x5a);
            let keep = ((run.end - run.start) / slot).saturating_sub(back) * slot + run.start;
            // What is given back is zero still, as after an untouched cell.
            bytes[keep - run.start..].fill(0);
            for offset in (run.start..keep).step_by(slot) {
                assert!(self.objects.insert(offset, class).is_none(), "a slot is handed out once");
                self.allocs += 1;
            }
            self.heap.give_back(page, Run { start: keep, end: run.end }, Colour::White);
        }
        stats.acquire().small_alloc(size, span.take_uncounted().into());
        span.uncache(self.heap.generation());
        self.heap.put(page, Some(&mut self.pages), stats);
    }

    fn allocate_large(&mut self, bytes: usize) {
        let stats = self.heap.stats().unattached();
        let object =
            self.heap.alloc_large(Bytes(bytes), 0, Colour::White, Some(&mut self.pages), stats).unwrap();
        self.heap.publish_large(&object, Kind::Conservative);
        self.objects.insert(object.page.offset(), SpanClass::new(Kind::Conservative, SizeClass(0)));
        self.allocs += 1;
    }

    /// A cycle in which the objects live that `keep` says.
    fn cycle(&mut self, mut keep: impl FnMut(usize) -> bool, sweep_all: bool) {
        let stats = self.heap.stats().unattached();
        self.heap.finish_sweep(stats);
        let before = self.objects.len();
        self.objects.retain(|&offset, _| keep(offset));
        self.frees += (before - self.objects.len()) as u64;
        for &offset in self.objects.keys() {
            assert!(self.heap.tables().mark(offset), "nothing is marked before");
        }
        self.heap.advance_generation(&Self::stopped());
        if sweep_all {
            self.heap.finish_sweep(stats);
        }
    }

    fn check(&mut self) {
        let stats = self.heap.stats().unattached();
        self.heap.finish_sweep(stats);
        self.heap.check(&Self::stopped());
        let mut seen = Vec::new();
        self.heap.for_each_span(&Self::stopped(), |page, span| {
            self.heap.for_each_object(page, span, |offset| seen.push(offset));
        });
        assert!(seen.iter().eq(self.objects.keys()), "the walk finds what is allocated");
        for (&offset, &class) in &self.objects {
            let base = self.heap.address(offset).addr();
            let slot = CLASS_SIZE[self.heap.classes().get(class).facts().size_class.0 as usize] as usize;
            let last = if slot == 0 { self.heap.span_of(offset).0.large_bytes().0 - 1 } else { slot - 1 };
            for inside in [0, 1, last / 2, last] {
                let found = self.heap.find(base + inside).expect("an address inside finds the object");
                assert_eq!((found.offset, found.class), (offset, class));
            }
            if slot != 0 {
                let next = self.heap.find(base + slot);
                assert_eq!(next.is_some(), self.objects.contains_key(&(offset + slot)), "one past the end");
            }
        }
        let delta = self.heap.stats().read_stopped();
        assert_eq!(delta.alloc_count(), self.allocs);
        assert_eq!(delta.free_count(), self.frees);
        assert!(delta.in_heap as u64 >= delta.live_bytes(|class| u64::from(CLASS_SIZE[class])));
        assert_eq!(delta.in_heap as usize, self.heap.pages().in_use().bytes().0);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Allocate { class: u8, runs: usize, most: u32, back: usize },
    Large { bytes: usize },
    Cycle { keep_one_in: usize, sweep_all: bool },
    Check,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..SIZE_CLASS_COUNT as u8, 1..40usize, prop_oneof![Just(1u32), Just(3), Just(u32::MAX)], 0..3usize)
            .prop_map(|(class, runs, most, back)| Step::Allocate { class, runs, most, back }),
        1 => (32769..600_000usize).prop_map(|bytes| Step::Large { bytes }),
        2 => (1..5usize, any::<bool>())
            .prop_map(|(keep_one_in, sweep_all)| Step::Cycle { keep_one_in, sweep_all }),
        1 => Just(Step::Check),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn histories_match_the_model(steps in proptest::collection::vec(step(), 1..60)) {
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::Allocate { class, runs, most, back } => {
                    model.allocate(span_class(class), runs, most, back);
                }
                Step::Large { bytes } => model.allocate_large(bytes),
                Step::Cycle { keep_one_in, sweep_all } => {
                    let mut n = 0;
                    model.cycle(|_| { n += 1; n % keep_one_in == 0 }, sweep_all);
                }
                Step::Check => model.check(),
            }
        }
        model.check();
        model.cycle(|_| false, false);
        model.check();
        assert_eq!(model.heap.pages().in_use().0, 0, "all pages went back");
    }
}

/// Every class: a full span has exactly its slots, each found from every address inside.
#[test]
fn every_class_fills_a_span() {
    let mut model = Model::new();
    for size in 1..SIZE_CLASS_COUNT as u8 {
        let before = model.objects.len();
        model.allocate(span_class(size), usize::MAX, u32::MAX, 0);
        assert_eq!(model.objects.len() - before, CLASS_SLOTS[size as usize] as usize);
    }
    model.check();
}

/// What a sweep frees is filled when asked, and zero again when it is handed out.
#[test]
fn freed_slots_are_clobbered_and_zeroed_again() {
    let mut model = Model::new();
    let class = span_class(5);
    model.allocate(class, usize::MAX, u32::MAX, 0);
    let &offset = model.objects.keys().next().unwrap();
    let kept = *model.objects.keys().last().unwrap();
    model.cycle(|o| o == kept, true);
    // SAFETY: the slot lies in the heap's pages.
    assert_eq!(unsafe { model.heap.address(offset).read() }, besom_alloc_core::sweep::CLOBBER);
    model.allocate(class, usize::MAX, u32::MAX, 0);
    model.check();
}

/// A marked slot that is not allocated ends the process with a line that names it.
#[test]
fn a_zombie_is_reported() {
    let exe = std::env::current_exe().unwrap();
    if std::env::var_os("BE_A_ZOMBIE").is_some() {
        let mut model = Model::new();
        model.allocate(span_class(3), 1, 2, 0);
        let &first = model.objects.keys().next().unwrap();
        // A slot that is free, and the middle of one.
        let bad = if std::env::var("BE_A_ZOMBIE").unwrap() == "free" { first + 32 * 7 } else { first + 16 };
        model.heap.tables().mark(bad);
        model.cycle(|_| true, true);
        return;
    }
    for what in ["free", "middle"] {
        let out = std::process::Command::new(&exe)
            .args(["--exact", "a_zombie_is_reported", "--nocapture"])
            .env("BE_A_ZOMBIE", what)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success());
        assert!(text.contains("besom: zombie: 0x") && text.contains("32 bytes each"), "{what}: {text}");
    }
}

/// Several sweepers at once, with takers among them: each span is swept once, nothing is lost.
#[test]
fn sweepers_and_takers_share_the_work() {
    const CLASS: SpanClass = SpanClass::new(Kind::NoScan, SizeClass(8));
    let mut model = Model::new();
    for _ in 0..300 {
        model.allocate(CLASS, usize::MAX, u32::MAX, 0);
    }
    for round in 0..10 {
        let mut n = 0;
        model.cycle(
            |_| {
                n += 1;
                n % 2 == round % 2
            },
            false,
        );
        let heap = &model.heap;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| while heap.sweep_one(heap.stats().unattached()).is_some() {});
            }
            scope.spawn(|| {
                let mut pages = PageCache::new();
                let stats = heap.stats().unattached();
                let taken: Vec<PageId> =
                    (0..50).filter_map(|_| heap.take(CLASS, &mut pages, stats)).collect();
                for page in taken {
                    heap.put(page, Some(&mut pages), stats);
                }
                heap.pages().flush_cache(&mut pages, stats);
            });
        });
        model.check();
        for _ in 0..100 {
            model.allocate(CLASS, usize::MAX, u32::MAX, 0);
        }
    }
}
