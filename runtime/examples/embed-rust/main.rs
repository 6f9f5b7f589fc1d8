//! Embedding Besom in Rust: a linked list of nodes with a registered layout, sorted by rebuilding it, so that there is
//! garbage. `cargo run --release -p besom --example embed-rust`
//!
//! The Rust face checks threads and lifetimes of heap, mutator and handles. What an object is made of is the VM's
//! business, so its fields are reached by raw pointers, as they are in C. Locals that point to objects are roots,
//! because native stacks are scanned by default.

use besom::{Error, Heap, Mutator, Options};
use std::mem::offset_of;
use std::ptr::NonNull;

type Link = Option<NonNull<Node>>;

#[repr(C)]
struct Node {
    next: Link,
    value: u64,
}

/// Puts a new node in front of a list.
fn push(m: &mut Mutator<'_>, layout: u32, next: Link, value: u64) -> Result<Link, Error> {
    let node = m.new_object(layout)?.ok_or(Error::NoMemory)?.cast::<Node>();
    // SAFETY: the object is new, has room for a node, and is nobody else's.
    unsafe { node.write(Node { next, value }) };
    Ok(Some(node))
}

/// The values of a list.
fn values(mut list: Link) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || {
        // SAFETY: lists are made of nodes that were written whole, and `list` keeps the rest of this one alive.
        let node = unsafe { list?.as_ref() };
        list = node.next;
        Some(node.value)
    })
}

/// A sorted copy: every insertion copies the nodes before its place.
fn sorted(m: &mut Mutator<'_>, layout: u32, list: Link) -> Result<Link, Error> {
    let mut result: Link = None;
    for value in values(list) {
        let mut rest = result;
        let mut smaller = Vec::new();
        while let Some(node) = rest {
            // SAFETY: as in `values`.
            let Node { next, value: other } = unsafe { node.read() };
            if other >= value {
                break;
            }
            smaller.push(other);
            rest = next;
        }
        rest = push(m, layout, rest, value)?;
        for other in smaller.into_iter().rev() {
            rest = push(m, layout, rest, other)?;
        }
        result = rest;
    }
    Ok(result)
}

fn main() -> Result<(), Error> {
    let heap = Heap::new(&Options::from_environment())?;
    let layout = heap.register_layout(size_of::<Node>(), &[offset_of!(Node, next) as u32])?;
    let mut m = heap.attach()?;

    let mut list = None;
    let mut seed = 1u64;
    for _ in 0..2000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        list = push(&mut m, layout, list, seed >> 40)?;
    }
    let list = sorted(&mut m, layout, list)?;
    // A handle keeps the list alive from memory that is no root, as long as it is not dropped.
    let kept = m.handle(list.map_or(std::ptr::null_mut(), |node| node.as_ptr().cast()))?;
    m.collect();

    let list = NonNull::new(kept.get().cast::<Node>());
    assert!(values(list).is_sorted() && values(list).count() == 2000);
    let stats = heap.stats();
    println!(
        "2000 nodes sorted; {} objects allocated, {} freed, {} collections, longest stop {:.2} ms",
        stats.alloc_count,
        stats.free_count,
        stats.cycles,
        stats.pause_max_ns as f64 / 1e6
    );
    Ok(())
}
