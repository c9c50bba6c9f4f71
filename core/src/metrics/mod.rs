//! Figures of a running topology: counters per task and stream, latencies as histograms.
//!
//! A task counts for itself and publishes now and then with plain stores, so counting costs next to nothing.

mod meter;

pub use self::meter::{Latency, StreamFigures, TaskFigures};
pub(crate) use self::meter::{StreamMeter, TaskMeter};
