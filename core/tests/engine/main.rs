//! The tuple engine, as its users see it: delivery, groupings, failures, flow control, life cycle, build errors.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

#[cfg(feature = "cluster")]
mod adversity;
#[cfg(feature = "cluster")]
mod cluster;
mod delivery;
mod failures;
mod flow;
mod lifecycle;
#[cfg(feature = "cluster")]
mod proxy;
#[cfg(feature = "cluster")]
mod registry;
#[cfg(feature = "cluster")]
mod scene;
mod support;
mod wiring;
