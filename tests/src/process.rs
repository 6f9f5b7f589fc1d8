//! What the system knows of this process, and what a test does when it fails among threads.

use besom_stats::sync::{Mutex, MutexGuard};
use std::io::Write as _;
use std::sync::PoisonError;

fn count(directory: &str) -> usize {
    std::fs::read_dir(directory).expect("a directory of /proc").count()
}

/// Bytes of this process in memory that are its own: resident and not of a file.
pub fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("/proc/self/statm");
    let mut fields = text.split_whitespace().map(|f| f.parse::<usize>().expect("a number"));
    let (resident, shared) = (fields.nth(1).expect("resident"), fields.next().expect("shared"));
    // SAFETY: no preconditions.
    (resident - shared) * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize
}

/// Open descriptors.
pub fn descriptors() -> usize {
    count("/proc/self/fd")
}

/// Mappings.
pub fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").expect("/proc/self/maps").lines().count()
}

/// Threads.
pub fn threads() -> usize {
    count("/proc/self/task")
}

static ALONE: Mutex<()> = Mutex::new(());

/// One of those tests of a program that read figures of the process, and so run one at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    // A test that failed poisons the lock; the others go on.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From here on a panic of any thread prints itself with `context`, past the capture of the test harness, and aborts:
/// the other threads would wait for the one that failed.
pub fn abort_on_panic(context: String) {
    std::panic::set_hook(Box::new(move |info| {
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        let line = format!("\n{context}: thread {name}: {info}\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
        std::process::abort();
    }));
}

/// Seconds from a variable of the environment, or `default`.
pub fn number_from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")),
        Err(_) => default,
    }
}
