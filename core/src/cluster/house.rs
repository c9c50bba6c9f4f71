//! One worker's share of a topology: all seats, which of them are taken here, and the desks of the peers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::desk::{Desk, Load};
use crate::{
    engine::acks::Word,
    failure::Failure,
    id::{Era, TaskId, WorkerId},
    membership::Assignment,
    topology::build::{Layout, Seat},
    transport::Transport,
    tuple::Root,
};

pub(super) struct House {
    pub(super) layout: Layout,
    /// Set once the port is open.
    pub(super) transport: OnceLock<Arc<dyn Transport>>,
    rooms: Mutex<Rooms>,
}

#[derive(Default)]
struct Rooms {
    /// Under which assignment, and where each task runs; `None` while this worker has no part in any.
    homes: Option<(Era, Arc<[WorkerId]>)>,
    desks: BTreeMap<WorkerId, Arc<Desk>>,
}

impl House {
    pub(super) fn new(layout: Layout) -> House {
        House { layout, transport: OnceLock::new(), rooms: Mutex::default() }
    }

    pub(super) fn seat(&self, task: TaskId) -> Option<&Seat> {
        self.layout.seats.get(task.0 as usize)
    }

    pub(super) fn transport(&self) -> Option<&Arc<dyn Transport>> {
        self.transport.get()
    }

    /// Frames are sent under this assignment. Whoever takes them in does not look: a chunk finds its task wherever that is.
    pub(super) fn era(&self) -> Era {
        self.lock().homes.as_ref().map_or(Era::default(), |(era, _)| *era)
    }

    /// Where each task runs.
    pub(super) fn homes(&self) -> Option<Arc<[WorkerId]>> {
        self.lock().homes.as_ref().map(|(_, homes)| Arc::clone(homes))
    }

    pub(super) fn desk(&self, peer: WorkerId) -> Arc<Desk> {
        Arc::clone(self.lock().desks.entry(peer).or_insert_with(|| Arc::new(Desk::new(rand::random()))))
    }

    /// The seats that are taken here.
    pub(super) fn seats_of(&self, me: WorkerId) -> impl Iterator<Item = &Seat> {
        let homes = self.homes();
        let is_here = move |task: usize| homes.as_ref().is_some_and(|homes| homes[task] == me);
        self.layout.seats.iter().enumerate().filter(move |(task, _)| is_here(*task)).map(|(_, seat)| seat)
    }

    /// From now on tasks are where an assignment says, and what is for those that are not `me` is carried to them. Answers
    /// with the workers that are peers no longer.
    pub(super) fn furnish(&self, me: WorkerId, assignment: &Assignment, homes: &Arc<[WorkerId]>) -> Vec<WorkerId> {
        let peers: Vec<_> = assignment.shares.iter().map(|share| share.peer.id).filter(|peer| *peer != me).collect();
        let mut loads: BTreeMap<WorkerId, Load> = peers.iter().map(|peer| (*peer, Load::default())).collect();
        for (task, home) in homes.iter().enumerate() {
            let seat = &self.layout.seats[task];
            seat.inbox.iter().chain(&seat.feedback).for_each(|inbox| inbox.move_here(*home == me));
            if let Some(load) = loads.get_mut(home) {
                load.tasks.extend(seat.inbox.is_some().then_some(TaskId(task as u32)));
                load.owners.extend(seat.reports.as_ref().map(|(_, owner)| usize::from(*owner)));
            }
        }
        let gone = {
            let mut rooms = self.lock();
            rooms.homes = Some((assignment.era, Arc::clone(homes)));
            rooms.desks.keys().copied().filter(|peer| !peers.contains(peer)).collect()
        };
        for (peer, load) in loads {
            self.desk(peer).carry(load);
        }
        for (seat, home) in self.layout.seats.iter().zip(&homes[..]).filter(|(_, home)| **home != me) {
            seat.bell.attach_courier(&self.desk(*home).bell);
        }
        gone
    }

    /// This worker has no part in the topology any more.
    pub(super) fn vacate(&self) -> Vec<WorkerId> {
        let mut rooms = self.lock();
        rooms.homes = None;
        rooms.desks.keys().copied().collect()
    }

    /// A worker is a peer no longer: what was sent to it is nobody's.
    pub(super) fn close_desk(&self, peer: WorkerId) {
        let desk = self.lock().desks.remove(&peer);
        if let Some(desk) = desk {
            self.layout.shared.done(desk.close());
        }
    }

    /// The connection with a peer broke: what it has not taken has failed.
    pub(super) fn broke(&self, peer: WorkerId, roots: Vec<Root>, failure: &Failure) {
        let desk = self.desk(peer);
        self.layout.shared.done(desk.reset());
        desk.bell.notify_one();
        let failure = Failure::transient(format!("the link to {peer} broke: {failure}"));
        roots.into_iter().for_each(|root| self.fail(root, &failure));
    }

    /// A tree has failed, wherever its spout runs.
    pub(super) fn fail(&self, root: Root, failure: &Failure) {
        if let Some(owner) = self.layout.boxes.get(root.owner()) {
            owner.word(Word::Failed(root, failure.clone()));
        }
    }

    /// Every tree of every spout that runs here has failed.
    pub(super) fn fail_all(&self, me: WorkerId, failure: &Failure) {
        for (reports, _) in self.seats_of(me).filter_map(|seat| seat.reports.as_ref()) {
            reports.word(Word::AllFailed(failure.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
