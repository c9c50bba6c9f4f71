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
    invariants::invariant_a_miss_at_an_abort_abdicates,
    sql::{Answer, BackendId, Owner},
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
        let backend = match (side.backend, &statement) {
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
    fn client_gives_up(&mut self, from: Address, after_us: u64) {
        let Address { node, lane, sent, .. } = from;
        let answer = Err(self.lost_connection(node, lane));
        self.later(node, after_us, Inbound::Sql { lane, sent, answer, drop: true });
    }

    /// What a lost connection means for the statement under way.
    fn lost_connection(&self, node: usize, lane: usize) -> Failure {
        match self.nodes[node].lanes[lane].at_commit {
            true => {
                Failure::new(FailureKind::Unknown, "the connection was lost at COMMIT: it may or may not have happened")
            }
            false => Failure::transient("the connection to the database was lost"),
        }
    }

    /// A statement arrives at the server.
    pub(crate) fn on_statement(&mut self, backend: BackendId, from: Address, statement: &Statement) {
        let Some(server) = self.sql.backends.get_mut(&backend) else {
            return self.answer(from, None);
        };
        server.active_us = self.now_us;
        if let Some(fault) = self.forces.abort.get(from.node).copied().flatten()
            && !matches!(statement, Statement::Rollback | Statement::Read)
            && self.draws.sql.chance(50)
        {
            self.took_effect(fault);
            self.sql.roll_back(backend);
            self.go_on_waiting();
            return self.answer(from, Some(Err(Failure::transient("deadlock detected (SQLSTATE 40P01)"))));
        }
        let before = self.sql.history.len();
        match self.sql.execute(backend, statement) {
            Answer::Waits => {
                self.waiting.insert(backend, from);
                let at_us = self.now_us + self.settings.lock_timeout_ms * 1000;
                self.agenda.put(at_us, Event::LockTimeout(backend, from));
            }
            Answer::Now(answer) => {
                if self.sql.history.len() > before {
                    self.committed(from);
                }
                self.after_statement(backend, from, statement, answer);
            }
        }
        self.go_on_waiting();
    }

    fn after_statement(
        &mut self,
        backend: BackendId,
        from: Address,
        statement: &Statement,
        answer: Result<SqlReply, Failure>,
    ) {
        let owner = &self.nodes[from.node];
        let open = self.sql.backends.get(&backend).is_some_and(|server| server.tx.is_some());
        if open && (owner.paused || !owner.up || owner.life != from.life) {
            self.agenda.put(self.now_us + self.settings.idle_timeout_ms * 1000, Event::IdleCheck(backend));
        }
        if matches!(statement, Statement::Commit)
            && let Some(fault) = self.forces.lost_commit.get(from.node).copied().flatten()
        {
            self.took_effect(fault);
            let after_us = self.draws.sql.between(5_000, self.settings.answer_timeout_ms * 1000);
            return self.client_gives_up(from, after_us);
        }
        self.answer(from, Some(answer));
    }

    /// Something was committed: checks everything that must hold from now on.
    fn committed(&mut self, from: Address) {
        let Some(last) = self.sql.history.last() else { return };
        self.trace.mix(self.now_us, last.moved.len() as u64 ^ ((last.changes.len() as u64) << 8));
        if self.settings.timeline {
            let what = match (&last.fences, &last.plan, last.moved.first()) {
                (Some(_), ..) => format!("the fence {}", self.sql.group.fence),
                (_, Some((txid, ..)), None) => format!("the plan of transaction {txid}"),
                (_, _, Some((index, _))) => {
                    format!("transaction {} of {} shards", self.sql.rows[*index].txid, last.moved.len())
                }
                _ => "nothing".to_owned(),
            };
            let gone = if self.nodes[from.node].life == from.life { "" } else { ", whose life is over" };
            self.trace.say(self.now_us, || format!("the database commits {what} for process {}{gone}", from.node));
        }
        let found = self.checker.committed(&self.sql, &self.sources);
        self.check(found);
        self.look_whether_drained();
    }

    /// Sends an answer back; `None`: the connection is gone.
    pub(crate) fn answer(&mut self, from: Address, answer: Option<Result<SqlReply, Failure>>) {
        let Address { node, life, lane, sent } = from;
        if self.nodes[node].life != life {
            return;
        }
        let database = self.network.database();
        if self.is_cut(database, node) {
            return self.client_gives_up(from, self.settings.answer_timeout_ms * 1000);
        }
        let after_us = self.way_us(database, node);
        let drop = answer.is_none();
        let answer = answer.unwrap_or_else(|| Err(self.lost_connection(node, lane)));
        self.later(node, after_us, Inbound::Sql { lane, sent, answer, drop });
    }

    /// Lets statements go on whose locks have become free.
    pub(crate) fn go_on_waiting(&mut self) {
        while self.sql.somebody_waits() {
            let answered = self.sql.go_on();
            if answered.is_empty() {
                return;
            }
            for (backend, statement, answer) in answered {
                if let (Answer::Now(answer), Some(from)) = (answer, self.waiting.remove(&backend)) {
                    self.after_statement(backend, from, &statement, answer);
                }
            }
        }
    }

    /// A raise ends those who hold what it waits for; everybody else gives up.
    pub(crate) fn on_lock_timeout(&mut self, backend: BackendId, from: Address) {
        if self.waiting.get(&backend) != Some(&from) || !self.sql.waits(backend) {
            return;
        }
        let is_raise =
            self.sql.backends.get(&backend).and_then(|server| server.tx.as_ref()).is_some_and(|tx| tx.is_raise);
        if is_raise {
            for holder in self.sql.holders(backend) {
                self.end_backend(holder);
            }
            let at_us = self.now_us + self.settings.lock_timeout_ms * 1000;
            self.agenda.put(at_us, Event::LockTimeout(backend, from));
        } else {
            self.waiting.remove(&backend);
            self.sql.roll_back(backend);
            self.answer(from, Some(Err(Failure::transient("lock timeout (SQLSTATE 55P03)"))));
        }
        self.go_on_waiting();
    }

    pub(crate) fn on_idle_check(&mut self, backend: BackendId) {
        let Some(server) = self.sql.backends.get(&backend) else { return };
        let until_us = server.active_us + self.settings.idle_timeout_ms * 1000;
        if server.tx.is_none() || self.sql.waits(backend) {
            return;
        }
        match until_us <= self.now_us {
            true => self.end_backend(backend),
            false => self.agenda.put(until_us, Event::IdleCheck(backend)),
        }
    }

    /// The server ends a backend: its transaction is rolled back.
    pub(crate) fn end_backend(&mut self, backend: BackendId) {
        if let Some(from) = self.waiting.remove(&backend) {
            self.answer(from, None);
        }
        if self.sql.terminate(backend) {
            self.lock_freed(backend);
            self.go_on_waiting();
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
        self.trace
            .say(self.now_us, || format!("process {node} ends its commit of {txid}, attempt {attempt}: {outcome:?}"));
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
