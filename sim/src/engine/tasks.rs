//! Feeds the machines of a process and routes what they send: tuples, reports to ackers, calls.

use tine_core::{
    acker::{AckerEvent, Ended, TreeEnd},
    failure::Failure,
    id::{Attempt, Era, TaskId, TxId, WorkerId},
    membership,
    task::Effect,
    transport::Roots,
    tuple::{Root, Tuple},
};
use tine_trident::{
    committer::CommitterReply,
    coordinator::event::{Call, Reply},
    emitter::{EmitterReply, ReadReply},
    message::{Batches, Message, Note},
    stage_bolt::StageReply,
};

use super::{
    Engine,
    crew::Part,
    event::{Event, Inbound, Packet},
    node::Node,
};
use crate::{
    invariants::{
        invariant_an_attempt_is_of_one_crew, invariant_attempts_only_rise, invariant_nothing_begins_without_owners,
        invariant_stale_is_ignored, invariant_tasks_hear_their_own_era, invariant_tuples_find_their_task,
    },
    report::Phase,
};

impl Engine<'_> {
    /// Something arrives at a process. What was meant for an earlier life is lost, but packets may have waited in a
    /// transport and reach the next one.
    pub(crate) fn arrive(&mut self, node: usize, life: u32, what: Inbound) {
        let process = &mut self.nodes[node];
        let stale = process.life != life;
        if !process.up || (stale && !matches!(what, Inbound::Packet(..))) {
            return;
        }
        if stale && self.draws.lives.chance(50) {
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
        match what {
            Inbound::Packet(from, era, packet) => self.hear(node, from, era, packet),
            Inbound::Ended(root, end) => self.ended(node, root, end),
            Inbound::AckerTick => {
                self.report(node, AckerEvent::Tick);
                self.later(node, self.settings.message_timeout_ms * 250, Inbound::AckerTick);
            }
            // Work for tasks that are gone comes to nothing.
            Inbound::Read(crew, ..) | Inbound::Staged(crew, ..) | Inbound::Folded(crew, _)
                if self.nodes[node].crew.as_ref().is_none_or(|now| now.id != crew) => {}
            Inbound::Read(_, nth, call) => self.read(node, nth, &call),
            Inbound::Staged(_, nth, reply) => self.stage_reply(node, nth, reply),
            Inbound::Folded(_, reply) => self.committer_reply(node, reply),
            Inbound::Sql { lane, sent, answer, drop } => self.on_answer(node, lane, sent, answer, drop),
            Inbound::Opened { nonce, session } => self.on_opened(node, nonce, session),
            Inbound::Elected { nonce } => self.on_elected(node, nonce),
            Inbound::Answered { asked, answer } => self.on_answered(node, asked, answer),
            Inbound::Lost(nonce, failure) => self.coordinator_reply(node, Reply::Lost(nonce, failure)),
            Inbound::Campaign(failed) => self.on_campaign(node, failed),
            Inbound::Bounds { attempt, positions } => self.on_bounds(node, attempt, &positions),
            Inbound::Woke => self.coordinator_reply(node, Reply::Woke),
            Inbound::Member(event) => self.member(node, *event),
            Inbound::Saw(session, event) => self.on_saw(node, session, *event),
            Inbound::Reigns => self.reigns(node),
            Inbound::Told(reply, rewire) => self.on_told(node, *reply, rewire),
            Inbound::Registered(worker, session) => self.on_registered(node, worker, session),
            Inbound::Unregistered(session) => self.on_unregistered(node, session),
            Inbound::Changed(session) => self.on_changed(node, session),
            Inbound::Broke(peer, number) => self.on_broke(node, peer, number),
            Inbound::Relieved => self.on_relieved(node),
        }
    }

    /// A packet has come: as the production ear takes it, tuples and reports of another era are for tasks that are gone.
    fn hear(&mut self, node: usize, from: WorkerId, era: Era, packet: Packet) {
        if matches!(packet, Packet::Ready) {
            return self.member(node, membership::Event::Ready(from, era));
        }
        let Some(crew) = &self.nodes[node].crew else { return };
        if !crew.era.hears(era) {
            return;
        }
        let (own, leads) = (crew.era, crew.leads());
        self.check(invariant_tasks_hear_their_own_era(era, own));
        match packet {
            Packet::Tuple(to, tuple) => self.tuple(node, to, tuple),
            Packet::Report(report) if leads => self.report(node, report),
            Packet::Report(_) | Packet::Ready => {}
        }
    }

    fn tuple(&mut self, node: usize, to: TaskId, tuple: Tuple<Message>) {
        let now_ms = self.now_ms();
        let Some(crew) = &mut self.nodes[node].crew else { return };
        match crew.part(to) {
            Some(Part::Emitter(nth)) => {
                let emitter = &mut crew.emitters[nth].bolt;
                let before = emitter.bolt().attempt();
                let effects = emitter.tuple(now_ms, tuple);
                let after = emitter.bolt().attempt();
                self.check(invariant_attempts_only_rise(before, after));
                self.effects(node, effects, |engine, call| engine.queue_read(node, nth, call));
            }
            Some(Part::Stage(nth)) => {
                let stage = &mut crew.stages[nth].bolt;
                let before = stage.bolt().attempt();
                let effects = stage.tuple(now_ms, tuple);
                let after = stage.bolt().attempt();
                self.check(invariant_attempts_only_rise(before, after));
                self.effects(node, effects, |engine, call| engine.run_stages(node, nth, call));
            }
            Some(Part::Committer) => {
                let Some(committer) = &mut crew.committer else { return };
                let before = committer.bolt().attempt();
                let effects = committer.tuple(now_ms, tuple);
                let after = committer.bolt().attempt();
                self.check(invariant_attempts_only_rise(before, after));
                self.effects(node, effects, |engine, call| engine.perform_committer(node, call));
            }
            None => self.check(invariant_tuples_find_their_task(to, false)),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_us / 1000
    }

    /// A process begins its life.
    pub(crate) fn start(&mut self, node: usize) {
        let tick_us = self.settings.message_timeout_ms * 250;
        self.later(node, tick_us, Inbound::AckerTick);
        match self.is_embedded() {
            true => self.work_alone(node),
            false => self.register(node),
        }
        let now_ms = self.now_ms();
        let effects = self.nodes[node].leader.open(now_ms);
        self.coordinator_effects(node, effects);
    }

    fn ended(&mut self, node: usize, root: Root, end: TreeEnd<Note>) {
        let now_ms = self.now_ms();
        let before = self.nodes[node].leader.spout().leading();
        let of = self.homes.get(&root).copied();
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

    pub(crate) fn emitter_reply(&mut self, node: usize, nth: usize, reply: ReadReply) {
        let now_ms = self.now_ms();
        let Some(crew) = &mut self.nodes[node].crew else { return };
        let effects = crew.emitters[nth].bolt.reply(now_ms, EmitterReply::Read(reply));
        self.effects(node, effects, |engine, call| engine.queue_read(node, nth, call));
    }

    fn stage_reply(&mut self, node: usize, nth: usize, reply: StageReply) {
        let now_ms = self.now_ms();
        let Some(crew) = &mut self.nodes[node].crew else { return };
        let effects = crew.stages[nth].bolt.reply(now_ms, reply);
        self.effects(node, effects, |engine, call| engine.run_stages(node, nth, call));
    }

    pub(crate) fn committer_reply(&mut self, node: usize, reply: CommitterReply) {
        let now_ms = self.now_ms();
        let Some(committer) = self.nodes[node].crew.as_mut().and_then(|crew| crew.committer.as_mut()) else { return };
        let effects = committer.reply(now_ms, reply);
        self.effects(node, effects, |engine, call| engine.perform_committer(node, call));
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
                        self.homes.insert(anchor.root, attempt);
                    }
                    self.say_sent(node, attempt, &tuple);
                    if self.is_wired(node) {
                        self.route(node, to, tuple);
                    }
                }
                Effect::Acker(report) if self.is_wired(node) => self.report(node, report),
                // Its tasks are gone, and others have not come yet.
                Effect::Acker(AckerEvent::Start { root, .. }) => {
                    let gone = Failure::transient("the tasks are gone");
                    self.later(node, 10, Inbound::Ended(root, TreeEnd::Failed(gone)));
                }
                Effect::Acker(_) => {}
                Effect::Call(call) => self.perform(node, call),
            }
        }
    }

    /// Routes what a task sends and reports, and performs what it calls for.
    fn effects<C>(&mut self, node: usize, effects: Vec<Effect<Batches, C>>, perform: impl Fn(&mut Self, C)) {
        for effect in effects {
            match effect {
                Effect::Send { to, tuple } => self.route(node, to, tuple),
                Effect::Acker(report) => self.send_report(node, report),
                Effect::Call(call) => perform(self, call),
            }
        }
    }

    /// Whether the crew that the coordinator knows is the one that is here.
    fn is_wired(&self, node: usize) -> bool {
        let Node { crew, wired, .. } = &self.nodes[node];
        wired.is_some() && crew.as_ref().map(|crew| crew.id) == *wired
    }

    /// Sends a tuple to the worker of its task; what cannot be sent has failed.
    fn route(&mut self, from: usize, task: TaskId, tuple: Tuple<Message>) {
        let Some(home) = self.nodes[from].crew.as_ref().and_then(|crew| crew.home(task)) else { return };
        let roots: Roots = tuple.anchors.iter().map(|anchor| anchor.root).collect();
        if !self.send(from, home, Packet::Tuple(task, tuple)) {
            self.fail(from, &roots, &format!("{task} is not reached"));
        }
    }

    /// Reports that trees have failed.
    pub(crate) fn fail(&mut self, from: usize, roots: &[Root], why: &str) {
        for root in roots {
            self.send_report(from, AckerEvent::Fail { root: *root, failure: Failure::transient(why) });
        }
    }

    /// Reports to the acker of whoever leads. Where that cannot be reached it knows so.
    fn send_report(&mut self, from: usize, report: AckerEvent<Note>) {
        match self.nodes[from].crew.as_ref().map(|crew| (crew.leads(), crew.leader)) {
            Some((true, _)) => self.report(from, report),
            Some((false, leader)) => drop(self.send(from, leader, Packet::Report(report))),
            None => {}
        }
    }

    fn report(&mut self, node: usize, report: AckerEvent<Note>) {
        let Some(crew) = &mut self.nodes[node].crew else { return };
        for Ended { root, end, .. } in crew.acker.step(report) {
            if self.settings.mute_acker && matches!(end, TreeEnd::Complete(_)) {
                continue;
            }
            self.later(node, 10, Inbound::Ended(root, end));
        }
    }

    fn say_sent(&mut self, node: usize, attempt: Attempt, tuple: &Tuple<Message>) {
        self.note_emitted(node, attempt, &tuple.message);
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

    /// What is emitted in one attempt goes to one crew.
    fn note_emitted(&mut self, node: usize, attempt: Attempt, message: &Message) {
        let crew = self.nodes[node].wired.unwrap_or_default();
        let txid = match message {
            Message::Emit { plan, .. } => plan.txid,
            _ => TxId::NONE,
        };
        let owned = self.nodes[node].worker.owned == Some(attempt.nonce);
        if !self.is_embedded() {
            self.check(invariant_nothing_begins_without_owners(attempt, owned));
        }
        let before = self.nodes[node].emitted.filter(|(before, ..)| *before == attempt);
        if let Some((_, other, _)) = before {
            self.check(invariant_an_attempt_is_of_one_crew(attempt, other == crew));
        }
        let up_to = before.map_or(txid, |(.., up_to)| up_to.max(txid));
        self.nodes[node].emitted = Some((attempt, crew, up_to));
    }

    /// Lets what came while a process slept come now, in order.
    pub(crate) fn wake(&mut self, node: usize) {
        self.nodes[node].paused = false;
        let backlog = std::mem::take(&mut self.nodes[node].backlog);
        let life = self.nodes[node].life;
        for (index, what) in backlog.into_iter().enumerate() {
            self.agenda.put(self.now_us + index as u64, Event::Node { node, life, what });
        }
    }
}
