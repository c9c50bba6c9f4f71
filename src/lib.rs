//! Exactly-once stream processing: exact counts in your own SQL tables, through crashes, replays, zombies and rescales.
//!
//! A user writes a [`Topology`] with a fluent API; it reads [files](files()) or Kafka and keeps exact aggregates in tables
//! of the user's own database. There is nothing else to operate: the table *is* the state. All that the API has is on one page:
//! `docs/topologies.md`. The engine below, for tuples one by one and at least once, is [`core`]: `docs/core.md`.
//!
//! ```no_run
//! # #[cfg(feature = "sqlite")]
//! # async fn word_count() -> Result<(), Box<dyn std::error::Error>> {
//! use tine::{Sqlite, Topology, files};
//!
//! let topology = Topology::new("word_count");
//! topology
//!     .source(files(["book.txt"]).text())
//!     .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count())
//!     .persist(Sqlite::open("words.db").table("word_counts").key("word").value("n"));
//! topology.run().await?;
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `sim`, `simulate` crashes a topology ten thousand ways and looks whether it stays exact: `docs/testing.md`.
//!
//! What is promised, and what is not: `docs/guarantees.md`. How the house is built: `docs/architecture.md`.

pub use tine_core as core;
pub use tine_state as state;
pub use tine_state::Table;
pub use tine_trident as trident;

pub use tine_trident::{
    aggregate::Combiner,
    input::{Bytes, Input, Json, Lend, Message, Policy, Records, Row, Text, Transactional},
    lend,
    run::{Listen, Meter, Options, Phase, Progress, Rate, RunError, Shutdown, Summary, Tls},
    source::files::files,
    stream::{KeyedStream, Stream},
    topology::{BuildError, Persisted, Topology},
};

#[cfg(feature = "audit")]
pub use tine_audit as audit;
#[cfg(feature = "kafka")]
pub use tine_kafka::{Client, Kafka, KafkaTopic, Start};
#[cfg(feature = "postgres")]
pub use tine_postgres::{AddressError, Durability, Postgres};
#[cfg(feature = "sim")]
pub use tine_sim as sim;
#[cfg(feature = "sim")]
pub use tine_sim::simulate;
#[cfg(feature = "sqlite")]
pub use tine_sqlite::Sqlite;
#[cfg(feature = "zookeeper")]
pub use tine_zookeeper::ZooKeeper;

/// The code of the page on testing runs.
#[cfg(all(doctest, feature = "sim"))]
#[doc = include_str!("../docs/testing.md")]
struct Testing;

/// The code of the page on the tuple engine runs.
#[cfg(all(doctest, feature = "cluster", feature = "zookeeper"))]
#[doc = include_str!("../docs/core.md")]
struct TupleEngine;

/// The code of the page on the fluent API compiles.
#[cfg(all(doctest, feature = "sqlite", feature = "postgres"))]
#[doc = include_str!("../docs/topologies.md")]
struct Topologies;

/// The README's code compiles.
#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../README.md")]
struct Readme;
