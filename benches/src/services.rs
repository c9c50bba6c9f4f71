//! Kafka and Postgres: those the user names, or fresh ones on loopback for the length of the benchmark.

use anyhow::{Context, Result};
use tine_tests::services::{Kafka, Postgres};
use tokio::task::spawn_blocking;

use crate::report::say;

/// As one sets them for a server with writes; durability stays at its defaults.
const POSTGRES_SETTINGS: [(&str, &str); 2] = [("shared_buffers", "1GB"), ("max_wal_size", "4GB")];

/// Which servers to use.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// An existing Kafka; topics stay there and are used again. Without it, one is started.
    #[arg(long, value_name = "HOST:PORT", requires = "postgres")]
    brokers: Option<String>,
    /// An existing Postgres; its database `tine_bench` is dropped and made anew for each run.
    #[arg(long, value_name = "URL", requires = "brokers")]
    postgres: Option<String>,
}

/// Where both listen.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) brokers: String,
    pub(crate) postgres: String,
    /// Stopped on drop.
    _started: Option<(Kafka, Postgres)>,
}

impl Services {
    /// Uses the two when both are named; otherwise starts fresh ones, which stop when this is dropped.
    pub(crate) async fn at(place: &Place) -> Result<Self> {
        if let (Some(brokers), Some(postgres)) = (place.brokers.clone(), place.postgres.clone()) {
            return Ok(Self { brokers, postgres, _started: None });
        }
        say(format_args!("starting Kafka and Postgres"));
        let started = spawn_blocking(|| anyhow::Ok((Kafka::start()?, Postgres::start_with(&POSTGRES_SETTINGS)?)));
        let (kafka, postgres) = started
            .await
            .context("starting the services panicked")?
            .context("no services; name existing ones with --brokers HOST:PORT --postgres URL")?;
        Ok(Self { brokers: kafka.address(), postgres: postgres.url(), _started: Some((kafka, postgres)) })
    }

    /// Kafka's port, when it may run on this machine.
    pub(crate) fn kafka_port(&self) -> Option<u16> {
        let (host, port) = self.brokers.split(',').next()?.rsplit_once(':')?;
        ["127.0.0.1", "localhost", "[::1]"].contains(&host).then(|| port.parse().ok())?
    }
}
