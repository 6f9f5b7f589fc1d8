//! Weak references, ephemerons, finalizers and cleanups, as a cycle sees to them: who is dead, in which order, and with how
//! much work.

#[allow(dead_code, reason = "other tests use the rest")]
mod yard;

use besom_alloc_core::span_class::{EPHEMERON, Kind, SpanClass};
use besom_alloc_core::units::Bytes;
use besom_gc::mark::{Marked, Marker};
use besom_gc::specials::Taken;
use besom_gc::specials::ephemerons::Ephemeron;
use besom_gc::specials::finalizers::Finalizer;
use besom_gc::timeline::Timeline;
use besom_gc::verify::verify_marks;
use besom_gc::{Encoding, Phase, Specials};
use besom_stats::SysMemStat;
use std::time::Instant;
use yard::Yard;

static MEMORY: SysMemStat = SysMemStat::new();
/// Live bytes from which on helpers take part.
const MANY: Bytes = Bytes(64 << 20);

/// A yard, its marker, and what a test asks of them.
struct Cemetery {
    yard: Yard,
    specials: Specials,
    marker: Marker,
    likely: Bytes,
}

impl Cemetery {
    fn new(workers: usize) -> Cemetery {
        let marker = Marker::new(workers, Bytes(1 << 30)).expect("a marker");
        let likely = if workers > 1 { MANY } else { Bytes(0) };
        let specials = Specials::new(Bytes(1 << 30)).expect("specials");
        Cemetery { yard: Yard::new(Encoding::default(), None), specials, marker, likely }
    }

    fn object(&mut self) -> usize {
        self.yard.alloc(16, Kind::Values).expose_provenance()
    }

    fn leaf(&mut self) -> usize {
        self.yard.alloc(16, Kind::NoScan).expose_provenance()
    }

    fn link(&self, from: usize, to: usize) {
        // SAFETY: an object of the test's.
        unsafe { std::ptr::with_exposed_provenance_mut::<usize>(from).write(to) };
    }

    fn ephemeron(&mut self, key: usize, value: usize) -> usize {
        self.marker.ephemerons().count_new();
        let address = self.yard.alloc_class(EPHEMERON).expose_provenance();
        self.words(address).fill(key, value);
        address
    }

    fn words(&self, address: usize) -> &Ephemeron {
        let offset = self.yard.heap.tables().offset_of(address).expect("in the heap");
        // SAFETY: an ephemeron of the test's.
        unsafe { Ephemeron::at(&self.yard.heap, offset) }
    }

    fn contents(&self, address: usize) -> (usize, usize) {
        let words = self.words(address);
        (words.key(Phase::Idle, |_| true), words.value(Phase::Idle, |_| true))
    }

    /// One cycle, checked by the second marker, and swept.
    fn cycle(&mut self, roots: &[usize]) -> Marked {
        let stopped = self.yard.stop();
        let helpers = self.marker.prepare(self.likely);
        let timeline = Timeline::new(1, Instant::now());
        let (Yard { heap, shapes, .. }, specials) = (&self.yard, &self.specials);
        let show = |visitor: &mut dyn besom_gc::Visitor| {
            roots.iter().for_each(|root| visitor.any(*root));
            specials.for_each_due_object(|object| visitor.any(object));
            Bytes(0)
        };
        let marked = self.marker.mark(heap, shapes, specials, &stopped, helpers, &timeline, show);
        let reached = verify_marks(heap, shapes, false, show).expect("memory");
        specials.verify(heap);
        assert!(reached * 16 <= marked.live.0, "{reached} objects in {:?}", marked.live);
        assert_eq!(self.marker.ephemerons().bytes(), Bytes(0));
        heap.advance_generation(&stopped);
        heap.finish_sweep(heap.stats().unattached());
        marked
    }

    fn is_there(&self, address: usize) -> bool {
        self.yard.heap.find(address).is_some()
    }

    fn weak(&self, object: usize) -> usize {
        std::ptr::from_ref(self.specials.weaks().add(object, &MEMORY).expect("room")).addr()
    }

    fn get(&self, weak: usize) -> usize {
        self.specials.weaks().check(weak, "test").read(Phase::Idle, |_| true)
    }

