//! Lines on stderr, among them the last one: when an invariant or the user's contract is broken, a line, then abort.

use std::fmt::{self, Write as _};
use std::io::Write as _;

/// A line on the stack: a message must not allocate, since the world may be stopped. What does not fit is cut.
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

/// Prints `besom: <message>` on stderr as one line, in one write. A stderr that cannot be written is no reason to
/// end the program: the line is lost.
#[cold]
#[inline(never)]
pub fn print_line(message: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; 512], len: 0 };
    let _ = write!(line, "besom: {message}");
    line.bytes[line.len] = b'\n';
    let _ = std::io::stderr().write_all(&line.bytes[..=line.len]);
}

/// Prints `besom: <message>` as [`print_line`] does, and aborts the process. In a model it panics, so that a model can
/// say that a broken rule is caught in every execution, and go on to the next.
#[cold]
#[inline(never)]
pub fn fatal(message: fmt::Arguments<'_>) -> ! {
    #[cfg(loom)]
    panic!("besom: {message}");
    #[cfg(not(loom))]
    {
        print_line(message);
        std::process::abort()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Prints in a child process; returns what arrived.
    fn printed(stderr: Stdio, text: &str) -> String {
        let output = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "fatal::tests::child", "--nocapture", "--test-threads=1"])
            .env("FATAL_CHILD", text)
            .stderr(stderr)
            .output()
            .expect("a child");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    }

    #[test]
    fn child() {
        if let Ok(text) = std::env::var("FATAL_CHILD") {
            print_line(format_args!("{text}"));
        }
    }

    #[test]
    fn a_line_that_cannot_be_written_is_lost_and_no_more() {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("a full device");
        printed(full.into(), "lost");
    }

    #[test]
    fn a_line_is_cut_to_its_room() {
        assert_eq!(printed(Stdio::piped(), "short"), "besom: short\n");
        let long = printed(Stdio::piped(), &"x".repeat(2000));
        assert_eq!((long.len(), long.ends_with("x\n")), (512, true));
    }
}
