//! The database server's side of a session: statements arrive, wait for locks, are answered or not; idle transactions and
//! backends whose clients are gone come to an end.

use tine_core::failure::Failure;
use tine_state::{Reply as SqlReply, Statement};

use super::{
    Engine,
    event::{Address, Event, Inbound},
};
use crate::{
    faults::{Kind, Point, SqlState},
    sql::{Answer, BackendId},
};

impl Engine<'_> {
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
        if let Some(fault) = self.forces.sql_state.get(from.node).copied().flatten()
            && let Kind::SqlState(_, state) = self.plan.faults[fault].kind
            && !matches!(statement, Statement::Rollback | Statement::Read)
        {
            self.took_effect(fault);
            return self.refuse(backend, from, statement, state);
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

    /// Answers a statement with an error, as the connector for Postgres understands it.
    fn refuse(&mut self, backend: BackendId, from: Address, statement: &Statement, state: SqlState) {
        if state == SqlState::AdminShutdown {
            self.end_backend(backend);
            return self.answer(from, None);
        }
        self.sql.roll_back(backend);
        self.go_on_waiting();
        let words = format!("{} (SQLSTATE {})", state.words(), state.code());
        let failure = Failure::new(state.kind(matches!(statement, Statement::Commit)), words);
        self.answer(from, Some(Err(failure)));
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
        let moved = last.moved.first().map(|(index, _)| self.sql.rows[*index].txid);
        if let Some(txid) = moved {
            self.reach(Point::Committed, txid.0, from.node);
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
}
