//! Runs SQL procedures on a session, statement by statement: each goes to the server, waits there perhaps, comes back
//! perhaps; and a client that is gone does not stop what it has sent.

use tine_core::{
    failure::{Failure, FailureKind},
    id::Generation,
};
use tine_state::{
    CommitOutcome, Committer, Prepare, PrepareOutcome, Procedure, Raise, RaiseOutcome, Reply as SqlReply, Statement,
    Step,
};
use tine_trident::{committer::CommitterReply, coordinator::event::Reply};

use super::{
    Engine,
    event::{Address, Event, Inbound, Job},
    node::Running,
};
use crate::{
    faults::Point,
    invariants::invariant_a_miss_at_an_abort_abdicates,
    sql::{BackendId, Owner},
};

impl Engine<'_> {
    /// Queues a job for a session.
    pub(crate) fn job(&mut self, node: usize, lane: usize, job: Job) {
        self.nodes[node].lanes[lane].queue.push_back(job);
        self.next_job(node, lane);
    }

    fn next_job(&mut self, node: usize, lane: usize) {
        if self.nodes[node].lanes[lane].running.is_some() {
            return;
        }
        let Some(job) = self.nodes[node].lanes[lane].queue.pop_front() else { return };
        let (running, statement) = match job {
            Job::Commit(order) => {
                let (attempt, txid) = (order.attempt, order.txid);
                let mut committer = Box::new(Committer::new(*order));
                let statement = committer.start();
                (Running::Commit(committer, attempt, txid), statement)
            }
            Job::Raise(attempt) => {
                // On a new connection: nothing that an older one holds or has forgotten can stand in the way.
                self.drop_backend(node, lane);
                let mut raise = Box::new(Raise::new(attempt));
                let statement = raise.start();
                (Running::Raise(raise, attempt), statement)
            }
            Job::Prepare(row, location) => {
                let (attempt, txid) = (row.attempt, row.txid);
                let mut prepare = Box::new(Prepare::new(row, location));
                let statement = prepare.start();
                (Running::Prepare(prepare, attempt, txid), statement)
            }
            Job::ReadGroup => (Running::ReadGroup, Statement::Read),
        };
        self.nodes[node].lanes[lane].running = Some(running);
        self.send_statement(node, lane, statement);
    }

    /// Sends a statement to the server. `Begin` and `Read` connect; others need the connection of their transaction.
    fn send_statement(&mut self, node: usize, lane: usize, statement: Statement) {
        let life = self.nodes[node].life;
        let database = self.network.database();
        let side = &mut self.nodes[node].lanes[lane];
        side.sent += 1;
        side.at_commit = matches!(statement, Statement::Commit);
        let from = Address { node, life, lane, sent: side.sent };
        let commits = match &side.running {
            Some(Running::Commit(_, _, txid)) if side.at_commit => Some(*txid),
            _ => None,
        };
        if let Some(txid) = commits {
            self.reach(Point::CommitSent, txid.0, node);
        }
        let backend = match (self.nodes[node].lanes[lane].backend, &statement) {
            (Some(backend), _) if self.sql.backends.contains_key(&backend) => backend,
            (Some(backend), Statement::Begin(_) | Statement::Read) | (Some(backend), Statement::Rollback) => {
                // The connection has gone stale between two transactions: a new one, or nothing left to roll back.
                let _ = backend;
                self.connect(node, lane)
            }
            (Some(backend), _) => backend,
            (None, Statement::Begin(_) | Statement::Read) => self.connect(node, lane),
            (None, _) => {
                let answer = Err(Failure::transient("no transaction is open: its connection was lost"));
                let what = Inbound::Sql { lane, sent: from.sent, answer, drop: true };
                return self.later(node, 50, what);
            }
        };
        if self.is_cut(node, database) {
            return self.client_gives_up(from, self.settings.answer_timeout_ms * 1000);
        }
        let mut after_us = self.way_us(node, database) + self.draws.sql.between(50, 600);
        if let Some(fault) = self.forces.late.get(node).copied().flatten()
            && !matches!(statement, Statement::Rollback)
            && self.draws.sql.chance(50)
        {
            after_us += self.draws.sql.between(20_000, 450_000);
            self.took_effect(fault);
            if after_us > self.settings.answer_timeout_ms * 1000 {
                self.client_gives_up(from, self.settings.answer_timeout_ms * 1000);
            }
        }
        if let Some(fault) = self.forces.die_in_commit.get(node).copied().flatten()
            && commits.is_some()
        {
            after_us += self.draws.sql.between(1_000, 300_000);
            self.forces.die_in_commit[node] = None;
            self.agenda.put(self.now_us, Event::Die(node, fault));
        }
        if let Some(server) = self.sql.backends.get_mut(&backend) {
            server.arrives_us = server.arrives_us.max(self.now_us + after_us);
        }
        self.agenda.put(self.now_us + after_us, Event::Sql { backend, from, statement });
    }

    fn connect(&mut self, node: usize, lane: usize) -> BackendId {
        let owner = Owner { node, life: self.nodes[node].life };
        let backend = self.sql.connect(owner, self.now_us);
        self.nodes[node].lanes[lane].backend = Some(backend);
        backend
    }

    /// The client stops waiting and drops the connection, unless the answer comes before.
    pub(crate) fn client_gives_up(&mut self, from: Address, after_us: u64) {
        let Address { node, lane, sent, .. } = from;
        let answer = Err(self.lost_connection(node, lane));
        self.later(node, after_us, Inbound::Sql { lane, sent, answer, drop: true });
    }

    /// What a lost connection means for the statement under way.
    pub(crate) fn lost_connection(&self, node: usize, lane: usize) -> Failure {
        match self.nodes[node].lanes[lane].at_commit {
            true => {
                Failure::new(FailureKind::Unknown, "the connection was lost at COMMIT: it may or may not have happened")
            }
            false => Failure::transient("the connection to the database was lost"),
        }
    }

    /// The client lets go of a connection; the server notices later, and not before what is on its way has come.
    pub(crate) fn drop_backend(&mut self, node: usize, lane: usize) {
        if let Some(backend) = self.nodes[node].lanes[lane].backend.take() {
            self.abandon(backend);
        }
    }

    pub(crate) fn abandon(&mut self, backend: BackendId) {
        let Some(server) = self.sql.backends.get(&backend) else { return };
        let from_us = server.arrives_us.max(self.now_us);
        let after_us = self.draws.sql.between(500, self.settings.idle_timeout_ms * 1000);
        self.agenda.put(from_us + after_us, Event::BackendGone(backend));
    }

    /// An answer arrives at its process.
    pub(crate) fn on_answer(
        &mut self,
        node: usize,
        lane: usize,
        sent: u64,
        answer: Result<SqlReply, Failure>,
        drop: bool,
    ) {
        if self.nodes[node].lanes[lane].sent != sent {
            return;
        }
        if drop {
            self.drop_backend(node, lane);
        }
        let Some(mut running) = self.nodes[node].lanes[lane].running.take() else { return };
        let next = match &mut running {
            Running::Commit(procedure, attempt, txid) => match procedure.step(answer) {
                Step::Next(statement) => statement,
                Step::Done(outcome) => return self.commit_ended(node, lane, (*attempt, *txid), outcome),
            },
            Running::Raise(procedure, attempt) => match procedure.step(answer) {
                Step::Next(statement) => statement,
                Step::Done(outcome) => return self.raise_ended(node, lane, *attempt, outcome),
            },
            Running::Prepare(procedure, attempt, txid) => match procedure.step(answer) {
                Step::Next(statement) => statement,
                Step::Done(outcome) => return self.prepare_ended(node, lane, (*attempt, *txid), outcome),
            },
            Running::ReadGroup => {
                self.next_job(node, lane);
                return self.on_group_read(node, answer);
            }
        };
        self.nodes[node].lanes[lane].running = Some(running);
        self.send_statement(node, lane, next);
    }

    fn commit_ended(
        &mut self,
        node: usize,
        lane: usize,
        (attempt, txid): (tine_core::id::Attempt, tine_core::id::TxId),
        outcome: CommitOutcome,
    ) {
        self.trace.say(self.now_us, || {
            format!("process {node} ends its commit of transaction {txid}, attempt {attempt}: {outcome:?}")
        });
        if matches!(outcome, CommitOutcome::Applied | CommitOutcome::AlreadyDone) {
            self.reach(Point::Acknowledged, txid.0, node);
        }
        let found = self.checker.told(txid, attempt, &outcome, &self.sql);
        self.check(found);
        self.next_job(node, lane);
        self.committer_reply(node, CommitterReply::Committed { attempt, txid, outcome });
    }

    fn raise_ended(&mut self, node: usize, lane: usize, attempt: tine_core::id::Attempt, outcome: RaiseOutcome) {
        self.trace.say(self.now_us, || match &outcome {
            RaiseOutcome::Raised(snapshot) => format!(
                "process {node} has raised the fence to {attempt}; shards stand at {:?}",
                snapshot.rows.iter().map(|row| row.txid.0).collect::<Vec<_>>()
            ),
            other => format!("process {node} has not raised the fence to {attempt}: {other:?}"),
        });
        self.next_job(node, lane);
        let missed = matches!(outcome, RaiseOutcome::Missed(_)) && attempt.generation > Generation(1);
        let before = self.nodes[node].claims;
        if matches!(outcome, RaiseOutcome::Raised(_)) {
            self.nodes[node].raised = attempt;
        }
        self.coordinator_reply(node, Reply::Raised(attempt, outcome));
        if missed {
            self.check(invariant_a_miss_at_an_abort_abdicates(attempt, self.nodes[node].claims == before));
        }
        self.look_whether_drained();
    }

    fn prepare_ended(
        &mut self,
        node: usize,
        lane: usize,
        (attempt, txid): (tine_core::id::Attempt, tine_core::id::TxId),
        outcome: PrepareOutcome,
    ) {
        self.next_job(node, lane);
        self.coordinator_reply(node, Reply::Prepared { attempt, txid, outcome });
    }
}
