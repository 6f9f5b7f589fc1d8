//! Requests to Valgrind: rotations that leave all as it was, and mean something to Valgrind alone. What can be asked
//! depends on its tool; a tool that does not know a request answers as if there were no Valgrind.

/// The first number of the requests of the tool with this two-letter name.
pub const fn of_tool(name: [u8; 2]) -> usize {
    (name[0] as usize) << 24 | (name[1] as usize) << 16
}

/// The answer, or 0 without Valgrind.
pub fn request(code: usize, a: usize, b: usize, c: usize) -> usize {
    let request = [code, a, b, c, 0, 0];
    let mut answer = 0usize;
    // SAFETY: changes nothing but flags and `answer`; Valgrind reads the request.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") &raw const request, inout("rdx") answer, options(nostack)
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!(
            "ror x12, x12, #3", "ror x12, x12, #13", "ror x12, x12, #51", "ror x12, x12, #61",
            "orr x10, x10, x10",
            in("x4") &raw const request, inout("x3") answer, options(nostack)
        );
    }
    answer
}
