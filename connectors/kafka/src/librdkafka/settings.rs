//! How librdkafka is set, what of it a user may change, and what the settings cost.
//!
//! # Figures
//!
//! Measured with `cargo run --release -p tine-kafka --example read_rate -- HOST:PORT TOPIC 50000 [KEY=VALUE …]`: 10 M
//! uncompressed records of 12 bytes in 4 partitions, ranges of 50,000, broker, reader and other builds on the same 2
//! cores, so the times are upper bounds; CPU is the whole client process, per record, checksums included. Spread between
//! runs of the same settings: 15 %.
//!
//! | changed | M records/s | CPU ns | resident MB |
//! |---|---|---|---|
//! | nothing | 2.1–2.4 | 330–410 | 53–58 |
//! | ranges of 5,000 | 2.4 | 350 | 58 |
//! | `queued.min.messages=5000` | 2.0 | 340 | 40 |
//! | `queued.min.messages=40000` | 2.0–2.2 | 410–420 | 81 |
//! | `queued.min.messages=100000` | 2.9 | 320 | 151 |
//! | `fetch.message.max.bytes=131072` | 2.4 | 350 | 42 |
//! | `fetch.message.max.bytes=2097152` | 2.6 | 290 | 137 |
//! | `fetch.wait.max.ms=100` | 0.7 | 410 | 55 |
//! | `fetch.queue.backoff.ms=1000` (librdkafka's default) | 0.06 | 390 | 52 |
//!
//! Memory is per partition that a reader has read within the last minute: about 10 MB, whatever the topic's size.
//! One client has one fetch under way per broker, and the next waits for it: that is what `fetch.wait.max.ms` costs as
//! soon as one of several partitions is at its end. Reading elsewhere in a partition (a replay) takes 16 ms at 10 ms,
//! 26 ms at 20 ms and 108 ms at 100 ms; a reader at the end of its partitions takes 1 % of a core. The proof at a range's
//! end takes 0.1–0.25 ms, a poll of 4 partitions' bounds 0.1–0.3 ms.

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};
use tine_core::failure::Failure;

use crate::settings::{FIXED, checked};

/// What a user may change with [`Kafka::set`](crate::Kafka::set): throughput and latency, never exactness.
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "tine"),
    // Fetching goes on until this many messages wait in a partition's queue ...
    ("queued.min.messages", "20000"),
    // ... or this much payload, and every fetch adds at most this for each partition. librdkafka keeps about 300 bytes
    // more per message, which neither counts.
    ("queued.max.messages.kbytes", "8192"),
    ("fetch.message.max.bytes", "524288"),
    // A full queue is looked at again after this; the default of a second halves the throughput.
    ("fetch.queue.backoff.ms", "2"),
    // A fetch at the end of a partition waits this long for records, and a new start of a partition waits for it.
    ("fetch.wait.max.ms", "10"),
    ("fetch.error.backoff.ms", "50"),
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
    ("socket.keepalive.enable", "true"),
    ("log.connection.close", "false"),
];

/// The settings of a client: ours, the user's, and those that nobody changes.
pub(crate) fn client(brokers: &str, user: &[(String, String)]) -> Result<ClientConfig, Failure> {
    checked(brokers, user)?;
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Info).set("bootstrap.servers", brokers);
    for (key, value) in DEFAULTS {
        config.set(*key, *value);
    }
    for (key, value) in user {
        config.set(key, value);
    }
    for (key, value, _) in FIXED {
        config.set(*key, *value);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_would_break_exactness_are_refused_by_name() {
        for key in ["enable.auto.commit", "isolation.level", "auto.offset.reset", "group.id", "enable.partition.eof"] {
            let failure = client("b:1", &[(key.into(), "x".into())]).expect_err("refused");
            assert!(failure.message.contains(key), "{failure}");
        }
    }

    #[test]
    fn a_user_changes_the_rest() {
        let config = client("b:1", &[("fetch.wait.max.ms".into(), "7".into())]).expect("allowed");
        assert_eq!(config.get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(config.get("isolation.level"), Some("read_committed"));
    }
}
