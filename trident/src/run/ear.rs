//! What a worker does with what its peers send: tuples to its tasks, reports to its acker, the rest to the membership.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use tine_core::{
    acker::AckerEvent,
    failure::Failure,
    id::{Era, TaskId, WorkerId},
    membership::{Event, Sight},
    runtime::Links,
    task::Effect,
    transport::{Frame, Kind, Receive},
    tuple::Root,
};
use tokio::sync::{mpsc, oneshot};

use crate::{message::Batches, wire};

/// The word of a control frame: its sender is ready.
pub(super) const READY: &[u8] = &[1];

/// What the membership's driver is told.
pub(super) enum Told {
    /// For the machine.
    Event(Event),
    /// This process wants to end; the answer comes when it has no tasks any more.
    Leave(oneshot::Sender<()>),
}

impl From<Sight> for Told {
    fn from(sight: Sight) -> Told {
        Told::Event(Event::Seen(sight))
    }
}

/// The tasks that run here now.
#[derive(Clone)]
pub(super) struct Present {
    pub(super) era: Era,
    pub(super) links: Arc<Links<Batches>>,
    pub(super) tasks: Arc<BTreeSet<TaskId>>,
    /// Whether the acker of this era is here.
    pub(super) leads: bool,
}

/// Shared by the ear and whoever starts and stops tasks.
pub(super) type Presence = Arc<Mutex<Option<Present>>>;

/// Hears the peers.
pub(super) struct Ear {
    pub(super) presence: Presence,
    pub(super) told: mpsc::Sender<Told>,
}

impl Ear {
    /// What runs here, if it hears this era.
    fn present(&self, era: Era) -> Option<Present> {
        self.now().filter(|present| present.era.hears(era))
    }

    fn now(&self) -> Option<Present> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn tell(&self, event: Event) {
        // A closed ear means that the run is over.
        let _ = self.told.send(Told::Event(event)).await;
    }

    async fn take(&self, peer: WorkerId, frame: Frame) -> Result<(), Failure> {
        match frame.kind {
            Kind::Control if frame.body == READY => self.tell(Event::Ready(peer, frame.era)).await,
            Kind::Control => return Err(Failure::transient("a control frame that nobody understands")),
            Kind::Tuples => {
                let Some(present) = self.present(frame.era) else { return Ok(()) };
                let to = frame.to;
                if !present.tasks.contains(&to) {
                    return Err(Failure::transient(format!(
                        "a tuple for {to}, which does not run here in {}",
                        frame.era
                    )));
                }
                let tuple = wire::read_tuple(frame)?;
                // A task that has ended takes nothing: the tuple's trees fail.
                present.links.perform(Effect::<_, ()>::Send { to, tuple }).await;
            }
            Kind::Reports => {
                let Some(present) = self.present(frame.era).filter(|present| present.leads) else { return Ok(()) };
                present.links.report(wire::read_report(&frame)?).await;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Receive for Ear {
    async fn frame(&self, peer: WorkerId, frame: Frame) -> Result<(), Failure> {
        self.take(peer, frame).await.inspect_err(|failure| tracing::error!("{peer} sent {failure}"))
    }

    async fn up(&self, peer: WorkerId) {
        self.tell(Event::Up(peer)).await;
    }

    async fn lost(&self, peer: WorkerId, roots: Vec<Root>, failure: Failure) {
        if let Some(present) = self.now() {
            // A batch of many frames is one tree.
            for root in BTreeSet::from_iter(roots) {
                let failure = Failure::transient(format!("the link to {peer} broke: {failure}"));
                present.links.report(AckerEvent::Fail { root, failure }).await;
            }
        }
        self.tell(Event::Broke(peer, failure)).await;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tine_core::tuple::{Anchor, Anchors, Tuple};

    use super::*;
    use crate::message::Message;

    fn frame(era: u64, kind: Kind, body: &'static [u8]) -> Frame {
        Frame { era: Era(era), to: TaskId(1), from: TaskId(2), kind, body: Bytes::from_static(body) }
    }

    /// Task 1 runs here, and task 3 at another worker: what goes there is counted.
    fn ear(leads: bool) -> (Ear, mpsc::Receiver<Told>) {
        let (told, heard) = mpsc::channel(8);
        let mut links = Links::new();
        links.add_remote(TaskId(3), |_| panic!("a tuple was handed on to another worker"));
        let present = Present { era: Era(7), links: Arc::new(links), tasks: Arc::new([TaskId(1)].into()), leads };
        (Ear { presence: Arc::new(Mutex::new(Some(present))), told }, heard)
    }

    #[tokio::test]
    async fn p11_frames_of_another_era_are_dropped_unread_and_those_of_this_one_are_read() {
        let (ear, mut heard) = ear(true);
        let garbage: &[u8] = &[255; 9];
        for kind in [Kind::Tuples, Kind::Reports] {
            assert_eq!(ear.frame(WorkerId(1), frame(6, kind, garbage)).await, Ok(()), "{kind:?}");
            assert!(ear.frame(WorkerId(1), frame(7, kind, garbage)).await.is_err(), "{kind:?}");
        }
        assert!(heard.try_recv().is_err(), "whoever owns the connection tells of its end");
    }

    #[tokio::test]
    async fn x2_a_tuple_for_another_workers_task_is_refused_by_name() {
        let (ear, _heard) = ear(true);
        let message =
            Message::End { attempt: tine_core::id::Attempt::NONE, txid: tine_core::id::TxId(1), chunks: 0, rows: 0 };
        let anchors = Anchors::from_slice(&[Anchor { root: Root(4), edge: 5 }]);
        let (frame, _) = wire::tuple(Era(7), TaskId(3), Tuple { anchors, from: TaskId(2), message }).unwrap();
        let refused = ear.frame(WorkerId(1), frame).await.unwrap_err();
        assert!(refused.message.contains(&TaskId(3).to_string()), "{refused}");
    }

    #[tokio::test]
    async fn x2_reports_are_for_whoever_leads_alone() {
        let (ear, mut heard) = ear(false);
        assert_eq!(ear.frame(WorkerId(1), frame(7, Kind::Reports, &[255; 9])).await, Ok(()));
        ear.frame(WorkerId(1), frame(5, Kind::Control, READY)).await.unwrap();
        assert!(matches!(heard.try_recv(), Ok(Told::Event(Event::Ready(WorkerId(1), Era(5))))));
    }
}
