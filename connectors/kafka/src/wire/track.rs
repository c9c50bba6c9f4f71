//! A partition on its way: what was fetched of it, what was asked for, and what was lent.
//!
//! ```text
//!   lent ........|next            end|                     reach
//!                |<---- sets[0] ---->|<---- sets[1] ------>|<- asked for
//! ```

use std::{collections::VecDeque, time::Instant};

use super::{
    errors,
    frame::Buffer,
    message::fetch::{self, Partition},
    set::{self, RecordSet},
};
use crate::{
    client::Halt,
    records::{Aborted, Decoder},
};

/// A partition being read.
#[derive(Debug)]
pub(crate) struct Track {
    /// Tells answers to this start of the partition from those to an earlier one.
    pub(crate) serial: u64,
    partition: i32,
    /// The id of the topic that was planned: no other's records are asked for.
    pub(crate) incarnation: String,
    /// Everything below was lent, or is proved not to exist.
    pub(crate) next: u64,
    /// Everything below was fetched.
    pub(crate) reach: u64,
    /// The epoch of the last batch fetched, -1 when none was.
    pub(crate) epoch: i32,
    /// The last stable offset, as the leader last said.
    pub(crate) stable: u64,
    /// Fetched and not yet lent; at most two.
    pub(crate) sets: VecDeque<RecordSet>,
    /// Who was asked for what lies behind `reach`,
    pub(crate) asked: Option<String>,
    /// and under which id.
    pub(crate) topic_id: [u8; 16],
    /// When it was last read.
    pub(crate) used: Instant,
}

/// What an answer means for its partition.
#[derive(Debug)]
pub(crate) enum Told {
    /// Records have come.
    Records,
    /// There are none yet, or the broker throttles us: then it leaves the partition out (KIP-219).
    Nothing,
    /// Somebody else leads, perhaps.
    Moved(String),
    /// It does not go on like this.
    Halt(Halt),
}

impl Track {
    /// Begins at `from`; nothing is asked for yet.
    pub(crate) fn new(serial: u64, partition: i32, incarnation: &str, from: u64) -> Track {
        Track {
            serial,
            partition,
            incarnation: incarnation.to_string(),
            next: from,
            reach: from,
            epoch: -1,
            stable: 0,
            sets: VecDeque::new(),
            asked: None,
            topic_id: [0; 16],
            used: Instant::now(),
        }
    }

    /// Whether one more fetch may be under way: what is held and what comes is bounded.
    pub(crate) fn has_room(&self) -> bool {
        self.asked.is_none() && self.sets.len() < 2
    }

    /// Memory of what is held.
    pub(crate) fn held_bytes(&self) -> usize {
        let of = |set: &RecordSet| set.buffer.size() + set.decoder.as_ref().map_or(0, Decoder::held_bytes);
        self.sets.iter().map(of).sum()
    }

    /// Takes in the answer to what was asked; gives the buffer back when nothing in it is kept.
    pub(crate) fn told(
        &mut self,
        error: i16,
        mut partitions: Vec<Partition>,
        buffer: Buffer,
        version: i16,
    ) -> (Told, Option<Buffer>) {
        self.asked = None;
        let told = match (error, partitions.pop()) {
            (errors::NONE, Some(told)) if partitions.is_empty() && self.is_meant(&told, version) => match judged(&told)
            {
                Some(against) => Err(against),
                None => Ok(told),
            },
            (errors::NONE, None) => Err(Told::Nothing),
            (errors::NONE, _) => Err(Told::Halt(Halt::Broken("the leader answers for another partition".into()))),
            (code, _) if errors::has_moved(code) => Err(Told::Moved(errors::words(code))),
            (code, _) => Err(Told::Halt(Halt::Broken(errors::words(code)))),
        };
        match told {
            Ok(told) => self.keep(told, buffer),
            Err(told) => (told, Some(buffer)),
        }
    }

    fn is_meant(&self, told: &Partition, version: i16) -> bool {
        told.index == self.partition && (version < fetch::BY_ID || told.topic_id == self.topic_id)
    }

    fn keep(&mut self, told: Partition, buffer: Buffer) -> (Told, Option<Buffer>) {
        self.stable = u64::try_from(told.stable).unwrap_or(0);
        let unreadable = |what: String| Told::Halt(Halt::Unreadable(what));
        match set::reach(&buffer.answer()[told.records.clone()]) {
            Err(what) => (unreadable(format!("the leader's answer holds {what}")), Some(buffer)),
            Ok(None) if told.records.is_empty() => (Told::Nothing, Some(buffer)),
            Ok(None) => (unreadable("the leader's answer holds no whole batch".into()), Some(buffer)),
            Ok(Some((end, _))) if end <= self.reach => {
                let what = format!("the leader's answer ends at {end}, before {}", self.reach);
                (Told::Halt(Halt::Broken(what)), Some(buffer))
            }
            Ok(Some((end, epoch))) => {
                let aborted = told.aborted.iter().map(|(producer_id, first_offset)| Aborted {
                    producer_id: *producer_id,
                    first_offset: *first_offset,
                });
                let aborted = Some(aborted.collect());
                self.sets.push_back(RecordSet { buffer, rest: told.records, aborted, decoder: None, end });
                (self.reach, self.epoch) = (end, epoch);
                (Told::Records, None)
            }
        }
    }
}

/// What stands against a partition's records, if anything does.
fn judged(told: &Partition) -> Option<Told> {
    if let Some((epoch, end)) = told.diverging {
        let why = format!("truncated: the leader's history parts from ours at offset {end} of epoch {epoch}");
        return Some(Told::Halt(Halt::Truncated(why)));
    }
    match told.error {
        errors::NONE => None,
        errors::NOT_ALLOWED => Some(Told::Halt(Halt::NotAllowed)),
        code if errors::has_moved(code) => Some(Told::Moved(errors::words(code))),
        code => Some(Told::Halt(Halt::Broken(errors::words(code)))),
    }
}
