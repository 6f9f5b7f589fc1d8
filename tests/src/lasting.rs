//! How long a test of threads goes on.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// For so long the machine may be busy with something else.
const PATIENCE: Duration = Duration::from_secs(120);

/// A length of time, and on a busy machine more of it, until enough has come of the test: a count is waited for, not hoped for.
#[derive(Clone, Copy)]
pub struct Lasting {
    begin: Instant,
    length: Duration,
}

impl Lasting {
    /// From now on.
    pub fn new(length: Duration) -> Lasting {
        Lasting { begin: Instant::now(), length }
    }

    /// Whether the length is not over, or what `came` is not `enough`. Panics if it is not two minutes after the length.
    #[track_caller]
    pub fn goes_on(&self, enough: bool, came: impl Debug) -> bool {
        let elapsed = self.begin.elapsed();
        assert!(enough || elapsed < self.length + PATIENCE, "not enough after {elapsed:?}: {came:?}");
        elapsed < self.length || !enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_until_there_is_enough_and_not_for_ever() {
        let ago = |length| Lasting { begin: Instant::now() - length, length: Duration::from_secs(1) };
        let (young, old) = (ago(Duration::ZERO), ago(Duration::from_secs(100)));
        assert!(young.goes_on(true, ()) && young.goes_on(false, ()));
        assert!(old.goes_on(false, ()) && !old.goes_on(true, ()));
        let ancient = ago(Duration::from_secs(122));
        assert!(!ancient.goes_on(true, ()));
        assert!(std::panic::catch_unwind(|| ancient.goes_on(false, ())).is_err());
    }
}
