//! The one way out when an invariant or the user's contract is broken: one line, then abort.

use std::fmt::{self, Write as _};
use std::io::Write as _;

/// A line on the stack: a fatal message must not allocate, since the world may be stopped.
struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let n = s.len().min(self.bytes.len() - 1 - self.len);
        self.bytes[self.len..self.len + n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// Prints `besom: <message>` on stderr as one line, in one write, and aborts the process.
#[cold]
#[inline(never)]
pub fn fatal(message: fmt::Arguments<'_>) -> ! {
    let mut line = Line { bytes: [0; 512], len: 0 };
    let _ = write!(line, "besom: {message}");
    line.bytes[line.len] = b'\n';
    let _ = std::io::stderr().write_all(&line.bytes[..=line.len]);
    std::process::abort()
}
