//! What the benchmark of the statistics sees of a heap's inside: the writer that the heap itself uses for a P.

use crate::mutator::Mutator;
use besom_stats::Writer;
use std::ffi::c_void;

/// The writer of the P that a mutator holds. Good until its next safepoint.
///
/// # Safety
/// `m` must be the calling thread's mutator, attached and not blocked, of a heap that outlives the writer.
#[inline(always)]
pub unsafe fn writer<'h>(m: *const c_void) -> Writer<'h> {
    let m = m.cast::<Mutator>();
    // SAFETY: the caller's promise.
    unsafe { (*(*m).p).writer((*(*m).heap).context()) }
}
