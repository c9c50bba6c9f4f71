//! The database without a network: statements are executed at once, or wait for a lock until somebody lets it go.

use tine_core::failure::{Failure, FailureKind};
use tine_state::{GroupSpec, Reply, ShardRef, StateIndex, Statement};

use crate::sql::{Answer, BackendId, Owner, Sql, table::Cells};

/// What a statement came to.
pub type Answered = Result<Reply, Failure>;

/// The database with one group in it, and the connections of its clients. A clone is another world.
#[derive(Clone, Debug)]
pub struct FakeSql {
    sql: Sql,
    clients: Vec<Client>,
}

/// A client's side of a connection, as [`Session`](tine_state::Session) asks for it.
#[derive(Clone, Debug, Default)]
struct Client {
    /// Its connection; the server may have ended it since.
    backend: Option<BackendId>,
    /// A statement of it is under way.
    waits: bool,
    /// The statement under way, or the last one, is a commit.
    at_commit: bool,
}

const OWNER: Owner = Owner { node: 0, life: 0 };

impl FakeSql {
    /// The database after the group's tables were created. `locates`: whether it knows its place in its history, as
    /// Postgres does and SQLite does not.
    pub fn new(group: &GroupSpec, locates: bool) -> FakeSql {
        FakeSql { sql: Sql::new(group, locates), clients: Vec::new() }
    }

    /// A new client.
    pub fn session(&mut self) -> usize {
        self.clients.push(Client::default());
        self.clients.len() - 1
    }

    /// Executes a statement for a client; `None` when it waits for a lock.
    pub fn execute(&mut self, client: usize, statement: &Statement) -> Option<Answered> {
        let begins = matches!(statement, Statement::Begin(_) | Statement::Read);
        let alive = |backend: &BackendId| self.sql.backends.contains_key(backend);
        self.clients[client].at_commit = matches!(statement, Statement::Commit);
        let backend = match self.clients[client].backend {
            Some(backend) if alive(&backend) => backend,
            _ if begins => self.connect(client),
            _ if matches!(statement, Statement::Rollback) => {
                // What was lost is over with it: nobody hears of it any more.
                self.clients[client].backend = None;
                return Some(Ok(Reply::Done));
            }
            Some(_) => {
                let lost = self.lost(client);
                return Some(self.sql.check(statement).map_or_else(Err, |()| lost));
            }
            None => return Some(Err(Failure::transient("no transaction is open: its connection was lost"))),
        };
        match self.sql.execute(backend, statement) {
            Answer::Now(answer) => Some(answer),
            Answer::Waits => {
                self.clients[client].waits = true;
                None
            }
        }
    }

    /// What clients are answered whose locks have become free, in the order in which they waited.
    pub fn released(&mut self) -> Vec<(usize, Answered)> {
        let mut released = Vec::new();
        loop {
            let gone_on = self.sql.go_on();
            if gone_on.is_empty() {
                return released;
            }
            for (backend, _, answer) in gone_on {
                let (Answer::Now(answer), Some(client)) = (answer, self.client_of(backend)) else {
                    // Nobody is there to be answered: the server notices now.
                    self.sql.terminate(backend);
                    continue;
                };
                self.clients[client].waits = false;
                released.push((client, answer));
            }
        }
    }

    /// A client is gone. What it had sent is executed when its lock becomes free, and only then the server notices.
    pub fn hang_up(&mut self, client: usize) {
        let client = std::mem::take(&mut self.clients[client]);
        if let Some(backend) = client.backend.filter(|backend| !self.sql.waits(*backend)) {
            self.sql.terminate(backend);
        }
    }

    /// The server ends a connection; the answer, if its client waits for one.
    pub fn terminate(&mut self, client: usize) -> Option<Answered> {
        self.sql.terminate(self.clients[client].backend?);
        std::mem::take(&mut self.clients[client].waits).then(|| self.lost(client))
    }

    /// A client has waited too long for a lock: a raise ends those who hold what it waits for, anybody else gives up.
    /// Everybody's answers.
    pub fn time_out(&mut self, client: usize) -> Vec<(usize, Answered)> {
        let Some(backend) = self.clients[client].backend.filter(|backend| self.sql.waits(*backend)) else {
            return Vec::new();
        };
        let mut answers = Vec::new();
        if self.sql.backends[&backend].tx.as_ref().is_some_and(|tx| tx.is_raise) {
            for holder in self.sql.holders(backend) {
                let ended = self.client_of(holder).and_then(|holder| Some((holder, self.terminate(holder)?)));
                answers.extend(ended);
            }
        } else {
            self.sql.roll_back(backend);
            self.clients[client].waits = false;
            answers.push((client, Err(Failure::transient("lock timeout (SQLSTATE 55P03)"))));
        }
        answers.extend(self.released());
        answers
    }

    /// Whether a client's statement waits for a lock.
    pub fn waits(&self, client: usize) -> bool {
        self.clients[client].waits
    }

    /// How many statements wait for a lock, those of clients that are gone included.
    pub fn waiting(&self) -> usize {
        self.sql.backends.keys().filter(|backend| self.sql.waits(**backend)).count()
    }

    /// Whether a client has a connection.
    pub fn connected(&self, client: usize) -> bool {
        self.clients[client].backend.is_some_and(|backend| self.sql.backends.contains_key(&backend))
    }

    /// How many connections there are, those of clients that are gone included.
    pub fn connections(&self) -> usize {
        self.sql.backends.len()
    }

    /// Whether a client's transaction is open.
    pub fn in_transaction(&self, client: usize) -> bool {
        let backend = self.clients[client].backend.and_then(|backend| self.sql.backends.get(&backend));
        backend.is_some_and(|backend| backend.tx.is_some())
    }

    /// A row that somebody else had put into a state's table.
    pub fn put(&mut self, state: StateIndex, key: &Cells, value: &Cells) {
        self.sql.tables[usize::from(state.0)].put(key, Some(value));
    }

    /// A ledger row that somebody has deleted.
    pub fn lose_row(&mut self, at: ShardRef) {
        self.sql.lose_row(at);
    }

    /// A state's table, by key.
    pub fn table(&self, state: StateIndex) -> Vec<(Cells, Cells)> {
        let rows = &self.sql.tables[usize::from(state.0)].rows;
        rows.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn connect(&mut self, client: usize) -> BackendId {
        let backend = self.sql.connect(OWNER, 0);
        self.clients[client].backend = Some(backend);
        backend
    }

    fn client_of(&self, backend: BackendId) -> Option<usize> {
        self.clients.iter().position(|client| client.backend == Some(backend))
    }

    /// What a lost connection means for the statement under way.
    fn lost(&mut self, client: usize) -> Answered {
        self.clients[client].backend = None;
        Err(match self.clients[client].at_commit {
            true => Failure::new(FailureKind::Unknown, "the connection was lost at COMMIT: it may have happened"),
            false => Failure::transient("the connection to the database was lost"),
        })
    }
}
