//! The two clients against each other and against what was produced, on real brokers of their own.
//!
//! `random` makes a thousand topics with everything a log can hold; `leaders` moves leaders between two brokers while
//! records are written and read; `listeners` logs in with TLS and SASL. `brokers` and `writers` make what is read,
//! `both` reads and compares.

#![allow(clippy::panic, clippy::print_stderr, reason = "tests say why they fail or are skipped")]

mod both;
mod brokers;
mod leaders;
mod listeners;
mod random;
mod writers;
