//! The connector against a real broker, whose address `TINE_TEST_KAFKA` (host:port) gives.

#![allow(clippy::panic, clippy::print_stderr, reason = "tests say why they fail or are skipped")]

mod bounds;
mod losses;
mod ranges;
mod support;
