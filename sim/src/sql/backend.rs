//! Backends: a client's connection as the server sees it, its transaction and its locks.

use std::sync::Arc;

use tine_core::{
    hash::Hash128,
    id::{Attempt, TxId},
};
use tine_state::{Statement, TransactionRow};

use super::{Answer, Sql, table::Change};

/// A backend, never reused.
pub(crate) type BackendId = u32;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) node: usize,
    pub(crate) life: u32,
}

/// A connection as the server sees it.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) owner: Owner,
    pub(crate) tx: Option<Tx>,
    /// When the last statement sent to it arrives: the server cannot notice a client's end before.
    pub(crate) arrives_us: u64,
    /// When it last did something.
    pub(crate) active_us: u64,
}

/// Where an advance moves its rows: attempt, txid, chain, manifest.
pub(crate) type Moved = (Attempt, TxId, Hash128, Hash128);

/// An open transaction: what it would write.
#[derive(Clone, Debug)]
pub(crate) struct Tx {
    /// Whether it is a raise, which may end other backends.
    pub(crate) is_raise: bool,
    /// Rows that a waiting compare-and-set goes for.
    pub(crate) candidates: Option<Vec<usize>>,
    pub(crate) moved: Option<(Vec<usize>, Moved)>,
    pub(crate) changes: Vec<Change>,
    pub(crate) fence: Option<Attempt>,
    pub(crate) plan: Option<Arc<TransactionRow>>,
}

impl Tx {
    pub(crate) fn new(is_raise: bool) -> Tx {
        Tx { is_raise, candidates: None, moved: None, changes: Vec::new(), fence: None, plan: None }
    }
}

impl Sql {
    /// Accepts a connection.
    pub(crate) fn connect(&mut self, owner: Owner, now_us: u64) -> BackendId {
        let id = self.next_backend;
        self.next_backend += 1;
        self.backends.insert(id, Backend { owner, tx: None, arrives_us: now_us, active_us: now_us });
        id
    }

    pub(super) fn transaction(&mut self, id: BackendId) -> Option<&mut Tx> {
        self.backends.get_mut(&id).and_then(|backend| backend.tx.as_mut())
    }

    /// Ends a backend: its transaction is rolled back, its locks are free.
    pub(crate) fn terminate(&mut self, id: BackendId) -> bool {
        self.roll_back(id);
        self.backends.remove(&id).is_some()
    }

    pub(crate) fn roll_back(&mut self, id: BackendId) {
        if let Some(backend) = self.backends.get_mut(&id) {
            backend.tx = None;
        }
        self.waiting.retain(|(waiting, _)| *waiting != id);
        self.release(id);
    }

    pub(super) fn release(&mut self, id: BackendId) {
        if self.group_lock == Some(id) {
            self.group_lock = None;
        }
        self.row_locks.iter_mut().filter(|lock| **lock == Some(id)).for_each(|lock| *lock = None);
    }

    /// Whether the backend waits for a lock.
    pub(crate) fn waits(&self, id: BackendId) -> bool {
        self.waiting.iter().any(|(waiting, _)| *waiting == id)
    }

    /// Whether some statement waits.
    pub(crate) fn somebody_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Tries again what waits; answers with what did not have to wait any longer.
    pub(crate) fn go_on(&mut self) -> Vec<(BackendId, Statement, Answer)> {
        let mut answered = Vec::new();
        for (id, statement) in std::mem::take(&mut self.waiting) {
            match self.execute(id, &statement) {
                Answer::Waits => {}
                answer => answered.push((id, statement, answer)),
            }
        }
        answered
    }

    /// The backends that hold what `id` waits for: what a raise ends by name.
    pub(crate) fn holders(&self, id: BackendId) -> Vec<BackendId> {
        let locks = self.row_locks.iter().chain(std::iter::once(&self.group_lock));
        let mut holders: Vec<BackendId> = locks.flatten().copied().filter(|holder| *holder != id).collect();
        holders.sort_unstable();
        holders.dedup();
        holders
    }
}
