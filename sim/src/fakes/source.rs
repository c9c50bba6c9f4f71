//! A source that a test fills itself, position by position.

use std::sync::Arc;

use tine_trident::source::Source;

use crate::source::{Partition, SimSource, Stored};

/// A partitioned log.
#[derive(Clone, Debug)]
pub struct FakeSource(SimSource);

impl FakeSource {
    /// A log without partitions; `seed` decides how short its polls are.
    pub fn new(name: &str, seed: u64) -> FakeSource {
        FakeSource(SimSource::new(name, Vec::new(), 0, 0, seed).emptied())
    }

    /// As a topology sees it.
    pub fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.0.clone())
    }

    /// Adds an empty partition.
    pub fn add_partition(&self, name: &str, incarnation: &str) {
        self.0.log().partitions.push(Partition {
            name: name.to_owned(),
            incarnation: incarnation.to_owned(),
            exists: true,
            low: 0,
            end: 0,
            records: Arc::new([]),
            ends: Vec::new(),
        });
    }

    /// Puts a record at a position, beyond all others of its partition.
    pub fn put(&self, partition: usize, position: u64, value: &str) {
        let partition = &mut self.0.log().partitions[partition];
        let new = Stored { position, key: None, value: value.into() };
        partition.records = partition.records.iter().cloned().chain([new]).collect();
    }

    /// Takes a record away, as compaction does.
    pub fn compact(&self, partition: usize, gone: impl Fn(u64) -> bool) {
        let partition = &mut self.0.log().partitions[partition];
        partition.records = partition.records.iter().filter(|stored| !gone(stored.position)).cloned().collect();
    }

    /// Everything below `end` is stable.
    pub fn reach(&self, partition: usize, end: u64) {
        self.0.log().partitions[partition].end = end;
    }

    /// Deletes what lies below `low`.
    pub fn delete_below(&self, partition: usize, low: u64) {
        let partition = &mut self.0.log().partitions[partition];
        partition.low = partition.low.max(low);
    }

    /// Deletes all partitions and makes them anew, empty, as `incarnation`.
    pub fn recreate(&self, incarnation: &str) {
        for partition in &mut self.0.log().partitions {
            incarnation.clone_into(&mut partition.incarnation);
            (partition.low, partition.end, partition.records) = (0, 0, Arc::new([]));
        }
    }
}
