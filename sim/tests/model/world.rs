//! The states of the models: two processes, the links between them, the database, coordination; and their steps.
//!
//! A step is one thing that arrives somewhere: a packet, a statement, a piece of news, a fault. What follows from it inside
//! a process happens at once.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Debug,
    hash::Hash,
};

use tine_core::{
    acker::{AckerEvent, Ended, TreeEnd},
    failure::{Failure, FailureKind},
    id::{Attempt, Nonce, TxId},
    task::Effect,
    tuple::{Root, Tuple},
};
use tine_state::{CommitOutcome, Procedure, RaiseOutcome, Reply as SqlReply, Statement, Step};
use tine_trident::{
    committer::{CommitterCall, CommitterReply},
    coordinator::event::{Call, Elected, Reply},
    emitter::{EmitterReply, ReadCall, ReadReply},
    message::{Batches, Message, Note},
};

use super::{
    coordination::{Coordination, Write},
    database::{Answer, BackendId, Database},
    part::Part,
    process::{COMMITS, Job, LEADER, Lane, PROCESSES, Process, Role, Running, task},
    records::{at, bounds, fold, read},
};

/// The group's lineage.
const LINEAGE: u128 = 7;
/// When wishes to be woken come true: never early.
const LATE_MS: u64 = 1 << 40;

/// What there is to count, and what may go wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) records: u64,
    pub(crate) faults: u8,
    pub(crate) kinds: &'static [Kind],
}

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Crash,
    Expire,
    LoseConnection,
    Fail,
    Restore,
    /// A driver runs a commit again, which was done before.
    Repeat,
    /// A ledger row is lost by hand.
    LoseRow,
    /// The ledger comes from a copy with another history.
    ForeignHistory,
}

impl Kind {
    /// Crashes, takeovers, lost answers, aborts, wiped and restored coordination.
    pub(crate) const USUAL: &[Kind] = &[Kind::Crash, Kind::Expire, Kind::LoseConnection, Kind::Fail, Kind::Restore];
}

/// A state.
#[derive(Clone, Debug, Hash, PartialEq)]
pub(crate) struct World {
    pub(crate) processes: [Process; PROCESSES],
    pub(crate) database: Part<Database>,
    pub(crate) coordination: Part<Coordination>,
    /// What is on its way from a process to the other, in order.
    pub(crate) links: [Part<VecDeque<Tuple<Message>>>; PROCESSES],
    /// Which process waits for the end of a tree.
    pub(crate) homes: Part<BTreeMap<Root, usize>>,
    /// How many faults may still happen.
    pub(crate) faults: u8,
    /// What must not be, and is.
    pub(crate) broken: Option<String>,
    /// The group has halted, and with cause.
    pub(crate) halted: bool,
}

/// Something arrives, or goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A process is elected.
    Elect(usize),
    /// A process hears that it leads no longer.
    News(usize),
    /// Coordination ends the session of a life that is over.
    Forget,
    /// The next packet from a process to the other arrives.
    Deliver(usize),
    /// The database executes the statement of a backend.
    Execute(BackendId),
    /// A raise that waits ends those who hold what it waits for.
    EndHolders(BackendId),
    /// The server notices that a client is gone.
    Terminate(BackendId),
    /// Nothing else can happen: the oldest tree that a process waits for times out.
    TimeOut(usize),
    /// Fault: a process dies, and starts again without its memory.
    Crash(usize),
    /// Fault: coordination ends a leader's session without reason.
    Expire,
    /// Fault: a session's connection is lost; what it had sent may yet be executed.
    LoseConnection(usize, usize),
    /// Fault: the attempt of a leader fails.
    Fail(usize),
    /// Fault: coordination loses everything, or what it has got since the last claim.
    Restore(bool),
    /// Fault: the committer of a process runs the order before the last one again.
    Repeat(usize),
    /// Fault: somebody deletes a ledger row.
    LoseRow(usize),
    /// Fault: somebody puts a ledger with another history in the place of this one.
    ForeignHistory,
}

impl Action {
    /// Whether it is something that goes wrong.
    pub(crate) fn is_fault(self) -> bool {
        use Action::{Crash, Expire, Fail, ForeignHistory, LoseConnection, LoseRow, Repeat, Restore};
        matches!(
            self,
            Crash(_) | Expire | LoseConnection(..) | Fail(_) | Restore(_) | Repeat(_) | LoseRow(_) | ForeignHistory
        )
    }
}

