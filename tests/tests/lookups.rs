//! Questions about addresses, asked while other threads allocate in the same spans.

use besom::options::{CONCURRENT, STOP_THE_WORLD};
use besom::{Heap, Kind, Options};
use besom_stats::sync::raw::{AtomicBool, Ordering::*};
use besom_tests::lasting::Lasting;
use besom_tests::process::abort_on_panic;
use std::time::Duration;

#[test]
fn a_live_object_is_found_while_its_neighbours_are_allocated() {
    abort_on_panic("look-ups beside allocation".to_owned());
    [CONCURRENT, STOP_THE_WORLD].into_iter().for_each(is_found);
}

fn is_found(mode: i32) {
    const COUNT: usize = 64;
    let heap = Heap::new(&Options { scan_native_stacks: 0, mode, ..Options::default() }).expect("a heap");
    let mut m = heap.attach().expect("attach");
    // Every second slot stays: the rest are runs of one, which another thread fills again and again.
    let mut kept = Vec::new();
    for n in 0..COUNT * 2 {
        let object = m.alloc(64, Kind::Values).expect("memory");
        if n % 2 == 0 {
            kept.push(m.handle(object.as_ptr()).expect("a handle"));
        }
    }
    let objects: Vec<usize> = kept.iter().map(|k| k.get().addr()).collect();
    let over = AtomicBool::new(false);
    m.blocked(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut m = heap.attach().expect("attach");
                while !over.load(Relaxed) {
                    m.collect();
                    for _ in 0..COUNT {
                        m.alloc(64, Kind::Values).expect("memory");
                    }
                }
            });
            let length = Lasting::new(Duration::from_millis(1500));
            let mut rounds = 0;
            while length.goes_on(rounds > 10, rounds) {
                for &object in &objects {
                    assert_eq!(
                        heap.base(object + 7).map(|b| b.addr()),
                        Some(object),
                        "base, in round {rounds}"
                    );
                    assert_eq!(heap.size(object), 64, "size, in round {rounds}");
                }
                rounds += 1;
            }
            over.store(true, Relaxed);
        });
    });
}
