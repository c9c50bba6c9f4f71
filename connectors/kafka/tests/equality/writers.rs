//! Producers, and the memory of what they wrote.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};

use crate::brokers::{DEADLINE, config};

/// What a record holds. Where it stands and, with the broker's clock, when it was written, only the broker knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Content {
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A producer that panics when a record is not acknowledged.
pub(crate) struct Writer {
    producer: ThreadedProducer<Strict>,
}

impl Writer {
    /// With `settings` on top of idempotence.
    pub(crate) fn new(broker: &str, settings: &[(&str, &str)]) -> Writer {
        let mut config = config(broker);
        config.set("enable.idempotence", "true").set("message.max.bytes", "20000000").set("linger.ms", "2");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        Writer { producer: config.create_with_context(Strict).expect("a producer") }
    }

    /// A transactional one.
    pub(crate) fn transactional(broker: &str, id: &str, settings: &[(&str, &str)]) -> Writer {
        let own = [("transactional.id", id), ("transaction.timeout.ms", "600000")];
        let writer = Writer::new(broker, &[&own, settings].concat());
        writer.producer.init_transactions(DEADLINE).expect("a transactional producer");
        writer
    }

    pub(crate) fn begin(&self) {
        self.producer.begin_transaction().expect("begun");
    }

    /// Ends the transaction; what was sent is in the log, also when it is aborted.
    pub(crate) fn end(&self, commit: bool) {
        self.flush();
        let ended = match commit {
            true => self.producer.commit_transaction(DEADLINE),
            false => self.producer.abort_transaction(DEADLINE),
        };
        ended.expect("ended");
    }

    pub(crate) fn flush(&self) {
        self.producer.flush(DEADLINE).expect("sent");
    }

    pub(crate) fn send(&self, topic: &str, partition: i32, content: &Content) {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition).timestamp(content.timestamp_ms);
        record.key = content.key.as_deref();
        record.payload = content.value.as_deref();
        if !content.headers.is_empty() {
            let add = |all: OwnedHeaders, (key, value): &(String, Option<Vec<u8>>)| {
                all.insert(Header { key, value: value.as_ref() })
            };
            record.headers = Some(content.headers.iter().fold(OwnedHeaders::new(), add));
        }
        let deadline = Instant::now() + DEADLINE;
        while let Err((error, again)) = self.producer.send(record) {
            assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            assert!(Instant::now() < deadline, "the producer's queue was full for {DEADLINE:?}");
            std::thread::sleep(Duration::from_millis(2));
            record = again;
        }
    }
}

/// Every record is acknowledged, or the test is wrong.
struct Strict;

impl ClientContext for Strict {}

impl ProducerContext for Strict {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            // A panic on librdkafka's thread would tear the process down without words.
            eprintln!("a record of {message:?} was not acknowledged: {error}");
            std::process::abort();
        }
    }
}
