//! A SQL database in memory that keeps Postgres's nasty semantics.
//!
//! Row locks with waiting; transactions of clients that died or sleep stay open and hold their locks until the server
//! notices; a statement that is on its way executes whether or not its client still lives; a compare-and-set passes over
//! rows that do not match what is *committed*, at once, even while another backend holds a change of them; and the
//! database may lose the tail of its history. READ COMMITTED throughout.
//!
//! A transaction holds what the procedures make of one: reads, then one compare-and-set, one fence and one plan at most.
//! What it wrote is seen by others at its commit, and never by itself.

mod backend;
mod commit;
pub(crate) mod table;

use std::{collections::BTreeMap, sync::Arc};

use tine_core::{
    failure::{Failure, FailureKind},
    id::{Attempt, TxId},
    mutant::{self, Mutant},
};
use tine_state::{
    Advance, GroupRow, GroupSpec, LedgerRow, Location, Reply, ShardRef, Snapshot, StateIndex, Statement, TransactionRow,
};

use self::table::SimTable;
pub(crate) use self::{
    backend::{Backend, BackendId, Owner, Tx},
    commit::Committed,
};

/// What became of a statement.
#[derive(Debug)]
pub(crate) enum Answer {
    /// This.
    Now(Result<Reply, Failure>),
    /// It waits for a lock.
    Waits,
}

/// The database with one group in it.
#[derive(Clone, Debug)]
pub(crate) struct Sql {
    pub(crate) group: GroupRow,
    pub(crate) rows: Vec<LedgerRow>,
    pub(crate) plans: BTreeMap<TxId, Arc<TransactionRow>>,
    pub(crate) tables: Vec<SimTable>,
    pub(crate) location: Location,
    /// Whether it knows where it is; SQLite does not.
    locates: bool,
    /// What was committed, oldest first, with what it takes to undo it.
    pub(crate) history: Vec<Committed>,
    pub(crate) backends: BTreeMap<BackendId, Backend>,
    next_backend: BackendId,
    group_lock: Option<BackendId>,
    row_locks: Vec<Option<BackendId>>,
    /// Statements that wait for a lock, in the order in which they came.
    waiting: Vec<(BackendId, Statement)>,
}

impl Sql {
    /// The database after the group's tables were created.
    pub(crate) fn new(spec: &GroupSpec, locates: bool) -> Sql {
        let shards = spec.shard_refs();
        let row = |at: &ShardRef| LedgerRow {
            at: *at,
            fence: Attempt::NONE,
            txid: TxId::NONE,
            chain: Default::default(),
            manifest: Default::default(),
            attempt: Attempt::NONE,
        };
        Sql {
            rows: shards.iter().map(row).collect(),
            row_locks: vec![None; shards.len()],
            group: GroupRow { lineage: spec.lineage, fingerprint: spec.fingerprint, fence: Attempt::NONE, shards },
            plans: BTreeMap::new(),
            tables: spec.states.iter().map(|state| SimTable::new(state.table.clone())).collect(),
            location: if locates { Location { system: 1, timeline: 1, lsn: 100 } } else { Location::default() },
            locates,
            history: Vec::new(),
            backends: BTreeMap::new(),
            next_backend: 1,
            group_lock: None,
            waiting: Vec::new(),
        }
    }

    /// Somebody deletes a ledger row.
    #[cfg(feature = "fakes")]
    pub(crate) fn lose_row(&mut self, at: ShardRef) {
        if let Some(index) = self.index_of(at) {
            self.rows.remove(index);
            self.row_locks.remove(index);
        }
    }

    /// The last transaction that every shard has.
    pub(crate) fn complete(&self) -> TxId {
        self.rows.iter().map(|row| row.txid).min().unwrap_or_default()
    }

    /// Executes a statement on a backend. One whose backend is gone fails: the caller says what that means.
    pub(crate) fn execute(&mut self, id: BackendId, statement: &Statement) -> Answer {
        let answer = match self.try_execute(id, statement) {
            Ok(Some(reply)) => Answer::Now(Ok(reply)),
            Ok(None) => {
                self.waiting.push((id, statement.clone()));
                Answer::Waits
            }
            Err(failure) => {
                self.roll_back(id);
                Answer::Now(Err(failure))
            }
        };
        if matches!(answer, Answer::Now(_))
            && let Some(tx) = self.transaction(id)
        {
            tx.candidates = None;
        }
        answer
    }

    /// `None`: it has to wait.
    fn try_execute(&mut self, id: BackendId, statement: &Statement) -> Result<Option<Reply>, Failure> {
        if self.transaction(id).is_some() {
            self.check(statement)?;
        }
        match statement {
            Statement::Begin(promised) => self.begin(id, *promised).map(Some),
            Statement::Read => {
                // A session reads in a transaction of its own.
                self.roll_back(id);
                Ok(Some(Reply::Snapshot(Box::new(self.snapshot()))))
            }
            Statement::Rollback => {
                self.roll_back(id);
                Ok(Some(Reply::Done))
            }
            _ if self.transaction(id).is_none() => Err(Failure::transient("no transaction is open")),
            Statement::LockGroup => Ok(self.lock_group(id).then(|| Reply::Group(Some(self.group.clone())))),
            Statement::LockRows(shards) => Ok(self.lock_rows(id, shards.as_deref())),
            Statement::Load(state, rows) => {
                table::storable(&rows.keys)?;
                let (present, values) = self.tables[usize::from(state.0)].load(rows);
                Ok(Some(Reply::Loaded { present, values }))
            }
            Statement::Advance(advance) => self.advance(id, advance),
            Statement::WriteFence(fence) => {
                let locked = (0..self.rows.len()).all(|index| self.lock_row(id, index)) && self.lock_group(id);
                Ok(locked.then(|| self.write_fence(id, *fence)))
            }
            Statement::WritePlan(row) => {
                if let Some(tx) = self.transaction(id) {
                    tx.plan = Some(row.clone());
                }
                Ok(Some(Reply::Written(1)))
            }
            Statement::Commit => {
                self.commit(id);
                Ok(Some(Reply::Done))
            }
        }
    }

