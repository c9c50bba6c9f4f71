//! Partitioned, replayable sources: Trident's partitioned spout contract.
//!
//! A source has two sides. The leader asks its [`Bounds`] how far each partition reaches and fixes *ranges* in a plan;
//! the emitters' [`Reader`] reads exactly these ranges, now and at every replay. Records are lent, chunk by chunk, out
//! of the reader's own buffers: nothing is copied or allocated per record. Both sides may block: they have threads of
//! their own. A connector implements these three traits and nothing else.

pub mod files;

use serde::{Deserialize, Serialize};
use tine_core::failure::Failure;

use crate::plan::{Position, Positions};

/// Which source of a topology, in the order in which they were added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourceIndex(pub u16);

/// A source that can read the same range twice.
pub trait Source: Send + Sync {
    /// A name for messages and plans, without secrets: `kafka topic lines`, `files`.
    fn describe(&self) -> String;

    /// What a position counts, for messages: `position` unless a source has a better word.
    fn unit(&self) -> &'static str {
        "position"
    }

    /// Opens the leader's side. `Transient` errors are tried again, `Fatal` ones (a missing topic) end the start.
    fn bounds(&self) -> Result<Box<dyn Bounds>, Failure>;

    /// Opens a reader; each emitter has its own.
    fn reader(&self) -> Result<Box<dyn Reader>, Failure>;
}

/// What the leader knows of a partition right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionBounds {
    /// Its name, unique in the source and stable for ever: `lines/3`, `access.log`.
    pub partition: String,
    /// What this partition *is* (a Kafka topic id, a file's identity): another one under the same name is another
    /// source, not "position 0 again".
    pub incarnation: String,
    /// The lowest position that can still be read.
    pub low: u64,
    /// The end: everything below it is stable (Kafka's last stable offset) and may be planned.
    pub end: u64,
    /// Where a partition begins that no plan has named before: by the user's choice earliest, latest or a timestamp;
    /// `low` for one that appeared after the first start.
    pub start: u64,
    /// Where the last record below `end` was ended by decree, because the source itself has not ended it (a last line
    /// without newline). It is fixed in the plans made of these bounds; see [`PartitionRange::closed_at`].
    pub closed_at: Option<u64>,
}

/// Whether the source may still grow for this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Horizon {
    /// The run goes on for ever: a last line without its newline may still be growing and is left for later.
    Endless,
    /// The run ends at what is there now: a last line without its newline is a record.
    Now,
}

/// How far a source has been planned, by this run and by those before it.
#[derive(Clone, Copy, Debug)]
pub struct Reached<'p> {
    source: SourceIndex,
    positions: &'p Positions,
}

impl<'p> Reached<'p> {
    /// What `positions` say of `source`.
    pub fn new(source: SourceIndex, positions: &'p Positions) -> Reached<'p> {
        Reached { source, positions }
    }

    /// Of a topology without a plan.
    pub fn nothing() -> Reached<'static> {
        static NOTHING: Positions = Positions::new();
        Reached::new(SourceIndex(0), &NOTHING)
    }

    /// Whether no plan exists yet, of any source: the user's choice of start applies to every partition.
    pub fn is_first(&self) -> bool {
        self.positions.is_empty()
    }

    /// Where the next plan goes on in a partition; `None` for one that no plan has named.
    pub fn position(&self, partition: &str) -> Option<&'p Position> {
        self.positions.get(&(self.source, partition.to_owned()))
    }
}

/// The leader's side of a source.
pub trait Bounds: Send {
    /// The bounds of all partitions, in a stable order. `reached` says how far each has been planned, also by processes
    /// before this one: no `end` may be below that, unless records are gone. When no plan exists yet the user's choice of
    /// start applies to every partition; later, partitions not seen before start at their low mark.
    ///
    /// Errors: `Transient` (service away; asked again with backoff), `Fatal`.
    fn poll(&mut self, horizon: Horizon, reached: &Reached<'_>) -> Result<Vec<PartitionBounds>, Failure>;
}

/// A range of a partition, fixed in a plan: positions `from <= p < to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRange {
    /// The source.
    pub source: SourceIndex,
    /// The partition's name.
    pub partition: String,
    /// Its incarnation when the plan was made.
    pub incarnation: String,
    /// The first position.
    pub from: u64,
    /// The position after the last.
    pub to: u64,
    /// Where the partition's last record was ended by decree when the plan was made, if it was: at `to` or, when the range
    /// was cut short of the bounds, after it. That record ends there at every replay, or the read is an error.
    pub closed_at: Option<u64>,
}

/// One record, lent from the reader's buffer.
#[derive(Clone, Copy, Debug)]
pub struct Record<'b> {
    /// Its position in the partition.
    pub position: u64,
    /// Milliseconds since 1970, as the source says; -1 when it says nothing.
    pub timestamp_ms: i64,
    /// Its key, if it has one.
    pub key: Option<&'b [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'b [u8]>,
    /// Its headers, when the user asked the source for them; otherwise empty.
    pub headers: &'b [(&'b str, Option<&'b [u8]>)],
}

/// The emitters' side of a source.
pub trait Reader: Send {
    /// Reads exactly the records of `range`, in order, and lends them to `sink` in chunks (of some hundreds).
    ///
    /// `Ok` *proves* completeness: the position reached `range.to`, counting control records and gaps, and the
    /// incarnation was still the planned one after that. A short answer of the service is not the end of the range. The
    /// first position lent is `>= from` and every one `< to`. Consecutive ranges of a partition are read without a seek;
    /// any other range after one.
    ///
    /// Stops early when the sink says so, with the sink's failure. Asks `sink.cancelled()` at least every 100 ms while
    /// it waits, and then returns `Superseded`. Errors: `Transient`; `Fatal` when the records are gone (with the range),
    /// or the incarnation is another.
    fn read(&mut self, range: &PartitionRange, sink: &mut dyn Sink) -> Result<(), Failure>;
}

/// Where a reader puts what it reads.
pub trait Sink {
    /// Takes a chunk of records of the partition being read.
    fn records(&mut self, chunk: &[Record<'_>]) -> Result<(), Failure>;

    /// Whether nobody wants this range any more.
    fn cancelled(&self) -> bool;
}
