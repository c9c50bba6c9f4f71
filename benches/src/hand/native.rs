//! The loop on tine's own Kafka reader: what somebody writes who knows it, and wants nothing else of tine.
//!
//! Ranges of the partitions are read in turns, each proved complete by the reader itself.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tine::Kafka;
use tine::core::failure::Failure;
use tine::trident::source::{Horizon, PartitionBounds, PartitionRange, Reached, Reader, Record, Sink, SourceIndex};
use tine_kafka::Client;

use super::Feed;

/// Offsets read of one partition before it is another's turn: enough to spread what a range costs, few enough that no
/// commit waits long for the end of one.
const RANGE_MAX: i64 = 100_000;

/// All partitions of one topic, read from given positions to the end of this moment.
pub(super) struct Native {
    reader: Box<dyn Reader>,
    partitions: Vec<PartitionBounds>,
    positions: Vec<i64>,
    range: i64,
    turn: usize,
}

impl Native {
    /// Starts reading each partition at `position(partition)`, in ranges that let commits of `commit_records` be cut.
    pub(super) fn open(brokers: &str, topic: &str, commit_records: u64, position: impl Fn(i32) -> i64) -> Result<Self> {
        let source = Kafka::connect(brokers).client(Client::Native).topic(topic).bytes().source;
        let mut partitions = source.bounds()?.poll(Horizon::Now, &Reached::nothing())?;
        partitions.sort_by_key(|bounds| number(&bounds.partition));
        ensure!(!partitions.is_empty(), "topic {topic} has no partitions");
        let positions = (0..).map(position).take(partitions.len()).collect();
        let range = i64::try_from(commit_records / 4).unwrap_or(i64::MAX).clamp(1, RANGE_MAX);
        Ok(Self { reader: source.reader()?, partitions, positions, range, turn: 0 })
    }

    fn end(&self, partition: usize) -> i64 {
        i64::try_from(self.partitions[partition].end).unwrap_or(i64::MAX)
    }
}

/// The number in `topic/number`.
fn number(partition: &str) -> Option<i32> {
    partition.rsplit_once('/')?.1.parse().ok()
}

impl Feed for Native {
    fn positions(&self) -> &[i64] {
        &self.positions
    }

    fn is_at_end(&self) -> bool {
        (0..self.partitions.len()).all(|partition| self.positions[partition] >= self.end(partition))
    }

    fn consume(&mut self, _: Duration, each: impl FnMut(usize, &[u8])) -> Result<usize> {
        let partition = self.turn % self.partitions.len();
        self.turn += 1;
        let (from, to) = (self.positions[partition], (self.positions[partition] + self.range).min(self.end(partition)));
        if from >= to {
            return Ok(0);
        }
        let bounds = &self.partitions[partition];
        let range = PartitionRange {
            source: SourceIndex(0),
            partition: bounds.partition.clone(),
            incarnation: bounds.incarnation.clone(),
            from: u64::try_from(from).context("a position below 0")?,
            to: u64::try_from(to).context("a position below 0")?,
            closed_at: None,
        };
        let mut lent = Lent { partition, each, delivered: 0 };
        self.reader.read(&range, &mut lent)?;
        self.positions[partition] = to;
        Ok(lent.delivered)
    }
}

struct Lent<E> {
    partition: usize,
    each: E,
    delivered: usize,
}

impl<E: FnMut(usize, &[u8])> Sink for Lent<E> {
    fn records(&mut self, chunk: &[Record<'_>]) -> Result<(), Failure> {
        self.delivered += chunk.len();
        chunk.iter().for_each(|record| (self.each)(self.partition, record.value.unwrap_or_default()));
        Ok(())
    }

    fn cancelled(&self) -> bool {
        false
    }
}
