//! Each function that takes a heap, called after the heap was freed, in the checked build: the one with debug assertions.

#![cfg(debug_assertions)]

// The functions of `besom.h` are in it.
use besom as _;

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::ptr::{from_mut, null, null_mut};

unsafe extern "C" {
    fn besom_heap_new(options: *const c_void, out: *mut *mut c_void) -> c_int;
    fn besom_heap_free(heap: *mut c_void) -> c_int;
    fn besom_attach(heap: *mut c_void, out: *mut *mut c_void) -> c_int;
    fn besom_after_fork_child(heap: *mut c_void) -> c_int;
    fn besom_procs_set(heap: *mut c_void, n: c_uint) -> c_int;
    fn besom_procs(heap: *mut c_void) -> c_uint;
    fn besom_gc_percent_set(heap: *mut c_void, percent: c_uint);
    fn besom_memory_limit_set(heap: *mut c_void, bytes: usize);
    fn besom_release_memory(heap: *mut c_void) -> usize;
    fn besom_stats_read(heap: *mut c_void, out: *mut c_void);
    fn besom_layout_register(h: *mut c_void, bytes: usize, at: *const u32, n: usize, out: *mut u32) -> c_int;
    fn besom_size(heap: *mut c_void, object: *const c_void) -> usize;
    fn besom_base(heap: *mut c_void, interior: *const c_void) -> *mut c_void;
    fn besom_roots_add(heap: *mut c_void, start: *mut c_void, words: usize, kind: c_int) -> c_int;
    fn besom_roots_remove(heap: *mut c_void, start: *mut c_void) -> c_int;
    fn besom_handle_free(heap: *mut c_void, handle: *mut c_void);
    fn besom_weak_free(heap: *mut c_void, weak: *mut c_void);
    fn besom_cleanup_cancel(heap: *mut c_void, cleanup: u64) -> c_int;
    fn besom_metrics(heap: *mut c_void, out: *mut *const c_void) -> usize;
    fn besom_metric_read(heap: *mut c_void, name: *const c_char, out: *mut c_void) -> c_int;
    fn besom_metrics_read(heap: *mut c_void, values: *mut c_void, n: usize) -> c_int;
    fn besom_metrics_prometheus(h: *mut c_void, to: *mut c_char, room: usize, length: *mut usize) -> c_int;
    fn besom_metrics_json(h: *mut c_void, to: *mut c_char, room: usize, length: *mut usize) -> c_int;
    fn besom_timeline_start(h: *mut c_void, path: *const c_char) -> c_int;
    fn besom_timeline_stop(h: *mut c_void) -> c_int;
}

const FUNCTIONS: [&str; 24] = [
    "besom_heap_free",
    "besom_attach",
    "besom_after_fork_child",
    "besom_procs_set",
    "besom_procs",
    "besom_gc_percent_set",
    "besom_memory_limit_set",
    "besom_release_memory",
    "besom_stats_read",
    "besom_layout_register",
    "besom_size",
    "besom_base",
    "besom_roots_add",
    "besom_roots_remove",
    "besom_handle_free",
    "besom_weak_free",
    "besom_cleanup_cancel",
    "besom_metrics",
    "besom_metric_read",
    "besom_metrics_read",
    "besom_metrics_prometheus",
    "besom_metrics_json",
    "besom_timeline_start",
    "besom_timeline_stop",
];

/// Every function of the header that takes a heap is in the list.
#[test]
fn the_list_is_the_headers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../runtime/include/besom.h");
    let header = std::fs::read_to_string(path).expect("the header");
    let mut declared: Vec<&str> = header
        .lines()
        .filter(|line| !line.starts_with(' ') && !line.starts_with('#'))
        .filter_map(|line| line.split_once("(besom_heap *heap"))
        .filter_map(|(before, _)| before.split([' ', '*']).next_back())
        .collect();
    let mut listed = FUNCTIONS.to_vec();
    declared.sort_unstable();
    listed.sort_unstable();
    assert_eq!(declared, listed);
}

