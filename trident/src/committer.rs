//! The committer: collects the rows of its shards, digests them, and commits them when the coordinator says so.
//!
//! A bolt without I/O. Folding a complete batch and running the commit's SQL transaction are *calls*; the second is the
//! state layer's [`Committer`](tine_state::Committer) procedure, run by the driver on a connection that this task owns.

use std::{collections::BTreeMap, sync::Arc};

use tine_core::{
    failure::{Failure, FailureKind},
    id::{Attempt, TaskId, TxId},
    mutant::{self, Mutant},
    task::{Bolt, Output, Token},
};
use tine_state::{CommitOrder, CommitOutcome, Digest, ShardRef, StateIndex, TableRows};

use crate::{
    emitter::{Meeting, answer_foreign, meet},
    message::{Batches, CommitCommand, Message, Note},
    pipeline::{Fold, Rows, Target},
    tracker::BatchTracker,
};

/// The chunks of a batch, by state.
pub type Parts = BTreeMap<StateIndex, Vec<Box<dyn Rows>>>;

/// What a committer asks of the outside world.
#[derive(Debug)]
pub enum CommitterCall {
    /// Fold a complete batch: pure, but too long for the async runtime.
    Fold {
        /// The attempt.
        attempt: Attempt,
        /// The transaction.
        txid: TxId,
        /// All its chunks.
        parts: Parts,
    },
    /// Run the commit procedure.
    Commit(Box<CommitOrder>),
}

/// What came of it.
#[derive(Debug)]
pub enum CommitterReply {
    /// Of a fold.
    Folded {
        /// The attempt of the call.
        attempt: Attempt,
        /// The transaction of the call.
        txid: TxId,
        /// The batch, or why there is none.
        result: Result<FoldedBatch, Failure>,
    },
    /// A commit goes on; said after each of its statements.
    Committing(Attempt, TxId),
    /// Of a commit.
    Committed {
        /// The attempt of the order.
        attempt: Attempt,
        /// The transaction of the order.
        txid: TxId,
        /// How it ended.
        outcome: CommitOutcome,
    },
}

/// A batch's rows as they go to the tables, with the digests of the shards that got some.
#[derive(Clone, Debug, Default)]
pub struct FoldedBatch {
    /// The rows for each state that got some.
    pub tables: Vec<(StateIndex, Arc<TableRows>)>,
    /// The digests, in (state, shard) order.
    pub digests: Vec<(ShardRef, Digest)>,
}

/// Folds a batch: merges its chunks state by state. Pure.
pub fn fold(folds: &[Arc<dyn Fold>], parts: Parts) -> Result<FoldedBatch, Failure> {
    let mut batch = FoldedBatch::default();
    for (state, chunks) in parts {
        let folded = folds[usize::from(state.0)].fold(chunks)?;
        let digests = folded.digests.into_iter();
        batch.digests.extend(digests.map(|(shard, digest)| (ShardRef { state, shard }, digest)));
        batch.tables.push((state, Arc::new(folded.rows)));
    }
    Ok(batch)
}

/// One committer.
#[derive(Clone, Debug)]
pub struct CommitBolt {
    /// The shards it owns, in (state, shard) order.
    shards: Arc<[ShardRef]>,
    /// How many tasks send to it: emitters and stage tasks.
    senders: usize,
    current: Attempt,
    /// The last transaction committed in the current attempt: what comes of it later is a duplicate.
    done: TxId,
    batches: BTreeMap<TxId, Batch>,
}

/// One transaction of the current attempt.
#[derive(Clone, Debug)]
struct Batch {
    tracker: BatchTracker,
    parts: Parts,
    /// The ends, held until the batch is folded.
    ends: Vec<Token>,
    phase: Phase,
}

#[derive(Clone, Debug)]
enum Phase {
    Collecting,
    Folding,
    Folded(FoldedBatch),
    Committing(Token),
}

