//! Registered root ranges.

use crate::status::{Error, Result};
use besom_alloc_core::span_class::Kind;
use besom_alloc_core::units::Bytes;
use besom_gc::Visitor;
use besom_gc::scan::scan_words;
use besom_stats::sync::{Mutex, lock};

#[derive(Clone, Copy)]
struct Range {
    start: usize,
    words: usize,
    kind: Kind,
}

/// The ranges of one heap, sorted by start, no two with the same.
#[derive(Default)]
pub struct Roots {
    ranges: Mutex<Vec<Range>>,
}

impl Roots {
    /// No ranges.
    pub fn new() -> Roots {
        Roots { ranges: Mutex::new(Vec::new()) }
    }

    /// Adds a range.
    ///
    /// # Safety
    /// The words must stay readable until the range is removed or the heap is gone.
    pub unsafe fn add(&self, start: usize, words: usize, kind: Kind) -> Result<()> {
        let bytes = words.checked_mul(8).ok_or(Error::Invalid)?;
        if start == 0 || !start.is_multiple_of(8) || words == 0 || start.checked_add(bytes).is_none() {
            return Err(Error::Invalid);
        }
        if !matches!(kind, Kind::Conservative | Kind::Values) {
            return Err(Error::Invalid);
        }
        let mut ranges = lock(&self.ranges);
        match ranges.binary_search_by_key(&start, |r| r.start) {
            Ok(_) => Err(Error::Invalid),
            Err(at) => {
                ranges.try_reserve(1).map_err(|_| Error::NoMemory)?;
                ranges.insert(at, Range { start, words, kind });
                Ok(())
            }
        }
    }

    /// Removes the range that starts there.
    pub fn remove(&self, start: usize) -> Result<()> {
        let mut ranges = lock(&self.ranges);
        let at = ranges.binary_search_by_key(&start, |r| r.start).map_err(|_| Error::Invalid)?;
        ranges.remove(at);
        Ok(())
    }

    /// Shows all ranges; returns their bytes.
    pub fn visit(&self, visitor: &mut dyn Visitor) -> Bytes {
        let encoding = visitor.shapes().encoding;
        let mut bytes = Bytes(0);
        for range in lock(&self.ranges).iter() {
            let start = std::ptr::with_exposed_provenance(range.start);
            // SAFETY: readable by the promise of who added it.
            unsafe { scan_words(start, range.words, range.kind, &encoding, visitor) };
            bytes += Bytes(range.words * 8);
        }
        bytes
    }
}
