//! A heap's options, as C sees them, and what the environment says of them.

use crate::status::{Error, Result};
use besom_gc::{Encoding, TraceFn};
use std::ffi::{OsStr, c_int, c_uint, c_void};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;

/// Marking stops every mutator.
pub const STOP_THE_WORLD: c_int = 0;
/// Marking goes on beside the program.
pub const CONCURRENT: c_int = 1;
/// The most Ps a heap can be limited to.
pub const PROCS_MAX: u32 = 4096;

/// `out_of_memory`: the heap, the bytes that were asked for, the VM's data.
pub type OutOfMemoryFn = unsafe extern "C" fn(*mut crate::Heap, usize, *mut c_void) -> c_int;

/// Options of a heap; `besom_options` in C, where each field is documented.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Options {
    /// The size of this struct, for its growth.
    pub struct_size: usize,
    /// Hard limit in bytes; 0: none.
    pub heap_limit: usize,
    /// Soft limit in bytes; 0: none.
    pub memory_limit: usize,
    /// Growth over live bytes before the next cycle; 0: on request and at a limit only.
    pub gc_percent: c_uint,
    /// Ps; 0: one for each attached thread.
    pub procs: c_uint,
    /// Mark workers; 0: one for each CPU.
    pub mark_workers: c_uint,
    /// [`CONCURRENT`] or [`STOP_THE_WORLD`].
    pub mode: c_int,
    /// Attached threads' native stacks are conservative roots.
    pub scan_native_stacks: c_int,
    /// Small pointer-free objects share blocks.
    pub tiny: c_int,
    /// For values.
    pub encoding: Encoding,
    /// For traced objects.
    pub trace: Option<TraceFn>,
    /// The heap's own roots; called in a stop, on any thread that is the collector's or passes a safepoint.
    pub roots: Option<TraceFn>,
    /// Handed to every callback.
    pub data: *mut c_void,
    /// Asked when a full collection did not help.
    pub out_of_memory: Option<OutOfMemoryFn>,
    /// One line a cycle.
    pub gc_trace: c_int,
    /// 1 marks, 2 heap, 3 both.
    pub verify: c_int,
    /// A cycle at every n-th allocation; 0: off.
    pub collect_every: c_int,
    /// Freed memory is filled with a pattern.
    pub clobber_free: c_int,
}

const _: () = assert!(size_of::<Options>() == 120);

impl Default for Options {
    /// The defaults, without a look at the environment.
    fn default() -> Options {
        Options {
            struct_size: size_of::<Options>(),
            heap_limit: 0,
            memory_limit: 0,
            gc_percent: 100,
            procs: 0,
            mark_workers: 0,
            mode: CONCURRENT,
            scan_native_stacks: 1,
            tiny: 1,
            encoding: Encoding::default(),
            trace: None,
            roots: None,
            data: std::ptr::null_mut(),
            out_of_memory: None,
            gc_trace: 0,
            verify: 0,
            collect_every: 0,
            clobber_free: 0,
        }
    }
}

impl Options {
    /// The defaults, then what `BESOM_*` variables say. A variable that is malformed or unknown is named on
    /// stderr, in one line, and ignored.
    pub fn from_environment() -> Options {
        let mut options = Options::default();
        for (name, value) in std::env::vars_os() {
            if let Some(key) = name.as_bytes().strip_prefix(b"BESOM_")
                && let Err(expected) = options.set(key, value.as_bytes())
            {
                complain(&name, &value, expected);
            }
        }
        options
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> std::result::Result<(), &'static str> {
        let value = std::str::from_utf8(value).unwrap_or("\u{fffd}");
        match key {
            b"HEAP_LIMIT" => self.heap_limit = size(value)?,
            b"MEMORY_LIMIT" => self.memory_limit = size(value)?,
            b"GC_PERCENT" => {
                self.gc_percent = number(value, u32::MAX.into(), "a number from 0 to 4294967295")? as u32;
            }
            b"PROCS" => self.procs = number(value, PROCS_MAX.into(), "a number from 0 to 4096")? as u32,
            b"MARK_WORKERS" => {
                self.mark_workers = number(value, WORKERS_MAX, "a number from 0 to 256")? as u32
            }
            b"MODE" => {
                self.mode = match value {
                    "concurrent" | "1" => CONCURRENT,
                    "stop_the_world" | "0" => STOP_THE_WORLD,
                    _ => return Err("concurrent or stop_the_world"),
                };
            }
            b"SCAN_NATIVE_STACKS" => self.scan_native_stacks = flag(value)?,
            b"TINY" => self.tiny = flag(value)?,
            b"GC_TRACE" => self.gc_trace = flag(value)?,
            b"CLOBBER_FREE" => self.clobber_free = flag(value)?,
            b"COLLECT_EVERY" => {
                self.collect_every =
                    number(value, i32::MAX as u64, "a number from 0 to 2147483647")? as c_int;
            }
            b"VERIFY" => {
                self.verify = match value {
                    "off" | "0" => 0,
                    "marks" | "1" => 1,
                    "heap" | "2" => 2,
                    "both" | "3" => 3,
                    _ => return Err("off, marks, heap or both"),
                };
            }
            _ => return Err("no such variable; see besom.h, Debugging"),
        }
        Ok(())
    }