/// What follows at once from something else, in order.
enum Then {
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

impl World {
    /// Nothing has happened yet.
    pub(crate) fn new(scene: &Scene) -> World {
        let shards: Vec<_> = (0..PROCESSES).map(at).collect();
        let mut world = World {
            processes: [0, 1].map(|index| Process::new(index, 0)),
            database: Part::new(Database::new(LINEAGE, &shards)),
            coordination: Part::new(Coordination::default()),
            links: [0, 1].map(|_| Part::new(VecDeque::new())),
            homes: Part::new(BTreeMap::new()),
            faults: scene.faults,
            broken: None,
            halted: false,
        };
        for process in 0..PROCESSES {
            let effects = world.processes[process].leader.change().open(0);
            world.settle_effects(scene, process, effects);
        }
        world.settle()
    }

    fn settle(mut self) -> World {
        self.processes.iter_mut().for_each(Process::settle);
        self.links.iter_mut().for_each(Part::settle);
        self.database.settle();
        self.coordination.settle();
        self.homes.settle();
        self
    }

    fn settle_effects(&mut self, scene: &Scene, process: usize, effects: Vec<Effect<Batches, Call>>) {
        let mut run = Run { world: self, scene, then: VecDeque::new() };
        run.leader_effects(process, effects);
        run.drain();
    }

    /// What may happen without anything going wrong.
    pub(crate) fn free_actions(&self, actions: &mut Vec<Action>) {
        let leader = self.coordination.leader;
        for (index, process) in self.processes.iter().enumerate() {
            if process.nonce != Nonce(0) && !self.coordination.is_led_by(index, process.nonce) {
                actions.push(Action::News(index));
            }
        }
        if leader.is_some_and(|(process, life, _)| self.processes[process].life != life) {
            actions.push(Action::Forget);
        }
        if leader.is_none() {
            let candidates = (0..PROCESSES).filter(|index| self.processes[*index].campaigns);
            actions.extend(candidates.map(Action::Elect));
        }
        actions.extend((0..PROCESSES).filter(|from| !self.links[*from].is_empty()).map(Action::Deliver));
        for (id, backend) in &self.database.backends {
            let Some(statement) = &backend.pending else { continue };
            let blocked = self.database.is_blocked(*id, statement);
            if !(blocked && backend.waits) {
                actions.push(Action::Execute(*id));
            }
        }
        let gone = self.database.backends.iter().filter(|(_, backend)| backend.client.is_none());
        actions.extend(gone.map(|(id, _)| Action::Terminate(*id)));
        if actions.is_empty() {
            let raises = self.database.backends.iter().filter(|(_, backend)| backend.waits && backend.is_raise());
            actions.extend(raises.map(|(id, _)| Action::EndHolders(*id)));
        }
        if actions.is_empty() {
            let waits = |process: &usize| self.homes.values().any(|home| home == process);
            actions.extend((0..PROCESSES).filter(waits).map(Action::TimeOut));
        }
    }

    /// What may go wrong now.
    pub(crate) fn faults(&self, scene: &Scene, actions: &mut Vec<Action>) {
        if self.faults > 0 {
            scene.kinds.iter().for_each(|kind| self.faults_of(*kind, actions));
        }
    }

    fn faults_of(&self, kind: Kind, actions: &mut Vec<Action>) {
        let all = 0..PROCESSES;
        let reigns = self.coordination.leader.is_some();
        let quiet = self.database.backends.values().all(|backend| backend.tx.is_none());
        match kind {
            Kind::Crash => actions.extend(all.map(Action::Crash)),
            Kind::Expire if reigns => actions.push(Action::Expire),
            Kind::Restore if reigns => actions.extend([Action::Restore(true), Action::Restore(false)]),
            Kind::Fail => {
                let leads = |index: &usize| self.processes[*index].leader.spout().leading().is_some();
                actions.extend(all.filter(leads).map(Action::Fail));
            }
            Kind::LoseConnection => {
                let lanes = all.flat_map(|index| [(index, COMMITS), (index, LEADER)]);
                let busy = lanes.filter(|(index, lane)| self.processes[*index].lanes[*lane].running.is_some());
                actions.extend(busy.map(|(index, lane)| Action::LoseConnection(index, lane)));
            }
            Kind::Repeat => {
                actions.extend(all.filter(|index| !self.processes[*index].orders.is_empty()).map(Action::Repeat));
            }
            Kind::LoseRow if quiet => actions.extend(all.map(Action::LoseRow)),
            Kind::ForeignHistory if quiet && self.database.complete() > TxId::NONE => {
                actions.push(Action::ForeignHistory);
            }
            Kind::Expire | Kind::Restore | Kind::LoseRow | Kind::ForeignHistory => {}
        }
    }

