//! What a commit changes, and how a database that loses its tail takes it back.

use std::sync::Arc;

use tine_core::{
    id::{Attempt, TxId},
    mutant::{self, Mutant},
};
use tine_state::{LedgerRow, TransactionRow};

use super::{BackendId, Sql, table::Change};

/// A committed transaction: what was there before.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    /// Ledger rows that moved: their place and what they were.
    pub(crate) moved: Vec<(usize, LedgerRow)>,
    /// Data rows.
    pub(crate) changes: Vec<Change>,
    /// The fences before a raise: the group's, then the rows'.
    pub(crate) fences: Option<(Attempt, Vec<Attempt>)>,
    pub(crate) plan: Option<Prepared>,
    lsn_before: u64,
}

/// A prepared plan: its txid, what it replaced, what it deleted above it.
pub(crate) type Prepared = (TxId, Option<Arc<TransactionRow>>, Vec<Arc<TransactionRow>>);

impl Sql {
    /// Commits what the backend's transaction holds.
    pub(super) fn commit(&mut self, id: BackendId) {
        let Some(tx) = self.backends.get_mut(&id).and_then(|backend| backend.tx.take()) else { return };
        let lsn_before = self.location.lsn;
        self.location.lsn += if self.locates { 10 } else { 0 };
        let mut moved = Vec::new();
        if let Some((indexes, (attempt, txid, chain, manifest))) = tx.moved {
            for index in indexes {
                let row = &mut self.rows[index];
                moved.push((index, row.clone()));
                *row = LedgerRow { attempt, txid, chain, manifest, ..row.clone() };
            }
        }
        for change in &tx.changes {
            self.tables[usize::from(change.state.0)].put(&change.key, Some(&change.after));
        }
        let fences = tx.fence.map(|fence| self.set_fence(fence));
        let plan = tx.plan.map(|row| self.set_plan(row));
        self.release(id);
        self.history.push(Committed { moved, changes: tx.changes, fences, plan, lsn_before });
    }

    fn set_fence(&mut self, fence: Attempt) -> (Attempt, Vec<Attempt>) {
        let before = (self.group.fence, self.rows.iter().map(|row| row.fence).collect());
        self.group.fence = fence;
        self.rows.iter_mut().for_each(|row| row.fence = fence);
        before
    }

    fn set_plan(&mut self, row: Arc<TransactionRow>) -> Prepared {
        let txid = row.txid;
        let above = self.plans.split_off(&txid.next());
        if mutant::on(Mutant::PlanTrimmedEarly) {
            self.plans.clear();
        }
        let replaced = self.plans.insert(txid, row);
        (txid, replaced, above.into_values().collect())
    }

    /// Undoes the last `count` transactions and ends every backend: a failover to a copy that lagged. Answers with how
    /// many there were to undo.
    pub(crate) fn lose_tail(&mut self, count: usize) -> usize {
        let backends: Vec<BackendId> = self.backends.keys().copied().collect();
        for id in backends {
            self.terminate(id);
        }
        let kept = self.history.len().saturating_sub(count);
        let lost = self.history.split_off(kept);
        self.location.timeline += u32::from(self.locates);
        for committed in lost.iter().rev() {
            self.undo(committed);
        }
        lost.len()
    }

    fn undo(&mut self, committed: &Committed) {
        for (index, before) in &committed.moved {
            self.rows[*index] = before.clone();
        }
        for change in committed.changes.iter().rev() {
            self.tables[usize::from(change.state.0)].put(&change.key, change.before.as_ref());
        }
        if let Some((group, rows)) = &committed.fences {
            self.group.fence = *group;
            self.rows.iter_mut().zip(rows).for_each(|(row, fence)| row.fence = *fence);
        }
        if let Some((txid, replaced, above)) = &committed.plan {
            self.plans.remove(txid);
            self.plans.extend(replaced.iter().chain(above).map(|row| (row.txid, row.clone())));
        }
        self.location.lsn = committed.lsn_before;
    }
}
