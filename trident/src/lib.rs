//! Micro-batches with transaction ids.

pub mod committer;
pub mod coordinator;
pub mod emitter;
pub mod input;
pub mod message;
pub mod pipeline;
pub mod plan;
pub mod run;
pub mod source;
pub mod tracker;
