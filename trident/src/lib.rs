//! Micro-batches with transaction ids.

pub mod input;
pub mod source;
