//! Exact statistics, and their twin.
//!
//! Both are taken in one stop with every cache flushed, nobody sweeping, and the locks held under which a thread that is
//! not attached can change what is counted. The first is arithmetic over the counters, the second a count of every span,
//! slot, page bitmap, P and seat. What only happened (frees, pauses, processor time) leaves nothing to be counted; the twin
//! takes it over, and derives from it whatever has a second source.

use crate::heap::Heap;
use crate::mcache::PCache;
use crate::mutator::Mutator;
use crate::roots::HeldRanges;
use besom_alloc_core::page_heap::{FrozenPages, PageCounts};
use besom_alloc_core::size_class::CLASS_SIZE;
use besom_alloc_core::stopped::Stopped;
use besom_alloc_core::units::{Bytes, Pages};
use besom_gc::layout::HeldLayouts;
use besom_stats::sync::raw::Ordering::*;
use besom_stats::{Beside, HeapStatsDelta, MemStats, PAUSES, SIZE_CLASSES, SizeCount, fatal};

/// Bytes of a slot of a class.
fn slot_bytes(class: usize) -> u64 {
    CLASS_SIZE[class].into()
}

/// A heap in which nothing changes that is counted.
struct Still<'h> {
    heap: &'h Heap,
    stopped: &'h Stopped<'h>,
    pages: FrozenPages<'h>,
    ring: HeapStatsDelta,
    ranges: HeldRanges<'h>,
    layouts: HeldLayouts<'h>,
    /// The goal as it is kept, and as it follows from its inputs.
    goal: (u64, u64),
}

/// What a walk over all spans counts.
struct Walk {
    /// Pages of spans.
    pages: Pages,
    /// Allocated slots by class; large objects in class 0.
    objects: [u64; SIZE_CLASSES],
    /// The same as the spans have told the statistics.
    told: [u64; SIZE_CLASSES],
    /// Bytes of large objects, in pages.
    large: Bytes,
    /// Bytes of slots that no mark kept, in spans that are not swept yet.
    garbage: Bytes,
}

impl Heap {
    /// Exact statistics.
    ///
    /// # Safety
    /// `m` must be the calling thread's, attached and not blocked, with its registers captured.
    pub(crate) unsafe fn mem_stats(&self, m: *mut Mutator) -> MemStats {
        // SAFETY: the caller's promise.
        unsafe {
            self.with_world_still(m, |stopped| {
                self.while_still(stopped, |still| {
                    let counted = still.counted();
                    if cfg!(debug_assertions) {
                        still.check_counters(&counted);
                    }
                    counted
                })
            })
        }
    }

    /// Exact statistics, counted and walked, and every identity between them checked.
    ///
    /// # Safety
    /// As for [`Self::mem_stats`].
    pub(crate) unsafe fn mem_stats_slow(&self, m: *mut Mutator) -> (MemStats, MemStats) {
        // SAFETY: the caller's promise.
        unsafe {
            self.with_world_still(m, |stopped| {
                self.while_still(stopped, |still| {
                    let counted = still.counted();
                    let walk = still.walk();
                    let walked = still.walked(&counted, &walk);
                    if let Some(difference) = counted.difference(&walked) {
                        fatal(format_args!("mem_stats: {difference}"));
                    }
                    still.check_walk(&counted, &walk);
                    still.check_counters(&counted);
                    (counted, walked)
                })
            })
        }
    }

    /// Holds everything still that is counted. No lock is waited for long, and nothing is allocated. The order of the locks:
    /// the sweeper's (held by the caller), the scheduler's, ranges, layouts, pages; within those, each for itself, the set
    /// of Ps, the ring's, the pacer's.
    fn while_still<R>(&self, stopped: &Stopped<'_>, f: impl FnOnce(&Still<'_>) -> R) -> R {
        self.scheduler.with_ps_pinned(|| {
            let (ranges, layouts) = (self.roots.hold(), self.collector.shapes().layouts.hold());
            let pages = self.spans.pages().freeze();
            let ring = self.spans.stats().read_stopped();
            let goal = self.collector.pacer().goal_twice();
            f(&Still { heap: self, stopped, pages, ring, ranges, layouts, goal })
        })
    }
}

