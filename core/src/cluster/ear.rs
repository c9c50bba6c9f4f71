//! What a worker does with what its peers send. Nothing here waits for a task: a peer has credit for what it sends.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{
    body::{self, Control, Order, Reports},
    house::House,
};
use crate::{
    codec::CodecError,
    engine::{
        credit::{Door, Room},
        inbox::Chunk,
        lineage::Lineage,
    },
    failure::Failure,
    id::{Era, WorkerId},
    membership::{Event, Sight},
    topology::build::Seat,
    transport::{Frame, Kind, Receive},
    tuple::Root,
};

/// What the driver hears.
pub(super) enum Told {
    /// For the membership.
    Event(Event),
    /// A peer says something.
    Control(WorkerId, Era, Control),
    /// This process tells the whole topology something.
    Order(Order),
    /// This process ends the topology, at once.
    Kill,
    /// This process wants to end, and the others are to go on.
    Leave,
}

impl From<Sight> for Told {
    fn from(sight: Sight) -> Told {
        Told::Event(Event::Seen(sight))
    }
}

pub(super) struct Ear {
    pub(super) house: Arc<House>,
    pub(super) told: mpsc::Sender<Told>,
}

impl Ear {
    async fn tell(&self, told: Told) {
        // A driver that hears nothing any more has ended, and so has this worker.
        let _ = self.told.send(told).await;
    }

    async fn take(&self, peer: WorkerId, frame: &Frame) -> Result<(), CodecError> {
        match frame.kind {
            Kind::Tuples => self.tuples(peer, frame),
            Kind::Reports => {
                self.reports(body::read_reports(&frame.body)?);
                Ok(())
            }
            Kind::Control => {
                match body::read_control(&frame.body)? {
                    Control::Credit(credit) => self.credit(peer, credit),
                    other => self.tell(Told::Control(peer, frame.era, other)).await,
                }
                Ok(())
            }
        }
    }

    fn tuples(&self, peer: WorkerId, frame: &Frame) -> Result<(), CodecError> {
        let corrupt = |what: &str| CodecError::Corrupt(format!("tuples for {}, {what}", frame.to));
        let seat = self.house.seat(frame.to).ok_or_else(|| corrupt("which the topology does not have"))?;
        let inputs = &self.house.layout.components[seat.component].inputs;
        let take = |input: u32| inputs.get(input as usize)?.encoding.map(|encoding| encoding.take);
        let came = body::read_tuples(&frame.body, take)?;
        let feedback = inputs[came.input as usize].feedback;
        let inbox = if feedback { &seat.feedback } else { &seat.inbox };
        let inbox = inbox.as_ref().ok_or_else(|| corrupt("which takes none"))?;
        let room = Room { tuples: came.tuples, bytes: frame.body.len() };
        let credit = self.house.desk(peer).credit(came.session, Door { task: frame.to, feedback }, room);
        let tuples = came.tuples - came.bad.len();
        came.bad.iter().for_each(|(why, lineage)| self.bad(seat, why, lineage));
        if tuples > 0 {
            self.house.layout.shared.sent(tuples);
            inbox.put(Chunk {
                input: came.input,
                from: frame.from,
                values: came.values,
                lineages: came.lineages,
                tuples,
                bytes: room.bytes,
                credit: Some(credit),
            });
        }
        Ok(())
    }

    /// A tuple that cannot be read: its trees have failed.
    fn bad(&self, seat: &Seat, why: &str, lineage: &Lineage) {
        let failure = Failure::poison(format!("a tuple from another worker cannot be read: {why}"));
        self.house.layout.shared.report(&seat.meter, &failure);
        lineage.roots().for_each(|root| self.house.fail(root, &failure));
    }

    /// A root that no spout of the topology owns is nobody's business.
    fn reports(&self, reports: Reports) {
        let boxes = &self.house.layout.boxes;
        match reports {
            Reports::Word(word) => {
                let owner = word.root().and_then(|root| boxes.get(root.owner()));
                owner.into_iter().for_each(|owner| owner.word(word.clone()));
            }
            Reports::Acks(acks) => {
                // A frame is of one owner, whoever wrote it; a hostile one costs a lookup for each.
                for of_one in acks.chunk_by(|(one, _), (other, _)| one.owner() == other.owner()) {
                    if let Some(owner) = boxes.get(of_one[0].0.owner()) {
                        owner.acks(of_one);
                    }
                }
            }
        }
    }

    fn credit(&self, peer: WorkerId, credit: Vec<(u64, Door, u64, u64)>) {
        let desk = self.house.desk(peer);
        for (session, door, tuples, bytes) in credit {
            let size = |number| usize::try_from(number).unwrap_or(usize::MAX);
            let room = Room { tuples: size(tuples), bytes: size(bytes) };
            self.house.layout.shared.done(desk.refund(session, door, room));
        }
        desk.bell.notify_one();
    }
}

#[async_trait]
impl Receive for Ear {
    async fn frame(&self, peer: WorkerId, frame: Frame) -> Result<(), Failure> {
        let unreadable = |error| Failure::transient(format!("a frame that cannot be read: {error}"));
        let taken = self.take(peer, &frame).await.map_err(unreadable);
        taken.inspect_err(|failure| tracing::error!(target: "tine::core", "{peer} sent {failure}"))
    }

    async fn up(&self, peer: WorkerId) {
        self.house.desk(peer).bell.notify_one();
        self.tell(Told::Event(Event::Up(peer))).await;
    }

    async fn lost(&self, peer: WorkerId, roots: Vec<Root>, failure: Failure) {
        self.house.broke(peer, roots, &failure);
        self.tell(Told::Event(Event::Broke(peer, failure))).await;
    }
}
