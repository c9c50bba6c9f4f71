//! What a connector executes: the statements of the protocol, and the database's answers.
//!
//! A connector implements [`Session::execute`](crate::Session::execute) for each of them and decides nothing.

use std::sync::Arc;

use tine_core::id::{Attempt, TxId};

use crate::{
    Chain, Column, GroupRow, LedgerRow, Location, Manifest, ShardRef, Snapshot, StateIndex, TableRows, TransactionRow,
};

/// One step of a SQL transaction on one connection.
#[derive(Clone, Debug)]
pub enum Statement {
    /// Starts a transaction (READ COMMITTED; SQLite: `BEGIN IMMEDIATE`), on a new connection if the old one is gone.
    /// With a location, the connection is first checked against it: a mismatch fails with `Behind`.
    Begin(Option<Location>),
    /// Locks and reads the group's row. Answer: [`Reply::Group`].
    LockGroup,
    /// Locks and reads ledger rows in (state, shard) order: these, or all of the group. Waits for whoever holds
    /// them. Answer: [`Reply::Rows`], with absent rows left out.
    LockRows(Option<Arc<[ShardRef]>>),
    /// Reads the stored values of some keys. Answer: [`Reply::Loaded`].
    Load(StateIndex, Arc<TableRows>),
    /// Compare-and-set of ledger rows and, if *all* of them matched, the merge of the tables. Answer: [`Reply::Advanced`].
    Advance(Arc<Advance>),
    /// Writes the fence into the group's row and all its ledger rows. Answer: [`Reply::Written`] with the ledger rows.
    WriteFence(Attempt),
    /// Writes a transaction's row over an older one of the same txid, deletes those above it, and trims history (keeps
    /// an hour or 1,000, whichever is more). Answer: [`Reply::Written`].
    WritePlan(Arc<TransactionRow>),
    /// Commits. A lost connection here is `Unknown`, anywhere else `Transient`. Answer: [`Reply::Done`].
    Commit,
    /// Rolls back; never fails in a way that matters. Answer: [`Reply::Done`].
    Rollback,
    /// Reads everything in one snapshot, outside a transaction. Answer: [`Reply::Snapshot`].
    Read,
}

/// A compare-and-set of ledger rows together with the data that they stand for.
#[derive(Clone, Debug)]
pub struct Advance {
    /// The fence that the rows must carry, and the attempt written beside the txid.
    pub attempt: Attempt,
    /// The transaction: rows must be at the one before it.
    pub txid: TxId,
    /// The chain that the rows must carry.
    pub previous: Chain,
    /// The chain to write.
    pub chain: Chain,
    /// The manifest to write.
    pub manifest: Manifest,
    /// The rows to move.
    pub shards: Arc<[ShardRef]>,
    /// What to merge; tables without rows are left out.
    pub tables: Vec<(StateIndex, Arc<TableRows>)>,
}

impl Advance {
    /// How many rows the merge must report.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|(_, rows)| rows.len() as u64).sum()
    }
}

/// The database's answer.
#[derive(Clone, Debug)]
pub enum Reply {
    /// It was done.
    Done,
    /// The group's row, if there is one.
    Group(Option<GroupRow>),
    /// Ledger rows, in (state, shard) order.
    Rows(Vec<LedgerRow>),
    /// Stored values: for each key asked for, whether it was there; value columns with a placeholder where it was not.
    Loaded {
        /// Whether the key was there, in the order asked.
        present: Vec<bool>,
        /// The value columns, in the order asked.
        values: Vec<Column>,
    },
    /// How many ledger rows matched and moved, and how many data rows were merged (0 unless all ledger rows matched).
    Advanced {
        /// Ledger rows moved.
        moved: u64,
        /// Data rows inserted or updated.
        merged: u64,
    },
    /// How many rows were written.
    Written(u64),
    /// Everything.
    Snapshot(Box<Snapshot>),
}
