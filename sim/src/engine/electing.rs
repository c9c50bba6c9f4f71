//! The way to coordination and to the embedded mode's lock: campaigns, conditional writes, sessions that end.

use tine_core::{
    coordination::GroupRecord,
    failure::{Failure, FailureKind},
    id::Nonce,
};
use tine_state::Reply as SqlReply;
use tine_trident::coordinator::event::{Elected, Reply};

use super::{
    Engine,
    event::{Answered, Errand, Event, Inbound, Job, Request},
    node::CAMPAIGN,
    sessions::ABANDONED,
};
use crate::{coordination::Write, invariants::invariant_only_who_reigns_writes, settings::Mode, sql::Owner};

/// How long a candidate waits before it tries again.
const RETRY_US: u64 = 60_000;

impl Engine<'_> {
    pub(crate) fn is_embedded(&self) -> bool {
        self.settings.mode == Mode::Embedded
    }

    /// The service that decides who leads.
    pub(crate) fn decider(&self) -> usize {
        if self.is_embedded() { self.network.database() } else { self.network.coordination() }
    }

    /// Queues an errand; one after the other.
    pub(crate) fn errand(&mut self, node: usize, errand: Errand) {
        self.nodes[node].errands.queue.push_back(errand);
        self.next_errand(node);
    }

    fn next_errand(&mut self, node: usize) {
        while self.nodes[node].errands.busy.is_none() {
            let Some(errand) = self.nodes[node].errands.queue.pop_front() else { return };
            let write = match &errand {
                Errand::Campaign => None,
                Errand::Write { write, .. } => Some(write.clone()),
            };
            let embedded = self.is_embedded();
            let Some(write) = write else {
                self.nodes[node].errands.busy = Some(errand);
                return self.campaign(node);
            };
            let reigning = self.nodes[node].worker.reigning;
            match (self.nodes[node].errands.session, embedded) {
                (session, _) if is_of_another_reign(session.and(reigning), &write) => {
                    if let Write::Assign(made) = write {
                        self.not_assigned(node, made.era);
                    }
                }
                (Some(session), _) => {
                    self.nodes[node].errands.busy = Some(errand);
                    self.ask(node, session, Request::Write(write));
                }
                // The embedded mode writes nothing down: the claim is the lock itself.
                (None, true) if matches!(write, Write::Claim(_)) => {
                    let nonce = self.nodes[node].errands.nonce;
                    self.coordinator_reply(node, Reply::Claimed(nonce, Ok(())));
                }
                _ => {}
            }
        }
    }

    /// Gives back what was held and stands for election anew.
    fn campaign(&mut self, node: usize) {
        if !matches!(self.nodes[node].errands.busy, Some(Errand::Campaign)) {
            return;
        }
        self.reigns_from_now_on(node, None);
        self.give_back(node);
        let nonce = Nonce(self.draws.election.bits() | 1);
        self.nodes[node].errands.campaigning = nonce;
        self.nodes[node].errands.record = None;
        // What an earlier campaign asked for is not waited for any more.
        self.nodes[node].errands.asked += 1;
        let decider = self.decider();
        if self.is_cut(node, decider) {
            return self.campaign_again(node);
        }
        let (life, after_us) = (self.nodes[node].life, self.way_us(node, decider));
        self.agenda.put(self.now_us + after_us, Event::Candidate { node, life, nonce });
    }

    fn give_back(&mut self, node: usize) {
        if let Some(lock) = self.nodes[node].errands.lock.take() {
            self.abandon(lock);
        }
        let Some(session) = self.nodes[node].errands.session.take() else { return };
        if self.nodes[node].silent_since_us.is_some() {
            // Nobody keeps it alive any more.
            self.watch_session(session, ABANDONED);
        } else if self.coordination.end(session) {
            self.elect();
        }
    }

    /// This campaign has failed: another one, after a pause.
    pub(crate) fn campaign_again(&mut self, node: usize) {
        let failed = self.nodes[node].errands.campaigning;
        self.later(node, RETRY_US, Inbound::Campaign(failed));
    }

    pub(crate) fn on_campaign(&mut self, node: usize, failed: Nonce) {
        if self.nodes[node].errands.campaigning == failed {
            self.campaign(node);
        }
    }

    pub(crate) fn on_candidate(&mut self, node: usize, life: u32, nonce: Nonce) {
        if self.nodes[node].life != life {
            return;
        }
        if self.is_embedded() {
            return self.on_lock_wanted(node, nonce);
        }
        if let Some(fault) = self.forces.coordination_down {
            self.took_effect(fault);
            return self.campaign_again(node);
        }
        let session = self.coordination.open(node, life, nonce);
        if let Some(since_us) = self.nodes[node].silent_since_us {
            self.watch_session(session, since_us);
        }
        let after_us = self.way_us(self.network.coordination(), node);
        self.later(node, after_us, Inbound::Opened { nonce, session });
        self.elect();
    }

    fn on_lock_wanted(&mut self, node: usize, nonce: Nonce) {
        if self.exclusive.is_some() {
            return self.campaign_again(node);
        }
        let owner = Owner { node, life: self.nodes[node].life };
        self.exclusive = Some(self.sql.connect(owner, self.now_us));
        let after_us = self.way_us(self.network.database(), node);
        self.later(node, after_us, Inbound::Elected { nonce });
    }

    pub(crate) fn on_opened(&mut self, node: usize, nonce: Nonce, session: usize) {
        if self.nodes[node].errands.campaigning == nonce {
            self.nodes[node].errands.session = Some(session);
            if !self.coordination.sessions[session].alive {
                // It was ended before its client had heard of it.
                self.campaign_again(node);
            }
        } else if self.coordination.end(session) {
            self.elect();
        }
    }

    /// Elects somebody, if nobody leads; the news travels.
    pub(crate) fn elect(&mut self) {
        if let Some(session) = self.coordination.elect() {
            let after_us = 800 + self.late_news_us();
            self.agenda.put(self.now_us + after_us, Event::News { session });
        }
    }

    pub(crate) fn late_news_us(&mut self) -> u64 {
        let session_us = self.settings.session_timeout_ms * 1000;
        match (self.forces.late_news, self.forces.lost_news) {
            (Some(fault), _) => {
                self.took_effect(fault);
                self.draws.election.between(30_000, 400_000)
            }
            // Clients look by themselves, a few times per session timeout.
            (None, Some(fault)) => {
                self.took_effect(fault);
                self.draws.election.between(session_us / 4, 2 * session_us)
            }
            (None, None) => 0,
        }
    }

    pub(crate) fn on_news(&mut self, session: usize) {
        let (node, life, nonce) = {
            let session = &self.coordination.sessions[session];
            (session.node, session.life, session.nonce.unwrap_or_default())
        };
        if self.coordination.leader != Some(session) || self.nodes[node].life != life {
            return;
        }
        let coordination = self.network.coordination();
        if self.is_cut(coordination, node) || self.nodes[node].errands.session != Some(session) {
            // A client that was out of reach looks again by itself.
            return self.agenda.put(self.now_us + 20_000, Event::News { session });
        }
        let after_us = self.way_us(coordination, node);
        self.later(node, after_us, Inbound::Elected { nonce });
    }

    pub(crate) fn on_elected(&mut self, node: usize, nonce: Nonce) {
        let errands = &mut self.nodes[node].errands;
        if errands.campaigning != nonce || !matches!(errands.busy, Some(Errand::Campaign)) {
            return;
        }
        match errands.session {
            Some(session) => self.ask(node, session, Request::Read),
            None => {
                errands.lock = self.exclusive;
                errands.record = Some(GroupRecord::default());
                self.job(node, CAMPAIGN, Job::ReadGroup);
            }
        }
    }

    /// The group's row as a plain read saw it: the last thing that a campaign needs.
    pub(crate) fn on_group_read(&mut self, node: usize, answer: Result<SqlReply, Failure>) {
        let errands = &mut self.nodes[node].errands;
        if !matches!(errands.busy, Some(Errand::Campaign)) {
            return;
        }
        // A read that an earlier campaign had asked for says nothing.
        let Some(record) = errands.record.take() else { return };
        let Ok(SqlReply::Snapshot(snapshot)) = answer else {
            return self.campaign_again(node);
        };
        errands.nonce = errands.campaigning;
        errands.busy = None;
        let (lineage, fence) = (snapshot.group.lineage, snapshot.group.fence);
        let elected = Elected { nonce: errands.nonce, record, lineage, fence };
        self.trace.say(self.now_us, || format!("process {node} is elected"));
        self.elected(node);
        self.coordinator_reply(node, Reply::Elected(Box::new(elected)));
        self.next_errand(node);
    }

    fn ask(&mut self, node: usize, session: usize, request: Request) {
        self.nodes[node].errands.asked += 1;
        let asked = self.nodes[node].errands.asked;
        let after_us = self.way_us(node, self.network.coordination());
        self.agenda.put(self.now_us + after_us, Event::Ask { session, asked, request });
    }

    /// A request arrives at coordination, unless something is in the way: then its client, if it lives, tries again.
    pub(crate) fn on_ask(&mut self, session: usize, asked: u64, request: Request) {
        let (node, life) = (self.coordination.sessions[session].node, self.coordination.sessions[session].life);
        let lives = self.nodes[node].life == life;
        let coordination = self.network.coordination();
        let down = self.forces.coordination_down;
        if let Some(fault) = down {
            self.took_effect(fault);
        }
        if down.is_some() || self.is_cut(node, coordination) {
            if lives && self.nodes[node].up {
                self.agenda.put(self.now_us + 20_000, Event::Ask { session, asked, request });
            }
            return;
        }
        let answer = match &request {
            Request::Read => Answered::Record(self.coordination.read(session)),
            Request::Write(write) => {
                let before = (self.coordination.standing.epoch, self.coordination.standing.nonce);
                let result = self.coordination.write(session, write);
                if result.is_ok() {
                    let (writer, claims) = (self.coordination.nonce(session), matches!(write, Write::Claim(_)));
                    let after = self.coordination.standing.epoch;
                    self.check(invariant_only_who_reigns_writes(before, after, writer, claims));
                }
                if result.is_ok() && matches!(write, Write::Assign(_)) {
                    self.stir();
                }
                self.trace.mix(self.now_us, u64::from(result.is_ok()));
                self.trace.say(self.now_us, || match &result {
                    Ok(()) => format!("coordination: {write}, by process {node}"),
                    Err(failure) => format!("coordination refuses {write} of process {node}: {failure}"),
                });
                Answered::Written(result)
            }
            Request::Settle => Answered::Written(self.coordination.settle(session)),
        };
        let lost = self.forces.lost_coordination.get(node).copied().flatten();
        if (lost.is_some() || self.is_cut(coordination, node)) && lives {
            if let Some(fault) = lost {
                self.took_effect(fault);
            }
            // A lost reply is settled by reading back; a read is simply repeated.
            let again = if matches!(request, Request::Read) { Request::Read } else { Request::Settle };
            let settled = matches!(&answer, Answered::Written(Err(failure)) if failure.kind == FailureKind::Fatal);
            if !settled {
                return self.agenda.put(self.now_us + 15_000, Event::Ask { session, asked, request: again });
            }
        }
        let after_us = self.way_us(coordination, node);
        let what = Inbound::Answered { asked, answer };
        self.agenda.put(self.now_us + after_us, Event::Node { node, life, what });
    }

    pub(crate) fn on_answered(&mut self, node: usize, asked: u64, answer: Answered) {
        let errands = &mut self.nodes[node].errands;
        if errands.asked != asked {
            return;
        }
        let nonce = errands.nonce;
        match (errands.busy.take(), answer) {
            (Some(Errand::Campaign), Answered::Record(record)) => {
                errands.busy = Some(Errand::Campaign);
                match record {
                    Ok(record) => {
                        errands.record = Some(record);
                        self.job(node, CAMPAIGN, Job::ReadGroup);
                    }
                    Err(_) => self.campaign_again(node),
                }
            }
            (Some(Errand::Write { write, plan }), Answered::Written(result)) => {
                if matches!(write, Write::Claim(_)) && result.is_ok() {
                    self.reigns_from_now_on(node, Some(nonce));
                }
                self.next_errand(node);
                match (write, plan) {
                    (Write::Assign(made), _) => self.on_assigned(node, made.era, result),
                    (Write::Claim(_), _) => self.coordinator_reply(node, Reply::Claimed(nonce, result)),
                    (_, Some((txid, attempt))) => {
                        self.coordinator_reply(node, Reply::PlanWritten { attempt, txid, result });
                    }
                    _ => {
                        if let Err(failure) = result {
                            self.coordinator_reply(node, Reply::NoteFailed(nonce, failure));
                        }
                    }
                }
            }
            (busy, _) => errands.busy = busy,
        }
    }
}

/// Whether a write is an assignment by a leader whose reign is over.
fn is_of_another_reign(this_one: Option<Nonce>, write: &Write) -> bool {
    matches!(write, Write::Assign(made) if Some(made.nonce) != this_one)
}
