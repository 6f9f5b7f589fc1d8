//! The C interface, function by function as `besom.h` documents them: checks, then one call of the Rust side.

use crate::heap::Heap;
use crate::mutator::Mutator;
use crate::quarantine;
use crate::status::{Error, Result};
use std::ffi::c_int;

/// Defines an exported function that may reach a safepoint. It notes the caller's registers and stack in the mutator,
/// its first argument, before anything else, and goes on in the function named: so the collector scans what the
/// caller holds, and not what this library's own frames left on the stack below.
macro_rules! entry {
    ($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? = $body:path) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The first argument must be a mutator of a heap that is not freed.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            core::arch::naked_asm!(
                "mov [rdi + {at}], rbx", "mov [rdi + {at} + 8], rbp", "mov [rdi + {at} + 16], r12",
                "mov [rdi + {at} + 24], r13", "mov [rdi + {at} + 32], r14", "mov [rdi + {at} + 40], r15",
                "lea rax, [rsp + 8]", "mov [rdi + {at} + 96], rax",
                "jmp {body}",
                at = const crate::mutator::Mutator::REGISTERS, body = sym $body,
            );
            #[cfg(target_arch = "aarch64")]
            core::arch::naked_asm!(
                "add x9, x0, #{at}",
                "stp x19, x20, [x9]", "stp x21, x22, [x9, #16]", "stp x23, x24, [x9, #32]",
                "stp x25, x26, [x9, #48]", "stp x27, x28, [x9, #64]", "str x29, [x9, #80]",
                "mov x10, sp", "str x10, [x9, #96]",
                "b {body}",
                at = const crate::mutator::Mutator::REGISTERS, body = sym $body,
            );
        }
    };
}

mod alloc;
mod heap;
mod metrics;
mod roots;
pub(crate) mod specials;
pub(crate) mod stores;
mod threads;
mod timeline;

/// `besom_status`: 0, or an [`Error`].
type Status = c_int;

fn status(result: Result<()>) -> Status {
    match result {
        Ok(()) => 0,
        Err(error) => error as Status,
    }
}

/// The heap of a mutator that the caller may use now; aborts otherwise, in the name of `function`.
///
/// # Safety
/// `m` must be a mutator of a heap that is not freed.
#[inline(always)]
unsafe fn heap_of<'h>(m: *mut Mutator, function: &str) -> &'h Heap {
    // SAFETY: the caller's promise.
    unsafe {
        Mutator::check(m, function);
        &*(*m).heap
    }
}

/// The heap, unless there is none. The checked build aborts in the name of `function` if it is freed.
///
/// # Safety
/// `heap` must be null or a heap that is not freed.
unsafe fn heap<'h>(heap: *mut Heap, function: &str) -> Result<&'h Heap> {
    if heap.is_null() {
        return Err(Error::Invalid);
    }
    // SAFETY: the caller's promise.
    unsafe {
        quarantine::check(heap, function);
        Ok(&*heap)
    }
}
