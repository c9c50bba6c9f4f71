//! Real servers on loopback, each a child process with a folder and a port of its own.
//!
//! ```text
//!   shared ---- addresses from tests/run, or one private server for this test process
//!     |
//!   Guard<S> -- start, stop, kill, restart on the same port, wipe; killed on Drop
//!     |
//!   S: Service - what is particular: where it is installed, its configuration, when it is ready
//!     |          (kafka::Kraft, zookeeper::Standalone, postgres::Cluster)
//!   keeper ---- spawns from a thread that never ends, so that the kernel ends the server with this process
//! ```
//!
//! Folders lie below `TINE_TEST_DIR` (default `target/services`). A guard that is dropped kills its server by its own
//! pid and removes the folder; after a panic the folder stays and its path is printed. `TINE_TEST_KEEP=1` keeps all.

mod guard;
mod keeper;
mod place;

pub mod ensemble;
pub mod kafka;
pub mod postgres;
pub mod shared;
pub mod zookeeper;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

pub use guard::{Guard, Service};
pub use kafka::Kafka;
pub(crate) use keeper::{spawn, tied};
pub use place::{Place, base_folder, free_port};
pub use postgres::Postgres;
pub use zookeeper::ZooKeeper;

/// Why a server is not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program is not installed. Nothing was started.
    #[error("{service} is not installed: {missing}; {advice}")]
    NotInstalled {
        /// The service asked for.
        service: &'static str,
        /// What was looked for, and where.
        missing: String,
        /// What to install.
        advice: &'static str,
    },
    /// It was started and did not become ready, or ended.
    #[error("{service} in {} did not start: {why}; the end of its log:\n{log}", .folder.display())]
    NotStarted {
        /// The service asked for.
        service: &'static str,
        /// Its folder, which stays.
        folder: PathBuf,
        /// What was observed.
        why: String,
        /// The last lines it wrote.
        log: String,
    },
    /// A file, folder, port or process could not be had.
    #[error("{service}: cannot {action}")]
    Io {
        /// The service asked for.
        service: &'static str,
        /// The operation that failed.
        action: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn io(service: &'static str, action: impl Into<String>, source: std::io::Error) -> Self {
        Error::Io { service, action: action.into(), source }
    }
}

/// A name no other test of this run has: `prefix` followed by the process id and a counter.
///
/// Lower case letters, digits and underscores only when `prefix` is, so that it can be a topic, a table and a database.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
