//! Handles: strong roots that outlive a frame.
//!
//! They lie in one mapping, so that a foreign pointer is told by its address, a freed one by its state, and the
//! collector walks an array.

use besom_alloc_core::os::{Mapping, OutOfMemory};
use besom_alloc_core::units::Bytes;
use besom_gc::Visitor;
use besom_stats::sync::raw::{AtomicU64, AtomicUsize, Ordering::*};
use besom_stats::sync::{Held, Mutex, hold, lock};
use besom_stats::{SysMemStat, fatal};

const LIVE: u64 = u64::MAX;
/// The share of the reservation that handles may take: 16 million at 1 TiB. Higher: address space. Lower:
/// a VM that keeps a handle an object runs out.
const RESERVE_SHARE: usize = 4096;

/// Bytes for the handles of a small heap: a million. They cost nothing until they are used.
const LEAST: usize = if cfg!(test) { 64 << 10 } else { 16 << 20 };

/// Handles that are scanned at a time. Higher: who makes or frees one waits longer for the lock. Lower: it is taken more
/// often.
const SCAN_STEP: usize = 1024;

/// One handle; `besom_handle` in C.
///
/// - `state == LIVE`, or the index + 1 of the next free handle (0: none)
/// - `object` is 0 when it is free
#[repr(C)]
pub struct Handle {
    object: AtomicUsize,
    state: AtomicU64,
}

#[derive(Clone, Copy)]
struct Free {
    /// Index + 1 of the first free handle.
    head: u64,
    /// Handles from here on were never used.
    fresh: usize,
    /// While objects are marked: handles from here on, up to `scan_end`, are not scanned yet.
    scanned: usize,
    scan_end: usize,
}

/// The handles of one heap.
pub struct Handles {
    mapping: Mapping,
    free: Mutex<Free>,
    /// `fresh`, for the collector: who adds handles holds the lock while the world is stopped, perhaps.
    used: AtomicUsize,
}

impl Handles {
    /// No handles yet.
    pub fn new(reserve: Bytes) -> Result<Handles, OutOfMemory> {
        let mapping = Mapping::lazy_zeroed_down_to((reserve.0 / RESERVE_SHARE).max(LEAST), 64 << 10)?;
        Ok(Handles {
            mapping,
            free: Mutex::new(Free { head: 0, fresh: 0, scanned: 0, scan_end: 0 }),
            used: AtomicUsize::new(0),
        })
    }

    fn at(&self, index: usize) -> &Handle {
        // SAFETY: an index below `used` lies in the mapping, which is made of handles; zero is a valid one.
        unsafe { &*self.mapping.ptr().cast::<Handle>().add(index) }
    }

    /// A handle on an object, or `None` when there is no room. `memory` counts what handles take.
    pub fn add(&self, object: usize, memory: &SysMemStat) -> Option<&Handle> {
        let mut free = lock(&self.free);
        let index = if free.head != 0 {
            let index = (free.head - 1) as usize;
            free.head = self.at(index).state.load(Relaxed);
            index
        } else {
            if (free.fresh + 1) * size_of::<Handle>() > self.mapping.len() {
                return None;
            }
            free.fresh += 1;
            memory.add(size_of::<Handle>() as i64);
            self.used.store(free.fresh, Release);
            free.fresh - 1
        };
        let handle = self.at(index);
        handle.object.store(object, Relaxed);
        handle.state.store(LIVE, Release);
        Some(handle)
    }

    /// The handle at an address; aborts if none is there. `function` names the caller in the message.
    fn check(&self, address: usize, function: &str) -> (&Handle, usize) {
        let offset = address.wrapping_sub(self.mapping.ptr().addr());
        let index = offset / size_of::<Handle>();
        if index >= self.used.load(Acquire) || !offset.is_multiple_of(size_of::<Handle>()) {
            fatal(format_args!("{function}: handle {address:#x} is no handle of this heap"));
        }
        let handle = self.at(index);
        if handle.state.load(Acquire) != LIVE {
            fatal(format_args!("{function}: handle {address:#x} is freed already"));
        }
        (handle, index)
    }

    /// The object of a handle.
    pub fn get(&self, address: usize) -> usize {
        self.check(address, "besom_handle_get").0.object.load(Relaxed)
    }

    /// Gives a handle another object; the one that it had.
    pub fn set(&self, address: usize, object: usize) -> usize {
        self.check(address, "besom_handle_set").0.object.swap(object, Relaxed)
    }

    /// The same for any thread, attached or not. `keep` is as in [`Self::remove`].
    pub fn replace(&self, address: usize, object: usize, keep: impl FnOnce(usize)) {
        let free = lock(&self.free);
        let (handle, index) = self.check(address, "besom_handle_set");
        if (free.scanned..free.scan_end).contains(&index) {
            keep(handle.object.load(Relaxed));
        }
        handle.object.store(object, Relaxed);
    }