    fn finalize(&self, object: usize, number: usize) {
        let finalizer = Finalizer { run: number, data: object };
        assert!(self.specials.finalizers().set(object, finalizer, &MEMORY));
    }

    fn clean(&self, object: usize, number: usize) -> u64 {
        self.specials.cleanups().add(object, number, object, &MEMORY).expect("room")
    }

    /// All that is due: finalizers as their number and object, cleanups as theirs, negative.
    fn due(&self) -> Vec<(isize, usize)> {
        let mut all = Vec::new();
        let mut held = 0;
        while let Some(taken) = self.specials.take_due(u64::MAX, |object| held = object) {
            all.push(match taken {
                Taken::Finalizer(Finalizer { run, data }) => {
                    assert_eq!(held, data, "the object that it was set on");
                    (run as isize, data)
                }
                Taken::Cleanup { run, arg } => (-(run as isize), arg),
            });
        }
        all
    }
}

#[test]
fn a_weak_reference_is_cleared_when_its_object_dies() {
    for workers in [1, 2] {
        let mut c = Cemetery::new(workers);
        let (root, dead) = (c.object(), c.object());
        let live = c.leaf();
        c.link(root, live);
        c.link(dead, live);
        let weak = [root, live, dead, dead].map(|object| c.weak(object));
        c.cycle(&[root]);
        assert_eq!(weak.map(|w| c.get(w)), [root, live, 0, 0]);
        c.cycle(&[live]);
        assert_eq!(weak.map(|w| c.get(w)), [0, live, 0, 0]);
        c.cycle(&[]);
        assert_eq!(weak.map(|w| c.get(w)), [0; 4]);
    }
}

#[test]
fn a_finalizer_gets_its_object_alive_and_a_cleanup_comes_later() {
    for workers in [1, 2] {
        let mut c = Cemetery::new(workers);
        // A cycle of two with finalizers, of which one leads to a leaf.
        let (a, b, leaf) = (c.object(), c.object(), c.leaf());
        let tail = c.object();
        c.link(a, b);
        c.link(b, tail);
        c.link(tail, leaf);
        c.finalize(a, 1);
        c.finalize(b, 2);
        for (n, object) in [a, b, tail, leaf].into_iter().enumerate() {
            c.clean(object, n + 10);
        }
        let weak = [a, b, tail, leaf].map(|object| c.weak(object));
        c.cycle(&[a]);
        assert_eq!((c.due(), weak.map(|w| c.get(w))), (vec![], [a, b, tail, leaf]));
        c.cycle(&[]);
        assert_eq!(weak.map(|w| c.get(w)), [0; 4], "before the finalizers");
        assert!([a, b, tail, leaf].iter().all(|object| c.is_there(*object)), "revived, all of it");
        assert_eq!(c.specials.due(), 2, "and no cleanup is due");
        // Another cycle before they are taken: the queue keeps them.
        c.cycle(&[]);
        assert!(c.is_there(leaf));
        let mut due = c.due();
        due.sort_unstable();
        assert_eq!(due, [(1, a), (2, b)]);
        // Resurrected, in part.
        c.cycle(&[tail]);
        let mut due = c.due();
        due.sort_unstable();
        assert_eq!(due, [(-11, b), (-10, a)]);
        assert!(!c.is_there(a) && !c.is_there(b) && c.is_there(leaf));
        c.cycle(&[]);
        let mut due = c.due();
        due.sort_unstable();
        assert_eq!(due, [(-13, leaf), (-12, tail)]);
        assert_eq!((c.specials.cleanups().count(), c.specials.finalizers().count()), (0, 0));
    }
}

#[test]
fn a_finalizer_may_be_set_again() {
    let mut c = Cemetery::new(1);
    let (object, other) = (c.object(), c.object());
    c.finalize(object, 1);
    c.finalize(object, 2);
    c.finalize(other, 3);
    c.specials.finalizers().remove(other);
    c.specials.finalizers().remove(other);
    c.cycle(&[]);
    assert_eq!(c.due(), [(2, object)]);
    // On the object that it got, and while it is due.
    c.finalize(object, 4);
    c.cycle(&[]);
    c.finalize(object, 5);
    c.cycle(&[]);
    assert_eq!(c.due(), [(4, object)], "what is due already keeps the object");
    c.cycle(&[]);
    assert_eq!(c.due(), [(5, object)]);
    c.cycle(&[]);
    assert!(c.due().is_empty() && !c.is_there(object));
}

