//! The model of weak references, ephemerons, finalizers and cleanups, for histories in which cycles run when they are asked
//! for, and at no other time: then all that they do can be foretold.

use crate::c;
use crate::model::{Expected, Model};
use besom::Mutator;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::ffi::c_void;
use std::ptr::with_exposed_provenance_mut;

thread_local! {
    /// What has run on this thread: finalizers with their objects, cleanups with 0; and their number.
    static RAN: RefCell<Vec<(usize, usize)>> = const { RefCell::new(Vec::new()) };
}

unsafe extern "C" fn finalizer(_: *mut c_void, object: *mut c_void, data: *mut c_void) {
    RAN.with_borrow_mut(|ran| ran.push((object.expose_provenance(), data.addr())));
}

unsafe extern "C" fn cleanup(arg: *mut c_void) {
    RAN.with_borrow_mut(|ran| ran.push((0, arg.addr())));
}

struct Weak {
    address: *mut c_void,
    /// 0 when it is cleared.
    object: usize,
}

struct Cleanup {
    name: u64,
    object: usize,
    number: usize,
}

/// What one thread knows of its specials.
#[derive(Default)]
pub struct Specials {
    weaks: Vec<Weak>,
    cleanups: Vec<Cleanup>,
    /// Names that cancel nothing any more.
    gone: Vec<u64>,
    finalizers: BTreeMap<usize, usize>,
    due_finalizers: BTreeMap<usize, usize>,
    due_cleanups: HashSet<usize>,
    next: usize,
}

fn one<T>(all: &[T], choice: u64) -> Option<usize> {
    (choice as usize).checked_rem(all.len())
}

impl Specials {
    /// A weak reference to an object.
    pub fn weak(&mut self, m: &Mutator<'_>, object: usize) {
        // SAFETY: the mutator is this thread's, the object alive.
        let address = unsafe { c::besom_weak_new(m.as_raw(), with_exposed_provenance_mut(object)) };
        assert!(!address.is_null(), "a weak reference");
        self.weaks.push(Weak { address, object });
    }

    /// Reads a weak reference; the object, if it is there.
    pub fn read_weak(&self, m: &Mutator<'_>, choice: u64) -> Option<usize> {
        let weak = &self.weaks[one(&self.weaks, choice)?];
        self.check_weak(m, weak);
        (weak.object != 0).then_some(weak.object)
    }

    fn check_weak(&self, m: &Mutator<'_>, weak: &Weak) {
        // SAFETY: a weak reference of the heap.
        let object = unsafe { c::besom_weak_get(m.as_raw(), weak.address) }.addr();
        assert_eq!(object, weak.object, "what a weak reference gives");
    }

    /// Frees a weak reference.
    pub fn free_weak(&mut self, m: &Mutator<'_>, choice: u64) {
        if let Some(at) = one(&self.weaks, choice) {
            let weak = self.weaks.swap_remove(at);
            // SAFETY: a weak reference of the heap.
            unsafe { c::besom_weak_free(c::heap(m.heap()), weak.address) };
        }
    }

    /// Sets or removes an object's finalizer.
    pub fn finalizer(&mut self, m: &Mutator<'_>, object: usize, set: bool) {
        self.next += 1;
        let (run, data) = (set.then_some(finalizer as c::Finalizer), with_exposed_provenance_mut(self.next));
        // SAFETY: the mutator is this thread's, the object alive.
        let status =
            unsafe { c::besom_finalizer_set(m.as_raw(), with_exposed_provenance_mut(object), run, data) };
        assert_eq!(status, 0, "besom_finalizer_set");
        if set {
            self.finalizers.insert(object, self.next);
        } else {
            self.finalizers.remove(&object);
        }
    }

    /// Adds a cleanup to an object.
    pub fn cleanup(&mut self, m: &Mutator<'_>, object: usize) {
        self.next += 1;
        let mut name = 0;
        let (at, arg) = (with_exposed_provenance_mut(object), with_exposed_provenance_mut(self.next));
        // SAFETY: the mutator is this thread's, the object alive.
        let status = unsafe { c::besom_cleanup_add(m.as_raw(), at, cleanup, arg, &mut name) };
        assert_eq!(status, 0, "besom_cleanup_add");
        self.cleanups.push(Cleanup { name, object, number: self.next });
    }

