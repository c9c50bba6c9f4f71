//! One step of a model while it is taken: what arrives or goes wrong, and what follows from it at once.

use std::collections::VecDeque;

use tine_core::{
    acker::{AckerEvent, Ended, TreeEnd},
    failure::{Failure, FailureKind},
    id::Nonce,
    task::Effect,
    tuple::{Root, Tuple},
};
use tine_state::{Reply as SqlReply, Statement};
use tine_trident::{
    committer::{CommitterCall, CommitterReply},
    coordinator::event::{Call, Elected, Reply},
    emitter::{EmitterReply, ReadCall, ReadReply},
    message::{Batches, Message, Note},
};

use super::{
    coordination::Write,
    process::{COMMITS, Job, LEADER, Process, Role, task},
    records::{bounds, fold, read},
    scene::{Action, Kind, Scene},
    world::{LINEAGE, World},
};

/// When wishes to be woken come true: never early.
const LATE_MS: u64 = 1 << 40;

/// What follows at once from something else, in order.
pub(crate) enum Then {
    Arrive(Tuple<Message>, usize, Role),
    Report(AckerEvent<Note>),
    Ended(usize, Root, TreeEnd<Note>),
    Reply(usize, Reply),
    Woke(usize),
    ReadDone(usize, ReadReply),
    Committer(usize, CommitterReply),
    Send(usize, usize, Statement),
    Answer(usize, usize, Result<SqlReply, Failure>),
}

/// One step while it is taken.
pub(crate) struct Run<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) scene: &'a Scene,
    pub(crate) then: VecDeque<Then>,
}

