//! The database of the models: small enough to be a state, with the locks, waits and late statements of the real one.
//!
//! It executes the statements of `tine_state` one by one, as Postgres does under READ COMMITTED. The test
//! `the_database_of_the_models_is_the_simulators` holds it against the simulator's fake, which is held against Postgres.

use std::{collections::BTreeMap, sync::Arc};

use tine_core::{
    failure::Failure,
    hash::Hash128,
    id::{Attempt, TxId},
    mutant::{self, Mutant},
};
use tine_state::{
    Advance, Column, GroupRow, LedgerRow, Location, Reply, ShardRef, Snapshot, Statement, TransactionRow,
};

/// A connection as the server sees it. Numbers are used again once a backend has ended.
pub(crate) type BackendId = usize;

/// What became of a statement.
#[derive(Debug)]
pub(crate) enum Answer {
    Now(Result<Reply, Failure>),
    Waits,
}

/// What a copy holds.
#[derive(Clone, Debug)]
struct Copy {
    group: GroupRow,
    rows: Vec<LedgerRow>,
    plans: BTreeMap<TxId, Arc<TransactionRow>>,
    table: BTreeMap<(u16, i64), i64>,
}

/// The database with one group of one state in it.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(crate) group: GroupRow,
    pub(crate) rows: Vec<LedgerRow>,
    pub(crate) plans: BTreeMap<TxId, Arc<TransactionRow>>,
    /// The user's table: how often each shard has counted each record.
    pub(crate) table: BTreeMap<(u16, i64), i64>,
    pub(crate) backends: BTreeMap<BackendId, Backend>,
    group_lock: Option<BackendId>,
    row_locks: Vec<Option<BackendId>>,
    /// A commit that must not be.
    pub(crate) broken: Option<&'static str>,
    /// Somebody has laid hands on the ledger: the group must halt.
    pub(crate) spoiled: bool,
    /// Whether a copy is kept of what stood before the last raise, and that copy.
    keeps: bool,
    yesterday: Option<Arc<Copy>>,
}

/// One connection.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    /// Whose it is: process and lane; `None` when its client is gone.
    pub(crate) client: Option<(usize, usize)>,
    /// The statement that is on its way.
    pub(crate) pending: Option<Statement>,
    /// Whether that statement has begun and waits for a lock.
    pub(crate) waits: bool,
    pub(crate) tx: Option<Tx>,
}

/// An open transaction: what it would write.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tx {
    is_raise: bool,
    /// Rows that a waiting compare-and-set goes for.
    candidates: Option<Vec<usize>>,
    moved: Option<(Vec<usize>, Arc<Advance>)>,
    fence: Option<Attempt>,
    plan: Option<Arc<TransactionRow>>,
}

impl Backend {
    pub(crate) fn is_raise(&self) -> bool {
        self.tx.as_ref().is_some_and(|tx| tx.is_raise)
    }
}

impl Database {
    /// A database with a group of these shards, in which nothing is committed.
    pub(crate) fn new(lineage: u128, shards: &[ShardRef], keeps: bool) -> Database {
        let row = |at: &ShardRef| LedgerRow {
            at: *at,
            fence: Attempt::NONE,
            txid: TxId::NONE,
            chain: Hash128(0),
            manifest: Hash128(0),
            attempt: Attempt::NONE,
        };
        Database {
            group: GroupRow { lineage, fingerprint: Hash128(0), fence: Attempt::NONE, shards: shards.to_vec() },
            rows: shards.iter().map(row).collect(),
            plans: BTreeMap::new(),
            table: BTreeMap::new(),
            backends: BTreeMap::new(),
            group_lock: None,
            row_locks: vec![None; shards.len()],
            broken: None,
            spoiled: false,
            keeps,
            yesterday: None,
        }
    }

    pub(crate) fn can_go_back(&self) -> bool {
        self.yesterday.is_some()
    }

    /// Everything is as it was before the last raise; no connection is open.
    pub(crate) fn go_back(&mut self) {
        if let Some(copy) = self.yesterday.take() {
            let Copy { group, rows, plans, table } = Arc::unwrap_or_clone(copy);
            (self.group, self.rows, self.plans, self.table) = (group, rows, plans, table);
        }
    }

    /// The last transaction that every shard has.
    pub(crate) fn complete(&self) -> TxId {
        self.rows.iter().map(|row| row.txid).min().unwrap_or_default()
    }

    pub(crate) fn connect(&mut self, client: (usize, usize)) -> BackendId {
        let id = (0..).find(|id| !self.backends.contains_key(id)).unwrap_or_default();
        self.backends.insert(id, Backend { client: Some(client), pending: None, waits: false, tx: None });
        id
    }

