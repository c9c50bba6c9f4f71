//! Micro-batches with transaction ids.

pub mod aggregate;
pub mod columns;
pub mod committer;
pub mod coordinator;
pub mod dead_letters;
pub mod emitter;
mod exchange;
mod fold;
pub mod input;
pub mod key;
pub mod message;
pub mod outlet;
pub mod packed;
pub mod pipeline;
pub mod placement;
pub mod plan;
pub mod run;
pub mod source;
pub mod stage;
pub mod stage_bolt;
pub mod stream;
pub mod topology;
pub mod tracker;
pub mod wire;