impl Run<'_> {
    pub(crate) fn process(&mut self, index: usize) -> &mut Process {
        &mut self.world.processes[index]
    }

    pub(crate) fn break_off(&mut self, what: impl Into<String>) {
        self.world.broken.get_or_insert(what.into());
    }

    pub(crate) fn act(&mut self, action: Action) {
        match action {
            Action::Elect(index) => self.elect(index),
            Action::News(index) => {
                let process = self.process(index);
                let nonce = std::mem::take(&mut process.nonce);
                self.then
                    .push_back(Then::Reply(index, Reply::Lost(nonce, Failure::transient("the session has ended"))));
            }
            Action::Forget => self.world.coordination.change().leader = None,
            Action::Deliver(from) => {
                if let Some(tuple) = self.world.links[from].change().pop_front() {
                    let role =
                        if matches!(tuple.message, Message::Emit { .. }) { Role::Emitter } else { Role::Committer };
                    self.then.push_back(Then::Arrive(tuple, 1 - from, role));
                }
            }
            Action::Execute(id) => self.execute(id),
            Action::EndHolders(id) => {
                for holder in self.world.database.holders(id) {
                    self.end(holder);
                }
            }
            Action::Terminate(id) => drop(self.world.database.change().terminate(id)),
            Action::TimeOut(index) => self.fail_tree(index, FailureKind::TimedOut),
            fault => {
                self.world.faults -= 1;
                self.fault(fault);
            }
        }
    }

    fn fault(&mut self, fault: Action) {
        match fault {
            Action::Fail(index) => self.fail_tree(index, FailureKind::Transient),
            Action::Crash(index) => self.crash(index),
            Action::Expire => self.world.coordination.change().leader = None,
            Action::Restore(everything) => self.world.coordination.change().lose(everything),
            Action::LoseConnection(index, lane) => self.let_go(index, lane),
            Action::Repeat(index) => {
                let order = self.world.processes[index].orders[0].clone();
                self.job(index, COMMITS, Job::Commit(order));
            }
            Action::LoseRow(index) => self.world.database.change().lose_row(index),
            Action::GoBack => {
                let backends: Vec<_> = self.world.database.backends.keys().copied().collect();
                backends.into_iter().for_each(|backend| self.end(backend));
                self.world.database.change().go_back();
                self.world.coordination.change().lose(false);
            }
            _ => self.world.database.change().become_foreign(),
        }
    }

    fn elect(&mut self, index: usize) {
        let life = self.world.processes[index].life;
        let nonce = self.world.coordination.change().elect(index, life);
        let record = self.world.coordination.read();
        let fence = self.world.database.group.fence;
        let process = self.process(index);
        (process.campaigns, process.nonce) = (false, nonce);
        let elected = Elected { nonce, record, lineage: LINEAGE, fence };
        self.then.push_back(Then::Reply(index, Reply::Elected(Box::new(elected))));
    }

    fn crash(&mut self, index: usize) {
        for lane in [COMMITS, LEADER] {
            self.orphan(index, lane);
        }
        self.world.homes.change().retain(|_, home| *home != index);
        let life = self.world.processes[index].life + 1;
        *self.process(index) = Process::new(index, life);
        let effects = self.process(index).leader.change().open(0);
        self.leader_effects(index, effects);
    }

    /// Fails the newest tree that a process waits for (time-outs: whatever comes first).
    fn fail_tree(&mut self, index: usize, kind: FailureKind) {
        let root = self.world.homes.iter().find(|(_, home)| **home == index).map(|(root, _)| *root);
        if let Some(root) = root {
            self.then
                .push_back(Then::Report(AckerEvent::Fail { root, failure: Failure::new(kind, "an attempt fails") }));
        }
    }

    // ----- what follows -----

    pub(crate) fn drain(&mut self) {
        while let Some(then) = self.then.pop_front() {
            match then {
                Then::Arrive(tuple, index, Role::Emitter) => {
                    let effects = self.process(index).emitter.change().tuple(0, tuple);
                    self.emitter_effects(index, effects);
                }
                Then::Arrive(tuple, index, _) => {
                    let effects = self.process(index).committer.change().tuple(0, tuple);
                    self.committer_effects(index, effects);
                }
                Then::Report(report) => self.report(report),
                Then::Ended(index, root, end) => {
                    let effects = self.process(index).leader.change().ended(0, root, end);
                    self.leader_effects(index, effects);
                }
                Then::Reply(index, reply) => {
                    let effects = self.process(index).leader.change().reply(0, reply);
                    self.leader_effects(index, effects);
                }
                Then::Woke(index) => {
                    let effects = self.process(index).leader.change().reply(LATE_MS, Reply::Woke);
                    self.leader_effects(index, effects);
                }
                Then::ReadDone(index, reply) => {
                    let effects = self.process(index).emitter.change().reply(0, EmitterReply::Read(reply));
                    self.emitter_effects(index, effects);
                }
                Then::Committer(index, reply) => {
                    let effects = self.process(index).committer.change().reply(0, reply);
                    self.committer_effects(index, effects);
                }
                Then::Send(index, lane, statement) => self.send(index, lane, statement),
                Then::Answer(index, lane, answer) => self.answer(index, lane, answer),
            }
        }
    }

    pub(crate) fn leader_effects(&mut self, index: usize, effects: Vec<Effect<Batches, Call>>) {
        for effect in effects {
            match effect {
                Effect::Send { to, tuple } => {
                    let homes = self.world.homes.change();
                    homes.extend(tuple.anchors.iter().map(|anchor| (anchor.root, index)));
                    self.route(index, to.0, tuple);
                }
                Effect::Acker(report) => self.then.push_back(Then::Report(report)),
                Effect::Call(call) => self.call(index, call),
            }
        }
    }

    fn emitter_effects(&mut self, index: usize, effects: Vec<Effect<Batches, ReadCall>>) {
        for effect in effects {
            match effect {
                Effect::Send { to, tuple } => self.route(index, to.0, tuple),
                Effect::Acker(report) => self.then.push_back(Then::Report(report)),
                Effect::Call(ReadCall { attempt, txid, ranges }) => {
                    let reply = ReadReply { attempt, txid, result: Ok(read(&ranges)) };
                    self.then.push_back(Then::ReadDone(index, reply));
                }
            }
        }
    }

    fn committer_effects(&mut self, index: usize, effects: Vec<Effect<Batches, CommitterCall>>) {
        for effect in effects {
            match effect {
                Effect::Send { to, tuple } => self.route(index, to.0, tuple),
                Effect::Acker(report) => self.then.push_back(Then::Report(report)),
                Effect::Call(CommitterCall::Fold { attempt, txid, parts }) => {
                    let result = Ok(fold(index, parts));
                    self.then.push_back(Then::Committer(index, CommitterReply::Folded { attempt, txid, result }));
                }
                Effect::Call(CommitterCall::Commit(order)) => {
                    if self.scene.kinds.contains(&Kind::Repeat) {
                        let orders = self.process(index).orders.change();
                        orders.push(order.clone());
                        orders.drain(..orders.len().saturating_sub(2));
                    }
                    self.job(index, COMMITS, Job::Commit(order));
                }
            }
        }
    }

    fn route(&mut self, from: usize, to: u32, tuple: Tuple<Message>) {
        let (process, emitter) = ((to / 4) as usize, task(0, Role::Emitter).0);
        let role = if to % 4 == emitter { Role::Emitter } else { Role::Committer };
        match process == from {
            true => self.then.push_back(Then::Arrive(tuple, process, role)),
            false => self.world.links[from].change().push_back(tuple),
        }
    }

    fn report(&mut self, report: AckerEvent<Note>) {
        let root = match &report {
            AckerEvent::Start { root, .. } | AckerEvent::Ack { root, .. } | AckerEvent::Fail { root, .. } => *root,
            AckerEvent::Alive { .. } | AckerEvent::Tick => return,
        };
        let Some(home) = self.world.homes.get(&root).copied() else { return };
        for Ended { root, end, .. } in self.process(home).acker.change().step(report) {
            self.world.homes.change().remove(&root);
            self.then.push_back(Then::Ended(home, root, end));
        }
    }

    fn call(&mut self, index: usize, call: Call) {
        match call {
            Call::Campaign => {
                let nonce = self.process(index).nonce;
                if self.world.coordination.is_led_by(index, nonce) {
                    self.world.coordination.change().leader = None;
                }
                let process = self.process(index);
                (process.campaigns, process.nonce) = (true, Nonce(0));
            }
            Call::Claim(claim) => {
                let nonce = self.world.processes[index].nonce;
                let result = self.note(index, &Write::Claim(claim));
                self.then.push_back(Then::Reply(index, Reply::Claimed(nonce, result)));
                self.hear(index);
            }
            Call::WritePlan { txid, attempt, plan } => {
                let result = self.note(index, &Write::Plan(txid, plan.to_vec()));
                self.then.push_back(Then::Reply(index, Reply::PlanWritten { attempt, txid, result }));
                self.hear(index);
            }
            Call::ForgetFrom(txid) => self.note_or_fail(index, &Write::Forget(txid)),
            Call::Complete(txid) => self.note_or_fail(index, &Write::Complete(txid)),
            Call::Raise(attempt) => self.job(index, LEADER, Job::Raise(attempt)),
            Call::Prepare { row, location } => self.job(index, LEADER, Job::Prepare(row, location)),
            Call::Bounds { attempt, positions } => {
                // A source that holds nothing new says nothing.
                if positions.values().all(|position| position.at < self.scene.records) {
                    let seed = attempt.nonce.0 * 100 + attempt.generation.0;
                    let result = Ok(vec![vec![bounds(self.scene.records)]]);
                    self.then.push_back(Then::Reply(index, Reply::Bounds { attempt, result, time_ms: 0, seed }));
                }
            }
            Call::Wake { .. } => self.then.push_back(Then::Woke(index)),
            Call::Progress(progress) => {
                if self.world.database.rows.iter().any(|row| row.txid < progress.txid) {
                    self.break_off(format!("transaction {} was announced and is not committed", progress.txid));
                }
            }
            Call::Entered(..) | Call::Warn(_) | Call::Drained => {}
            Call::Finish(_) if self.world.database.spoiled => self.world.halted = true,
            Call::Finish(result) => self.break_off(format!("the group halted: {result:?}")),
        }
    }

    fn note(&mut self, index: usize, write: &Write) -> Result<(), Failure> {
        let nonce = self.world.processes[index].nonce;
        self.world.coordination.change().write(index, nonce, write)
    }

    fn note_or_fail(&mut self, index: usize, write: &Write) {
        let nonce = self.world.processes[index].nonce;
        if let Err(failure) = self.note(index, write) {
            self.then.push_back(Then::Reply(index, Reply::NoteFailed(nonce, failure)));
            self.hear(index);
        }
    }

    /// Whoever is refused because its session is gone hears so; there is no news to come.
    fn hear(&mut self, index: usize) {
        let nonce = self.world.processes[index].nonce;
        if nonce != Nonce(0) && !self.world.coordination.is_led_by(index, nonce) {
            self.act(Action::News(index));
        }
    }
}
