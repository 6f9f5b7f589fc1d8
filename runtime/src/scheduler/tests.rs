//! The scheduler with threads and a house that only counts.

use super::*;
use besom_stats::sync::raw::{AtomicBool, AtomicU32, AtomicUsize, Ordering::*};
use std::time::Instant;

const SEATS: usize = 16;

/// Poll words, and Ps that exist; refuses more than `most` at once.
struct Count {
    polls: [AtomicU32; SEATS],
    ps: [AtomicBool; SEATS * 2],
    alive: AtomicUsize,
    most: AtomicUsize,
    vacated: AtomicUsize,
}

impl Count {
    fn new() -> Count {
        Count {
            polls: [const { AtomicU32::new(0) }; SEATS],
            ps: [const { AtomicBool::new(false) }; SEATS * 2],
            alive: AtomicUsize::new(0),
            most: AtomicUsize::new(usize::MAX),
            vacated: AtomicUsize::new(0),
        }
    }

    fn polled(&self, seat: Seat) -> u32 {
        self.polls[seat.0 as usize].load(SeqCst)
    }
}

impl House for Count {
    fn ring(&self, seat: Seat, poll: u32) {
        self.polls[seat.0 as usize].store(poll, SeqCst);
    }

    fn vacate(&self, _: Seat) {
        self.vacated.fetch_add(1, SeqCst);
    }

    fn create_p(&self, p: PId) -> bool {
        if self.alive.load(SeqCst) >= self.most.load(SeqCst) {
            return false;
        }
        assert!(!self.ps[p.0 as usize].swap(true, SeqCst), "P {} is made twice", p.0);
        self.alive.fetch_add(1, SeqCst);
        true
    }

    fn destroy_p(&self, p: PId) {
        assert!(self.ps[p.0 as usize].swap(false, SeqCst), "P {} is destroyed twice", p.0);
        self.alive.fetch_sub(1, SeqCst);
    }

    fn act<R>(&self, _: Seat, action: impl FnOnce() -> R) -> R {
        action()
    }

    /// As many as there are threads: who waits for a stop looks first.
    fn cpus(&self) -> usize {
        usize::MAX
    }
}

fn attach(scheduler: &Scheduler, house: &Count) -> (Seat, PId) {
    scheduler.attach(house, |_| ()).expect("a seat")
}

/// Waits until something that another thread is about to do is done.
fn until(what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(10), "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// The equations at the top of the module.
fn check(scheduler: &Scheduler, house: &Count) {
    let inner = lock(&scheduler.inner);
    let count = |state| inner.seats.iter().filter(|c| c.state == state).count();
    assert_eq!(inner.running, count(State::Running));
    assert_eq!(inner.total, inner.free.len() + count(State::Running) + count(State::Parked));
    assert_eq!(inner.total, house.alive.load(SeqCst));
    assert_eq!(inner.attached, inner.seats.len() - count(State::Free));
    for chair in &inner.seats {
        assert_eq!(
            chair.p.is_some(),
            matches!(chair.state, State::Running | State::Parked),
            "{:?}",
            chair.state
        );
    }
    if inner.limit == 0 {
        assert!(inner.total >= inner.attached);
    }
}

#[test]
fn without_a_limit_each_thread_has_a_p() {
    let (scheduler, house) = (Scheduler::new(0, SEATS), Count::new());
    let seats: Vec<_> = (0..5).map(|_| attach(&scheduler, &house)).collect();
    let mut ps: Vec<u32> = seats.iter().map(|(_, p)| p.0).collect();
    ps.sort_unstable();
    ps.dedup();
    assert_eq!((ps.len(), scheduler.attached(), house.alive.load(SeqCst)), (5, 5, 5));
    check(&scheduler, &house);
    for (seat, _) in seats {
        scheduler.detach(&house, seat);
        check(&scheduler, &house);
    }
    assert_eq!((scheduler.attached(), house.alive.load(SeqCst), house.vacated.load(SeqCst)), (0, 0, 5));
}

#[test]
fn seats_and_memory_run_out_without_harm() {
    let (scheduler, house) = (Scheduler::new(0, 2), Count::new());
    let (first, _) = attach(&scheduler, &house);
    house.most.store(1, SeqCst);
    assert_eq!(scheduler.attach(&house, |_| ()), Err(Refused::NoMemory));
    check(&scheduler, &house);
    house.most.store(9, SeqCst);
    let (second, _) = attach(&scheduler, &house);
    assert_eq!(scheduler.attach(&house, |_| ()), Err(Refused::Full));
    scheduler.detach(&house, first);
    let (again, _) = attach(&scheduler, &house);
    assert_eq!(again, first, "a free seat is taken again");
    scheduler.detach(&house, second);
    scheduler.detach(&house, again);
    check(&scheduler, &house);
    // The first P of all must be there; with a limit, fewer than wished for will do.
    house.most.store(0, SeqCst);
    assert_eq!(scheduler.attach(&house, |_| ()), Err(Refused::NoMemory));
    let limited = Scheduler::new(4, SEATS);
    assert_eq!(limited.attach(&house, |_| ()), Err(Refused::NoMemory));
    check(&limited, &house);
}

#[test]
fn a_blocked_thread_s_p_is_the_next_ones() {
    let (scheduler, house) = (Scheduler::new(1, SEATS), Count::new());
    let (first, p) = attach(&scheduler, &house);
    scheduler.block(&house, first);
    let (second, other) = attach(&scheduler, &house);
    assert_eq!((p, house.alive.load(SeqCst)), (other, 1));
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| scheduler.unblock(&house, first));
        until("a request to hand over", || house.polled(second) & POLL_HAND_OVER != 0);
        assert!(!waiter.is_finished(), "two run on one P");
        scheduler.block(&house, second);
        assert_eq!(waiter.join().expect("the waiter"), p);
    });
    check(&scheduler, &house);
    scheduler.detach(&house, first);
    let p = scheduler.unblock(&house, second);
    assert_eq!(p, other);
    scheduler.detach(&house, second);
    check(&scheduler, &house);
}

