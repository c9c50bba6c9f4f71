//! What strangers can send to tine, judged for any bytes: no panic, no memory beyond a bound, nothing that contradicts itself.
//!
//! Each module has a function `judge`, which panics when a rule is broken; `fuzz_targets` hands libFuzzer's inputs to it. It is an
//! ordinary library so that stable Rust builds it, and `tests/seeds.rs` judges the seeds and what lies near them.
//!
//! - [`responses`]: a broker's answers
//! - [`record_sets`]: record batches, compressed or not
//! - [`frames`]: what another worker says: frames, greetings, and what frames hold
//! - [`memory`]: how much was set aside meanwhile
//!
//! The code under test is private to its packages; it is compiled in here as it stands there.

pub mod frames;
pub mod memory;
pub mod record_sets;
pub mod responses;

#[allow(dead_code, reason = "the modules as their packages have them")]
mod wire;

#[allow(dead_code, unreachable_pub, reason = "the module as the connector has it")]
#[path = "../../connectors/kafka/src/records/mod.rs"]
mod records;

#[allow(dead_code, reason = "the module as the transport has it")]
#[path = "../../core/src/transport/grpc/hello.rs"]
mod hello;

#[allow(dead_code, reason = "the module as the transport has it")]
#[path = "../../core/src/transport/grpc/codec.rs"]
mod grpc;

// Where those modules look for these.
use tine_core::{codec, hash, id, transport};
