//! How this worker goes: it leaves its tasks to others, or is the last, or tells everybody of the end and waits for them.

use std::time::{Duration, Instant};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{Driver, Order, Told};
use crate::{
    engine::shared::{Halted, Phase},
    failure::Failure,
    id::WorkerId,
    membership::{Event, Intent, Member},
};

/// How long whoever has told everybody of the end waits for the others to go: what it said must get there.
const FAREWELL: Duration = Duration::from_secs(3);

/// How long it stays when all others have gone.
const GRACE: Duration = Duration::from_millis(500);

impl Driver {
    /// Wants to end, while the topology goes on elsewhere; the last worker works off what there is.
    pub(super) async fn leave(&mut self) {
        if self.running.is_none() {
            return self.shared().enter(Phase::Stopped);
        }
        if !self.others().any(stays) {
            return self.command(Order::Drain).await;
        }
        self.leaving.get_or_insert_with(|| Instant::now() + self.house.layout.shared.settings.drain_timeout);
        if let Some(me) = self.machine.me().cloned() {
            self.update(me).await;
        }
        // Somebody else leads, and makes an assignment without this worker.
        self.campaigning.take().inspect(JoinHandle::abort);
        self.reigning = watch::channel(None).1;
        self.step(Event::Deposed).await;
    }

    /// The other workers, the oldest first. Those of another program are none.
    fn others(&self) -> impl Iterator<Item = &Member> {
        self.machine.workers().filter(|member| !self.is_me(member.peer.id))
    }

    fn is_in_company(&self) -> bool {
        self.others().next().is_some()
    }

    /// Who is there, and does one of them end the topology? When all want to leave, nobody would take their tasks: the oldest
    /// stays, and is the last.
    pub(super) async fn look_around(&mut self) {
        for Member { peer, intent, .. } in self.others() {
            if let Intent::End { drained, error } = intent {
                tracing::info!(target: "tine::core", "{} at {} ends the topology", peer.id, peer.address);
                return match error {
                    Some(error) => self.shared().refuse(Failure::fatal(error.clone())),
                    None => self.shared().end(*drained),
                };
            }
        }
        self.was_met |= self.is_in_company();
        let oldest = self.machine.workers().next().is_some_and(|member| self.is_me(member.peer.id));
        if oldest && !self.others().any(stays) && self.leaving.take().is_some() {
            tracing::info!(target: "tine::core", "all workers want to leave: this one works off what is under way");
            if let Some(me) = self.machine.me().cloned() {
                self.update(me).await;
            }
            self.campaign();
            self.command(Order::Drain).await;
        }
    }

    /// Tells the others why, if it was an error of a component; and lets them close their links before the port closes.
    pub(super) async fn farewell(&mut self, heard: &mut mpsc::Receiver<Told>) {
        if let Some(Halted::Component(error)) = self.shared().halted() {
            let what = format!(
                "{} of {:?} at {} ended the topology: {}",
                error.task, error.component, error.worker, error.failure
            );
            self.end(false, Some(Failure::fatal(what))).await;
        }
        if self.told_the_end && self.was_met {
            // Until then it stays a member: whoever saw it go before hearing of the end would begin again without it.
            let _ = tokio::time::timeout(FAREWELL, heard_by_all(heard, self.peers(), self.is_in_company())).await;
        }
        if let Some(looking) = self.looking.take() {
            looking.abort();
            let _ = looking.await;
        }
        self.registration = None;
    }
}

fn stays(member: &Member) -> bool {
    member.intent == Intent::Stay
}

/// Waits until the links with all these peers have broken and nobody else is seen; and a little longer, because one whose session
/// has just ended is about to register again.
async fn heard_by_all(heard: &mut mpsc::Receiver<Told>, mut peers: Vec<WorkerId>, mut others: bool) {
    loop {
        let wait = if peers.is_empty() && !others { GRACE } else { FAREWELL };
        match tokio::time::timeout(wait, heard.recv()).await {
            Ok(Some(Told::Event(Event::Broke(peer, _)))) => peers.retain(|known| *known != peer),
            Ok(Some(Told::Event(Event::Seen(sight)))) => others = sight.members.len() > 1 + sight.past.len(),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return,
        }
    }
}
