//! What the micro-batch layer says over core's tuples, and what acks carry back.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tine_core::{
    id::{Attempt, TxId},
    tuple::Flow,
};
use tine_state::{Chain, Digest, Location, Manifest, ShardRef, TransactionRow};

use crate::{
    pipeline::{Rows, Target},
    plan::Plan,
};

/// The types of the micro-batch layer.
#[derive(Clone, Debug)]
pub enum Batches {}

impl Flow for Batches {
    type Message = Message;
    type Note = Note;
    type Id = Tree;
}

/// A message between the coordinator, emitters, stage tasks and committers. Each belongs to an attempt; older ones are
/// ignored.
///
/// Its grammar, per sender, receiver and attempt of a transaction: `Rows* End`.
#[derive(Clone, Debug)]
pub enum Message {
    /// Coordinator to emitters: read the ranges of this plan.
    Emit {
        /// The attempt.
        attempt: Attempt,
        /// What to read.
        plan: Arc<Plan>,
    },
    /// Emitter or stage task to stage task or committer: some rows of a transaction.
    Rows {
        /// The attempt.
        attempt: Attempt,
        /// The transaction.
        txid: TxId,
        /// 0, 1, 2 … per sender, receiver, attempt and transaction.
        chunk: u64,
        /// What they are for.
        target: Target,
        /// The rows.
        rows: Box<dyn Rows>,
    },
    /// From whoever may send rows, to whom it may send them: that was all.
    End {
        /// The attempt.
        attempt: Attempt,
        /// The transaction.
        txid: TxId,
        /// How many chunks were sent to this task.
        chunks: u64,
        /// How many rows were in them.
        rows: u64,
    },
    /// Coordinator to committers: commit.
    Commit(Arc<CommitCommand>),
}

/// What committers need to commit a transaction that is processed everywhere.
#[derive(Clone, Debug)]
pub struct CommitCommand {
    /// The attempt.
    pub attempt: Attempt,
    /// The transaction.
    pub txid: TxId,
    /// The chain before it.
    pub previous: Chain,
    /// The chain up to it.
    pub chain: Chain,
    /// The hash over all shards' digests.
    pub manifest: Manifest,
    /// What a connection must be able to see before it writes.
    pub location: Location,
    /// The transaction's row, when it is committed together with the data instead of being prepared beforehand.
    pub plan: Option<Arc<TransactionRow>>,
}

/// What an ack carries to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// From an emitter: what it read.
    Read(ReadCounts),
    /// From a committer: what the transaction does to its shards (those without rows are left out).
    Digests {
        /// The digests.
        digests: Vec<(ShardRef, Digest)>,
        /// How many distinct rows go to the database.
        rows: u64,
    },
    /// From a committer: its shards are committed.
    Committed,
}

/// What an emitter read for a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadCounts {
    /// Records.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Records left out by policy.
    pub skipped: u64,
    /// Records that became dead letters.
    pub dead_letters: u64,
}

impl std::ops::AddAssign for ReadCounts {
    fn add_assign(&mut self, other: ReadCounts) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.skipped += other.skipped;
        self.dead_letters += other.dead_letters;
    }
}

/// The two tuple trees of a transaction's attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// Read, process, hand over to the committers, through the stage tasks if there are any.
    Process(Attempt, TxId),
    /// Commit.
    Commit(Attempt, TxId),
}

impl Tree {
    /// The attempt it belongs to.
    pub fn attempt(self) -> Attempt {
        match self {
            Tree::Process(attempt, _) | Tree::Commit(attempt, _) => attempt,
        }
    }
}
