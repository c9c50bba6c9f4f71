//! Decides whether a commit applies, is already done, must wait, or is refused: section 3 of the protocol.
//!
//! The usual way is short: begin, compare-and-set of the ledger rows together with the data, commit. When the
//! compare-and-set moves fewer rows than asked, that proves nothing (another backend may hold an uncommitted change),
//! so the committer rolls back, reads the rows *locked*, which waits for whoever holds them, and judges what it sees.

use std::sync::Arc;

use tine_core::{
    failure::{Failure, FailureKind},
    id::{Attempt, TxId},
    mutant::{self, Mutant},
};

use crate::{
    Advance, Chain, Column, LedgerRow, Location, Manifest, Procedure, Reply, ShardRef, StateIndex, Statement, Step,
    TableRows, TransactionRow,
};

/// What one owner is to commit of one transaction in one database: all of its shards, all or nothing.
#[derive(Clone, Debug)]
pub struct CommitOrder {
    /// The attempt that commits: the fence must equal it.
    pub attempt: Attempt,
    /// The transaction.
    pub txid: TxId,
    /// The chain before it.
    pub previous: Chain,
    /// The chain up to it.
    pub chain: Chain,
    /// Its manifest.
    pub manifest: Manifest,
    /// The shards that this owner holds, in (state, shard) order; never empty, whether or not rows fell into them.
    pub shards: Arc<[ShardRef]>,
    /// The rows for each state.
    pub tables: Vec<(StateIndex, Arc<TableRows>)>,
    /// The transaction's row, when one SQL transaction holds all shards and nothing was prepared beforehand.
    pub plan: Option<Arc<TransactionRow>>,
    /// What the connection must be able to see.
    pub location: Location,
}

/// How a commit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Committed now, durably.
    Applied,
    /// Committed before, with proof: same chain, same manifest.
    AlreadyDone,
    /// The rows have moved on under this very leader: a late duplicate, to be ignored.
    LateDuplicate,
    /// Not committed, for this reason.
    Failed(Failure),
}

/// One commit as a procedure.
#[derive(Clone, Debug)]
pub struct Committer {
    order: CommitOrder,
    phase: Phase,
    /// What to move; all shards at first, fewer when some rows turned out to be done.
    pending: Arc<[ShardRef]>,
    tables: Vec<(StateIndex, Arc<TableRows>)>,
    /// Tables still to be read and combined before the compare-and-set.
    to_load: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Phase {
    Begin,
    Advance,
    WritePlan,
    Commit,
    /// Rolling back in order to come again with the locking read.
    BeforeLocking,
    BeginLocking,
    Lock,
    Load(usize),
    /// Rolling back; then this is the outcome.
    RollBack(CommitOutcome),
}

/// What the locked rows say.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Apply(Vec<ShardRef>),
    End(CommitOutcome),
}

impl Committer {
    /// A committer for one order.
    ///
    /// # Panics
    /// If the order names no shard: an owner without shards has nothing to commit.
    pub fn new(order: CommitOrder) -> Committer {
        assert!(!order.shards.is_empty(), "a commit order names at least one shard");
        let pending = order.shards.clone();
        let tables: Vec<_> = order.tables.iter().filter(|(_, rows)| !rows.is_empty()).cloned().collect();
        Committer { order, phase: Phase::Begin, pending, tables, to_load: Vec::new() }
    }

    fn roll_back(&mut self, outcome: CommitOutcome) -> Step<CommitOutcome> {
        self.phase = Phase::RollBack(outcome);
        Step::Next(Statement::Rollback)
    }

    fn fail(&mut self, failure: Failure) -> Step<CommitOutcome> {
        self.roll_back(CommitOutcome::Failed(failure))
    }

    fn advance(&mut self) -> Step<CommitOutcome> {
        self.phase = Phase::Advance;
        Step::Next(Statement::Advance(Arc::new(self.current_advance())))
    }

    fn current_advance(&self) -> Advance {
        Advance {
            attempt: self.order.attempt,
            txid: self.order.txid,
            previous: self.order.previous,
            chain: self.order.chain,
            manifest: self.order.manifest,
            shards: self.pending.clone(),
            tables: self.tables.clone(),
        }
    }

    fn needs_stored_values(&self) -> bool {
        self.tables.iter().any(|(_, rows)| rows.combine.is_some())
    }

