//! Tuples between tasks, delivered at least once.

pub mod codec;
pub mod coordination;
pub mod failure;
pub mod hash;
pub mod id;
pub mod mutant;