    /// Ends a backend: its transaction is rolled back, its locks are free.
    pub(crate) fn terminate(&mut self, id: BackendId) -> Option<Backend> {
        self.release(id);
        self.backends.remove(&id)
    }

    /// Whether a statement of this backend would have to wait now, or goes on waiting.
    pub(crate) fn is_blocked(&self, id: BackendId, statement: &Statement) -> bool {
        let held = |lock: &Option<BackendId>| lock.is_some_and(|holder| holder != id);
        match statement {
            Statement::LockGroup => held(&self.group_lock),
            Statement::LockRows(shards) => {
                self.indexes(shards.as_deref()).iter().any(|row| held(&self.row_locks[*row]))
            }
            Statement::Advance(advance) => self.candidates(id, advance).iter().any(|row| held(&self.row_locks[*row])),
            _ => false,
        }
    }

    /// The backends that hold locks which this one does not: what a raise that waits ends by name.
    pub(crate) fn holders(&self, id: BackendId) -> Vec<BackendId> {
        let locks = self.row_locks.iter().chain([&self.group_lock]).flatten();
        let mut holders: Vec<BackendId> = locks.copied().filter(|holder| *holder != id).collect();
        holders.sort_unstable();
        holders.dedup();
        holders
    }

    pub(crate) fn execute(&mut self, id: BackendId, statement: &Statement) -> Answer {
        let answer = match statement {
            Statement::Begin(promised) => {
                self.release(id);
                self.tx(id, |tx| *tx = Some(Tx { is_raise: promised.is_none(), ..Tx::default() }));
                Some(Reply::Done)
            }
            Statement::Read => Some(Reply::Snapshot(Box::new(self.snapshot()))),
            Statement::Rollback => {
                self.release(id);
                self.tx(id, |tx| *tx = None);
                Some(Reply::Done)
            }
            _ if self.backends[&id].tx.is_none() => {
                return Answer::Now(Err(Failure::transient("no transaction is open")));
            }
            Statement::LockGroup => (!self.is_blocked(id, statement)).then(|| {
                self.group_lock = Some(id);
                Reply::Group(Some(self.group.clone()))
            }),
            Statement::LockRows(shards) => self.lock_rows(id, &self.indexes(shards.as_deref())),
            Statement::Advance(advance) => self.advance(id, advance),
            Statement::WriteFence(fence) => {
                self.write(id, |tx| tx.fence = Some(*fence));
                Some(Reply::Written(self.rows.len() as u64))
            }
            Statement::WritePlan(row) => {
                self.write(id, |tx| tx.plan = Some(row.clone()));
                Some(Reply::Written(1))
            }
            Statement::Commit => {
                self.commit(id);
                Some(Reply::Done)
            }
            Statement::Load(..) => return Answer::Now(Err(Failure::fatal("these models load nothing"))),
        };
        answer.map_or(Answer::Waits, |reply| Answer::Now(Ok(reply)))
    }

    fn tx(&mut self, id: BackendId, change: impl FnOnce(&mut Option<Tx>)) {
        if let Some(backend) = self.backends.get_mut(&id) {
            change(&mut backend.tx);
        }
    }

    fn write(&mut self, id: BackendId, change: impl FnOnce(&mut Tx)) {
        self.tx(id, |tx| change(tx.get_or_insert_default()));
    }

    fn release(&mut self, id: BackendId) {
        let locks = self.row_locks.iter_mut().chain([&mut self.group_lock]);
        locks.filter(|lock| **lock == Some(id)).for_each(|lock| *lock = None);
    }

    fn indexes(&self, shards: Option<&[ShardRef]>) -> Vec<usize> {
        let wanted = |row: &LedgerRow| shards.is_none_or(|shards| shards.contains(&row.at));
        (0..self.rows.len()).filter(|index| wanted(&self.rows[*index])).collect()
    }

    fn lock_rows(&mut self, id: BackendId, indexes: &[usize]) -> Option<Reply> {
        let all = indexes.iter().all(|index| match self.row_locks[*index] {
            Some(holder) if holder != id => false,
            _ => {
                self.row_locks[*index] = Some(id);
                true
            }
        });
        all.then(|| Reply::Rows(indexes.iter().map(|index| self.rows[*index].clone()).collect()))
    }

