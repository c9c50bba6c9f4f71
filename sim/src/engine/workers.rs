//! Drives the membership of a process, as the production driver does (`trident/src/run/workers.rs`): it registers, follows the
//! assignments, starts and stops its tasks; while it leads, the same machine assigns, and its coordinator outlives its tasks.
//!
//! [`presence`](super::presence) is how it is seen and sees, [`lines`](super::lines) are the links between workers,
//! [`members`](super::members) says how they come and go.

use std::collections::{BTreeSet, VecDeque};

use tine_core::{
    failure::{Failure, FailureKind},
    hash::hash64,
    id::{Era, Nonce, WorkerId},
    membership::{Assignment, Common, Effect, Event as Told, Membership, record::Capacity},
    task::SpoutTask,
};
use tine_trident::{
    coordinator::event::Reply,
    placement::{COORDINATOR, Placement},
};

use super::{
    Ending, Engine,
    crew::{Crew, Under},
    event::{Errand, Event, Inbound, Packet, Rewire},
    lines::Lines,
    node::{COMMITS, Node},
};
use crate::{
    coordination::{SessionId, Write},
    invariants::{invariant_a_break_is_told, invariant_owners_are_let_go_first, invariant_owners_are_ready},
    random::Draws,
};

/// Pause before something that coordination has not done is tried again.
pub(crate) const PAUSE_US: u64 = 20_000;

/// A process's part in the membership.
pub(crate) struct Worker {
    machine: Membership,
    /// Under which name it is, or wants to be, registered.
    pub(crate) id: Option<WorkerId>,
    pub(crate) session: Option<SessionId>,
    /// The reign whose claim stands.
    pub(crate) reigning: Option<Nonce>,
    pub(crate) lines: Lines,
    /// Whether its coordinator goes on with owners that it was told of.
    relies: bool,
    /// Whether that has said since that nothing is under way.
    drained: bool,
    /// The reign whose owners its coordinator knows of.
    pub(crate) owned: Option<Nonce>,
    /// When its coordinator hears what it was told last: what is told later comes after it.
    told_us: u64,
    /// Whether it waits until it has no tasks any more, to end then.
    pub(crate) leaving: bool,
    /// Whether its coordinator was asked to end.
    pub(crate) stopping: bool,
}

/// What is known of all workers together.
#[derive(Default)]
pub(crate) struct Register {
    /// How many names were given.
    pub(crate) names: u64,
    /// How many crews there were.
    crews: u64,
    /// Which process has heard of which worker that it is ready, and of no break since.
    ready: BTreeSet<(usize, WorkerId, Era)>,
}

/// The process of a worker.
pub(crate) fn node_of(WorkerId(worker): WorkerId) -> usize {
    usize::from(worker.to_le_bytes()[0])
}

pub(crate) fn name(node: usize, number: u64) -> WorkerId {
    WorkerId(number << 8 | node as u64)
}

impl Worker {
    pub(crate) fn new(common: Common) -> Worker {
        Worker {
            machine: Membership::new(common),
            id: None,
            session: None,
            reigning: None,
            lines: Lines::new(),
            relies: false,
            drained: false,
            owned: None,
            told_us: 0,
            leaving: false,
            stopping: false,
        }
    }
}

