//! What a Kafka client must be able to do for this connector; there are two.
//!
//! What is *judged* (where a range ends, what is lost, which topic is another one) stands in `ask`, `bounds` and
//! `reader`, once. A client brings what these judge: answers to two [`Questions`], and, for readers, the records of a
//! partition between a position and an end ([`Fetching`]).

use tine_core::failure::{Failure, FailureKind};
use tine_trident::source::Sink;

/// Which code talks to the brokers. Both read the same records and refuse the same losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Client {
    /// tine's own, in safe Rust: record batches are parsed where they lie. TLS and SASL (PLAIN, SCRAM) are built in.
    #[default]
    Native,
    /// librdkafka, the C library.
    Rdkafka,
}

/// What a topic is right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) name: String,
    /// Its id (KIP-516) in base64 without padding, never used again for another topic.
    pub(crate) id: String,
    pub(crate) partitions: i32,
}

/// How far a partition is asked to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The first offset that can be read.
    Low,
    /// The last stable offset: the high watermark, or the first offset of the oldest open transaction.
    Stable,
    /// The first committed record at or after a time; `None` when there is none.
    Time(i64),
}

/// The questions both sides have for the brokers. Failures are `Transient` when the brokers are away, `Fatal` when they
/// refuse, `Superseded` when `cancelled` said so, which is asked at least every 100 ms.
pub(crate) trait Questions: Send {
    /// What the topics are, in the order asked; `None` for one that the broker asked does not know.
    fn describe(&mut self, names: &[&str], cancelled: &dyn Fn() -> bool) -> Result<Vec<Option<Topic>>, Failure>;

    /// One offset for each partition asked for, in that order, from the partitions' leaders.
    fn marks(&mut self, asked: &[(&str, i32, Mark)], cancelled: &dyn Fn() -> bool)
    -> Result<Vec<Option<u64>>, Failure>;

    /// A `Transient` failure: what was tried, where, and why it may have failed.
    fn away(&self, tried: &str, why: &str) -> Failure;
}

/// A partition of the topic that a plan means.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'p> {
    /// `topic/N`.
    pub(crate) name: &'p str,
    pub(crate) topic: &'p str,
    pub(crate) partition: i32,
    /// The topic's id when the range was planned.
    pub(crate) incarnation: &'p str,
}

/// Fetches partitions, each on its way from one position to the next.
pub(crate) trait Fetching: Questions {
    /// Lends what lies between `next` and `to`. After `Ok`, `next` is `to`; after `Err`, it says how far the sink has
    /// everything, unless the sink itself failed. Where the last call for this partition ended, it goes on without a new
    /// start; anywhere else it starts anew.
    fn lend(&mut self, place: &Place<'_>, next: &mut u64, to: u64, sink: &mut dyn Sink) -> Result<(), Halt>;

    /// Forgets what was fetched of a partition: the next call starts it anew.
    fn stop(&mut self, partition: &str);

    /// Forgets whatever was fetched or learned of any topic: one of them is another one now.
    fn forget(&mut self);
}

/// Why fetching stopped before the end of the range.
#[derive(Debug)]
pub(crate) enum Halt {
    /// Nothing came for some seconds; it may go on as it is.
    Stalled(String),
    /// The partition's fetching failed: somebody looks why, and starts it anew.
    Broken(String),
    /// What was fetched at the position is no record batch that can be read.
    Unreadable(String),
    /// The partition's leader has another history at the position: records that may have been counted are gone.
    Truncated(String),
    /// This user may not read the topic.
    NotAllowed,
    /// The sink's failure, a cancellation, or a record that cannot be lent.
    Failed(Failure),
}

/// A cancelled range.
pub(crate) fn cancelled() -> Failure {
    Failure::new(FailureKind::Superseded, "nobody wants this range any more")
}

/// The topic is there, but not for us.
pub(crate) fn not_allowed(topic: &str) -> Failure {
    Failure::fatal(format!("kafka does not let this user read topic {topic}: grant READ and DESCRIBE on it"))
}

/// A topic without an id.
pub(crate) fn no_ids(brokers: &str, topic: &str) -> Failure {
    Failure::fatal(format!("kafka at {brokers} gives topic {topic} no id: brokers of Kafka 3.1 or newer are needed"))
}

/// A name that Kafka would never give a topic.
pub(crate) fn bad_name(topic: &str) -> Failure {
    Failure::fatal(format!("kafka refuses the topic name {topic:?}"))
}