    /// The rows that a compare-and-set goes for: decided by what is committed when it begins.
    fn candidates(&self, id: BackendId, advance: &Advance) -> Vec<usize> {
        let known = self.backends.get(&id).and_then(|backend| backend.tx.as_ref()).and_then(|tx| tx.candidates.clone());
        known.unwrap_or_else(|| {
            let indexes = self.indexes(Some(&advance.shards)).into_iter();
            indexes.filter(|index| advance.admits(&self.rows[*index])).collect()
        })
    }

    fn advance(&mut self, id: BackendId, advance: &Arc<Advance>) -> Option<Reply> {
        let candidates = self.candidates(id, advance);
        if self.lock_rows(id, &candidates).is_none() {
            self.write(id, |tx| tx.candidates = Some(candidates));
            return None;
        }
        let moved: Vec<usize> = candidates.into_iter().filter(|index| advance.admits(&self.rows[*index])).collect();
        let (count, all) = (moved.len() as u64, moved.len() == advance.shards.len());
        self.write(id, |tx| {
            tx.candidates = None;
            tx.moved = Some((moved, advance.clone()));
        });
        Some(Reply::Advanced { moved: count, merged: if all { advance.rows() } else { 0 } })
    }

    fn commit(&mut self, id: BackendId) {
        self.release(id);
        let Some(tx) = self.backends.get_mut(&id).and_then(|backend| backend.tx.take()) else { return };
        if let Some(row) = tx.plan {
            self.set_plan(row);
        }
        if let Some((moved, advance)) = tx.moved {
            self.check(&moved, &advance);
            if moved.len() == advance.shards.len() {
                self.merge(&advance);
            }
            for index in moved {
                let Advance { attempt, txid, chain, manifest, .. } = *advance;
                self.rows[index] = LedgerRow { attempt, txid, chain, manifest, ..self.rows[index].clone() };
            }
        }
        if let Some(fence) = tx.fence {
            if self.keeps {
                let (group, rows) = (self.group.clone(), self.rows.clone());
                let (plans, table) = (self.plans.clone(), self.table.clone());
                self.yesterday = Some(Arc::new(Copy { group, rows, plans, table }));
            }
            if self.group.fence.partial_cmp(&fence).is_none_or(std::cmp::Ordering::is_gt) {
                self.broken = Some("the fence went back");
            }
            self.group.fence = fence;
            self.rows.iter_mut().for_each(|row| row.fence = fence);
        }
        let complete = self.complete();
        self.plans.retain(|txid, _| *txid >= complete);
    }

    fn check(&mut self, moved: &[usize], advance: &Advance) {
        for row in moved.iter().map(|index| &self.rows[*index]) {
            let plan = self.plans.get(&advance.txid);
            self.broken = match plan {
                _ if row.fence != advance.attempt => Some("a commit under a fence that is not its own"),
                _ if row.txid.next() != advance.txid => Some("a row moved by more than one transaction"),
                _ if row.chain != advance.previous => Some("a commit after another history"),
                Some(plan) if plan.chain == advance.chain => continue,
                _ => Some("a commit without its plan in the database"),
            };
        }
    }

    fn set_plan(&mut self, row: Arc<TransactionRow>) {
        if self.rows.iter().any(|at| at.txid >= row.txid && at.chain != row.chain) {
            self.broken = Some("the plan of a committed transaction was replaced");
        }
        self.plans.split_off(&row.txid);
        if mutant::on(Mutant::PlanTrimmedEarly) {
            self.plans.clear();
        }
        self.plans.insert(row.txid, row);
    }

    fn merge(&mut self, advance: &Advance) {
        for (_, rows) in &advance.tables {
            let [Column::BigInt(records)] = &rows.keys[..] else { continue };
            let [Column::BigInt(counts)] = &rows.values[..] else { continue };
            for ((record, count), shard) in records.iter().zip(counts).zip(&rows.shards) {
                *self.table.entry((shard.0, *record)).or_default() += count;
            }
        }
    }

    /// Somebody deletes a ledger row; no transaction is open.
    pub(crate) fn lose_row(&mut self, index: usize) {
        if index < self.rows.len() {
            self.rows.remove(index);
            self.row_locks.remove(index);
        }
        self.spoiled = true;
    }

    /// Somebody puts the ledger of a copy with another history in the place of this one.
    pub(crate) fn become_foreign(&mut self) {
        self.rows.iter_mut().for_each(|row| row.chain = Hash128(row.chain.0 ^ 1));
        self.spoiled = true;
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            group: self.group.clone(),
            rows: self.rows.clone(),
            transactions: self.plans.range(self.complete()..).map(|(_, row)| (**row).clone()).collect(),
            location: Location::default(),
        }
    }
}
