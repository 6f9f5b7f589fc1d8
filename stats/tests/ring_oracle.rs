//! The ring against a sequential oracle: any history of Ps that come and go, few or thousands, guards that overlap
//! each other and turns of the generation, and reads that have to wait for guards.

#![cfg(not(loom))]

use std::sync::atomic::{AtomicBool, Ordering};

use besom_stats::{ConsistentHeapStats, HeapStatsDelta, SIZE_CLASSES, StatsGuard, StatsSeq};
use proptest::prelude::*;

/// Writers: P 0..PS, and PS is the one without a P.
const PS: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Op {
    /// The P joins the set, or leaves it (its guard is closed first). It comes again with the sequence that it had; in
    /// `run_crowd` with a fresh one.
    ComeOrGo(usize),
    Open(usize),
    Add(usize, Credit),
    Close(usize),
    /// Reads with every guard closed.
    Read,
    /// Reads on another thread while guards are open; they add once more and close.
    ReadBehindGuards(Credit),
    ReadStopped,
}

#[derive(Clone, Copy, Debug)]
enum Credit {
    Signed(usize, i64),
    LargeAlloc(u64),
    LargeFree(u64),
    SmallAlloc(usize, u64),
    SmallFree(usize, u64),
}

impl Credit {
    fn guard(self, g: &StatsGuard<'_>) {
        match self {
            Self::Signed(0, n) => g.committed(n),
            Self::Signed(1, n) => g.released(n),
            Self::Signed(2, n) => g.in_heap(n),
            Self::Signed(3, n) => g.in_stacks(n),
            Self::Signed(4, n) => g.in_work_bufs(n),
            Self::Signed(5, n) => g.in_metadata(n),
            Self::Signed(_, n) => g.mapped(n),
            Self::LargeAlloc(n) => g.large_alloc(n),
            Self::LargeFree(n) => g.large_free(n),
            Self::SmallAlloc(c, n) => g.small_alloc(c, n),
            Self::SmallFree(c, n) => g.small_free(c, n),
        }
    }

    fn oracle(self, d: &mut HeapStatsDelta) {
        match self {
            Self::Signed(0, n) => d.committed += n,
            Self::Signed(1, n) => d.released += n,
            Self::Signed(2, n) => d.in_heap += n,
            Self::Signed(3, n) => d.in_stacks += n,
            Self::Signed(4, n) => d.in_work_bufs += n,
            Self::Signed(5, n) => d.in_metadata += n,
            Self::Signed(_, n) => d.mapped += n,
            Self::LargeAlloc(n) => {
                d.large_alloc += n;
                d.large_alloc_count += 1;
            }
            Self::LargeFree(n) => {
                d.large_free += n;
                d.large_free_count += 1;
            }
            Self::SmallAlloc(c, n) => d.small_alloc_count[c] += n,
            Self::SmallFree(c, n) => d.small_free_count[c] += n,
        }
    }
}

fn credit() -> impl Strategy<Value = Credit> {
    let bytes = -(1i64 << 40)..1 << 40;
    prop_oneof![
        (0usize..7, bytes).prop_map(|(f, n)| Credit::Signed(f, n)),
        (0u64..1 << 40).prop_map(Credit::LargeAlloc),
        (0u64..1 << 40).prop_map(Credit::LargeFree),
        (0..SIZE_CLASSES, 0u64..512).prop_map(|(c, n)| Credit::SmallAlloc(c, n)),
        (0..SIZE_CLASSES, 0u64..512).prop_map(|(c, n)| Credit::SmallFree(c, n)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0..PS).prop_map(Op::ComeOrGo),
        6 => (0..=PS).prop_map(Op::Open),
        12 => (0..=PS, credit()).prop_map(|(w, c)| Op::Add(w, c)),
        6 => (0..=PS).prop_map(Op::Close),
        2 => Just(Op::Read),
        1 => credit().prop_map(Op::ReadBehindGuards),
        1 => Just(Op::ReadStopped),
    ]
}

