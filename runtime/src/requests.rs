//! Requests for a cycle beside the program: mutators ask, the driver serves, and none is lost.
//!
//! A request is taken before it is served, so that one that comes while another is served is served after it. Who finds one
//! as large unserved leaves it at that, with one load. In between lies a store and a load on each side: the mutator
//! allocates and then looks at `asked`, the driver takes the request and then looks at what is allocated. The fences see to
//! it that one of them sees what the other did.

use besom_stats::sync::{AtomicI64, Condvar, Held, Mutex, Ordering::*, fence, hold, lock};
use std::sync::PoisonError;

/// No request.
const NONE: i64 = -1;

#[derive(Default)]
struct State {
    started: bool,
    quit: bool,
}

/// What the driver is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A cycle, if one is due before so many bytes are allocated.
    Serve(i64),
    /// The heap goes.
    Quit,
}

/// The requests of one heap.
///
/// - `asked` is the largest request that nobody has taken; it changes under the lock
pub struct Requests {
    asked: AtomicI64,
    state: Mutex<State>,
    changed: Condvar,
}

impl Default for Requests {
    fn default() -> Requests {
        Requests { asked: AtomicI64::new(NONE), state: Mutex::default(), changed: Condvar::new() }
    }
}

impl Requests {
    /// Asks for a cycle, if one is due before `bytes` more are allocated. `start` starts the driver at the first call; false:
    /// it did not.
    pub fn ask(&self, bytes: i64, start: impl FnOnce() -> bool) -> bool {
        fence(SeqCst);
        if self.asked.load(Relaxed) >= bytes {
            return true;
        }
        let mut state = lock(&self.state);
        state.started = state.started || start();
        if !state.started {
            return false;
        }
        self.asked.store(bytes.max(self.asked.load(Relaxed)), Relaxed);
        // The driver may get the caller's processor, and would wait for the lock.
        drop(state);
        self.changed.notify_one();
        true
    }

    /// Waits for a request, and takes it.
    pub fn next(&self) -> Next {
        let mut state = lock(&self.state);
        loop {
            if state.quit {
                return Next::Quit;
            }
            let bytes = self.asked.load(Relaxed);
            if bytes != NONE {
                self.asked.store(NONE, Relaxed);
                fence(SeqCst);
                return Next::Serve(bytes);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Keeps the driver from its next request, and everybody from asking.
    pub fn hold(&self) -> Held<'_> {
        hold(&self.state)
    }

    /// In the child of a fork: there is no driver, and nothing is asked for.
    pub fn after_fork(&self) {
        let mut state = lock(&self.state);
        state.started = false;
        self.asked.store(NONE, Relaxed);
    }

    /// The heap goes: the driver is to end.
    pub fn quit(&self) {
        lock(&self.state).quit = true;
        self.changed.notify_one();
    }
}
