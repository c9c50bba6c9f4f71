//! Feeds the machines of a process and routes what they send: tuples, reports to ackers, calls.

use tine_core::{
    acker::{AckerEvent, Ended, TreeEnd},
    id::{Attempt, TaskId},
    task::Effect,
    tuple::{Root, Tuple},
};
use tine_trident::{
    committer::{CommitterCall, CommitterReply},
    coordinator::event::{Call, Reply},
    emitter::{EmitterReply, ReadCall, ReadReply},
    message::{Batches, Message, Note},
    stage_bolt::{StageCall, StageReply},
};

use super::{
    Engine,
    event::{Event, Inbound, Packet},
    node::{TASKS_PER_NODE, node_of},
};
use crate::{
    invariants::{invariant_attempts_only_rise, invariant_stale_is_ignored},
    report::Phase,
};

impl Engine<'_> {
    /// Something arrives at a process. What was meant for an earlier life is lost, but packets may have waited in a
    /// transport and reach the next one.
    pub(crate) fn arrive(&mut self, node: usize, life: u32, what: Inbound) {
        let process = &mut self.nodes[node];
        let stale = process.life != life;
        if !process.up || (stale && !matches!(what, Inbound::Packet(_))) {
            return;
        }
        if stale && (self.members.since(node) > life || self.draws.lives.chance(50)) {
            return;
        }
        if self.nodes[node].paused {
            if let Some(fault) = self.forces.paused.get(node).copied().flatten() {
                self.took_effect(fault);
            }
            return self.nodes[node].backlog.push(what);
        }
        self.handle(node, what);
    }

    fn handle(&mut self, node: usize, what: Inbound) {
        let now_ms = self.now_ms();
        match what {
            Inbound::Packet(Packet::ToEmitter(tuple)) => {
                let before = self.nodes[node].emitter.bolt().attempt();
                let effects = self.nodes[node].emitter.tuple(now_ms, tuple);
                self.check(invariant_attempts_only_rise(before, self.nodes[node].emitter.bolt().attempt()));
                self.emitter_effects(node, effects);
            }
            Inbound::Packet(Packet::ToStage(level, tuple)) => {
                let before = self.nodes[node].stages[level].bolt().attempt();
                let effects = self.nodes[node].stages[level].tuple(now_ms, tuple);
                self.check(invariant_attempts_only_rise(before, self.nodes[node].stages[level].bolt().attempt()));
                self.stage_effects(node, level, effects);
            }
            Inbound::Packet(Packet::ToCommitter(tuple)) => {
                let before = self.nodes[node].committer.bolt().attempt();
                let effects = self.nodes[node].committer.tuple(now_ms, tuple);
                self.check(invariant_attempts_only_rise(before, self.nodes[node].committer.bolt().attempt()));
                self.committer_effects(node, effects);
            }
            Inbound::Packet(Packet::Report(report)) => self.report(node, report),
            Inbound::Ended(root, end) => self.ended(node, root, end),
            Inbound::AckerTick => {
                self.report(node, AckerEvent::Tick);
                self.later(node, self.settings.message_timeout_ms * 250, Inbound::AckerTick);
            }
            Inbound::Read(call) => self.read(node, &call),
            Inbound::Staged(level, reply) => self.stage_reply(node, level, reply),
            Inbound::Folded(reply) => self.committer_reply(node, reply),
            Inbound::Sql { lane, sent, answer, drop } => self.on_answer(node, lane, sent, answer, drop),
            Inbound::Opened { nonce, session } => self.on_opened(node, nonce, session),
            Inbound::Elected { nonce } => self.on_elected(node, nonce),
            Inbound::Answered { asked, answer } => self.on_answered(node, asked, answer),
            Inbound::Lost(nonce, failure) => self.coordinator_reply(node, Reply::Lost(nonce, failure)),
            Inbound::Campaign(failed) => self.on_campaign(node, failed),
            Inbound::Bounds { attempt, positions } => self.on_bounds(node, attempt, &positions),
            Inbound::Woke => self.coordinator_reply(node, Reply::Woke),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_us / 1000
    }

    /// A process begins its life.
    pub(crate) fn start(&mut self, node: usize) {
        let tick_us = self.settings.message_timeout_ms * 250;
        self.later(node, tick_us, Inbound::AckerTick);
        let now_ms = self.now_ms();
        let effects = self.nodes[node].leader.open(now_ms);
        self.coordinator_effects(node, effects);
    }

    fn ended(&mut self, node: usize, root: Root, end: TreeEnd<Note>) {
        let now_ms = self.now_ms();
        let before = self.nodes[node].leader.spout().leading();
        let of = self.homes.get(&root).map(|(_, attempt)| *attempt);
        let effects = self.nodes[node].leader.ended(now_ms, root, end);
        if of != before {
            self.check(invariant_stale_is_ignored(of, before, self.nodes[node].leader.spout().leading()));
        }
        self.coordinator_effects(node, effects);
    }

    pub(crate) fn coordinator_reply(&mut self, node: usize, reply: Reply) {
        let now_ms = self.now_ms();
        let effects = self.nodes[node].leader.reply(now_ms, reply);
        self.coordinator_effects(node, effects);
    }

    pub(crate) fn emitter_reply(&mut self, node: usize, reply: ReadReply) {
        let now_ms = self.now_ms();
        let effects = self.nodes[node].emitter.reply(now_ms, EmitterReply::Read(reply));
        self.emitter_effects(node, effects);
    }

    fn stage_reply(&mut self, node: usize, level: usize, reply: StageReply) {
        let now_ms = self.now_ms();
        let effects = self.nodes[node].stages[level].reply(now_ms, reply);
        self.stage_effects(node, level, effects);
    }

    pub(crate) fn committer_reply(&mut self, node: usize, reply: CommitterReply) {
        let now_ms = self.now_ms();
        let effects = self.nodes[node].committer.reply(now_ms, reply);
        self.committer_effects(node, effects);
    }

    fn coordinator_effects(&mut self, node: usize, effects: Vec<Effect<Batches, Call>>) {
        for effect in effects {
            match effect {
                Effect::Send { to, tuple } => {
                    let attempt = match &tuple.message {
                        Message::Emit { attempt, .. } => *attempt,
                        Message::Commit(command) => command.attempt,
                        _ => Attempt::NONE,
                    };
                    for anchor in &tuple.anchors {
                        self.homes.insert(anchor.root, (node, attempt));
                    }
                    self.say_sent(node, &tuple);
                    self.route(node, to, tuple);
                }
                Effect::Acker(report) => self.report(node, report),
                Effect::Call(call) => self.perform(node, call),
            }
        }
    }

    fn emitter_effects(&mut self, node: usize, effects: Vec<Effect<Batches, ReadCall>>) {
        for effect in effects {
            match effect {
                Effect::Send { to, tuple } => self.route(node, to, tuple),
                Effect::Acker(report) => self.send_report(node, report),
                Effect::Call(call) => self.queue_read(node, call),
            }
        }
    }

    fn stage_effects(&mut self, node: usize, level: usize, effects: Vec<Effect<Batches, StageCall>>) {
        for effect in effects {
            match effect {
                Effect::Send { to, tuple } => self.route(node, to, tuple),
                Effect::Acker(report) => self.send_report(node, report),
                Effect::Call(call) => self.run_stages(node, level, call),
            }
        }
    }

    fn committer_effects(&mut self, node: usize, effects: Vec<Effect<Batches, CommitterCall>>) {
        for effect in effects {
            match effect {
                Effect::Send { to, tuple } => self.route(node, to, tuple),
                Effect::Acker(report) => self.send_report(node, report),
                Effect::Call(call) => self.perform_committer(node, call),
            }
        }
    }

    fn route(&mut self, from: usize, task: TaskId, tuple: Tuple<Message>) {
        let (to, level) = node_of(task);
        let packet = match (level, task.0 % TASKS_PER_NODE) {
            (Some(level), _) => Packet::ToStage(level, tuple),
            (None, 1) => Packet::ToEmitter(tuple),
            (None, _) => Packet::ToCommitter(tuple),
        };
        self.send(from, to, packet);
    }

    /// Reports to the acker of the process whose coordinator started the tree.
    fn send_report(&mut self, from: usize, report: AckerEvent<Note>) {
        let root = match &report {
            AckerEvent::Start { root, .. } | AckerEvent::Ack { root, .. } | AckerEvent::Fail { root, .. } => *root,
            AckerEvent::Alive { .. } | AckerEvent::Tick => return,
        };
        match self.homes.get(&root).copied() {
            Some((home, _)) if home == from => self.report(from, report),
            Some((home, _)) => self.send(from, home, Packet::Report(report)),
            None => {}
        }
    }

    fn report(&mut self, node: usize, report: AckerEvent<Note>) {
        for Ended { root, end, .. } in self.nodes[node].acker.step(report) {
            if self.settings.mute_acker && matches!(end, TreeEnd::Complete(_)) {
                continue;
            }
            self.later(node, 10, Inbound::Ended(root, end));
        }
    }

    fn say_sent(&mut self, node: usize, tuple: &Tuple<Message>) {
        match &tuple.message {
            Message::Emit { attempt, plan } => {
                let txid = plan.txid;
                if !matches!(self.phase, Phase::Preparing | Phase::Committing) {
                    self.enter(Phase::Emitting);
                }
                self.trace.say(self.now_us, || format!("process {node} emits transaction {txid}, attempt {attempt}"));
            }
            Message::Commit(command) => {
                let (txid, attempt) = (command.txid, command.attempt);
                self.enter(Phase::Committing);
                self.trace.say(self.now_us, || {
                    format!("process {node} tells to commit transaction {txid}, attempt {attempt}")
                });
            }
            _ => {}
        }
    }

    /// Lets what came while a process slept come now, in order.
    pub(crate) fn wake(&mut self, node: usize) {
        self.nodes[node].paused = false;
        let mut backlog = std::mem::take(&mut self.nodes[node].backlog);
        let life = self.nodes[node].life;
        if self.members.is_behind(node) {
            // Its connections to the others were ended when shards moved.
            backlog.retain(|what| !matches!(what, Inbound::Packet(_)));
            let after_us = self.draws.lives.between(1_000, 40_000);
            self.agenda.put(self.now_us + after_us, Event::CatchUp(node));
        }
        for (index, what) in backlog.into_iter().enumerate() {
            self.agenda.put(self.now_us + index as u64, Event::Node { node, life, what });
        }
    }
}
