//! Brokers of a test's own, and many topics at once on them.

use std::time::Duration;

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::KafkaError,
    types::RDKafkaErrorCode,
};
use tine_tests::services::{Error, Kafka, shared};

/// How long anything may take that is waited for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// How many topics one request creates or deletes.
const TOPICS_A_REQUEST: usize = 250;

/// A broker of our own; `None` when Kafka is not installed, aloud, and never in CI.
pub(crate) fn start(settings: &[(&str, &str)]) -> Option<Kafka> {
    match Kafka::start_with(settings) {
        Ok(kafka) => Some(kafka),
        Err(error @ Error::NotInstalled { .. }) => {
            shared::skip(error);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Waits until `ask` answers; fails after [`DEADLINE`].
pub(crate) fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    tine_tests::answer_within(DEADLINE, what, ask)
}

/// A topic to be created.
#[derive(Clone, Debug)]
pub(crate) struct NewOne {
    pub(crate) name: String,
    pub(crate) partitions: i32,
    pub(crate) settings: Vec<(&'static str, String)>,
}

/// What tests ask of a broker's topics.
pub(crate) struct Admin(AdminClient<DefaultClientContext>);

impl Admin {
    pub(crate) fn new(broker: &str) -> Admin {
        Admin(config(broker).create().expect("a client"))
    }

    /// Creates all topics with `copies` replicas.
    pub(crate) fn create(&self, topics: &[NewOne], copies: i32) {
        for some in topics.chunks(TOPICS_A_REQUEST) {
            let new = some.iter().map(|topic| {
                // Records have timestamps of their own, old ones too.
                let new = NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(copies))
                    .set("retention.ms", "-1");
                topic.settings.iter().fold(new, |new, (key, value)| new.set(key, value))
            });
            let new: Vec<_> = new.collect();
            for created in block_on(self.0.create_topics(&new, &patient())).expect("an answer") {
                created.unwrap_or_else(|(topic, why)| panic!("topic {topic} was not created: {why}"));
            }
        }
    }

    /// Deletes all of them, and returns when none of the names is taken any more.
    pub(crate) fn delete(&self, names: &[&str]) {
        for deleted in block_on(self.0.delete_topics(names, &patient())).expect("an answer") {
            match deleted {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((topic, why)) => panic!("topic {topic} was not deleted: {why}"),
            }
        }
    }

    /// Deletes the records below the offsets, as retention does.
    pub(crate) fn delete_records(&self, below: &[(&str, i32, u64)]) {
        let mut list = TopicPartitionList::new();
        for (topic, partition, offset) in below {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset as i64)).expect("a place");
        }
        let done = block_on(self.0.delete_records(&list, &patient())).expect("an answer");
        done.elements().iter().for_each(|element| element.error().expect("records deleted"));
    }
}

pub(crate) fn config(broker: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker);
    config
}

fn patient() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(DEADLINE)).operation_timeout(Some(DEADLINE))
}

fn block_on<T>(future: impl Future<Output = Result<T, KafkaError>>) -> Result<T, KafkaError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}