#[test]
fn who_waits_longest_is_served_first() {
    let (scheduler, house) = (Scheduler::new(1, SEATS), Count::new());
    let (holder, _) = attach(&scheduler, &house);
    let order = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for n in 0..5 {
            let (scheduler, house, order) = (&scheduler, &house, &order);
            scope.spawn(move || {
                let (seat, _) = attach(scheduler, house);
                lock(order).push(n);
                scheduler.detach(house, seat);
            });
            until("a thread in the queue", || lock(&scheduler.inner).queue.len() == n + 1);
        }
        scheduler.detach(&house, holder);
    });
    assert_eq!(*lock(&order), [0, 1, 2, 3, 4]);
    check(&scheduler, &house);
}

#[test]
fn the_world_stops_when_all_are_parked_or_blocked() {
    let (scheduler, house) = (Scheduler::new(0, SEATS), Count::new());
    let (collector, _) = attach(&scheduler, &house);
    let (blocked, _) = attach(&scheduler, &house);
    let (running, _) = attach(&scheduler, &house);
    scheduler.block(&house, blocked);
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let world = scope.spawn(|| {
            assert!(scheduler.begin_collection(collector));
            scheduler.stop(&house, collector);
            stopped.store(true, SeqCst);
            // Who unblocks or attaches now waits; who detaches, too.
            std::thread::sleep(Duration::from_millis(20));
            check(&scheduler, &house);
            stopped.store(false, SeqCst);
            scheduler.resume(&house, Some(collector));
            scheduler.end_collection();
        });
        until("the bell", || house.polled(running) & POLL_STOP != 0);
        assert!(!stopped.load(SeqCst), "stopped while a thread runs");
        let unblocks = scope.spawn(|| {
            until("the stop", || stopped.load(SeqCst));
            scheduler.unblock(&house, blocked);
            assert!(!stopped.load(SeqCst), "unblocked in a stopped world");
        });
        let attaches = scope.spawn(|| {
            until("the stop", || stopped.load(SeqCst));
            let (seat, _) = attach(&scheduler, &house);
            assert!(!stopped.load(SeqCst), "attached in a stopped world");
            scheduler.detach(&house, seat);
        });
        scheduler.safepoint(&house, running);
        assert!(!stopped.load(SeqCst), "ran in a stopped world");
        for thread in [world, unblocks, attaches] {
            thread.join().expect("a thread");
        }
    });
    assert_eq!(house.polled(running), 0, "the bell is off");
    for seat in [collector, blocked, running] {
        scheduler.detach(&house, seat);
    }
    check(&scheduler, &house);
}

#[test]
fn one_collects_and_the_others_wait_for_it() {
    let (scheduler, house) = (Scheduler::new(0, SEATS), Count::new());
    let (first, _) = attach(&scheduler, &house);
    let (second, _) = attach(&scheduler, &house);
    assert!(scheduler.begin_collection(first));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| scheduler.begin_collection(second));
        // The one that waits is parked, so that the stop need not ring for it.
        until("a parked thread", || lock(&scheduler.inner).running == 1);
        scheduler.stop(&house, first);
        scheduler.resume(&house, Some(first));
        assert!(!other.is_finished(), "the collection is not over with the stop");
        scheduler.end_collection();
        assert!(!other.join().expect("the other"), "it did not collect itself");
    });
    assert!(scheduler.begin_collection(second), "and now it can");
    scheduler.end_collection();
    scheduler.detach(&house, first);
    scheduler.detach(&house, second);
    check(&scheduler, &house);
}

