//! What the coordinator asks of the outside world, and what it is told.

use std::sync::Arc;

use tine_core::{
    coordination::{Claim, GroupRecord},
    failure::Failure,
    id::{Attempt, Nonce, TxId},
};
use tine_state::{Location, PrepareOutcome, RaiseOutcome, ShardRef, TransactionRow};

use crate::{
    message::ReadCounts,
    plan::Positions,
    source::{Horizon, PartitionBounds},
};

/// What never changes while a topology runs.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Every shard of every state, in (state, shard) order.
    pub shards: Arc<[ShardRef]>,
    /// How many committers share them; 0 when that is said later, by [`Reply::Owners`], and nothing begins before.
    pub committers: usize,
    /// How commits become whole.
    pub mode: CommitMode,
    /// Whether the run ends at what the sources hold at its start.
    pub horizon: Horizon,
    /// How many transactions are under way at once.
    pub in_flight_max: usize,
    /// How long a batch may take to process, in milliseconds: the coordinator cuts plans so that it takes about this
    /// long when there is a backlog.
    pub batch_ms: u64,
    /// The most positions of the sources that one transaction takes.
    pub batch_units_max: u64,
    /// How long to wait before asking an idle source again, in milliseconds.
    pub poll_ms: u64,
    /// How long a leader with nothing to do goes without looking at the ledger, in milliseconds: a database that has lost its
    /// last transactions says so only when it is asked.
    pub look_back_ms: u64,
    /// How often in a row a poisoned batch is tried again before the group halts.
    pub poison_retries: u32,
}

/// How commits become whole. Fixed per topology run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitMode {
    /// One committer, one SQL transaction for all shards and the plan: nothing is prepared beforehand.
    Whole,
    /// Plans are written to coordination and prepared in the database before the first commit.
    Prepared,
}

/// What the coordinator asks for. The driver performs calls to one service (coordination, the leader's database
/// session, the sources) in the order in which they were made.
#[derive(Debug)]
pub enum Call {
    /// Become the leader; whatever leadership was held before is given back first.
    Campaign,
    /// Write the claim to coordination.
    Claim(Claim),
    /// Write a plan to coordination.
    WritePlan {
        /// Which.
        txid: TxId,
        /// The attempt that writes it, for the reply.
        attempt: Attempt,
        /// Its durable form.
        plan: Arc<[u8]>,
    },
    /// Delete plans from coordination: this one and all above.
    ForgetFrom(TxId),
    /// Note in coordination that everything up to here is complete.
    Complete(TxId),
    /// Raise the fence.
    Raise(Attempt),
    /// Prepare a transaction in the database.
    Prepare {
        /// Its row.
        row: Arc<TransactionRow>,
        /// What the connection must be able to see.
        location: Location,
    },
    /// Ask all sources for their bounds.
    Bounds {
        /// The attempt that asks, for the reply.
        attempt: Attempt,
        /// How far they have been planned.
        positions: Arc<Positions>,
    },
    /// Say `Woke` after this many milliseconds. Several may be under way.
    Wake {
        /// After how long.
        after_ms: u64,
    },
    /// Tell whoever watches: a transaction has entered a phase.
    Entered(TxId, Phase),
    /// Tell whoever watches: a transaction is complete.
    Progress(Progress),
    /// Tell a person; the run goes on.
    Warn(String),
    /// Nothing is under way, as `Drain` asked for.
    Drained,
    /// The run is over.
    Finish(Result<(), Failure>),
}

/// The phases of a transaction, in the order in which it goes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Its plan is fixed.
    Planned,
    /// Emitters were told to read it.
    Emitting,
    /// It is processed everywhere; nothing is written yet.
    Processed,
    /// Its plan and manifest stand in the database.
    Prepared,
    /// A committer sends COMMIT to the database.
    CommitSent,
    /// The database has acknowledged a committer's COMMIT.
    Acknowledged,
    /// It is committed everywhere.
    Complete,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Planned => "planned",
            Phase::Emitting => "emitting",
            Phase::Processed => "processed",
            Phase::Prepared => "prepared",
            Phase::CommitSent => "COMMIT sent",
            Phase::Acknowledged => "acknowledged",
            Phase::Complete => "complete",
        })
    }
}

/// What is known when a transaction is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The transaction.
    pub txid: TxId,
    /// What was read for it.
    pub counts: ReadCounts,
    /// Distinct rows that went to the database.
    pub rows: u64,
    /// How many positions of the sources are not planned yet, as of the last look.
    pub lag: u64,
    /// Milliseconds from its plan to its commit.
    pub age_ms: u64,
}

/// What the coordinator is told.
#[derive(Debug)]
pub enum Reply {
    /// This process leads.
    Elected(Box<Elected>),
    /// All tasks run, perhaps on other workers than before: go on, in a new generation.
    Owners {
        /// In whose reign: those of one that is over are not gone on with.
        nonce: Nonce,
        /// How many committers share the shards.
        committers: usize,
    },
    /// Not all tasks can be relied on: what is under way has failed, and nothing begins until there are `Owners`.
    Disbanded(Failure),
    /// The tasks are about to move: let what is under way end, begin nothing, and say `Drained`.
    Drain,
    /// Nobody can be elected here, whatever is tried again.
    Unelectable(Failure),
    /// The claim was written, or not.
    Claimed(Nonce, Result<(), Failure>),
    /// A plan was written to coordination, or not.
    PlanWritten {
        /// By which attempt: an older one's answer says nothing, its plans are written again.
        attempt: Attempt,
        /// Which.
        txid: TxId,
        /// How it went.
        result: Result<(), Failure>,
    },
    /// `ForgetFrom` or `Complete` went wrong.
    NoteFailed(Nonce, Failure),
    /// The raise ended.
    Raised(Attempt, RaiseOutcome),
    /// The prepare ended.
    Prepared {
        /// The attempt of its row.
        attempt: Attempt,
        /// The transaction.
        txid: TxId,
        /// How.
        outcome: PrepareOutcome,
    },
    /// The sources' bounds, by source.
    Bounds {
        /// Whom it was asked for: an older attempt's answer may be of other positions.
        attempt: Attempt,
        /// The partitions of each source.
        result: Result<Vec<Vec<PartitionBounds>>, Failure>,
        /// The wall clock, for the batch's time.
        time_ms: u64,
        /// Random, for the batch's seed.
        seed: u64,
    },
    /// Time has passed.
    Woke,
    /// Leadership is gone.
    Lost(Nonce, Failure),
    /// Finish what is under way, then end the run.
    Stop,
}

/// What a new leader starts from.
#[derive(Clone, Debug)]
pub struct Elected {
    /// The random number of this reign.
    pub nonce: Nonce,
    /// What coordination holds; empty in the embedded mode.
    pub record: GroupRecord,
    /// The lineage in the database.
    pub lineage: u128,
    /// The fence in the database, as a plain read saw it: a hint for the first epoch to try.
    pub fence: Attempt,
}
