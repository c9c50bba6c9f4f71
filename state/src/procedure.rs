//! How a pure procedure meets a database: one statement, one answer, until it is done.

use async_trait::async_trait;
use tine_core::{failure::Failure, id::TxId};

use crate::{GroupSpec, Reply, Snapshot, Statement};

/// What a procedure wants next.
#[derive(Debug)]
pub enum Step<Outcome> {
    /// Execute this and come back with the answer.
    Next(Statement),
    /// It is over.
    Done(Outcome),
}

/// A SQL transaction as a pure state machine.
pub trait Procedure {
    /// How it ended.
    type Outcome;

    /// The first statement.
    fn start(&mut self) -> Statement;

    /// What follows from the answer to the last statement.
    fn step(&mut self, answer: Result<Reply, Failure>) -> Step<Self::Outcome>;
}

/// One connection to a state database, owned by one task. Reconnects by itself at `Begin` and `Read`.
#[async_trait]
pub trait Session: Send {
    /// Executes one statement. `Err` says what it means: a failure inside a transaction has rolled it back
    /// (`Transient`, `Poison`, `Fatal`, `Behind`); a `Commit` that may have happened is `Unknown`.
    async fn execute(&mut self, statement: &Statement) -> Result<Reply, Failure>;
}

/// A state database: what connectors implement.
#[async_trait]
pub trait Database: Send + Sync {
    /// A name for messages, without secrets: host, port and database, or the file.
    fn describe(&self) -> String;

    /// Creates what is missing of tine's own tables, the group's rows and the user's tables, in one transaction, and
    /// checks what is there: columns and key of each table, the claim on it, the group's fingerprint and the shards of
    /// its states. Idempotent. `Fatal` errors say what differs and what to do; `Transient` ones may be tried again.
    async fn create(&self, group: &GroupSpec) -> Result<(), Failure>;

    /// Opens a session for a group that exists.
    async fn session(&self, group: &GroupSpec) -> Result<Box<dyn Session>, Failure>;

    /// Takes the exclusive lock of the topology, for the embedded mode; `None` while another process holds it.
    async fn try_lock(&self, topology: &str) -> Result<Option<Box<dyn Lock>>, Failure>;

    /// Asked for at the end of a run: after `Ok`, everything that was committed up to transaction `last` is durable.
    /// `Behind` says that some of it is lost already. Databases whose commits always are durable have nothing to do.
    async fn settle(&self, _group: &GroupSpec, _last: TxId) -> Result<(), Failure> {
        Ok(())
    }
}

/// The exclusive lock of a topology; given back when dropped.
#[async_trait]
pub trait Lock: Send {
    /// Returns when the lock is lost, with the reason; pending as long as it is held.
    async fn lost(&mut self) -> Failure;
}

/// Runs a procedure on a session to its end.
pub async fn run<P: Procedure + Send>(mut procedure: P, session: &mut dyn Session) -> P::Outcome {
    let mut statement = procedure.start();
    loop {
        let answer = session.execute(&statement).await;
        match procedure.step(answer) {
            Step::Next(next) => statement = next,
            Step::Done(outcome) => return outcome,
        }
    }
}

/// Reads everything of a group in one snapshot: for people, tests and the idle leader's heartbeat. Decides nothing.
pub async fn read(session: &mut dyn Session) -> Result<Snapshot, Failure> {
    match session.execute(&Statement::Read).await? {
        Reply::Snapshot(snapshot) => Ok(*snapshot),
        other => Err(Failure::fatal(format!("the database answered Read with {other:?}"))),
    }
}
