//! The seam between the fluent API and the machines below it: typed rows above, erased ones below.
//!
//! The fluent API compiles a topology into [`Built`]: for each source a factory of [`Pipeline`]s (decode, the fused
//! operators up to the first repartition, pre-aggregation), for each state a [`Fold`] (merge what the pipelines sent,
//! check it, digest it, lay it out in columns). Rows are erased once per chunk, never per record.

use std::{any::Any, fmt, sync::Arc};

use tine_core::{failure::Failure, id::Shard};
use tine_state::{Database, Digest, GroupSpec, StateIndex, TableRows};

use crate::source::{Record, Source};

/// A chunk of rows for one state, on its way from an emitter to committers. Each row knows its shard.
pub trait Rows: Any + fmt::Debug + Send + Sync {
    /// How many rows.
    fn count(&self) -> usize;

    /// Parts them among tasks: `owner[shard]` is the task's index, below `tasks`. Answers with one chunk per task.
    fn split(self: Box<Self>, owner: &[usize], tasks: usize) -> Vec<Box<dyn Rows>>;

    /// A copy; messages may be sent to several tasks or, in the simulator, twice.
    fn boxed_clone(&self) -> Box<dyn Rows>;

    /// For the fold, which knows the type.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

impl Clone for Box<dyn Rows> {
    fn clone(&self) -> Self {
        (**self).boxed_clone()
    }
}

/// What one transaction does to the owned shards of one state.
#[derive(Clone, Debug)]
pub struct Folded {
    /// Distinct keys, sorted by their bytes, with their shards.
    pub rows: TableRows,
    /// The digest of each shard that got rows, in shard order.
    pub digests: Vec<(Shard, Digest)>,
}

/// Merges the chunks of one transaction for one state.
pub trait Fold: fmt::Debug + Send + Sync {
    /// Merges, checks and digests. The outcome does not depend on the order of `parts`. Errors: `Poison` with the
    /// operator's name and the key, for what a column cannot hold and for a delta that overflows.
    fn fold(&self, parts: Vec<Box<dyn Rows>>) -> Result<Folded, Failure>;
}

/// The operators of one source up to the first repartition, with the memory of one batch. One per emitter.
pub trait Pipeline: Send {
    /// Takes a chunk of records, in order. `Poison` names operator, partition and position; nothing panics, a panic of
    /// a user's function included.
    fn records(&mut self, partition: &str, chunk: &[Record<'_>]) -> Result<(), Failure>;

    /// Ends the batch: the pre-aggregated rows for each state, and an empty memory for the next.
    fn finish(&mut self) -> Result<BatchRows, Failure>;

    /// Forgets what a batch left behind that was cut short.
    fn reset(&mut self);
}

/// What a pipeline made of its part of a batch.
#[derive(Debug, Default)]
pub struct BatchRows {
    /// Rows for states; a state may be missing when nothing fell into it.
    pub rows: Vec<(StateIndex, Box<dyn Rows>)>,
    /// How many records were read.
    pub records: u64,
    /// How many bytes of record values.
    pub bytes: u64,
    /// How many records the policies left out.
    pub skipped: u64,
    /// How many records became dead letters.
    pub dead_letters: u64,
}

impl BatchRows {
    /// Takes in what another pipeline made of its part of the same batch.
    pub fn absorb(&mut self, other: BatchRows) {
        self.rows.extend(other.rows);
        self.records += other.records;
        self.bytes += other.bytes;
        self.skipped += other.skipped;
        self.dead_letters += other.dead_letters;
    }
}

/// Makes a pipeline for each emitter.
pub type PipelineFactory = Arc<dyn Fn() -> Box<dyn Pipeline> + Send + Sync>;

/// A source of a built topology.
#[derive(Clone)]
pub struct BuiltSource {
    /// The source.
    pub source: Arc<dyn Source>,
    /// Its operators.
    pub pipeline: PipelineFactory,
}

impl fmt::Debug for BuiltSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuiltSource({})", self.source.describe())
    }
}

/// A topology, checked and compiled: what runs.
#[derive(Clone)]
pub struct Built {
    /// Its states, their tables, its fingerprint. One batch group holds the whole topology.
    pub group: GroupSpec,
    /// The database that all its states live in.
    pub database: Arc<dyn Database>,
    /// Its sources, by [`SourceIndex`](crate::source::SourceIndex).
    pub sources: Vec<BuiltSource>,
    /// How rows are merged, by [`StateIndex`].
    pub folds: Vec<Arc<dyn Fold>>,
}

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Built").field("group", &self.group).field("sources", &self.sources).finish_non_exhaustive()
    }
}