    fn on_advanced(&mut self, moved: u64, merged: u64) -> Step<CommitOutcome> {
        let (wanted, rows) = (self.pending.len() as u64, self.current_advance().rows());
        if moved < wanted {
            if mutant::on(Mutant::MissIsRefusal) {
                return self.fail(Failure::new(FailureKind::Fenced, "compare-and-set missed"));
            }
            self.phase = Phase::BeforeLocking;
            return Step::Next(Statement::Rollback);
        }
        if moved > wanted || merged != rows {
            let found = format!("{merged} rows merged of {rows} sent, {moved} ledger rows moved of {wanted}");
            return self.fail(Failure::fatal(format!(
                "the commit of transaction {} touched other rows than it should: {found}; look for triggers or rules on the table",
                self.order.txid
            )));
        }
        match self.order.plan.clone() {
            Some(plan) => {
                self.phase = Phase::WritePlan;
                Step::Next(Statement::WritePlan(plan))
            }
            None => self.commit(),
        }
    }

    fn commit(&mut self) -> Step<CommitOutcome> {
        self.phase = Phase::Commit;
        Step::Next(Statement::Commit)
    }

    fn on_locked(&mut self, rows: &[LedgerRow]) -> Step<CommitOutcome> {
        match judge(&self.order, rows) {
            Verdict::End(outcome) => self.roll_back(outcome),
            Verdict::Apply(shards) => {
                self.restrict_to(shards);
                self.to_load = (0..self.tables.len()).filter(|i| self.tables[*i].1.combine.is_some()).collect();
                self.load_or_advance()
            }
        }
    }

    fn restrict_to(&mut self, shards: Vec<ShardRef>) {
        if shards.len() == self.pending.len() {
            return;
        }
        for (state, rows) in &mut self.tables {
            let wanted = |shard| shards.binary_search(&ShardRef { state: *state, shard }).is_ok();
            *rows = Arc::new(rows.of_shards(wanted));
        }
        self.tables.retain(|(_, rows)| !rows.is_empty());
        self.pending = shards.into();
    }

    fn load_or_advance(&mut self) -> Step<CommitOutcome> {
        match self.to_load.pop() {
            Some(table) => {
                self.phase = Phase::Load(table);
                let (state, rows) = &self.tables[table];
                Step::Next(Statement::Load(*state, rows.clone()))
            }
            None => self.advance(),
        }
    }

    fn on_loaded(&mut self, table: usize, present: &[bool], stored: &[Column]) -> Step<CommitOutcome> {
        let (state, rows) = self.tables[table].clone();
        let combine = rows.combine.clone().expect("only tables that combine are loaded");
        match combine.combine(&rows, present, stored) {
            Ok(values) => {
                let combined = TableRows { values, combine: None, ..(*rows).clone() };
                self.tables[table] = (state, Arc::new(combined));
                self.load_or_advance()
            }
            Err(failure) => self.fail(failure),
        }
    }
}

impl Procedure for Committer {
    type Outcome = CommitOutcome;

    fn start(&mut self) -> Statement {
        self.phase = if self.needs_stored_values() { Phase::BeginLocking } else { Phase::Begin };
        Statement::Begin(Some(self.order.location))
    }

    fn step(&mut self, answer: Result<Reply, Failure>) -> Step<CommitOutcome> {
        let phase = std::mem::replace(&mut self.phase, Phase::Begin);
        let reply = match (answer, &phase) {
            (_, Phase::RollBack(outcome)) => return Step::Done(outcome.clone()),
            (_, Phase::BeforeLocking) => {
                self.phase = Phase::BeginLocking;
                return Step::Next(Statement::Begin(Some(self.order.location)));
            }
            (Err(failure), Phase::Commit) if failure.kind == FailureKind::Unknown => {
                if mutant::on(Mutant::OutcomeAssumedDone) {
                    return Step::Done(CommitOutcome::Applied);
                }
                return Step::Done(CommitOutcome::Failed(failure));
            }
            (Err(failure), Phase::Commit) => return Step::Done(CommitOutcome::Failed(failure)),
            (Err(failure), _) => return self.fail(failure),
            (Ok(reply), _) => reply,
        };
        match (phase, reply) {
            (Phase::Begin, Reply::Done) => self.advance(),
            (Phase::Advance, Reply::Advanced { moved, merged }) => self.on_advanced(moved, merged),
            (Phase::WritePlan, Reply::Written(_)) => self.commit(),
            (Phase::Commit, Reply::Done) => Step::Done(CommitOutcome::Applied),
            (Phase::BeginLocking, Reply::Done) => {
                self.phase = Phase::Lock;
                Step::Next(Statement::LockRows(Some(self.order.shards.clone())))
            }
            (Phase::Lock, Reply::Rows(rows)) => self.on_locked(&rows),
            (Phase::Load(table), Reply::Loaded { present, values }) => self.on_loaded(table, &present, &values),
            (phase, reply) => self.fail(Failure::fatal(format!("the committer in {phase:?} was answered {reply:?}"))),
        }
    }
}

