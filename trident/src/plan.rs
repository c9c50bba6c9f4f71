//! What a transaction contains: fixed before it is emitted, durable before it is first committed, the same at every replay.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use tine_core::{
    codec::{self, CodecError},
    hash::Hash128,
    id::{Attempt, TxId},
};
use tine_state::{Chain, Manifest, TransactionRow};

use crate::source::{PartitionRange, SourceIndex};

/// The plan of one transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Which transaction.
    pub txid: TxId,
    /// The chain before it.
    pub previous: Chain,
    /// The batch's clock: milliseconds since 1970.
    pub time_ms: u64,
    /// The batch's random seed.
    pub seed: u64,
    /// A range for every partition ever seen, empty ones included, in (source, partition) order.
    pub ranges: Vec<PartitionRange>,
}

/// A plan with its encoding and chain worked out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The chain up to and including it.
    pub chain: Chain,
    /// Its durable form.
    pub encoded: Arc<[u8]>,
}

/// How far each partition has been planned: the ends of a plan's ranges.
pub type Positions = BTreeMap<(SourceIndex, String), Position>;

/// How far a partition has been planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Everything below it is planned.
    pub at: u64,
    /// The partition's incarnation.
    pub incarnation: String,
    /// Where its last record was ended by decree when the last plan was made; see [`PartitionRange::closed_at`].
    pub closed_at: Option<u64>,
}

impl Plan {
    /// The position after the plan, for every partition.
    pub fn ends(&self) -> Positions {
        let end = |range: &PartitionRange| {
            let position =
                Position { at: range.to, incarnation: range.incarnation.clone(), closed_at: range.closed_at };
            ((range.source, range.partition.clone()), position)
        };
        self.ranges.iter().map(end).collect()
    }

    /// How many positions it spans: records at most, or bytes, as the source counts.
    pub fn units(&self) -> u64 {
        self.ranges.iter().map(|range| range.to - range.from).sum()
    }
}

impl Planned {
    /// Encodes a plan and works out its chain: the hash of the chain before it and of its encoding.
    pub fn new(plan: Plan) -> Planned {
        let encoded = codec::encode(&plan);
        let chain = Hash128::of_parts([&plan.previous.to_bytes()[..], &encoded]);
        Planned { plan: Arc::new(plan), chain, encoded: encoded.into() }
    }

    /// Reads a plan back.
    pub fn decode(encoded: &[u8]) -> Result<Planned, CodecError> {
        codec::decode(encoded).map(Planned::new)
    }

    /// The row that makes it durable in a state's database.
    pub fn row(&self, attempt: Attempt, manifest: Manifest) -> TransactionRow {
        TransactionRow {
            txid: self.plan.txid,
            previous: self.plan.previous,
            chain: self.chain,
            manifest,
            attempt,
            plan: self.encoded.to_vec(),
            ranges: ranges_as_json(&self.plan.ranges),
        }
    }
}

/// The ranges that hold something, for people and queries.
fn ranges_as_json(ranges: &[PartitionRange]) -> String {
    let full = ranges.iter().filter(|range| range.to > range.from);
    let objects = full.map(|range| {
        serde_json::json!({
            "source": range.source.0, "partition": range.partition, "from": range.from, "to": range.to,
        })
    });
    serde_json::Value::Array(objects.collect()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(previous: u128, to: u64) -> Plan {
        let range = |partition: &str, from, to| PartitionRange {
            source: SourceIndex(0),
            partition: partition.to_string(),
            incarnation: "i".to_string(),
            from,
            to,
            closed_at: (from == to).then_some(to),
        };
        let ranges = vec![range("a/0", 3, to), range("a/1", 5, 5)];
        Plan { txid: TxId(2), previous: Hash128(previous), time_ms: 1, seed: 2, ranges }
    }

    #[test]
    fn chains_tell_predecessors_and_ranges_apart() {
        let base = Planned::new(plan(7, 9)).chain;
        assert_ne!(base, Planned::new(plan(8, 9)).chain);
        assert_ne!(base, Planned::new(plan(7, 10)).chain);
        assert_eq!(base, Planned::decode(&Planned::new(plan(7, 9)).encoded).unwrap().chain);
    }

    /// Golden bytes: if this fails, plans in the field have become unreadable; raise the codec's version instead.
    #[test]
    fn the_encoding_is_the_documented_one() {
        let bytes = Planned::new(plan(7, 9)).encoded;
        let range = |name, from, to| [0, 3, b'a', b'/', name, 1, b'i', from, to];
        let expected = [&[1, 2, 7, 1, 2, 2][..], &range(b'0', 3, 9), &[0], &range(b'1', 5, 5), &[1, 5]].concat();
        assert_eq!(&bytes[..], &expected[..], "{bytes:?}");
    }

    #[test]
    fn ranges_read_as_json_without_the_empty_ones() {
        let row = Planned::new(plan(7, 9)).row(Attempt::NONE, Hash128(0));
        assert_eq!(row.ranges, r#"[{"from":3,"partition":"a/0","source":0,"to":9}]"#);
    }
}
