//! Who runs: threads in seats, Ps that they hold, stops, and the order in which waiting threads are served.
//!
//! All of it is decided under one lock; the poll words that mutators look at are only doorbells. A seat is in one
//! state:
//!
//! | state | holds a P | counts as running | leaves by |
//! |---|---|---|---|
//! | `Running` | yes | yes | safepoint, block, detach |
//! | `Parked` | yes | no | the end of the stop or of the collection it waits for |
//! | `Waiting` | no | no | a grant, in the order of the queue |
//! | `Blocked` | no | no | unblock |
//! | `Free` | no | no | attach |
//!
//! - `running == number of seats that are Running`
//! - `total == free.len() + seats that are Running or Parked`
//! - while `stopping`, `running` does not grow; the world is stopped when it is 0
//! - `momentary` implies `stopping`
//! - with a limit, `total` comes down to it at safepoints; with none, `total >= attached`

mod action;
mod beside;
mod fork;
mod moment;
mod ps;
mod stop;

use action::Action;
use besom_stats::fatal;
use besom_stats::sync::{Condvar, Mutex, MutexGuard, lock};
use moment::Progress;
use std::collections::VecDeque;
use std::time::Duration;

/// How long the first of those who wait for a P waits before running threads are asked for theirs. Higher: waiting threads starve
/// longer. Lower: caches change hands more often.
pub const SLICE: Duration = Duration::from_millis(10);

/// Poll bits: what is wanted of a mutator at its next safepoint.
pub const POLL_STOP: u32 = 1;
/// Hand the P over.
pub const POLL_HAND_OVER: u32 = 2;
/// Pass a safepoint: who asks waits for it.
pub const POLL_HANDSHAKE: u32 = 4;

/// The number of a seat, and of the mutator in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat(pub u32);

/// The number of a P.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PId(pub u32);

/// What the scheduler needs from the house around it.
pub trait House {
    /// Shows the seat's mutator what is wanted of it.
    fn ring(&self, seat: Seat, poll: u32);
    /// The thread has left the seat: nobody reads its roots any more, and another may sit down next.
    fn vacate(&self, seat: Seat);
    /// Makes a P; false when the system refuses.
    fn create_p(&self, p: PId) -> bool;
    /// Releases everything that an idle P holds, and the P.
    fn destroy_p(&self, p: PId);
    /// The seat's thread, which has parked and is the calling one, runs a stop's action.
    fn act<R>(&self, seat: Seat, action: impl FnOnce() -> R) -> R;
    /// Threads that can run at the same time, as far as the house knows.
    fn cpus(&self) -> usize;
}

/// How many there are of what, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Ps.
    pub ps: usize,
    /// The limit last set; 0: a P for each attached thread.
    pub limit: usize,
    /// Attached threads.
    pub attached: usize,
    /// Those that run.
    pub running: usize,
    /// Those that wait for a P.
    pub waiting: usize,
}

/// Why a thread was not seated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The system refused memory.
    NoMemory,
    /// No more seats.
    Full,
}

/// A thread has passed a safepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Its P from there on.
    pub p: PId,
    /// What it had to wait for, if anything.
    pub waited: Option<Waited>,
}

/// What a thread had to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The end of a stop, and then perhaps a P.
    Stop,
    /// A P.
    P,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Running,
    Parked,
    Waiting,
    Blocked,
}

struct Chair {
    state: State,
    p: Option<PId>,
    poll: u32,
    /// A handshake waits for it to pass a safepoint, or to run no more.
    owes: bool,
    /// When it was last given a P, by the count of grants.
    since: u64,
    /// Signalled when a P is granted.
    turn: Box<Condvar>,
}

struct Inner {
    seats: Vec<Chair>,
    /// Idle Ps; the last was used last.
    free: Vec<PId>,
    /// Numbers of destroyed Ps, to be used again.
    vacant: Vec<PId>,
    next_p: u32,
    total: usize,
    limit: usize,
    attached: usize,
    running: usize,
    stopping: bool,
    /// What is to be done in the stop.
    action: Action,
    /// The stop is a moment's, and each thread has a processor, as far as is known.
    momentary: bool,
    /// Marking goes on beside the program: what a P holds must not be given back.
    marking: bool,
    /// Seats that owe.
    owed: usize,
    /// Who asked for a handshake sleeps until it is done.
    answers_awaited: bool,
    /// Who asked for a stop sleeps until the world stands, or the stop is over.
    stop_awaited: bool,
    collecting: bool,
    collections: u64,
    grants: u64,
    queue: VecDeque<Seat>,
    fork: fork::Fork,
}