    /// What an action leads to.
    pub(crate) fn after(&self, scene: &Scene, action: Action) -> World {
        let mut world = self.clone();
        let mut run = Run { world: &mut world, scene, then: VecDeque::new() };
        run.act(action);
        run.drain();
        if let Some(what) = world.database.broken {
            world.broken.get_or_insert(what.to_owned());
        }
        world.settle()
    }

    /// Everything is counted, and a leader knows.
    pub(crate) fn is_done(&self, records: u64) -> bool {
        let counted = self.database.table.len() as u64 == records * PROCESSES as u64;
        let complete = self.database.complete();
        let knows = |process: &Process| {
            let coordinator = process.leader.spout();
            coordinator.leading().is_some() && coordinator.last_complete() == complete
        };
        counted && self.database.rows.iter().all(|row| row.txid == complete) && self.processes.iter().any(knows)
    }
}

/// One step while it is taken.
struct Run<'a> {
    world: &'a mut World,
    scene: &'a Scene,
    then: VecDeque<Then>,
}

impl Run<'_> {
    fn process(&mut self, index: usize) -> &mut Process {
        &mut self.world.processes[index]
    }

    fn break_off(&mut self, what: impl Into<String>) {
        self.world.broken.get_or_insert(what.into());
    }

    fn act(&mut self, action: Action) {
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

    fn drain(&mut self) {
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

    fn leader_effects(&mut self, index: usize, effects: Vec<Effect<Batches, Call>>) {
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

    // ----- the database's clients -----

    fn lane(&mut self, index: usize, lane: usize) -> &mut Lane {
        self.process(index).lanes[lane].change()
    }

    fn job(&mut self, index: usize, lane: usize, job: Job) {
        self.lane(index, lane).queue.push_back(job);
        self.next_job(index, lane);
    }

    fn next_job(&mut self, index: usize, lane: usize) {
        if self.world.processes[index].lanes[lane].running.is_some() {
            return;
        }
        let Some(job) = self.lane(index, lane).queue.pop_front() else { return };
        if matches!(job, Job::Raise(_)) {
            // On a new connection: nothing that an older one holds can stand in the way.
            self.orphan(index, lane);
        }
        let (running, first) = job.start();
        self.lane(index, lane).running = Some(running);
        self.then.push_back(Then::Send(index, lane, first));
    }

    /// Sends a statement. What nobody else can see is executed at once.
    fn send(&mut self, index: usize, lane: usize, statement: Statement) {
        let connects = matches!(statement, Statement::Begin(_) | Statement::Read);
        let backend = match self.world.processes[index].lanes[lane].backend {
            Some(backend) => backend,
            None if connects => {
                let backend = self.world.database.change().connect((index, lane));
                self.lane(index, lane).backend = Some(backend);
                backend
            }
            None if matches!(statement, Statement::Rollback) => {
                return self.then.push_back(Then::Answer(index, lane, Ok(SqlReply::Done)));
            }
            None => {
                let lost = Err(lost_connection(Some(&statement)));
                return self.then.push_back(Then::Answer(index, lane, lost));
            }
        };
        let alone = matches!(
            statement,
            Statement::Begin(_) | Statement::Rollback | Statement::WritePlan(_) | Statement::WriteFence(_)
        );
        let database = self.world.database.change();
        if let Some(server) = database.backends.get_mut(&backend) {
            server.pending = Some(statement);
        }
        if alone {
            self.execute(backend);
        }
    }

    fn execute(&mut self, id: BackendId) {
        let database = self.world.database.change();
        let Some(statement) = database.backends.get_mut(&id).and_then(|backend| backend.pending.take()) else { return };
        let answer = database.execute(id, &statement);
        let Some(backend) = database.backends.get_mut(&id) else { return };
        match answer {
            Answer::Waits => (backend.pending, backend.waits) = (Some(statement), true),
            Answer::Now(answer) => {
                backend.waits = false;
                match backend.client {
                    Some((index, lane)) => self.then.push_back(Then::Answer(index, lane, answer)),
                    None => drop(database.terminate(id)),
                }
            }
        }
    }

    fn answer(&mut self, index: usize, lane: usize, answer: Result<SqlReply, Failure>) {
        let Some(mut running) = self.lane(index, lane).running.take() else { return };
        let then = match &mut running {
            Running::Commit(procedure, attempt, txid) => match procedure.step(answer) {
                Step::Next(statement) => Err(statement),
                Step::Done(outcome) => {
                    self.check_outcome(index, *attempt, *txid, &outcome);
                    let (attempt, txid) = (*attempt, *txid);
                    Ok(Then::Committer(index, CommitterReply::Committed { attempt, txid, outcome }))
                }
            },
            Running::Raise(procedure, attempt) => match procedure.step(answer) {
                Step::Next(statement) => Err(statement),
                Step::Done(outcome) => {
                    self.check_raise(&outcome);
                    Ok(Then::Reply(index, Reply::Raised(*attempt, outcome)))
                }
            },
            Running::Prepare(procedure, attempt, txid) => match procedure.step(answer) {
                Step::Next(statement) => Err(statement),
                Step::Done(outcome) => {
                    Ok(Then::Reply(index, Reply::Prepared { attempt: *attempt, txid: *txid, outcome }))
                }
            },
        };
        match then {
            Err(statement) => {
                self.lane(index, lane).running = Some(running);
                self.then.push_back(Then::Send(index, lane, statement));
            }
            Ok(then) => {
                self.then.push_back(then);
                self.next_job(index, lane);
            }
        }
    }

    /// What a commit says of itself is so.
    fn check_outcome(&mut self, index: usize, attempt: Attempt, txid: TxId, outcome: &CommitOutcome) {
        let Some(row) = self.world.database.rows.iter().find(|row| row.at == at(index)) else { return };
        let (done, mine) = (row.txid >= txid, row.fence == attempt);
        match outcome {
            CommitOutcome::Applied | CommitOutcome::AlreadyDone if !done => {
                self.break_off(format!("transaction {txid} of attempt {attempt} is said to be committed and is not"));
            }
            CommitOutcome::Failed(failure) if done && mine && failure.kind == FailureKind::Fatal => {
                self.break_off(format!("transaction {txid} of attempt {attempt} is committed and refused: {failure}"));
            }
            _ => {}
        }
    }

    fn check_raise(&mut self, outcome: &RaiseOutcome) {
        if let RaiseOutcome::Raised(snapshot) = outcome
            && snapshot.rows.len() < snapshot.group.shards.len()
        {
            self.break_off("the fence was raised beside a lost row");
        }
    }

    /// A client loses its connection: it hears so at once, the server later.
    fn let_go(&mut self, index: usize, lane: usize) {
        let backend = self.world.processes[index].lanes[lane].backend;
        let pending = backend.and_then(|id| self.world.database.backends[&id].pending.clone());
        self.orphan(index, lane);
        self.then.push_back(Then::Answer(index, lane, Err(lost_connection(pending.as_ref()))));
    }

    /// A backend loses its client. Only a `COMMIT` that is on its way can still do something.
    fn orphan(&mut self, index: usize, lane: usize) {
        let Some(id) = self.lane(index, lane).backend.take() else { return };
        let database = self.world.database.change();
        let Some(backend) = database.backends.get_mut(&id) else { return };
        backend.client = None;
        if !matches!(backend.pending, Some(Statement::Commit)) {
            database.terminate(id);
        }
    }

    /// The server ends a backend; its client hears so.
    fn end(&mut self, id: BackendId) {
        let Some(backend) = self.world.database.change().terminate(id) else { return };
        if let Some((index, lane)) = backend.client {
            self.lane(index, lane).backend = None;
            if let Some(statement) = &backend.pending {
                self.then.push_back(Then::Answer(index, lane, Err(lost_connection(Some(statement)))));
            }
        }
    }
}

/// What a lost connection means for the statement under way.
fn lost_connection(statement: Option<&Statement>) -> Failure {
    match statement {
        Some(Statement::Commit) => Failure::new(FailureKind::Unknown, "the connection was lost at COMMIT"),
        _ => Failure::transient("the connection to the database was lost"),
    }
}
