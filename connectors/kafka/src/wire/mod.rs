//! tine's own Kafka client: the read path and nothing else, in safe Rust, without a thread of its own.
//!
//! ```text
//!   fetch ──► track, set         partitions being read, one fetch ahead      records (another room) decodes
//!     │
//!     ├─────► cluster            topics, leaders, offsets: the questions
//!     ▼         │
//!   links ──► connection ──► frame ──► stream      brokers by address; requests in a row; bytes, perhaps encrypted
//!               │  └► login, scram                 message, codec: what is said
//! ```
//!
//! Whoever reads waits: sockets block, for moments only, and between them the sink is asked whether it still wants the
//! records. What comes from a socket is a claim: lengths and counts are compared with what is there, answers above a limit
//! are refused before memory is taken, and nothing that a broker sends can panic the process.
//!
//! Brokers of Kafka 3.1 and newer. Not spoken: Kerberos and OAuth, old message formats, reading from followers.

mod cluster;
mod codec;
mod connection;
mod dial;
mod errors;
mod fetch;
mod frame;
mod links;
mod login;
mod message;
mod scram;
mod set;
mod settings;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod track;
mod trouble;

use std::sync::Arc;

use tine_core::failure::Failure;

use crate::client::{Fetching, Questions};
use settings::Settings;

/// For the leader's side.
pub(crate) fn questions(brokers: &str, set: &[(String, String)]) -> Result<Box<dyn Questions>, Failure> {
    Ok(Box::new(cluster::Cluster::new(Arc::new(Settings::new(brokers, set)?))))
}

/// For a reader.
pub(crate) fn fetching(brokers: &str, set: &[(String, String)], headers: bool) -> Result<Box<dyn Fetching>, Failure> {
    Ok(Box::new(fetch::Fetcher::new(Settings::new(brokers, set)?, headers)))
}