impl CommitBolt {
    /// A committer of these shards after `senders` emitters and stage tasks.
    pub fn new(shards: Arc<[ShardRef]>, senders: usize) -> CommitBolt {
        CommitBolt { shards, senders, current: Attempt::NONE, done: TxId::NONE, batches: BTreeMap::new() }
    }

    /// The attempt it follows.
    pub fn attempt(&self) -> Attempt {
        self.current
    }

    /// Whether to go on with a message of this attempt and transaction; settles the token if not.
    fn admits(&mut self, attempt: Attempt, txid: TxId, token: Token, out: &mut Output<Batches, CommitterCall>) -> bool {
        match meet(self.current, attempt) {
            Meeting::Current if txid <= self.done => {
                out.ignore(token);
                false
            }
            Meeting::Current => true,
            Meeting::Newer => {
                self.current = attempt;
                self.done = TxId::NONE;
                for batch in std::mem::take(&mut self.batches).into_values() {
                    batch.ends.into_iter().for_each(|stale| out.ignore(stale));
                    if let Phase::Committing(stale) = batch.phase {
                        out.ignore(stale);
                    }
                }
                true
            }
            Meeting::Stale => {
                out.ignore(token);
                false
            }
            Meeting::Foreign => {
                out.fail(token, answer_foreign(self.current, attempt));
                false
            }
        }
    }

    fn batch(&mut self, txid: TxId) -> &mut Batch {
        let senders = self.senders;
        self.batches.entry(txid).or_insert_with(|| Batch {
            tracker: BatchTracker::new(senders),
            parts: Parts::new(),
            ends: Vec::new(),
            phase: Phase::Collecting,
        })
    }

    fn fold_when_complete(&mut self, txid: TxId, out: &mut Output<Batches, CommitterCall>) {
        let attempt = self.current;
        let batch = self.batch(txid);
        match (&batch.phase, batch.tracker.complete()) {
            (_, Err(failure)) => batch.ends.drain(..).for_each(|end| out.fail(end, failure.clone())),
            (Phase::Collecting, Ok(true)) => {
                batch.phase = Phase::Folding;
                out.call(CommitterCall::Fold { attempt, txid, parts: std::mem::take(&mut batch.parts) });
            }
            _ => {}
        }
    }

    /// Keeps a chunk of an admitted transaction; whether it is new.
    fn keep(&mut self, from: TaskId, txid: TxId, chunk: u64, (state, rows): (StateIndex, Box<dyn Rows>)) -> bool {
        let batch = self.batch(txid);
        let new = batch.tracker.rows(from, chunk, rows.count() as u64);
        if new {
            batch.parts.entry(state).or_default().push(rows);
        }
        new
    }

    fn on_folded(
        &mut self,
        txid: TxId,
        folded: Result<FoldedBatch, Failure>,
        out: &mut Output<Batches, CommitterCall>,
    ) {
        let Some(batch) = self.batches.get_mut(&txid) else { return };
        let mut ends = std::mem::take(&mut batch.ends).into_iter();
        match folded {
            Ok(folded) => {
                let rows = folded.tables.iter().map(|(_, rows)| rows.len() as u64).sum();
                let note = Note::Digests { digests: folded.digests.clone(), rows };
                batch.phase = Phase::Folded(folded);
                if let Some(first) = ends.next() {
                    out.ack_with(first, note);
                }
                ends.for_each(|end| out.ack(end));
            }
            Err(failure) => ends.for_each(|end| out.fail(end, failure.clone())),
        }
    }

