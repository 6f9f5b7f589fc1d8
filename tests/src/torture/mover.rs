//! A thread that moves the last pointers to its objects around.

use super::places::{Place, Places, SLOTS, write};
use super::weakly::{Weakly, leave_to_finalizer, run_finalizer};
use super::{Content, Ground, MOVERS, Omit, PART, Token, stamp, word};
use crate::rng::Rng;
use besom::{Kind, Mutator};
use besom_stats::sync::lock;
use besom_stats::sync::raw::Ordering::*;
use std::time::Duration;

/// Objects of each mover, as long as none is dead.
const TOKENS: u64 = 60;

/// A mover. Between two safepoints each of its objects is in one place, or in the hub; while it has an object in a local
/// only, no safepoint comes, unless locals are roots.
pub struct Mover<'g, 'h> {
    ground: &'g Ground<'h>,
    m: Option<Mutator<'h>>,
    places: Places,
    weakly: Weakly<'h>,
    rng: Rng,
    moves: u64,
}

impl<'g, 'h> Mover<'g, 'h> {
    /// Attaches the calling thread and makes its objects.
    pub fn new(ground: &'g Ground<'h>, number: usize, rng: Rng) -> Mover<'g, 'h> {
        let mut m = ground.heap.attach().expect("attach");
        let places = Places::new(ground, &mut m, number);
        places.attach(&m);
        let weakly = Weakly::new(&mut m);
        let mut mover = Mover { ground, m: Some(m), places, weakly, rng, moves: 0 };
        (0..TOKENS).for_each(|_| mover.make());
        mover
    }

