//! Pages that are freed while a memory checker watches: they come back late, or when they are missed.

use super::PageHeap;
use crate::page_alloc::PageAlloc;
use crate::units::{PageId, Pages};
use besom_stats::memory_checker;
use besom_stats::sync::{MutexGuard, lock};

impl PageHeap {
    /// [`Self::free`] under a memory checker.
    #[cold]
    pub(super) fn free_late(&self, start: PageId, n: Pages) {
        let (mut pages, mut late) = (lock(&self.pages), lock(&self.late));
        while !late.put(start, n) {
            let Some((oldest, its)) = late.take() else { return pages.free(start, n) };
            pages.free(oldest, its);
        }
    }

    /// Frees what comes back late now; whether there was any.
    pub(super) fn return_late(&self, pages: &mut MutexGuard<'_, PageAlloc>) -> bool {
        if !memory_checker::is_present() {
            return false;
        }
        let mut late = lock(&self.late);
        std::iter::from_fn(|| late.take()).inspect(|&(start, n)| pages.free(start, n)).count() > 0
    }
}