/// The scheduler of one heap.
pub struct Scheduler {
    inner: Mutex<Inner>,
    /// Signalled when `running` reaches 0 in a stop or its action is done, if somebody sleeps for it.
    stopped: Condvar,
    /// Signalled when nobody owes any more, likewise.
    answered: Condvar,
    /// Signalled when a stop or a collection ends.
    resumed: Condvar,
    /// Of a stop, and of a handshake.
    progress: Progress,
    handshake: Progress,
    most_seats: usize,
}

impl Scheduler {
    /// No seats, no Ps. `limit` 0: a P for each attached thread.
    pub fn new(limit: usize, most_seats: usize) -> Scheduler {
        Scheduler {
            inner: Mutex::new(Inner {
                seats: Vec::new(),
                free: Vec::new(),
                vacant: Vec::new(),
                next_p: 0,
                total: 0,
                limit,
                attached: 0,
                running: 0,
                stopping: false,
                action: Action::None,
                momentary: false,
                marking: false,
                owed: 0,
                answers_awaited: false,
                stop_awaited: false,
                collecting: false,
                collections: 0,
                grants: 0,
                queue: VecDeque::new(),
                fork: fork::Fork::None,
            }),
            stopped: Condvar::new(),
            answered: Condvar::new(),
            resumed: Condvar::new(),
            progress: Progress::default(),
            handshake: Progress::default(),
            most_seats,
        }
    }

    /// Seats the calling thread, and waits for a P. The seat's owner is Running when this returns. `seated` is told
    /// the seat before the wait.
    pub fn attach(&self, house: &impl House, seated: impl FnOnce(Seat)) -> Result<(Seat, PId), Refused> {
        let mut inner = lock(&self.inner);
        let seat = inner.free_seat(self.most_seats)?;
        inner.attached += 1;
        if let Err(refused) = inner.create_ps(house) {
            inner.attached -= 1;
            return Err(refused);
        }
        seated(seat);
        let p = self.wait_for_p(inner, house, seat);
        Ok((seat, p))
    }

    /// Gives the seat and its P up.
    pub fn detach(&self, house: &impl House, seat: Seat) {
        let mut inner = lock(&self.inner);
        // A stop waits for this thread only to see it gone, but the stopped world reads its roots: leave after.
        self.answer(&mut inner, seat);
        inner = self.park_while_stopping(inner, house, seat);
        inner.attached -= 1;
        inner.set_poll(house, seat, 0);
        let p = inner.leave(seat, State::Free);
        house.vacate(seat);
        inner.give_back(house, p);
        self.distribute(&mut inner);
        self.announce(&inner);
    }

    /// What a mutator does when its poll word is set: takes part in a stop, hands its P over.
    pub fn safepoint(&self, house: &impl House, seat: Seat) -> Passed {
        let mut inner = lock(&self.inner);
        self.answer(&mut inner, seat);
        let waited = inner.stopping.then_some(Waited::Stop);
        let mut inner = self.park_while_stopping(inner, house, seat);
        let hand_over = inner.chair(seat).poll & POLL_HAND_OVER != 0;
        inner.set_poll(house, seat, 0);
        if inner.may_shrink() || (hand_over && !inner.queue.is_empty()) {
            let p = inner.leave(seat, State::Waiting);
            inner.give_back(house, p);
            return Passed { p: self.wait_for_p(inner, house, seat), waited: waited.or(Some(Waited::P)) };
        }
        Passed { p: inner.p_of(seat), waited }
    }

    /// The thread is about to wait for something else: its P is free, no stop waits for it.
    pub fn block(&self, house: &impl House, seat: Seat) {
        let mut inner = lock(&self.inner);
        self.answer(&mut inner, seat);
        let p = inner.leave(seat, State::Blocked);
        inner.set_poll(house, seat, 0);
        inner.give_back(house, p);
        self.distribute(&mut inner);
        self.announce(&inner);
    }

    /// The thread goes on: waits for the end of a stop, and for a P.
    pub fn unblock(&self, house: &impl House, seat: Seat) -> PId {
        let inner = lock(&self.inner);
        self.wait_for_p(inner, house, seat)
    }

