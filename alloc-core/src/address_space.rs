//! The address space of one heap: one reservation, and the four states of the memory in it.
//!
//! | state | means | left by |
//! |---|---|---|
//! | reserved | addresses only; a touch faults | `prepare`, when a chunk is grown |
//! | prepared | may be touched, has no memory yet | `ready`, on first use |
//! | ready | in use or free, with memory behind it | `release` |
//! | released | as prepared: reads as zero, costs nothing | `ready`, on use |
//!
//! All goes back to the system when the heap is dropped.

use crate::os::{Mapping, OutOfMemory, Reservation, address_space_left};
use crate::units::{Bytes, CHUNK_SIZE, PAGE_SIZE, PageId, Pages};
use besom_stats::sync::raw::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use besom_stats::sync::{Held, Mutex, hold, lock};

/// Reserved when the embedder names no size. Higher: the tables' mappings, 2.4 % of it, no longer fit
/// 47-bit addresses for many heaps at once. Lower: a heap that could still have grown is full.
pub const DEFAULT_RESERVE: Bytes = Bytes(1 << 40);
/// The back-off ends here. Higher: a heap fails under limits where it could have run. Lower: it comes up, to
/// fail a moment later.
const LEAST_RESERVE: usize = 64 << 20;
/// Page numbers, and page numbers plus one, fit 32 bits well below this.
const MOST_RESERVE: usize = 8 << 40;
/// Below this huge pages are refused at once. Higher: heaps of middling size miss more in the TLB. Lower: where the
/// system gives huge pages unasked, a small heap pays 2 MiB for its first page.
const HUGE_FROM: usize = 32 << 20;
/// Chunks that are refused huge pages one by one; each may split a mapping, and the system allows 65530 in a process.
/// Higher: a sparse heap takes mappings that others need. Lower: dense chunks of a vast heap lose their huge pages.
const MOST_SPLITS: usize = 8192;

/// One reservation.
///
/// Huge pages are asked for a chunk when all of it is in use, and refused before memory of it is given back: where they
/// are wanted, the system fills what is missing of one by itself, and takes back what was given. A chunk that has become
/// dense again may have them again.
///
/// - `base % CHUNK_SIZE == 0 && len % CHUNK_SIZE == 0`
/// - `whole.start <= base && base + len <= whole.start + whole.len`
/// - `splits` == chunks in `refused`, unless all are, for good
pub struct AddressSpace {
    whole: Reservation,
    base: usize,
    len: usize,
    /// A bit for each chunk that must have no huge pages; changed with `advice` held.
    refused: Mapping,
    /// Held from the decision about a chunk until the system knows it.
    advice: Mutex<()>,
    splits: AtomicUsize,
}

impl AddressSpace {
    /// Reserves `want` bytes (0: [`DEFAULT_RESERVE`]), or the half, or the half of that, as the system grants.
    ///
    /// At least half of what a resource limit leaves is left to the tables and to everybody else.
    pub fn reserve(want: Bytes) -> Result<AddressSpace, OutOfMemory> {
        let want = if want.0 == 0 { DEFAULT_RESERVE.0 } else { want.0 };
        let want = want.clamp(CHUNK_SIZE, MOST_RESERVE).next_multiple_of(CHUNK_SIZE);
        let least = want.min(LEAST_RESERVE);
        let mut len = match address_space_left() {
            Some(left) => want.min(left / 2 / CHUNK_SIZE * CHUNK_SIZE).max(least),
            None => want,
        };
        loop {
            match AddressSpace::of_length(len) {
                Ok(space) => return Ok(space),
                Err(error) if len == least => return Err(error),
                Err(_) => len = (len / 2).next_multiple_of(CHUNK_SIZE).max(least),
            }
        }
    }

