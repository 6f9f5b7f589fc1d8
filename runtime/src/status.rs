//! What a function that can fail says.

use besom_alloc_core::os::OutOfMemory;

/// A failure; in C the same numbers as `besom_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Error {
    /// The system or the heap's hard limit refused memory.
    NoMemory = 1,
    /// An argument is out of its range.
    Invalid = 2,
    /// Right call, wrong time.
    State = 3,
    /// Too many of something.
    Limit = 4,
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl From<OutOfMemory> for Error {
    fn from(_: OutOfMemory) -> Error {
        Error::NoMemory
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Error::NoMemory => "no memory",
            Error::Invalid => "an argument is out of its range",
            Error::State => "right call, wrong time",
            Error::Limit => "too many",
        })
    }
}

impl std::error::Error for Error {}
