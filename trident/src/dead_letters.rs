//! Dead letters: records that a policy left out, kept as rows of a state like any other.
//!
//! They are written in the same SQL transaction as everything else of their batch, exactly once, into
//! `tine_dead_letters (topology, partition, position, reason, record)`, which all topologies of a database share. The
//! state is cut into shards by source partition. Every topology has it, whatever its policies are: a policy is what one
//! changes after a halt, and databases refuse a group with one state more or less than before.

use std::sync::Arc;

use tine_core::{
    failure::Failure,
    hash::hash64,
    mutant::{self, Mutant},
};
use tine_state::{ColumnType, Ident, KeyColumn, Merge, StateIndex, StateSpec, TableSpec, ValueColumn};

use crate::{
    aggregate::Combiner,
    fold::{Batch, BatchRow, Output, TypedOutput},
    pipeline,
    source::Record,
};

/// The name of the state and of its table.
pub const NAME: &str = "tine_dead_letters";

/// Into how many shards dead letters are cut: few, because each costs a ledger row per commit.
pub const SHARDS: u16 = 4;

/// Longer reasons are cut: a user's error may print a whole record.
const REASON_CHARS_MAX: usize = 1000;

/// Topology, partition, position.
type Key = (String, String, i64);
/// Reason, record.
type Letter = (String, Vec<u8>);

/// One letter per record. (Two sources with a partition of the same name could bring two: the larger one stays.)
#[derive(Clone, Debug)]
struct OneLetter;

impl Combiner for OneLetter {
    type Input = Letter;
    type Held = Letter;
    type Value = Letter;

    fn lift(&self, letter: Letter) -> Letter {
        letter
    }

    fn combine(&self, held: &mut Letter, other: Letter) {
        if *held < other {
            *held = other;
        }
    }

    fn store(&self, held: Letter) -> Result<Letter, String> {
        Ok(held)
    }

    fn load(&self, stored: Letter) -> Result<Letter, String> {
        Ok(stored)
    }

    fn merges(&self) -> Option<Vec<Merge>> {
        Some(vec![Merge::Replace; 2])
    }
}

/// How dead letters are merged.
pub(crate) fn output() -> Arc<dyn Output> {
    Arc::new(TypedOutput::<Key, OneLetter>::new(OneLetter))
}

/// The state, in the schema of the topology's first table.
pub(crate) fn spec(schema: Option<Ident>) -> StateSpec {
    let name = |name| Ident::new(name).expect("a plain name");
    let key = |column, kind| KeyColumn { name: name(column), kind };
    let value = |column, kind| ValueColumn { name: name(column), kind, merge: Merge::Replace };
    StateSpec {
        name: NAME.to_string(),
        shards: SHARDS,
        table: TableSpec {
            schema,
            name: name(NAME),
            keys: vec![
                key("topology", ColumnType::Text),
                key("partition", ColumnType::Text),
                key("position", ColumnType::BigInt),
            ],
            values: vec![value("reason", ColumnType::Text), value("record", ColumnType::Bytes)],
            adopt: true,
            shared: true,
        },
    }
}

/// The dead letters of one emitter's part of a batch.
pub(crate) struct DeadLetters {
    topology: String,
    pub(crate) state: StateIndex,
    rows: Vec<BatchRow<Key, Letter>>,
}

impl DeadLetters {
    pub(crate) fn new(topology: &str, state: StateIndex) -> DeadLetters {
        DeadLetters { topology: topology.to_string(), state, rows: Vec::new() }
    }

    /// Adds a record; a null value becomes an empty one.
    pub(crate) fn add(&mut self, partition: &str, record: &Record<'_>, reason: &str) -> Result<(), Failure> {
        let position = i64::try_from(record.position)
            .map_err(|_| Failure::fatal(format!("{partition} position {}: beyond 63 bits", record.position)))?;
        let reason = reason.chars().map(|c| if c == '\0' { '\u{fffd}' } else { c }).take(REASON_CHARS_MAX).collect();
        self.rows.push(BatchRow {
            hash: hash64(partition.as_bytes()),
            key: (self.topology.clone(), partition.to_string(), position),
            held: (reason, record.value.unwrap_or_default().to_vec()),
        });
        Ok(())
    }

    /// Ends the batch.
    pub(crate) fn take(&mut self) -> Option<Box<dyn pipeline::Rows>> {
        match self.rows.is_empty() {
            true => None,
            false => Some(Box::new(Batch { rows: std::mem::take(&mut self.rows) })),
        }
    }

    /// Forgets those of a batch part that was not read to its end.
    pub(crate) fn clear(&mut self) {
        if !mutant::on(Mutant::DeadLetterOutsideOrder) {
            self.rows.clear();
        }
    }
}
