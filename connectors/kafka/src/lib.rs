//! Kafka as a source of tine: fixed ranges of partitions, read exactly, as often as asked.
//!
//! ```no_run
//! use tine_kafka::{Kafka, Start};
//!
//! let lines = Kafka::connect("kafka-1:9092,kafka-2:9092")
//!     .topic("lines")
//!     .start(Start::Earliest)
//!     .text();
//! // `lines` is what `Topology::source` takes.
//! ```
//!
//! # What a record's place is
//!
//! A partition is named `topic/N`, a position is a Kafka offset, and the incarnation is the topic's id (KIP-516): a
//! topic that was deleted and created again under its old name is another source and is refused.
//!
//! # What is promised
//!
//! * Only committed records are read (`read_committed`), and plans reach up to the *last stable offset*: what stands
//!   below it is decided and stays as it is. An open transaction therefore holds its partition back until it ends.
//! * A range is complete when the position reached its end, counting control records, aborted records and compaction's
//!   gaps, and the topic's id was still the planned one after that. Neither a short answer nor the last record's
//!   offset proves anything.
//! * No consumer group takes part: partitions are taken by hand, nothing is committed to Kafka, no rebalance happens.
//! * Records in a partition come in offset order; there is no order between partitions.
//! * Records that retention removed before they were read halt the topology and name the range. Compacted topics are
//!   readable, but compaction between two attempts of a batch changes what the range holds.
//!
//! Needs brokers that know topic ids (Kafka 3.1 or newer).
//!
//! # Two clients
//!
//! [`Client::Rdkafka`] is librdkafka. [`Client::Native`] is tine's own read path in safe Rust: it takes a twentieth of the
//! CPU per small record, speaks TLS and SASL (PLAIN, SCRAM), and knows nothing but reading. What is promised above holds
//! for both, and the same tests say so.
//!
//! # Reading order
//!
//! [`Kafka`] (`connect`) makes a [`KafkaTopic`] (`topic`), which is a source; `bounds` is the leader's side, `reader` the
//! emitters'; `client` says what these need of a client, `ask` which answers prove nothing, `settings` what nobody may
//! change. `librdkafka` and `wire` are the two clients; `records` decodes record batches for `wire`. The package's only
//! unsafe code is in `librdkafka::native`.

mod ask;
mod bounds;
mod client;
mod connect;
mod librdkafka;
mod reader;
mod records;
mod settings;
mod topic;
mod wire;

pub use client::Client;
pub use connect::Kafka;
pub use topic::{KafkaTopic, Start};
