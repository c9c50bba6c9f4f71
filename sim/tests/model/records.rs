//! The records of the models: numbers 0, 1, 2 … of one partition, each of which every shard counts once.

use std::{any::Any, sync::Arc};

use tine_core::{hash::Hash128, id::Shard};
use tine_state::{Column, Digest, ShardRef, StateIndex, TableRows};
use tine_trident::{
    committer::{FoldedBatch, Parts},
    pipeline::{BatchRows, Rows, Target},
    source::{PartitionBounds, PartitionRange},
};

/// The one state.
pub(crate) const STATE: StateIndex = StateIndex(0);

pub(crate) fn at(shard: usize) -> ShardRef {
    ShardRef { state: STATE, shard: Shard(u16::try_from(shard).unwrap()) }
}

/// Records on their way; every committer gets all of them.
#[derive(Clone, Debug)]
struct Numbers(Vec<i64>);

impl Rows for Numbers {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn split(self: Box<Self>, _: &[usize], tasks: usize) -> Vec<Box<dyn Rows>> {
        (0..tasks).map(|_| self.boxed_clone()).collect()
    }

    fn boxed_clone(&self) -> Box<dyn Rows> {
        Box::new(self.clone())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// What the source holds.
pub(crate) fn bounds(records: u64) -> PartitionBounds {
    let (partition, incarnation) = ("log".to_owned(), "one".to_owned());
    PartitionBounds { partition, incarnation, low: 0, end: records, start: 0, closed_at: None }
}

/// Reads ranges.
pub(crate) fn read(ranges: &[PartitionRange]) -> BatchRows {
    let records: Vec<i64> = ranges.iter().flat_map(|range| range.from..range.to).map(|n| n as i64).collect();
    BatchRows { rows: vec![(Target::State(STATE), Box::new(Numbers(records)))], ..BatchRows::default() }
}

/// Folds what one committer, the owner of one shard, was sent.
pub(crate) fn fold(shard: usize, parts: Parts) -> FoldedBatch {
    let chunks = parts.into_values().flatten().filter_map(|rows| rows.into_any().downcast::<Numbers>().ok());
    let mut records: Vec<i64> = chunks.flat_map(|chunk| chunk.0).collect();
    records.sort_unstable();
    fold_records(shard, records)
}

/// Rows and digest of some records in one shard.
pub(crate) fn fold_records(shard: usize, records: Vec<i64>) -> FoldedBatch {
    let mut digest = Digest::default();
    records.iter().for_each(|record| digest.add(Hash128::of(&record.to_be_bytes())));
    let rows = TableRows {
        shards: vec![at(shard).shard; records.len()],
        values: vec![Column::BigInt(vec![1; records.len()])],
        keys: vec![Column::BigInt(records)],
        combine: None,
    };
    FoldedBatch { tables: vec![(STATE, Arc::new(rows))], digests: vec![(at(shard), digest)] }
}
