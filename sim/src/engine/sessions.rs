//! How sessions and the embedded mode's lock end: by silence, by the server, by faults; and how their clients hear of it.

use tine_core::{failure::Failure, id::Nonce};

use super::{
    Engine,
    event::{Errand, Event, Inbound},
};
use crate::sql::BackendId;

/// The number under which [`Event::Expire`] names a process's lock instead of a session.
const LOCKS: usize = usize::MAX / 2;

/// In [`Event::Expire`]: a session that its client has let go of.
pub(super) const ABANDONED: u64 = u64::MAX;

impl Engine<'_> {
    /// Looks whether the one who decides hears of a process; if not, its session or lock ends after a while.
    pub(crate) fn look_at_silence(&mut self, node: usize) {
        let decider = self.decider();
        let (there, back) = (self.network.link(node, decider), self.network.link(decider, node));
        let cut = self.forces.cut[there].is_some() || self.forces.cut[back].is_some();
        // A sleeping process keeps its file lock.
        let asleep = self.nodes[node].paused && !self.is_embedded();
        let silent = cut || asleep || !self.nodes[node].up;
        match (silent, self.nodes[node].silent_since_us) {
            (true, None) => {
                self.nodes[node].silent_since_us = Some(self.now_us);
                if self.is_embedded() {
                    return self.watch_session(LOCKS + node, self.now_us);
                }
                for session in 0..self.coordination.sessions.len() {
                    let one = &self.coordination.sessions[session];
                    if one.alive && one.node == node {
                        self.watch_session(session, self.now_us);
                    }
                }
            }
            (false, Some(_)) => self.nodes[node].silent_since_us = None,
            _ => {}
        }
    }

    pub(crate) fn watch_session(&mut self, session: usize, since_us: u64) {
        let at_us = self.now_us + self.settings.session_timeout_ms * 1000;
        self.agenda.put(at_us, Event::Expire { session, since_us });
    }

    pub(crate) fn on_expire(&mut self, session: usize, since_us: u64) {
        if session >= LOCKS {
            let node = session - LOCKS;
            if self.nodes[node].silent_since_us == Some(since_us) {
                self.end_lock_of(node);
            }
            return;
        }
        let one = &self.coordination.sessions[session];
        let dead = self.nodes[one.node].life != one.life || since_us == ABANDONED;
        if !one.alive || !(dead || self.nodes[one.node].silent_since_us == Some(since_us)) {
            return;
        }
        // While it is down its clock stands still.
        if self.forces.coordination_down.is_some() {
            return self.watch_session(session, since_us);
        }
        self.end_session(session);
    }

    /// The server ends a session; its client hears of it sooner or later.
    pub(crate) fn end_session(&mut self, session: usize) {
        let (node, life) = (self.coordination.sessions[session].node, self.coordination.sessions[session].life);
        let nonce = self.coordination.sessions[session].nonce;
        if !self.coordination.end(session) {
            return;
        }
        let Some(nonce) = nonce else {
            self.trace.say(self.now_us, || format!("coordination ends the registration of process {node}"));
            let at_us = self.now_us + 1_000 + self.late_news_us();
            self.agenda.put(at_us, Event::Node { node, life, what: Inbound::Unregistered(session) });
            return self.stir();
        };
        self.trace.say(self.now_us, || format!("coordination ends the session of process {node}"));
        self.tell_lost(node, life, nonce, "the session has ended");
        if self.nodes[node].life == life
            && matches!(self.nodes[node].errands.busy, Some(Errand::Campaign))
            && self.nodes[node].errands.session == Some(session)
        {
            self.campaign_again(node);
        }
        self.elect();
    }

    fn tell_lost(&mut self, node: usize, life: u32, nonce: Nonce, why: &str) {
        let after_us = 1_000 + self.late_news_us();
        let what = Inbound::Lost(nonce, Failure::transient(why));
        self.agenda.put(self.now_us + after_us, Event::Node { node, life, what });
    }

    /// Embedded: the database ends the connection that holds the lock, if it is this process's.
    pub(crate) fn end_lock_of(&mut self, node: usize) -> bool {
        let Some(lock) = self.exclusive else { return false };
        let mine = self.sql.backends.get(&lock).is_some_and(|backend| backend.owner.node == node);
        if mine {
            self.end_backend(lock);
        }
        mine
    }

    /// A backend has ended: if it held the lock, that is free, and its process hears of it.
    pub(crate) fn lock_freed(&mut self, backend: BackendId) {
        if self.exclusive != Some(backend) {
            return;
        }
        self.exclusive = None;
        for node in 0..self.nodes.len() {
            if self.nodes[node].errands.lock == Some(backend) {
                let errands = &self.nodes[node].errands;
                let campaigns = matches!(errands.busy, Some(Errand::Campaign));
                let nonce = if campaigns { errands.campaigning } else { errands.nonce };
                self.tell_lost(node, self.nodes[node].life, nonce, "the lock's connection was lost");
            }
        }
    }
}
