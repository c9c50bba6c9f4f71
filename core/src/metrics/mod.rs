//! Figures of a running topology: counters per task and stream, latencies as histograms.
//!
//! A task counts for itself and publishes now and then with plain stores, so counting costs next to nothing.

mod meter;
#[cfg(feature = "prometheus")]
mod text;

pub use self::meter::{Latency, StreamFigures, TaskFigures};
pub(crate) use self::meter::{StreamMeter, TaskMeter};
#[cfg(feature = "prometheus")]
pub use self::text::{MetricsServer, ServeError, serve, serve_openly, to_text};