impl Engine<'_> {
    /// Tells the membership whether it reigns.
    pub(crate) fn reigns(&mut self, node: usize) {
        let reigning = self.nodes[node].worker.reigning;
        self.member(node, reigning.map_or(Told::Deposed, Told::Led));
    }

    /// A process's claim stands, or its reign is over.
    pub(crate) fn reigns_from_now_on(&mut self, node: usize, nonce: Option<Nonce>) {
        if std::mem::replace(&mut self.nodes[node].worker.reigning, nonce) != nonce {
            self.later(node, 20, Inbound::Reigns);
        }
    }

    // ----- the machine -----

    /// Tells the membership of a process something, and does what it says.
    pub(crate) fn member(&mut self, node: usize, told: Told) {
        let broken = match &told {
            Told::Broke(peer, _) => Some(*peer).filter(|peer| self.relies_on(node, *peer)),
            _ => None,
        };
        self.nodes[node].worker.relies &= !matches!(told, Told::Deposed);
        let mut events = VecDeque::from([told]);
        while let Some(event) = events.pop_front() {
            match &event {
                Told::Ready(worker, era) => {
                    self.register.ready.insert((node, *worker, *era));
                }
                Told::Drained => self.nodes[node].worker.drained = true,
                Told::Broke(peer, _) => self.register.ready.retain(|(by, worker, _)| (*by, *worker) != (node, *peer)),
                _ => {}
            }
            for effect in self.nodes[node].worker.machine.step(event) {
                match effect {
                    Effect::Start(assignment) => self.start_tasks(node, &assignment),
                    Effect::Stop => self.stop_tasks(node),
                    Effect::TellReady(leader, era) => {
                        let me = self.nodes[node].worker.id;
                        match me == Some(leader) {
                            true => events.push_back(Told::Ready(leader, era)),
                            false => drop(self.send(node, leader, Packet::Ready)),
                        }
                    }
                    Effect::Write(made) => {
                        let worker = &mut self.nodes[node].worker;
                        let let_go = !std::mem::take(&mut worker.relies) || worker.drained;
                        self.check(invariant_owners_are_let_go_first(made.era, let_go));
                        self.errand(node, Errand::Write { write: Write::Assign(made.into()), plan: None });
                    }
                    Effect::Drain => self.tell(node, Reply::Drain, None),
                    Effect::Owners(assignment) => self.owners(node, &assignment),
                    Effect::Disband(failure) => {
                        self.nodes[node].worker.relies = false;
                        self.tell(node, Reply::Disbanded(failure), None);
                    }
                    Effect::Update(member) => self.update(node, member),
                    Effect::Warn(text) => self.trace.say(self.now_us, || format!("process {node} warns: {text}")),
                    Effect::Refused(failure) => drop(self.over.get_or_insert(Err(Ending::Halted(failure)))),
                }
            }
        }
        if let Some(peer) = broken {
            self.check(invariant_a_break_is_told(peer, !self.nodes[node].worker.relies));
        }
    }

    /// Tells the coordinator of a process, by the way that all its replies come.
    pub(crate) fn tell(&mut self, node: usize, reply: Reply, rewire: Option<Rewire>) {
        // One word in eight waits behind others.
        let longest_us = if self.draws.lives.below(8) == 0 { 3_000 } else { 20 };
        let at_us = self.now_us + self.draws.lives.between(2, longest_us);
        let Node { life, worker, .. } = &mut self.nodes[node];
        worker.told_us = at_us.max(worker.told_us + 1);
        let what = Inbound::Told(Box::new(reply), rewire);
        self.agenda.put(worker.told_us, Event::Node { node, life: *life, what });
    }

    pub(crate) fn on_told(&mut self, node: usize, reply: Reply, rewire: Option<Rewire>) {
        if matches!(reply, Reply::Disbanded(_)) {
            self.nodes[node].worker.owned = None;
        }
        if let Some(Rewire { crew, nonce, routes }) = rewire {
            self.nodes[node].worker.owned = Some(nonce);
            self.register.crews += 1;
            let seed = self.seed_of(node, self.register.crews);
            let process = &mut self.nodes[node];
            let spout = process.leader.clone().into_spout();
            (process.leader, process.wired) = (SpoutTask::new(COORDINATOR, routes, seed, spout), Some(crew));
        }
        self.coordinator_reply(node, reply);
    }

    fn seed_of(&self, node: usize, number: u64) -> u64 {
        hash64(&[self.nodes[node].seed.to_le_bytes(), number.to_le_bytes()].concat())
    }

    /// An assignment was written, or not.
    pub(crate) fn on_assigned(&mut self, node: usize, era: Era, result: Result<(), Failure>) {
        let after_us = if result.is_ok() { 10 } else { PAUSE_US };
        self.later(node, after_us, Inbound::Member(Box::new(Told::Written(era, result))));
    }

    /// Of a reign that is over.
    pub(crate) fn not_assigned(&mut self, node: usize, era: Era) {
        self.on_assigned(node, era, Err(Failure::new(FailureKind::Fenced, "the reign is over")));
    }

    fn owners(&mut self, node: usize, assignment: &Assignment) {
        let all =
            assignment.shares.iter().all(|share| self.register.ready.contains(&(node, share.peer.id, assignment.era)));
        self.check(invariant_owners_are_ready(assignment.era, all));
        let Some(crew) = self.nodes[node].crew.as_ref().filter(|crew| crew.era == assignment.era) else { return };
        let (routes, committers) = (crew.placement.coordinator_routes(), crew.placement.committers.len());
        let rewire = Rewire { crew: crew.id, nonce: assignment.nonce, routes };
        let members: Vec<usize> = crew.peers.iter().copied().map(node_of).collect();
        self.trace.say(self.now_us, || {
            format!("processes {members:?} share the work of process {node}'s {}", assignment.era)
        });
        let worker = &mut self.nodes[node].worker;
        (worker.relies, worker.drained) = (true, false);
        self.tell(node, Reply::Owners { nonce: assignment.nonce, committers }, Some(rewire));
    }

    /// Whether the coordinator of a process goes on with a crew that a worker is part of.
    fn relies_on(&self, node: usize, peer: WorkerId) -> bool {
        let Node { worker, crew, .. } = &self.nodes[node];
        worker.relies && crew.as_ref().is_some_and(|crew| crew.peers.contains(&peer))
    }

    // ----- tasks -----

    /// Starts the tasks of an assignment in the place of those that run here.
    fn start_tasks(&mut self, node: usize, assignment: &Assignment) {
        let Some(me) = self.nodes[node].worker.id else { return };
        let Some(place) = assignment.place(me) else { return };
        let workers: Vec<Capacity> = assignment.shares.iter().map(|share| share.capacity).collect();
        let placement = Placement::new(&self.built, &workers, place);
        let peers: Vec<WorkerId> = assignment.shares.iter().map(|share| share.peer.id).collect();
        let under = Under { era: assignment.era, leader: assignment.leader, peers, placement, place };
        self.drop_tasks(node);
        let peers = under.peers.clone();
        self.begin_work(node, under);
        self.follow(node, me, &peers);
    }

    /// How many emitters and stage tasks of a level a process runs, in all its lives: one or two of each.
    pub(crate) fn capacity(&self, node: usize) -> Capacity {
        let drawn = Draws::new(self.seed, 0x60 + node as u64).below(4);
        Capacity { readers: 1 + (drawn & 1) as u16, stages: 1 + (drawn >> 1) as u16 }
    }

    fn begin_work(&mut self, node: usize, under: Under) {
        self.register.crews += 1;
        let id = self.register.crews;
        let crew = Crew::new(id, self.seed_of(node, id), &self.built, under);
        self.trace.say(self.now_us, || format!("the tasks of process {node} begin under {}", crew.era));
        self.nodes[node].crew = Some(crew);
    }

    fn stop_tasks(&mut self, node: usize) {
        self.drop_tasks(node);
        if let Some(me) = self.nodes[node].worker.id {
            self.follow(node, me, &[]);
        }
        if std::mem::take(&mut self.nodes[node].worker.leaving) {
            self.stop_coordinator(node);
        }
    }

    /// Ends the tasks that run here. What they have sent to the database may be executed all the same.
    fn drop_tasks(&mut self, node: usize) {
        if self.nodes[node].crew.take().is_some() {
            self.trace.say(self.now_us, || format!("the tasks of process {node} end"));
            self.drop_backend(node, COMMITS);
            let lane = &mut self.nodes[node].lanes[COMMITS];
            lane.queue.clear();
            lane.running = None;
            lane.sent += 1;
        }
    }

    /// Everything in one process.
    pub(crate) fn work_alone(&mut self, node: usize) {
        let me = name(node, 0);
        let placement = Placement::new(&self.built, &[self.capacity(node)], 0);
        let routes = placement.coordinator_routes();
        self.begin_work(node, Under { era: Era::default(), leader: me, peers: vec![me], placement, place: 0 });
        let process = &mut self.nodes[node];
        let spout = process.leader.clone().into_spout();
        process.leader = SpoutTask::new(COORDINATOR, routes, process.seed, spout);
        process.wired = process.crew.as_ref().map(|crew| crew.id);
    }

    /// Whether every process works for the same leader, who goes on with all of them.
    pub(crate) fn is_settled(&self) -> bool {
        let relies = |node: &Node| node.worker.relies && node.crew.as_ref().is_some_and(Crew::leads);
        let Some(leader) = self.nodes.iter().find(|node| relies(node)) else { return self.is_embedded() };
        let era = leader.crew.as_ref().filter(|crew| crew.peers.len() == self.nodes.len()).map(|crew| crew.era);
        era.is_some() && self.nodes.iter().all(|node| node.crew.as_ref().map(|crew| crew.era) == era)
    }

    /// Who works for whom, when that is not settled.
    pub(crate) fn unsettled(&self) -> String {
        let of = |node: &Node| match &node.crew {
            Some(crew) => format!("{} of {} workers, led by {}", crew.era, crew.peers.len(), crew.leader),
            None => "no tasks".to_owned(),
        };
        let all: Vec<String> = self.nodes.iter().map(of).collect();
        format!("everything is committed for long, and the processes run: {}", all.join("; "))
    }

    // ----- leaving -----

    /// Whoever leads finishes what is under way by itself; a worker is relieved first.
    pub(crate) fn relieve(&mut self, node: usize, within_us: u64) {
        let worker = &mut self.nodes[node].worker;
        if worker.reigning.is_some() || self.nodes[node].crew.is_none() {
            return self.stop_coordinator(node);
        }
        self.nodes[node].worker.leaving = true;
        if let Some(me) = self.nodes[node].worker.machine.me().cloned() {
            self.update(node, me);
        }
        self.later(node, within_us, Inbound::Relieved);
    }

    pub(crate) fn on_relieved(&mut self, node: usize) {
        self.stop_coordinator(node);
    }

    fn stop_coordinator(&mut self, node: usize) {
        if !std::mem::replace(&mut self.nodes[node].worker.stopping, true) {
            self.tell(node, Reply::Stop, None);
        }
    }
}
