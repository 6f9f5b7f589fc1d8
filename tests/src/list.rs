//! A list whose head a handle holds; the first word of a node leads to the next.

use besom::HandleRef;
use std::ptr::NonNull;

/// Puts a new node in front.
///
/// # Safety
/// `node` must be a new object of a word or more, and nothing may have been allocated since.
pub unsafe fn push(head: &HandleRef<'_>, node: NonNull<u8>) {
    // SAFETY: the caller's promise; what a new object's word overwrites is nothing.
    unsafe { node.as_ptr().cast::<*mut u8>().write(head.get()) };
    head.set(node.as_ptr());
}

/// The number of nodes.
pub fn length(head: &HandleRef<'_>) -> usize {
    let (mut at, mut count) = (head.get(), 0);
    while !at.is_null() {
        // SAFETY: nodes of `push`.
        at = unsafe { at.cast::<*mut u8>().read() };
        count += 1;
    }
    count
}