    fn begin(&mut self, id: BackendId, promised: Option<Location>) -> Result<Reply, Failure> {
        self.roll_back(id);
        let seen = self.location;
        if let Some(promised) = promised
            && !seen.includes(&promised)
            && !mutant::on(Mutant::LocationNotChecked)
        {
            let both = format!("the database is at {seen} and the fence was raised at {promised}");
            return Err(Failure::new(FailureKind::Behind, format!("{both}: a failover or a restore lies between")));
        }
        if let Some(backend) = self.backends.get_mut(&id) {
            backend.tx = Some(Tx::new(promised.is_none()));
        }
        Ok(Reply::Done)
    }

    fn snapshot(&self) -> Snapshot {
        let low = self.complete();
        Snapshot {
            group: self.group.clone(),
            rows: self.rows.clone(),
            transactions: self.plans.range(low..).map(|(_, row)| (**row).clone()).collect(),
            location: self.location,
        }
    }

    /// A client refuses by itself what names a state that the group does not have.
    pub(crate) fn check(&self, statement: &Statement) -> Result<(), Failure> {
        let unknown = |state: &StateIndex| usize::from(state.0) >= self.tables.len();
        let found = match statement {
            Statement::LockRows(Some(shards)) => shards.iter().map(|at| at.state).find(unknown),
            Statement::Load(state, _) => Some(*state).filter(unknown),
            Statement::Advance(advance) => {
                let tables = advance.tables.iter().map(|(state, _)| *state);
                advance.shards.iter().map(|at| at.state).chain(tables).find(unknown)
            }
            _ => None,
        };
        match found {
            Some(state) => Err(Failure::fatal(format!("the group has no state of number {}", state.0))),
            None => Ok(()),
        }
    }

    fn lock_group(&mut self, id: BackendId) -> bool {
        match self.group_lock {
            Some(holder) if holder != id => false,
            _ => {
                self.group_lock = Some(id);
                true
            }
        }
    }

    /// Locks one ledger row if it is free or one's own.
    fn lock_row(&mut self, id: BackendId, index: usize) -> bool {
        match self.row_locks[index] {
            Some(holder) if holder != id => false,
            _ => {
                self.row_locks[index] = Some(id);
                true
            }
        }
    }

    fn lock_rows(&mut self, id: BackendId, shards: Option<&[ShardRef]>) -> Option<Reply> {
        let indexes: Vec<usize> = match shards {
            None => (0..self.rows.len()).collect(),
            Some(shards) => shards.iter().filter_map(|at| self.index_of(*at)).collect(),
        };
        if !indexes.iter().all(|index| self.lock_row(id, *index)) {
            return None;
        }
        Some(Reply::Rows(indexes.iter().map(|index| self.rows[*index].clone()).collect()))
    }

    fn index_of(&self, at: ShardRef) -> Option<usize> {
        self.rows.binary_search_by_key(&at, |row| row.at).ok()
    }

    /// Compare-and-set. Which rows it goes for is decided by what is committed when it begins; those that another
    /// backend holds are waited for and then judged again.
    fn advance(&mut self, id: BackendId, advance: &Advance) -> Result<Option<Reply>, Failure> {
        for (_, rows) in &advance.tables {
            table::storable(&rows.keys)?;
            table::storable(&rows.values)?;
        }
        let known = self.transaction(id).and_then(|tx| tx.candidates.clone());
        let candidates = known.unwrap_or_else(|| {
            let indexes = advance.shards.iter().filter_map(|at| self.index_of(*at));
            indexes.filter(|index| advance.admits(&self.rows[*index])).collect()
        });
        if !candidates.iter().all(|index| self.lock_row(id, *index)) {
            if let Some(tx) = self.transaction(id) {
                tx.candidates = Some(candidates);
            }
            return Ok(None);
        }
        let moved: Vec<usize> = candidates.into_iter().filter(|index| advance.admits(&self.rows[*index])).collect();
        let mut changes = Vec::new();
        if moved.len() == advance.shards.len() {
            for (state, rows) in &advance.tables {
                changes.extend(self.tables[usize::from(state.0)].merge(*state, rows)?);
            }
        }
        let reply = Reply::Advanced { moved: moved.len() as u64, merged: changes.len() as u64 };
        let to = (advance.attempt, advance.txid, advance.chain, advance.manifest);
        if let Some(tx) = self.transaction(id) {
            tx.moved = Some((moved, to));
            tx.changes = changes;
        }
        Ok(Some(reply))
    }

    fn write_fence(&mut self, id: BackendId, fence: Attempt) -> Reply {
        let rows = self.rows.len() as u64;
        if let Some(tx) = self.transaction(id) {
            tx.fence = Some(fence);
        }
        Reply::Written(rows)
    }
}
