//! Loads topics, fast, through librdkafka's producer, and makes the texts that go into them.
//!
//! Everything here blocks until the broker has acknowledged every record. Inside an asynchronous test that is a worker
//! thread's time; `tokio::task::spawn_blocking` is there for long loads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::services::kafka::Broker;

/// How long a flush, or one step of a transaction, may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long a full send queue is given before the next attempt.
const QUEUE_FULL: Duration = Duration::from_millis(2);

/// One record. Without a partition the producer chooses: by key, or at random.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The partition it goes to.
    pub partition: Option<i32>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its timestamp in milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// A record with a value and nothing else.
    pub fn value(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// A record with a value for one partition.
    pub fn to(partition: i32, value: impl Into<Vec<u8>>) -> Self {
        Self { partition: Some(partition), ..Self::value(value) }
    }
}

/// Sends one record for each line and returns when all are acknowledged.
pub fn lines<L: AsRef<str>>(broker: &str, topic: &str, lines: impl IntoIterator<Item = L>) -> anyhow::Result<u64> {
    records(broker, topic, lines.into_iter().map(|line| Record::value(line.as_ref())))
}

/// Sends `records` in order, idempotently, and returns their number when all are acknowledged.
pub fn records(broker: &str, topic: &str, records: impl IntoIterator<Item = Record>) -> anyhow::Result<u64> {
    let sender = Sender::new(broker, None)?;
    records.into_iter().try_for_each(|record| sender.send(topic, &record))?;
    sender.flush()
}

/// A producer that stays: writes lines to one topic, some now and more later.
#[derive(Debug)]
pub struct Lines {
    sender: Sender,
    topic: String,
}

impl Lines {
    /// An idempotent producer for `topic`.
    pub fn new(broker: &str, topic: &str) -> anyhow::Result<Self> {
        Ok(Self { sender: Sender::new(broker, None)?, topic: topic.to_owned() })
    }

    /// Sends one record for each line and returns when all are acknowledged.
    pub fn write<L: AsRef<str>>(&self, lines: impl IntoIterator<Item = L>) -> anyhow::Result<()> {
        lines.into_iter().try_for_each(|line| self.sender.send(&self.topic, &Record::value(line.as_ref())))?;
        self.sender.flush().map(drop)
    }
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its records become visible.
    Commit,
    /// Its records take offsets and are never seen by those who read committed records only.
    Abort,
}

/// Writes transactions of one producer, each with its outcome.
#[derive(Debug)]
pub struct Transactions {
    sender: Sender,
    topic: String,
}

impl Transactions {
    /// A producer with transactional id `id`; an older one with the same id is fenced.
    pub fn new(broker: &str, topic: &str, id: &str) -> anyhow::Result<Self> {
        let sender = Sender::new(broker, Some(id))?;
        sender.producer.init_transactions(DEADLINE).with_context(|| format!("initialise the transactions of {id}"))?;
        Ok(Self { sender, topic: topic.to_owned() })
    }

    /// One transaction, from its begin to its end.
    pub fn write(&self, records: impl IntoIterator<Item = Record>, outcome: Outcome) -> anyhow::Result<()> {
        self.begin(records)?;
        self.end(outcome)
    }

    /// Begins a transaction and sends `records`; it stays open, and the last stable offset stays below them.
    pub fn begin(&self, records: impl IntoIterator<Item = Record>) -> anyhow::Result<()> {
        self.sender.producer.begin_transaction().context("begin a transaction")?;
        records.into_iter().try_for_each(|record| self.sender.send(&self.topic, &record))?;
        // Flushed before an abort too, so that aborted records really lie in the log.
        self.sender.flush().map(drop)
    }

    /// Ends the open transaction.
    pub fn end(&self, outcome: Outcome) -> anyhow::Result<()> {
        match outcome {
            Outcome::Commit => self.sender.producer.commit_transaction(DEADLINE).context("commit a transaction"),
            Outcome::Abort => self.sender.producer.abort_transaction(DEADLINE).context("abort a transaction"),
        }
    }
}

/// What became of the records that were sent.
#[derive(Debug, Default)]
struct Deliveries {
    acknowledged: AtomicU64,
    failed: Mutex<Option<String>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        match result {
            Ok(_) => drop(self.acknowledged.fetch_add(1, Ordering::Relaxed)),
            Err((error, _)) => {
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.to_string());
            }
        }
    }
}

