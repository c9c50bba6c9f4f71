//! The world's loop: takes the next event, lets the machines step, performs what they ask for, checks the invariants.
//!
//! [`tasks`] feeds the machines and routes their tuples, [`leading`] performs the coordinator's calls, [`working`] the
//! emitters' and committers', [`lanes`] runs SQL procedures statement by statement, [`serving`] is the server's
//! side of that, [`electing`] the way to coordination and the lock, [`sessions`] how sessions end, [`workers`] drives the
//! membership, which starts and stops each [`crew`], [`presence`] is how workers see one another, [`lines`] how they reach one another,
//! [`members`] how they stop, leave and join, [`faulting`] breaks things and heals them, [`points`] says which moment has come.

mod crew;
mod driving;
mod electing;
mod event;
mod faulting;
mod lanes;
mod leading;
mod lines;
mod members;
mod network;
mod node;
mod points;
mod presence;
mod serving;
mod sessions;
mod tasks;
mod workers;
mod working;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use tine_core::{failure::Failure, membership::Common};
use tine_trident::pipeline::Built;

use self::{
    event::{Address, Event},
    faulting::Forces,
    network::Network,
    node::{Homes, Node},
    points::Points,
    workers::{Register, Worker},
};
use crate::{
    agenda::Agenda,
    coordination::Coordination,
    faults::FaultPlan,
    invariants::{Broken, Checker},
    random::{Draws, mix},
    report::{Phase, Report, Took},
    settings::{Mode, Settings},
    source::SimSource,
    sql::{BackendId, Sql},
    trace::Trace,
    trips::Trips,
};

/// The simulated world.
pub(crate) struct Engine<'a> {
    seed: u64,
    now_us: u64,
    settings: Cow<'a, Settings>,
    plan: Cow<'a, FaultPlan>,
    agenda: Agenda<Event>,
    built: Arc<Built>,
    sources: Vec<SimSource>,
    trips: Trips,
    nodes: Vec<Node>,
    register: Register,
    homes: Homes,
    sql: Sql,
    /// Who waits for the answer of a statement that waits for a lock.
    waiting: BTreeMap<BackendId, Address>,
    coordination: Coordination,
    /// Embedded: the backend that holds the topology's lock.
    exclusive: Option<BackendId>,
    network: Network,
    forces: Forces,
    points: Points,
    draws: Channels,
    checker: Checker,
    trace: Trace,
    took: Vec<Option<Took>>,
    phase: Phase,
    healed: bool,
    grown: usize,
    attempts_healed: u64,
    attempts: u64,
    progress: u64,
    drained: bool,
    deadline_us: u64,
    /// Driven by hand: nothing is healed until somebody says so.
    by_hand: bool,
    over: Option<Result<(), Ending>>,
}

/// Why a run ended other than drained.
pub(crate) enum Ending {
    /// An invariant does not hold.
    Broken(Broken),
    /// The group halted.
    Halted(Failure),
}

impl Ending {
    pub(crate) fn broken(&self) -> Broken {
        match self {
            Ending::Broken(broken) => broken.clone(),
            Ending::Halted(failure) => {
                let fickle = failure.to_string().contains("non-deterministic operator");
                let hint = if fickle { "; .expect(deterministic()) names it" } else { "" };
                Broken::new(Broken::HALTED, format!("the group halted: {failure}{hint}"))
            }
        }
    }
}

/// Draws by purpose.
struct Channels {
    lives: Draws,
    delays: Draws,
    sql: Draws,
    election: Draws,
    plans: Draws,
}

/// An epoch for the batch clock: virtual time counts from here.
const BORN_MS: u64 = 1_700_000_000_000;

