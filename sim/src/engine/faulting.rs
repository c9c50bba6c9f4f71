//! Breaks things when the plan says so, and heals them all in the end.

use tine_trident::source::SourceIndex;

use super::{Engine, event::Event, node::Node};
use crate::{
    faults::{End, Kind},
    report::Took,
};

/// Which faults are in force, each by its place in the plan.
pub(crate) struct Forces {
    pub(crate) cut: Vec<Option<usize>>,
    pub(crate) slow: Vec<Option<usize>>,
    pub(crate) paused: Vec<Option<usize>>,
    pub(crate) duplicate: Option<usize>,
    pub(crate) delay: Option<usize>,
    pub(crate) reorder: Option<usize>,
    pub(crate) late_news: Option<usize>,
    pub(crate) coordination_down: Option<usize>,
    pub(crate) lost_coordination: Vec<Option<usize>>,
    pub(crate) lost_commit: Vec<Option<usize>>,
    pub(crate) abort: Vec<Option<usize>>,
    pub(crate) late: Vec<Option<usize>>,
    /// User failures so far: more than the retry budget would rightly halt the group.
    user_failures: u32,
}

impl Forces {
    pub(crate) fn new(ends: usize) -> Forces {
        let none = || vec![None; ends];
        Forces {
            cut: vec![None; ends * ends],
            slow: none(),
            paused: none(),
            duplicate: None,
            delay: None,
            reorder: None,
            late_news: None,
            coordination_down: None,
            lost_coordination: none(),
            lost_commit: none(),
            abort: none(),
            late: none(),
            user_failures: 0,
        }
    }
}

