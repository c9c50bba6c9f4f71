//! What must hold after every step: the protocol's invariants, each a function with its name.
//!
//! They stand in [`rules`] and are looked at whenever the database commits, the only step that changes what is true; those about who owns
//! which tasks stand in [`owners`]. The recount behind
//! [`invariant_each_record_counts_once`] stands in [`recount`].

mod owners;
mod recount;
mod rules;

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tine_core::{
    failure::FailureKind,
    id::{Attempt, TxId},
};
use tine_state::{CommitOutcome, TransactionRow};
use tine_trident::{
    plan::{Plan, Planned},
    source::{PartitionRange, SourceIndex},
};

use self::recount::{delta_of, recount, recount_all};
pub(crate) use self::{owners::*, rules::*};
use crate::{
    oracle::{Counting, Seen, Watch},
    source::SimSource,
    sql::{Committed, Sql, table::Change},
};

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which, by its function's name.
    pub invariant: &'static str,
    /// What was found.
    pub what: String,
}

impl Broken {
    /// A group that halted when nothing should have made it.
    pub const HALTED: &'static str = "invariant_no_halt_without_cause";

    pub(crate) fn new(invariant: &'static str, what: impl Into<String>) -> Broken {
        Broken { invariant, what: what.into() }
    }
}

/// Asks an expectation of a user's, which may panic.
pub(crate) fn asked(name: &'static str, expectation: impl FnOnce() -> Result<(), String>) -> Held {
    match catch_unwind(AssertUnwindSafe(expectation)) {
        Ok(said) => said.map_err(|what| Broken::new(name, what)),
        Err(panic) => Err(Broken::new(name, format!("the expectation itself panics: {}", said(&*panic)))),
    }
}

/// What somebody who panicked had to say.
pub(crate) fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words")
}