    /// Changes the number of Ps.
    pub fn set_limit(&self, house: &impl House, limit: usize) -> Result<(), Refused> {
        let mut inner = lock(&self.inner);
        let old = std::mem::replace(&mut inner.limit, limit);
        if let Err(refused) = inner.create_ps(house) {
            inner.limit = old;
            // Some were made before one was refused.
            inner.destroy_surplus(house);
            return Err(refused);
        }
        inner.destroy_surplus(house);
        if inner.is_surplus() {
            inner.ring_holders(house, POLL_HAND_OVER);
        }
        self.distribute(&mut inner);
        Ok(())
    }

    /// The limit last set.
    pub fn limit(&self) -> usize {
        lock(&self.inner).limit
    }

    /// Threads that are attached.
    pub fn attached(&self) -> usize {
        lock(&self.inner).attached
    }

    /// How many there are of what.
    pub fn census(&self) -> Census {
        let inner = lock(&self.inner);
        let Inner { total, limit, attached, running, .. } = *inner;
        Census { ps: total, limit, attached, running, waiting: inner.queue.len() }
    }

    /// Calls `f` while nobody takes a seat or leaves one, no P comes or goes, and no stop begins or ends.
    pub fn with_ps_pinned<R>(&self, f: impl FnOnce() -> R) -> R {
        let _inner = lock(&self.inner);
        f()
    }

    /// The caller, who is Running, wants to collect. True: it is the collector until [`Self::end_collection`].
    /// False: somebody else was, and has finished.
    pub fn begin_collection(&self, seat: Seat) -> bool {
        let mut inner = lock(&self.inner);
        if !inner.collecting {
            inner.collecting = true;
            return true;
        }
        let number = inner.collections;
        self.answer(&mut inner, seat);
        inner.park(seat);
        self.announce(&inner);
        while inner.stopping || inner.collections == number {
            inner = wait(&self.resumed, inner);
        }
        inner.run_again(seat);
        false
    }

    /// Ends what [`Self::begin_collection`] began.
    pub fn end_collection(&self) {
        let mut inner = lock(&self.inner);
        inner.collecting = inner.goes_to_fork();
        inner.collections += 1;
        drop(inner);
        self.resumed.notify_all();
    }

    /// Queues the seat, which holds no P, and waits until it is granted one.
    fn wait_for_p(&self, mut inner: MutexGuard<'_, Inner>, house: &impl House, seat: Seat) -> PId {
        inner.chair(seat).state = State::Waiting;
        inner.queue.push_back(seat);
        self.distribute(&mut inner);
        self.announce(&inner);
        loop {
            if inner.chair(seat).state == State::Running {
                return inner.p_of(seat);
            }
            let turn: *const Condvar = &raw const *inner.chair(seat).turn;
            // SAFETY: a chair's condition variable is boxed, and lives as long as the scheduler.
            let turn = unsafe { &*turn };
            // Only the first looks at the clock, for all: were it everybody, each slice would cost the square of
            // their number.
            if inner.queue.front() == Some(&seat) {
                let (guard, late) = wait_slice(turn, inner);
                inner = guard;
                if late {
                    self.slice_is_over(&mut inner, house);
                }
            } else {
                inner = wait(turn, inner);
            }
        }
    }

    /// In a model time passes when the model says so: the slice of the first who waits is over.
    #[cfg(loom)]
    pub fn let_slices_end(&self, house: &impl House) {
        let mut inner = lock(&self.inner);
        self.slice_is_over(&mut inner, house);
    }

    /// The first who waits has waited long enough, if anybody waits still. Whoever was given a P since he became the
    /// first would have been he, so all who run have had a slice.
    fn slice_is_over(&self, inner: &mut Inner, house: &impl House) {
        if inner.stopping || inner.queue.is_empty() {
            return;
        }
        // The system may have refused a P, and have room for it by now.
        let _ = inner.create_ps(house);
        self.distribute(inner);
        inner.request_hand_overs(house);
    }

    /// Grants free Ps to those who wait, in their order, unless the world is stopped.
    fn distribute(&self, inner: &mut Inner) {
        let mut granted = false;
        while !inner.stopping && !inner.queue.is_empty() {
            let Some(p) = inner.free.pop() else { break };
            let Some(seat) = inner.queue.pop_front() else { break };
            granted = true;
            inner.grants += 1;
            inner.running += 1;
            let grants = inner.grants;
            let chair = inner.chair(seat);
            (chair.state, chair.p, chair.since) = (State::Running, Some(p), grants);
            chair.turn.notify_one();
        }
        // Who is the first now has to look at the clock.
        if granted && let Some(&first) = inner.queue.front() {
            inner.chair(first).turn.notify_one();
        }
    }
}