    /// Cancels a cleanup, and one that is cancelled, due or run.
    pub fn cancel(&mut self, m: &Mutator<'_>, choice: u64) {
        // SAFETY: the heap is alive.
        let cancel = |name| unsafe { c::besom_cleanup_cancel(c::heap(m.heap()), name) };
        if let Some(at) = one(&self.cleanups, choice) {
            let cleanup = self.cleanups.swap_remove(at);
            assert_eq!(cancel(cleanup.name), 1, "it waits still");
            self.gone.push(cleanup.name);
        }
        if let Some(at) = one(&self.gone, choice >> 32) {
            assert_eq!(cancel(self.gone[at]), 0, "it does not wait");
        }
    }

    /// Runs some of what is due; the objects that finalizers got, if all are to be kept.
    pub fn run(&mut self, m: &Mutator<'_>, at_most: usize) -> Vec<usize> {
        // SAFETY: the mutator is this thread's.
        let ran = unsafe { c::besom_finalizers_run(m.as_raw(), at_most) };
        let all = RAN.with_borrow_mut(std::mem::take);
        assert_eq!(ran, all.len(), "the number of what ran");
        assert_eq!(ran, at_most.min(self.due_finalizers.len() + self.due_cleanups.len()), "what was due");
        let mut objects = Vec::new();
        for (object, number) in all {
            if object == 0 {
                assert!(self.due_cleanups.remove(&number), "cleanup {number} is due");
            } else {
                assert_eq!(self.due_finalizers.remove(&object), Some(number), "a finalizer that is due");
                objects.push(object);
            }
        }
        objects
    }

    /// A whole cycle: what it must find is found out first, by the rules in `besom.h`.
    pub fn collect(&mut self, m: &mut Mutator<'_>, model: &mut Model<'_>) {
        let roots: Vec<usize> = model.roots.targets().chain(self.due_finalizers.keys().copied()).collect();
        let reached = model.closure(roots.iter().copied());
        for weak in &mut self.weaks {
            if !reached.contains(&weak.object) {
                weak.object = 0;
            }
        }
        model.close_ephemerons(&reached);
        let (stay, due) =
            std::mem::take(&mut self.finalizers).into_iter().partition(|(o, _)| reached.contains(o));
        self.finalizers = stay;
        self.due_finalizers.extend::<BTreeMap<_, _>>(due);
        let alive = model.closure(roots.into_iter().chain(self.due_finalizers.keys().copied()));
        model.close_ephemerons(&alive);
        let (gone, due_cleanups, cleanups) = (&mut self.gone, &mut self.due_cleanups, &mut self.cleanups);
        cleanups.retain(|cleanup| {
            let stays = alive.contains(&cleanup.object);
            if !stays {
                due_cleanups.insert(cleanup.number);
                gone.push(cleanup.name);
            }
            stays
        });
        model.retain(&alive);
        m.collect();
        let mut expected = Expected::default();
        expected.add(model.objects());
        expected.compare(m, true);
        self.check(m, model);
    }

    /// Compares everything with the heap.
    pub fn check(&self, m: &Mutator<'_>, model: &Model<'_>) {
        for (address, _) in model.objects() {
            model.check(m.heap(), address);
        }
        self.weaks.iter().for_each(|weak| self.check_weak(m, weak));
        for (ephemeron, contents) in &model.ephemerons {
            let at = with_exposed_provenance_mut::<c_void>(*ephemeron);
            // SAFETY: an ephemeron that is alive, or was when the last cycle ran.
            let found = unsafe {
                (
                    c::besom_ephemeron_key(m.as_raw(), at).addr(),
                    c::besom_ephemeron_value(m.as_raw(), at).addr(),
                )
            };
            assert_eq!(found, *contents, "what an ephemeron holds");
        }
    }
}
