//! One partition being read: what is proved read so far, and the records in between, lent in chunks.
//!
//! A track knows the offset below which everything was lent. It moves over records, over gaps (the next record's offset
//! or the end-of-partition event says how far) and never by counting. It is the only judge of where a range ends, and it
//! believes neither librdkafka's position (which the end-of-partition event moves one too far) nor that offsets ascend.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka_sys::rd_kafka_resp_err_t as Code;
use tine_core::failure::Failure;
use tine_trident::source::{Record, Sink};

use super::{
    handle::Handle,
    native::batch::{Message, Queue},
};
use crate::client::cancelled;

/// How long one wait for records lasts: between two of them the sink is asked whether it still wants any.
const WAIT: Duration = Duration::from_millis(50);

/// How long nothing may come before somebody looks why.
pub(crate) const STALL: Duration = Duration::from_secs(5);

/// A partition being fetched, and how far it was lent.
pub(crate) struct Track {
    queue: Queue,
    /// Everything below was lent, or is proved not to exist.
    next: u64,
    /// When it was last read, to stop fetching what nobody reads any more.
    pub(crate) used: Instant,
}

/// Why a track stopped before the end of the range.
#[derive(Debug)]
pub(crate) enum Halt {
    /// Nothing came for [`STALL`]; it may go on as it is.
    Stalled,
    /// The partition's fetching failed: somebody looks why, and starts another one.
    Broken {
        /// librdkafka's code.
        code: i32,
        /// Its words.
        text: String,
    },
    /// The sink's failure, a cancellation, or a record that cannot be lent.
    Failed(Failure),
}

impl Track {
    /// Starts fetching at `from`.
    pub(crate) fn start(client: &Arc<Handle>, topic: &str, partition: i32, from: u64) -> Result<Track, Failure> {
        let offset = i64::try_from(from).map_err(|_| Failure::fatal(format!("{from} is not a kafka offset")))?;
        let queue =
            Queue::start(client, topic, partition, offset).map_err(|why| client.away("start fetching", &why))?;
        Ok(Track { queue, next: from, used: Instant::now() })
    }

    /// The offset below which everything was lent.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Lends what lies between [`next`](Track::next) and `to`. After `Ok`, `next` is `to`; after `Err`, it says how far
    /// the sink has everything, unless the sink itself failed.
    pub(crate) fn run(&mut self, to: u64, headers: bool, client: &Handle, sink: &mut dyn Sink) -> Result<(), Halt> {
        let mut since = Instant::now();
        self.used = since;
        while self.next < to {
            if self.queue.ready().is_empty() {
                self.queue.fill(WAIT);
                if self.queue.ready().is_empty() {
                    client.serve();
                    if sink.cancelled() {
                        return Err(Halt::Failed(cancelled()));
                    }
                    if since.elapsed() > STALL {
                        return Err(Halt::Stalled);
                    }
                    continue;
                }
                since = Instant::now();
            }
            self.step(to, headers, sink)?;
        }
        assert_eq!(self.next, to, "a range ends where it was planned to end");
        Ok(())
    }

    /// Lends the records at the head of the queue that belong to the range, or judges what stands there instead.
    fn step(&mut self, to: u64, headers: bool, sink: &mut dyn Sink) -> Result<(), Halt> {
        let ready = self.queue.ready();
        let mut next = self.next;
        let count = ready.iter().take_while(|message| match record_offset(message) {
            Some(offset) if next <= offset && offset < to => {
                next = offset + 1;
                true
            }
            _ => false,
        });
        let count = count.count();
        if count > 0 {
            lend(&ready[..count], headers, sink).map_err(Halt::Failed)?;
            self.queue.consume(count);
            self.next = next;
            return Ok(());
        }
        let head = &ready[0];
        let offset = u64::try_from(head.offset()).unwrap_or(0);
        match head.code() {
            // The record or the end is beyond the range: it stays for the next one.
            NONE | END if offset >= to => self.next = to,
            END => {
                self.next = self.next.max(offset);
                self.queue.consume(1);
            }
            NONE => {
                let text = format!("offset {offset} came after {} had been reached", self.next);
                return Err(Halt::Broken { code: NONE, text });
            }
            code => return Err(Halt::Broken { code, text: head.error() }),
        }
        Ok(())
    }
}

const NONE: i32 = Code::RD_KAFKA_RESP_ERR_NO_ERROR as i32;
const END: i32 = Code::RD_KAFKA_RESP_ERR__PARTITION_EOF as i32;

fn record_offset(message: &Message) -> Option<u64> {
    if message.code() == NONE { u64::try_from(message.offset()).ok() } else { None }
}

fn lend(messages: &[Message], headers: bool, sink: &mut dyn Sink) -> Result<(), Failure> {
    let (mut all, mut ends) = (Vec::new(), Vec::new());
    if headers {
        for message in messages {
            message.headers(&mut all).map_err(|why| unreadable(message, &why))?;
            ends.push(all.len());
        }
    }
    let mut start = 0;
    let records: Vec<Record<'_>> = messages
        .iter()
        .enumerate()
        .map(|(index, message)| {
            let end = ends.get(index).copied().unwrap_or(0);
            let headers = &all[start..end];
            start = end;
            Record {
                position: message.offset() as u64,
                timestamp_ms: message.timestamp_ms(),
                key: message.key(),
                value: message.value(),
                headers,
            }
        })
        .collect();
    sink.records(&records)
}

fn unreadable(message: &Message, why: &str) -> Failure {
    Failure::poison(format!("the headers of the record at offset {} cannot be read: {why}", message.offset()))
}
