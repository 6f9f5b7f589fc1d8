//! The slow path of allocation: safepoint, refill, collection, large objects, and what happens when memory is short.

use crate::cells::{Cell, TINY_BLOCK, TINY_CELL};
use crate::heap::Heap;
use crate::mutator::Mutator;
use besom_alloc_core::runs::Colour;
use besom_alloc_core::size_class::{MAX_SMALL, class_of_aligned};
use besom_alloc_core::span_class::{Kind, OWN_LAYOUTS, SpanClass};
use besom_alloc_core::span_heap::LargeObject;
use besom_alloc_core::units::{Bytes, Pages};
use besom_gc::Cause;
use besom_gc::layout::Layout;
use besom_stats::memory_checker;
use besom_stats::race_detector::{acquire, outside};

use crate::mcache::Refill;

/// Bytes of a large object that are zeroed between two looks at whether a stop is wanted. Higher: stops wait
/// longer (some 100 us for each MiB). Lower: nothing, down to a few pages.
const ZERO_STEP: usize = 1 << 20;

/// Spans that are swept for a large object between two looks at whether a stop is wanted. Higher: stops wait longer.
/// Lower: nothing, down to a few.
const SWEEP_STEP: usize = 256;

/// What an allocation has tried so far when memory is short.
#[derive(Default)]
struct Attempts {
    /// What was left of the last cycle is swept.
    swept: bool,
    /// Somebody else's cycle was waited for.
    waited: bool,
    /// A cycle that marked after the request, or after the VM was asked last, is over and swept.
    collected: bool,
}

