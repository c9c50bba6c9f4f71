//! The states of the models: two processes, the links between them, the database, coordination.
//!
//! A step is one thing that arrives somewhere: a packet, a statement, a piece of news, a fault. [`step`](super::step) takes
//! it; what follows from it inside a process happens at once.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::Hash,
};

use tine_core::{
    id::{Nonce, TxId},
    task::Effect,
    tuple::{Root, Tuple},
};
use tine_trident::{
    coordinator::event::Call,
    message::{Batches, Message},
};

use super::{
    coordination::Coordination,
    database::Database,
    part::Part,
    process::{COMMITS, LEADER, PROCESSES, Process},
    records::at,
    scene::{Action, Kind, Scene},
    step::Run,
};

/// The group's lineage.
pub(crate) const LINEAGE: u128 = 7;

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

impl World {
    /// Nothing has happened yet.
    pub(crate) fn new(scene: &Scene) -> World {
        let shards: Vec<_> = (0..PROCESSES).map(at).collect();
        let mut world = World {
            processes: [0, 1].map(|index| Process::new(index, 0)),
            database: Part::new(Database::new(LINEAGE, &shards, scene.kinds.contains(&Kind::GoBack))),
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
            Kind::GoBack if reigns && self.database.can_go_back() => actions.push(Action::GoBack),
            Kind::GoBack | Kind::Expire | Kind::Restore | Kind::LoseRow | Kind::ForeignHistory => {}
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
