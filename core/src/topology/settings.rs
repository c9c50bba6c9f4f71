//! What can be set for a topology, with the reasons for the defaults.

use std::time::Duration;

/// Settings of a topology; the defaults are meant to be kept.
///
/// ```
/// use std::time::Duration;
/// use tine_core::topology::{Settings, Topology};
///
/// let mut topology = Topology::new("words");
/// topology.configure(|settings| {
///     settings.message_timeout = Duration::from_secs(5);
///     settings.max_pending = 1000;
/// });
/// let Settings { acking, queue_tuples, .. } = Settings::default();
/// assert!(acking && queue_tuples == 4096);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Whether trees are tracked. Without, delivery is at most once: `ack` and `fail` of spouts are never called.
    pub acking: bool,
    /// A tree that nobody has spoken of for so long fails; really between 1 and 1.25 times this.
    pub message_timeout: Duration,
    /// Trees that each spout task may have under way; components can differ. Bounds how long a tuple waits in queues.
    pub max_pending: usize,
    /// Tuples that may wait in front of one task: a few chunks, so that it has work while its senders sleep.
    pub queue_tuples: usize,
    /// Bytes that may wait in front of one task. A tuple counts with its size and what its stream's `weigh` says.
    pub queue_bytes: usize,
    /// Tuples that travel together when there is much to do. When there is little they travel at once.
    pub chunk_tuples: usize,
    /// Panics of one component within a minute that end the topology.
    pub panics_max: u32,
    /// A task that is inside a call of user code for so long is reported.
    pub stuck_after: Duration,
    /// How long a topology that is told to stop waits for what is under way.
    pub drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            acking: true,
            message_timeout: Duration::from_secs(30),
            max_pending: 8192,
            queue_tuples: 4096,
            queue_bytes: 16 << 20,
            chunk_tuples: 256,
            panics_max: 10,
            stuck_after: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
        }
    }
}