impl<'a> Engine<'a> {
    pub(crate) fn new(
        seed: u64,
        plan: Cow<'a, FaultPlan>,
        settings: Cow<'a, Settings>,
        built: Built,
        sources: Vec<SimSource>,
        trips: Trips,
        checker: Checker,
    ) -> Engine<'a> {
        let sql = Sql::new(&built.group, settings.mode != Mode::Embedded);
        let common = Common { fingerprint: built.group.fingerprint, lineage: sql.group.lineage };
        let mut draws = Channels {
            lives: Draws::new(seed, 1),
            delays: Draws::new(seed, 2),
            sql: Draws::new(seed, 3),
            election: Draws::new(seed, 4),
            plans: Draws::new(seed, 5),
        };
        let nodes: Vec<Node> = (0..settings.nodes())
            .map(|_| Node::new(0, draws.lives.bits(), &built, &settings, Worker::new(common)))
            .collect();
        let ends = nodes.len() + 2;
        Engine {
            seed,
            now_us: 0,
            agenda: Agenda::new(),
            sql,
            coordination: Coordination::new(plan.restores()),
            built: Arc::new(built),
            sources,
            trips,
            nodes,
            register: Register::default(),
            homes: Homes::default(),
            waiting: BTreeMap::new(),
            exclusive: None,
            network: Network::new(ends, seed),
            forces: Forces::new(ends),
            points: Points::new(&plan),
            draws,
            checker,
            trace: Trace::new(settings.timeline),
            took: vec![None; plan.faults.len()],
            phase: Phase::Electing,
            healed: false,
            grown: 0,
            attempts_healed: 0,
            attempts: 0,
            progress: 0,
            drained: false,
            deadline_us: (settings.faults_until_ms + settings.drained_within_ms) * 1000,
            by_hand: false,
            over: None,
            settings,
            plan,
        }
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> Report {
        self.begin();
        while self.step() {}
        self.into_report()
    }

    /// Lets the next thing happen; whether the run goes on.
    pub(crate) fn step(&mut self) -> bool {
        let next = if self.over.is_none() { self.agenda.next() } else { None };
        let Some((at_us, event)) = next else { return false };
        self.now_us = at_us;
        if at_us > self.deadline_us {
            match self.drained && !self.is_settled() {
                true => self.break_off("invariant_whoever_is_there_owns_tasks", self.unsettled()),
                false => self.break_off("invariant_the_lowest_open_transaction_can_proceed", self.stuck()),
            }
            return false;
        }
        self.trace.mix(at_us, event.tag());
        self.happen(event);
        if self.drained {
            self.finish_when_quiet();
        }
        true
    }

    pub(crate) fn begin(&mut self) {
        for (index, fault) in self.plan.faults.iter().enumerate().filter(|(_, fault)| fault.when.is_none()) {
            self.agenda.put(u64::from(fault.at_ms) * 1000, Event::Fault(index, true));
        }
        self.agenda.put(0, Event::Grow);
        if !self.by_hand {
            self.agenda.put(self.settings.faults_until_ms * 1000, Event::Heal);
        }
        for node in 0..self.nodes.len() {
            self.start(node);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Node { node, life, what } => self.arrive(node, life, what),
            Event::Sql { backend, from, statement } => self.on_statement(backend, from, &statement),
            Event::BackendGone(backend) => self.end_backend(backend),
            Event::LockTimeout(backend, from) => self.on_lock_timeout(backend, from),
            Event::IdleCheck(backend) => self.on_idle_check(backend),
            Event::Candidate { node, life, nonce } => self.on_candidate(node, life, nonce),
            Event::Ask { session, asked, request } => self.on_ask(session, asked, request),
            Event::News { session } => self.on_news(session),
            Event::Expire { session, since_us } => self.on_expire(session, since_us),
            Event::Fault(index, true) => self.fault_begins(index),
            Event::Fault(index, false) => self.fault_ends(index),
            Event::Die(node, index) => self.crash(node, index),
            Event::Register { node, life, worker } => self.on_register(node, life, worker),
            Event::Look(session) => self.on_look(session),
            Event::Update(session, member) => self.on_update(session, &member),
            Event::Dial { node, life, me, peer } => self.on_dial(node, life, me, peer),
            Event::Unheard(node, index) => self.on_unheard(node, index),
            Event::Left { node, life } => self.has_left(node, life),
            Event::Grow => self.grow(),
            Event::Heal => self.heal(),
        }
    }