#[test]
fn an_ephemeron_keeps_its_value_while_its_key_lives() {
    for workers in [1, 2] {
        let mut c = Cemetery::new(workers);
        let keys = [c.object(), c.leaf(), c.yard.alloc(100_000, Kind::Values).expose_provenance()];
        let large_leaf = c.yard.alloc(100_000, Kind::NoScan).expose_provenance();
        let keys = [keys[0], keys[1], keys[2], large_leaf];
        let values = keys.map(|_| c.leaf());
        let ephemerons: Vec<usize> = (0..4).map(|n| c.ephemeron(keys[n], values[n])).collect();
        // A value that leads to its own key.
        let (own_key, own_value) = (c.object(), c.object());
        c.link(own_value, own_key);
        let own = c.ephemeron(own_key, own_value);
        let odd = [0, 7, 0x1000, usize::MAX, keys[0] + 9].map(|value| c.ephemeron(keys[0], value));
        let mut roots: Vec<usize> = ephemerons.iter().copied().chain(odd).chain([own]).collect();
        roots.extend(keys);
        c.cycle(&roots);
        for n in 0..4 {
            assert_eq!(c.contents(ephemerons[n]), (keys[n], values[n]));
            assert!(c.is_there(values[n]));
        }
        assert_eq!(c.contents(own), (0, 0));
        assert!(!c.is_there(own_key) && !c.is_there(own_value));
        assert_eq!(odd.map(|e| c.contents(e).1), [0, 7, 0x1000, usize::MAX, keys[0] + 9]);
        // The keys die one after the other.
        for n in 0..4 {
            roots.retain(|root| *root != keys[n]);
            c.cycle(&roots);
            for (m, ephemeron) in ephemerons.iter().enumerate() {
                let expected = if m <= n { (0, 0) } else { (keys[m], values[m]) };
                assert_eq!(c.contents(*ephemeron), expected);
                assert_eq!((c.is_there(keys[m]), c.is_there(values[m])), (m > n, m > n));
            }
        }
    }
}

/// A key that only the value of another ephemeron leads to, and so on; `order` says in which the ephemerons were made, and
/// lie. Returns the steps that the cycle took.
fn chain(c: &mut Cemetery, length: usize, order: impl Fn(usize) -> usize, keyed: bool) -> u64 {
    let keys: Vec<usize> = (0..=length).map(|_| c.leaf()).collect();
    let mut ephemerons = vec![0; length];
    for n in 0..length {
        let link = order(n);
        ephemerons[link] = c.ephemeron(keys[link], keys[link + 1]);
    }
    let array = c.yard.alloc(length * 8, Kind::Values).expose_provenance();
    for (n, ephemeron) in ephemerons.iter().enumerate() {
        c.link(array + n * 8, *ephemeron);
    }
    let before = c.marker.ephemerons().steps();
    let roots: &[usize] = if keyed { &[array, keys[0]] } else { &[array] };
    let marked = c.cycle(roots);
    for (n, ephemeron) in ephemerons.iter().enumerate() {
        let expected = if keyed { (keys[n], keys[n + 1]) } else { (0, 0) };
        assert_eq!(c.contents(*ephemeron), expected, "link {n} of {length}");
    }
    assert_eq!(keys.iter().filter(|key| c.is_there(**key)).count(), if keyed { length + 1 } else { 0 });
    let keys = if keyed { (length + 1) * 16 } else { 0 };
    assert_eq!(marked.live, Bytes(keys + length * 32 + (length * 8).next_multiple_of(8192)));
    c.marker.ephemerons().steps() - before
}