    /// Frees a handle. `keep` is called first with an object that a scan has not come to; the scan cannot end meanwhile.
    pub fn remove(&self, address: usize, keep: impl FnOnce(usize)) {
        let mut free = lock(&self.free);
        let (handle, index) = self.check(address, "besom_handle_free");
        if (free.scanned..free.scan_end).contains(&index) {
            keep(handle.object.load(Relaxed));
        }
        handle.object.store(0, Relaxed);
        handle.state.store(free.head, Release);
        free.head = index as u64 + 1;
    }

    /// Keeps everybody from making, changing and freeing any, but for those who run.
    pub fn hold(&self) -> Held<'_> {
        hold(&self.free)
    }

    /// Bytes that handles take, free ones too. Only attached threads make any.
    pub fn bytes(&self) -> Bytes {
        Bytes(self.used.load(Acquire) * size_of::<Handle>())
    }

    /// A scan begins, in a stopped world: what handles hold now will be shown.
    pub fn begin_scan(&self) {
        let mut free = lock(&self.free);
        (free.scanned, free.scan_end) = (0, free.fresh);
    }

    /// Shows the objects that handles held when the scan began, while others use them: who overwrites or frees one has seen
    /// to it. Returns the bytes looked at.
    pub fn scan(&self, visitor: &mut dyn Visitor) -> Bytes {
        loop {
            let mut free = lock(&self.free);
            let to = free.scan_end.min(free.scanned + SCAN_STEP);
            for index in free.scanned..to {
                let handle = self.at(index);
                if handle.state.load(Acquire) == LIVE {
                    visitor.any(handle.object.load(Relaxed));
                }
            }
            free.scanned = to;
            if to == free.scan_end {
                return Bytes(to * size_of::<Handle>());
            }
        }
    }

    /// Shows the objects of all handles; returns the bytes looked at.
    pub fn for_each(&self, mut visit: impl FnMut(usize)) -> Bytes {
        let used = self.used.load(Acquire);
        for index in 0..used {
            let handle = self.at(index);
            if handle.state.load(Acquire) == LIVE {
                visit(handle.object.load(Relaxed));
            }
        }
        Bytes(used * size_of::<Handle>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static MEMORY: SysMemStat = SysMemStat::new();

    fn address(handle: Option<&Handle>) -> usize {
        std::ptr::from_ref(handle.expect("a handle")).addr()
    }

    fn shown(handles: &Handles) -> Vec<usize> {
        let mut shown = Vec::new();
        handles.for_each(|object| shown.push(object));
        shown
    }

    #[test]
    fn a_handle_holds_what_it_was_given_until_it_is_freed() {
        let handles = Handles::new(Bytes(1 << 30)).expect("handles");
        let (a, b) = (address(handles.add(100, &MEMORY)), address(handles.add(0, &MEMORY)));
        assert_eq!((handles.get(a), handles.get(b)), (100, 0));
        handles.set(b, 300);
        assert_eq!(shown(&handles), [100, 300]);
        handles.remove(a, |_| ());
        assert_eq!(shown(&handles), [300]);
        // The last freed is the next taken.
        let c = address(handles.add(400, &MEMORY));
        assert_eq!((c, handles.get(c)), (a, 400));
        assert_eq!(shown(&handles), [400, 300]);
    }

    #[test]
    fn the_mapping_is_the_limit() {
        let handles = Handles::new(Bytes(0)).expect("handles");
        let most = LEAST / size_of::<Handle>();
        let all: Vec<usize> = (0..most).map(|n| address(handles.add(n + 1, &MEMORY))).collect();
        assert!(handles.add(7, &MEMORY).is_none(), "handle {}", most + 1);
        assert_eq!(shown(&handles), (1..=most).collect::<Vec<_>>());
        for handle in all.iter().rev() {
            handles.remove(*handle, |_| ());
        }
        assert!(shown(&handles).is_empty());
        assert_eq!(handles.for_each(|_| ()), Bytes(LEAST), "looked at, though all are free");
        assert_eq!(address(handles.add(1, &MEMORY)), all[0]);
    }

    #[test]
    fn threads_share_the_list() {
        let handles = Handles::new(Bytes(1 << 30)).expect("handles");
        std::thread::scope(|scope| {
            for thread in 1..5 {
                let handles = &handles;
                scope.spawn(move || {
                    let mut own = Vec::new();
                    for n in 0..5000 {
                        own.push((address(handles.add(thread << 20 | n, &MEMORY)), thread << 20 | n));
                        if n % 3 != 0 {
                            let (handle, object) = own.swap_remove(n % own.len());
                            assert_eq!(handles.get(handle), object);
                            handles.remove(handle, |_| ());
                        }
                    }
                    for (handle, object) in own {
                        assert_eq!(handles.get(handle), object);
                        handles.remove(handle, |_| ());
                    }
                });
            }
        });
        assert!(shown(&handles).is_empty());
    }
}
