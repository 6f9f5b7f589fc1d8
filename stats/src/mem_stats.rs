//! MemStats: what a heap can say of its memory at one moment, and how each figure follows from the counters.
//!
//! [`MemStats::derive`] is arithmetic alone, over one snapshot of the ring and the few counters beside it. Its twin, which
//! counts by walking the heap, is the runtime's; [`MemStats::difference`] says where the two part.

use core::fmt;

use crate::delta::{HeapStatsDelta, SIZE_CLASSES};
use crate::pause_log::{PAUSES, PauseLog};
use crate::system::SystemBytes;

/// Objects of one size class. Tiny objects count as the blocks that they share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SizeCount {
    /// Bytes of a slot; 0 of class 0, which is the large objects'.
    pub size: u64,
    /// Allocated, ever.
    pub mallocs: u64,
    /// Freed, ever.
    pub frees: u64,
}

macro_rules! mem_stats {
    ($($(#[doc = $doc:literal])+ $field:ident,)+) => {
        /// Statistics of a heap's memory, exact; `besom_mem_stats` in C.
        ///
        /// - `alloc == heap_alloc == total_alloc - bytes freed`, `heap_objects == mallocs - frees`
        /// - `heap_sys == heap_inuse + heap_idle`, `heap_alloc <= heap_inuse`, `heap_released <= heap_idle`
        /// - `sys == heap_sys + stacks_inuse + work_bufs + spans_sys + page_tables_sys + mark_bits_sys + mcaches_sys + gc_sys
        ///   + other_sys`
        /// - `mallocs == sum of by_size[..].mallocs + tiny_allocs`, and likewise `frees`
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[repr(C)]
        pub struct MemStats {
            $($(#[doc = $doc])+ pub $field: u64,)+
            /// `gc_cpu_ns` over all processors' time since the heap was made, from 0 to 1.
            pub gc_cpu_fraction: f64,
            /// How long the last stops were, in nanoseconds: that of cycle n (from 1) at `(n - 1) % PAUSES`.
            pub pause_ns: [u64; PAUSES],
            /// When they ended, in nanoseconds since the Unix epoch.
            pub pause_end_unix_ns: [u64; PAUSES],
            /// Counts by size class.
            pub by_size: [SizeCount; SIZE_CLASSES],
        }

        impl MemStats {
            /// A record of zeros.
            pub const ZERO: MemStats = MemStats {
                $($field: 0,)+
                gc_cpu_fraction: 0.0,
                pause_ns: [0; PAUSES],
                pause_end_unix_ns: [0; PAUSES],
                by_size: [SizeCount { size: 0, mallocs: 0, frees: 0 }; SIZE_CLASSES],
            };

            /// The single numbers, by name.
            fn numbers(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field)),+].into_iter()
            }
        }
    };
}

mem_stats! {
    /// Bytes of allocated objects, in whole slots and pages; the same as `heap_alloc`.
    alloc,
    /// Bytes allocated, ever.
    total_alloc,
    /// Bytes of memory taken from the system; the sum of all `*_sys`, stacks and work buffers. Not all need be resident.
    sys,
    /// Objects allocated, ever, tiny ones included.
    mallocs,
    /// Objects freed, ever; a tiny object that shares a block counts as freed at once.
    frees,
    /// Tiny objects that shared a block, ever; part of `mallocs` and of `frees`.
    tiny_allocs,
    /// Bytes of objects that are reachable, or not swept yet.
    heap_alloc,
    /// Bytes of pages that may be touched, in use or not, given back or not.
    heap_sys,
    /// Bytes of pages that hold no object.
    heap_idle,
    /// Bytes of pages of spans.
    heap_inuse,
    /// Bytes of idle pages that have no memory behind them.
    heap_released,
    /// Objects that are allocated and not freed.
    heap_objects,
    /// Bytes of pages that hold stacks.
    stacks_inuse,
    /// Bytes of the mark queue.
    work_bufs,
    /// Bytes of span descriptors and of the central lists.
    spans_sys,
    /// Bytes of the page table and of the page allocator's tables.
    page_tables_sys,
    /// Bytes of mark bits and allocation bits.
    mark_bits_sys,
    /// Bytes of the caches of Ps.
    mcaches_sys,
    /// Bytes of the collector's own structures.
    gc_sys,
    /// Bytes of all else: the heap's struct, mutators, handles, root ranges, blocked threads' stacks.
    other_sys,
    /// Heap bytes at which the next cycle is due; `u64::MAX`: none is.
    next_goal,
    /// When the last cycle ended, in nanoseconds since the Unix epoch; 0: there was none.
    last_gc_unix_ns,
    /// How long the world was stopped for cycles, in sum, in nanoseconds.
    pause_total_ns,
    /// Cycles finished.
    num_gc,
    /// Those of them that the program asked for.
    num_forced_gc,
    /// Processor time that threads spent marking, in nanoseconds; sweeping is not in it.
    gc_cpu_ns,
}

/// What is counted beside the ring.
#[derive(Clone, Copy, Debug)]
pub struct Beside {
    /// Memory that the runtime takes for itself.
    pub system: SystemBytes,
    /// Tiny objects that shared a block, ever.
    pub tiny_allocs: u64,
    /// Heap bytes at which the next cycle is due.
    pub next_goal: u64,
    /// Cycles finished.
    pub num_gc: u64,
    /// Those that the program asked for.
    pub num_forced_gc: u64,
    /// Processor time of marking.
    pub gc_cpu_ns: u64,
    /// All processors' time since the heap was made.
    pub cpu_ns: u64,
}

impl MemStats {
    /// The record, from one snapshot in which every cache is flushed. `size` is the slot size of a class in bytes.
    pub fn derive(
        ring: &HeapStatsDelta,
        beside: &Beside,
        pauses: &PauseLog,
        size: impl Fn(usize) -> u64,
    ) -> MemStats {
        let alloc = ring.live_bytes(&size);
        let SystemBytes { spans, page_tables, mark_bits, mcaches, gc, other } = beside.system;
        // Wrapping: what does not hold is for the checks to say.
        let own = ring.in_stacks + ring.in_work_bufs + ring.in_metadata;
        let heap_sys = (ring.mapped - own) as u64;
        let mut stats = MemStats {
            alloc,
            total_alloc: ring.alloc_bytes(&size),
            sys: heap_sys.wrapping_add(own as u64).wrapping_add(beside.system.total()),
            mallocs: ring.alloc_count().wrapping_add(beside.tiny_allocs),
            frees: ring.free_count().wrapping_add(beside.tiny_allocs),
            tiny_allocs: beside.tiny_allocs,
            heap_alloc: alloc,
            heap_sys,
            heap_idle: heap_sys.wrapping_sub(ring.in_heap as u64),
            heap_inuse: ring.in_heap as u64,
            heap_released: ring.released as u64,
            heap_objects: ring.live_count(),
            stacks_inuse: ring.in_stacks as u64,
            work_bufs: ring.in_work_bufs as u64,
            spans_sys: spans,
            page_tables_sys: page_tables,
            mark_bits_sys: mark_bits,
            mcaches_sys: mcaches,
            gc_sys: gc,
            other_sys: other,
            next_goal: beside.next_goal,
            last_gc_unix_ns: pauses.last().map_or(0, |pause| pause.end_unix_ns),
            pause_total_ns: pauses.total_ns(),
            num_gc: beside.num_gc,
            num_forced_gc: beside.num_forced_gc,
            gc_cpu_ns: beside.gc_cpu_ns,
            gc_cpu_fraction: beside.gc_cpu_ns as f64 / beside.cpu_ns.max(1) as f64,
            ..MemStats::ZERO
        };
        for (number, pause) in (0..pauses.count()).rev().zip(pauses.recent()) {
            let place = number as usize % PAUSES;
            (stats.pause_ns[place], stats.pause_end_unix_ns[place]) = (pause.ns, pause.end_unix_ns);
        }
        for (class, count) in stats.by_size.iter_mut().enumerate() {
            *count = SizeCount {
                size: size(class),
                mallocs: ring.small_alloc_count[class],
                frees: ring.small_free_count[class],
            };
        }
        stats.by_size[0] =
            SizeCount { size: 0, mallocs: ring.large_alloc_count, frees: ring.large_free_count };
        stats
    }

    /// The first field in which this record, counted, and one made by walking differ.
    pub fn difference<'a>(&'a self, walked: &'a MemStats) -> Option<Difference<'a>> {
        let numbers = self.numbers().zip(walked.numbers()).map(|((field, a), (_, b))| (field, a, b));
        let share = [("gc_cpu_fraction", self.gc_cpu_fraction.to_bits(), walked.gc_cpu_fraction.to_bits())];
        let pairs = |field, a: &[u64; PAUSES], b: &[u64; PAUSES]| {
            let at = (0..PAUSES).find(|&i| a[i] != b[i]);
            at.map(|i| (field, a[i], b[i]))
        };
        let pauses = pairs("pause_ns", &self.pause_ns, &walked.pause_ns).into_iter().chain(pairs(
            "pause_end_unix_ns",
            &self.pause_end_unix_ns,
            &walked.pause_end_unix_ns,
        ));
        let classes = self.by_size.iter().zip(&walked.by_size).find(|(a, b)| a != b);
        let classes = classes.map(|(a, b)| {
            if a.size != b.size {
                ("by_size.size", a.size, b.size)
            } else if a.mallocs != b.mallocs {
                ("by_size.mallocs", a.mallocs, b.mallocs)
            } else {
                ("by_size.frees", a.frees, b.frees)
            }
        });
        let mut all = numbers.chain(share).chain(pauses).chain(classes);
        all.find(|(_, a, b)| a != b).map(|(field, counted, found)| Difference {
            field,
            counted,
            found,
            by_size: (&self.by_size, &walked.by_size),
        })
    }
}

/// Where two records part: the field, both values, and the size classes whose counts differ.
#[derive(Debug)]
pub struct Difference<'a> {
    /// The field's name.
    pub field: &'static str,
    /// What the counters say.
    pub counted: u64,
    /// What the walk found.
    pub found: u64,
    by_size: (&'a [SizeCount; SIZE_CLASSES], &'a [SizeCount; SIZE_CLASSES]),
}

