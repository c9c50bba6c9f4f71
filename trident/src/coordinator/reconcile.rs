//! What stands after a raise: the rows' chains decide, then prepared plans, then those of coordination.

use std::collections::BTreeMap;

use tine_core::{
    failure::Failure,
    hash::Hash128,
    id::TxId,
    mutant::{self, Mutant},
};
use tine_state::{Chain, LedgerRow, Manifest, Snapshot};

use crate::plan::{Planned, Positions};

/// What a leader goes on from.
#[derive(Debug)]
pub(super) struct Standing {
    /// The last transaction that is complete everywhere.
    pub(super) complete: TxId,
    /// The chain up to it.
    pub(super) chain: Chain,
    /// Where it left every partition.
    pub(super) positions: Positions,
    /// The transactions after it whose plans stand, in order.
    pub(super) open: Vec<Planned>,
    /// If the first of them is committed in some shards already: with this manifest.
    pub(super) committed: Option<Manifest>,
}

/// Decides what stands. `known` are the plans of coordination and of this leader's own memory.
pub(super) fn reconcile(snapshot: &Snapshot, known: &BTreeMap<TxId, Planned>) -> Result<Standing, Failure> {
    let txids = snapshot.rows.iter().map(|row| row.txid);
    let (Some(low), Some(high)) = (txids.clone().min(), txids.max()) else {
        return Err(Failure::fatal("the ledger has no rows for this topology"));
    };
    if high > low.next() {
        return Err(Failure::fatal(format!(
            "shards stand at transactions {low} and {high}, more than one apart: part of the database was restored; restore all of it to one moment"
        )));
    }
    let (chain, _) = agreed(&snapshot.rows, low)?;
    let prepared = decode_prepared(snapshot)?;
    let positions = match low {
        TxId::NONE => Positions::new(),
        _ => positions_after(low, chain, &prepared)?,
    };
    let committed = if high > low { Some(agreed(&snapshot.rows, high)?) } else { None };
    let open = standing_plans(low, chain, &[&prepared, known], committed.map(|(chain, _)| chain))?;
    let committed = committed.map(|(_, manifest)| manifest);
    Ok(Standing { complete: low, chain, positions, open, committed })
}

/// The chain and manifest on which all rows at `txid` agree.
fn agreed(rows: &[LedgerRow], txid: TxId) -> Result<(Chain, Manifest), Failure> {
    let mut at = rows.iter().filter(|row| row.txid == txid).map(|row| (row.chain, row.manifest));
    let first = at.next().unwrap_or((Hash128(0), Hash128(0)));
    match at.find(|other| *other != first) {
        None => Ok(first),
        Some(other) => Err(Failure::fatal(format!(
            "shards disagree about transaction {txid}: chain and manifest {first:?} and {other:?}; the ledger was edited or mixed from two databases"
        ))),
    }
}

fn decode_prepared(snapshot: &Snapshot) -> Result<BTreeMap<TxId, Planned>, Failure> {
    let mut prepared = BTreeMap::new();
    for row in &snapshot.transactions {
        let planned = Planned::decode(&row.plan).map_err(|error| {
            Failure::fatal(format!("the plan of transaction {} in tine_transactions: {error}", row.txid))
        })?;
        if (planned.plan.txid, planned.plan.previous, planned.chain) != (row.txid, row.previous, row.chain) {
            return Err(Failure::fatal(format!(
                "the plan of transaction {} in tine_transactions is not the one that was written",
                row.txid
            )));
        }
        prepared.insert(row.txid, planned);
    }
    Ok(prepared)
}

fn positions_after(low: TxId, chain: Chain, prepared: &BTreeMap<TxId, Planned>) -> Result<Positions, Failure> {
    match prepared.get(&low) {
        Some(planned) if planned.chain == chain => Ok(planned.plan.ends()),
        Some(planned) => Err(Failure::fatal(format!(
            "the ledger holds chain {chain} at transaction {low} and tine_transactions {}: one of them was edited or restored alone",
            planned.chain
        ))),
        None => Err(Failure::fatal(format!(
            "transaction {low} is committed and its plan is missing in tine_transactions: restore that row from a backup"
        ))),
    }
}

/// The plans after `low` that stand: each follows the chain before it, and the first is the one that rows hold.
fn standing_plans(
    low: TxId,
    chain: Chain,
    candidates: &[&BTreeMap<TxId, Planned>],
    committed: Option<Chain>,
) -> Result<Vec<Planned>, Failure> {
    let (mut open, mut txid, mut previous) = (Vec::new(), low.next(), chain);
    loop {
        let follows = |planned: &&Planned| planned.plan.previous == previous || mutant::on(Mutant::PlanWithoutChain);
        let is_the_rows = |planned: &&Planned| !open.is_empty() || committed.is_none_or(|chain| planned.chain == chain);
        let found =
            candidates.iter().filter_map(|plans| plans.get(&txid)).find(|plan| follows(plan) && is_the_rows(plan));
        match found {
            Some(planned) => {
                previous = planned.chain;
                txid = txid.next();
                open.push(planned.clone());
            }
            None if open.is_empty() && committed.is_some() => {
                return Err(Failure::fatal(format!(
                    "transaction {txid} is committed in some shards and its plan is lost: restore tine_transactions from a backup"
                )));
            }
            None => return Ok(open),
        }
    }
}
