//! How far partitions reach, asked of their leader.

use crate::wire::codec::{Put, Read, Take};

/// A partition in the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted<'t> {
    pub(crate) topic: &'t str,
    pub(crate) partition: i32,
    /// The epoch in which the broker asked is thought to lead (KIP-320).
    pub(crate) epoch: i32,
    /// -2 for the first offset, -1 for the last stable one, else milliseconds since 1970.
    pub(crate) timestamp: i64,
}

/// Writes the question; partitions of a topic that follow one another are grouped. Only committed records count.
pub(crate) fn ask(put: &mut Put<'_>, wanted: &[Wanted<'_>]) {
    let groups = || wanted.chunk_by(|a, b| a.topic == b.topic);
    put.i32(-1); // Not a replica.
    put.i8(1); // Read committed.
    put.count(groups().count());
    for group in groups() {
        put.text(group[0].topic);
        put.count(group.len());
        for wanted in group {
            put.i32(wanted.partition);
            put.i32(wanted.epoch);
            put.i64(wanted.timestamp);
            put.no_tags();
        }
        put.no_tags();
    }
    put.no_tags();
}

/// What the leader says of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offset {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) error: i16,
    /// -1 when there is none.
    pub(crate) offset: i64,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offsets {
    pub(crate) throttle_ms: i32,
    pub(crate) offsets: Vec<Offset>,
}

impl Offsets {
    /// Reads the body.
    pub(crate) fn read(take: &mut Take<'_>) -> Read<Offsets> {
        let mut all = Offsets { throttle_ms: take.i32()?, offsets: Vec::new() };
        for _ in 0..take.count(3)? {
            let topic = take.text()?.unwrap_or_default();
            for _ in 0..take.count(27)? {
                let (partition, error) = (take.i32()?, take.i16()?);
                take.i64()?; // The record's timestamp.
                let offset = take.i64()?;
                take.i32()?; // The record's epoch.
                take.skip_tags()?;
                all.offsets.push(Offset { topic: topic.to_string(), partition, error, offset });
            }
            take.skip_tags()?;
        }
        take.skip_tags()?;
        Ok(all)
    }
}
