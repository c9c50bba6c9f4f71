//! The same tests as in `tests/broker`, of the native client.

#![allow(clippy::panic, clippy::print_stderr, reason = "tests say why they fail or are skipped")]

#[path = "../broker/bounds.rs"]
mod bounds;
#[path = "../broker/losses.rs"]
mod losses;
#[path = "../broker/ranges.rs"]
mod ranges;
#[path = "../broker/support.rs"]
mod support;

const CLIENT: tine_kafka::Client = tine_kafka::Client::Native;
