//! The invariants themselves, each a function with its name: section 2 of the protocol.

use std::{
    cmp::Ordering::{Equal, Less},
    collections::BTreeMap,
    sync::Arc,
};

use tine_core::id::{Attempt, Epoch, Nonce, TxId};
use tine_state::{LedgerRow, TransactionRow};
use tine_trident::{plan::Plan, source::PartitionRange};

use super::{
    Broken,
    recount::{count_of, key_of},
};
use crate::{
    source::SimSource,
    sql::table::{Cell, Cells},
};

pub(crate) type Held = Result<(), Broken>;

/// A rule by its name: it holds, or what was found breaks it.
pub(super) fn rule(holds: bool, name: &'static str, found: impl FnOnce() -> String) -> Held {
    if holds { Ok(()) } else { Err(Broken::new(name, found())) }
}

/// No shard commits N+1 before every shard committed N.
pub(crate) fn invariant_one_order(rows: &[LedgerRow]) -> Held {
    let low = rows.iter().map(|row| row.txid).min().unwrap_or_default();
    let high = rows.iter().map(|row| row.txid).max().unwrap_or_default();
    let top: Vec<&LedgerRow> = rows.iter().filter(|row| row.txid == high).collect();
    let alike = top.windows(2).all(|pair| (pair[0].chain, pair[0].manifest) == (pair[1].chain, pair[1].manifest));
    rule(high.0 <= low.0 + 1 && alike, "invariant_one_order", || {
        format!("shards stand at {:?}", rows.iter().map(|row| (row.txid.0, row.chain)).collect::<Vec<_>>())
    })
}

/// A row moves from N-1 to N.
pub(crate) fn invariant_rows_move_by_one(before: &LedgerRow, after: &LedgerRow) -> Held {
    rule(before.txid.next() == after.txid, "invariant_rows_move_by_one", || {
        format!("{:?} went from {} to {}", after.at, before.txid, after.txid)
    })
}

/// A commit equals the fence of its rows.
pub(crate) fn invariant_only_the_fence_commits(before: &LedgerRow, after: &LedgerRow) -> Held {
    rule(before.fence == after.attempt && after.fence == before.fence, "invariant_only_the_fence_commits", || {
        format!("attempt {} committed {} where {} was admitted", after.attempt, after.txid, before.fence)
    })
}

