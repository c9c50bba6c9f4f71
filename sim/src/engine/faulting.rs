//! Breaks things when the plan says so, and heals them all in the end.

use tine_trident::source::SourceIndex;

use super::{Engine, event::Event, node::Node, workers::Worker};
use crate::{
    faults::{End, Kind},
    report::Took,
    source::SimSource,
    sql::BackendId,
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
    pub(crate) lost_news: Option<usize>,
    pub(crate) coordination_down: Option<usize>,
    pub(crate) source_down: Option<usize>,
    pub(crate) short_polls: Option<usize>,
    pub(crate) lost_coordination: Vec<Option<usize>>,
    pub(crate) lost_commit: Vec<Option<usize>>,
    pub(crate) abort: Vec<Option<usize>>,
    pub(crate) late: Vec<Option<usize>>,
    pub(crate) sql_state: Vec<Option<usize>>,
    pub(crate) die_in_commit: Vec<Option<usize>>,
    pub(crate) left: Vec<Option<usize>>,
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
            lost_news: None,
            coordination_down: None,
            source_down: None,
            short_polls: None,
            lost_coordination: none(),
            lost_commit: none(),
            abort: none(),
            late: none(),
            sql_state: none(),
            die_in_commit: none(),
            left: none(),
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

    fn place(&self, end: End, index: usize) -> usize {
        match end {
            End::Node(node) => self.target(node, index),
            End::Coordination => self.network.coordination(),
            End::Database => self.network.database(),
        }
    }

    /// The process that a fault names.
    pub(crate) fn target(&self, node: u8, index: usize) -> usize {
        match node {
            Kind::WHOEVER => self.points.who(index).or_else(|| self.leader()).unwrap_or(0),
            node => usize::from(node) % self.nodes.len(),
        }
    }

    /// Who leads: of several that believe it, the one that coordination knows. Sleepers do not lead.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |node: &Node| node.up && !node.paused && node.leader.spout().leading().is_some();
        let known = self.coordination.leader.map(|session| self.coordination.sessions[session].node);
        known.filter(|node| leads(&self.nodes[*node])).or_else(|| self.nodes.iter().position(leads))
    }

    pub(crate) fn fault_begins(&mut self, index: usize) {
        let fault = self.plan.faults[index];
        let kind = fault.kind;
        if self.healed {
            return;
        }
        self.trace.say(self.now_us, || format!("FAULT: {fault}"));
        if let Some(leader) = self.leader() {
            self.points.noted(index, leader);
        }
        let until_us = self.now_us + u64::from(fault.for_ms) * 1000;
        match kind {
            Kind::Crash(node) => self.crash(self.target(node, index), index),
            Kind::Pause(node) => {
                let node = self.target(node, index);
                if self.nodes[node].up && !self.nodes[node].paused {
                    self.nodes[node].paused = true;
                    self.forces.paused[node] = Some(index);
                    let unheard_us = self.settings.session_timeout_ms * 1000 + self.draws.lives.below(75_000);
                    self.agenda.put(self.now_us + unheard_us, Event::Unheard(node, index));
                    self.check_idle_backends_of(node);
                    self.look_at_silence(node);
                }
            }
            Kind::Slow(node) => {
                let node = self.target(node, index);
                self.forces.slow[node] = Some(index);
            }
            Kind::CutOneWay(from, to) => self.cut(from, to, index),
            Kind::Cut(from, to) => {
                self.cut(from, to, index);
                self.cut(to, from, index);
            }
            Kind::Duplicate => self.forces.duplicate = Some(index),
            Kind::Delay => self.forces.delay = Some(index),
            Kind::Reorder => self.forces.reorder = Some(index),
            Kind::Expire(node) => self.expire(self.target(node, index), index),
            Kind::LeaderChange => {
                if let Some(leader) = self.leader() {
                    self.expire(leader, index);
                }
            }
            Kind::Restart(node) => self.restart_in_order(self.target(node, index), index),
            Kind::Leave(node) => self.leave(self.target(node, index), index),
            Kind::Reassign => self.reassign(index),
            Kind::LateNews => self.forces.late_news = Some(index),
            Kind::LostNews => self.forces.lost_news = Some(index),
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
            Kind::LostCoordinationReply(node) => {
                let node = self.target(node, index);
                self.forces.lost_coordination[node] = Some(index);
            }
            Kind::LostCommitReply(node) => {
                let node = self.target(node, index);
                self.forces.lost_commit[node] = Some(index);
            }
            Kind::SqlAbort(node) => {
                let node = self.target(node, index);
                self.forces.abort[node] = Some(index);
            }
            Kind::SqlState(node, _) => {
                let node = self.target(node, index);
                self.forces.sql_state[node] = Some(index);
            }
            Kind::LateStatement(node) => {
                let node = self.target(node, index);
                self.forces.late[node] = Some(index);
            }
            Kind::CrashInCommit(node) => {
                let node = self.target(node, index);
                self.forces.die_in_commit[node] = Some(index);
            }
            Kind::SourceDown => {
                self.forces.source_down = Some(index);
                self.tell_sources();
            }
            Kind::ShortPolls => {
                self.forces.short_polls = Some(index);
                self.tell_sources();
            }
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
            &mut forces.sql_state,
            &mut forces.die_in_commit,
        ];
        lists.into_iter().flatten().for_each(over);
        for force in [
            &mut forces.duplicate,
            &mut forces.delay,
            &mut forces.reorder,
            &mut forces.late_news,
            &mut forces.lost_news,
            &mut forces.coordination_down,
            &mut forces.source_down,
            &mut forces.short_polls,
        ] {
            over(force);
        }
        self.tell_sources();
        for node in 0..self.nodes.len() {
            if self.forces.paused[node] == Some(index) {
                self.forces.paused[node] = None;
                self.trace.say(self.now_us, || format!("process {node} wakes up"));
                self.wake(node);
            }
            if let Kind::Crash(target) | Kind::Restart(target) | Kind::CrashInCommit(target) =
                self.plan.faults[index].kind
                && self.target(target, index) == node
            {
                self.restart(node);
            }
            self.look_at_silence(node);
        }
        self.join(index);
    }

    /// Says to the sources which faults are in force.
    fn tell_sources(&mut self) {
        let (down, short) = (self.forces.source_down.is_some(), self.forces.short_polls.is_some());
        self.sources.iter().for_each(|source| source.suffer(down, short));
    }

    /// After a source was asked: whether a fault was felt.
    pub(crate) fn look_whether_sources_suffered(&mut self) {
        for fault in [self.forces.source_down, self.forces.short_polls].into_iter().flatten() {
            if self.sources.iter().any(SimSource::has_suffered) {
                self.took_effect(fault);
            }
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
        self.deadline_us = self.now_us + self.settings.drained_within_ms * 1000;
    }

    fn cut(&mut self, from: End, to: End, by: usize) {
        let (from, to) = (self.place(from, by), self.place(to, by));
        let link = self.network.link(from, to);
        self.forces.cut[link] = Some(by);
        for node in [from, to] {
            if node < self.nodes.len() {
                self.look_at_silence(node);
            }
        }
        if from.max(to) < self.nodes.len() && from != to && self.break_between(from, to, true) {
            self.took_effect(by);
        }
    }

    pub(crate) fn crash(&mut self, node: usize, index: usize) {
        if !self.nodes[node].up {
            return;
        }
        self.took_effect(index);
        self.leave_life(node).into_iter().for_each(|backend| self.abandon(backend));
        self.look_at_silence(node);
    }

    /// Ends a process's life, its memory with it; answers with the backends that it leaves behind.
    pub(crate) fn leave_life(&mut self, node: usize) -> Vec<BackendId> {
        self.break_all(node);
        self.nodes[node].up = false;
        self.nodes[node].life += 1;
        self.nodes[node].paused = false;
        self.nodes[node].backlog.clear();
        self.forces.paused[node] = None;
        let mine = self.sql.backends.iter().filter(|(_, backend)| backend.owner.node == node);
        mine.map(|(id, _)| *id).collect()
    }

    pub(crate) fn restart(&mut self, node: usize) {
        if self.nodes[node].up || self.forces.left[node].is_some() {
            return;
        }
        self.trace.say(self.now_us, || format!("process {node} starts again"));
        let (life, seed) = (self.nodes[node].life, self.draws.lives.bits());
        let silent_since_us = self.nodes[node].silent_since_us;
        let worker = Worker::new(self.common());
        self.nodes[node] = Node::new(life, seed, &self.built, &self.settings, worker);
        self.nodes[node].silent_since_us = silent_since_us;
        self.look_at_silence(node);
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
        let planned = |name: &str| self.checker.position(&self.sql, SourceIndex(0), name);
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
