//! Which tasks there are, on which worker each runs, and who sends to whom.
//!
//! Everything follows from the workers' capacities in their order, so all workers of an assignment come to the same: emitters
//! and stage tasks worker by worker, and one committer for each worker, among which the shards are dealt out in turn. The
//! production drivers and the simulator's start what this says.

use std::{collections::BTreeMap, sync::Arc};

use tine_core::{
    id::TaskId,
    membership::record::Capacity,
    task::{Grouping, Route},
};
use tine_state::ShardRef;

use crate::{
    outlet::{Outlet, Owners},
    pipeline::Built,
};

/// The coordinator's task, on whoever leads.
pub const COORDINATOR: TaskId = TaskId(0);

/// The tasks of a topology on its workers, seen from one of them.
#[derive(Clone, Debug)]
pub struct Placement {
    me: usize,
    /// The emitters, in order.
    pub emitters: Vec<TaskId>,
    /// The stage tasks of each level, in order.
    pub stages: Vec<Vec<TaskId>>,
    /// The committers, in order.
    pub committers: Vec<TaskId>,
    /// The worker of each task.
    homes: BTreeMap<TaskId, usize>,
    owners: Owners,
    shards: Vec<ShardRef>,
}

impl Placement {
    /// Spread over workers, of which this is the one at place `me`.
    pub fn new(built: &Built, workers: &[Capacity], me: usize) -> Placement {
        let mut homes = BTreeMap::new();
        let mut ids = (COORDINATOR.0 + 1..).map(TaskId);
        let mut tasks = |of: &dyn Fn(&Capacity) -> u16| {
            let mut all = Vec::new();
            for (worker, capacity) in workers.iter().enumerate() {
                let some = ids.by_ref().take(usize::from(of(capacity).max(1)));
                for id in some {
                    homes.insert(id, worker);
                    all.push(id);
                }
            }
            all
        };
        let emitters = tasks(&|capacity| capacity.readers);
        let stages = (0..built.levels()).map(|_| tasks(&|capacity| capacity.stages)).collect();
        let mut committers = tasks(&|_| 1);
        // A committer without a shard would have nothing to answer with.
        let most = built.group.states.iter().map(|state| usize::from(state.shards)).max().unwrap_or(1);
        committers.truncate(most.max(1));
        let deal = |shards: u16| (0..usize::from(shards)).map(|shard| shard % committers.len()).collect();
        let owners = built.group.states.iter().map(|state| deal(state.shards)).collect();
        Placement { me, emitters, stages, committers, homes, owners, shards: built.group.shard_refs() }
    }

    /// Whether a task runs in another process.
    pub fn is_remote(&self, task: TaskId) -> bool {
        self.home(task) != Some(self.me)
    }

    /// The place of a task's worker.
    pub fn home(&self, task: TaskId) -> Option<usize> {
        self.homes.get(&task).copied()
    }

    /// All tasks but the coordinator's.
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> + '_ {
        let stages = self.stages.iter().flatten();
        self.emitters.iter().chain(stages).chain(&self.committers).copied()
    }

    /// The shards of a committer, in (state, shard) order.
    pub fn shards_of(&self, committer: usize) -> Arc<[ShardRef]> {
        let owner = |at: &ShardRef| self.owners[usize::from(at.state.0)][usize::from(at.shard.0)];
        self.shards.iter().filter(|at| owner(at) == committer).copied().collect()
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// How many tasks send to a level of stage tasks.
    pub fn senders(&self, level: usize) -> usize {
        match level.checked_sub(1) {
            None => self.emitters.len(),
            Some(before) => self.stages[before].len(),
        }
    }

    /// How many tasks send to each committer.
    pub fn all_senders(&self) -> usize {
        self.emitters.len() + self.stages.iter().map(Vec::len).sum::<usize>()
    }

    /// Where a task sends to that stands before this level of stage tasks.
    pub fn outlet(&self, level: usize) -> Outlet {
        let remote = |tasks: &[TaskId]| tasks.iter().map(|task| self.is_remote(*task)).collect();
        let stages = self.stages.get(level).map_or(&[][..], Vec::as_slice);
        Outlet::new(self.committers.len(), self.owners.clone(), stages.len())
            .with_remote(remote(&self.committers), remote(stages))
    }

    /// The streams of a task that stands before this level of stage tasks.
    pub fn routes(&self, level: usize) -> Vec<Route> {
        let direct = |targets: Vec<TaskId>| Route { grouping: Grouping::Direct, targets };
        let stages = self.stages.get(level).cloned().unwrap_or_default();
        vec![direct(self.committers.clone()), direct(stages)]
    }

    /// The coordinator's streams.
    pub fn coordinator_routes(&self) -> Vec<Route> {
        let all = |targets: Vec<TaskId>| Route { grouping: Grouping::All, targets };
        vec![all(self.emitters.clone()), all(self.committers.clone())]
    }

    /// What runs here, for people.
    pub fn describe(&self) -> String {
        let mine = |tasks: &[TaskId]| tasks.iter().filter(|task| !self.is_remote(**task)).count();
        let shards: usize = (0..self.committers.len())
            .filter(|committer| !self.is_remote(self.committers[*committer]))
            .map(|committer| self.shards_of(committer).len())
            .sum();
        let mut text = format!(
            "{} of {} emitters, {shards} of {} shards",
            mine(&self.emitters),
            self.emitters.len(),
            self.shards()
        );
        for (level, stages) in self.stages.iter().enumerate() {
            text += &format!(", {} of {} stage tasks of level {level}", mine(stages), stages.len());
        }
        text
    }
}