#[test]
fn chains_in_any_order_are_linear() {
    for workers in [1, 2] {
        for length in [50_000, 100_000] {
            for order in 0..3 {
                let mut c = Cemetery::new(workers);
                let place = |n: usize| match order {
                    0 => n,
                    1 => length - 1 - n,
                    // 7919 is prime, and divides no length.
                    _ => n * 7919 % length,
                };
                let steps = chain(&mut c, length, place, true);
                assert!(steps <= 4 * length as u64, "{steps} steps for {length}, order {order}");
                let mut c = Cemetery::new(workers);
                assert_eq!(chain(&mut c, length, place, false), 0, "nothing was marked that was waited for");
            }
        }
    }
}

/// Keys of every sort wake their ephemerons: of each kind, with and without pointers, small, odd and large.
#[test]
fn keys_of_every_sort_are_watched() {
    for workers in [1, 2] {
        // Neither in order nor against it: the one needs no watch, the other ends as it begins.
        for step in [7, 100, 1] {
            let mut c = Cemetery::new(workers);
            let layouts = [(64, &[][..]), (24, &[0][..]), (24, &[][..])].map(|(bytes, offsets)| {
                c.yard.shapes.layouts.register(&c.yard.heap, bytes, offsets).expect("a layout") as u16
            });
            let mut keys = vec![];
            for _ in 0..20 {
                keys.extend(layouts.map(|class| c.yard.alloc_class(SpanClass(class)).expose_provenance()));
                for kind in [Kind::NoScan, Kind::Conservative, Kind::Values] {
                    keys.extend([16, 48, 40_000].map(|b| c.yard.alloc(b, kind).expose_provenance()));
                }
            }
            let all: Vec<usize> = keys.windows(2).map(|pair| c.ephemeron(pair[0], pair[1])).collect();
            let array = c.yard.alloc(all.len() * 8, Kind::Values).expose_provenance();
            for (n, ephemeron) in all.iter().enumerate() {
                c.link(array + n * step % all.len() * 8, *ephemeron);
            }
            c.cycle(&[array, keys[0]]);
            assert!(all.iter().zip(keys.windows(2)).all(|(e, pair)| c.contents(*e) == (pair[0], pair[1])));
            assert!(keys.iter().all(|key| c.is_there(*key)));
            c.cycle(&[array]);
            assert!(keys.iter().all(|key| !c.is_there(*key)));
        }
    }
}

/// Ephemerons whose keys are ephemerons.
#[test]
fn chains_of_keys_that_are_ephemerons_are_linear() {
    for workers in [1, 2] {
        let mut c = Cemetery::new(workers);
        const LENGTH: usize = 50_000;
        let first = c.leaf();
        let array = c.yard.alloc(LENGTH * 8, Kind::Values).expose_provenance();
        let (mut key, mut all) = (first, vec![]);
        for n in 0..LENGTH {
            let value = c.leaf();
            let ephemeron = c.ephemeron(key, value);
            c.link(array + (LENGTH - 1 - n) * 8, ephemeron);
            all.push((ephemeron, key, value));
            key = ephemeron;
        }
        let before = c.marker.ephemerons().steps();
        c.cycle(&[array, first]);
        let steps = c.marker.ephemerons().steps() - before;
        assert!(steps <= 8 * LENGTH as u64, "{steps} steps");
        assert!(all.iter().all(|(e, k, v)| c.contents(*e) == (*k, *v) && c.is_there(*v)));
        c.cycle(&[array]);
        assert_eq!((c.contents(all[0].0), c.is_there(all[0].2)), ((0, 0), false));
        assert!(all[1..].iter().all(|(e, k, v)| c.contents(*e) == (*k, *v) && c.is_there(*v)));
    }
}