/// # Safety
/// None: that is the point.
unsafe fn call(function: &str, heap: *mut c_void) {
    let mut room = [0u64; 1024];
    let out = from_mut(&mut room).cast::<c_void>();
    // SAFETY: the heap is freed, or none, which the function is to tell.
    unsafe {
        match function {
            "besom_heap_free" => drop(besom_heap_free(heap)),
            "besom_attach" => drop(besom_attach(heap, out.cast())),
            "besom_after_fork_child" => drop(besom_after_fork_child(heap)),
            "besom_procs_set" => drop(besom_procs_set(heap, 1)),
            "besom_procs" => drop(besom_procs(heap)),
            "besom_gc_percent_set" => besom_gc_percent_set(heap, 100),
            "besom_memory_limit_set" => besom_memory_limit_set(heap, 0),
            "besom_release_memory" => drop(besom_release_memory(heap)),
            "besom_stats_read" => besom_stats_read(heap, out),
            "besom_layout_register" => drop(besom_layout_register(heap, 16, null(), 0, out.cast())),
            "besom_size" => drop(besom_size(heap, out)),
            "besom_base" => drop(besom_base(heap, out)),
            "besom_roots_add" => drop(besom_roots_add(heap, out, 1, 1)),
            "besom_roots_remove" => drop(besom_roots_remove(heap, out)),
            "besom_handle_free" => besom_handle_free(heap, out),
            "besom_weak_free" => besom_weak_free(heap, out),
            "besom_cleanup_cancel" => drop(besom_cleanup_cancel(heap, 1)),
            "besom_metrics" => drop(besom_metrics(heap, null_mut())),
            "besom_metric_read" => drop(besom_metric_read(heap, c"besom/heap/live:bytes".as_ptr(), out)),
            "besom_metrics_read" => drop(besom_metrics_read(heap, out, 1)),
            "besom_metrics_prometheus" => drop(besom_metrics_prometheus(heap, null_mut(), 0, out.cast())),
            "besom_metrics_json" => drop(besom_metrics_json(heap, null_mut(), 0, out.cast())),
            "besom_timeline_start" => drop(besom_timeline_start(heap, c"/dev/null".as_ptr())),
            "besom_timeline_stop" => drop(besom_timeline_stop(heap)),
            _ => panic!("{function} is not called"),
        }
    }
}

const CHILD: &str = "FREED_CHILD";

/// Calls the function that the variable names in a child process; what it printed when it was aborted.
fn printed(test: &str, function: &str) -> String {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, function);
    // Those that are for tests, not for the library, would be reported.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"BESOM_")) {
        command.env_remove(name);
    }
    let output = command.output().expect("a child");
    assert_eq!(output.status.signal(), Some(6), "{function}: {output:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn a_freed_heap_is_told() {
    if let Ok(function) = std::env::var(CHILD) {
        let mut heap = null_mut();
        // SAFETY: the options are none, the heap is new.
        unsafe {
            assert_eq!(besom_heap_new(null(), &mut heap), 0);
            assert_eq!(besom_heap_free(heap), 0);
            call(&function, heap);
        }
        std::process::exit(0);
    }
    for function in FUNCTIONS {
        let line = printed("a_freed_heap_is_told", function);
        assert_eq!(line, format!("besom: {function}: heap is freed\n"));
    }
}

#[test]
fn what_is_no_heap_is_told() {
    if let Ok(function) = std::env::var(CHILD) {
        let no_heap = vec![0u64; 1 << 16];
        // SAFETY: the memory is readable.
        unsafe { call(&function, no_heap.as_ptr().cast_mut().cast()) };
        std::process::exit(0);
    }
    let line = printed("what_is_no_heap_is_told", "besom_stats_read");
    let address = line.strip_prefix("besom: besom_stats_read: 0x").expect(&line);
    let address = address.strip_suffix(" is no heap\n").expect(&line);
    assert!(u64::from_str_radix(address, 16).is_ok(), "{line}");
}

#[test]
fn a_heap_that_is_not_freed_is_not() {
    let mut heap = null_mut();
    // SAFETY: the options are none, the heap is new, and freed once.
    unsafe {
        assert_eq!(besom_heap_new(null(), &mut heap), 0);
        for function in FUNCTIONS.into_iter().filter(|f| !["besom_heap_free", "besom_attach"].contains(f)) {
            if !["besom_handle_free", "besom_weak_free"].contains(&function) {
                call(function, heap);
            }
        }
        assert_eq!(besom_heap_free(heap), 0);
        assert_eq!(besom_heap_free(null_mut()), 0);
    }
}