#[test]
fn a_lower_limit_takes_effect_at_safepoints() {
    let (scheduler, house) = (Scheduler::new(0, SEATS), Count::new());
    let seats: Vec<Seat> = (0..4).map(|_| attach(&scheduler, &house).0).collect();
    scheduler.set_limit(&house, 1).expect("a limit");
    assert_eq!((scheduler.limit(), house.alive.load(SeqCst)), (1, 4), "nobody has reached a safepoint");
    assert!(seats.iter().all(|s| house.polled(*s) & POLL_HAND_OVER != 0), "everybody is asked");
    // Those that block give their Ps up for good.
    scheduler.block(&house, seats[0]);
    scheduler.block(&house, seats[1]);
    scheduler.block(&house, seats[2]);
    assert_eq!(house.alive.load(SeqCst), 1);
    assert_eq!(scheduler.safepoint(&house, seats[3]), scheduler.safepoint(&house, seats[3]));
    check(&scheduler, &house);
    scheduler.set_limit(&house, 3).expect("a limit");
    assert_eq!(house.alive.load(SeqCst), 3);
    scheduler.unblock(&house, seats[0]);
    scheduler.unblock(&house, seats[1]);
    check(&scheduler, &house);
    scheduler.set_limit(&house, 0).expect("no limit");
    scheduler.unblock(&house, seats[2]);
    assert_eq!(house.alive.load(SeqCst), 4);
    house.most.store(4, SeqCst);
    assert_eq!(scheduler.set_limit(&house, 9), Ok(()), "as many as are attached will do");
    seats.iter().for_each(|s| scheduler.detach(&house, *s));
    check(&scheduler, &house);
}

/// Only the first of those who wait looks at the clock, but asks for all of them.
#[test]
fn a_slice_frees_as_many_ps_as_are_waited_for() {
    let (scheduler, house) = (Scheduler::new(3, SEATS), Count::new());
    let holders: Vec<Seat> = (0..3).map(|_| attach(&scheduler, &house).0).collect();
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..2)
            .map(|n| {
                let thread = scope.spawn(|| attach(&scheduler, &house).0);
                until("a thread in the queue", || lock(&scheduler.inner).queue.len() == n + 1);
                thread
            })
            .collect();
        until("two requests", || {
            holders.iter().filter(|s| house.polled(**s) & POLL_HAND_OVER != 0).count() >= 2
        });
        scheduler.block(&house, holders[0]);
        // Who was second is the first now, and asks when its own slice is over, also who was not asked.
        until("a third request", || house.polled(holders[2]) & POLL_HAND_OVER != 0);
        scheduler.block(&house, holders[1]);
        for waiter in waiters {
            scheduler.detach(&house, waiter.join().expect("a waiter"));
        }
    });
    check(&scheduler, &house);
}

#[test]
fn a_p_that_was_refused_is_asked_for_again() {
    let (scheduler, house) = (Scheduler::new(2, SEATS), Count::new());
    attach(&scheduler, &house);
    house.most.store(1, SeqCst);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| attach(&scheduler, &house));
        until("a thread in the queue", || lock(&scheduler.inner).queue.len() == 1);
        house.most.store(2, SeqCst);
        // The holder of the one P never comes to a safepoint.
        waiter.join().expect("a P of its own");
    });
    assert_eq!(house.alive.load(SeqCst), 2);
    check(&scheduler, &house);
}

#[test]
fn a_limit_that_is_refused_leaves_no_ps_behind() {
    let (scheduler, house) = (Scheduler::new(1, SEATS), Count::new());
    let seats: Vec<Seat> = (0..4)
        .map(|_| {
            let (seat, _) = attach(&scheduler, &house);
            scheduler.block(&house, seat);
            seat
        })
        .collect();
    house.most.store(3, SeqCst);
    assert_eq!(scheduler.set_limit(&house, 0), Err(Refused::NoMemory));
    assert_eq!((scheduler.limit(), house.alive.load(SeqCst)), (1, 1));
    check(&scheduler, &house);
    seats.into_iter().for_each(|s| {
        scheduler.unblock(&house, s);
        scheduler.detach(&house, s);
    });
    check(&scheduler, &house);
}

