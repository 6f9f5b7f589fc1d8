//! Whose turn it is to scan a thread's roots in a cycle beside the program: the thread's own, before it runs on, or the
//! leader's, while the thread does not come to run.

use besom_stats::sync::{AtomicU32, Ordering::*, yield_now};

/// The roots are to be scanned.
const GREY: u32 = 0;
/// Somebody scans them.
const SCANNING: u32 = 1;
/// They are scanned, or there is nothing to scan.
const BLACK: u32 = 2;

/// The turn of one seat.
///
/// - in one cycle it goes from grey to scanning once, and to black once
/// - while a thread runs in its seat, it is black, or the thread is about to make it so before it leaves the library
#[derive(Default)]
pub struct ScanTurn(AtomicU32);

impl ScanTurn {
    /// Nothing is to be scanned: a thread sits down.
    pub fn init(&self) {
        self.0.store(BLACK, Relaxed);
    }

    /// The roots are to be scanned; in a stopped world.
    pub fn set_grey(&self) {
        self.0.store(GREY, Relaxed);
    }

    /// Whether they are scanned.
    pub fn is_black(&self) -> bool {
        self.0.load(Acquire) == BLACK
    }

    /// Takes the right to scan them. One who gets it calls [`Self::set_black`].
    pub fn claim(&self) -> bool {
        self.0.compare_exchange(GREY, SCANNING, Acquire, Relaxed).is_ok()
    }

    /// They are scanned.
    pub fn set_black(&self) {
        self.0.store(BLACK, Release);
    }

    /// Waits until nobody scans them: the thread is about to run.
    pub fn wait(&self) {
        while self.0.load(Acquire) == SCANNING {
            yield_now();
        }
    }

    /// The thread leaves its seat, and has no roots any more: nobody scans them from here on.
    pub fn leave(&self) {
        if !self.claim() {
            self.wait();
        }
        self.set_black();
    }
}
