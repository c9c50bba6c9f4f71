//! The seam between the fluent API and the machines below it: typed rows above, erased ones below.
//!
//! The fluent API compiles a topology into [`Built`]: for each source a factory of [`Pipeline`]s (decode, the fused
//! operators up to the first repartition, pre-aggregation), for each repartition in the middle a factory of
//! [`Exchange`]s (combine what was sent, run the stages after it), for each state a [`Fold`] (merge what was sent, check
//! it, digest it, lay it out in columns). Rows are erased once per chunk, never per record.

use std::{any::Any, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use tine_core::{failure::Failure, id::Shard};
use tine_state::{Database, Digest, GroupSpec, StateIndex, TableRows};

use crate::{
    packed::Packed,
    source::{Record, Source},
};

/// Where rows of a transaction go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    /// To the committers, for a state.
    State(StateIndex),
    /// To the stage tasks, for an exchange.
    Exchange(ExchangeIndex),
}

/// Chunks of rows, each with where it goes.
pub type Targeted = Vec<(Target, Box<dyn Rows>)>;

/// A repartition in the middle of a topology, by its place in [`Built::exchanges`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExchangeIndex(pub u16);

/// A chunk of rows for one target, on its way between tasks. Each row knows the stable hash of its key.
pub trait Rows: Any + fmt::Debug + Send + Sync {
    /// How many rows.
    fn count(&self) -> usize;

    /// Parts them among tasks: `owner[shard]` is the task's index, below `tasks`; a row's shard is that of its hash among
    /// as many as there are owners. Answers with one chunk per task.
    fn split(self: Box<Self>, owner: &[usize], tasks: usize) -> Vec<Box<dyn Rows>>;

    /// The same as chunks, of which a task may get several.
    fn parts(self: Box<Self>, owner: &[usize], tasks: usize) -> Vec<Vec<Box<dyn Rows>>> {
        self.split(owner, tasks).into_iter().map(|part| vec![part]).collect()
    }

    /// As bytes for tasks of another process, in chunks that each fit into a frame. Errors: `Poison` for a row that does not
    /// fit into one.
    fn pack(&self) -> Result<Vec<Packed>, Failure> {
        Err(Failure::fatal(format!("{self:?} cannot leave its process")))
    }

    /// A copy; messages may be sent to several tasks or, in the simulator, twice.
    fn boxed_clone(&self) -> Box<dyn Rows>;

    /// Keys with what is held for them, for people.
    fn shown(&self) -> Vec<String> {
        vec![format!("{self:?}")]
    }

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

    /// From now on somebody sees what each operator makes.
    fn observe(&mut self, _witness: &Arc<dyn Witness>) {}
}

/// A keyed stream that is repartitioned, and the stages after it, with the memory of one batch. One per stage task.
pub trait Exchange: Send {
    /// Combines the chunks of one transaction (this task's share of the keys), runs the stages on what comes out, and
    /// answers with the rows for what they feed. The outcome does not depend on how rows were cut into `parts`.
    ///
    /// `go_on` is asked now and then and ends the work when it says no. Errors: `Poison` with the operator's name, its
    /// place and the key; nothing panics. After an error the memory is empty.
    fn run(&mut self, parts: Vec<Box<dyn Rows>>, go_on: GoOn<'_>) -> Result<Targeted, Failure>;

    /// From now on somebody sees what each operator makes.
    fn observe(&mut self, _witness: &Arc<dyn Witness>) {}
}

/// Sees what each operator makes of a chunk, for whoever compares one run with another; nobody looks in production.
pub trait Witness: Send + Sync {
    /// An operator of a stage has made these rows.
    fn made(&self, operator: Operator<'_>, rows: Vec<String>);
}

/// An operator of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operator<'a> {
    /// Its stage, such as ``stage 1 after source 1 `files` ``.
    pub place: &'a str,
    /// Its place among the operators of its stage, from 1.
    pub number: usize,
    /// The method's name.
    pub name: &'a str,
    /// Whether it is the aggregate that ends the stage, which makes its rows when a batch ends.
    pub ends: bool,
}

/// Asked by work that takes long: says that it goes on, or why it is to end.
pub type GoOn<'a> = &'a dyn Fn() -> Result<(), Failure>;

/// Makes an exchange for each stage task.
pub type ExchangeFactory = Arc<dyn Fn() -> Box<dyn Exchange> + Send + Sync>;

/// An exchange of a built topology.
#[derive(Clone)]
pub struct BuiltExchange {
    /// How many exchanges lie between it and the source: the row of stage tasks that runs it.
    pub level: usize,
    /// What runs there.
    pub exchange: ExchangeFactory,
}

impl fmt::Debug for BuiltExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuiltExchange(level {})", self.level)
    }
}

/// What a pipeline made of its part of a batch.
#[derive(Debug, Default)]
pub struct BatchRows {
    /// Rows by target; one may be missing when nothing fell into it.
    pub rows: Targeted,
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
    /// Its repartitions in the middle, by [`ExchangeIndex`].
    pub exchanges: Vec<BuiltExchange>,
    /// How rows are merged, by [`StateIndex`].
    pub folds: Vec<Arc<dyn Fold>>,
}

impl Built {
    /// How many rows of stage tasks lie between emitters and committers.
    pub fn levels(&self) -> usize {
        self.exchanges.iter().map(|exchange| exchange.level + 1).max().unwrap_or(0)
    }
}

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Built")
            .field("group", &self.group)
            .field("sources", &self.sources)
            .field("exchanges", &self.exchanges)
            .finish_non_exhaustive()
    }
}
