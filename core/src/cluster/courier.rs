//! Carries to one peer what is for its tasks: reports first, then word of free room, then tuples as far as there is credit.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    body::{self, ACKS_MAX, Control, Piece},
    desk::Desk,
    house::House,
};
use crate::{
    engine::{
        acks::Word,
        credit::{Door, Room},
        inbox::Inbox,
    },
    failure::Failure,
    id::{TaskId, WorkerId},
    topology::build::Seat,
    transport::{Frame, Kind, Link, Roots},
    tuple::Root,
};

/// Free room is told when this has passed since it was told last, so that many small chunks cost one frame.
const CREDIT_EVERY: Duration = Duration::from_micros(500);

/// A link that does not stand is looked at again, should nobody say that it does.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Works until the desk is closed: a courier that was dropped would drop what it has in its hands.
pub(super) async fn carry(house: Arc<House>, peer: WorkerId, desk: Arc<Desk>) {
    let mut courier = Courier { house, peer, desk, told: Instant::now(), acks: Vec::new(), words: Vec::new() };
    while !courier.desk.is_closed() {
        let link = courier.house.transport().and_then(|transport| transport.link(peer)).filter(|link| link.is_up());
        let (worked, wait) = match &link {
            Some(link) => (courier.round(&**link).await, CREDIT_EVERY),
            None => (false, LOOK_EVERY),
        };
        if !worked {
            tokio::select! {
                () = courier.desk.bell.notified() => {}
                () = tokio::time::sleep(wait), if link.is_none() || courier.owes() => {}
            }
        }
    }
}

struct Courier {
    house: Arc<House>,
    peer: WorkerId,
    desk: Arc<Desk>,
    /// When free room was told last.
    told: Instant,
    // Reused from round to round.
    acks: Vec<(Root, u64)>,
    words: Vec<Word>,
}

impl Courier {
    /// Whether anything was carried.
    async fn round(&mut self, link: &dyn Link) -> bool {
        let load = self.desk.load();
        let mut worked = false;
        for owner in &load.owners {
            worked |= self.reports(*owner, link).await;
        }
        if self.told.elapsed() >= CREDIT_EVERY {
            self.credit(link).await;
        }
        for task in &load.tasks {
            let house = Arc::clone(&self.house);
            let Some(seat) = house.seat(*task) else { continue };
            for (inbox, feedback) in [(&seat.feedback, true), (&seat.inbox, false)] {
                if let Some(inbox) = inbox {
                    worked |= self.tuples(Door { task: *task, feedback }, seat, inbox, link).await;
                }
            }
        }
        worked
    }

    fn owes(&self) -> bool {
        self.desk.is_in_debt()
    }

    async fn send(
        &self,
        link: &dyn Link,
        (to, from): (TaskId, TaskId),
        kind: Kind,
        body: Vec<u8>,
        roots: Roots,
    ) -> Result<(), Failure> {
        let frame = Frame { era: self.house.era(), to, from, kind, body: Bytes::from(body) };
        link.send(frame, roots).await
    }

    /// Reports for one spout task. Those that do not get there fail their trees: nobody else knows what they said.
    async fn reports(&mut self, owner: usize, link: &dyn Link) -> bool {
        let Some(reports) = self.house.layout.boxes.get(owner) else { return false };
        reports.take(&mut self.acks, &mut self.words);
        let worked = !self.acks.is_empty() || !self.words.is_empty();
        let acks = std::mem::take(&mut self.acks);
        for some in acks.chunks(ACKS_MAX) {
            let roots = || some.iter().map(|(root, _)| *root);
            let sent = self.send(link, Default::default(), Kind::Reports, body::acks(some), roots().collect()).await;
            self.lost(sent, roots());
        }
        let mut words = std::mem::take(&mut self.words);
        for word in words.drain(..) {
            let root = match &word {
                Word::Failed(root, _) => Some(*root),
                // Without a sign of life a tree fails by itself, later.
                Word::Alive(_) | Word::AllFailed(_) => None,
            };
            let Some(body) = body::word(word) else { continue };
            let sent = self.send(link, Default::default(), Kind::Reports, body, root.into_iter().collect()).await;
            self.lost(sent, root);
        }
        (self.acks, self.words) = (acks, words);
        self.acks.clear();
        worked
    }

    async fn credit(&mut self, link: &dyn Link) {
        let owed = self.desk.owed();
        if owed.is_empty() {
            return;
        }
        self.told = Instant::now();
        let credit =
            |((session, door), room): ((u64, Door), Room)| (session, door, room.tuples as u64, room.bytes as u64);
        let body = body::control(&Control::Credit(owed.into_iter().map(credit).collect()));
        // When it does not get there the link has broken, and the peer counts anew.
        let _ = self.send(link, Default::default(), Kind::Control, body, Roots::new()).await;
    }

    /// At most one chunk of one inbox, so that tasks take turns.
    async fn tuples(&mut self, door: Door, seat: &Seat, inbox: &Inbox, link: &dyn Link) -> bool {
        let window = Room { tuples: inbox.bounds().tuples, bytes: inbox.bounds().bytes };
        if inbox.depth() == 0 || !self.desk.has_credit(door, window) {
            return false;
        }
        let Some(chunk) = inbox.pop() else { return false };
        let Some(encoding) = self.house.layout.components[seat.component].inputs[chunk.input as usize].encoding else {
            // Starting as a worker has looked at every input.
            return false;
        };
        let mut at = 0;
        while at < chunk.tuples {
            let from = at;
            match body::tuples(encoding, chunk.input, &*chunk.values, &chunk.lineages, from..chunk.tuples) {
                Piece::Body(mut body, roots, until) => {
                    at = until;
                    let room = Room { tuples: until - from, bytes: body.len() };
                    let lineages = chunk.lineages.get(from..until).unwrap_or_default();
                    let roots_of = || lineages.iter().flat_map(|lineage| lineage.roots());
                    let Some(session) = self.desk.charge(door, room) else {
                        self.house.layout.shared.done(room.tuples);
                        self.lost(Err(Failure::transient("it is no worker any more")), roots_of());
                        continue;
                    };
                    body::stamp(&mut body, session);
                    let sent = self.send(link, (door.task, chunk.from), Kind::Tuples, body, roots).await;
                    if sent.is_err() {
                        self.house.layout.shared.done(self.desk.refund(session, door, room));
                    }
                    self.lost(sent, roots_of());
                }
                Piece::Stuck(tuple, why) => {
                    at = tuple + 1;
                    let sender = self.house.seat(chunk.from).map(|seat| &seat.meter);
                    let failure =
                        Failure::poison(format!("a tuple for {} on another worker {why}", seat.meter.component_name()));
                    sender.inspect(|meter| self.house.layout.shared.report(meter, &failure));
                    let lineage = chunk.lineages.get(tuple);
                    lineage
                        .into_iter()
                        .flat_map(|lineage| lineage.roots())
                        .for_each(|root| self.house.fail(root, &failure));
                    self.house.layout.shared.done(1);
                }
            }
        }
        true
    }

    fn lost(&self, sent: Result<(), Failure>, roots: impl IntoIterator<Item = Root>) {
        if let Err(failure) = sent {
            let failure = Failure::transient(format!("to {}: {failure}", self.peer));
            roots.into_iter().for_each(|root| self.house.fail(root, &failure));
        }
    }
}
