//! What a cycle does with specials once all that is reachable is marked.

use super::Specials;
use super::due::List;
use super::ephemerons::Ephemerons;
use besom_alloc_core::span_heap::SpanHeap;
use besom_stats::sync::raw::{Ordering::Release, fence};

impl Specials {
    /// Finds out who is dead and sees to it, by the collecting thread alone, in a stopped world or beside the program:
    ///
    /// 1. weak references to objects without a mark are cleared
    /// 2. ephemerons whose key has no mark are closed
    /// 3. finalizers of objects without a mark are taken out of their table, and `revive` marks these objects and all that
    ///    they lead to, so that it returns when nothing is left to be scanned, ephemerons watched
    /// 4. ephemerons that this found, and whose key has no mark, are closed
    /// 5. cleanups of objects that have no mark even now are taken
    /// 6. what was taken in 3 and 5 goes into the due queue
    ///
    /// So no weak reference leads to an object that a finalizer gets; a cleanup runs when its object is gone for good; and
    /// finalizers of objects that lead to each other are due together, in no order. `revive` is called only if there are
    /// any. The program sees none of what is revived before it is marked, all of it.
    pub fn resolve(
        &self,
        heap: &SpanHeap,
        ephemerons: &Ephemerons,
        revive: impl FnOnce(&mut dyn Iterator<Item = usize>),
    ) {
        self.weaks.clear_dead(heap);
        ephemerons.close(heap);
        let (mut finalizers, mut cleanups) = (List::default(), List::default());
        self.finalizers.collect_dead(heap, &mut finalizers, self);
        if !finalizers.is_empty() {
            // Who sees a mark from here on sees what was cleared and closed.
            fence(Release);
            revive(&mut finalizers.iter(self).map(|item| self.finalizers.object(item.index())));
        }
        ephemerons.end_cycle(heap, &heap.system().gc);
        self.cleanups.collect_dead(heap, &mut cleanups, self);
        self.due.append(finalizers, self);
        self.due.append(cleanups, self);
    }

    /// Checks, in a stopped world after [`Self::resolve`], that nothing waits for an object that is dead.
    pub fn verify(&self, heap: &SpanHeap) {
        self.weaks.verify(heap);
        self.finalizers.verify(heap);
        self.cleanups.verify(heap);
    }
}
