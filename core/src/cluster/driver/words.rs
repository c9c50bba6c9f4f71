//! What workers say to one another: who is ready, what the topology is to do, whether it is done.

use std::time::Instant;

use super::{ANSWER_TIMEOUT, Driver, SAY_TIMEOUT};
use crate::{
    cluster::body::{self, Control, Order, Standing},
    failure::Failure,
    id::{Era, TaskId, WorkerId},
    membership::{Event, Intent, Member},
    transport::{Frame, Kind, Roots},
};

/// So much of an error fits into what is registered of a worker.
const ERROR_CHARS_MAX: usize = 400;

impl Driver {
    pub(super) async fn control(&mut self, peer: WorkerId, era: Era, control: Control) {
        match control {
            Control::Ready { moved } => {
                self.moved_elsewhere |= moved;
                self.step(Event::Ready(peer, era)).await;
            }
            Control::Settled(token) if era == self.house.era() => self.settled_under(token).await,
            Control::Order(number, order) => self.obey((number, order)),
            Control::Ask(round) => {
                self.say_later(peer, self.house.era(), &Control::Answer(round, self.standing()));
            }
            Control::Answer(round, standing) if era == self.house.era() => self.answered(peer, round, standing).await,
            Control::End { drained, halted } => match halted {
                Some(failure) => self.shared().refuse(failure),
                None => self.shared().end(drained),
            },
            // Of another assignment; and what the ear has dealt with.
            Control::Settled(_) | Control::Answer(..) | Control::Credit(_) => {}
        }
    }

    /// Tells the whole topology what to do; when this worker has heard what it was told before.
    pub(super) async fn command(&mut self, order: Order) {
        if self.token.is_none() {
            // After a drain nothing else can follow.
            self.unsaid = self.unsaid.filter(|unsaid| *unsaid == Order::Drain).or(Some(order));
            return;
        }
        let number = self.wish.0.saturating_add(1);
        self.obey((number, order));
        self.broadcast(&Control::Order(number, order)).await;
    }

    /// Does what the topology is told, unless it was told something else since.
    fn obey(&mut self, wish: (u64, Order)) {
        if wish > self.wish {
            self.wish = wish;
            self.shared().enter(wish.1.phase());
        }
    }

    /// Whoever comes late, or was away, does as everybody does.
    pub(super) async fn say_again(&self, peer: WorkerId) {
        if let (number @ 1.., order) = self.wish {
            self.say(peer, &Control::Order(number, order)).await;
        }
        if let (true, Some(token)) = (self.settled, self.token) {
            self.say(peer, &Control::Settled(token)).await;
        }
    }

    pub(super) fn peers(&self) -> Vec<WorkerId> {
        let shares = self.running.iter().flat_map(|running| &running.assignment.shares);
        shares.map(|share| share.peer.id).filter(|peer| !self.is_me(*peer)).collect()
    }

    pub(super) async fn broadcast(&self, control: &Control) {
        for peer in self.peers() {
            self.say(peer, control).await;
        }
    }

    /// In the order of the calls. A peer that cannot be told now [is told](Driver::say_again) when its link stands.
    pub(super) async fn say(&self, peer: WorkerId, control: &Control) {
        let Some(link) = self.house.transport().and_then(|transport| transport.link(peer)) else { return };
        let _ = tokio::time::timeout(SAY_TIMEOUT, link.send(frame(self.house.era(), control), Roots::new())).await;
    }

    /// Waits for nobody. What is said so is said again when it gets lost with its link.
    pub(super) fn say_later(&self, peer: WorkerId, era: Era, control: &Control) {
        let Some(link) = self.house.transport().and_then(|transport| transport.link(peer)) else { return };
        let frame = frame(era, control);
        tokio::spawn(async move { link.send(frame, Roots::new()).await });
    }

    // ----- is everything worked off? -----

    pub(super) fn standing(&self) -> Standing {
        let shared = self.shared();
        let begun = shared.begun();
        let me = self.running.as_ref().map(|running| running.me.id);
        let pending = me.is_some_and(|me| self.house.seats_of(me).any(|seat| seat.meter.pending_now() != 0));
        Standing { idle: shared.live_spouts() == 0 && !pending && shared.in_flight() == 0, begun }
    }

    /// The leader asks everybody, when it is done itself.
    pub(super) async fn ask(&mut self) {
        if !self.settled || !self.standing().idle {
            return;
        }
        let peers = self.peers();
        let Some(round) = self.ending.ask(peers.len() + 1) else {
            if self.asked.elapsed() > ANSWER_TIMEOUT {
                self.ending.begin();
            }
            return;
        };
        self.asked = Instant::now();
        for peer in peers {
            self.say_later(peer, self.house.era(), &Control::Ask(round));
        }
        if let Some(me) = self.me.as_ref().map(|me| me.id) {
            self.answered(me, round, self.standing()).await;
        }
    }

    async fn answered(&mut self, worker: WorkerId, round: u64, standing: Standing) {
        let workers = self.peers().len() + 1;
        if self.settled && self.ending.answer(worker, round, standing, workers) {
            self.end(true, None).await;
        }
    }

    /// Ends the topology on all workers: over links, and in coordination for those to whom there is none.
    pub(super) async fn end(&mut self, drained: bool, halted: Option<Failure>) {
        let halted = halted.map(body::cut);
        self.told_the_end = true;
        let error = halted.as_ref().map(|failure| failure.message.chars().take(ERROR_CHARS_MAX).collect());
        let control = Control::End { drained, halted };
        let in_coordination = async {
            if let Some(me) = self.machine.me().cloned() {
                self.say_of_me(Member { intent: Intent::End { drained, error }, ..me }).await;
            }
        };
        tokio::join!(self.broadcast(&control), in_coordination);
        self.shared().end(drained);
    }
}

fn frame(era: Era, control: &Control) -> Frame {
    let body = bytes::Bytes::from(body::control(control));
    Frame { era, to: TaskId(0), from: TaskId(0), kind: Kind::Control, body }
}
