//! Prepares a transaction: makes its plan and manifest durable in the state's database, under the leader's fence,
//! before the transaction's first commit.

use std::sync::Arc;

use tine_core::{
    failure::Failure,
    mutant::{self, Mutant},
};

use crate::{GroupRow, Location, Procedure, Reply, Statement, Step, TransactionRow, committer::foreign_fence};

/// How a prepare ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrepareOutcome {
    /// The row stands, durably.
    Prepared,
    /// It may or may not stand (`Unknown`), or it does not: the leader raises before anything else.
    Failed(Failure),
}

/// One prepare as a procedure.
#[derive(Clone, Debug)]
pub struct Prepare {
    row: Arc<TransactionRow>,
    location: Location,
    phase: Phase,
}

#[derive(Clone, Debug)]
enum Phase {
    Begin,
    LockGroup,
    WritePlan,
    Commit,
    RollBack(PrepareOutcome),
}

impl Prepare {
    /// Prepares `row`, whose attempt must be the group's fence.
    pub fn new(row: Arc<TransactionRow>, location: Location) -> Prepare {
        Prepare { row, location, phase: Phase::Begin }
    }

    fn fail(&mut self, failure: Failure) -> Step<PrepareOutcome> {
        self.phase = Phase::RollBack(PrepareOutcome::Failed(failure));
        Step::Next(Statement::Rollback)
    }

    fn on_group(&mut self, group: Option<GroupRow>) -> Step<PrepareOutcome> {
        let Some(group) = group else {
            return self.fail(Failure::fatal("the group's row is missing in tine_groups: restore it from a backup"));
        };
        match foreign_fence(group.fence, self.row.attempt) {
            Some(failure) if !mutant::on(Mutant::PrepareWithoutFence) => self.fail(failure),
            _ => {
                self.phase = Phase::WritePlan;
                Step::Next(Statement::WritePlan(self.row.clone()))
            }
        }
    }
}

impl Procedure for Prepare {
    type Outcome = PrepareOutcome;

    fn start(&mut self) -> Statement {
        self.phase = Phase::Begin;
        Statement::Begin(Some(self.location))
    }

    fn step(&mut self, answer: Result<Reply, Failure>) -> Step<PrepareOutcome> {
        let phase = std::mem::replace(&mut self.phase, Phase::Begin);
        let reply = match (answer, &phase) {
            (_, Phase::RollBack(outcome)) => return Step::Done(outcome.clone()),
            (Err(failure), Phase::Commit) => return Step::Done(PrepareOutcome::Failed(failure)),
            (Err(failure), _) => return self.fail(failure),
            (Ok(reply), _) => reply,
        };
        match (phase, reply) {
            (Phase::Begin, Reply::Done) => {
                self.phase = Phase::LockGroup;
                Step::Next(Statement::LockGroup)
            }
            (Phase::LockGroup, Reply::Group(group)) => self.on_group(group),
            (Phase::WritePlan, Reply::Written(_)) => {
                self.phase = Phase::Commit;
                Step::Next(Statement::Commit)
            }
            (Phase::Commit, Reply::Done) => Step::Done(PrepareOutcome::Prepared),
            (phase, reply) => self.fail(Failure::fatal(format!("the prepare in {phase:?} was answered {reply:?}"))),
        }
    }
}