/// Classes that a [`Difference`] names; more would not fit its line.
const CLASSES_NAMED: usize = 4;

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} counted, {} walked", self.field, self.counted, self.found)?;
        let differ = self.by_size.0.iter().zip(self.by_size.1).filter(|(a, b)| a != b);
        for (n, (a, b)) in differ.take(CLASSES_NAMED).enumerate() {
            f.write_str(if n == 0 { "; class " } else { ", class " })?;
            match a.size {
                0 => f.write_str("large")?,
                bytes => write!(f, "{bytes}")?,
            }
            write!(f, " mallocs {}/{} frees {}/{}", a.mallocs, b.mallocs, a.frees, b.frees)?;
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn size(class: usize) -> u64 {
        16 * class as u64
    }

    fn derived() -> MemStats {
        let mut ring = HeapStatsDelta {
            committed: 600,
            released: 500,
            mapped: 1100,
            in_heap: 400,
            in_stacks: 10,
            in_work_bufs: 20,
            in_metadata: 30,
            large_alloc: 100,
            large_alloc_count: 3,
            large_free: 40,
            large_free_count: 1,
            ..HeapStatsDelta::ZERO
        };
        ring.small_alloc_count[2] = 7;
        ring.small_free_count[2] = 5;
        let beside = Beside {
            system: SystemBytes { spans: 1, page_tables: 2, mark_bits: 4, mcaches: 8, gc: 16, other: 32 },
            tiny_allocs: 9,
            next_goal: 4096,
            num_gc: 2,
            num_forced_gc: 1,
            gc_cpu_ns: 25,
            cpu_ns: 100,
        };
        let pauses = PauseLog::new();
        pauses.record(5, 5, 1005);
        pauses.record(6, 6, 1006);
        MemStats::derive(&ring, &beside, &pauses, size)
    }

    #[test]
    fn each_field_is_arithmetic_over_the_counters() {
        let s = derived();
        assert_eq!((s.total_alloc, s.alloc, s.heap_alloc), (7 * 32 + 100, 2 * 32 + 60, 2 * 32 + 60));
        assert_eq!((s.mallocs, s.frees, s.heap_objects, s.tiny_allocs), (7 + 3 + 9, 5 + 1 + 9, 4, 9));
        assert_eq!((s.heap_sys, s.heap_inuse, s.heap_idle, s.heap_released), (1040, 400, 640, 500));
        assert_eq!((s.stacks_inuse, s.work_bufs), (10, 20));
        assert_eq!(s.sys, 1040 + 10 + 20 + 30 + 63);
        let kinds = [s.spans_sys, s.page_tables_sys, s.mark_bits_sys, s.mcaches_sys, s.gc_sys, s.other_sys];
        assert_eq!(kinds, [1, 2, 4, 8, 16, 32]);
        assert_eq!((s.num_gc, s.num_forced_gc, s.next_goal), (2, 1, 4096));
        assert_eq!((s.pause_total_ns, s.last_gc_unix_ns), (11, 1006));
        assert_eq!((s.pause_ns[0], s.pause_ns[1], s.pause_ns[2]), (5, 6, 0));
        assert_eq!((s.pause_end_unix_ns[0], s.pause_end_unix_ns[1]), (1005, 1006));
        assert_eq!((s.gc_cpu_ns, s.gc_cpu_fraction), (25, 0.25));
        assert_eq!(s.by_size[0], SizeCount { size: 0, mallocs: 3, frees: 1 });
        assert_eq!(s.by_size[2], SizeCount { size: 32, mallocs: 7, frees: 5 });
    }

    #[test]
    fn the_ring_of_pauses_wraps_where_cycles_say() {
        let pauses = PauseLog::new();
        let n = PAUSES as u64 + 3;
        (0..n).for_each(|i| pauses.record(i, i, 1000 + i));
        let beside = Beside {
            system: SystemBytes::default(),
            tiny_allocs: 0,
            next_goal: 0,
            num_gc: n,
            num_forced_gc: 0,
            gc_cpu_ns: 0,
            cpu_ns: 0,
        };
        let s = MemStats::derive(&HeapStatsDelta::ZERO, &beside, &pauses, size);
        let last = (n as usize + PAUSES - 1) % PAUSES;
        assert_eq!((s.pause_ns[last], s.pause_end_unix_ns[last]), (n - 1, 1000 + n - 1));
        assert_eq!(s.pause_ns[last + 1], n - PAUSES as u64);
    }

    #[test]
    fn a_difference_in_any_field_is_named_with_both_values() {
        let s = derived();
        assert!(s.difference(&s).is_none());
        // Each eight bytes of the record in turn.
        let words = size_of::<MemStats>() / 8;
        let mut named = std::collections::BTreeSet::new();
        for word in 0..words {
            let mut other = s;
            // SAFETY: within the record, which is made of words.
            unsafe { *(&raw mut other).cast::<u64>().add(word) ^= 1 };
            let difference = other.difference(&s).unwrap_or_else(|| panic!("word {word} is not compared"));
            assert_eq!(difference.counted ^ 1, difference.found, "word {word}");
            named.insert(difference.field);
        }
        assert_eq!(named.len(), s.numbers().count() + 1 + 2 + 3, "{named:?}");
    }

    #[test]
    fn a_difference_names_the_classes() {
        let (s, mut other) = (derived(), derived());
        other.mallocs += 1;
        other.by_size[2].mallocs += 1;
        other.by_size[0].frees = 0;
        assert_eq!(
            s.difference(&other).expect("a difference").to_string(),
            "mallocs: 19 counted, 20 walked; class large mallocs 3/3 frees 1/0, class 32 mallocs 7/8 frees 5/5"
        );
    }
}
