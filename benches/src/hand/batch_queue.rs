//! librdkafka's batch consumption (`rd_kafka_consume_batch_queue`), which the `rdkafka` crate does not offer.
//!
//! One call takes thousands of messages from the queue under one lock; the crate's `poll` costs twice the CPU time per
//! message. Each message is lent to a closure and given back before the call returns, so no pointer leaves this file.

#![allow(unsafe_code, reason = "batch consumption exists only in librdkafka's C interface")]

use std::ffi::{CStr, c_int};
use std::ptr;
use std::slice;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use rdkafka_sys::{self as sys, rd_kafka_resp_err_t};

use super::Feed;

/// Messages taken at once: enough to make the call itself free, few enough to stay in the cache.
const BATCH_MAX: usize = 4_000;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// All partitions of one topic, read from given positions to the end of this moment.
pub(super) struct BatchQueue {
    /// Holds one reference that keeps librdkafka's queue alive; given back on drop, before the consumer goes.
    queue: *mut sys::rd_kafka_queue_t,
    /// Owns the client the queue belongs to.
    _consumer: BaseConsumer,
    batch: Vec<*mut sys::rd_kafka_message_t>,
    /// By partition: the next offset to come, and the first not to be delivered.
    positions: Vec<i64>,
    ends: Vec<i64>,
}

impl BatchQueue {
    /// Starts reading each partition at `position(partition)`, up to the end of this moment or, `endless`, for ever.
    pub(super) fn open(brokers: &str, topic: &str, endless: bool, position: impl Fn(i32) -> i64) -> Result<Self> {
        let consumer = connect(brokers)?;
        let metadata = consumer
            .fetch_metadata(Some(topic), START_TIMEOUT)
            .with_context(|| format!("no metadata from Kafka at {brokers}"))?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        ensure!(partitions > 0, "topic {topic} does not exist");
        let (mut positions, mut ends) = (Vec::new(), Vec::new());
        let mut assignment = TopicPartitionList::new();
        for partition in 0..i32::try_from(partitions).context("too many partitions")? {
            let from = position(partition);
            assignment.add_partition_offset(topic, partition, Offset::Offset(from))?;
            positions.push(from);
            let end = consumer.fetch_watermarks(topic, partition, START_TIMEOUT)?.1;
            ends.push(if endless { i64::MAX } else { end });
        }
        consumer.assign(&assignment)?;
        // SAFETY: the client is alive; the call returns a new reference, which `drop` gives back before the client goes.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        ensure!(!queue.is_null(), "librdkafka has no consumer queue");
        Ok(Self { queue, _consumer: consumer, batch: vec![ptr::null_mut(); BATCH_MAX], positions, ends })
    }
}

impl Feed for BatchQueue {
    fn positions(&self) -> &[i64] {
        &self.positions
    }

    fn is_at_end(&self) -> bool {
        self.positions.iter().zip(&self.ends).all(|(position, end)| position >= end)
    }

    fn consume(&mut self, timeout: Duration, mut each: impl FnMut(usize, &[u8])) -> Result<usize> {
        let timeout_ms = c_int::try_from(timeout.as_millis()).context("the timeout is too long")?;
        // SAFETY: the queue is alive, and `batch` has room for as many pointers as we say.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(self.queue, timeout_ms, self.batch.as_mut_ptr(), self.batch.len())
        };
        let count = usize::try_from(count).context("librdkafka could not consume a batch")?;
        let mut delivered = 0;
        let mut outcome = Ok(());
        for &message in &self.batch[..count] {
            // SAFETY: librdkafka wrote `count` valid messages, each ours until it is destroyed, once, below.
            let lent = unsafe { &*message };
            if outcome.is_ok() {
                match take(lent, &mut self.positions, &self.ends, &mut each) {
                    Ok(taken) => delivered += usize::from(taken),
                    Err(error) => outcome = Err(error),
                }
            }
            // SAFETY: the message is ours, and `lent` is not used again.
            unsafe { sys::rd_kafka_message_destroy(message) };
        }
        outcome.map(|()| delivered)
    }
}

impl Drop for BatchQueue {
    fn drop(&mut self) {
        // SAFETY: our own reference, given back once; the client is dropped after this.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) };
    }
}

/// Whether the message was a record below the end; moves its partition's position.
fn take(
    message: &sys::rd_kafka_message_t,
    positions: &mut [i64],
    ends: &[i64],
    each: &mut impl FnMut(usize, &[u8]),
) -> Result<bool> {
    match message.err {
        rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {}
        rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
            // Control records at the end take offsets and are never delivered.
            let partition = usize::try_from(message.partition).context("a partition below 0")?;
            positions[partition] = positions[partition].max(message.offset);
            return Ok(false);
        }
        _ => bail!("Kafka: {}", error_text(message)),
    }
    let partition = usize::try_from(message.partition).context("a partition below 0")?;
    if message.offset >= ends[partition] {
        return Ok(false);
    }
    ensure!(
        message.offset >= positions[partition],
        "partition {partition} went back from {} to {}",
        positions[partition],
        message.offset
    );
    positions[partition] = message.offset + 1;
    let value = if message.payload.is_null() {
        &[]
    } else {
        // SAFETY: payload and len describe one buffer that lives as long as the message.
        unsafe { slice::from_raw_parts(message.payload.cast::<u8>(), message.len) }
    };
    each(partition, value);
    Ok(true)
}

fn error_text(message: &sys::rd_kafka_message_t) -> String {
    // SAFETY: librdkafka returns a C string that lives as long as the message.
    let text = unsafe { sys::rd_kafka_message_errstr(message) };
    if text.is_null() {
        return format!("{:?}", message.err);
    }
    // SAFETY: not null, see above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn connect(brokers: &str) -> Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        // Manual assignment needs a name; nothing is ever committed to it.
        .set("group.id", "hand-written-loop")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        // The default sleeps a second whenever the local queue is full.
        .set("fetch.queue.backoff.ms", "2")
        .set("fetch.wait.max.ms", "20")
        // Little in flight stays in the processor's cache: the defaults cost a third more CPU and twice the memory.
        .set("fetch.message.max.bytes", "262144")
        .set("queued.min.messages", "20000")
        .create()
        .context("the Kafka consumer's settings are wrong")
}
