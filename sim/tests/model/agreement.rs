//! Holds the database of the models against the simulator's fake: the same procedures on both, in the same random order,
//! are answered the same.

use std::sync::Arc;

use tine_core::{
    failure::Failure,
    hash::Hash128,
    id::{Attempt, Epoch, Generation, Nonce, TxId},
};
use tine_sim::fakes::sql::FakeSql;
use tine_state::{
    ColumnType, CommitOrder, GroupSpec, Ident, KeyColumn, Location, Merge, Procedure, Reply, StateSpec, Statement,
    Step, TableSpec, TransactionRow, ValueColumn,
};

use super::{
    database::{Answer, BackendId, Database},
    process::{Job, PROCESSES, Running},
    records::{at, fold_records},
};

const CLIENTS: usize = 3;
const LINEAGE: u128 = 7;

/// Both databases, and clients that run procedures on them.
pub(crate) struct Agreement {
    model: Database,
    fake: FakeSql,
    clients: Vec<Client>,
    /// Clients whose statements wait, in the order in which they came.
    waiting: Vec<usize>,
    draws: u64,
    pub(crate) answers: usize,
    pub(crate) waits: usize,
}

#[derive(Default)]
struct Client {
    backend: Option<BackendId>,
    running: Option<(Running, Statement)>,
}

impl Agreement {
    pub(crate) fn new(seed: u64) -> Agreement {
        let mut fake = FakeSql::new(&spec(), false);
        let clients = (0..CLIENTS).map(|_| {
            fake.session();
            Client::default()
        });
        let clients = clients.collect();
        let model = Database::new(LINEAGE, &(0..PROCESSES).map(at).collect::<Vec<_>>(), false);
        Agreement { model, fake, clients, waiting: Vec::new(), draws: seed, answers: 0, waits: 0 }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.draws = self.draws.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.draws >> 33) % below
    }

    /// One statement of a random client, on both.
    pub(crate) fn step(&mut self) {
        let client = self.draw(CLIENTS as u64) as usize;
        if self.waiting.contains(&client) {
            return;
        }
        if self.clients[client].running.is_none() {
            let started = self.job().start();
            self.clients[client].running = Some(started);
        }
        let Some((_, statement)) = &self.clients[client].running else { return };
        let statement = statement.clone();
        let theirs = self.fake.execute(client, &statement);
        match (self.on_the_model(client, &statement), theirs) {
            (Answer::Waits, None) => {
                self.waits += 1;
                self.waiting.push(client);
            }
            (Answer::Now(mine), Some(theirs)) => self.answered(client, &statement, mine, &theirs),
            (mine, theirs) => panic!("{statement:?}: the model says {mine:?} and the fake {theirs:?}"),
        }
        self.release();
    }

    fn on_the_model(&mut self, client: usize, statement: &Statement) -> Answer {
        let connects = matches!(statement, Statement::Begin(_) | Statement::Read);
        let backend = match self.clients[client].backend {
            Some(backend) => backend,
            None if connects => *self.clients[client].backend.insert(self.model.connect((client, 0))),
            None => return Answer::Now(Ok(Reply::Done)),
        };
        self.model.execute(backend, statement)
    }

    /// Those who waited go on, in both.
    fn release(&mut self) {
        let mut theirs = self.fake.released();
        loop {
            let mut gone_on = false;
            for client in self.waiting.clone() {
                let Some((_, statement)) = &self.clients[client].running else { continue };
                let statement = statement.clone();
                if let Answer::Now(mine) = self.on_the_model(client, &statement) {
                    let place = theirs.iter().position(|(other, _)| *other == client);
                    let place = place.unwrap_or_else(|| panic!("{statement:?} still waits in the fake"));
                    let (_, answer) = theirs.remove(place);
                    self.waiting.retain(|waiting| *waiting != client);
                    self.answered(client, &statement, mine, &answer);
                    gone_on = true;
                }
            }
            if !gone_on {
                assert!(theirs.is_empty(), "these wait in the model alone: {theirs:?}");
                return;
            }
        }
    }

    fn answered(
        &mut self,
        client: usize,
        statement: &Statement,
        mine: Result<Reply, Failure>,
        theirs: &Result<Reply, Failure>,
    ) {
        self.answers += 1;
        assert_eq!(format!("{mine:?}"), format!("{theirs:?}"), "after {statement:?}");
        let Some((mut running, _)) = self.clients[client].running.take() else { return };
        let next = match &mut running {
            Running::Commit(procedure, ..) => next(procedure.step(mine)),
            Running::Raise(procedure, _) => next(procedure.step(mine)),
            Running::Prepare(procedure, ..) => next(procedure.step(mine)),
        };
        self.clients[client].running = next.map(|statement| (running, statement));
    }

    /// A job that often fits what the ledger says.
    fn job(&mut self) -> Job {
        let fence = self.model.group.fence;
        let attempt = match self.draw(4) {
            0 => Attempt::new(Epoch(self.draw(4)), Nonce(self.draw(2)), Generation(self.draw(4))),
            1 => fence.next_generation(),
            _ => fence,
        };
        let shard = self.draw(PROCESSES as u64) as usize;
        let row = self.model.rows[shard].clone();
        let txid = if self.draw(5) == 0 { TxId(self.draw(4)) } else { row.txid.next() };
        let chain = Hash128(row.chain.0 + u128::from(txid.0));
        match self.draw(4) {
            0 => Job::Raise(attempt),
            1 => {
                let manifest = Hash128(self.draw(2).into());
                let (plan, ranges) = (vec![1, 2], String::new());
                let row = TransactionRow { txid, previous: row.chain, chain, manifest, attempt, plan, ranges };
                Job::Prepare(Arc::new(row), Location::default())
            }
            _ => Job::Commit(Box::new(CommitOrder {
                attempt,
                txid,
                previous: row.chain,
                chain,
                manifest: Hash128(1),
                shards: if self.draw(3) == 0 { [at(0), at(1)].into() } else { [at(shard)].into() },
                tables: fold_records(shard, vec![self.draw(5) as i64]).tables,
                plan: None,
                location: Location::default(),
            })),
        }
    }
}

fn next<O>(step: Step<O>) -> Option<Statement> {
    match step {
        Step::Next(statement) => Some(statement),
        Step::Done(_) => None,
    }
}

fn spec() -> GroupSpec {
    let name = |name| Ident::new(name).unwrap();
    GroupSpec {
        topology: "model".to_owned(),
        group: "main".to_owned(),
        states: vec![StateSpec {
            name: "counts".to_owned(),
            shards: PROCESSES as u16,
            table: TableSpec {
                schema: None,
                name: name("counts"),
                keys: vec![KeyColumn { name: name("record"), kind: ColumnType::BigInt }],
                values: vec![ValueColumn { name: name("n"), kind: ColumnType::BigInt, merge: Merge::Add }],
                adopt: false,
                shared: false,
            },
        }],
        fingerprint: Hash128(0),
        shape: String::new(),
        lineage: LINEAGE,
    }
}
