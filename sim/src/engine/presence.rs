//! How a worker gets to be seen, and sees the others: its registration is a session of its own, and a look shows who is registered and the
//! assignment. What it is told of changes is a hint, which may come late.

use tine_core::{
    id::WorkerId,
    membership::{Common, Event as Told, Intent, Member},
    transport::{Peer, Token},
};

use super::{
    Engine,
    event::{Event, Inbound},
    workers::{PAUSE_US, name},
};
use crate::coordination::SessionId;

impl Engine<'_> {
    /// What all workers have in common.
    pub(crate) fn common(&self) -> Common {
        Common { fingerprint: self.built.group.fingerprint, lineage: self.sql.group.lineage }
    }

    /// Registers a process, under a new name.
    pub(crate) fn register(&mut self, node: usize) {
        self.register.names += 1;
        let worker = name(node, self.register.names);
        self.nodes[node].worker.id = Some(worker);
        let (life, after_us) = (self.nodes[node].life, self.way_us(node, self.network.coordination()));
        self.agenda.put(self.now_us + after_us, Event::Register { node, life, worker });
    }

    fn member_of(&self, node: usize, id: WorkerId) -> Member {
        let peer = Peer { id, address: format!("process-{node}:7100"), token: Token(id.0.into()) };
        Member { peer, common: self.common(), capacity: self.capacity(node), intent: Intent::Stay, rival: None }
    }

    /// A worker's wish to be registered arrives at coordination; when it does not, or its answer does not, it is tried again.
    pub(crate) fn on_register(&mut self, node: usize, life: u32, worker: WorkerId) {
        let process = &self.nodes[node];
        if process.life != life || !process.up || process.worker.id != Some(worker) || process.worker.session.is_some()
        {
            return;
        }
        if self.is_unheard(node) {
            return self.agenda.put(self.now_us + PAUSE_US, Event::Register { node, life, worker });
        }
        if !self.coordination.knows(worker) {
            let member = self.member_of(node, worker);
            let session = self.coordination.register(node, life, member);
            self.trace.say(self.now_us, || format!("coordination: process {node} is registered as {worker}"));
            if let Some(since_us) = self.nodes[node].silent_since_us {
                self.watch_session(session, since_us);
            }
            self.stir();
        }
        if self.is_unanswered(node) {
            return self.agenda.put(self.now_us + PAUSE_US, Event::Register { node, life, worker });
        }
        let session = self.coordination.register(node, life, self.member_of(node, worker));
        let after_us = self.way_us(self.network.coordination(), node);
        self.later(node, after_us, Inbound::Registered(worker, session));
    }

    /// Whether coordination does not hear a process now.
    fn is_unheard(&mut self, node: usize) -> bool {
        if let Some(fault) = self.forces.coordination_down {
            self.took_effect(fault);
            return true;
        }
        self.is_cut(node, self.network.coordination())
    }

    /// Whether coordination's answers do not reach a process now.
    fn is_unanswered(&mut self, node: usize) -> bool {
        if let Some(fault) = self.forces.lost_coordination.get(node).copied().flatten() {
            self.took_effect(fault);
            return true;
        }
        self.is_cut(self.network.coordination(), node)
    }

    pub(crate) fn on_registered(&mut self, node: usize, id: WorkerId, session: SessionId) {
        let worker = &mut self.nodes[node].worker;
        if worker.id != Some(id) || worker.session.is_some() {
            return;
        }
        worker.session = Some(session);
        let member = self.member_of(node, id);
        self.member(node, Told::Registered(member));
        self.on_changed(node, session);
        self.reigns(node);
        if !self.coordination.sessions[session].alive {
            // It was ended before its client had heard of it.
            self.later(node, PAUSE_US, Inbound::Unregistered(session));
        }
    }

    /// A process hears that its registration is gone, and registers anew.
    pub(crate) fn on_unregistered(&mut self, node: usize, session: SessionId) {
        if self.nodes[node].worker.session == Some(session) {
            self.nodes[node].worker.session = None;
            self.member(node, Told::Expired);
            self.register(node);
        }
    }

    /// Something has changed about the workers: whoever looks at them is told, sooner or later, once until it looks again.
    pub(crate) fn stir(&mut self) {
        let sessions: Vec<SessionId> = self.coordination.registered().collect();
        for session in sessions {
            let watcher = &mut self.coordination.sessions[session];
            if std::mem::replace(&mut watcher.stirred, true) {
                continue;
            }
            let (node, life) = (watcher.node, watcher.life);
            let at_us = self.now_us + 800 + self.late_news_us();
            self.agenda.put(at_us, Event::Node { node, life, what: Inbound::Changed(session) });
        }
    }

    /// A worker looks.
    pub(crate) fn on_changed(&mut self, node: usize, session: SessionId) {
        if self.nodes[node].worker.session == Some(session) {
            let after_us = self.way_us(node, self.network.coordination());
            self.agenda.put(self.now_us + after_us, Event::Look(session));
        }
    }

    pub(crate) fn on_look(&mut self, session: SessionId) {
        let (node, life) = (self.coordination.sessions[session].node, self.coordination.sessions[session].life);
        if !self.coordination.sessions[session].alive || self.nodes[node].life != life {
            return;
        }
        if self.is_unheard(node) || self.is_unanswered(node) {
            return self.agenda.put(self.now_us + PAUSE_US, Event::Look(session));
        }
        let sight = self.coordination.sight();
        let at_us = self.now_us + self.way_us(self.network.coordination(), node);
        let looker = &mut self.coordination.sessions[session];
        looker.stirred = false;
        looker.seen_us = at_us.max(looker.seen_us + 1);
        let what = Inbound::Saw(session, Box::new(Told::Seen(sight)));
        self.agenda.put(looker.seen_us, Event::Node { node, life, what });
    }

    pub(crate) fn on_saw(&mut self, node: usize, session: SessionId, seen: Told) {
        if self.nodes[node].worker.session == Some(session) {
            self.member(node, seen);
        }
    }

    /// Says something else of a worker; nobody asks whether it was heard.
    pub(crate) fn update(&mut self, node: usize, member: Member) {
        let Some(session) = self.nodes[node].worker.session else { return };
        let intent = if self.nodes[node].worker.leaving { Intent::Leave } else { Intent::Stay };
        let after_us = self.way_us(node, self.network.coordination());
        self.agenda.put(self.now_us + after_us, Event::Update(session, Box::new(Member { intent, ..member })));
    }

    pub(crate) fn on_update(&mut self, session: SessionId, member: &Member) {
        let node = self.coordination.sessions[session].node;
        if !self.is_unheard(node) && self.coordination.update(member) {
            self.trace.say(self.now_us, || format!("coordination: process {node} says {:?}", member.intent));
            self.stir();
        }
    }
}
