//! Which brokers there are, and for some topics their ids and leaders.

use crate::wire::codec::{Put, Read, Take};

/// Writes the question for some topics by name. None of them comes into being by it.
pub(crate) fn ask(put: &mut Put<'_>, names: &[&str]) {
    put.count(names.len());
    for name in names {
        put.bytes(&[0; 16]);
        put.text(name);
        put.no_tags();
    }
    put.flag(false); // Create missing topics.
    put.flag(false); // Tell what is allowed.
    put.no_tags();
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) throttle_ms: i32,
    /// Of the whole answer.
    pub(crate) error: i16,
    pub(crate) brokers: Vec<Broker>,
    pub(crate) topics: Vec<Topic>,
}

/// A broker's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broker {
    pub(crate) id: i32,
    pub(crate) host: String,
    pub(crate) port: i32,
}

/// A topic, or why nothing is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) error: i16,
    pub(crate) name: String,
    /// Zero for none.
    pub(crate) id: [u8; 16],
    pub(crate) partitions: Vec<Partition>,
}

/// Who leads a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) index: i32,
    /// -1 for nobody.
    pub(crate) leader: i32,
    pub(crate) epoch: i32,
}

impl Metadata {
    /// Reads the body.
    pub(crate) fn read(take: &mut Take<'_>, version: i16) -> Read<Metadata> {
        let throttle_ms = take.i32()?;
        let count = take.count(11)?;
        let brokers = (0..count).map(|_| broker(take)).collect::<Read<_>>()?;
        take.text()?; // The cluster's id.
        take.i32()?; // The controller.
        let count = take.count(26)?;
        let topics = (0..count).map(|_| topic(take)).collect::<Read<_>>()?;
        let error = if version >= 13 { take.i16()? } else { 0 };
        take.skip_tags()?;
        Ok(Metadata { throttle_ms, error, brokers, topics })
    }
}

fn broker(take: &mut Take<'_>) -> Read<Broker> {
    let id = take.i32()?;
    let host = take.text()?.unwrap_or_default().to_string();
    let port = take.i32()?;
    take.text()?; // The rack.
    take.skip_tags()?;
    Ok(Broker { id, host, port })
}

fn topic(take: &mut Take<'_>) -> Read<Topic> {
    let error = take.i16()?;
    let name = take.text()?.unwrap_or_default().to_string();
    let id = take.uuid()?;
    take.flag()?; // Whether it is internal.
    let count = take.count(18)?;
    let partitions = (0..count).map(|_| partition(take)).collect::<Read<_>>()?;
    take.i32()?; // What is allowed.
    take.skip_tags()?;
    Ok(Topic { error, name, id, partitions })
}

fn partition(take: &mut Take<'_>) -> Read<Partition> {
    take.i16()?; // An error that concerns replicas, or that nobody leads, which the leader says too.
    let partition = Partition { index: take.i32()?, leader: take.i32()?, epoch: take.i32()? };
    for _ in ["replicas", "in sync", "offline"] {
        let count = take.count(4)?;
        take.bytes(count * 4)?;
    }
    take.skip_tags()?;
    Ok(partition)
}
