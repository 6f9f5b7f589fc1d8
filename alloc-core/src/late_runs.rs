//! Runs of pages that come back late: so that, while a memory checker watches, a stale pointer into them finds no new
//! object there, but is reported. Otherwise there are none.

use crate::os::{Mapping, OutOfMemory};
use crate::units::{PAGE_SIZE, PageId, Pages};
use besom_stats::memory_checker;

/// Pages that wait. Higher: a program under a checker takes more memory. Lower: a use after free goes unnoticed when
/// it comes that much freed memory later.
const MOST: usize = (64 << 20) / PAGE_SIZE;

/// A queue, as a ring of at most [`MOST`] runs: each has a page at least.
///
/// - `pages` == the sum of the runs' pages, `pages <= MOST`
#[derive(Default)]
pub struct LateRuns {
    ring: Option<Mapping>,
    first: usize,
    len: usize,
    pages: usize,
}

impl LateRuns {
    /// An empty queue.
    pub fn new() -> Result<LateRuns, OutOfMemory> {
        LateRuns::new_if(memory_checker::is_present())
    }

    fn new_if(watched: bool) -> Result<LateRuns, OutOfMemory> {
        let ring = watched.then(|| Mapping::lazy_zeroed(MOST * size_of::<[u32; 2]>())).transpose()?;
        Ok(LateRuns { ring, ..LateRuns::default() })
    }

    /// Takes a run, unless that would be too many pages: then the one that waited longest has to go first, if there is one.
    pub fn put(&mut self, start: PageId, n: Pages) -> bool {
        if self.pages + n.0 > MOST {
            return false;
        }
        let Some(entry) = self.entry(self.first + self.len) else { return false };
        // SAFETY: an entry of the ring, which is this queue's own.
        unsafe { entry.write([start.0, n.0 as u32]) };
        self.len += 1;
        self.pages += n.0;
        true
    }

    /// Gives the run back that waited longest.
    pub fn take(&mut self) -> Option<(PageId, Pages)> {
        if self.len == 0 {
            return None;
        }
        // SAFETY: as in `put`, where it was written.
        let [start, n] = unsafe { self.entry(self.first)?.read() };
        self.first = (self.first + 1) % MOST;
        self.len -= 1;
        self.pages -= n as usize;
        Some((PageId(start), Pages(n as usize)))
    }

    fn entry(&self, n: usize) -> Option<*mut [u32; 2]> {
        // SAFETY: the ring has `MOST` entries.
        self.ring.as_ref().map(|ring| unsafe { ring.ptr().cast::<[u32; 2]>().add(n % MOST) })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn without_a_checker_nothing_waits() {
        let mut late = LateRuns::new().unwrap();
        assert!(!late.put(PageId(1), Pages(1)));
        assert!(late.take().is_none());
    }

    #[test]
    fn runs_come_back_in_order_and_never_are_too_many() {
        let mut late = LateRuns::new_if(true).unwrap();
        for start in 0..MOST as u32 {
            assert!(late.put(PageId(start), Pages(1)));
        }
        assert!(!late.put(PageId(MOST as u32), Pages(1)));
        // Round the ring's end.
        for start in 0..10 {
            assert_eq!(late.take(), Some((PageId(start), Pages(1))));
        }
        assert!(!late.put(PageId(1), Pages(11)));
        assert!(late.put(PageId(1), Pages(10)));
        for start in 10..MOST as u32 {
            assert_eq!(late.take(), Some((PageId(start), Pages(1))));
        }
        assert_eq!(late.take(), Some((PageId(1), Pages(10))));
        assert_eq!((late.take(), late.pages), (None, 0));
        assert!(!late.put(PageId(0), Pages(MOST + 1)));
        assert!(late.put(PageId(0), Pages(MOST)));
    }
}
