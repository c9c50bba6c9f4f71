//! Topics as a source: what to read, from where at the first start, and as which row type.

use std::{collections::BTreeSet, sync::Arc};

use tine_core::failure::Failure;
use tine_trident::{
    input::{Bytes, Input, Json, Lend, Records, Row, Text},
    source::{Bounds, Reader, Source},
};

use crate::{
    ask::{Asker, Seen},
    bounds::TopicBounds,
    client::{Client, Fetching, Questions},
    connect::Kafka,
    librdkafka::Librdkafka,
    reader::TopicReader,
    wire,
};

/// Where a topology that has never run begins to read. Partitions that are added later begin at their first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the first record that retention has left. The default.
    #[default]
    Earliest,
    /// After the last committed record.
    Latest,
    /// At the first record whose timestamp is at or after this one (milliseconds since 1970), or after the last
    /// committed record when there is none.
    Timestamp(i64),
}

/// One topic or several as a source; `text`, `json`, `bytes` or `records` finish it.
///
/// ```no_run
/// use tine_kafka::{Kafka, Start};
///
/// let kafka = Kafka::connect("kafka:9092");
/// let today = kafka.topic("clicks").start(Start::Timestamp(1_790_000_000_000)).with_headers().records();
/// ```
#[derive(Clone, Debug)]
pub struct KafkaTopic {
    kafka: Kafka,
    topics: Vec<String>,
    start: Start,
    headers: bool,
}

impl KafkaTopic {
    pub(crate) fn new(kafka: Kafka, topics: Vec<String>) -> KafkaTopic {
        KafkaTopic { kafka, topics, start: Start::default(), headers: false }
    }

    /// Where a topology that has never run begins (default: [`Start::Earliest`]). Later starts go on where the results
    /// stand, whatever is said here.
    #[must_use]
    pub fn start(mut self, start: Start) -> KafkaTopic {
        self.start = start;
        self
    }

    /// Which client reads (default: what [`Kafka::client`] says).
    #[must_use]
    pub fn client(mut self, client: Client) -> KafkaTopic {
        self.kafka.client = client;
        self
    }

    /// Gives rows their headers. Without this they are left unparsed, and `Record::headers` is empty.
    ///
    /// Header names that are not UTF-8, against Kafka's protocol, end the read as poison that names the record.
    #[must_use]
    pub fn with_headers(mut self) -> KafkaTopic {
        self.headers = true;
        self
    }

    /// Rows are the records' values as UTF-8 text; `on_invalid` and `on_null` of the input say what becomes of others.
    pub fn text(self) -> Input<Text> {
        self.input()
    }

    /// Rows are the records' values as bytes; `on_null` of the input says what becomes of tombstones.
    pub fn bytes(self) -> Input<Bytes> {
        self.input()
    }

    /// Rows are the records' values decoded as JSON, into a type of yours that owns its fields or, named by `lend!`,
    /// borrows them from the fetch buffer: see [`json`](tine_trident::input::json). `on_invalid` and `on_null` of the
    /// input say what becomes of others.
    ///
    /// ```no_run
    /// use serde::Deserialize;
    /// use tine_kafka::Kafka;
    ///
    /// #[derive(Deserialize)]
    /// struct Sale<'b> {
    ///     user: &'b str,
    ///     cents: i64,
    /// }
    /// tine_trident::lend!(Sale as Sales);
    ///
    /// let sales = Kafka::connect("kafka:9092").topic("sales").json::<Sales>();
    /// ```
    pub fn json<L: Lend>(self) -> Input<Json<L>> {
        self.input()
    }

    /// Rows are whole records: partition, offset, timestamp, key, value and, [when asked for](Self::with_headers),
    /// headers. Tombstones are rows without a value.
    pub fn records(self) -> Input<Records> {
        self.input()
    }

    fn input<T: Row>(self) -> Input<T> {
        let rdkafka = Librdkafka::default();
        Input::transactional(Arc::new(TopicSource { topic: self, rdkafka, seen: Seen::default() }))
    }
}

/// The source behind an input.
struct TopicSource {
    topic: KafkaTopic,
    rdkafka: Librdkafka,
    /// Outlives the bounds and readers, which are made anew after failures.
    seen: Seen,
}

impl TopicSource {
    fn checked(&self) -> Result<(), Failure> {
        let mut seen = BTreeSet::new();
        match self.topic.topics.iter().find(|name| name.is_empty() || name.contains(['/', '\0']) || !seen.insert(*name))
        {
            _ if self.topic.topics.is_empty() => Err(Failure::fatal("kafka source without a topic: name at least one")),
            Some(name) => Err(Failure::fatal(format!("kafka topic name {name:?} is impossible or comes twice"))),
            None => Ok(()),
        }
    }

    fn questions(&self) -> Result<Asker<dyn Questions>, Failure> {
        self.checked()?;
        let Kafka { brokers, settings, client } = &self.topic.kafka;
        let questions = match client {
            Client::Rdkafka => self.rdkafka.questions(brokers, settings)?,
            Client::Native => wire::questions(brokers, settings)?,
        };
        Ok(Asker::new(questions, self.seen.clone()))
    }

    fn fetching(&self) -> Result<Asker<dyn Fetching>, Failure> {
        self.checked()?;
        let (Kafka { brokers, settings, client }, headers) = (&self.topic.kafka, self.topic.headers);
        let fetching = match client {
            Client::Rdkafka => self.rdkafka.fetching(brokers, settings, headers)?,
            Client::Native => wire::fetching(brokers, settings, headers)?,
        };
        Ok(Asker::new(fetching, self.seen.clone()))
    }
}

impl Source for TopicSource {
    fn describe(&self) -> String {
        match self.topic.topics.as_slice() {
            [topic] => format!("kafka topic {topic}"),
            topics => format!("kafka topics {}", topics.join(", ")),
        }
    }

    fn bounds(&self) -> Result<Box<dyn Bounds>, Failure> {
        let (topics, start) = (self.topic.topics.clone(), self.topic.start);
        Ok(Box::new(TopicBounds::open(self.questions()?, topics, start)?))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, Failure> {
        Ok(Box::new(TopicReader::new(self.fetching()?)))
    }
}
