//! Micro-batches with transaction ids.

pub mod input;
pub mod pipeline;
pub mod source;