struct Sender {
    producer: ThreadedProducer<Deliveries>,
    sent: AtomicU64,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Sender {
    fn new(broker: &str, transactional_id: Option<&str>) -> anyhow::Result<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker).set("enable.idempotence", "true");
        config.set("linger.ms", "20").set("batch.size", "262144").set("queue.buffering.max.messages", "500000");
        if let Some(id) = transactional_id {
            config.set("transactional.id", id);
        }
        let producer = config.create_with_context(Deliveries::default()).context("create a producer")?;
        Ok(Self { producer, sent: AtomicU64::new(0) })
    }

    fn send(&self, topic: &str, record: &Record) -> anyhow::Result<()> {
        let mut next = base_record(topic, record);
        loop {
            match self.producer.send(next) {
                Ok(()) => {
                    self.sent.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    next = back;
                    // Room comes with acknowledgements, which the producer's own thread takes.
                    std::thread::sleep(QUEUE_FULL);
                }
                Err((error, _)) => return Err(error).with_context(|| format!("send to {topic}")),
            }
        }
    }

    fn flush(&self) -> anyhow::Result<u64> {
        self.producer.flush(DEADLINE).context("wait for acknowledgements")?;
        let deliveries = self.producer.context();
        if let Some(error) = deliveries.failed.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            bail!("a record was not acknowledged: {error}");
        }
        let (sent, acknowledged) = (self.sent.load(Ordering::Relaxed), deliveries.acknowledged.load(Ordering::Relaxed));
        anyhow::ensure!(sent == acknowledged, "{sent} records sent, {acknowledged} acknowledged");
        Ok(sent)
    }
}

fn base_record<'a>(topic: &'a str, record: &'a Record) -> BaseRecord<'a, [u8], [u8]> {
    let mut next = BaseRecord::to(topic);
    next.partition = record.partition;
    next.key = record.key.as_deref();
    next.payload = record.value.as_deref();
    next.timestamp = record.timestamp_ms;
    if !record.headers.is_empty() {
        let add = |headers: OwnedHeaders, (key, value): &(String, Vec<u8>)| {
            headers.insert(Header { key, value: Some(value) })
        };
        next.headers = Some(record.headers.iter().fold(OwnedHeaders::new(), add));
    }
    next
}

/// Reads the committed records of a topic from its beginning to its end, partition by partition.
///
/// The second opinion on what lies in a topic when the test did not write it all itself.
pub fn committed(broker: &str, topic: &str) -> anyhow::Result<Vec<Record>> {
    let settings = [("isolation.level", "read_committed"), ("enable.partition.eof", "true")];
    let consumer = Broker::at(broker).consumer(&settings)?;
    let metadata = consumer.fetch_metadata(Some(topic), DEADLINE)?;
    let partitions = metadata.topics().first().map_or(0, |listed| listed.partitions().len());
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions)? {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let (mut read, mut ended) = (Vec::new(), 0);
    while ended < partitions {
        match consumer.poll(DEADLINE).with_context(|| format!("{topic} has no end after {DEADLINE:?}"))? {
            Ok(message) => read.push(Record {
                partition: Some(message.partition()),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                headers: Vec::new(),
                timestamp_ms: message.timestamp().to_millis(),
            }),
            Err(KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => return Err(error).with_context(|| format!("read {topic}")),
        }
    }
    Ok(read)
}

/// `lines` lines of `words` words each out of `vocabulary` distinct ones, frequent ones first; the same for the same seed.
pub fn text(seed: u64, lines: usize, words: usize, vocabulary: u32) -> Vec<String> {
    let mut random = SmallRng::seed_from_u64(seed);
    let line = |random: &mut SmallRng| {
        let words: Vec<String> = (0..words).map(|_| format!("word{}", skewed(random, vocabulary))).collect();
        words.join(" ")
    };
    (0..lines).map(|_| line(&mut random)).collect()
}

/// A number below `below`, each power of two as likely as the next: close to Zipf's law, and cheap.
fn skewed(random: &mut SmallRng, below: u32) -> u32 {
    let most = f64::from(below.max(1)).ln();
    let drawn = (random.random::<f64>() * most).exp() - 1.0;
    // Drawn from [0, below): the cast cuts the fraction.
    (drawn as u32).min(below.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_the_same_for_the_same_seed_and_skewed() {
        let first = text(1, 500, 10, 1_000);
        assert_eq!(first, text(1, 500, 10, 1_000));
        assert_ne!(first, text(2, 500, 10, 1_000));
        let counts = crate::count::words(&first);
        assert_eq!(counts.values().sum::<i64>(), 5_000);
        assert!(counts["word0"] > 200 && counts.len() > 300, "{} words, {} the first", counts.len(), counts["word0"]);
    }
}
