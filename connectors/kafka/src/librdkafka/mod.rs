//! The client that is librdkafka.
//!
//! [`handle`] is a connection and its log, [`settings`] how it is tuned and what that costs, [`ask`] its answers,
//! [`fetch`] and [`track`] the partitions being read; [`native`] holds the package's only unsafe code.

mod ask;
mod fetch;
mod handle;
mod native;
mod settings;
mod track;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tine_core::failure::Failure;

use crate::client::{Fetching, Questions};
use ask::Asking;
use fetch::Fetcher;
use handle::Handle;

/// The clients of one source.
#[derive(Debug, Default)]
pub(crate) struct Librdkafka {
    /// The handle for questions, shared by all that live at a time.
    asking: Mutex<Weak<Handle>>,
}

impl Librdkafka {
    /// For the leader's side.
    pub(crate) fn questions(&self, brokers: &str, set: &[(String, String)]) -> Result<Box<dyn Questions>, Failure> {
        Ok(Box::new(self.asking(&settings::client(brokers, set)?)?))
    }

    /// For a reader.
    pub(crate) fn fetching(
        &self,
        brokers: &str,
        set: &[(String, String)],
        headers: bool,
    ) -> Result<Box<dyn Fetching>, Failure> {
        let config = settings::client(brokers, set)?;
        let asking = self.asking(&config)?;
        Ok(Box::new(Fetcher::new(config, asking, headers)))
    }

    fn asking(&self, config: &rdkafka::ClientConfig) -> Result<Asking, Failure> {
        let mut shared = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = match shared.upgrade() {
            Some(handle) => handle,
            None => Arc::new(Handle::new(config)?),
        };
        *shared = Arc::downgrade(&handle);
        Ok(Asking::new(handle))
    }
}
