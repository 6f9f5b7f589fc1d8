//! Registered root ranges.

use crate::status::{Error, Result};
use besom_alloc_core::span_class::Kind;
use besom_alloc_core::units::Bytes;
use besom_gc::Visitor;
use besom_gc::scan::scan_words;
use besom_stats::SysMemStat;
use besom_stats::sync::{Held, Mutex, MutexGuard, hold, lock};

#[derive(Clone, Copy)]
struct Range {
    start: usize,
    words: usize,
    kind: Kind,
}

/// What is locked of the ranges.
#[derive(Default)]
struct Ranges {
    sorted: Vec<Range>,
    /// While objects are marked: of the range that starts there so many words are scanned, of those below all, of those
    /// above none.
    scanned: Option<(usize, usize)>,
}

/// Words of a range that are scanned at a time. Higher: who adds or removes a range waits longer. Lower: the lock is taken
/// more often.
const SCAN_STEP: usize = 16 << 10;

/// The ranges of one heap, sorted by start, no two with the same.
#[derive(Default)]
pub struct Roots {
    ranges: Mutex<Ranges>,
}

impl Roots {
    /// No ranges.
    pub fn new() -> Roots {
        Roots::default()
    }

    /// Adds a range. `memory` counts what ranges take.
    ///
    /// # Safety
    /// The words must stay readable until the range is removed or the heap is gone.
    pub unsafe fn add(&self, start: usize, words: usize, kind: Kind, memory: &SysMemStat) -> Result<()> {
        let bytes = words.checked_mul(8).ok_or(Error::Invalid)?;
        if start == 0 || !start.is_multiple_of(8) || words == 0 || start.checked_add(bytes).is_none() {
            return Err(Error::Invalid);
        }
        if !matches!(kind, Kind::Conservative | Kind::Values) {
            return Err(Error::Invalid);
        }
        let mut ranges = lock(&self.ranges);
        match ranges.sorted.binary_search_by_key(&start, |r| r.start) {
            Ok(_) => Err(Error::Invalid),
            Err(at) => {
                ranges.sorted.try_reserve(1).map_err(|_| Error::NoMemory)?;
                ranges.sorted.insert(at, Range { start, words, kind });
                memory.add(size_of::<Range>() as i64);
                Ok(())
            }
        }
    }

    /// Removes the range that starts there. `keep` is called first with the words, and their number, that a scan has not come
    /// to; the scan cannot end meanwhile.
    pub fn remove(
        &self,
        start: usize,
        memory: &SysMemStat,
        keep: impl FnOnce(*const usize, usize),
    ) -> Result<()> {
        let mut ranges = lock(&self.ranges);
        let at = ranges.sorted.binary_search_by_key(&start, |r| r.start).map_err(|_| Error::Invalid)?;
        let range = ranges.sorted.remove(at);
        if let Some((at, done)) = ranges.scanned
            && range.start >= at
        {
            let done = if range.start == at { done } else { 0 };
            keep(std::ptr::with_exposed_provenance(range.start + done * 8), range.words - done);
        }
        memory.add(-(size_of::<Range>() as i64));
        Ok(())
    }

    /// Holds the ranges as they are.
    pub fn hold(&self) -> HeldRanges<'_> {
        HeldRanges(lock(&self.ranges))
    }

    /// The same, for who is not interested in them.
    pub fn hold_out(&self) -> Held<'_> {
        hold(&self.ranges)
    }

    /// A scan begins, in a stopped world: what the ranges hold now will be shown.
    pub fn begin_scan(&self) {
        lock(&self.ranges).scanned = Some((0, 0));
    }

    /// Shows what the ranges held when the scan began, while the program goes on: who overwrites a word or removes a range
    /// sees to it. Returns their bytes.
    pub fn scan(&self, visitor: &mut dyn Visitor) -> Bytes {
        let encoding = visitor.shapes().encoding;
        let mut bytes = Bytes(0);
        loop {
            let mut ranges = lock(&self.ranges);
            let (at, done) = ranges.scanned.unwrap_or((usize::MAX, 0));
            let left = |r: &Range| r.start > at || (r.start == at && done < r.words);
            let Some(&range) = ranges.sorted.iter().find(|r| left(r)) else {
                ranges.scanned = None;
                return bytes;
            };
            let done = if range.start == at { done } else { 0 };
            let words = (range.words - done).min(SCAN_STEP);
            let start = std::ptr::with_exposed_provenance(range.start + done * 8);
            // SAFETY: readable by the promise of who added it, and who removes it waits.
            unsafe { scan_words(start, words, range.kind, &encoding, visitor) };
            bytes += Bytes(words * 8);
            ranges.scanned = Some((range.start, done + words));
        }
    }

    /// Shows all ranges; returns their bytes.
    pub fn visit(&self, visitor: &mut dyn Visitor) -> Bytes {
        let encoding = visitor.shapes().encoding;
        let mut bytes = Bytes(0);
        for range in lock(&self.ranges).sorted.iter() {
            let start = std::ptr::with_exposed_provenance(range.start);
            // SAFETY: readable by the promise of who added it.
            unsafe { scan_words(start, range.words, range.kind, &encoding, visitor) };
            bytes += Bytes(range.words * 8);
        }
        bytes
    }
}