    fn of_length(len: usize) -> Result<AddressSpace, OutOfMemory> {
        // One chunk more, so that an aligned start lies within.
        let whole = Reservation::new(len + CHUNK_SIZE)?;
        let base = whole.start().next_multiple_of(CHUNK_SIZE);
        whole.advise_huge(base, len.min(HUGE_FROM), false);
        let refused = Mapping::lazy_zeroed(AddressSpace::table_bytes(len / CHUNK_SIZE))?;
        Ok(AddressSpace { whole, base, len, refused, advice: Mutex::new(()), splits: AtomicUsize::new(0) })
    }

    /// Bytes of tables for so many chunks.
    pub(crate) const fn table_bytes(chunks: usize) -> usize {
        chunks.div_ceil(64) * size_of::<u64>()
    }

    /// The first address.
    #[inline(always)]
    pub fn base(&self) -> usize {
        self.base
    }

    /// Bytes reserved.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is reserved, which is never so.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reserved to prepared.
    pub(crate) fn prepare(&self, start: PageId, n: Pages) -> Result<(), OutOfMemory> {
        self.whole.allow_access(self.address(start, n), n.bytes().0)
    }

    /// Prepared or released to ready. The first touch brings the memory, so there is nothing to ask for.
    pub(crate) fn ready(&self, start: PageId, n: Pages) {
        debug_assert!(start.offset() + n.bytes().0 <= self.len, "ready beyond the reservation");
    }

    /// Ready to released; false when the system would not, and the memory is as it was.
    ///
    /// # Safety
    /// The pages are free: nobody reads or writes them.
    pub(crate) unsafe fn release(&self, start: PageId, n: Pages) -> bool {
        let (first, end) = (start.offset(), start.offset() + n.bytes().0);
        (first / CHUNK_SIZE..end.div_ceil(CHUNK_SIZE)).for_each(|chunk| self.refuse_huge(chunk));
        // SAFETY: the pages are free, by contract.
        unsafe { self.whole.drop_memory(self.address(start, n), n.bytes().0) }
    }

    /// All of a chunk is in use: a huge page costs nothing now, and saves misses in the TLB.
    pub(crate) fn dense(&self, chunk: usize) {
        let (word, bit) = self.refusal(chunk);
        let all = self.splits.load(Relaxed) >= MOST_SPLITS;
        if !all && chunk * CHUNK_SIZE >= HUGE_FROM && word.load(Relaxed) & bit == 0 {
            self.whole.advise_huge(self.base + chunk * CHUNK_SIZE, CHUNK_SIZE, true);
        }
    }

    fn refuse_huge(&self, chunk: usize) {
        let (word, bit) = self.refusal(chunk);
        if chunk * CHUNK_SIZE < HUGE_FROM {
            return;
        }
        let _held = lock(&self.advice);
        if word.load(Relaxed) & bit != 0 || self.splits.load(Relaxed) >= MOST_SPLITS {
            return;
        }
        word.fetch_or(bit, Relaxed);
        if self.splits.fetch_add(1, Relaxed) + 1 < MOST_SPLITS {
            self.whole.advise_huge(self.base + chunk * CHUNK_SIZE, CHUNK_SIZE, false);
        } else {
            // One mapping again, or nearly.
            self.whole.advise_huge(self.base, self.len, false);
        }
    }

