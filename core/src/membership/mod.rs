//! Who runs which tasks: workers that come and go, a leader that assigns, and what each of them does about it.
//!
//! ```text
//!  worker ── registers (ephemeral) ──────────────────► ┌──────────────┐ ◄── reads ── leader
//!  worker ── reads the assignment, starts its tasks ◄── │ coordination │ ◄── writes the assignment, under its reign
//!         └─ its links stand: "ready" ───────────────── └──────────────┘ ──────► leader: all are ready, go on
//! ```
//!
//! An assignment belongs to an *era* of its own. Every change of owners is a new era, and for whoever leads transactions a
//! new generation. A worker that is gone loses its tasks at once; one that has come, or that wants to leave, waits for a
//! boundary at which nothing is under way. [`machine`] decides all this and does nothing; [`record`] is what is written
//! down. This module is the contract with coordination.
//!
//! What members believe never decides what is true: state is fenced where it is kept. Watches are hints, and everybody looks
//! again by itself.

pub mod machine;
mod placement;
pub mod record;

use async_trait::async_trait;

pub use self::{
    machine::{Effect, Event, Membership},
    record::{Assignment, Common, Member, Share},
};
use crate::failure::Failure;

/// What coordination shows of a topology's workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Who is registered, the oldest registration first.
    pub members: Vec<Member>,
    /// The assignment that stands.
    pub assignment: Option<Assignment>,
}

/// A coordination service that knows workers.
#[async_trait]
pub trait Members: Send + Sync {
    /// Registers a worker, until the registration is dropped or its session ends. Retries by itself while the service is
    /// away; `Fatal` when trying again cannot help.
    async fn register(&self, topology: &str, member: &Member) -> Result<Box<dyn Registration>, Failure>;
}

/// A worker's registration, as long as it lasts; it ends when dropped. Methods may be called concurrently.
#[async_trait]
pub trait Registration: Send + Sync {
    /// What stands now. `Transient` when the service cannot be asked.
    async fn look(&self) -> Result<Sight, Failure>;

    /// Returns when something may have changed since the last look. A hint: it may come late, or never.
    async fn changed(&self);

    /// Says something else of this worker: that it wants to end, that it has a rival.
    async fn update(&self, member: &Member) -> Result<(), Failure>;

    /// Returns when the session or its local lease is gone, with the reason. The worker drops its tasks before it
    /// registers again.
    async fn lost(&self) -> Failure;
}

#[cfg(test)]
mod tests;
