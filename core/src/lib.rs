//! Tuples between tasks, delivered at least once: Storm's core, in its smallest form.
//!
//! A *spout* starts tuple trees, *bolts* pass them on, the *acker* knows when a tree is complete and tells the spout.
//! Spouts, bolts, tasks and the acker are pure state machines: they are told what happened and answer with what to do.
//! [`runtime`] performs that with tokio; the simulator performs it in virtual time.
//!
//! [`topology`] is what users put spouts and bolts together with, and [`engine`] runs that: tuple by tuple, within a millisecond, at
//! least once. Trident stands on the pure machines of [`task`].
//!
//! Read in this order: [`id`] and [`failure`] (the vocabulary), [`tuple`], [`task`], [`acker`], then [`runtime`].
//! [`coordination`] is the contract for leadership, [`membership`] says which worker runs which tasks, [`transport`] is the
//! contract for tuples between workers; [`hash`] and [`codec`] are the durable encodings.

pub mod acker;
pub mod cluster;
pub mod codec;
pub mod component;
pub mod coordination;
pub mod engine;
pub mod failure;
pub mod hash;
pub mod id;
pub mod membership;
pub mod metrics;
pub mod mutant;
pub mod runtime;
pub mod task;
pub mod topology;
pub mod transport;
pub mod trees;
pub mod tuple;
