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
//! down; by [`presence`] a worker is seen and sees. This module is the contract with coordination.
//!
//! What members believe never decides what is true: state is fenced where it is kept. Watches are hints, and everybody looks
//! again by itself.

pub mod machine;
mod placement;
pub mod presence;
pub mod record;

use std::collections::BTreeSet;

use async_trait::async_trait;

pub use self::{
    machine::{Effect, Event, Membership},
    record::{Assignment, Common, Intent, Member, Share},
};
use crate::{failure::Failure, id::WorkerId};

/// What coordination shows of a topology's workers.
///
/// ```
/// use tine_core::membership::Sight;
///
/// /// Whether everybody who is registered has a share.
/// fn is_settled(sight: &Sight) -> bool {
///     let Some(assignment) = &sight.assignment else { return false };
///     sight.members.iter().all(|member| assignment.place(member.peer.id).is_some())
/// }
///
/// assert!(!is_settled(&Sight::default()));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Who is registered, the oldest registration first.
    pub members: Vec<Member>,
    /// Those of them that had [ended](Intent::End) their topology before this registration began: it was another run, and their
    /// sessions are only not over yet; unless this process was part of that run, under an earlier registration.
    pub past: BTreeSet<WorkerId>,
    /// The assignment that stands.
    pub assignment: Option<Assignment>,
}

/// A coordination service that knows workers.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use tine_core::failure::Failure;
/// use tine_core::membership::{Member, Members, Registration, Sight};
/// use tokio::sync::Notify;
///
/// /// For tests: workers in one process, who see one another through it.
/// #[derive(Clone, Default)]
/// struct Registry(Arc<(Mutex<Sight>, Notify)>);
///
/// struct Registered(Registry, Member);
///
/// #[async_trait::async_trait]
/// impl Members for Registry {
///     async fn register(&self, _topology: &str, member: &Member) -> Result<Box<dyn Registration>, Failure> {
///         self.0.0.lock().unwrap().members.push(member.clone());
///         self.0.1.notify_waiters();
///         Ok(Box::new(Registered(self.clone(), member.clone())))
///     }
/// }
///
/// #[async_trait::async_trait]
/// impl Registration for Registered {
///     async fn look(&self) -> Result<Sight, Failure> {
///         Ok(self.0.0.0.lock().unwrap().clone())
///     }
///
///     async fn changed(&self) {
///         self.0.0.1.notified().await;
///     }
///
///     async fn update(&self, member: &Member) -> Result<(), Failure> {
///         let mut sight = self.0.0.0.lock().unwrap();
///         sight.members.iter_mut().filter(|it| it.peer.id == member.peer.id).for_each(|it| *it = member.clone());
///         Ok(())
///     }
///
///     async fn lost(&self) -> Failure {
///         std::future::pending().await
///     }
/// }
///
/// impl Drop for Registered {
///     fn drop(&mut self) {
///         self.0.0.0.lock().unwrap().members.retain(|member| member.peer.id != self.1.peer.id);
///     }
/// }
///
/// # use tine_core::membership::{Common, record::{Capacity, Intent}};
/// # use tine_core::{hash::Hash128, id::WorkerId, transport::{Peer, Token}};
/// # let common = Common { fingerprint: Hash128(7), lineage: 0 };
/// # let peer = |id| Peer { id: WorkerId(id), address: format!("h:{id}"), token: Token(0) };
/// # let capacity = Capacity { readers: 1, stages: 1 };
/// # let member = |id| Member { peer: peer(id), common, capacity, intent: Intent::Stay, rival: None };
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let registry = Registry::default();
/// let first = registry.register("words", &member(1)).await?;
/// let second = registry.register("words", &member(2)).await?;
/// first.update(&Member { intent: Intent::Leave, ..member(1) }).await?;
/// assert_eq!(second.look().await?.members[0].intent, Intent::Leave);
/// drop(first);
/// assert_eq!(second.look().await?.members.len(), 1);
/// # Ok::<(), Failure>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[async_trait]
pub trait Members: Send + Sync {
    /// Registers a worker, until the registration is dropped or its session ends. Retries by itself while the service is
    /// away; `Fatal` when trying again cannot help.
    async fn register(&self, topology: &str, member: &Member) -> Result<Box<dyn Registration>, Failure>;
}

/// A worker's registration, as long as it lasts; it ends when dropped. Methods may be called concurrently.
///
/// ```no_run
/// use tine_core::membership::Registration;
///
/// /// Says who is there whenever that may have changed, until the registration is gone.
/// async fn show(registration: &dyn Registration) {
///     loop {
///         match registration.look().await {
///             Ok(sight) => println!("{} workers", sight.members.len()),
///             Err(failure) => eprintln!("{failure}"),
///         }
///         tokio::select! {
///             () = registration.changed() => {}
///             reason = registration.lost() => return eprintln!("{reason}"),
///         }
///     }
/// }
/// ```
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
