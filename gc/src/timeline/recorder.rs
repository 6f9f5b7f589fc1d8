//! Where events go until they are written: slots that threads claim one by one, and a stop that reads them.
//!
//! One word says whether a session is on, which, and how many events it has seen:
//!
//! `state == session << 32 | events`, and odd sessions are on.
//!
//! A recorder claims slot `events`, or several from there on, by the exchange that counts them, so whatever is claimed
//! belongs to the session that the recorder meant, and that session's stop knows of it. The slot's `ready` becomes the session's number when the
//! event is whole; the stop waits for each claimed slot. A recorder never waits and never allocates, so it may record in
//! a stopped world. Events beyond the last slot are counted and dropped.

use besom_alloc_core::heap_tables::Zeroable;
use besom_stats::sync::{AccessCheck, AtomicU32, AtomicU64, Ordering::*, yield_now};

/// Words of an event.
pub const WORDS: usize = 7;

/// Room for one event. All zero is a fresh one.
///
/// - who may write `words`: the recorder that claimed the slot, until it stores `ready`
/// - who may read them: the one who stopped the session, from `ready == session` to the next start
#[derive(Default)]
#[repr(C)]
pub struct Slot {
    ready: AtomicU32,
    words: [AtomicU64; WORDS],
    access: AccessCheck,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot>() == 64, "an event is a cache line");

// SAFETY: made of atomic integers.
unsafe impl Zeroable for Slot {}

/// Where the slots lie.
pub trait Buffer {
    /// A slot; `None` beyond the last. Nothing is asked for before the first start.
    fn slot(&self, index: usize) -> Option<&Slot>;
}

/// A session that was seen to be on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session(u32);

/// What a session leaves: the first `events` slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Slots to read.
    pub events: usize,
    /// Events for which there was no slot.
    pub dropped: usize,
}

/// The recorder of one heap.
#[derive(Default)]
pub struct Recorder<B> {
    state: AtomicU64,
    buffer: B,
}

impl<B: Buffer> Recorder<B> {
    /// A recorder that is off.
    pub fn new(buffer: B) -> Recorder<B> {
        Recorder { state: AtomicU64::new(0), buffer }
    }

    /// The slots.
    pub fn buffer(&self) -> &B {
        &self.buffer
    }

    /// The session, if one is on: one relaxed load.
    #[inline(always)]
    pub fn session(&self) -> Option<Session> {
        let session = (self.state.load(Relaxed) >> 32) as u32;
        (session % 2 == 1).then_some(Session(session))
    }

    /// Records events, all of them in one session; nothing if it has been stopped since.
    pub fn record<const N: usize>(&self, session: Session, events: [[u64; WORDS]; N]) {
        let mut state = self.state.load(Relaxed);
        let first = loop {
            // The count stays in the lower half of the word.
            if (state >> 32) as u32 != session.0 || state as u32 > u32::MAX - N as u32 {
                return;
            }
            // Acquire: who read these slots in an earlier session is done with them.
            match self.state.compare_exchange_weak(state, state + N as u64, Acquire, Relaxed) {
                Ok(_) => break state as u32 as usize,
                Err(now) => state = now,
            }
        };
        for (index, words) in (first..).zip(events) {
            let Some(slot) = self.buffer.slot(index) else { return };
            slot.access.exclusive();
            for (at, word) in slot.words.iter().zip(words) {
                at.store(word, Relaxed);
            }
            // Release: who sees the number sees the words.
            slot.ready.store(session.0, Release);
        }
    }

    /// Starts a session. None is on, and nobody else starts or stops one.
    pub fn start(&self) {
        let session = (self.state.load(Relaxed) >> 32) + 1;
        // Release: see `record`.
        self.state.store(session << 32, Release);
    }

    /// Stops the session, and waits until each event in it is whole, which takes a recorder a few instructions. A session
    /// is on, and nobody else starts or stops one.
    pub fn stop(&self) -> Recorded {
        let session = self.state.load(Relaxed) >> 32;
        let seen = self.state.swap((session + 1) << 32, Relaxed) as u32 as usize;
        let events = (0..seen)
            .map_while(|index| self.buffer.slot(index))
            .map(|slot| {
                while slot.ready.load(Acquire) != session as u32 {
                    yield_now();
                }
            })
            .count();
        Recorded { events, dropped: seen - events }
    }

    /// Ends the session that is on without a look at it, and says how many slots were claimed. Who claimed one is gone.
    pub fn forget(&self) -> usize {
        let session = self.state.load(Relaxed) >> 32;
        self.state.swap((session + 1) << 32, Relaxed) as u32 as usize
    }

    /// An event of the session that was stopped last. None has been started since.
    pub fn event(&self, index: usize) -> Option<[u64; WORDS]> {
        let slot = self.buffer.slot(index)?;
        slot.access.shared();
        Some(std::array::from_fn(|word| slot.words[word].load(Relaxed)))
    }
}
