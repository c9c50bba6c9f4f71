//! Every state that two processes, their database and coordination can get into, within a bound: plan, prepare, commit,
//! fence, abort, takeover.
//!
//! The states hold the production machines themselves (coordinator, acker, emitter, committer, and the SQL procedures), the
//! steps are single arrivals: a packet, a statement at the database, a piece of news, a fault. `stateright` walks through
//! all of them; each must satisfy [`properties`](Checked::properties).

#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod agreement;
pub(crate) mod clients;
pub(crate) mod coordination;
pub(crate) mod database;
pub(crate) mod look;
pub(crate) mod part;
pub(crate) mod process;
pub(crate) mod records;
pub(crate) mod scene;
pub(crate) mod step;
pub(crate) mod world;

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use stateright::{Checker, HasDiscoveries, Model, Property};
use tine_core::mutant::{self, Mutant};

pub(crate) use self::{
    scene::{Action, Kind, Scene},
    world::World,
};

/// A model: a scene, perhaps with rules broken.
pub(crate) struct Checked {
    scene: Scene,
    mutants: Vec<Mutant>,
    /// The one property that is looked at; the rules may be broken on the way there.
    only: Option<&'static str>,
    /// States from which a run without further faults is known to end well.
    good: Mutex<HashSet<u64>>,
    /// The most transactions that were complete in any state.
    most: AtomicU64,
}

/// What a check came to.
pub(crate) struct Found {
    /// States generated, and different ones among them.
    pub(crate) states: usize,
    pub(crate) different: usize,
    pub(crate) deepest: usize,
    /// The most transactions that were complete in any state.
    pub(crate) most: u64,
    /// Whether all states were looked at.
    pub(crate) whole: bool,
    /// A property that does not hold, why, and the way there.
    pub(crate) wrong: Option<(&'static str, String, Vec<Action>)>,
}

/// Longer than any way to the end.
const STEPS_MAX: usize = 600;

impl Checked {
    pub(crate) fn new(scene: Scene, mutants: &[Mutant]) -> Checked {
        Checked { scene, mutants: mutants.to_vec(), only: None, good: Mutex::default(), most: AtomicU64::new(0) }
    }

    /// Looks at one property alone, by its name, to see that it can be tripped: broken rules are passed over.
    pub(crate) fn only(self, property: &'static str) -> Checked {
        Checked { only: Some(property), ..self }
    }

    /// Walks through the states, nearest first, until all are seen, something is wrong, or the time is over.
    pub(crate) fn check(self, within: Duration) -> Found {
        let began = Instant::now();
        let checker = self.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).timeout(within);
        let checker = checker.spawn_bfs().join();
        let (states, different, deepest) = (checker.state_count(), checker.unique_state_count(), checker.max_depth());
        let discoveries = checker.discoveries().into_iter().filter(|(name, _)| *name != EVERYTHING);
        let wrong =
            discoveries.min_by_key(|(name, path)| (path.clone().into_actions().len(), *name)).map(|(name, path)| {
                let why = path.last_state().broken.clone().unwrap_or_default();
                (name, why, path.into_actions())
            });
        let most = checker.model().most.load(Ordering::Relaxed);
        Found { states, different, deepest, most, whole: wrong.is_none() && began.elapsed() < within, wrong }
    }

    /// From here on nothing goes wrong any more: the run ends well, or halts with cause, within some hundred steps.
    fn can_finish(&self, from: &World) -> bool {
        let (mut world, mut way) = (from.clone(), Vec::new());
        for _ in 0..STEPS_MAX {
            let digest = hash(&world);
            let ends = world.is_done(self.scene.records) || world.halted || world.broken.is_some();
            if ends || self.good.lock().unwrap().contains(&digest) {
                self.good.lock().unwrap().extend(way);
                return true;
            }
            way.push(digest);
            let mut actions = Vec::new();
            world.free_actions(&mut actions);
            let Some(action) = actions.first() else { return false };
            world = self.step(&world, *action);
        }
        false
    }

    fn step(&self, world: &World, action: Action) -> World {
        let next =
            catch_unwind(AssertUnwindSafe(|| mutant::with(self.mutants.clone(), || world.after(&self.scene, action))));
        if let Ok(next) = &next {
            self.most.fetch_max(next.database.complete().0, Ordering::Relaxed);
        }
        next.unwrap_or_else(|_| World { broken: Some("an assertion of the machines".to_owned()), ..world.clone() })
    }
}

fn hash(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

pub(crate) const TWICE: &str = "nothing is counted twice";
pub(crate) const LEFT_OUT: &str = "nothing is left out";
pub(crate) const ORDER: &str = "there is one order";
pub(crate) const RULES: &str = "no rule is broken, nothing halts without cause";
pub(crate) const FINISH: &str = "it can always be finished";
const EVERYTHING: &str = "everything can be counted";

impl Model for Checked {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![mutant::with(self.mutants.clone(), || World::new(&self.scene))]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if (world.broken.is_none() || self.only.is_some()) && !world.halted {
            world.free_actions(actions);
            world.faults(&self.scene, actions);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        Some(self.step(world, action))
    }

    fn properties(&self) -> Vec<Property<Checked>> {
        let all = vec![
            Property::always(TWICE, |_, world: &World| world.database.table.values().all(|count| *count == 1)),
            Property::always(LEFT_OUT, |_, world: &World| {
                let table = &world.database.table;
                table.keys().all(|(shard, record)| *record == 0 || table.contains_key(&(*shard, record - 1)))
            }),
            Property::always(ORDER, |_, world: &World| {
                let rows = &world.database.rows;
                let (low, high) =
                    (world.database.complete(), rows.iter().map(|row| row.txid).max().unwrap_or_default());
                let mut top = rows.iter().filter(|row| row.txid == high).map(|row| (row.chain, row.manifest));
                let first = top.next();
                high.0 <= low.0 + 1 && top.all(|other| Some(other) == first)
            }),
            Property::always(RULES, |_, world: &World| world.broken.is_none()),
            Property::always(FINISH, |model: &Checked, world: &World| model.can_finish(world)),
            Property::sometimes(EVERYTHING, |model: &Checked, world: &World| world.is_done(model.scene.records)),
        ];
        all.into_iter().filter(|property| self.only.is_none_or(|only| only == property.name)).collect()
    }
}