/// The ranges, of which none is added or removed.
pub struct HeldRanges<'r>(MutexGuard<'r, Ranges>);

impl HeldRanges<'_> {
    /// Bytes that they take.
    pub fn bytes(&self) -> Bytes {
        Bytes(self.0.sorted.len() * size_of::<Range>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use besom_gc::{Encoding, Layouts, Shapes};

    static MEMORY: SysMemStat = SysMemStat::new();

    struct Notes {
        shapes: Shapes,
        exact: Vec<usize>,
        any: Vec<usize>,
    }

    impl Visitor for Notes {
        fn exact(&mut self, address: usize) {
            self.exact.push(address);
        }

        fn any(&mut self, word: usize) {
            self.any.push(word);
        }

        fn ephemeron(&mut self, _: usize) {
            unreachable!("there are none");
        }

        fn shapes(&self) -> &Shapes {
            &self.shapes
        }
    }

    fn visit(roots: &Roots) -> (Vec<usize>, Vec<usize>, Bytes) {
        let layouts = Layouts::new().expect("layouts");
        let shapes =
            Shapes { encoding: Encoding::default(), trace: None, data: std::ptr::null_mut(), layouts };
        let mut notes = Notes { shapes, exact: Vec::new(), any: Vec::new() };
        let bytes = roots.visit(&mut notes);
        notes.exact.sort_unstable();
        notes.any.sort_unstable();
        (notes.exact, notes.any, bytes)
    }

    #[test]
    fn ranges_are_read_as_their_kind_until_they_are_removed() {
        let roots = Roots::new();
        let (values, words) = ([8usize, 9, 16], [1usize, 2]);
        let (a, b) = (values.as_ptr().expose_provenance(), words.as_ptr().expose_provenance());
        // SAFETY: the arrays outlive the ranges.
        unsafe {
            assert_eq!(roots.add(a, 3, Kind::Values, &MEMORY), Ok(()));
            assert_eq!(roots.add(b, 2, Kind::Conservative, &MEMORY), Ok(()));
            // Ranges may overlap, but not start at one place.
            assert_eq!(roots.add(a + 16, 1, Kind::Conservative, &MEMORY), Ok(()));
            assert_eq!(roots.add(a, 1, Kind::Conservative, &MEMORY), Err(Error::Invalid));
        }
        assert_eq!(visit(&roots), (vec![8, 16], vec![1, 2, 16], Bytes(48)));
        assert_eq!(roots.remove(a + 8, &MEMORY, |_, _| ()), Err(Error::Invalid));
        assert_eq!(roots.remove(a, &MEMORY, |_, _| ()), Ok(()));
        assert_eq!(roots.remove(a, &MEMORY, |_, _| ()), Err(Error::Invalid));
        assert_eq!(visit(&roots), (vec![], vec![1, 2, 16], Bytes(24)));
    }

    #[test]
    fn bad_ranges_are_refused() {
        let roots = Roots::new();
        let word = 0usize;
        let at = (&raw const word).expose_provenance();
        let bad = [
            (0, 1, Kind::Conservative),
            (at + 4, 1, Kind::Conservative),
            (at, 0, Kind::Conservative),
            (at, usize::MAX / 8 + 1, Kind::Conservative),
            (at, usize::MAX / 8, Kind::Conservative),
            (at, 1, Kind::NoScan),
            (at, 1, Kind::Traced),
            (at, 1, Kind::Typed),
            (at, 1, Kind::TypedShared),
        ];
        for (n, (start, words, kind)) in bad.into_iter().enumerate() {
            // SAFETY: refused ranges are not read.
            let refused = unsafe { roots.add(start, words, kind, &MEMORY) };
            assert_eq!(refused, Err(Error::Invalid), "bad range {n}");
        }
        assert_eq!(visit(&roots).2, Bytes(0));
    }
}