impl Advance {
    /// Whether the compare-and-set takes this row: what connectors say in SQL, by equality.
    pub fn admits(&self, row: &LedgerRow) -> bool {
        fence_admits(row.fence, self.attempt) && follows(row, self.txid, self.previous)
    }
}

fn fence_admits(fence: Attempt, attempt: Attempt) -> bool {
    fence == attempt
        || mutant::on(Mutant::NoFenceCheck)
        || (mutant::on(Mutant::NoRaiseAtAbort) && fence.same_reign(attempt))
        || (mutant::on(Mutant::FenceAtLeast) && fence <= attempt)
        || (mutant::on(Mutant::NonceIgnored) && (fence.epoch, fence.generation) == (attempt.epoch, attempt.generation))
}

fn follows(row: &LedgerRow, txid: TxId, previous: Chain) -> bool {
    (row.txid.next() == txid || mutant::on(Mutant::TxidNotCompared))
        && (row.chain == previous || mutant::on(Mutant::ChainNotCompared))
}

/// What a fence other than one's own means; `None` when it is one's own.
pub(crate) fn foreign_fence(fence: Attempt, attempt: Attempt) -> Option<Failure> {
    if fence_admits(fence, attempt) {
        return None;
    }
    let (kind, meaning) = if fence < attempt {
        (FailureKind::Behind, "the database lost a raise of the fence")
    } else if fence.same_reign(attempt) {
        (FailureKind::Superseded, "a newer attempt of this leader has begun")
    } else {
        (FailureKind::Fenced, "another leader has taken over")
    };
    Some(Failure::new(kind, format!("the ledger admits attempt {fence}, not {attempt}: {meaning}")))
}

fn judge(order: &CommitOrder, rows: &[LedgerRow]) -> Verdict {
    let failed = |failure| Verdict::End(CommitOutcome::Failed(failure));
    if rows.len() != order.shards.len() {
        return failed(Failure::fatal(format!(
            "{} of {} ledger rows are missing: restore them from a backup of the database",
            order.shards.len() - rows.len().min(order.shards.len()),
            order.shards.len()
        )));
    }
    let foreign = rows.iter().filter_map(|row| foreign_fence(row.fence, order.attempt));
    let severity = |failure: &Failure| match failure.kind {
        FailureKind::Fenced => 2,
        FailureKind::Superseded => 1,
        _ => 0,
    };
    if let Some(failure) = foreign.max_by_key(severity) {
        return failed(failure);
    }
    let mut apply = Vec::new();
    for row in rows {
        match judge_row(order, row) {
            RowVerdict::Apply => apply.push(row.at),
            RowVerdict::Done => {}
            RowVerdict::Late => return Verdict::End(CommitOutcome::LateDuplicate),
            RowVerdict::Failed(failure) => return failed(failure),
        }
    }
    match apply.is_empty() {
        true => Verdict::End(CommitOutcome::AlreadyDone),
        false => Verdict::Apply(apply),
    }
}

enum RowVerdict {
    Apply,
    Done,
    Late,
    Failed(Failure),
}

fn judge_row(order: &CommitOrder, row: &LedgerRow) -> RowVerdict {
    let same_manifest = row.manifest == order.manifest || mutant::on(Mutant::DoneWithoutManifest);
    if follows(row, order.txid, order.previous) {
        RowVerdict::Apply
    } else if row.txid == order.txid && row.chain == order.chain && same_manifest {
        RowVerdict::Done
    } else if row.txid > order.txid && !mutant::on(Mutant::LateDuplicateIsGap) {
        RowVerdict::Late
    } else if row.txid.next() < order.txid {
        let lost = format!("shard {:?} is at transaction {} and {} was to follow", row.at, row.txid, order.txid);
        RowVerdict::Failed(Failure::new(FailureKind::Behind, format!("the database lost its tail: {lost}")))
    } else {
        RowVerdict::Failed(Failure::fatal(format!(
            "shard {:?} holds transaction {} (chain {}, manifest {}) where transaction {} was to be committed (chain {} after {}, manifest {})",
            row.at, row.txid, row.chain, row.manifest, order.txid, order.chain, order.previous, order.manifest
        )))
    }
}

#[cfg(test)]
mod tests;