impl Engine<'_> {
    /// A fault has changed what happens; counted once, with the phase that it met first.
    pub(crate) fn took_effect(&mut self, index: usize) {
        if self.took[index].is_none() {
            let kind = self.plan.faults[index].kind;
            self.took[index] = Some(Took { kind: kind.number(), phase: self.phase });
            self.trace.mix(self.now_us, 0xFA ^ index as u64);
        }
    }

    fn place(&self, end: End) -> usize {
        match end {
            End::Node(node) => usize::from(node) % self.nodes.len(),
            End::Coordination => self.network.coordination(),
            End::Database => self.network.database(),
        }
    }

    fn target(&self, node: u8) -> usize {
        usize::from(node) % self.nodes.len()
    }

    pub(crate) fn fault_begins(&mut self, index: usize) {
        let fault = self.plan.faults[index];
        let kind = fault.kind;
        self.trace.say(self.now_us, || format!("FAULT: {fault}"));
        let until_us = (self.now_us + u64::from(fault.for_ms) * 1000).min(self.settings.faults_until_ms * 1000);
        match kind {
            Kind::Crash(node) => self.crash(self.target(node), index),
            Kind::Pause(node) => {
                let node = self.target(node);
                if self.nodes[node].up && !self.nodes[node].paused {
                    self.nodes[node].paused = true;
                    self.forces.paused[node] = Some(index);
                    self.check_idle_backends_of(node);
                    self.look_at_silence(node);
                }
            }
            Kind::Slow(node) => self.forces.slow[usize::from(node)] = Some(index),
            Kind::CutOneWay(from, to) => self.cut(from, to, Some(index)),
            Kind::Cut(from, to) => {
                self.cut(from, to, Some(index));
                self.cut(to, from, Some(index));
            }
            Kind::Duplicate => self.forces.duplicate = Some(index),
            Kind::Delay => self.forces.delay = Some(index),
            Kind::Reorder => self.forces.reorder = Some(index),
            Kind::Expire(node) => self.expire(self.target(node), index),
            Kind::LateNews => self.forces.late_news = Some(index),
            Kind::CoordinationDown => self.forces.coordination_down = Some(index),
            Kind::CoordinationWiped => {
                if !self.is_embedded() && self.coordination.standing.version.is_some() {
                    self.took_effect(index);
                    self.coordination.wipe();
                    self.end_all_sessions();
                }
            }
            Kind::CoordinationRestored(writes) => {
                if self.coordination.restore(usize::from(writes)) {
                    self.took_effect(index);
                    self.end_all_sessions();
                }
            }
            Kind::LostCoordinationReply(node) => self.forces.lost_coordination[usize::from(node)] = Some(index),
            Kind::LostCommitReply(node) => self.forces.lost_commit[usize::from(node)] = Some(index),
            Kind::SqlAbort(node) => self.forces.abort[usize::from(node)] = Some(index),
            Kind::LateStatement(node) => self.forces.late[usize::from(node)] = Some(index),
            Kind::LoseTail(count) => self.lose_tail(usize::from(count), index),
            Kind::DatabaseRestart => {
                self.took_effect(index);
                self.end_all_backends();
            }
            Kind::UserError | Kind::UserPanic => {
                if self.forces.user_failures < 2 {
                    self.forces.user_failures += 1;
                    self.trips.arm(index, kind == Kind::UserPanic);
                }
            }
            Kind::AddPartition | Kind::Truncate | Kind::Recreate => self.change_source(kind, index),
        }
        if fault.for_ms > 0 {
            self.agenda.put(until_us.max(self.now_us + 1), Event::Fault(index, false));
        }
    }

    pub(crate) fn fault_ends(&mut self, index: usize) {
        let over = |force: &mut Option<usize>| {
            if *force == Some(index) {
                *force = None;
            }
        };
        let forces = &mut self.forces;
        let lists = [
            &mut forces.cut,
            &mut forces.slow,
            &mut forces.lost_coordination,
            &mut forces.lost_commit,
            &mut forces.abort,
            &mut forces.late,
        ];
        lists.into_iter().flatten().for_each(over);
        for force in [
            &mut forces.duplicate,
            &mut forces.delay,
            &mut forces.reorder,
            &mut forces.late_news,
            &mut forces.coordination_down,
        ] {
            over(force);
        }
        for node in 0..self.nodes.len() {
            if self.forces.paused[node] == Some(index) {
                self.forces.paused[node] = None;
                self.trace.say(self.now_us, || format!("process {node} wakes up"));
                self.wake(node);
            }
            if let Kind::Crash(target) = self.plan.faults[index].kind
                && self.target(target) == node
            {
                self.restart(node);
            }
            self.look_at_silence(node);
        }
    }

    /// Ends every fault that is in force and starts what is down: from now on the world is kind.
    pub(crate) fn heal(&mut self) {
        self.trace.say(self.now_us, || "everything is healed".to_owned());
        for index in 0..self.plan.faults.len() {
            self.fault_ends(index);
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].paused {
                self.forces.paused[node] = None;
                self.wake(node);
            }
            self.restart(node);
            self.look_at_silence(node);
        }
        self.healed = true;
    }

    fn cut(&mut self, from: End, to: End, by: Option<usize>) {
        let (from, to) = (self.place(from), self.place(to));
        let link = self.network.link(from, to);
        self.forces.cut[link] = by;
        for node in [from, to] {
            if node < self.nodes.len() {
                self.look_at_silence(node);
            }
        }
    }

    fn crash(&mut self, node: usize, index: usize) {
        if !self.nodes[node].up {
            return;
        }
        self.took_effect(index);
        self.nodes[node].up = false;
        self.nodes[node].life += 1;
        self.nodes[node].paused = false;
        self.nodes[node].backlog.clear();
        self.forces.paused[node] = None;
        let mine = self.sql.backends.iter().filter(|(_, backend)| backend.owner.node == node);
        let mine: Vec<_> = mine.map(|(id, _)| *id).collect();
        mine.into_iter().for_each(|backend| self.abandon(backend));
        self.look_at_silence(node);
    }

    fn restart(&mut self, node: usize) {
        if self.nodes[node].up {
            return;
        }
        self.trace.say(self.now_us, || format!("process {node} starts again"));
        let (life, seed) = (self.nodes[node].life, self.draws.lives.bits());
        let silent_since_us = self.nodes[node].silent_since_us;
        self.nodes[node] = Node::new(node, life, seed, &self.built, self.settings, &self.split);
        self.nodes[node].silent_since_us = silent_since_us;
        self.start(node);
    }

    /// A sleeping client's transactions lie idle.
    fn check_idle_backends_of(&mut self, node: usize) {
        let at_us = self.now_us + self.settings.idle_timeout_ms * 1000;
        for (id, backend) in &self.sql.backends {
            if backend.owner.node == node && backend.tx.is_some() {
                self.agenda.put(at_us, Event::IdleCheck(*id));
            }
        }
    }

    fn expire(&mut self, node: usize, index: usize) {
        if self.is_embedded() {
            if self.end_lock_of(node) {
                self.took_effect(index);
            }
            return;
        }
        if let Some(session) = self.nodes[node].errands.session
            && self.coordination.sessions[session].alive
            && self.coordination.leader == Some(session)
        {
            self.took_effect(index);
            self.end_session(session);
        }
    }

    fn end_all_sessions(&mut self) {
        for session in 0..self.coordination.sessions.len() {
            if self.coordination.sessions[session].alive {
                self.end_session(session);
            }
        }
    }

    fn end_all_backends(&mut self) {
        let all: Vec<_> = self.sql.backends.keys().copied().collect();
        all.into_iter().for_each(|backend| self.end_backend(backend));
    }

    fn lose_tail(&mut self, count: usize, index: usize) {
        if self.sql.history.is_empty() {
            return;
        }
        self.took_effect(index);
        self.end_all_backends();
        let lost = self.sql.lose_tail(count);
        self.trace.say(self.now_us, || format!("the database has lost {lost} transactions"));
        self.checker.tail_lost(&self.sql);
        self.progress = self.progress.min(self.sql.complete().0);
    }

    fn change_source(&mut self, kind: Kind, index: usize) {
        let Some(source) = self.sources.first().cloned() else { return };
        let planned = |name: &str| self.checker.position(SourceIndex(0), name);
        let mut log = source.log();
        let changed = match kind {
            Kind::AddPartition => match log.partitions.iter_mut().find(|partition| !partition.exists) {
                Some(partition) => {
                    partition.exists = true;
                    true
                }
                None => false,
            },
            Kind::Truncate => {
                let partition = &mut log.partitions[0];
                let unread = planned(&partition.name) < partition.end;
                if unread {
                    partition.low = partition.end;
                }
                unread
            }
            _ => {
                log.partitions.iter_mut().for_each(|partition| partition.incarnation.push('x'));
                true
            }
        };
        drop(log);
        if changed {
            self.took_effect(index);
        }
    }
}
