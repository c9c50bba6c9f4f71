//! Raises the fence: from then on the attempts below it cannot commit, and what is read is settled.
//!
//! A *write*, never a look: it locks the group's row and every ledger row, and so waits for backends that are still
//! inside a commit; what they did is in the snapshot that is read afterwards. That settles unknown outcomes.

use tine_core::{
    failure::{Failure, FailureKind},
    id::{Attempt, Generation},
    mutant::{self, Mutant},
};

use crate::{GroupRow, LedgerRow, Procedure, Reply, Snapshot, Statement, Step};

/// How a raise ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RaiseOutcome {
    /// The fence stands, durably, and this is what the database holds.
    Raised(Box<Snapshot>),
    /// A fence stands that may not be raised over.
    Missed(Attempt),
    /// Not known, or not done: `Unknown` and `Transient` may be repeated with the same attempt.
    Failed(Failure),
}

/// One raise as a procedure.
#[derive(Clone, Debug)]
pub struct Raise {
    attempt: Attempt,
    phase: Phase,
    group: Option<GroupRow>,
    /// Only under a mutant: what was read before the fence was written.
    read_first: Option<Box<Snapshot>>,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Only under a mutant.
    ReadFirst,
    Begin,
    LockGroup,
    LockRows,
    WriteFence(u64),
    Commit,
    Read,
    RollBack(RaiseOutcome),
}

impl Raise {
    /// A raise to `attempt`, which must be new; equality with the standing fence only repeats one's own unanswered raise.
    pub fn new(attempt: Attempt) -> Raise {
        Raise { attempt, phase: Phase::Begin, group: None, read_first: None }
    }

    fn may_raise_over(&self, fence: Attempt) -> bool {
        fence.epoch < self.attempt.epoch
            || (fence.same_reign(self.attempt) && fence.generation <= self.attempt.generation)
            || mutant::on(Mutant::UnconditionalRaise)
    }

    fn roll_back(&mut self, outcome: RaiseOutcome) -> Step<RaiseOutcome> {
        self.phase = Phase::RollBack(outcome);
        Step::Next(Statement::Rollback)
    }

    fn next(&mut self, phase: Phase, statement: Statement) -> Step<RaiseOutcome> {
        self.phase = phase;
        Step::Next(statement)
    }

    fn on_group(&mut self, group: Option<GroupRow>) -> Step<RaiseOutcome> {
        let Some(group) = group else {
            let lost = "the group's row is missing in tine_groups: restore it from a backup of the database";
            return self.roll_back(RaiseOutcome::Failed(Failure::fatal(lost)));
        };
        if !self.may_raise_over(group.fence) {
            return self.roll_back(RaiseOutcome::Missed(group.fence));
        }
        self.group = Some(group);
        self.next(Phase::LockRows, Statement::LockRows(None))
    }

    fn on_rows(&mut self, rows: &[LedgerRow]) -> Step<RaiseOutcome> {
        let group = self.group.as_ref().expect("the group's row was locked before the ledger rows");
        if let Some(failure) = missing_rows(group, rows) {
            return self.roll_back(RaiseOutcome::Failed(failure));
        }
        match rows.iter().find(|row| !self.may_raise_over(row.fence)) {
            Some(row) => self.roll_back(RaiseOutcome::Missed(row.fence)),
            None => self.next(Phase::WriteFence(rows.len() as u64), Statement::WriteFence(self.attempt)),
        }
    }

    fn on_written(&mut self, expected: u64, written: u64) -> Step<RaiseOutcome> {
        if written != expected {
            let message = format!("raising the fence wrote {written} ledger rows and {expected} are there");
            return self.roll_back(RaiseOutcome::Failed(Failure::fatal(message)));
        }
        self.next(Phase::Commit, Statement::Commit)
    }

    fn on_snapshot(&self, snapshot: Box<Snapshot>) -> Step<RaiseOutcome> {
        // What was locked is not what is read now: a row may have been lost in between.
        let missing = missing_rows(&snapshot.group, &snapshot.rows);
        Step::Done(match (snapshot.group.fence == self.attempt, missing) {
            (false, _) => RaiseOutcome::Missed(snapshot.group.fence),
            (true, Some(failure)) => RaiseOutcome::Failed(failure),
            (true, None) => RaiseOutcome::Raised(snapshot),
        })
    }
}

/// Ledger rows that the group's row lists and that are not there: what existed is not new.
fn missing_rows(group: &GroupRow, rows: &[LedgerRow]) -> Option<Failure> {
    let missing = group.shards.iter().filter(|at| !rows.iter().any(|row| row.at == **at)).count();
    (missing > 0 && !mutant::on(Mutant::MissingRowIsNew)).then(|| {
        Failure::fatal(format!(
            "{missing} of {} ledger rows are missing: a state that existed is not a new state; restore the rows from a backup",
            group.shards.len()
        ))
    })
}

impl Procedure for Raise {
    type Outcome = RaiseOutcome;

    fn start(&mut self) -> Statement {
        let at_an_abort = self.attempt.generation > Generation(1);
        if mutant::on(Mutant::FenceRaisedAfterRead)
            || mutant::on(Mutant::OutcomeSettledByRead)
            || (mutant::on(Mutant::NoRaiseAtAbort) && at_an_abort)
        {
            self.phase = Phase::ReadFirst;
            return Statement::Read;
        }
        self.phase = Phase::Begin;
        Statement::Begin(None)
    }

    fn step(&mut self, answer: Result<Reply, Failure>) -> Step<RaiseOutcome> {
        let phase = std::mem::replace(&mut self.phase, Phase::Begin);
        let reply = match (answer, &phase) {
            (_, Phase::RollBack(outcome)) => return Step::Done(outcome.clone()),
            (Err(failure), Phase::Commit | Phase::Read) => {
                let kind = if failure.kind == FailureKind::Fatal { failure.kind } else { FailureKind::Unknown };
                return Step::Done(RaiseOutcome::Failed(Failure::new(kind, failure.message)));
            }
            (Err(failure), _) => return self.roll_back(RaiseOutcome::Failed(failure)),
            (Ok(reply), _) => reply,
        };
        match (phase, reply) {
            (Phase::ReadFirst, Reply::Snapshot(mut snapshot)) => {
                let my_fence_stands = mutant::on(Mutant::OutcomeSettledByRead) && snapshot.group.fence == self.attempt;
                if mutant::on(Mutant::NoRaiseAtAbort) || my_fence_stands {
                    return Step::Done(RaiseOutcome::Raised(snapshot));
                }
                snapshot.group.fence = self.attempt;
                self.read_first = mutant::on(Mutant::FenceRaisedAfterRead).then_some(snapshot);
                self.next(Phase::Begin, Statement::Begin(None))
            }
            (Phase::Begin, Reply::Done) => self.next(Phase::LockGroup, Statement::LockGroup),
            (Phase::LockGroup, Reply::Group(group)) => self.on_group(group),
            (Phase::LockRows, Reply::Rows(rows)) => self.on_rows(&rows),
            (Phase::WriteFence(expected), Reply::Written(written)) => self.on_written(expected, written),
            (Phase::Commit, Reply::Done) => self.next(Phase::Read, Statement::Read),
            (Phase::Read, Reply::Snapshot(snapshot)) => {
                let snapshot = self.read_first.take().unwrap_or(snapshot);
                self.on_snapshot(snapshot)
            }
            (phase, reply) => {
                let message = format!("the raise in {phase:?} was answered {reply:?}");
                self.roll_back(RaiseOutcome::Failed(Failure::fatal(message)))
            }
        }
    }
}
