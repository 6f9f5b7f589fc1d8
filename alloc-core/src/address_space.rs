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

use crate::os::{OutOfMemory, Reservation, address_space_left};
use crate::units::{Bytes, CHUNK_SIZE, PAGE_SIZE, PageId, Pages};

/// Reserved when the embedder names no size. Higher: the tables' mappings, 2.4 % of it, no longer fit
/// 47-bit addresses for many heaps at once. Lower: a heap that could still have grown is full.
pub const DEFAULT_RESERVE: Bytes = Bytes(1 << 40);
/// The back-off ends here. Higher: a heap fails under limits where it could have run. Lower: it comes up, to
/// fail a moment later.
const LEAST_RESERVE: usize = 64 << 20;
/// Page numbers, and page numbers plus one, fit 32 bits well below this.
const MOST_RESERVE: usize = 8 << 40;
/// From here on huge pages are asked for; below they are refused. First fit by address fills what is
/// below before it touches what is above, so memory up there is dense. Higher: heaps of middling size
/// miss more in the TLB. Lower: a small heap pays 2 MiB for its first page.
const HUGE_FROM: usize = 32 << 20;

/// One reservation.
///
/// - `base % CHUNK_SIZE == 0 && len % CHUNK_SIZE == 0`
/// - `whole.start <= base && base + len <= whole.start + whole.len`
pub struct AddressSpace {
    whole: Reservation,
    base: usize,
    len: usize,
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
        if len > HUGE_FROM {
            whole.advise_huge(base + HUGE_FROM, len - HUGE_FROM, true);
        }
        Ok(AddressSpace { whole, base, len })
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
        // SAFETY: the pages are free, by contract.
        unsafe { self.whole.drop_memory(self.address(start, n), n.bytes().0) }
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