/// What a shard's row says about N is prepared beforehand (or in the same SQL transaction), and follows what was there.
pub(crate) fn invariant_prepared_before_the_first_commit(
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
pub(crate) fn invariant_a_committed_plan_never_changes(
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
pub(crate) fn invariant_ranges_follow(before: &Plan, after: &Plan) -> Held {
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
pub(crate) fn invariant_ranges_are_stable(ranges: &[PartitionRange], sources: &[SimSource]) -> Held {
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
pub(crate) fn invariant_the_fence_only_rises(group: Attempt, rows: &[Attempt], fence: Attempt) -> Held {
    match rows.iter().chain([&group]).find(|before| !matches!(before.partial_cmp(&&fence), Some(Less | Equal))) {
        None => Ok(()),
        Some(before) => {
            Err(Broken::new("invariant_the_fence_only_rises", format!("the fence went from {before} to {fence}")))
        }
    }
}

/// No key gets more of a transaction than its ranges hold.
pub(crate) fn invariant_each_record_counts_once(
    table: &str,
    txid: TxId,
    key: &str,
    written: i64,
    expected: Option<i64>,
) -> Held {
    let named = expected.unwrap_or(0);
    rule(written <= named, "invariant_each_record_counts_once", || {
        format!("{table}: transaction {txid} added {written} to {key:?}, and its records name it {named} times")
    })
}

/// A dead letter is committed with the transaction whose ranges hold its record, and with no other.
pub(crate) fn invariant_a_dead_letter_stands_in_its_transaction(
    txid: TxId,
    key: &Cells,
    ranges: &[PartitionRange],
) -> Held {
    let held = |partition: &str, position: i64| {
        let of = |range: &&PartitionRange| range.partition == partition;
        let position = u64::try_from(position).unwrap_or(u64::MAX);
        ranges.iter().filter(of).any(|range| (range.from..range.to).contains(&position))
    };
    match &key[..] {
        [_, Cell::Text(partition), Cell::BigInt(position)] if held(partition, *position) => Ok(()),
        key => Err(Broken::new(
            "invariant_a_dead_letter_stands_in_its_transaction",
            format!("transaction {txid} keeps the dead letter {key:?}, whose record its ranges do not hold"),
        )),
    }
}

/// A transaction that is complete has brought all that its ranges hold.
pub(crate) fn invariant_nothing_is_left_out(
    table: &str,
    txid: TxId,
    expected: &BTreeMap<String, i64>,
    written: &BTreeMap<String, i64>,
) -> Held {
    match expected.iter().find(|(key, count)| written.get(*key) != Some(count)) {
        None => Ok(()),
        Some((key, count)) => Err(Broken::new(
            "invariant_nothing_is_left_out",
            format!(
                "{table}: transaction {txid} added {} to {key:?}, and its records name it {count} times",
                written.get(key).unwrap_or(&0)
            ),
        )),
    }
}

/// No count goes back, unless the database lost it.
pub(crate) fn invariant_counts_never_go_back(key: &str, before: i64, after: i64) -> Held {
    rule(after >= before, "invariant_counts_never_go_back", || format!("{key:?} went from {before} to {after}"))
}

/// In the end the table equals a recount of the sources.
pub(crate) fn invariant_the_table_is_exact(table: &BTreeMap<Cells, Cells>, recount: &BTreeMap<String, i64>) -> Held {
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
    rule(before <= after, "invariant_attempts_only_rise", || format!("a worker went from attempt {before} to {after}"))
}

/// The end of a tree of another attempt changes nothing for the leader.
pub(crate) fn invariant_stale_is_ignored(of: Option<Attempt>, before: Option<Attempt>, after: Option<Attempt>) -> Held {
    rule(before == after, "invariant_stale_is_ignored", || {
        format!("the end of a tree of attempt {of:?} took the leader from {before:?} to {after:?}")
    })
}

/// Every write to coordination but a claim is by the leader whose claim stands, and no claim takes the epoch back.
pub(crate) fn invariant_only_who_reigns_writes(
    before: (Epoch, Nonce),
    after: Epoch,
    writer: Nonce,
    claims: bool,
) -> Held {
    rule((claims && after >= before.0) || (!claims && writer == before.1), "invariant_only_who_reigns_writes", || {
        format!("leader {:016x} wrote under epoch {} of leader {:016x}", writer.0, before.0.0, before.1.0)
    })
}

/// The plan is in coordination, written under the leader's own reign, before it is prepared.
pub(crate) fn invariant_recorded_before_prepared(txid: TxId, recorded: bool) -> Held {
    rule(recorded, "invariant_recorded_before_prepared", || {
        format!("transaction {txid} is prepared, and its plan is not in coordination")
    })
}

/// What is said to be committed is.
pub(crate) fn invariant_done_is_done(txid: TxId, done: bool) -> Held {
    rule(done, "invariant_done_is_done", || format!("transaction {txid} is said to be committed and is not"))
}

/// A commit is refused for a fence only when another fence stands.
pub(crate) fn invariant_only_a_foreign_fence_refuses(txid: TxId, attempt: Attempt, foreign: bool) -> Held {
    rule(foreign, "invariant_only_a_foreign_fence_refuses", || {
        format!("the commit of transaction {txid} was refused to attempt {attempt}, whose fence stands")
    })
}

/// A raise that misses at an abort means that somebody else leads.
pub(crate) fn invariant_a_miss_at_an_abort_abdicates(attempt: Attempt, abdicated: bool) -> Held {
    rule(abdicated, "invariant_a_miss_at_an_abort_abdicates", || {
        format!("attempt {attempt} missed its raise, and its leader claims a higher epoch")
    })
}

/// Whatever ends an attempt, what comes after it is another one.
pub(crate) fn invariant_attempts_are_never_reused(attempt: Attempt, raised: Attempt) -> Held {
    rule(attempt != raised, "invariant_attempts_are_never_reused", || {
        format!("the fence is to be raised to {attempt} again, which it was raised to before")
    })
}