/// Sees every commit.
pub(crate) struct Checker {
    states: Vec<String>,
    /// Expectations of users, by the name under which they are broken.
    watching: Vec<(&'static str, Arc<Watch>)>,
    /// For each state, how to recount it, if anybody said.
    counting: Vec<Option<Counting>>,
    /// The state that keeps dead letters.
    letters: Option<usize>,
    facts: BTreeMap<TxId, Fact>,
    /// The highest txid that was ever complete, lost tails included.
    best: TxId,
    lost_tail: bool,
}

/// What is known of a transaction whose plan is in the database.
struct Fact {
    planned: Planned,
    /// For each counted state what it must add, key by key; worked out at its first commit.
    expected: Option<Vec<BTreeMap<String, i64>>>,
    written: Vec<BTreeMap<String, i64>>,
    /// What it did to rows, if somebody watches.
    changes: Vec<Change>,
}

impl Checker {
    pub(crate) fn new(
        states: Vec<String>,
        counting: Vec<Option<Counting>>,
        watching: Vec<(&'static str, Arc<Watch>)>,
    ) -> Checker {
        let letters = states.iter().position(|state| state == tine_trident::dead_letters::NAME);
        Checker { states, watching, counting, letters, facts: BTreeMap::new(), best: TxId::NONE, lost_tail: false }
    }

    /// The database has committed: its history's last entry says what.
    pub(crate) fn committed(&mut self, sql: &Sql, sources: &[SimSource]) -> Held {
        let Some(last) = sql.history.last() else { return Ok(()) };
        if let Some((group, rows)) = &last.fences {
            invariant_the_fence_only_rises(*group, rows, sql.group.fence)?;
        }
        if let Some((txid, _, above)) = &last.plan {
            self.prepared(*txid, above, sql, sources)?;
        }
        if !last.moved.is_empty() {
            self.moved(last, sql, sources)?;
        }
        Ok(())
    }

    fn prepared(&mut self, txid: TxId, above: &[Arc<TransactionRow>], sql: &Sql, sources: &[SimSource]) -> Held {
        let row = &sql.plans[&txid];
        let planned = Planned::decode(&row.plan)
            .map_err(|error| Broken::new("invariant_plans_can_be_read", format!("transaction {txid}: {error}")))?;
        invariant_a_committed_plan_never_changes(row, above, &sql.rows)?;
        if let Some(before) = self.facts.get(&txid.previous()) {
            invariant_ranges_follow(&before.planned.plan, &planned.plan)?;
        }
        if self.facts.get(&txid).is_none_or(|fact| fact.planned.chain != planned.chain) {
            invariant_ranges_are_stable(&planned.plan.ranges, sources)?;
            let written = vec![BTreeMap::new(); self.counting.len()];
            self.facts.insert(txid, Fact { planned, expected: None, written, changes: Vec::new() });
        }
        Ok(())
    }

    fn moved(&mut self, last: &Committed, sql: &Sql, sources: &[SimSource]) -> Held {
        for (index, before) in &last.moved {
            let row = &sql.rows[*index];
            invariant_rows_move_by_one(before, row)?;
            invariant_only_the_fence_commits(before, row)?;
            invariant_prepared_before_the_first_commit(before, row, sql.plans.get(&row.txid).map(|plan| &**plan))?;
        }
        invariant_one_order(&sql.rows)?;
        let txid = last.moved.first().map_or(TxId::NONE, |(index, _)| sql.rows[*index].txid);
        let Some(fact) = self.facts.get_mut(&txid) else { return Ok(()) };
        let plan = fact.planned.plan.clone();
        let counting = &self.counting;
        let expected = fact.expected.get_or_insert_with(|| {
            counting
                .iter()
                .map(|how| how.as_ref().map(|how| recount(&plan.ranges, sources, how)).unwrap_or_default())
                .collect()
        });
        for change in &last.changes {
            let state = usize::from(change.state.0);
            if self.letters == Some(state) {
                invariant_a_dead_letter_stands_in_its_transaction(txid, &change.key, &plan.ranges)?;
            }
            if counting[state].is_some() {
                let (key, delta) = delta_of(change)?;
                let written = fact.written[state].entry(key.to_owned()).or_default();
                *written += delta;
                invariant_each_record_counts_once(
                    &self.states[state],
                    txid,
                    key,
                    *written,
                    expected[state].get(key).copied(),
                )?;
            }
        }
        if !self.watching.is_empty() {
            fact.changes.extend(last.changes.iter().cloned());
        }
        let complete = sql.complete();
        if complete == txid {
            for ((table, expected), written) in self.states.iter().zip(expected.iter()).zip(&fact.written) {
                invariant_nothing_is_left_out(table, txid, expected, written)?;
            }
            self.best = self.best.max(complete);
            self.watch(txid, sql, sources)?;
            self.facts = self.facts.split_off(&complete);
        }
        Ok(())
    }

    /// A transaction is complete: looks at what users expect of it.
    fn watch(&self, txid: TxId, sql: &Sql, sources: &[SimSource]) -> Held {
        let Some(fact) = self.facts.get(&txid) else { return Ok(()) };
        let seen = Seen {
            txid,
            states: &self.states,
            tables: &sql.tables,
            changes: &fact.changes,
            plan: &fact.planned.plan,
            sources,
        };
        self.watching.iter().try_for_each(|(name, watch)| asked(name, || watch(&seen)))
    }

    /// The database has lost its tail: what it holds now is what is true.
    pub(crate) fn tail_lost(&mut self, sql: &Sql) {
        self.lost_tail = true;
        self.facts.clear();
        for (txid, row) in sql.plans.range(sql.complete()..) {
            if let Ok(planned) = Planned::decode(&row.plan) {
                let written = vec![BTreeMap::new(); self.counting.len()];
                self.facts.insert(*txid, Fact { planned, expected: None, written, changes: Vec::new() });
            }
        }
        let partly = sql.complete().next();
        let Some(fact) = self.facts.get_mut(&partly) else { return };
        for committed in &sql.history {
            if committed.moved.first().is_some_and(|(_, before)| before.txid.next() == partly) {
                fact.changes.extend(committed.changes.iter().cloned());
                for change in
                    committed.changes.iter().filter(|change| self.counting[usize::from(change.state.0)].is_some())
                {
                    if let Ok((key, delta)) = delta_of(change) {
                        *fact.written[usize::from(change.state.0)].entry(key.to_owned()).or_default() += delta;
                    }
                }
            }
        }
    }

    /// A commit procedure says how it ended: that must be so.
    pub(crate) fn told(&self, txid: TxId, attempt: Attempt, outcome: &CommitOutcome, sql: &Sql) -> Held {
        let done = txid <= self.best || sql.rows.iter().any(|row| row.txid >= txid);
        let foreign = sql.group.fence != attempt;
        match outcome {
            CommitOutcome::Applied | CommitOutcome::AlreadyDone => invariant_done_is_done(txid, done || self.lost_tail),
            CommitOutcome::Failed(failure) if matches!(failure.kind, FailureKind::Fenced | FailureKind::Superseded) => {
                invariant_only_a_foreign_fence_refuses(txid, attempt, foreign || self.lost_tail)
            }
            _ => Ok(()),
        }
    }

    /// A leader says that everything up to `txid` is complete.
    pub(crate) fn announced(&self, txid: TxId, sql: &Sql) -> Held {
        let durable = self.best.max(sql.complete());
        match txid <= durable {
            true => Ok(()),
            false => Err(Broken::new(
                "invariant_announced_is_durable",
                format!("transaction {txid} was announced, and only {durable} was ever complete"),
            )),
        }
    }

    /// What the last transaction that every shard has planned.
    fn complete(&self, sql: &Sql) -> Option<&Plan> {
        self.facts.get(&sql.complete()).map(|fact| &*fact.planned.plan)
    }

    /// Up to where a partition is committed everywhere.
    pub(crate) fn position(&self, sql: &Sql, source: SourceIndex, partition: &str) -> u64 {
        let Some(plan) = self.complete(sql) else { return 0 };
        let of = |range: &&PartitionRange| range.source == source && range.partition == partition;
        plan.ranges.iter().find(of).map_or(0, |range| range.to)
    }

    /// Whether everything that the sources hold is committed everywhere.
    pub(crate) fn covers(&self, sql: &Sql, sources: &[SimSource]) -> bool {
        let Some(plan) = self.complete(sql) else { return false };
        sources.iter().all(|source| {
            let log = source.log();
            log.partitions.iter().filter(|partition| partition.exists).all(|partition| {
                partition.end == 0
                    || plan.ranges.iter().any(|range| range.partition == partition.name && range.to == partition.end)
            })
        })
    }

    /// The run is over: the tables equal a recount of everything that the sources hold.
    pub(crate) fn at_the_end(&self, sql: &Sql, sources: &[SimSource]) -> Held {
        for (table, how) in sql.tables.iter().zip(&self.counting) {
            if let Some(how) = how {
                invariant_the_table_is_exact(&table.rows, &recount_all(sources, how))?;
            }
        }
        Ok(())
    }
}
