//! What must hold after every step: the protocol's invariants, each a function with its name.
//!
//! They are looked at whenever the database commits, the only step that changes what is true. The recount behind
//! [`invariant_each_record_counts_once`] shares no code with the operators: it walks the source by the plan's ranges.

use std::{
    cmp::Ordering::{Equal, Less},
    collections::BTreeMap,
    sync::Arc,
};

use tine_core::{
    failure::FailureKind,
    id::{Attempt, Epoch, Nonce, TxId},
};
use tine_state::{CommitOutcome, LedgerRow, TransactionRow};
use tine_trident::{
    plan::{Plan, Planned},
    source::{PartitionRange, SourceIndex},
};

use crate::{
    oracle::Counting,
    source::SimSource,
    sql::{
        Committed, Sql,
        table::{Cell, Cells, Change},
    },
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

type Held = Result<(), Broken>;

/// Sees every commit.
pub(crate) struct Checker {
    /// For each state, how to recount it, if anybody said.
    counting: Vec<Option<Counting>>,
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
}

impl Checker {
    pub(crate) fn new(counting: Vec<Option<Counting>>) -> Checker {
        Checker { counting, facts: BTreeMap::new(), best: TxId::NONE, lost_tail: false }
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
            self.facts.insert(txid, Fact { planned, expected: None, written });
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
            if counting[state].is_some() {
                let (key, delta) = delta_of(change)?;
                let written = fact.written[state].entry(key.to_owned()).or_default();
                *written += delta;
                invariant_each_record_counts_once(txid, key, *written, expected[state].get(key).copied())?;
            }
        }
        let complete = sql.complete();
        if complete == txid {
            for (expected, written) in expected.iter().zip(&fact.written) {
                invariant_nothing_is_left_out(txid, expected, written)?;
            }
            self.best = self.best.max(complete);
            self.facts = self.facts.split_off(&complete);
        }
        Ok(())
    }

    /// The database has lost its tail: what it holds now is what is true.
    pub(crate) fn tail_lost(&mut self, sql: &Sql) {
        self.lost_tail = true;
        self.facts.clear();
        for (txid, row) in sql.plans.range(sql.complete()..) {
            if let Ok(planned) = Planned::decode(&row.plan) {
                let written = vec![BTreeMap::new(); self.counting.len()];
                self.facts.insert(*txid, Fact { planned, expected: None, written });
            }
        }
        let partly = sql.complete().next();
        let Some(fact) = self.facts.get_mut(&partly) else { return };
        for committed in &sql.history {
            if committed.moved.first().is_some_and(|(_, before)| before.txid.next() == partly) {
                for change in committed.changes.iter() {
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

    /// Up to where a partition is committed everywhere.
    pub(crate) fn position(&self, source: SourceIndex, partition: &str) -> u64 {
        let Some((_, fact)) = self.facts.first_key_value() else { return 0 };
        let of = |range: &&PartitionRange| range.source == source && range.partition == partition;
        fact.planned.plan.ranges.iter().find(of).map_or(0, |range| range.to)
    }

    /// Whether everything that the sources hold is committed everywhere.
    pub(crate) fn covers(&self, sources: &[SimSource]) -> bool {
        let Some((_, fact)) = self.facts.first_key_value() else { return false };
        let complete = fact.expected.is_some();
        complete
            && sources.iter().all(|source| {
                let log = source.log();
                let ranges = &fact.planned.plan.ranges;
                log.partitions.iter().filter(|partition| partition.exists).all(|partition| {
                    partition.end == 0
                        || ranges.iter().any(|range| range.partition == partition.name && range.to == partition.end)
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

fn count_of(cells: &Cells) -> Result<i64, Broken> {
    match &cells[..] {
        [Cell::BigInt(count)] => Ok(*count),
        other => Err(Broken::new("invariant_the_table_is_exact", format!("a count that is none: {other:?}"))),
    }
}

fn key_of(cells: &Cells) -> Result<&str, Broken> {
    match &cells[..] {
        [Cell::Text(key)] => Ok(key),
        other => Err(Broken::new("invariant_the_table_is_exact", format!("a key that is no text: {other:?}"))),
    }
}

/// The key of a change and what it adds; counts never go back for whoever reads them.
fn delta_of(change: &Change) -> Result<(&str, i64), Broken> {
    let before = change.before.as_ref().map_or(Ok(0), count_of)?;
    let (key, after) = (key_of(&change.key)?, count_of(&change.after)?);
    invariant_counts_never_go_back(key, before, after)?;
    Ok((key, after - before))
}

fn recount(ranges: &[PartitionRange], sources: &[SimSource], how: &Counting) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for range in ranges.iter().filter(|range| range.to > range.from) {
        for source in sources {
            let log = source.log();
            let Some(partition) = log.partitions.iter().find(|partition| partition.name == range.partition) else {
                continue;
            };
            let within = partition.records.iter().filter(|record| (range.from..range.to).contains(&record.position));
            within.for_each(|record| how.count(&record.value, &mut counts));
        }
    }
    counts
}

fn recount_all(sources: &[SimSource], how: &Counting) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for source in sources {
        let log = source.log();
        for partition in log.partitions.iter().filter(|partition| partition.exists) {
            let there = partition.records.iter().filter(|record| record.position < partition.end);
            there.for_each(|record| how.count(&record.value, &mut counts));
        }
    }
    counts
}

/// No shard commits N+1 before every shard committed N.
fn invariant_one_order(rows: &[LedgerRow]) -> Held {
    let low = rows.iter().map(|row| row.txid).min().unwrap_or_default();
    let high = rows.iter().map(|row| row.txid).max().unwrap_or_default();
    let top: Vec<&LedgerRow> = rows.iter().filter(|row| row.txid == high).collect();
    let alike = top.windows(2).all(|pair| (pair[0].chain, pair[0].manifest) == (pair[1].chain, pair[1].manifest));
    match high.0 <= low.0 + 1 && alike {
        true => Ok(()),
        false => Err(Broken::new(
            "invariant_one_order",
            format!("shards stand at {:?}", rows.iter().map(|row| (row.txid.0, row.chain)).collect::<Vec<_>>()),
        )),
    }
}

/// A row moves from N-1 to N.
fn invariant_rows_move_by_one(before: &LedgerRow, after: &LedgerRow) -> Held {
    match before.txid.next() == after.txid {
        true => Ok(()),
        false => Err(Broken::new(
            "invariant_rows_move_by_one",
            format!("{:?} went from {} to {}", after.at, before.txid, after.txid),
        )),
    }
}

/// A commit equals the fence of its rows.
fn invariant_only_the_fence_commits(before: &LedgerRow, after: &LedgerRow) -> Held {
    match before.fence == after.attempt && after.fence == before.fence {
        true => Ok(()),
        false => Err(Broken::new(
            "invariant_only_the_fence_commits",
            format!("attempt {} committed {} where {} was admitted", after.attempt, after.txid, before.fence),
        )),
    }
}

/// What a shard's row says about N is prepared beforehand (or in the same SQL transaction), and follows what was there.
fn invariant_prepared_before_the_first_commit(
    before: &LedgerRow,
    after: &LedgerRow,
    plan: Option<&TransactionRow>,
) -> Held {
    let found = match plan {
        None => "no plan of it is in the database".to_owned(),
        Some(plan) if plan.chain != after.chain => {
            format!("the plan's chain is {} and the row's {}", plan.chain, after.chain)
        }
        Some(plan) if plan.previous != before.chain => {
            format!("its plan follows {} and not {}", plan.previous, before.chain)
        }
        Some(plan) if plan.manifest != after.manifest => {
            format!("manifest {} is prepared and {} committed", plan.manifest, after.manifest)
        }
        Some(_) => return Ok(()),
    };
    let what = format!("{:?} committed transaction {}: {found}", after.at, after.txid);
    Err(Broken::new("invariant_prepared_before_the_first_commit", what))
}

/// Once a shard has committed N, what N contains is fixed, and history is not deleted.
fn invariant_a_committed_plan_never_changes(
    row: &TransactionRow,
    above: &[Arc<TransactionRow>],
    rows: &[LedgerRow],
) -> Held {
    let low = rows.iter().map(|row| row.txid).min().unwrap_or_default();
    let high = rows.iter().map(|row| row.txid).max().unwrap_or_default();
    let other = rows.iter().any(|at| at.txid == row.txid && at.chain != row.chain);
    let deleted = above.iter().find(|gone| gone.txid <= high);
    match (other || row.txid < low, deleted) {
        (false, None) => Ok(()),
        (true, _) => Err(Broken::new(
            "invariant_a_committed_plan_never_changes",
            format!("the plan of transaction {} was replaced; shards stand at {low} to {high}", row.txid),
        )),
        (_, Some(gone)) => Err(Broken::new(
            "invariant_a_committed_plan_never_changes",
            format!("the plan of transaction {} was deleted; shards stand at {low} to {high}", gone.txid),
        )),
    }
}

/// `from(N, p) = to(N-1, p)`, and no partition is forgotten.
fn invariant_ranges_follow(before: &Plan, after: &Plan) -> Held {
    let broken =
        |what: String| Err(Broken::new("invariant_ranges_follow", format!("transaction {}: {what}", after.txid)));
    for range in &before.ranges {
        let same = |other: &&PartitionRange| other.source == range.source && other.partition == range.partition;
        match after.ranges.iter().find(same) {
            None => return broken(format!("{} is missing", range.partition)),
            Some(next) if next.from != range.to || next.incarnation != range.incarnation => {
                return broken(format!("{} ended at {} and goes on at {}", range.partition, range.to, next.from));
            }
            Some(_) => {}
        }
    }
    match after.ranges.iter().find(|range| range.to < range.from) {
        Some(range) => broken(format!("{} goes from {} to {}", range.partition, range.from, range.to)),
        None => Ok(()),
    }
}

/// `to` lies at or below the stable end.
fn invariant_ranges_are_stable(ranges: &[PartitionRange], sources: &[SimSource]) -> Held {
    for source in sources {
        for partition in &source.log().partitions {
            if let Some(range) =
                ranges.iter().find(|range| range.partition == partition.name && range.to > partition.end)
            {
                let what =
                    format!("{} is planned up to {} and stable up to {}", range.partition, range.to, partition.end);
                return Err(Broken::new("invariant_ranges_are_stable", what));
            }
        }
    }
    Ok(())
}

/// Before a new attempt may commit, the fence rises, everywhere.
fn invariant_the_fence_only_rises(group: Attempt, rows: &[Attempt], fence: Attempt) -> Held {
    match rows.iter().chain([&group]).find(|before| !matches!(before.partial_cmp(&&fence), Some(Less | Equal))) {
        None => Ok(()),
        Some(before) => {
            Err(Broken::new("invariant_the_fence_only_rises", format!("the fence went from {before} to {fence}")))
        }
    }
}

/// No key gets more of a transaction than its ranges hold.
fn invariant_each_record_counts_once(txid: TxId, key: &str, written: i64, expected: Option<i64>) -> Held {
    match written <= expected.unwrap_or(0) {
        true => Ok(()),
        false => Err(Broken::new(
            "invariant_each_record_counts_once",
            format!("transaction {txid} added {written} to {key:?}, and its ranges hold {}", expected.unwrap_or(0)),
        )),
    }
}

/// A transaction that is complete has brought all that its ranges hold.
fn invariant_nothing_is_left_out(
    txid: TxId,
    expected: &BTreeMap<String, i64>,
    written: &BTreeMap<String, i64>,
) -> Held {
    match expected.iter().find(|(key, count)| written.get(*key) != Some(count)) {
        None => Ok(()),
        Some((key, count)) => Err(Broken::new(
            "invariant_nothing_is_left_out",
            format!("transaction {txid} added {:?} to {key:?}, and its ranges hold {count}", written.get(key)),
        )),
    }
}

/// No count goes back, unless the database lost it.
fn invariant_counts_never_go_back(key: &str, before: i64, after: i64) -> Held {
    match after >= before {
        true => Ok(()),
        false => Err(Broken::new("invariant_counts_never_go_back", format!("{key:?} went from {before} to {after}"))),
    }
}

/// In the end the table equals a recount of the sources.
fn invariant_the_table_is_exact(table: &BTreeMap<Cells, Cells>, recount: &BTreeMap<String, i64>) -> Held {
    let mut found = BTreeMap::new();
    for (key, count) in table {
        found.insert(key_of(key)?, count_of(count)?);
    }
    let all = recount.keys().map(String::as_str).chain(found.keys().copied());
    for key in all {
        let (is, should) = (found.get(key).copied(), recount.get(key).copied());
        if is != should {
            let what = format!("{key:?} is {is:?} and should be {should:?}");
            return Err(Broken::new("invariant_the_table_is_exact", what));
        }
    }
    Ok(())
}

/// A worker never goes back to an attempt that is not newer: stale messages change nothing.
pub(crate) fn invariant_attempts_only_rise(before: Attempt, after: Attempt) -> Held {
    match before <= after {
        true => Ok(()),
        false => {
            Err(Broken::new("invariant_attempts_only_rise", format!("a worker went from attempt {before} to {after}")))
        }
    }
}

/// The end of a tree of another attempt changes nothing for the leader.
pub(crate) fn invariant_stale_is_ignored(of: Option<Attempt>, before: Option<Attempt>, after: Option<Attempt>) -> Held {
    match before == after {
        true => Ok(()),
        false => Err(Broken::new(
            "invariant_stale_is_ignored",
            format!("the end of a tree of attempt {of:?} took the leader from {before:?} to {after:?}"),
        )),
    }
}

/// Every write to coordination but a claim is by the leader whose claim stands, and no claim takes the epoch back.
pub(crate) fn invariant_only_who_reigns_writes(
    before: (Epoch, Nonce),
    after: Epoch,
    writer: Nonce,
    claims: bool,
) -> Held {
    match (claims && after >= before.0) || (!claims && writer == before.1) {
        true => Ok(()),
        false => Err(Broken::new(
            "invariant_only_who_reigns_writes",
            format!("leader {:016x} wrote under epoch {} of leader {:016x}", writer.0, before.0.0, before.1.0),
        )),
    }
}

/// The plan is in coordination, written under the leader's own reign, before it is prepared.
pub(crate) fn invariant_recorded_before_prepared(txid: TxId, recorded: bool) -> Held {
    match recorded {
        true => Ok(()),
        false => Err(Broken::new(
            "invariant_recorded_before_prepared",
            format!("transaction {txid} is prepared, and its plan is not in coordination"),
        )),
    }
}

/// What is said to be committed is.
fn invariant_done_is_done(txid: TxId, done: bool) -> Held {
    match done {
        true => Ok(()),
        false => {
            Err(Broken::new("invariant_done_is_done", format!("transaction {txid} is said to be committed and is not")))
        }
    }
}

/// A commit is refused for a fence only when another fence stands.
fn invariant_only_a_foreign_fence_refuses(txid: TxId, attempt: Attempt, foreign: bool) -> Held {
    match foreign {
        true => Ok(()),
        false => Err(Broken::new(
            "invariant_only_a_foreign_fence_refuses",
            format!("the commit of transaction {txid} was refused to attempt {attempt}, whose fence stands"),
        )),
    }
}

/// A raise that misses at an abort means that somebody else leads.
pub(crate) fn invariant_a_miss_at_an_abort_abdicates(attempt: Attempt, abdicated: bool) -> Held {
    match abdicated {
        true => Ok(()),
        false => Err(Broken::new(
            "invariant_a_miss_at_an_abort_abdicates",
            format!("attempt {attempt} missed its raise, and its leader claims a higher epoch"),
        )),
    }
}

/// Whatever ends an attempt, what comes after it is another one.
pub(crate) fn invariant_attempts_are_never_reused(attempt: Attempt, raised: Attempt) -> Held {
    match attempt != raised {
        true => Ok(()),
        false => Err(Broken::new(
            "invariant_attempts_are_never_reused",
            format!("the fence is to be raised to {attempt} again, which it was raised to before"),
        )),
    }
}