    /// Keeps everybody from deciding about huge pages.
    pub(crate) fn hold(&self) -> Held<'_> {
        hold(&self.advice)
    }

    /// Whether a chunk is refused huge pages, and might have them again.
    pub(crate) fn has_refused(&self) -> bool {
        (1..MOST_SPLITS).contains(&self.splits.load(Relaxed))
    }

    /// The first such chunk in `from..to`.
    pub(crate) fn next_refused(&self, from: usize, to: usize) -> Option<usize> {
        let mut chunk = from;
        while self.has_refused() && chunk < to {
            let (word, _) = self.refusal(chunk);
            let rest = word.load(Relaxed) >> (chunk % 64);
            if rest != 0 {
                return Some(chunk + rest.trailing_zeros() as usize).filter(|&found| found < to);
            }
            chunk = (chunk / 64 + 1) * 64;
        }
        None
    }

    /// Asks for huge pages again in a chunk that was refused them, if `suits` says so: nothing of it is given back, or
    /// about to be. Who gives back after that refuses them first.
    pub(crate) fn huge_again(&self, chunk: usize, suits: impl FnOnce() -> bool) {
        let (word, bit) = self.refusal(chunk);
        let _held = lock(&self.advice);
        if self.has_refused() && word.load(Relaxed) & bit != 0 && suits() {
            word.fetch_and(!bit, Relaxed);
            self.splits.fetch_sub(1, Relaxed);
            self.whole.advise_huge(self.base + chunk * CHUNK_SIZE, CHUNK_SIZE, true);
        }
    }

    fn refusal(&self, chunk: usize) -> (&AtomicU64, u64) {
        debug_assert!(chunk < self.len / CHUNK_SIZE);
        // SAFETY: the mapping has a bit for each chunk, and is read and written atomically only.
        (unsafe { &*self.refused.ptr().cast::<AtomicU64>().add(chunk / 64) }, 1 << (chunk % 64))
    }

    fn address(&self, start: PageId, n: Pages) -> usize {
        debug_assert!(start.offset() + n.bytes().0 <= self.len, "pages beyond the reservation");
        self.base + start.offset()
    }
}

