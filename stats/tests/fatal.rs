//! Broken invariants end the process with one clear line: each case runs in a child.

#![cfg(not(loom))]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use besom_stats::{ConsistentHeapStats, StatsSeq, SysMemStat};

/// Runs `broken` in a child process, which must print exactly `line` and be aborted.
fn dies(test: &str, line: &str, broken: impl FnOnce()) {
    const CHILD: &str = "STATS_FATAL_CHILD";
    if std::env::var_os(CHILD).is_some() {
        broken();
        std::process::exit(0);
    }
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .expect("child");
    assert_eq!(output.status.signal(), Some(6), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), line);
}

#[test]
fn a_p_that_reenters() {
    let line = "besom: heap statistics: a P opened a second guard while one of its guards is open\n";
    dies("a_p_that_reenters", line, || {
        let (stats, seq) = (ConsistentHeapStats::new(), StatsSeq::new());
        let writer = stats.writer(&seq);
        let _first = writer.acquire();
        let _second = writer.acquire();
    });
}

#[test]
fn two_threads_with_one_p() {
    let line = "besom: heap statistics: a P opened a second guard while one of its guards is open\n";
    dies("two_threads_with_one_p", line, || {
        let (stats, seq) = (ConsistentHeapStats::new(), StatsSeq::new());
        let _first = stats.writer(&seq).acquire();
        std::thread::scope(|s| {
            s.spawn(|| drop(stats.writer(&seq).acquire()));
        });
    });
}

#[test]
fn more_given_back_than_taken() {
    let line = "besom: system memory statistics: 4096 bytes cannot change by -4097\n";
    dies("more_given_back_than_taken", line, || {
        let stat = SysMemStat::new();
        stat.add(4096);
        stat.add(-4097);
    });
}