    fn m(&mut self) -> &mut Mutator<'h> {
        self.m.as_mut().expect("attached")
    }

    fn make(&mut self) {
        let Some(place) = self.places.find(&mut self.rng, false) else { return };
        let id = self.ground.made.fetch_add(1, Relaxed);
        let bytes = match self.rng.below(16) {
            0 => 40_000,
            1 => 3000,
            _ => 16 + self.rng.below(100),
        };
        let address = self.m().alloc(bytes, Kind::Values).expect("memory").as_ptr().expose_provenance();
        word(address, 0).store(stamp(id), Relaxed);
        let token = Token { address, id };
        self.store(place, Some(Content { token, boxed: 0 }));
        let child = self.m().alloc(16, Kind::Values).expect("memory").as_ptr().expose_provenance();
        word(child, 0).store(stamp(!id), Relaxed);
        let value = self.ground.encode(child);
        write(self.ground, self.m.as_mut().expect("attached"), address, 1, value, Omit::Write);
    }

    fn load(&self, place: Place) -> Option<Content> {
        self.places.load(self.ground, self.m.as_ref().expect("attached"), place)
    }

    fn store(&mut self, place: Place, content: Option<Content>) {
        let choice = self.rng.next();
        self.places.store(self.ground, self.m.as_mut().expect("attached"), place, content, choice);
        self.moves += 1;
    }

    /// Moves until all is over.
    pub fn play(mut self) {
        while self.ground.goes_on() {
            for _ in 0..64 {
                self.step();
            }
        }
        self.ground.moves.fetch_add(self.moves, Relaxed);
        self.places.leave(self.ground);
        self.weakly.leave(self.ground);
    }

    fn step(&mut self) {
        let first = if self.ground.leaves_weakly() { 0 } else { 170 };
        match first + self.rng.below(1000 - first) {
            0..40 => self.leave_in_weak(),
            40..70 => self.leave_in_ephemeron(),
            70..130 => self.take_back(),
            130..145 => self.leave_to_finalizer(),
            145..165 => self.finalize(),
            165..170 => self.make_up_for_the_dead(),
            170..600 => self.swap(),
            600..680 => self.copy(),
            680..740 => self.put_in_box(),
            740..800 => self.take_out_of_box(),
            800..860 => self.give(),
            860..920 => self.take(),
            920..930 => self.renew(),
            930..980 => {
                let bytes = 16 + self.rng.below(500);
                self.m().alloc(bytes, Kind::NoScan).expect("memory");
            }
            980..985 => self.m().blocked(|| std::thread::sleep(Duration::from_micros(50))),
            985..988 => self.reattach(),
            _ => self.check(),
        }
        if self.rng.one_in(8) {
            self.m().safepoint();
        }
    }

    /// What two places hold, exchanged: one pointer is overwritten while it is the last.
    fn swap(&mut self) {
        let (Some(p), q) = (self.places.find(&mut self.rng, true), self.places.any(&mut self.rng)) else {
            return;
        };
        if p == q {
            return;
        }
        let (x, y) = (self.load(p), self.load(q));
        if self.ground.native && self.rng.one_in(4) {
            // The local is the only root.
            self.store(p, None);
            let local = std::hint::black_box(x.map_or(0, |x| x.held()));
            self.m().safepoint();
            assert_eq!(std::hint::black_box(local), x.map_or(0, |x| x.held()));
        }
        self.store(q, x);
        self.store(p, y);
        if let Some(content) = x.or(y) {
            self.ground.check(content.token);
        }
    }

    /// Some slots of two arrays exchanged, or of one array rotated, by copies that may overlap.
    fn copy(&mut self) {
        let arrays = self.places.arrays.len();
        let (a, b) = (self.rng.below(arrays), self.rng.below(arrays));
        let words = 1 + self.rng.below(SLOTS / 2 - 1);
        let (from, to) = (self.rng.below(SLOTS - words), self.rng.below(SLOTS - words));
        let values = |mover: &Self, n: usize, at: usize, into: usize| -> Vec<u64> {
            let form = mover.places.form(into);
            let value = |at| {
                let held = mover.load(Place::Array(n, at)).map_or(0, |content| content.held());
                form.value(mover.ground, held)
            };
            (at..at + words).map(value).collect()
        };
        if a != b {
            let (there, back) = (values(self, a, from, b), values(self, b, to, a));
            self.copy_into(b, to, there.as_ptr(), words);
            self.copy_into(a, from, back.as_ptr(), words);
            for n in 0..words {
                let held = &mut self.places.held;
                (held[a][from + n], held[b][to + n]) = (held[b][to + n], held[a][from + n]);
            }
            return;
        }
        // All but the first `by` words go down by so many, over themselves; the first come to the end.
        let by = 1 + self.rng.below(words);
        let first = values(self, a, from, a);
        let array = &self.places.arrays[a];
        let rest = word(array.address, array.first + from + by).as_ptr().cast_const();
        self.copy_into(a, from, rest, words - by);
        self.copy_into(a, from + words - by, first.as_ptr(), by);
        self.places.held[a][from..from + words].rotate_left(by);
    }

    fn copy_into(&mut self, n: usize, at: usize, from: *const u64, words: usize) {
        let array = &self.places.arrays[n];
        let (object, to) = (array.address, word(array.address, array.first + at).as_ptr());
        self.moves += words as u64;
        for at in at..at + words {
            self.places.show(self.ground, self.m.as_mut().expect("attached"), n, at);
        }
        // SAFETY: words of an array that is this mover's, from words of the same or of a copy.
        unsafe {
            if self.ground.omit == Omit::Copy {
                return std::ptr::copy(from, to, words);
            }
            self.m().write_range(std::ptr::with_exposed_provenance(object), to, from, words);
        }
    }

    /// An object into a new one, whose first stores need no barrier.
    fn put_in_box(&mut self) {
        let Some(place) = self.places.find(&mut self.rng, true) else { return };
        let boxed = self.m().alloc(24, Kind::Values).expect("memory").as_ptr().expose_provenance();
        let Some(content) = self.load(place).filter(|content| content.boxed == 0) else { return };
        word(boxed, 1).store(self.ground.encode(content.token.address), Relaxed);
        self.store(place, Some(Content { boxed, ..content }));
    }

    /// And out of it, which is garbage then.
    fn take_out_of_box(&mut self) {
        let Some(place) = self.places.find(&mut self.rng, true) else { return };
        let Some(content) = self.load(place).filter(|content| content.boxed != 0) else { return };
        let token = self.ground.decode(word(content.boxed, 1).load(Relaxed));
        assert_eq!(token, content.token.address, "what a box holds");
        if self.rng.one_in(2) {
            let value = self.ground.encode(0);
            write(self.ground, self.m.as_mut().expect("attached"), content.boxed, 1, value, Omit::Write);
        }
        self.store(place, Some(Content { boxed: 0, ..content }));
    }

    /// Leaves an object in the hub.
    fn give(&mut self) {
        let Some(place) = self.places.find(&mut self.rng, true) else { return };
        let (ground, content) = (self.ground, self.load(place));
        let mut left = lock(&ground.left);
        let Some(at) = left.iter().position(Option::is_none) else { return };
        left[at] = content;
        let value = ground.encode(content.map_or(0, |content| content.held()));
        write(ground, self.m(), ground.hub, at, value, Omit::Hub);
        drop(left);
        self.store(place, None);
    }

    /// Takes one out of it, of any mover's.
    fn take(&mut self) {
        let Some(place) = self.places.find(&mut self.rng, false) else { return };
        let (ground, first) = (self.ground, self.rng.below(super::HUB));
        let mut left = lock(&ground.left);
        let places = (first..super::HUB).chain(0..first);
        let Some((at, content)) = places.filter_map(|at| Some((at, left[at]?))).next() else { return };
        left[at] = None;
        assert_eq!(ground.decode(word(ground.hub, at).load(Acquire)), content.held(), "slot {at} of the hub");
        write(ground, self.m(), ground.hub, at, ground.encode(0), Omit::Hub);
        drop(left);
        ground.check(content.token);
        self.store(place, Some(content));
    }

    fn leave_in_weak(&mut self) {
        let Some(place) = self.places.find(&mut self.rng, true) else { return };
        let (Some(content), finalizer) = (self.load(place), self.rng.one_in(3)) else { return };
        let m = self.m.as_ref().expect("attached");
        if self.weakly.leave_in_weak(self.ground, m, content, finalizer) {
            self.store(place, None);
        }
    }

    /// Leaves one in an ephemeron whose key is held, or one as its key and another as its value.
    fn leave_in_ephemeron(&mut self) {
        let Some(place) = self.places.find(&mut self.rng, true) else { return };
        let of_key = if self.rng.one_in(3) { None } else { self.places.find(&mut self.rng, true) };
        let of_key = of_key.filter(|&of_key| of_key != place);
        let (Some(value), key) = (self.load(place), of_key.and_then(|place| self.load(place))) else {
            return;
        };
        let m = self.m.as_mut().expect("attached");
        if self.weakly.leave_in_ephemeron(self.ground, m, key, value) {
            self.store(place, None);
            of_key.into_iter().for_each(|place| self.store(place, None));
        }
    }

    fn take_back(&mut self) {
        let Some(place) = self.places.find(&mut self.rng, false) else { return };
        let second = self.places.find(&mut self.rng, false).filter(|&second| second != place);
        let m = self.m.as_mut().expect("attached");
        let taken = self.weakly.take(self.ground, m, &mut self.rng, second.is_some());
        for (place, content) in std::iter::once(place).chain(second).zip(taken.into_iter().flatten()) {
            self.ground.check(content.token);
            self.store(place, Some(content));
        }
        self.m().safepoint();
        self.weakly.let_go(self.ground, self.m.as_ref().expect("attached"));
    }

    fn leave_to_finalizer(&mut self) {
        let Some(place) = self.places.find(&mut self.rng, true) else { return };
        let Some(content) = self.load(place) else { return };
        leave_to_finalizer(self.ground, self.m.as_ref().expect("attached"), content);
        self.store(place, None);
    }

    /// Runs a finalizer, which gives its object back.
    fn finalize(&mut self) {
        let Some(place) = self.places.find(&mut self.rng, false) else { return };
        if let Some(content) = run_finalizer(self.ground, self.m.as_ref().expect("attached")) {
            self.store(place, Some(content));
        }
    }

    fn make_up_for_the_dead(&mut self) {
        for _ in 0..16 {
            let alive = self.ground.made.load(Relaxed) - self.ground.dead.load(Relaxed);
            if alive < MOVERS as u64 * TOKENS {
                self.make();
            }
        }
    }

    /// Removes the mover's own range, with all that it holds, and adds it again.
    fn renew(&mut self) {
        for at in 0..PART {
            if let (Some(content), Some(place)) = (self.load(Place::Own(at)), self.places.empty_on_stack()) {
                self.places.own[at] = None;
                self.store(place, Some(content));
            }
        }
        let kept = self.places.own;
        let words = self.places.own_word(0)..self.places.own_word(PART);
        let clear =
            || self.ground.words[words.clone()].iter().for_each(|w| w.store(self.ground.encode(0), Relaxed));
        if self.ground.omit == Omit::Remove {
            clear();
        }
        self.ground.remove_range(words.start);
        clear();
        self.ground.add_range(words.start, PART);
        (0..PART).for_each(|at| self.store(Place::Own(at), kept[at]));
    }

    /// Leaves what is on the stack elsewhere, one object in the hub, and comes again.
    fn reattach(&mut self) {
        for from in self.places.on_stack() {
            let Some(content) = self.load(from) else { continue };
            let to = loop {
                match self.places.find(&mut self.rng, false) {
                    Some(Place::Stack(_)) | None => {}
                    Some(place) => break place,
                }
            };
            self.store(to, Some(content));
            self.store(from, None);
        }
        self.give();
        self.m = None;
        if self.rng.one_in(4) {
            std::thread::yield_now();
        }
        let m = self.ground.heap.attach().expect("attach");
        self.places.attach(&m);
        self.m = Some(m);
    }

    fn check(&self) {
        for (n, held) in self.places.held.iter().enumerate() {
            for at in 0..held.len() {
                if let Some(content) = self.load(Place::Array(n, at)) {
                    self.ground.check(content.token);
                }
            }
        }
    }
}
