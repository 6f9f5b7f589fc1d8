//! Threads, safepoints, collections.

use super::{Status, heap, heap_of};
use crate::heap::Heap;
use crate::mutator::{ATTACHED, BLOCKED, Mutator};
use crate::status::Error;
use besom_gc::Cause;
use besom_stats::fatal;
use std::ffi::{c_int, c_void};

/// `besom_attach`.
///
/// # Safety
/// `h` must be null or a heap, `out` null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_attach(h: *mut Heap, out: *mut *mut Mutator) -> Status {
    if out.is_null() {
        return Error::Invalid as Status;
    }
    // SAFETY: the caller's promise.
    match unsafe { heap(h) }.and_then(Heap::attach_raw) {
        Ok(m) => {
            // SAFETY: the caller's promise.
            unsafe { out.write(m) };
            0
        }
        Err(error) => error as Status,
    }
}

/// `besom_detach`.
///
/// # Safety
/// `m` must be null or a mutator of a heap that is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_detach(m: *mut Mutator) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        let Some(mutator) = m.as_ref() else { return Error::Invalid as Status };
        if mutator.state() != ATTACHED || !mutator.is_own() {
            return Error::State as Status;
        }
        (*mutator.heap).detach_raw(m);
    }
    0
}

/// `besom_safepoint`, when something is wanted.
///
/// # Safety
/// `m` must be a mutator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_safepoint_slow(m: *mut Mutator) {
    // SAFETY: the caller's promise.
    unsafe { heap_of(m, "besom_safepoint").safepoint(m) };
}

/// `besom_block`: notes the caller's registers and stack before anything else, since the caller goes on to use
/// the stack below while the collector scans what is above.
///
/// # Safety
/// `m` must be a mutator.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_block(m: *mut Mutator) {
    core::arch::naked_asm!(
        "mov [rdi + {at}], rbx", "mov [rdi + {at} + 8], rbp", "mov [rdi + {at} + 16], r12",
        "mov [rdi + {at} + 24], r13", "mov [rdi + {at} + 32], r14", "mov [rdi + {at} + 40], r15",
        "lea rax, [rsp + 8]", "mov [rdi + {at} + 96], rax",
        "jmp {block}",
        at = const Mutator::REGISTERS, block = sym block,
    )
}

/// `besom_block`, as on the other processor.
///
/// # Safety
/// `m` must be a mutator.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_block(m: *mut Mutator) {
    core::arch::naked_asm!(
        "add x9, x0, #{at}",
        "stp x19, x20, [x9]", "stp x21, x22, [x9, #16]", "stp x23, x24, [x9, #32]",
        "stp x25, x26, [x9, #48]", "stp x27, x28, [x9, #64]", "str x29, [x9, #80]",
        "mov x10, sp", "str x10, [x9, #96]",
        "b {block}",
        at = const Mutator::REGISTERS, block = sym block,
    )
}

/// # Safety
/// `m` must be a mutator whose registers were captured as its caller had them.
unsafe extern "C" fn block(m: *mut Mutator) {
    // SAFETY: the caller's promise.
    unsafe {
        if (*m).state() == BLOCKED && (*m).is_own() {
            fatal(format_args!("besom_block: mutator is blocked already"));
        }
        heap_of(m, "besom_block").block(m);
    }
}

/// `besom_unblock`.
///
/// # Safety
/// `m` must be a mutator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_unblock(m: *mut Mutator) {
    // SAFETY: the caller's promise.
    unsafe {
        if (*m).state() == ATTACHED && (*m).is_own() {
            fatal(format_args!("besom_unblock: mutator is not blocked"));
        }
        if (*m).state() != BLOCKED || !(*m).is_own() {
            (*m).misused("besom_unblock");
        }
        (*(*m).heap).unblock(m);
    }
}

/// `besom_collect`.
///
/// # Safety
/// `m` must be a mutator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_collect(m: *mut Mutator) -> Status {
    // SAFETY: the caller's promise.
    unsafe { heap_of(m, "besom_collect").collect(m, Cause::Forced) };
    0
}

/// `visit` of `besom_walk`.
type Visit = unsafe extern "C" fn(*mut c_void, usize, c_int, *mut c_void) -> c_int;

/// `besom_walk`.
///
/// # Safety
/// `m` must be a mutator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_walk(m: *mut Mutator, visit: Visit, data: *mut c_void) -> c_int {
    // SAFETY: the caller's promise; the VM's function gets the VM's objects and data.
    unsafe {
        heap_of(m, "besom_walk")
            .walk(m, |object, bytes, kind| visit(object.cast(), bytes.0, kind as c_int, data))
    }
}
