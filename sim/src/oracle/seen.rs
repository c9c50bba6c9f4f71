//! What a reader sees when a transaction is complete, and the records that it stands for.

use std::collections::BTreeMap;

use tine_core::id::TxId;
use tine_state::Merge;
use tine_trident::plan::Plan;

use crate::{
    source::SimSource,
    sql::table::{Cells, Change, SimTable},
};

/// The tables when a transaction has just been committed everywhere.
#[derive(Debug)]
pub struct Seen<'a> {
    pub(crate) txid: TxId,
    pub(crate) states: &'a [String],
    pub(crate) tables: &'a [SimTable],
    /// What the transaction did, by state.
    pub(crate) changes: &'a [Change],
    pub(crate) plan: &'a Plan,
    pub(crate) sources: &'a [SimSource],
}

/// A row that the transaction has changed.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'a> {
    /// Its key columns.
    pub key: &'a Cells,
    /// Its value columns before; `None` when it is new.
    pub before: Option<&'a Cells>,
    /// Its value columns now.
    pub after: &'a Cells,
}

/// A record that is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its partition.
    pub partition: String,
    /// Its place there.
    pub position: u64,
    /// Its key, if its source has keys.
    pub key: Option<String>,
    /// Its value.
    pub value: String,
}

impl<'a> Seen<'a> {
    /// The transaction.
    pub fn txid(&self) -> u64 {
        self.txid.0
    }

    fn index(&self, state: &str) -> Result<usize, String> {
        let found = self.states.iter().position(|name| name == state);
        found.ok_or_else(|| unknown_state(state, self.states))
    }

    /// A table: value columns by key columns. An error that names the tables if there is none of this name.
    pub fn table(&self, state: &str) -> Result<&'a BTreeMap<Cells, Cells>, String> {
        Ok(&self.tables[self.index(state)?].rows)
    }

    pub(crate) fn merges(&self, state: &str) -> Result<Vec<Merge>, String> {
        let spec = &self.tables[self.index(state)?].spec;
        Ok(spec.values.iter().map(|column| column.merge).collect())
    }

    /// The rows of a table that the transaction has changed.
    pub fn changed(&self, state: &str) -> Result<Vec<Changed<'a>>, String> {
        let index = self.index(state)?;
        let of_state = self.changes.iter().filter(|change| usize::from(change.state.0) == index);
        Ok(of_state
            .map(|change| Changed { key: &change.key, before: change.before.as_ref(), after: &change.after })
            .collect())
    }

    /// All the records that the tables stand for: those of this transaction and all before it, partition by partition, in
    /// order.
    pub fn records(&self) -> Vec<Committed> {
        self.within(|_| 0)
    }

    /// The records of this transaction alone.
    pub fn new_records(&self) -> Vec<Committed> {
        self.within(|from| from)
    }

    fn within(&self, from: impl Fn(u64) -> u64) -> Vec<Committed> {
        let mut records = Vec::new();
        for range in &self.plan.ranges {
            let Some(source) = self.sources.get(usize::from(range.source.0)) else { continue };
            let log = source.log();
            let Some(partition) = log.partitions.iter().find(|partition| partition.name == range.partition) else {
                continue;
            };
            let first = from(range.from);
            let within = partition.records.iter().filter(|record| (first..range.to).contains(&record.position));
            records.extend(within.map(|record| Committed {
                partition: range.partition.clone(),
                position: record.position,
                key: record.key.as_deref().map(str::to_owned),
                value: record.value.to_string(),
            }));
        }
        records
    }
}

/// An expectation of a state that is not there.
pub(crate) fn unknown_state(state: &str, states: &[String]) -> String {
    format!("there is no table {state:?}; there are {}", states.join(", "))
}
