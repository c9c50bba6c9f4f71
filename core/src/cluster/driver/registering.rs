//! Who this worker is: its registration, what it says of itself there, and whether it leads.

use std::{sync::Arc, time::Instant};

use tokio::{sync::watch, task::JoinHandle};

use super::{Driver, PAUSE};
use crate::{
    cluster::leadership,
    failure::{Failure, FailureKind},
    membership::{
        Event, Intent, Member,
        presence::{self, Registered},
        record::Capacity,
    },
};

impl Driver {
    /// Begins to register, under a new name.
    pub(super) fn register(&mut self) {
        let address = self.house.transport().map_or(String::new(), |transport| transport.address().to_owned());
        let (coordination, topology) = (Arc::clone(&self.cluster.coordination), Arc::clone(&self.shared().topology));
        let (common, capacity) = (self.common, Capacity { readers: 1, stages: 1 });
        self.registering = Some(tokio::spawn(async move {
            presence::register(&*coordination, &topology, &address, common, capacity).await
        }));
    }

    /// Begins to try to lead.
    pub(super) fn campaign(&mut self) {
        let (reign, reigning) = watch::channel(None);
        let (coordination, topology) = (Arc::clone(&self.cluster.coordination), self.shared().topology.to_string());
        self.campaigning = Some(tokio::spawn(leadership::campaign(coordination, topology, reign)));
        self.reigning = reigning;
    }

    pub(super) async fn registered(&mut self, registered: Result<Registered, Failure>) {
        let (member, registration) = match registered {
            Ok(registered) => registered,
            Err(failure) => return self.shared().refuse(failure),
        };
        // Under another name, whatever ran here until now belongs to nobody.
        if self.me.replace(member.peer.clone()).is_some() {
            self.step(Event::Expired).await;
        }
        if let Some(transport) = self.house.transport() {
            transport.follow(&member.peer, &[]);
        }
        self.registration = Some(Arc::clone(&registration));
        self.looking = Some(tokio::spawn(presence::watch(registration, self.part.ear())));
        if self.leaving.is_some() {
            self.update(member.clone()).await;
        }
        self.step(Event::Registered(member)).await;
        self.reigns().await;
    }

    /// The registration is gone, or may be. As long as nobody knows, the data flow goes on: whoever cannot reach coordination
    /// learns of nothing better to do.
    pub(super) async fn unregistered(&mut self, failure: Failure) {
        tracing::warn!(target: "tine::core", "no worker any more, as far as coordination goes: {failure}; registering again");
        self.registration = None;
        self.looking.take().inspect(JoinHandle::abort);
        if failure.kind == FailureKind::Fenced {
            self.me = None;
            self.step(Event::Expired).await;
        }
        self.register();
    }

    pub(super) async fn reigns(&mut self) {
        let nonce = self.reigning.borrow_and_update().as_ref().map(|(nonce, _)| *nonce);
        self.step(nonce.map_or(Event::Deposed, Event::Led)).await;
    }

    /// Says something else of this worker in coordination.
    pub(super) async fn update(&mut self, member: Member) {
        let intent = if self.leaving.is_some() { Intent::Leave } else { Intent::Stay };
        let said = self.say_of_me(Member { intent, ..member }).await;
        self.update_at = (!said).then(|| Instant::now() + PAUSE);
    }

    /// Whether it was said.
    pub(super) async fn say_of_me(&self, member: Member) -> bool {
        let Some(registration) = self.registration.clone() else { return false };
        presence::tell(&*registration, &member).await
    }
}