    /// Checks every field's range.
    pub fn check(&self) -> Result<()> {
        let flags = [self.scan_native_stacks, self.tiny, self.gc_trace, self.clobber_free];
        let encoding = &self.encoding;
        let right = self.struct_size == size_of::<Options>()
            && matches!(self.mode, CONCURRENT | STOP_THE_WORLD)
            && self.procs <= PROCS_MAX
            && u64::from(self.mark_workers) <= WORKERS_MAX
            && (0..=3).contains(&self.verify)
            && self.collect_every >= 0
            && flags.iter().all(|f| (0..=1).contains(f))
            && encoding.tag & !encoding.mask == 0
            && encoding.address != 0
            && encoding.address & LOW_BITS & !encoding.mask == 0
            && encoding.tag & encoding.address & LOW_BITS == 0;
        if right { Ok(()) } else { Err(Error::Invalid) }
    }
}

/// The bits that are zero in the address of any object. An encoding's address must have none of them that a tag does not
/// force to zero: a word would name the middle of an object, which is nobody's start.
const LOW_BITS: u64 = 7;

/// Mark workers at most.
const WORKERS_MAX: u64 = 256;

fn number(value: &str, most: u64, expected: &'static str) -> std::result::Result<u64, &'static str> {
    value.parse().ok().filter(|&n| n <= most && !value.starts_with('+')).ok_or(expected)
}

fn flag(value: &str) -> std::result::Result<c_int, &'static str> {
    number(value, 1, "0 or 1").map(|n| n as c_int)
}

/// Bytes, with `k`, `m` or `g` for KiB, MiB or GiB.
fn size(value: &str) -> std::result::Result<usize, &'static str> {
    let expected = "a size in bytes, or with k, m or g";
    let shift = match value.as_bytes().last() {
        Some(b'k' | b'K') => 10,
        Some(b'm' | b'M') => 20,
        Some(b'g' | b'G') => 30,
        _ => 0,
    };
    let digits = if shift == 0 { value } else { &value[..value.len() - 1] };
    let n = number(digits, isize::MAX as u64, expected)?;
    n.checked_mul(1 << shift).filter(|&n| n <= isize::MAX as u64).map(|n| n as usize).ok_or(expected)
}

/// Characters of a value that are shown.
const SHOWN: usize = 100;