    fn on_commit(&mut self, token: Token, command: &CommitCommand, out: &mut Output<Batches, CommitterCall>) {
        let missing = |what| Failure::transient(format!("transaction {}: {what}", command.txid));
        let Some(batch) = self.batches.get_mut(&command.txid) else {
            if mutant::on(Mutant::MissingBufferIsEmpty) {
                return out.call(CommitterCall::Commit(Box::new(self.order(command, Vec::new()))));
            }
            return out.fail(token, missing("I no longer have it"));
        };
        match std::mem::replace(&mut batch.phase, Phase::Committing(token)) {
            Phase::Folded(folded) => out.call(CommitterCall::Commit(Box::new(self.order(command, folded.tables)))),
            Phase::Committing(first) => {
                batch.phase = Phase::Committing(first);
                out.ignore(token);
            }
            phase => {
                batch.phase = phase;
                out.fail(token, missing("it is not complete here"));
            }
        }
    }

    fn order(&self, command: &CommitCommand, tables: Vec<(StateIndex, Arc<TableRows>)>) -> CommitOrder {
        let has_rows =
            |at: &&ShardRef| tables.iter().any(|(state, rows)| *state == at.state && rows.shards.contains(&at.shard));
        let shards = match mutant::on(Mutant::EmptyShardsSkipped) && !tables.is_empty() {
            true => self.shards.iter().filter(has_rows).copied().collect(),
            false => self.shards.clone(),
        };
        CommitOrder {
            attempt: command.attempt,
            txid: command.txid,
            previous: command.previous,
            chain: command.chain,
            manifest: command.manifest,
            shards,
            tables,
            plan: command.plan.clone(),
            location: command.location,
        }
    }

    fn on_committed(&mut self, txid: TxId, outcome: CommitOutcome, out: &mut Output<Batches, CommitterCall>) {
        let Some(Batch { phase: Phase::Committing(token), .. }) = self.batches.remove(&txid) else { return };
        match outcome {
            CommitOutcome::Applied | CommitOutcome::AlreadyDone => {
                self.done = txid;
                out.ack_with(token, Note::Committed);
            }
            CommitOutcome::LateDuplicate => out.ignore(token),
            CommitOutcome::Failed(failure) if failure.kind == FailureKind::Superseded => out.ignore(token),
            CommitOutcome::Failed(failure) => out.fail(token, failure),
        }
    }
}

impl Bolt<Batches> for CommitBolt {
    type Call = CommitterCall;
    type Reply = CommitterReply;

    fn execute(&mut self, token: Token, from: TaskId, message: Message, out: &mut Output<Batches, CommitterCall>) {
        match message {
            Message::Rows { attempt, txid, chunk, target: Target::State(state), rows } => {
                if self.admits(attempt, txid, token, out) {
                    if !self.keep(from, txid, chunk, (state, rows)) {
                        return out.ignore(token);
                    }
                    out.ack(token);
                    self.fold_when_complete(txid, out);
                }
            }
            Message::End { attempt, txid, chunks, rows } => {
                if self.admits(attempt, txid, token, out) {
                    let batch = self.batch(txid);
                    if !matches!(batch.phase, Phase::Collecting) {
                        return out.ignore(token);
                    }
                    match batch.tracker.end(from, chunks, rows) {
                        Ok(()) => {
                            batch.ends.push(token);
                            self.fold_when_complete(txid, out);
                        }
                        Err(failure) => out.fail(token, failure),
                    }
                }
            }
            Message::Commit(command) => {
                if self.admits(command.attempt, command.txid, token, out) {
                    self.on_commit(token, &command, out);
                }
            }
            other => out.fail(token, Failure::fatal(format!("a committer was sent {other:?}"))),
        }
    }

    fn reply(&mut self, reply: CommitterReply, out: &mut Output<Batches, CommitterCall>) {
        match reply {
            CommitterReply::Folded { attempt, txid, result } if attempt == self.current => {
                self.on_folded(txid, result, out);
            }
            CommitterReply::Committing(attempt, txid) if attempt == self.current => {
                if let Some(Batch { phase: Phase::Committing(token), .. }) = self.batches.get(&txid) {
                    out.keep_alive(*token);
                }
            }
            CommitterReply::Committed { attempt, txid, outcome } if attempt == self.current => {
                self.on_committed(txid, outcome, out);
            }
            _ => {}
        }
    }
}
