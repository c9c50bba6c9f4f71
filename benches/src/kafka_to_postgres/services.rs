//! Kafka and Postgres: those the user names, or fresh ones on loopback for the length of the benchmark.

use anyhow::{Context, Result};
use tine_tests::services::{Kafka, Postgres};
use tokio::task::spawn_blocking;

use crate::report::say;

/// As one sets them for a server with writes; durability stays at its defaults.
const POSTGRES_SETTINGS: [(&str, &str); 2] = [("shared_buffers", "1GB"), ("max_wal_size", "4GB")];

/// Where both listen.
#[derive(Debug)]
pub(super) struct Services {
    brokers: String,
    postgres: String,
    /// Stopped on drop.
    _started: Option<(Kafka, Postgres)>,
}

impl Services {
    /// Uses the two when both are named; otherwise starts fresh ones, which stop when this is dropped.
    pub(super) async fn start_or_use(brokers: Option<&str>, postgres: Option<&str>) -> Result<Self> {
        if let (Some(brokers), Some(postgres)) = (brokers, postgres) {
            return Ok(Self { brokers: brokers.to_owned(), postgres: postgres.to_owned(), _started: None });
        }
        say(format_args!("starting Kafka and Postgres"));
        let started = spawn_blocking(|| anyhow::Ok((Kafka::start()?, Postgres::start_with(&POSTGRES_SETTINGS)?)));
        let (kafka, postgres) = started
            .await
            .context("starting the services panicked")?
            .context("no services; name existing ones with --brokers HOST:PORT --postgres URL")?;
        Ok(Self { brokers: kafka.address(), postgres: postgres.url(), _started: Some((kafka, postgres)) })
    }

    pub(super) fn brokers(&self) -> &str {
        &self.brokers
    }

    pub(super) fn postgres(&self) -> &str {
        &self.postgres
    }
}