fn complain(name: &OsStr, value: &OsStr, expected: &str) {
    let shown = |s: &OsStr| -> String {
        s.to_string_lossy().chars().take(SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect()
    };
    let line = format!("besom: {}={}, expected {expected}; ignored\n", shown(name), shown(value));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, value: &str) -> std::result::Result<Options, &'static str> {
        let mut options = Options::default();
        options.set(key.as_bytes(), value.as_bytes()).map(|()| options)
    }

    #[test]
    fn sizes_take_suffixes_and_do_not_overflow() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("12k", 12 << 10),
            ("12K", 12 << 10),
            ("3m", 3 << 20),
            ("2G", 2 << 30),
            ("9223372036854775807", isize::MAX as usize),
            ("8589934591g", 8_589_934_591 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "k",
            "m1",
            "1kk",
            "1 k",
            " 1",
            "-1",
            "+1",
            "1.5m",
            "0x10",
            "9223372036854775808",
            "8589934592g",
            "1t",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_variable_sets_its_field() {
        assert_eq!(set("HEAP_LIMIT", "64m").map(|o| o.heap_limit), Ok(64 << 20));
        assert_eq!(set("MEMORY_LIMIT", "1g").map(|o| o.memory_limit), Ok(1 << 30));
        assert_eq!(set("GC_PERCENT", "4294967295").map(|o| o.gc_percent), Ok(u32::MAX));
        assert_eq!(set("PROCS", "4096").map(|o| o.procs), Ok(4096));
        assert_eq!(set("MARK_WORKERS", "256").map(|o| o.mark_workers), Ok(256));
        assert_eq!(set("SCAN_NATIVE_STACKS", "0").map(|o| o.scan_native_stacks), Ok(0));
        assert_eq!(set("TINY", "0").map(|o| o.tiny), Ok(0));
        assert_eq!(set("GC_TRACE", "1").map(|o| o.gc_trace), Ok(1));
        assert_eq!(set("CLOBBER_FREE", "1").map(|o| o.clobber_free), Ok(1));
        assert_eq!(set("COLLECT_EVERY", "2147483647").map(|o| o.collect_every), Ok(i32::MAX));
        for (n, name) in ["off", "marks", "heap", "both"].into_iter().enumerate() {
            assert_eq!(set("VERIFY", name).map(|o| o.verify), Ok(n as c_int));
            assert_eq!(set("VERIFY", &n.to_string()).map(|o| o.verify), Ok(n as c_int));
        }
    }

    #[test]
    fn what_a_variable_sets_is_in_range() {
        for (key, values) in [
            ("PROCS", ["4096", "0"]),
            ("MARK_WORKERS", ["256", "0"]),
            ("COLLECT_EVERY", ["2147483647", "0"]),
            ("VERIFY", ["both", "off"]),
            ("TINY", ["1", "0"]),
        ] {
            for value in values {
                assert_eq!(set(key, value).expect("a value").check(), Ok(()), "{key}={value}");
            }
        }
        assert_eq!(Options::default().check(), Ok(()));
    }

    #[test]
    fn an_encoding_names_starts_of_objects_only() {
        let check = |mask, tag, address| {
            Options { encoding: Encoding { mask, tag, address }, ..Options::default() }.check()
        };
        // Plain; three low bits of tag; odd words; NaN boxes; the low bits kept, but known to be zero.
        for (mask, tag, address) in [
            (7, 0, !7),
            (4, 0, !7),
            (1, 1, !7),
            (0xffff << 48, 0xfffc << 48, (1 << 48) - 8),
            (7, 0, !0),
            (3, 1, !3 & !4),
        ] {
            assert_eq!(check(mask, tag, address), Ok(()), "{mask:#x} {tag:#x} {address:#x}");
        }
        for (mask, tag, address) in [
            (0xffff << 48, 0xfffc << 48, (1 << 48) - 1),
            (3, 0, !3),
            (7, 1, !0),
            (7, 4, !3),
            (7, 0, 0),
            (7, 8, !7),
        ] {
            assert_eq!(check(mask, tag, address), Err(Error::Invalid), "{mask:#x} {tag:#x} {address:#x}");
        }
    }

    #[test]
    fn a_bad_value_says_what_was_expected() {
        for (key, value, expected) in [
            ("PROCS", "4097", "a number from 0 to 4096"),
            ("PROCS", "many", "a number from 0 to 4096"),
            ("PROCS", "", "a number from 0 to 4096"),
            ("MARK_WORKERS", "257", "a number from 0 to 256"),
            ("GC_PERCENT", "4294967296", "a number from 0 to 4294967295"),
            ("COLLECT_EVERY", "-1", "a number from 0 to 2147483647"),
            ("TINY", "2", "0 or 1"),
            ("TINY", "yes", "0 or 1"),
            ("VERIFY", "4", "off, marks, heap or both"),
            ("VERIFY", "Both", "off, marks, heap or both"),
            ("HEAP_LIMIT", "lots", "a size in bytes, or with k, m or g"),
            ("HEAPLIMIT", "1", "no such variable; see besom.h, Debugging"),
            ("procs", "1", "no such variable; see besom.h, Debugging"),
        ] {
            assert_eq!(set(key, value).err(), Some(expected), "{key}={value}");
        }
    }
}
