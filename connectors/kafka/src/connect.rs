//! Where the brokers are and how to talk to them: the handle that makes topics.

use std::fmt;

use crate::{client::Client, topic::KafkaTopic};

/// The brokers of a Kafka cluster, and the client's settings for them. Nothing is connected before a topology runs.
///
/// ```no_run
/// use tine_kafka::Kafka;
///
/// let kafka = Kafka::connect("kafka-1:9093,kafka-2:9093")
///     .set("security.protocol", "sasl_ssl")
///     .set("sasl.username", "counter")
///     .set("sasl.password", std::env::var("KAFKA_PASSWORD")?);
/// let orders = kafka.topic("orders").bytes();
/// let words = kafka.topics(["words-eu", "words-us"]).text();
/// # Ok::<(), std::env::VarError>(())
/// ```
#[derive(Clone)]
pub struct Kafka {
    pub(crate) brokers: String,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) client: Client,
}

impl Kafka {
    /// Brokers to ask first, as `host:port,host:port`; the others are found through them.
    pub fn connect(brokers: impl Into<String>) -> Kafka {
        Kafka { brokers: brokers.into(), settings: Vec::new(), client: Client::default() }
    }

    /// Sets an option under librdkafka's name (its `CONFIGURATION.md` lists them all; [`Client::Native`] knows some of
    /// them, names them when it is given another, and reads certificates from files). Secrets never appear in messages or
    /// `Debug`.
    ///
    /// Options on which exactness rests (`isolation.level`, `auto.offset.reset`, `group.id`, `enable.auto.commit`,
    /// `enable.partition.eof`, …) are refused when the topology starts, with the option's name and the reason; so are
    /// options and values that the client does not know.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Kafka {
        self.settings.push((key.into(), value.into()));
        self
    }

    /// Which client talks to the brokers (default: [`Client::Native`]).
    #[must_use]
    pub fn client(mut self, client: Client) -> Kafka {
        self.client = client;
        self
    }

    /// A topic as a source: each of its partitions is one of the source's.
    pub fn topic(&self, name: impl Into<String>) -> KafkaTopic {
        self.topics([name])
    }

    /// Several topics as one source, with the partitions of all of them.
    pub fn topics<N: Into<String>>(&self, names: impl IntoIterator<Item = N>) -> KafkaTopic {
        KafkaTopic::new(self.clone(), names.into_iter().map(Into::into).collect())
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&str> = self.settings.iter().map(|(key, _)| key.as_str()).collect();
        f.debug_struct("Kafka").field("brokers", &self.brokers).field("set", &keys).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_in_debug() {
        let kafka = Kafka::connect("b:1").set("sasl.password", "hunter2");
        let text = format!("{kafka:?} {:?} {:?}", kafka.topic("t"), kafka.topic("t").text());
        assert!(text.contains("sasl.password") && !text.contains("hunter2"), "{text}");
    }
}
