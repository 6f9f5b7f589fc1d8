//! That ThreadSanitizer sees a broken protocol at all: see `.ci/step-races.sh`, which runs the ring's tests under it.

#![cfg(all(race_check, not(loom)))]

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use besom_stats::sync::AccessCheck;

/// Two threads that each own the data at the same time, as far as anything orders them.
fn race() {
    let (data, ready) = (AccessCheck::default(), AtomicU32::new(0));
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                ready.fetch_add(1, Ordering::Relaxed);
                while ready.load(Ordering::Relaxed) < 2 {}
                data.exclusive();
            });
        }
    });
}

#[test]
fn a_planted_race_is_found() {
    const CHILD: &str = "RACE_CHECK_CHILD";
    if std::env::var_os(CHILD).is_some() {
        // Accesses at the very same moment ThreadSanitizer may miss.
        (0..100).for_each(|_| race());
        return;
    }
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "a_planted_race_is_found", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .expect("a child");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("AccessCheck"), "{}: {said}", output.status);
}
