//! The tuple engine, as its users see it: delivery, groupings, failures, flow control, life cycle, build errors.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod delivery;
mod failures;
mod flow;
mod lifecycle;
mod support;
mod wiring;
