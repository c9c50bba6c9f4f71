//! How to run a topology: what can be set, and what holds when it is not.

use std::{fmt, sync::Arc, time::Duration};

use tine_core::{coordination::Coordination, id::TxId, transport::Listen};

use super::{Phase, Progress};

/// How to run a topology. Each setting has a default that suits most.
#[derive(Clone)]
pub struct Options {
    /// Where leadership is decided; without it by the database's exclusive lock.
    pub coordination: Option<Arc<dyn Coordination>>,
    /// Where this process listens for others: with it, all copies that are started with the same coordination share the
    /// work, each with this many emitters and stage tasks and a part of the shards. Without it no port is opened; a copy
    /// stands by until it leads, and then runs everything itself. Needs `coordination`, and the feature `cluster`.
    pub listen: Option<Listen>,
    /// Whether the run ends when everything that the sources hold at its start is committed.
    pub until_end: bool,
    /// How many transactions are under way at once (default 3, at most 32): one is committed while the next ones are processed.
    pub in_flight_max: usize,
    /// The dial between latency and throughput: how long a batch of a backlog takes (default 800 ms), so about how far
    /// apart commits are while one is worked off: larger batches have fewer distinct rows per record. Without a backlog
    /// batches are cut at once and records are committed within milliseconds, whatever this says.
    pub commit_interval: Duration,
    /// The most positions of the sources that one transaction takes: records for Kafka, bytes for files (default: no
    /// limit but time and memory).
    pub batch_units_max: u64,
    /// How long to wait before asking an idle source again (default 3 ms): half of it is what a single record waits on
    /// average, and each look costs the source a question.
    pub poll: Duration,
    /// How many emitters read the sources (default: as many as cores).
    pub emitters: usize,
    /// How many tasks share the work of each level of stages after a repartition (default: half the cores).
    pub stage_tasks: usize,
    /// How long to try to reach database and sources at the start (default 30 s).
    pub start_timeout: Duration,
    /// How long a tuple tree may stay without any report before its attempt is given up (default 120 s).
    pub message_timeout: Duration,
    /// Called after each transaction.
    pub on_progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    /// Called when a transaction enters a phase; the same goes to `tracing` (target `tine::phase`, level debug).
    pub on_phase: Option<Arc<dyn Fn(TxId, Phase) + Send + Sync>>,
    /// For tests: an acker that never tells anyone that a tree is complete. Nothing can commit then.
    pub mute_acker: bool,
}

impl Default for Options {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Options {
            coordination: None,
            listen: None,
            until_end: false,
            in_flight_max: 3,
            commit_interval: Duration::from_millis(800),
            batch_units_max: u64::MAX,
            poll: Duration::from_millis(3),
            emitters: cores,
            stage_tasks: (cores / 2).max(1),
            start_timeout: Duration::from_secs(30),
            message_timeout: Duration::from_secs(120),
            on_progress: None,
            on_phase: None,
            mute_acker: false,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("coordination", &self.coordination.as_ref().map(|coordination| coordination.describe()))
            .field("until_end", &self.until_end)
            .field("in_flight_max", &self.in_flight_max)
            .finish_non_exhaustive()
    }
}
