//! A librdkafka handle: its connection, its log and the last thing it complained about.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};
use tine_core::failure::Failure;

use crate::settings::is_secret;

/// A handle without a group: it fetches what it is told to and asks questions.
pub(crate) struct Handle {
    pub(crate) consumer: BaseConsumer<Complaints>,
    /// `host:port,…` for messages.
    pub(crate) brokers: String,
}

impl Handle {
    /// Makes a handle; nothing is sent yet. Wrong settings are `Fatal` and named.
    pub(crate) fn new(config: &ClientConfig) -> Result<Handle, Failure> {
        let brokers = config.get("bootstrap.servers").unwrap_or_default().to_string();
        let consumer = config
            .create_with_context(Complaints::default())
            .map_err(|error| Failure::fatal(format!("kafka settings are wrong: {}", without_secrets(&error))))?;
        Ok(Handle { consumer, brokers })
    }

    /// Serves what librdkafka has to tell; never waits.
    pub(crate) fn serve(&self) {
        while self.consumer.poll(Duration::ZERO).is_some() {}
    }

    /// A `Transient` failure: what was tried, where, and why it may have failed.
    pub(crate) fn away(&self, tried: &str, why: &str) -> Failure {
        self.serve();
        let last = self.consumer.context().last();
        let last = if last.is_empty() { String::new() } else { format!("; last error: {last}") };
        Failure::transient(format!(
            "kafka at {} did not {tried}: {why}{last} (check that the address is right and the broker is up)",
            self.brokers
        ))
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

/// A setting's error; without librdkafka's words when they may repeat a secret value.
fn without_secrets(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, _, key, _) if is_secret(key) => format!("{key} has a wrong value"),
        KafkaError::ClientConfig(_, why, key, _) => format!("{key}: {why}"),
        error => error.to_string(),
    }
}

/// Remembers the last error, and hands librdkafka's log to `tracing`.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    last: Mutex<String>,
}

impl Complaints {
    fn last(&self) -> String {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Complaints {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "tine_kafka::librdkafka", facility, "{message}");
            }
            // A broker that is away is an error there on each attempt; here the reader says so once.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::info!(target: "tine_kafka::librdkafka", facility, "{message}");
            }
            _ => tracing::debug!(target: "tine_kafka::librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            return; // It follows the error that says why.
        }
        let text = if reason.is_empty() { error.to_string() } else { reason.to_string() };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
}

impl ConsumerContext for Complaints {}
