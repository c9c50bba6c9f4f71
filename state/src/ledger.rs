//! The nouns of the ledger: who may write, what is committed, what a transaction contains.

use std::fmt;

use serde::{Deserialize, Serialize};
use tine_core::{
    hash::Hash128,
    id::{Attempt, Shard, TxId},
    mutant::{self, Mutant},
};

use crate::TableSpec;

/// Hash over a plan and all plans before it: "same predecessor, same ranges" in one comparison.
pub type Chain = Hash128;

/// Hash over the digests of all shards of a transaction: what it did, in one comparison.
pub type Manifest = Hash128;

/// What a transaction does to one shard, whatever order its rows came in: their count and the wrapping sum of their
/// hashes. (An exclusive or would let equal rows cancel.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// How many merged rows.
    pub count: u64,
    /// The wrapping sum of their 128-bit hashes.
    pub sum: u128,
}

impl Digest {
    /// Adds a row by its hash.
    pub fn add(&mut self, row: Hash128) {
        self.count += 1;
        self.sum = match mutant::on(Mutant::XorDigest) {
            true => self.sum ^ row.0,
            false => self.sum.wrapping_add(row.0),
        };
    }
}

/// Which state of a group, by its place in [`GroupSpec::states`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StateIndex(pub u16);

/// One shard of one state: one row of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardRef {
    /// The state.
    pub state: StateIndex,
    /// The shard.
    pub shard: Shard,
}

/// A state of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSpec {
    /// Its name, unique in the topology: the table's name unless the user chose another.
    pub name: String,
    /// Into how many shards its keys are cut; fixed when the state is first created.
    pub shards: u16,
    /// Its table.
    pub table: TableSpec,
}

/// A batch group as a database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// The topology's name.
    pub topology: String,
    /// The group's name within the topology.
    pub group: String,
    /// Its states; never empty.
    pub states: Vec<StateSpec>,
    /// Hash of the topology's shape and the user's version string.
    pub fingerprint: Hash128,
    /// The shape in words, kept beside the fingerprint so that a mismatch can say what differs.
    pub shape: String,
    /// The lineage to mint if this is the first start; random.
    pub lineage: u128,
}

impl GroupSpec {
    /// Every shard of every state, in (state, shard) order.
    pub fn shard_refs(&self) -> Vec<ShardRef> {
        let shards_of = |(index, state): (usize, &StateSpec)| {
            let state_index = StateIndex(u16::try_from(index).expect("a topology has fewer than 65,536 states"));
            (0..state.shards).map(move |shard| ShardRef { state: state_index, shard: Shard(shard) })
        };
        self.states.iter().enumerate().flat_map(shards_of).collect()
    }
}

/// The group's row: who may write to all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    /// Random identity minted when the tables were created.
    pub lineage: u128,
    /// The topology's fingerprint.
    pub fingerprint: Hash128,
    /// The attempt that may commit.
    pub fence: Attempt,
    /// Every shard that exists: one listed but missing in the ledger means lost rows.
    pub shards: Vec<ShardRef>,
}

/// A shard's row: what is committed in it, and which attempt may commit next. A new one carries txid 0, chain and
/// manifest zero, and `Attempt::NONE` twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    /// Which shard.
    pub at: ShardRef,
    /// The attempt that may commit.
    pub fence: Attempt,
    /// The last transaction committed here.
    pub txid: TxId,
    /// The chain up to it.
    pub chain: Chain,
    /// Its manifest.
    pub manifest: Manifest,
    /// The attempt that committed it; raises don't touch it.
    pub attempt: Attempt,
}

/// A transaction's row in `tine_transactions`: what it contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionRow {
    /// Which transaction.
    pub txid: TxId,
    /// The chain before it.
    pub previous: Chain,
    /// The chain up to it.
    pub chain: Chain,
    /// Its manifest, as last prepared.
    pub manifest: Manifest,
    /// The attempt that wrote this row.
    pub attempt: Attempt,
    /// The encoded plan.
    pub plan: Vec<u8>,
    /// The ranges in words, for people and queries: `[{"source":…,"partition":…,"from":…,"to":…}, …]` as JSON.
    pub ranges: String,
}

/// Which history of which database a connection sees: a failover or a restore may have lost what another promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// Postgres's system identifier; 0 for SQLite.
    pub system: u64,
    /// The timeline of the current WAL file; 0 for SQLite.
    pub timeline: u32,
    /// A position in the log that must have been reached; 0 for SQLite.
    pub lsn: u64,
}

impl Location {
    /// Whether a connection that sees `self` holds everything that `promised` held.
    pub fn includes(&self, promised: &Location) -> bool {
        let there = self.system == promised.system && self.timeline == promised.timeline && self.lsn >= promised.lsn;
        there || mutant::on(Mutant::LocationNotChecked)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "system {} timeline {} log position {:X}/{:X}",
            self.system,
            self.timeline,
            self.lsn >> 32,
            self.lsn & 0xffff_ffff
        )
    }
}

/// What a database holds of a group, read in one snapshot after a raise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The group's row.
    pub group: GroupRow,
    /// The ledger rows, in (state, shard) order.
    pub rows: Vec<LedgerRow>,
    /// The transactions from the lowest row's txid on, in txid order: the last complete one and all prepared ones.
    pub transactions: Vec<TransactionRow>,
    /// Where this was read, after the raise was durable.
    pub location: Location,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rows_do_not_cancel_in_a_digest_and_order_does_not_matter() {
        let (a, b) = (Hash128::of(b"a"), Hash128::of(b"b"));
        let digest = |rows: &[Hash128]| {
            let mut digest = Digest::default();
            rows.iter().for_each(|row| digest.add(*row));
            digest
        };
        assert_ne!(digest(&[a, a]).sum, 0);
        assert_ne!(digest(&[a, a, b]).sum, digest(&[b, b, b]).sum);
        assert_eq!(digest(&[a, b, a]), digest(&[b, a, a]));
    }
}
