//! What comes into the hands of a thread while objects are marked, though no object that is scanned leads to it: out of a weak
//! reference, and out of the due queue. `WeakEntry`, `FinalizerEntry` and `Due` are the code's.

use super::toy::{Guest, LAST, NAMED, TABLES, Toy};
use besom_gc::Phase;
use besom_gc::specials::due::{Due, Item, Links, List};
use besom_gc::specials::finalizers::{Finalizer, FinalizerEntry};
use besom_gc::specials::slab::Slot;
use besom_gc::specials::weak::WeakEntry;
use besom_loom_tests::{model, start};
use besom_stats::sync::AtomicU64;
use besom_stats::sync::raw::{AtomicBool, Ordering::Relaxed};

const FINALIZER: Finalizer = Finalizer { run: 1, data: 2 };

/// One weak reference and one finalizer.
#[derive(Default)]
pub struct Specials {
    weak: WeakEntry,
    entry: FinalizerEntry,
    due: Due,
    /// Changes in a stopped world.
    resolving: AtomicBool,
}

impl Specials {
    /// The weak reference names [`NAMED`], which nothing leads to.
    fn weak() -> Option<Specials> {
        let specials = Specials::default();
        specials.weak.fill(NAMED);
        Some(specials)
    }

    /// The finalizer of [`NAMED`] has come to be due in the last cycle.
    fn due() -> Option<Specials> {
        let specials = Specials::default();
        specials.entry.fill(NAMED);
        specials.entry.set(FINALIZER);
        specials.entry.set_due();
        let mut list = List::default();
        list.push(Item::finalizer(0), &specials);
        specials.due.append(list, &specials);
        Some(specials)
    }
}

impl Links for Specials {
    fn link(&self, _: Item) -> &AtomicU64 {
        self.entry.link()
    }
}

impl Toy {
    fn its_specials(&self) -> &Specials {
        self.specials.as_ref().expect("a model of them")
    }

    pub fn phase(&self) -> Phase {
        match &self.specials {
            _ if !self.is_marking() => Phase::Idle,
            Some(specials) if specials.resolving.load(Relaxed) => Phase::Resolving,
            _ => Phase::Marking,
        }
    }

    fn is_marked(&self, object: usize) -> bool {
        self.marks[object].load(Relaxed)
    }

    /// `for_each_due_object`.
    pub fn visit_due(&self) {
        if let Some(specials) = &self.specials
            && !specials.due.is_empty()
        {
            specials.entry.visit_due(|object| self.mark(object));
        }
    }

    /// In the stop in which all is marked: whether the world goes on before the cycle ends.
    pub fn resolves(&self) -> bool {
        let Some(specials) = &self.specials else { return false };
        specials.resolving.store(true, Relaxed);
        true
    }

    pub fn resolve(&self) {
        let specials = self.its_specials();
        specials.weak.clear_if_dead(|object| self.is_marked(object));
    }

    /// After a cycle.
    fn named(&self) -> usize {
        self.its_specials().weak.read(Phase::Idle, |_| true)
    }
}

impl Guest<'_> {
    fn weak_get(&mut self) -> usize {
        self.work();
        let toy = self.toy;
        let object = toy.its_specials().weak.read(toy.phase(), |object| toy.is_marked(object));
        self.shade(object);
        object
    }

    /// The object of the finalizer, if that is due and nobody took it before.
    fn run_due(&mut self) -> Option<usize> {
        self.work();
        let specials = self.toy.its_specials();
        specials.due.take(u64::MAX, specials)?;
        let object = specials.entry.object();
        self.hold(0, object);
        self.shade(object);
        assert_eq!(specials.entry.take(), FINALIZER);
        Some(object)
    }

    /// Stores what it holds in a table, which keeps it from then on.
    fn keep(&mut self, object: usize) {
        self.store(TABLES[1], object);
        self.hold(0, 0);
    }
}

/// The object goes into a table that may have been scanned long before.
#[test]
fn what_a_weak_reference_gives_is_kept() {
    model(3, || {
        let (toy, _) = Toy::with(0, Specials::weak());
        let reader = start(&toy, |toy| {
            let mut guest = toy.attach();
            let object = guest.weak_get();
            guest.hold(0, object);
            guest.safepoint();
            assert_eq!(guest.weak_get(), object, "it is held, or it is dead");
            if object != 0 {
                guest.keep(object);
            }
            guest.detach();
            object
        });
        toy.collect_unseated();
        let object = reader.join().unwrap();
        assert_eq!(toy.named(), object, "who was given it keeps it");
    });
}

/// Who holds it is blocked when all is marked.
#[test]
fn a_blocked_thread_keeps_what_a_weak_reference_gave() {
    model(3, || {
        let (toy, _) = Toy::with(0, Specials::weak());
        let reader = start(&toy, |toy| {
            let mut guest = toy.attach();
            let object = guest.weak_get();
            guest.hold(0, object);
            guest.block();
            guest.unblock();
            assert_eq!(guest.weak_get(), object, "it is held, or it is dead");
            guest.detach();
        });
        toy.collect_unseated();
        reader.join().unwrap();
    });
}

/// Whoever comes first keeps it for the other; who finds it dead finds it so for both.
#[test]
fn two_read_one_weak_reference() {
    model(3, || {
        let (toy, _) = Toy::with(0, Specials::weak());
        let readers = [(); 2].map(|()| {
            start(&toy, |toy| {
                let mut guest = toy.attach();
                let object = guest.weak_get();
                if object != 0 {
                    guest.keep(object);
                }
                guest.detach();
                object
            })
        });
        toy.collect_unseated();
        let given: Vec<usize> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        assert!(given.iter().all(|object| *object == 0 || toy.named() == *object), "{given:?}");
    });
}

/// The leader looks for what is due while its object is taken out, which no other root names. The entry serves another
/// object at once.
#[test]
fn a_finalizers_object_is_taken_while_due_objects_are_visited() {
    for again in [false, true] {
        model(3, move || {
            let (toy, _) = Toy::with(0, Specials::due());
            let runner = start(&toy, move |toy| {
                let mut guest = toy.attach();
                let object = guest.run_due().expect("it is due");
                assert_eq!(object, NAMED);
                if again {
                    toy.its_specials().entry.fill(LAST);
                    toy.its_specials().entry.set(FINALIZER);
                }
                guest.safepoint();
                guest.keep(object);
                guest.detach();
            });
            toy.collect_unseated();
            runner.join().unwrap();
        });
    }
}

/// Two want to run it; one does.
#[test]
fn two_run_what_is_due() {
    model(3, || {
        let (toy, _) = Toy::with(0, Specials::due());
        let runners = [(); 2].map(|()| {
            start(&toy, |toy| {
                let mut guest = toy.attach();
                let object = guest.run_due();
                if let Some(object) = object {
                    guest.keep(object);
                }
                guest.detach();
                object.is_some()
            })
        });
        toy.collect_unseated();
        let ran = runners.into_iter().map(|runner| runner.join().unwrap()).filter(|ran| *ran);
        assert_eq!(ran.count(), 1);
    });
}

/// Nobody takes it: the queue keeps it.
#[test]
fn what_is_due_is_kept() {
    model(3, || {
        let (toy, _) = Toy::with(0, Specials::due());
        let other = start(&toy, |toy| toy.attach().detach());
        toy.collect_unseated();
        assert!(toy.is_marked(NAMED));
        other.join().unwrap();
    });
}
