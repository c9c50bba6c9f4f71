//! How a worker gets to be seen, and sees the others.

use std::{sync::Arc, time::Duration};

use rand::Rng;
use tokio::sync::mpsc;

use super::{
    Registration, Sight,
    record::{Capacity, Common, Intent, Member},
};
use crate::{
    coordination::Coordination,
    failure::{Failure, FailureKind},
    id::WorkerId,
    transport::{Peer, Token},
};

/// How often a worker looks by itself: watches are hints, and a dead worker's tasks are to move within a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a word of this worker may take; whoever says it has other things to do.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause before a registration that failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// A worker that others see, for as long as its registration lasts.
pub type Registered = (Member, Arc<dyn Registration>);

/// Registers the worker that its peers reach at `address`, under a new name; tries for as long as it takes.
///
/// ```no_run
/// use tine_core::coordination::Coordination;
/// use tine_core::membership::{Common, presence::register, record::Capacity};
/// use tine_core::failure::Failure;
///
/// async fn appear(zookeeper: &dyn Coordination, common: Common) -> Result<(), Failure> {
///     let capacity = Capacity { readers: 1, stages: 2 };
///     let (member, registration) = register(zookeeper, "words", "worker-1.example:7100", common, capacity).await?;
///     println!("{} sees {} workers", member.peer.id, registration.look().await?.members.len());
///     Ok(())
/// }
/// ```
///
/// # Errors
/// `Fatal` when trying again cannot help.
pub async fn register(
    coordination: &dyn Coordination,
    topology: &str,
    address: &str,
    common: Common,
    capacity: Capacity,
) -> Result<Registered, Failure> {
    let (id, token) = (WorkerId(rand::rng().random()), Token(rand::rng().random()));
    let peer = Peer { id, address: address.to_owned(), token };
    let member = Member { peer, common, capacity, intent: Intent::Stay, rival: None };
    loop {
        let failure = match coordination.members() {
            Some(members) => match members.register(topology, &member).await {
                Ok(registration) => return Ok((member, registration.into())),
                Err(failure) => failure,
            },
            None => Failure::fatal(format!("{} knows no workers", coordination.describe())),
        };
        if failure.kind == FailureKind::Fatal {
            return Err(failure);
        }
        tracing::warn!(target: "tine::workers", "registering as a worker: {failure}; trying again");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Says something else of a worker; whether it was said.
pub async fn tell(registration: &dyn Registration, member: &Member) -> bool {
    let told = tokio::time::timeout(TELL_TIMEOUT, registration.update(member)).await;
    let told = told.unwrap_or_else(|_| Err(Failure::transient("no answer yet")));
    told.inspect_err(|failure| tracing::warn!(target: "tine::workers", "telling the others of this worker: {failure}"))
        .is_ok()
}

/// Looks again and again, and tells whatever is another sight than the one before; until nobody hears it.
///
/// ```no_run
/// use std::sync::Arc;
/// use tine_core::membership::{Registration, Sight, presence::watch};
/// use tokio::sync::mpsc;
///
/// async fn follow(registration: Arc<dyn Registration>) {
///     let (told, mut sights) = mpsc::channel::<Sight>(1);
///     tokio::spawn(watch(registration, told));
///     while let Some(sight) = sights.recv().await {
///         println!("{} workers, {:?}", sight.members.len(), sight.assignment.map(|it| it.era));
///     }
/// }
/// ```
pub async fn watch<T: From<Sight>>(registration: Arc<dyn Registration>, told: mpsc::Sender<T>) {
    let mut before = None::<Sight>;
    loop {
        match registration.look().await {
            Ok(sight) => {
                if before.as_ref() != Some(&sight) {
                    before = Some(sight.clone());
                    if told.send(sight.into()).await.is_err() {
                        return;
                    }
                }
            }
            Err(failure) => tracing::warn!(target: "tine::workers", "looking at the workers: {failure}"),
        }
        tokio::select! {
            () = registration.changed() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
