//! Models of the scheduler: stops, threads that come and go during them, and the hand-over of Ps.
//!
//! What is checked, in each: a thread that believes to be Running touches `world` as a sharer, its P and its seat
//! alone; who has stopped the world touches everything alone. So a thread that runs in a stopped world is a race,
//! and so are two threads with one P or one seat. What never ends is a deadlock, or a loop without end.

#![cfg(loom)]

mod actions;
mod fork;
mod ps;
mod stops;
mod toy;
