//! What the models share. Each file in `tests` is the models of one protocol; `MUTATIONS.md` says what they catch.
//!
//! A model runs the code of the other crates as it stands, compiled with `--cfg loom`, and in every order that its
//! preemption bound allows. Where the code works on mapped memory, a toy of a few fields stands in, through the
//! trait that the code asks for. Loom reports a deadlock, a loop that never ends, and accesses that nothing orders
//! ([`besom_stats::sync::AccessCheck`]).

#![cfg(loom)]

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Explores every execution with at most `preemptions` preemptions.
pub fn model(preemptions: usize, run: impl Fn() + Sync + Send + 'static) {
    static EXECUTIONS: AtomicUsize = AtomicUsize::new(0);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 4000;
    builder.check(move || {
        EXECUTIONS.fetch_add(1, Relaxed);
        run();
    });
    // Several tests share the count, unless each runs on its own.
    eprintln!("{} executions so far", EXECUTIONS.load(Relaxed));
}

/// Starts a thread of the model that shares `toy`.
pub fn start<T: Send + Sync + 'static, R: 'static>(
    toy: &loom::sync::Arc<T>,
    run: impl FnOnce(&T) -> R + 'static,
) -> loom::thread::JoinHandle<R> {
    let toy = toy.clone();
    loom::thread::spawn(move || run(&toy))
}

/// Waiting in a loop. Two threads that do so could take turns for ever: loom counts no preemption there. So an
/// execution in which one looks in vain more often than [`Patience::TIMES`] is run to its end, but not varied from there.
#[derive(Default)]
pub struct Patience(Cell<u32>);

impl Patience {
    /// Higher: more executions, most of them alike. Lower: what happens late in a wait is not seen.
    pub const TIMES: u32 = 6;

    /// The caller has looked in vain.
    pub fn in_vain(&self) {
        self.0.set(self.0.get() + 1);
        if self.0.get() > Self::TIMES {
            loom::skip_branch();
        }
    }

    /// The caller has found something.
    pub fn found(&self) {
        self.0.set(0);
    }
}