/// Reads on another thread, which is seen to wait for these guards before each adds once more and is closed.
fn read_behind_guards<'s>(
    stats: &ConsistentHeapStats,
    pinned: impl Iterator<Item = &'s StatsSeq> + Send,
    open: Vec<StatsGuard<'_>>,
    credit: Credit,
    oracle: &mut HeapStatsDelta,
) {
    let waits = AtomicBool::new(false);
    let snapshot = std::thread::scope(|s| {
        let reader = s.spawn(|| {
            stats.read_pausing(pinned, |_| {
                waits.store(true, Ordering::Relaxed);
                std::thread::yield_now();
            })
        });
        while !open.is_empty() && !waits.load(Ordering::Relaxed) {
            assert!(!reader.is_finished(), "a read ended while a guard was open");
            std::thread::yield_now();
        }
        for guard in open {
            credit.guard(&guard);
            credit.oracle(oracle);
        }
        reader.join().expect("reader")
    });
    assert_eq!(snapshot, *oracle);
}

fn run(ops: &[Op]) {
    let stats = ConsistentHeapStats::new();
    let seqs: [StatsSeq; PS] = Default::default();
    let mut alive = [false; PS];
    let mut guards: [Option<StatsGuard<'_>>; PS + 1] = Default::default();
    let mut oracle = HeapStatsDelta::default();
    let pinned = |alive: [bool; PS]| seqs.iter().zip(alive).filter_map(|(s, a)| a.then_some(s));
    for &op in ops {
        match op {
            Op::ComeOrGo(p) => {
                guards[p] = None;
                alive[p] = !alive[p];
            }
            Op::Open(w) if guards[w].is_none() && (w == PS || alive[w]) => {
                let writer = if w == PS { stats.unattached() } else { stats.writer(&seqs[w]) };
                guards[w] = Some(writer.acquire());
            }
            Op::Open(_) => {}
            Op::Add(w, credit) => {
                if let Some(guard) = &guards[w] {
                    credit.guard(guard);
                    credit.oracle(&mut oracle);
                }
            }
            Op::Close(w) => guards[w] = None,
            Op::Read => {
                guards = Default::default();
                assert_eq!(stats.read(pinned(alive)), oracle);
            }
            Op::ReadBehindGuards(credit) => {
                let open = guards.iter_mut().filter_map(Option::take).collect();
                read_behind_guards(&stats, pinned(alive), open, credit, &mut oracle);
            }
            Op::ReadStopped => {
                guards = Default::default();
                assert_eq!(stats.read_stopped(), oracle);
            }
        }
    }
    drop(guards);
    assert_eq!(stats.read_stopped(), oracle);
    assert_eq!(stats.read(pinned(alive)), oracle);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_read_equals_the_oracle(ops in prop::collection::vec(op(), 0..120)) {
        run(&ops);
    }
}

/// What happens to a crowd of Ps.
#[derive(Clone, Copy, Debug)]
enum Crowd {
    /// So many Ps join.
    Join(usize),
    /// So many of those alive leave, from this one on.
    Leave(usize, u64),
    /// Each of so many Ps chosen at random opens a guard, adds, and closes it; the number is the choice's seed.
    Work(usize, u64),
    /// The same by the one without a P.
    Unattached(Credit),
    Read,
    /// At most so many Ps, from this one on, have guards open when a reader comes; they add, and close them.
    ReadBehindGuards(usize, u64, Credit),
    ReadStopped,
}

/// Ps alive at the most.
const CROWD: usize = 4096;

fn crowd() -> impl Strategy<Value = Crowd> {
    prop_oneof![
        4 => (1usize..1500).prop_map(Crowd::Join),
        3 => (1usize..1500, any::<u64>()).prop_map(|(n, from)| Crowd::Leave(n, from)),
        6 => (1usize..500, any::<u64>()).prop_map(|(n, seed)| Crowd::Work(n, seed)),
        2 => credit().prop_map(Crowd::Unattached),
        4 => Just(Crowd::Read),
        1 => (prop_oneof![Just(1usize), 2usize..50], any::<u64>(), credit())
            .prop_map(|(n, from, c)| Crowd::ReadBehindGuards(n, from, c)),
        2 => Just(Crowd::ReadStopped),
    ]
}

/// A credit made of a number.
fn some_credit(n: u64) -> Credit {
    let amount = n >> 24;
    match n % 5 {
        0 => Credit::Signed(n as usize >> 8 & 7, amount as i64 - (1 << 39)),
        1 => Credit::LargeAlloc(amount),
        2 => Credit::LargeFree(amount),
        3 => Credit::SmallAlloc((n >> 8) as usize % SIZE_CLASSES, amount % 512),
        _ => Credit::SmallFree((n >> 8) as usize % SIZE_CLASSES, amount % 512),
    }
}

/// The next number of a sequence without a visible order.
fn next(n: &mut u64) -> u64 {
    *n = n.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    *n ^ *n >> 29
}

/// Returns the most Ps that were alive, and how many came.
fn run_crowd(ops: &[Crowd]) -> (usize, usize) {
    let stats = ConsistentHeapStats::new();
    // As in the heap, who comes has a fresh sequence, under a number that another may have had.
    let mut seqs: Vec<StatsSeq> = (0..CROWD).map(|_| StatsSeq::new()).collect();
    let mut vacant: Vec<usize> = (0..CROWD).collect();
    let mut alive: Vec<usize> = Vec::new();
    let mut oracle = HeapStatsDelta::default();
    let (mut most, mut came) = (0, 0);
    for &op in ops {
        match op {
            Crowd::Join(n) => {
                let n = n.min(vacant.len());
                came += n;
                for p in vacant.drain(..n) {
                    seqs[p] = StatsSeq::new();
                    alive.push(p);
                }
                most = most.max(alive.len());
            }
            Crowd::Leave(n, from) => {
                for _ in 0..n.min(alive.len()) {
                    vacant.push(alive.swap_remove(from as usize % alive.len()));
                }
            }
            Crowd::Work(n, mut seed) if !alive.is_empty() => {
                for _ in 0..n {
                    let p = alive[next(&mut seed) as usize % alive.len()];
                    let guard = stats.writer(&seqs[p]).acquire();
                    for _ in 0..1 + seed % 3 {
                        let credit = some_credit(next(&mut seed));
                        credit.guard(&guard);
                        credit.oracle(&mut oracle);
                    }
                }
            }
            Crowd::Work(..) => {}
            Crowd::Unattached(credit) => {
                credit.guard(&stats.unattached().acquire());
                credit.oracle(&mut oracle);
            }
            Crowd::Read => assert_eq!(stats.read(alive.iter().map(|&p| &seqs[p])), oracle),
            Crowd::ReadBehindGuards(n, from, credit) if !alive.is_empty() => {
                let from = from as usize % alive.len();
                let step = alive.len() / n + 1;
                let open =
                    alive[from..].iter().step_by(step).map(|&p| stats.writer(&seqs[p]).acquire()).collect();
                let pinned = alive.iter().map(|&p| &seqs[p]);
                read_behind_guards(&stats, pinned, open, credit, &mut oracle);
            }
            Crowd::ReadBehindGuards(..) => {}
            Crowd::ReadStopped => assert_eq!(stats.read_stopped(), oracle),
        }
    }
    assert_eq!(stats.read_stopped(), oracle);
    assert_eq!(stats.read(alive.iter().map(|&p| &seqs[p])), oracle);
    (most, came)
}

/// The same with thousands of Ps.
#[test]
fn thousands_of_ps_come_and_go() {
    let most = std::cell::Cell::new((0, 0));
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(ops in prop::collection::vec(crowd(), 20..120))| {
        let (alive, came) = run_crowd(&ops);
        most.set((most.get().0.max(alive), most.get().1.max(came)));
    });
    let (alive, came) = most.get();
    assert!(alive == CROWD && came > 3 * CROWD, "at most {alive} Ps at once, {came} in all");
}