#[test]
fn threads_of_all_sorts_keep_the_equations() {
    let (scheduler, house) = (Scheduler::new(2, SEATS), Count::new());
    let over = AtomicBool::new(false);
    let inside = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for n in 0..6u64 {
            let (scheduler, house, over, inside) = (&scheduler, &house, &over, &inside);
            scope.spawn(move || {
                let mut random = n;
                let mut next = move || {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    random >> 60
                };
                while !over.load(SeqCst) {
                    let (seat, _) = attach(scheduler, house);
                    for _ in 0..40 {
                        inside.fetch_add(1, SeqCst);
                        let choice = next();
                        inside.fetch_sub(1, SeqCst);
                        match choice {
                            0 | 1 => {
                                scheduler.block(house, seat);
                                scheduler.unblock(house, seat);
                            }
                            2 if scheduler.begin_collection(seat) => {
                                scheduler.stop(house, seat);
                                assert_eq!(inside.load(SeqCst), 0, "somebody runs in a stopped world");
                                check(scheduler, house);
                                scheduler.resume(house, Some(seat));
                                scheduler.end_collection();
                            }
                            3 => scheduler.set_limit(house, next() as usize % 5).expect("a limit"),
                            _ if house.polled(seat) != 0 => {
                                scheduler.safepoint(house, seat);
                            }
                            _ => {}
                        }
                    }
                    scheduler.detach(house, seat);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(500));
        over.store(true, SeqCst);
    });
    check(&scheduler, &house);
    assert_eq!((scheduler.attached(), lock(&scheduler.inner).running), (0, 0));
}

/// Seats of threads that do not exist in a child: a blocked one, a parked one, and one that waits for a P.
#[test]
fn in_a_child_the_others_seats_are_free() {
    let scheduler: &'static Scheduler = Box::leak(Box::new(Scheduler::new(2, SEATS)));
    let house: &'static Count = Box::leak(Box::new(Count::new()));
    let (own, p) = attach(scheduler, house);
    let (parked, _) = attach(scheduler, house);
    scheduler.step_aside(parked);
    // It never comes back, as in the child.
    std::thread::spawn(move || attach(scheduler, house));
    while scheduler.census().waiting == 0 {
        std::thread::yield_now();
    }
    assert!(!scheduler.stop_for_fork(house), "the caller runs");
    scheduler.step_aside(own);
    assert!(scheduler.stop_for_fork(house));
    let mut left = Vec::new();
    scheduler.after_fork(house, Some(own), |seat| left.push(seat));
    assert_eq!(left, [parked, Seat(2)]);
    assert_eq!(house.vacated.load(SeqCst), 2);
    assert_eq!(scheduler.census(), Census { ps: 2, limit: 2, attached: 1, running: 1, waiting: 0 });
    assert_eq!([own, parked, Seat(2)].map(|seat| house.polled(seat)), [0; 3]);
    assert_eq!(scheduler.safepoint(house, own).p, p);
    // All goes on: another comes and goes, the world is stopped, the last leaves.
    let (other, q) = attach(scheduler, house);
    assert_ne!(q, p);
    scheduler.block(house, other);
    assert!(scheduler.begin_collection(own));
    scheduler.stop(house, own);
    scheduler.resume(house, Some(own));
    scheduler.end_collection();
    scheduler.unblock(house, other);
    scheduler.detach(house, other);
    scheduler.set_limit(house, 0).expect("fewer Ps");
    assert_eq!(scheduler.census().ps, 1);
    scheduler.detach(house, own);
    assert_eq!((scheduler.census().ps, house.alive.load(SeqCst)), (0, 0));
}

/// A heap goes that a fork has asked for, perhaps in vain: its driver is not kept waiting.
#[test]
fn a_fork_does_not_keep_a_heap_that_goes() {
    let (scheduler, house) = (Scheduler::new(0, SEATS), Count::new());
    assert!(scheduler.stop_for_fork(&house));
    scheduler.no_fork(&house);
    scheduler.begin_collection_unseated();
    assert!(!scheduler.stop_for_fork(&house));
    scheduler.no_fork(&house);
    scheduler.in_stop(&house, &mut || ());
    scheduler.end_collection();
    scheduler.begin_collection_unseated();
}

/// Without a thread of the heap's in the child there is nobody, and no P.
#[test]
fn in_a_child_of_a_stranger_nobody_is_attached() {
    let (scheduler, house) = (Scheduler::new(0, SEATS), Count::new());
    let (blocked, _) = attach(&scheduler, &house);
    scheduler.block(&house, blocked);
    assert!(scheduler.stop_for_fork(&house));
    scheduler.after_fork(&house, None, |seat| assert_eq!(seat, blocked));
    assert_eq!(scheduler.census(), Census { ps: 0, limit: 0, attached: 0, running: 0, waiting: 0 });
    assert_eq!(attach(&scheduler, &house).0, blocked);
}
