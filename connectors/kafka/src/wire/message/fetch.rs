//! Records of one partition, from an offset on.
//!
//! A request asks for one partition: what it may bring is bounded, and every answer belongs to one place.

use std::ops::Range;

use crate::wire::codec::{Malformed, Put, Read, Take};

/// The first version that names a topic by its id (KIP-516).
pub(crate) const BY_ID: i16 = 13;

/// The first version without the replica's number as a field of its own (KIP-903).
const NO_REPLICA: i16 = 15;

/// The question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted<'t> {
    pub(crate) topic: &'t str,
    pub(crate) topic_id: [u8; 16],
    pub(crate) partition: i32,
    /// The epoch in which the broker asked is thought to lead.
    pub(crate) epoch: i32,
    pub(crate) from: i64,
    /// The epoch of the last record before `from`, -1 when it is not known: a leader with another history says so.
    pub(crate) last_epoch: i32,
    /// The first batch comes whole whatever its size.
    pub(crate) bytes_max: i32,
    pub(crate) wait_ms: i32,
}

impl Wanted<'_> {
    /// Writes the question, outside of a fetch session. Only committed records are wanted.
    pub(crate) fn ask(&self, put: &mut Put<'_>, version: i16) {
        if version < NO_REPLICA {
            put.i32(-1);
        }
        put.i32(self.wait_ms);
        put.i32(1); // The fewest bytes worth an answer.
        put.i32(self.bytes_max);
        put.i8(1); // Read committed.
        put.i32(0); // No session,
        put.i32(-1); // and none is wanted.
        put.count(1);
        match version {
            BY_ID.. => put.bytes(&self.topic_id),
            _ => put.text(self.topic),
        }
        put.count(1);
        put.i32(self.partition);
        put.i32(self.epoch);
        put.i64(self.from);
        put.i32(self.last_epoch);
        put.i64(-1); // A replica's first offset.
        put.i32(self.bytes_max);
        put.no_tags();
        put.no_tags();
        put.count(0); // No topic is forgotten.
        put.text(""); // No rack: only leaders are read from.
        put.no_tags();
    }
}

/// The answer; the records stay where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) throttle_ms: i32,
    /// Of the whole answer.
    pub(crate) error: i16,
    pub(crate) partitions: Vec<Partition>,
}

/// What the leader says of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Partition {
    /// By id, or zero when the version names topics by name.
    pub(crate) topic_id: [u8; 16],
    pub(crate) index: i32,
    pub(crate) error: i16,
    pub(crate) stable: i64,
    /// Producer and first offset of transactions aborted in what was fetched.
    pub(crate) aborted: Vec<(i64, i64)>,
    /// Epoch and end of the leader's history before it parts from ours.
    pub(crate) diverging: Option<(i32, i64)>,
    /// Where in the message the record set lies.
    pub(crate) records: Range<usize>,
}

impl Fetched {
    /// Reads the body.
    pub(crate) fn read(take: &mut Take<'_>, version: i16) -> Read<Fetched> {
        let (throttle_ms, error, _session) = (take.i32()?, take.i16()?, take.i32()?);
        let mut fetched = Fetched { throttle_ms, error, partitions: Vec::new() };
        for _ in 0..take.count(3)? {
            let topic_id = match version {
                BY_ID.. => take.uuid()?,
                _ => take.text().map(|_| [0; 16])?,
            };
            for _ in 0..take.count(36)? {
                let partition = Partition::read(take, topic_id)?;
                fetched.partitions.push(partition);
            }
            take.skip_tags()?;
        }
        take.skip_tags()?;
        Ok(fetched)
    }
}

impl Partition {
    fn read(take: &mut Take<'_>, topic_id: [u8; 16]) -> Read<Partition> {
        let (index, error, _high) = (take.i32()?, take.i16()?, take.i64()?);
        let (stable, _start) = (take.i64()?, take.i64()?);
        let count = take.count(17)?;
        let mut aborted = Vec::with_capacity(count);
        for _ in 0..count {
            aborted.push((take.i64()?, take.i64()?));
            take.skip_tags()?;
        }
        take.i32()?; // A replica that would rather be read from.
        let records = take.blob()?.map_or(0, <[u8]>::len);
        let records = take.at() - records..take.at();
        let mut diverging = None;
        take.tags(|tag, field| {
            if tag == 0 {
                diverging = Some((field.i32()?, field.i64()?));
            }
            Ok(())
        })?;
        if aborted.iter().any(|(producer, first)| *producer < 0 || *first < 0) {
            return Err(Malformed("an aborted transaction without a producer or an offset"));
        }
        Ok(Partition { topic_id, index, error, stable, aborted, diverging, records })
    }
}
