//! Applying a batch twice is the same as applying it once: the ledger's rules, and the procedures that keep them.
//!
//! A *state* is a table of the user's; its key space is cut into *shards*, and each shard has a row in the *ledger*
//! beside the table, moved in the same SQL transaction as the data. What a transaction may do is decided by pure
//! procedures ([`Committer`], [`Raise`], [`Prepare`]): each is told what the database answered and says which
//! [`Statement`] comes next. A connector executes statements and knows nothing of the rules; the simulator drives the
//! same procedures over a database of its own.
//!
//! Read in this order: [`ledger`] (the nouns), [`table`] (what is merged), [`statement`] (what a connector executes),
//! then the three procedures.

pub mod committer;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod handle;
pub mod ident;
pub mod ledger;
pub mod prepare;
pub mod procedure;
pub mod raise;
pub mod statement;
pub mod table;

pub use committer::{CommitOrder, CommitOutcome, Committer};
pub use handle::Table;
pub use ident::{Ident, IdentError};
pub use ledger::{
    Chain, Digest, GroupRow, GroupSpec, LedgerRow, Location, Manifest, ShardRef, Snapshot, StateIndex, StateSpec,
    TransactionRow,
};
pub use prepare::{Prepare, PrepareOutcome};
pub use procedure::{Database, Lock, Procedure, Session, Step, run};
pub use raise::{Raise, RaiseOutcome};
pub use statement::{Advance, Reply, Statement};
pub use table::{Column, ColumnType, Combine, KeyColumn, Merge, TableRows, TableSpec, ValueColumn};