const _: () = assert!(CHUNK_SIZE.is_multiple_of(PAGE_SIZE) && HUGE_FROM.is_multiple_of(CHUNK_SIZE));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_are_aligned_and_apart() {
        let spaces: Vec<_> = (0..4).map(|_| AddressSpace::reserve(Bytes(100 << 20)).unwrap()).collect();
        for (i, a) in spaces.iter().enumerate() {
            assert_eq!((a.base() % CHUNK_SIZE, a.len(), a.is_empty()), (0, 100 << 20, false));
            for b in &spaces[..i] {
                assert!(a.base() + a.len() <= b.base() || b.base() + b.len() <= a.base());
            }
        }
    }

    #[test]
    fn the_default_is_large_and_odd_sizes_are_rounded() {
        assert_eq!(AddressSpace::reserve(Bytes(1)).unwrap().len(), CHUNK_SIZE);
        assert_eq!(AddressSpace::reserve(Bytes(CHUNK_SIZE + 1)).unwrap().len(), 2 * CHUNK_SIZE);
        assert!(AddressSpace::reserve(Bytes(0)).unwrap().len() >= LEAST_RESERVE);
        assert!(AddressSpace::reserve(Bytes(usize::MAX)).unwrap().len() <= MOST_RESERVE);
    }

    #[test]
    fn memory_goes_through_its_states() {
        let space = AddressSpace::reserve(Bytes(64 << 20)).unwrap();
        let (first, n) = (PageId(512), Pages(512));
        space.prepare(first, n).unwrap();
        space.ready(first, n);
        let p = (space.base() + first.offset()) as *mut u8;
        // SAFETY: the pages are prepared, and nobody else knows them.
        unsafe {
            assert_eq!(*p, 0);
            *p = 1;
            assert!(space.release(first, n));
            space.ready(first, n);
            assert_eq!(*p, 0);
        }
    }

    /// The flags (`VmFlags`) of the mapping that an address lies in.
    fn flags(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split(' ').next().unwrap().split_once('-');
            let range = range.and_then(|(a, b)| {
                Some(usize::from_str_radix(a, 16).ok()?..usize::from_str_radix(b, 16).ok()?)
            });
            if let Some(range) = range {
                inside = range.contains(&address);
            } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
                return format!("{flags} ");
            }
        }
        panic!("{address:#x} is not mapped");
    }

    /// `Some(true)`: huge pages are wanted at the start of a chunk; `Some(false)`: refused.
    fn huge(space: &AddressSpace, chunk: usize) -> Option<bool> {
        let flags = flags(space.base() + chunk * CHUNK_SIZE);
        match (flags.contains(" hg "), flags.contains(" nh ")) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }

    #[test]
    fn huge_pages_are_for_dense_chunks_that_gave_nothing_back() {
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return;
        }
        let space = AddressSpace::reserve(Bytes(64 << 20)).unwrap();
        let first = HUGE_FROM / CHUNK_SIZE;
        let page = |chunk: usize| PageId((chunk * CHUNK_SIZE / PAGE_SIZE) as u32);
        space.prepare(PageId(0), Pages((64 << 20) / PAGE_SIZE)).unwrap();
        assert_eq!(
            (huge(&space, 0), huge(&space, first)),
            (Some(false), None),
            "nothing is asked for up front"
        );
        [0, first, first + 1, first + 2].into_iter().for_each(|chunk| space.dense(chunk));
        let all = |space: &AddressSpace| [0, first, first + 1, first + 2, first + 3].map(|c| huge(space, c));
        assert_eq!(all(&space), [Some(false), Some(true), Some(true), Some(true), None]);
        // SAFETY: the pages are this test's, and hold nothing.
        unsafe {
            assert!(space.release(page(first + 1), Pages(1)));
            assert!(space.release(page(first + 3), Pages(1)));
        }
        space.dense(first + 1);
        assert_eq!(
            all(&space),
            [Some(false), Some(true), Some(false), Some(true), Some(false)],
            "not by itself"
        );
        assert_eq!(space.next_refused(0, 16), Some(first + 1));
        assert_eq!(
            (space.next_refused(first + 2, 16), space.next_refused(first + 4, 16)),
            (Some(first + 3), None)
        );
        assert_eq!(space.next_refused(first + 2, first + 3), None);
        space.huge_again(first + 1, || true);
        space.huge_again(first + 3, || false);
        assert_eq!(
            all(&space),
            [Some(false), Some(true), Some(true), Some(true), Some(false)],
            "dense again"
        );
        // SAFETY: as above.
        unsafe { assert!(space.release(page(first + 1), Pages(1))) };
        assert_eq!(huge(&space, first + 1), Some(false), "and sparse again");
        assert_eq!(space.splits.load(Relaxed), 2);
    }

    #[test]
    fn a_heap_that_is_sparse_everywhere_takes_few_mappings() {
        let space = AddressSpace::reserve(Bytes((MOST_SPLITS + 64) * 2 * CHUNK_SIZE)).unwrap();
        if space.len() < (MOST_SPLITS + 64) * 2 * CHUNK_SIZE {
            return;
        }
        let last = (MOST_SPLITS + 63) * 2;
        for chunk in (0..=last).step_by(2) {
            space.refuse_huge(chunk);
        }
        assert_eq!(space.splits.load(Relaxed), MOST_SPLITS);
        space.dense(last - 1);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(maps.lines().count() < MOST_SPLITS, "{} mappings", maps.lines().count());
    }

    #[test]
    fn under_a_limit_the_reservation_is_half_of_what_is_left() {
        // SAFETY: the child sets its own limit, maps, and exits without running destructors or handlers; the
        // parent waits for it.
        let status = unsafe {
            let child = libc::fork();
            if child == 0 {
                let bytes = crate::os::mapped_bytes() as u64 + (2 << 30);
                let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
                libc::setrlimit(libc::RLIMIT_AS, &limit);
                let Some(left) = address_space_left() else { libc::_exit(1) };
                let Ok(space) = AddressSpace::reserve(Bytes(0)) else { libc::_exit(2) };
                let fits = space.len() <= left / 2 && space.len() > left / 2 - CHUNK_SIZE;
                libc::_exit(if fits { 0 } else { 3 });
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            status
        };
        assert!(libc::WIFEXITED(status));
        assert_eq!(libc::WEXITSTATUS(status), 0);
    }
}
