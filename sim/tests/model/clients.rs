//! What the processes of a model ask of the database: jobs, statements, their answers, and connections that are lost.

use tine_core::{
    failure::{Failure, FailureKind},
    id::{Attempt, TxId},
};
use tine_state::{CommitOutcome, Procedure, RaiseOutcome, Reply as SqlReply, Statement, Step};
use tine_trident::{committer::CommitterReply, coordinator::event::Reply};

use super::{
    database::{Answer, BackendId},
    process::{Job, Lane, Running},
    records::at,
    step::{Run, Then},
};

impl Run<'_> {
    fn lane(&mut self, index: usize, lane: usize) -> &mut Lane {
        self.process(index).lanes[lane].change()
    }

    pub(crate) fn job(&mut self, index: usize, lane: usize, job: Job) {
        self.lane(index, lane).queue.push_back(job);
        self.next_job(index, lane);
    }

    fn next_job(&mut self, index: usize, lane: usize) {
        if self.world.processes[index].lanes[lane].running.is_some() {
            return;
        }
        let Some(job) = self.lane(index, lane).queue.pop_front() else { return };
        if matches!(job, Job::Raise(_)) {
            // On a new connection: nothing that an older one holds can stand in the way.
            self.orphan(index, lane);
        }
        let (running, first) = job.start();
        self.lane(index, lane).running = Some(running);
        self.then.push_back(Then::Send(index, lane, first));
    }

    /// Sends a statement. What nobody else can see is executed at once.
    pub(crate) fn send(&mut self, index: usize, lane: usize, statement: Statement) {
        let connects = matches!(statement, Statement::Begin(_) | Statement::Read);
        let backend = match self.world.processes[index].lanes[lane].backend {
            Some(backend) => backend,
            None if connects => {
                let backend = self.world.database.change().connect((index, lane));
                self.lane(index, lane).backend = Some(backend);
                backend
            }
            None if matches!(statement, Statement::Rollback) => {
                return self.then.push_back(Then::Answer(index, lane, Ok(SqlReply::Done)));
            }
            None => {
                let lost = Err(lost_connection(Some(&statement)));
                return self.then.push_back(Then::Answer(index, lane, lost));
            }
        };
        let alone = matches!(
            statement,
            Statement::Begin(_) | Statement::Rollback | Statement::WritePlan(_) | Statement::WriteFence(_)
        );
        let database = self.world.database.change();
        if let Some(server) = database.backends.get_mut(&backend) {
            server.pending = Some(statement);
        }
        if alone {
            self.execute(backend);
        }
    }

    pub(crate) fn execute(&mut self, id: BackendId) {
        let database = self.world.database.change();
        let Some(statement) = database.backends.get_mut(&id).and_then(|backend| backend.pending.take()) else { return };
        let answer = database.execute(id, &statement);
        let Some(backend) = database.backends.get_mut(&id) else { return };
        match answer {
            Answer::Waits => (backend.pending, backend.waits) = (Some(statement), true),
            Answer::Now(answer) => {
                backend.waits = false;
                match backend.client {
                    Some((index, lane)) => self.then.push_back(Then::Answer(index, lane, answer)),
                    None => drop(database.terminate(id)),
                }
            }
        }
    }

    pub(crate) fn answer(&mut self, index: usize, lane: usize, answer: Result<SqlReply, Failure>) {
        let Some(mut running) = self.lane(index, lane).running.take() else { return };
        let then = match &mut running {
            Running::Commit(procedure, attempt, txid) => match procedure.step(answer) {
                Step::Next(statement) => Err(statement),
                Step::Done(outcome) => {
                    self.check_outcome(index, *attempt, *txid, &outcome);
                    let (attempt, txid) = (*attempt, *txid);
                    Ok(Then::Committer(index, CommitterReply::Committed { attempt, txid, outcome }))
                }
            },
            Running::Raise(procedure, attempt) => match procedure.step(answer) {
                Step::Next(statement) => Err(statement),
                Step::Done(outcome) => {
                    self.check_raise(&outcome);
                    Ok(Then::Reply(index, Reply::Raised(*attempt, outcome)))
                }
            },
            Running::Prepare(procedure, attempt, txid) => match procedure.step(answer) {
                Step::Next(statement) => Err(statement),
                Step::Done(outcome) => {
                    Ok(Then::Reply(index, Reply::Prepared { attempt: *attempt, txid: *txid, outcome }))
                }
            },
        };
        match then {
            Err(statement) => {
                self.lane(index, lane).running = Some(running);
                self.then.push_back(Then::Send(index, lane, statement));
            }
            Ok(then) => {
                self.then.push_back(then);
                self.next_job(index, lane);
            }
        }
    }

    /// What a commit says of itself is so.
    fn check_outcome(&mut self, index: usize, attempt: Attempt, txid: TxId, outcome: &CommitOutcome) {
        let Some(row) = self.world.database.rows.iter().find(|row| row.at == at(index)) else { return };
        let (done, mine) = (row.txid >= txid, row.fence == attempt);
        match outcome {
            CommitOutcome::Applied | CommitOutcome::AlreadyDone if !done => {
                self.break_off(format!("transaction {txid} of attempt {attempt} is said to be committed and is not"));
            }
            CommitOutcome::Failed(failure) if done && mine && failure.kind == FailureKind::Fatal => {
                self.break_off(format!("transaction {txid} of attempt {attempt} is committed and refused: {failure}"));
            }
            _ => {}
        }
    }

    fn check_raise(&mut self, outcome: &RaiseOutcome) {
        if let RaiseOutcome::Raised(snapshot) = outcome
            && snapshot.rows.len() < snapshot.group.shards.len()
        {
            self.break_off("the fence was raised beside a lost row");
        }
    }

    /// A client loses its connection: it hears so at once, the server later.
    pub(crate) fn let_go(&mut self, index: usize, lane: usize) {
        let backend = self.world.processes[index].lanes[lane].backend;
        let pending = backend.and_then(|id| self.world.database.backends[&id].pending.clone());
        self.orphan(index, lane);
        self.then.push_back(Then::Answer(index, lane, Err(lost_connection(pending.as_ref()))));
    }

    /// A backend loses its client. Only a `COMMIT` that is on its way can still do something.
    pub(crate) fn orphan(&mut self, index: usize, lane: usize) {
        let Some(id) = self.lane(index, lane).backend.take() else { return };
        let database = self.world.database.change();
        let Some(backend) = database.backends.get_mut(&id) else { return };
        backend.client = None;
        if !matches!(backend.pending, Some(Statement::Commit)) {
            database.terminate(id);
        }
    }

    /// The server ends a backend; its client hears so.
    pub(crate) fn end(&mut self, id: BackendId) {
        let Some(backend) = self.world.database.change().terminate(id) else { return };
        if let Some((index, lane)) = backend.client {
            self.lane(index, lane).backend = None;
            if let Some(statement) = &backend.pending {
                self.then.push_back(Then::Answer(index, lane, Err(lost_connection(Some(statement)))));
            }
        }
    }
}

/// What a lost connection means for the statement under way.
fn lost_connection(statement: Option<&Statement>) -> Failure {
    match statement {
        Some(Statement::Commit) => Failure::new(FailureKind::Unknown, "the connection was lost at COMMIT"),
        _ => Failure::transient("the connection to the database was lost"),
    }
}