/// Each ephemeron is found only through the value of the one before: the table must not be of the size of what waited first.
#[test]
fn a_chain_that_is_found_link_by_link_is_linear() {
    for workers in [1, 2] {
        let mut c = Cemetery::new(workers);
        const LENGTH: usize = 100_000;
        let mut next = c.leaf();
        let mut keys = vec![];
        for _ in 0..LENGTH {
            // The value of each: an object that leads to the next ephemeron, and that to the key of the one after.
            let key = c.leaf();
            let value = c.yard.alloc(32, Kind::Values).expose_provenance();
            c.link(value, next);
            c.link(value + 8, keys.last().copied().unwrap_or(0));
            next = c.ephemeron(key, value);
            keys.push(key);
        }
        let root = c.object();
        c.link(root, next);
        let first_key = *keys.last().expect("keys");
        let before = c.marker.ephemerons().steps();
        c.cycle(&[root, first_key]);
        assert!(keys.iter().all(|key| c.is_there(*key)));
        let steps = c.marker.ephemerons().steps() - before;
        assert!(steps <= 4 * LENGTH as u64, "{steps} steps");
        c.cycle(&[root]);
        assert!(keys.iter().all(|key| !c.is_there(*key)));
    }
}

#[test]
fn many_ephemerons_of_one_key_and_what_finalizers_revive() {
    for workers in [1, 2] {
        let mut c = Cemetery::new(workers);
        let (key, holder) = (c.leaf(), c.object());
        let mut all = vec![];
        let mut list = 0;
        for _ in 0..20_000 {
            let value = c.leaf();
            let ephemeron = c.ephemeron(key, value);
            let cell = c.yard.alloc(32, Kind::Values).expose_provenance();
            c.link(cell, ephemeron);
            c.link(cell + 8, list);
            (list, _) = (cell, all.push((ephemeron, value)));
        }
        c.link(holder, list);
        c.cycle(&[holder, key]);
        assert!(all.iter().all(|(e, v)| c.contents(*e) == (key, *v) && c.is_there(*v)));
        // All is dead but for a finalizer, which revives the list of ephemerons and not their key.
        c.finalize(holder, 1);
        c.cycle(&[]);
        assert!(all.iter().all(|(e, v)| c.contents(*e) == (0, 0) && !c.is_there(*v)));
        assert!(c.is_there(list) && !c.is_there(key));
        assert_eq!(c.due(), [(1, holder)]);
        // Here key and ephemeron are revived together, by two finalizers.
        let (key, value, holder) = (c.object(), c.leaf(), c.object());
        let ephemeron = c.ephemeron(key, value);
        c.link(holder, ephemeron);
        c.finalize(holder, 2);
        c.finalize(key, 3);
        c.cycle(&[]);
        assert_eq!((c.contents(ephemeron), c.is_there(value)), ((key, value), true));
        // And one that is reachable while its key is only revived: closed before.
        let (key, value) = (c.object(), c.leaf());
        let ephemeron = c.ephemeron(key, value);
        c.finalize(key, 4);
        c.cycle(&[ephemeron]);
        assert_eq!((c.contents(ephemeron), c.is_there(key), c.is_there(value)), ((0, 0), true, false));
    }
}

/// With a queue of a few blocks marked objects are dropped and found again by a rescan, ephemerons among them.
#[test]
fn ephemerons_survive_a_queue_that_overflows() {
    let mut c = Cemetery::new(1);
    c.marker = Marker::new(1, Bytes(1)).expect("a marker");
    const COUNT: usize = 300_000;
    let array = c.yard.alloc(COUNT * 8, Kind::Values).expose_provenance();
    // All are queued in one go when their key is marked, which another ephemeron leads to.
    let (key, holder) = (c.object(), c.leaf());
    let gate = c.ephemeron(holder, key);
    let mut all = vec![];
    for n in 0..COUNT {
        let (value, beyond) = (c.object(), c.leaf());
        c.link(value, beyond);
        let ephemeron = c.ephemeron(key, value);
        c.link(array + n * 8, ephemeron);
        all.push((ephemeron, value, beyond));
    }
    let marked = c.cycle(&[array, gate, holder]);
    assert!(all.iter().all(|(e, v, beyond)| c.contents(*e) == (key, *v) && c.is_there(*beyond)));
    let arrays = (COUNT * 8).next_multiple_of(8192);
    assert_eq!(marked.live, Bytes(COUNT * (16 + 16 + 32) + 32 + 16 + 16 + arrays));
    c.cycle(&[array, gate]);
    assert!(
        all.iter().all(|(e, v, beyond)| c.contents(*e) == (0, 0) && !c.is_there(*v) && !c.is_there(*beyond))
    );
}