    /// One more step of the sources' growth. The last ones wait for the healed world, each until the one before it is
    /// committed: so every run has a full number of transactions, however long it stood still.
    fn grow(&mut self) {
        let (steps, held) = (self.settings.steps, self.settings.held);
        let may = match self.healed {
            true => self.checker.covers(&self.sql, &self.sources) || self.grown == 0,
            false => self.grown + held < steps,
        };
        if may && self.grown < steps {
            self.sources.iter().for_each(|source| source.grow(self.grown));
            self.grown += 1;
        }
        if self.grown < steps {
            let every_us = match self.healed {
                true => 5_000,
                false => self.settings.faults_until_ms * 800 / steps.saturating_sub(held).max(1) as u64,
            };
            self.agenda.put(self.now_us + every_us, Event::Grow);
        }
        self.look_whether_drained();
    }

    /// Whether everything that the sources hold is committed and announced.
    pub(crate) fn look_whether_drained(&mut self) {
        if self.healed && !self.drained && self.grown >= self.settings.steps {
            let complete = self.sql.complete();
            let knows = |node: &Node| {
                let coordinator = node.leader.spout();
                node.up && coordinator.leading().is_some() && coordinator.last_complete() == complete
            };
            self.drained = self.checker.covers(&self.sql, &self.sources) && self.nodes.iter().any(knows);
            if self.drained {
                // What is still on its way may come, and what the ackers keep of late reports goes with their clock.
                self.deadline_us = self.deadline_us.max(self.now_us + 10_000_000);
                self.trace.say(self.now_us, || "everything is committed".to_owned());
            }
        }
    }

    /// Ends the run once no tree is under way anywhere, and everybody who is there owns tasks.
    fn finish_when_quiet(&mut self) {
        if self.over.is_some() || !self.is_settled() || !self.nodes.iter().all(|node| node.under_way() == 0) {
            return;
        }
        let found = self.checker.at_the_end(&self.sql, &self.sources);
        self.over = Some(found.map_err(Ending::Broken));
    }

    fn break_off(&mut self, invariant: &'static str, what: String) {
        self.over.get_or_insert(Err(Ending::Broken(Broken { invariant, what })));
    }

    fn check(&mut self, found: Result<(), Broken>) {
        if let Err(broken) = found {
            self.over.get_or_insert(Err(Ending::Broken(broken)));
        }
    }

    fn stuck(&self) -> String {
        let acker: Vec<usize> = self.nodes.iter().map(Node::under_way).collect();
        format!(
            "not drained {} ms after everything was healed: committed everywhere up to {}, announced {}, phase {:?}, \
             trees in the ackers {acker:?}, {} statements wait for locks",
            self.settings.drained_within_ms,
            self.sql.complete(),
            self.progress,
            self.phase,
            self.waiting.len()
        )
    }

    pub(crate) fn into_report(self) -> Report {
        let complete = self.sql.complete();
        let broken = match self.over {
            Some(Ok(())) => None,
            Some(Err(ending)) => Some(ending.broken()),
            None => Some(Broken {
                invariant: "invariant_the_lowest_open_transaction_can_proceed",
                what: "nothing will ever happen again, and not everything is committed".to_owned(),
            }),
        };
        Report {
            seed: self.seed,
            plan: self.plan.into_owned(),
            txids: complete.0,
            attempts: self.attempts,
            attempts_healed: self.attempts_healed,
            by_hand: self.by_hand,
            test: None,
            took: self.took,
            events: self.agenda.scheduled(),
            virtual_ms: self.now_us / 1000,
            trace_hash: self.trace.hash() ^ mix(complete.0),
            timeline: self.trace.lines(),
            states: self.built.group.states.iter().map(|state| state.name.clone()).collect(),
            tables: self.sql.tables.into_iter().map(|table| table.rows).collect(),
            sources: self.sources,
            broken,
        }
    }
}