impl Still<'_> {
    fn counted(&self) -> MemStats {
        let collector = &self.heap.collector;
        let (num_gc, num_forced_gc) = collector.cycles();
        let (marking, all) = collector.cpu();
        let beside = Beside {
            system: self.heap.spans.system().read(),
            tiny_allocs: self.heap.tiny_allocs.load(Relaxed),
            next_goal: self.goal.0,
            num_gc,
            num_forced_gc,
            gc_cpu_ns: marking.as_nanos() as u64,
            cpu_ns: all.as_nanos() as u64,
        };
        MemStats::derive(&self.ring, &beside, collector.pauses(), slot_bytes)
    }

    fn walk(&self) -> Walk {
        let spans = &self.heap.spans;
        let mut walk = Walk {
            pages: Pages(0),
            objects: [0; SIZE_CLASSES],
            told: [0; SIZE_CLASSES],
            large: Bytes(0),
            garbage: Bytes(0),
        };
        spans.for_each_span(self.stopped, |page, span| {
            let class = if span.is_large() {
                0
            } else {
                spans.classes().get(span.class()).facts().size_class.0 as usize
            };
            let unswept = span.sweepgen() != spans.generation();
            walk.pages = Pages(walk.pages.0 + span.pages().0);
            walk.told[class] += u64::from(span.counted());
            spans.for_each_object(page, span, |offset| {
                walk.objects[class] += 1;
                if span.is_large() {
                    walk.large += Bytes(span.slot_bytes());
                }
                if unswept && !spans.tables().is_marked(offset) {
                    walk.garbage += Bytes(span.slot_bytes());
                }
            });
        });
        walk
    }

    /// The twin of `counted`.
    fn walked(&self, counted: &MemStats, walk: &Walk) -> MemStats {
        let heap = self.heap;
        let (ring, tiny) = (&self.ring, heap.tiny_allocs.load(Relaxed));
        let (pages, tables) = self.pages.walk();
        // Of what only happened.
        let mut walked = MemStats {
            tiny_allocs: tiny,
            num_forced_gc: counted.num_forced_gc,
            gc_cpu_ns: counted.gc_cpu_ns,
            gc_cpu_fraction: counted.gc_cpu_fraction,
            pause_ns: counted.pause_ns,
            pause_end_unix_ns: counted.pause_end_unix_ns,
            ..MemStats::ZERO
        };
        // What there is: live objects by class, and with what was freed, all that ever were.
        let mut freed_bytes = ring.large_free;
        for class in 0..SIZE_CLASSES {
            let objects = walk.objects[class];
            let frees = if class == 0 { ring.large_free_count } else { ring.small_free_count[class] };
            let mallocs = objects.wrapping_add(frees);
            walked.by_size[class] = SizeCount { size: slot_bytes(class), mallocs, frees };
            walked.heap_objects += objects;
            walked.frees = walked.frees.wrapping_add(frees);
            walked.heap_alloc += objects * slot_bytes(class);
            freed_bytes = freed_bytes.wrapping_add(frees.wrapping_mul(slot_bytes(class)));
        }
        walked.heap_alloc += walk.large.0 as u64;
        walked.alloc = walked.heap_alloc;
        walked.total_alloc = walked.heap_alloc.wrapping_add(freed_bytes);
        walked.frees = walked.frees.wrapping_add(tiny);
        walked.mallocs = walked.heap_objects.wrapping_add(walked.frees);
        // Pages, by the spans and by the bitmaps.
        walked.heap_inuse = walk.pages.bytes().0 as u64;
        walked.heap_idle = (pages.free.bytes() + pages.released.bytes()).0 as u64;
        walked.heap_released = pages.released.bytes().0 as u64;
        walked.heap_sys = pages.grown.bytes().0 as u64;
        walked.work_bufs = heap.collector.work_bytes().0 as u64;
        // Tables, caches, and the rest, one by one.
        walked.spans_sys = (tables.spans + heap.spans.list_bytes().0) as u64;
        walked.page_tables_sys = tables.page_tables as u64;
        walked.mark_bits_sys = tables.mark_bits as u64;
        walked.mcaches_sys = (heap.ps.pin().iter().count() * size_of::<PCache>()) as u64;
        let specials = heap.collector.specials().bytes() + heap.collector.ephemerons().bytes();
        walked.gc_sys = (heap.collector.own_bytes() + self.layouts.bytes() + specials).0 as u64;
        walked.other_sys =
            (Bytes(size_of::<Heap>()) + self.seats() + heap.handles.bytes() + self.ranges.bytes()).0 as u64;
        walked.sys = walked.heap_sys
            + walked.work_bufs
            + walked.spans_sys
            + walked.page_tables_sys
            + walked.mark_bits_sys
            + walked.mcaches_sys
            + walked.gc_sys
            + walked.other_sys;
        // Cycles, by the generation, which each moves on by 2 from 2, in 32 bits; and by their pauses, while all are kept.
        let cycles = u64::from(heap.spans.generation().wrapping_sub(2) / 2);
        walked.num_gc = counted.num_gc & !u64::from(u32::MAX / 2) | cycles;
        walked.next_goal = self.goal.1;
        let all_kept = counted.num_gc <= PAUSES as u64;
        walked.pause_total_ns = if all_kept { counted.pause_ns.iter().sum() } else { counted.pause_total_ns };
        if let Some(last) = counted.num_gc.checked_sub(1) {
            walked.last_gc_unix_ns = counted.pause_end_unix_ns[last as usize % PAUSES];
        }
        walked
    }

    /// Bytes of the seats that were ever taken, and of what blocked threads held in them.
    fn seats(&self) -> Bytes {
        self.heap.mutators().fold(Bytes(0), |sum, m| {
            // SAFETY: the world is stopped.
            sum + Bytes(size_of::<Mutator>()) + unsafe { Mutator::snapshot_bytes(m) }
        })
    }

    /// Identities between the counters; aborts on the first that does not hold.
    fn check_counters(&self, counted: &MemStats) {
        let (ring, heap) = (&self.ring, self.heap);
        let PageCounts { in_use, free, released, .. } = self.pages.counts();
        let bytes = |pages: Pages| pages.bytes().0 as i64;
        let own = ring.in_stacks + ring.in_work_bufs + ring.in_metadata;
        must_agree("in_heap, and the page heap's pages in use", ring.in_heap, bytes(in_use));
        must_agree("released, and the page heap's", ring.released, bytes(released));
        must_agree(
            "committed - stacks - work bufs - metadata, and pages in use and free",
            ring.committed - own,
            bytes(in_use) + bytes(free),
        );
        must_agree("committed + released, and mapped", ring.committed + ring.released, ring.mapped);
        must_agree(
            "in_work_bufs, and the mark queue's",
            ring.in_work_bufs,
            heap.collector.work_bytes().0 as i64,
        );
        let MemStats { spans_sys, page_tables_sys, mark_bits_sys, mcaches_sys, gc_sys, other_sys, .. } =
            *counted;
        let parts = [counted.heap_sys, counted.stacks_inuse, counted.work_bufs, spans_sys, page_tables_sys];
        let rest = [mark_bits_sys, mcaches_sys, gc_sys, other_sys];
        let sum = parts.into_iter().chain(rest).fold(0, u64::wrapping_add);
        must_agree("sys, and the sum of its parts", counted.sys as i64, sum as i64);
        for (class, c) in counted.by_size.iter().enumerate() {
            if c.frees > c.mallocs {
                fatal(format_args!(
                    "mem_stats: class {}: {} mallocs against {} frees",
                    slot_bytes(class),
                    c.mallocs,
                    c.frees
                ));
            }
        }
        let (allocated, dead) = heap.collector.pacer().totals();
        must_agree("total_alloc, and the pacer's", counted.total_alloc as i64, allocated as i64);
        if heap.spans.sweep_is_done() {
            let freed = counted.total_alloc.wrapping_sub(counted.alloc);
            must_agree("total_free, and the pacer's", freed as i64, dead as i64);
        }
    }

    /// Identities between counters and the walk.
    fn check_walk(&self, counted: &MemStats, walk: &Walk) {
        for (class, c) in counted.by_size.iter().enumerate() {
            let (live, told) = (c.mallocs.wrapping_sub(c.frees), walk.told[class]);
            if live != told {
                fatal(format_args!(
                    "mem_stats: class {}: {live} counted, {told} told by spans",
                    slot_bytes(class)
                ));
            }
        }
        let (_, dead) = self.heap.collector.pacer().totals();
        let freed = counted.total_alloc.wrapping_sub(counted.alloc).wrapping_add(walk.garbage.0 as u64);
        must_agree("total_free and garbage, and the pacer's", freed as i64, dead as i64);
    }
}

/// Aborts unless two counters, or a counter and a count, agree.
fn must_agree(what: &str, left: i64, right: i64) {
    if left != right {
        fatal(format_args!("mem_stats: {what}: {left} against {right}"));
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