impl Inner {
    fn chair(&mut self, seat: Seat) -> &mut Chair {
        &mut self.seats[seat.0 as usize]
    }

    fn p_of(&mut self, seat: Seat) -> PId {
        match self.chair(seat).p {
            Some(p) => p,
            None => fatal(format_args!("scheduler: seat {} runs without a P", seat.0)),
        }
    }

    fn free_seat(&mut self, most: usize) -> Result<Seat, Refused> {
        if let Some(n) = self.seats.iter().position(|c| c.state == State::Free) {
            return Ok(Seat(n as u32));
        }
        if self.seats.len() == most {
            return Err(Refused::Full);
        }
        self.seats.try_reserve(1).map_err(|_| Refused::NoMemory)?;
        self.queue.try_reserve(self.seats.len() + 1).map_err(|_| Refused::NoMemory)?;
        let turn = Box::new(Condvar::new());
        self.seats.push(Chair { state: State::Free, p: None, poll: 0, owes: false, since: 0, turn });
        Ok(Seat(self.seats.len() as u32 - 1))
    }

    /// The seat, which is Running, gives its P out of hand.
    fn leave(&mut self, seat: Seat, to: State) -> PId {
        let p = self.p_of(seat);
        let chair = self.chair(seat);
        if chair.state != State::Running {
            fatal(format_args!("scheduler: seat {} leaves in state {:?}", seat.0, chair.state));
        }
        chair.state = to;
        chair.p = None;
        self.running -= 1;
        p
    }

    fn park(&mut self, seat: Seat) {
        self.chair(seat).state = State::Parked;
        self.running -= 1;
    }

    fn run_again(&mut self, seat: Seat) {
        self.chair(seat).state = State::Running;
        self.running += 1;
    }

    fn set_poll(&mut self, house: &impl House, seat: Seat, poll: u32) {
        if self.chair(seat).poll != poll {
            self.chair(seat).poll = poll;
            house.ring(seat, poll);
        }
    }

    fn add_poll(&mut self, house: &impl House, seat: Seat, poll: u32) {
        let poll = self.chair(seat).poll | poll;
        self.set_poll(house, seat, poll);
    }

    /// Rings at every seat that holds a P, also at those parked: a limit may fall during a stop.
    fn ring_holders(&mut self, house: &impl House, poll: u32) {
        for n in 0..self.seats.len() {
            if self.seats[n].p.is_some() {
                self.add_poll(house, Seat(n as u32), poll);
            }
        }
    }

    /// Asks for a P for each who waits: of the seats that were not asked yet, those that have had theirs longest.
    fn request_hand_overs(&mut self, house: &impl House) {
        for _ in 0..self.queue.len() {
            let candidates = self.seats.iter().enumerate();
            let running =
                candidates.filter(|(_, c)| c.state == State::Running && c.poll & POLL_HAND_OVER == 0);
            let Some((seat, _)) = running.min_by_key(|(_, c)| c.since) else { return };
            self.add_poll(house, Seat(seat as u32), POLL_HAND_OVER);
        }
    }
}

fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    match condvar.wait(guard) {
        Ok(guard) => guard,
        Err(_) => fatal(format_args!("lock poisoned")),
    }
}

fn wait_slice<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> (MutexGuard<'a, T>, bool) {
    wait_most(condvar, guard, SLICE)
}

/// Waits at most so long; whether that long has passed.
#[cfg(not(loom))]
fn wait_most<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    most: Duration,
) -> (MutexGuard<'a, T>, bool) {
    match condvar.wait_timeout(guard, most) {
        Ok((guard, timeout)) => (guard, timeout.timed_out()),
        Err(_) => fatal(format_args!("lock poisoned")),
    }
}

/// Waits; what passes of time is said by `Scheduler::let_slices_end` and `let_rests_end`.
#[cfg(loom)]
fn wait_most<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>, _: Duration) -> (MutexGuard<'a, T>, bool) {
    (wait(condvar, guard), false)
}

#[cfg(all(test, not(loom)))]
mod tests;