impl Heap {
    /// `bytes` zeroed bytes of a kind, or null.
    ///
    /// # Safety
    /// `m` must be the calling thread's, attached and not blocked, with its registers captured.
    #[inline(always)] // Into `besom_alloc_slow`, both ways that it goes.
    pub(crate) unsafe fn alloc(&self, m: *mut Mutator, bytes: usize, kind: Kind) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            self.before_allocation(m);
            if bytes > MAX_SMALL {
                self.alloc_large(m, bytes, kind, 0)
            } else if kind == Kind::NoScan && (1..TINY_BLOCK).contains(&bytes) && self.shares_blocks() {
                self.alloc_tiny(m, bytes)
            } else {
                self.alloc_small(m, SpanClass::new(kind, class_of_aligned(bytes.max(1))), bytes)
            }
        }
    }

    /// An object of a registered layout, or null.
    ///
    /// # Safety
    /// As for [`Self::alloc`]; `number` must be registered.
    pub(crate) unsafe fn new_object(&self, m: *mut Mutator, public: u32, number: u32) -> *mut u8 {
        let layout = self.collector.shapes().layouts.get(number);
        // SAFETY: the caller's promise.
        unsafe {
            if (number as usize) < OWN_LAYOUTS {
                self.before_allocation(m);
                self.alloc_small(m, SpanClass(public as u16), layout.words() * 8)
            } else {
                self.alloc_shared(m, layout, number, layout.words() * 8)
            }
        }
    }

    /// An array of objects of a registered layout, or null.
    ///
    /// # Safety
    /// As for [`Self::new_object`].
    pub(crate) unsafe fn new_array(&self, m: *mut Mutator, number: u32, count: usize) -> *mut u8 {
        let layout = self.collector.shapes().layouts.get(number);
        match (layout.words() * 8).checked_mul(count) {
            // SAFETY: the caller's promise.
            Some(bytes) => unsafe { self.alloc_shared(m, layout, number, bytes) },
            None => std::ptr::null_mut(),
        }
    }

    /// # Safety
    /// As for [`Self::new_object`].
    unsafe fn alloc_shared(&self, m: *mut Mutator, layout: &Layout, number: u32, bytes: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if layout.is_pointer_free() {
                return self.alloc(m, bytes, Kind::NoScan);
            }
            self.before_allocation(m);
            if bytes > MAX_SMALL - 8 {
                return self.alloc_large(m, bytes, Kind::TypedShared, number);
            }
            let class = SpanClass::new(Kind::TypedShared, class_of_aligned(bytes + 8));
            let object = self.alloc_small(m, class, bytes);
            if !object.is_null() {
                let slot = self.spans.classes().get(class).facts().slot_bytes as usize;
                object.add(slot - 8).cast::<u64>().write(u64::from(number));
                memory_checker::keep_back(object.addr() + slot - 8, 8);
            }
            object
        }
    }

    /// A slot of a small class of the library's own, or null.
    ///
    /// # Safety
    /// As for [`Self::alloc`].
    pub(crate) unsafe fn alloc_own(&self, m: *mut Mutator, class: SpanClass, bytes: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            self.before_allocation(m);
            self.alloc_small(m, class, bytes)
        }
    }

    fn shares_blocks(&self) -> bool {
        self.options.tiny != 0 && !self.context().single
    }

    /// An allocation is a safepoint, and with `collect_every` sometimes a cycle.
    ///
    /// # Safety
    /// As for [`Self::alloc`].
    unsafe fn before_allocation(&self, m: *mut Mutator) {
        // SAFETY: the caller's promise.
        unsafe {
            if Mutator::polled(m) {
                self.safepoint(m);
            }
            if self.collect_every() != 0 {
                (*m).until_cycle -= 1;
                if (*m).until_cycle == 0 {
                    (*m).until_cycle = self.collect_every();
                    self.collect(m, Cause::Every);
                }
            }
        }
    }

    /// A slot of a small class, or null. `bytes` is for the callback.
    ///
    /// # Safety
    /// As for [`Self::alloc`].
    unsafe fn alloc_small(&self, m: *mut Mutator, class: SpanClass, bytes: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            self.alloc_in_cell(m, class.index(), bytes, |cell| {
                let (start, end) = (cell.cursor, cell.cursor + cell.slot);
                (end <= cell.limit).then(|| {
                    cell.cursor = end;
                    start
                })
            })
        }
    }

    /// A pointer-free object of 1 to 15 bytes in a block with others, or null.
    ///
    /// # Safety
    /// As for [`Self::alloc`].
    unsafe fn alloc_tiny(&self, m: *mut Mutator, bytes: usize) -> *mut u8 {
        let align = 1 << (bytes | 8).trailing_zeros();
        // SAFETY: the caller's promise.
        unsafe {
            self.alloc_in_cell(m, TINY_CELL, bytes, |cell| {
                let mut start = cell.cursor.next_multiple_of(align);
                if (start ^ (start + bytes - 1)) >= TINY_BLOCK {
                    start = start.next_multiple_of(TINY_BLOCK);
                }
                (start + bytes <= cell.limit).then(|| {
                    cell.cursor = start + bytes;
                    cell.slot += 1;
                    start
                })
            })
        }
    }

    /// What `bump` takes out of a cell, which is refilled until it does; null if memory is short.
    ///
    /// # Safety
    /// As for [`Self::alloc`].
    unsafe fn alloc_in_cell(
        &self,
        m: *mut Mutator,
        cell: usize,
        bytes: usize,
        bump: impl Fn(&mut Cell) -> Option<usize>,
    ) -> *mut u8 {
        let mut attempts = Attempts::default();
        let mut may_collect = true;
        loop {
            // SAFETY: the caller's promise: the thread holds the P.
            let refill = unsafe {
                let p = &*(*m).p;
                if let Some(start) = bump(&mut *p.cell(cell)) {
                    return std::ptr::with_exposed_provenance_mut(start);
                }
                p.refill(self.context(), cell, may_collect)
            };
            match refill {
                // SAFETY: the caller's promise.
                Refill::Done => unsafe { self.assist(m, 0) },
                Refill::CollectionDue => {
                    // SAFETY: the caller's promise.
                    unsafe { self.collect_soon(m, 0) };
                    may_collect = false;
                }
                // SAFETY: the caller's promise.
                Refill::NoMemory => unsafe {
                    if !self.make_room(m, bytes, &mut attempts) {
                        return std::ptr::null_mut();
                    }
                },
            }
        }
    }

    /// An object with pages of its own, or null.
    ///
    /// # Safety
    /// As for [`Self::alloc`].
    unsafe fn alloc_large(&self, m: *mut Mutator, bytes: usize, kind: Kind, layout: u32) -> *mut u8 {
        // No collection could make room for it, so none is run.
        if bytes > isize::MAX as usize || !self.spans.pages().could_hold(Pages::to_hold(Bytes(bytes))) {
            return std::ptr::null_mut();
        }
        let taken = Pages::to_hold(Bytes(bytes)).bytes().0 as i64;
        let pacer = self.collector.pacer();
        let mut attempts = Attempts::default();
        // SAFETY: the caller's promise.
        unsafe {
            if self.collector.is_due(taken) {
                self.collect_soon(m, taken);
            }
            (*(*m).p).owe(self.context(), taken);
            self.assist(m, taken);
            let object = loop {
                self.sweep_for(m, taken);
                let p = &*(*m).p;
                let stats = p.writer(self.context());
                let colour = p.colour();
                let cache = Some(p.pages());
                if let Some(object) = self.spans.alloc_large(Bytes(bytes), layout, colour, cache, stats) {
                    if colour == Colour::Black {
                        self.collector.born(taken as u64);
                    }
                    break object;
                }
                if !self.make_room(m, bytes, &mut attempts) {
                    return std::ptr::null_mut();
                }
            };
            pacer.credit(taken);
            self.collector.sample_growth(&self.spans);
            self.zero(m, &object, bytes);
            if kind != Kind::NoScan {
                self.spans.publish_large(&object, kind);
            }
            self.spans.address(object.page.offset())
        }
    }

    /// Sweeps what is due before `bytes` more are allocated, step by step; a stop need not wait for all of it.
    ///
    /// # Safety
    /// As for [`Self::alloc`].
    unsafe fn sweep_for(&self, m: *mut Mutator, bytes: i64) {
        let pacer = self.collector.pacer();
        // SAFETY: the caller's promise; the P is looked up anew after each safepoint.
        unsafe {
            while pacer.sweep_debt(bytes).0 > 0 {
                let p = &*(*m).p;
                let stats = p.writer(self.context());
                let began = self.collector.timeline().begin();
                let (mut pages, mut done) = (Pages(0), false);
                for _ in 0..SWEEP_STEP {
                    let swept = self.spans.sweep_one(stats);
                    pacer.swept(swept);
                    pages.0 += swept.map_or(0, |swept| swept.0);
                    done = swept.is_none() || pacer.sweep_debt(bytes).0 == 0;
                    if done {
                        break;
                    }
                }
                if let Some(began) = began {
                    p.assisted(self.context(), began, pages);
                }
                if done {
                    return;
                }
                if Mutator::polled(m) {
                    self.safepoint(m);
                }
            }
        }
    }

    /// Zeroes a large object step by step; a stop need not wait for all of it.
    ///
    /// # Safety
    /// As for [`Self::alloc`]; the object is new.
    unsafe fn zero(&self, m: *mut Mutator, object: &LargeObject, bytes: usize) {
        if object.zeroed {
            return;
        }
        let start = self.spans.address(object.page.offset());
        // SAFETY: the caller's promise; the object is held by `newborn` meanwhile.
        unsafe {
            (*m).newborn = start.addr();
            let end = bytes.next_multiple_of(8);
            for from in (0..end).step_by(ZERO_STEP) {
                std::ptr::write_bytes(start.add(from), 0, ZERO_STEP.min(end - from));
                if Mutator::polled(m) {
                    self.safepoint(m);
                }
            }
            (*m).newborn = 0;
        }
    }

    /// Memory is short: finishes the sweep, collects, and then asks the VM, one of them each time. False: give up,
    /// which is after a cycle that marked after the request, unless the request alone passes the limit.
    ///
    /// Threads that meet the limit together share cycles: who waited for another's tries with that first, and another
    /// one after it is as good as its own.
    ///
    /// # Safety
    /// As for [`Self::alloc`].
    #[cold]
    unsafe fn make_room(&self, m: *mut Mutator, bytes: usize, attempts: &mut Attempts) -> bool {
        if !self.spans.pages().could_hold(Pages::to_hold(Bytes(bytes))) {
            return false;
        }
        if !attempts.swept {
            attempts.swept = true;
            if !self.spans.sweep_is_done() {
                self.collector.finish_sweep(&self.spans, self.spans.stats().unattached());
                return true;
            }
        }
        if attempts.collected {
            let Some(ask) = self.options.out_of_memory else { return false };
            // What trace functions did in a cycle that was waited for is over.
            acquire(self);
            let heap = std::ptr::from_ref(self).cast_mut();
            // SAFETY: the VM's function with the VM's data.
            if outside(|| unsafe { ask(heap, bytes, self.options.data) }) == 0 {
                return false;
            }
            *attempts = Attempts { swept: true, ..Attempts::default() };
        }
        // This thread runs, so the world is not stopped: a cycle that is counted from here on marks from here on.
        let cycles = self.collector.cycles().0;
        // SAFETY: the caller's promise.
        let own = unsafe { self.try_collect(m, Cause::Limit) };
        if !own {
            self.collector.finish_sweep(&self.spans, self.spans.stats().unattached());
        }
        attempts.collected = own || (attempts.waited && self.collector.cycles().0 != cycles);
        attempts.waited = true;
        true
    }
}
