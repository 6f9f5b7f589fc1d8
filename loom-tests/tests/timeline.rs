//! Models of the timeline's recorder: each event is read whole, once, in the session in which it was recorded, or in
//! none.
//!
//! The words of an event are all the same, so that half of one shows. A slot checks (by `AccessCheck`) that a recorder
//! and a reader of it never meet without a happens-before. The slots are not emptied between sessions: that is a system call,
//! which may fail.

#![cfg(loom)]

use besom_gc::timeline::recorder::{Buffer, Recorded, Recorder, Session, Slot, WORDS};
use besom_loom_tests::{model, start};
use besom_stats::sync::{AtomicU32, Ordering::*};
use loom::sync::Arc;

#[derive(Default)]
struct Few<const N: usize>([Slot; N])
where
    [Slot; N]: Default;

impl<const N: usize> Buffer for Few<N>
where
    [Slot; N]: Default,
{
    fn slot(&self, index: usize) -> Option<&Slot> {
        self.0.get(index)
    }
}

/// A recorder with `N` slots, and what its threads have done: `done[v]` is set when event `v` was recorded in a session
/// that was on.
struct Toy<const N: usize>
where
    [Slot; N]: Default,
{
    recorder: Recorder<Few<N>>,
    done: [AtomicU32; 4],
}

impl<const N: usize> Toy<N>
where
    [Slot; N]: Default,
{
    fn new() -> Arc<Self> {
        let toy = Toy { recorder: Recorder::new(Few::default()), done: Default::default() };
        toy.recorder.start();
        Arc::new(toy)
    }

    /// Records event `value` if a session is on; that session.
    fn record(&self, value: u64) -> Option<Session> {
        let session = self.recorder.session()?;
        self.recorder.record(session, [[value; WORDS]]);
        self.done[value as usize].store(1, Release);
        Some(session)
    }

    /// Events that were recorded before.
    fn recorded(&self) -> Vec<u64> {
        (0..4).filter(|&value| self.done[value as usize].load(Acquire) == 1).collect()
    }

    /// Stops the session. Its events, which are whole and differ; how many were dropped.
    fn stop(&self) -> (Vec<u64>, usize) {
        let Recorded { events, dropped } = self.recorder.stop();
        let mut values: Vec<_> = (0..events)
            .map(|index| {
                let words = self.recorder.event(index).expect("a slot");
                assert_eq!(words, [words[0]; WORDS], "half an event");
                words[0]
            })
            .collect();
        values.sort_unstable();
        assert!(values.windows(2).all(|two| two[0] < two[1]), "an event twice: {values:?}");
        (values, dropped)
    }
}

/// What was recorded before the stop is there, whatever else is.
#[test]
fn two_record_while_a_third_stops() {
    model(3, || {
        let toy = Toy::<2>::new();
        let threads = [0, 1].map(|value| start(&toy, move |toy| toy.record(value)));
        let before = toy.recorded();
        let (events, dropped) = toy.stop();
        assert_eq!(dropped, 0);
        assert!(before.iter().all(|value| events.contains(value)), "{before:?} are missing in {events:?}");
        let sessions = threads.map(|t| t.join().unwrap());
        for value in events {
            assert!(sessions[value as usize].is_some(), "event {value} was never recorded");
        }
        assert!(toy.recorder.session().is_none());
    });
}

/// Two sessions over the same slots. An event that was begun in the first is never in the second.
#[test]
fn a_session_follows_a_session() {
    model(3, || {
        let toy = Toy::<2>::new();
        let first = toy.recorder.session();
        let threads = [0, 1].map(|value| start(&toy, move |toy| toy.record(value)));
        let (early, _) = toy.stop();
        toy.recorder.start();
        let second = toy.recorder.session();
        assert!(first != second && second.is_some());
        let before = toy.recorded();
        let (late, dropped) = toy.stop();
        let sessions = threads.map(|t| t.join().unwrap());
        for (values, session) in [(&early, first), (&late, second)] {
            for &value in values {
                assert_eq!(sessions[value as usize], session, "event {value} is in another session");
            }
        }
        // Those that were seen to be over before the stop are in their session, unless they came when it was over.
        for value in before {
            let missing = !early.contains(&value) && !late.contains(&value);
            assert!(!missing || sessions[value as usize] == first, "event {value} is lost");
        }
        assert_eq!(dropped, 0);
    });
}

/// One thread records in one session after the other, and uses each slot again.
#[test]
fn one_records_across_two_sessions() {
    model(3, || {
        let toy = Toy::<2>::new();
        let first = toy.recorder.session();
        let thread = start(&toy, |toy| [0, 1, 2].map(|value| toy.record(value)));
        let (early, _) = toy.stop();
        toy.recorder.start();
        let second = toy.recorder.session();
        let (late, _) = toy.stop();
        let sessions = thread.join().unwrap();
        for (values, session) in [(&early, first), (&late, second)] {
            assert!(values.iter().all(|&value| sessions[value as usize] == session), "{early:?} {late:?}");
        }
    });
}

/// What one thread records at once is in the session as a whole, or not at all, and side by side.
#[test]
fn two_at_once_stay_together() {
    model(3, || {
        let toy = Toy::<3>::new();
        let threads = [
            start(&toy, |toy| {
                if let Some(session) = toy.recorder.session() {
                    toy.recorder.record(session, [[0; WORDS], [1; WORDS]]);
                }
            }),
            start(&toy, |toy| {
                toy.record(2);
            }),
        ];
        let (events, dropped) = toy.stop();
        assert_eq!((events.contains(&0), dropped), (events.contains(&1), 0), "{events:?}");
        threads.into_iter().for_each(|t| t.join().unwrap());
    });
}

/// Three events for one slot: each is read or counted as dropped.
#[test]
fn what_finds_no_room_is_counted() {
    model(3, || {
        let toy = Toy::<1>::new();
        let threads = [0, 1].map(|value| start(&toy, move |toy| toy.record(value)));
        toy.record(2);
        threads.into_iter().for_each(|t| {
            t.join().unwrap();
        });
        let (events, dropped) = toy.stop();
        assert_eq!((events.len(), dropped), (1, 2));
    });
}
