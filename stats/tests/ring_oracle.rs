//! The ring against a sequential oracle: any history of Ps that come and go, guards that overlap each other and
//! turns of the generation, and reads that have to wait for guards.

#![cfg(not(loom))]

use besom_stats::{ConsistentHeapStats, HeapStatsDelta, SIZE_CLASSES, StatsGuard, StatsSeq};
use proptest::prelude::*;

/// Writers: P 0..PS, and PS is the one without a P.
const PS: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Op {
    /// The P joins the set, or leaves it (its guard is closed first).
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
            Op::ReadBehindGuards(credit) => std::thread::scope(|s| {
                let reader = s.spawn(|| stats.read(pinned(alive)));
                for guard in guards.iter_mut().filter_map(Option::take) {
                    assert!(!reader.is_finished(), "a read ended while a guard was open");
                    credit.guard(&guard);
                    credit.oracle(&mut oracle);
                }
                assert_eq!(reader.join().expect("reader"), oracle);
            }),
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
