//! Models of marking beside the program: the barrier against the marker, the scan of each thread's roots, the handshake, and
//! what comes out of weak references and the due queue meanwhile.
//!
//! The scheduler, the turn to scan a seat's roots, the barrier's buffer and the credit are the code's; what a mutator and
//! the leader do with them is told again here, in the order of `barrier.rs`, `collect.rs`, `stores.rs` and
//! `cycle/beside.rs`. The heap is a handful of objects of one slot each. The leader is the main thread, which has attached
//! and blocked before: its seat holds the roots of two tables.
//!
//! What is checked: a thread that runs has no grey roots, and nobody else looks at them; each seat that a cycle greys is
//! scanned at most once; after a handshake nobody runs on what he has seen before it; when a cycle ends, all that is reachable
//! is marked.

#![cfg(loom)]

mod barrier;
mod handshake;
mod specials;
mod toy;
