//! A process: its tasks (the production machines) and what their drivers hold.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use tine_core::{
    acker::Acker,
    id::{Attempt, Nonce, TaskId},
    task::{BoltTask, Grouping, Route, SpoutTask},
};
use tine_state::{Committer, Prepare, Raise, ShardRef};
use tine_trident::{
    committer::CommitBolt,
    coordinator::{
        Coordinator,
        event::{CommitMode, Setup},
    },
    emitter::{Emitter, ReadCall},
    message::{Batches, Note},
    outlet::{Outlet, Owners},
    pipeline::{Built, Exchange, Pipeline},
    source::{Bounds, Horizon, Reader},
    stage_bolt::StageBolt,
};

use super::event::{Errand, Inbound, Job};
use crate::{
    settings::{Mode, Settings},
    sql::BackendId,
};

/// Task ids of a process: coordinator, emitter, committer. Those of stage tasks begin at [`STAGES`], level by level.
pub(crate) const TASKS_PER_NODE: u32 = 4;
/// The first task id of stage tasks.
const STAGES: u32 = 1 << 16;
/// How many task ids each level of stage tasks has: more than there are ever processes.
const STAGES_PER_LEVEL: u32 = 1 << 8;

pub(crate) fn coordinator_of(node: usize) -> TaskId {
    TaskId(u32::try_from(node).unwrap_or(0) * TASKS_PER_NODE)
}

pub(crate) fn emitter_of(node: usize) -> TaskId {
    TaskId(coordinator_of(node).0 + 1)
}

pub(crate) fn committer_of(node: usize) -> TaskId {
    TaskId(coordinator_of(node).0 + 2)
}

fn stage_of(node: usize, level: usize) -> TaskId {
    let narrow = |number: usize| u32::try_from(number).unwrap_or(0);
    TaskId(STAGES + narrow(level) * STAGES_PER_LEVEL + narrow(node))
}

/// The process of a task, and its level if it is a stage task.
pub(crate) fn node_of(TaskId(task): TaskId) -> (usize, Option<usize>) {
    match task.checked_sub(STAGES) {
        None => ((task / TASKS_PER_NODE) as usize, None),
        Some(stage) => ((stage % STAGES_PER_LEVEL) as usize, Some((stage / STAGES_PER_LEVEL) as usize)),
    }
}

/// The committer's lane, the leader's, and the one that campaigns read the group with.
pub(crate) const COMMITS: usize = 0;
pub(crate) const LEADER: usize = 1;
pub(crate) const CAMPAIGN: usize = 2;

/// A process.
pub(crate) struct Node {
    /// Which life this is; what was meant for an earlier one is not for this one.
    pub(crate) life: u32,
    pub(crate) up: bool,
    pub(crate) paused: bool,
    /// What came while it was paused.
    pub(crate) backlog: Vec<Inbound>,
    /// Since when coordination has not heard of it.
    pub(crate) silent_since_us: Option<u64>,
    pub(crate) leader: SpoutTask<Batches, Coordinator>,
    pub(crate) acker: Acker<Note>,
    pub(crate) emitter: BoltTask<Batches, Emitter>,
    /// One stage task of each level.
    pub(crate) stages: Vec<BoltTask<Batches, StageBolt>>,
    pub(crate) exchanges: Vec<Box<dyn Exchange>>,
    pub(crate) committer: BoltTask<Batches, CommitBolt>,
    pub(crate) reading: Reading,
    pub(crate) lanes: [Lane; 3],
    pub(crate) errands: Errands,
    pub(crate) bounds: Vec<Option<Box<dyn Bounds>>>,
    /// How often its coordinator has claimed an epoch.
    pub(crate) claims: u64,
    /// The attempt that it last raised the fence to.
    pub(crate) raised: Attempt,
}

/// The emitter's thread.
pub(crate) struct Reading {
    pub(crate) queue: VecDeque<ReadCall>,
    pub(crate) busy: bool,
    pub(crate) newest: Attempt,
    pub(crate) sides: Vec<Side>,
}

/// One source as the emitter's thread sees it.
pub(crate) struct Side {
    pub(crate) reader: Option<Box<dyn Reader>>,
    pub(crate) pipeline: Box<dyn Pipeline>,
}

/// One database session with the jobs that wait for it.
#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) queue: VecDeque<Job>,
    pub(crate) running: Option<Running>,
    pub(crate) backend: Option<BackendId>,
    /// Numbers the statements, so that a late answer is told from the one that is waited for.
    pub(crate) sent: u64,
    /// Whether the statement under way is a `COMMIT`.
    pub(crate) at_commit: bool,
}

/// A procedure under way.
pub(crate) enum Running {
    Commit(Box<Committer>, Attempt, tine_core::id::TxId),
    Raise(Box<Raise>, Attempt),
    Prepare(Box<Prepare>, Attempt, tine_core::id::TxId),
    ReadGroup,
}

/// The leader's worker for coordination.
#[derive(Default)]
pub(crate) struct Errands {
    pub(crate) queue: VecDeque<Errand>,
    pub(crate) busy: Option<Errand>,
    /// Embedded: the backend that holds the lock.
    pub(crate) session: Option<usize>,
    pub(crate) lock: Option<BackendId>,
    pub(crate) nonce: Nonce,
    /// The nonce of the campaign under way.
    pub(crate) campaigning: Nonce,
    pub(crate) record: Option<tine_core::coordination::GroupRecord>,
    pub(crate) asked: u64,
}

impl Node {
    /// A process at its start. `seed` differs for every life.
    pub(crate) fn new(node: usize, life: u32, seed: u64, built: &Built, settings: &Settings, shards: &Split) -> Node {
        let peers: Vec<usize> = match settings.mode {
            Mode::Cluster(_) => shards.members.clone(),
            Mode::Embedded => vec![node],
        };
        let index = peers.iter().position(|peer| *peer == node).unwrap_or(0);
        let (count, levels) = (peers.len(), built.levels());
        let tasks = |of: &dyn Fn(usize) -> TaskId| peers.iter().map(|peer| of(*peer)).collect::<Vec<_>>();
        let (emitters, committers) = (tasks(&emitter_of), tasks(&committer_of));
        let all = |targets: Vec<TaskId>| Route { grouping: Grouping::All, targets };
        // What stands before a level of stage tasks, or before the committers alone.
        let routes = |level: usize| {
            let stages = if level < levels { tasks(&|peer| stage_of(peer, level)) } else { Vec::new() };
            let direct = |targets| Route { grouping: Grouping::Direct, targets };
            vec![direct(committers.clone()), direct(stages)]
        };
        let outlet = |level| Outlet::new(count, shards.owners.clone(), if level < levels { count } else { 0 });
        let stage = |level: usize| {
            let bolt = StageBolt::new(count, outlet(level + 1));
            BoltTask::new(stage_of(node, level), routes(level + 1), seed ^ (3 + level as u64), bolt)
        };
        let setup = setup(settings, count, built);
        let spout = Coordinator::new(setup);
        let emitter = Emitter::new(index, count, outlet(0));
        let committer = CommitBolt::new(shards.of[index].clone(), count * (1 + levels));
        Node {
            life,
            up: true,
            paused: false,
            backlog: Vec::new(),
            silent_since_us: None,
            leader: SpoutTask::new(coordinator_of(node), vec![all(emitters), all(committers.clone())], seed, spout),
            acker: Acker::default(),
            emitter: BoltTask::new(emitter_of(node), routes(0), seed ^ 1, emitter),
            stages: (0..levels).map(stage).collect(),
            exchanges: built.exchanges.iter().map(|exchange| (exchange.exchange)()).collect(),
            committer: BoltTask::new(committer_of(node), Vec::new(), seed ^ 2, committer),
            reading: Reading { queue: VecDeque::new(), busy: false, newest: Attempt::NONE, sides: sides(built) },
            lanes: Default::default(),
            errands: Errands::default(),
            bounds: built.sources.iter().map(|_| None).collect(),
            claims: 0,
            raised: Attempt::NONE,
        }
    }
}

pub(crate) fn sides(built: &Built) -> Vec<Side> {
    built.sources.iter().map(|source| Side { reader: None, pipeline: (source.pipeline)() }).collect()
}

/// Who takes part, and which committer owns which shards.
pub(crate) struct Split {
    /// The processes with tasks, in the order of their committers.
    pub(crate) members: Vec<usize>,
    pub(crate) owners: Owners,
    pub(crate) of: Vec<Arc<[ShardRef]>>,
}

impl Split {
    /// The shards of each state dealt out in turn, beginning with the committer of number `first`.
    pub(crate) fn new(built: &Built, members: Vec<usize>, first: usize) -> Split {
        let committers = members.len();
        let owners: Vec<Vec<usize>> = built
            .group
            .states
            .iter()
            .map(|state| (0..usize::from(state.shards)).map(|shard| (first + shard) % committers).collect())
            .collect();
        let owner = |at: &ShardRef| owners[usize::from(at.state.0)][usize::from(at.shard.0)];
        let refs = built.group.shard_refs();
        let of = (0..committers).map(|me| refs.iter().filter(|at| owner(at) == me).copied().collect()).collect();
        Split { members, owners: owners.into(), of }
    }
}

fn setup(settings: &Settings, committers: usize, built: &Built) -> Setup {
    Setup {
        shards: built.group.shard_refs().into(),
        committers,
        mode: match settings.mode {
            Mode::Cluster(_) => CommitMode::Prepared,
            Mode::Embedded => CommitMode::Whole,
        },
        horizon: Horizon::Endless,
        in_flight_max: 3,
        batch_ms: 20,
        batch_units_max: u64::MAX,
        poll_ms: 10,
        look_back_ms: 1_000,
        poison_retries: 2,
    }
}

/// Which process started a tree, in which attempt: lookups only, never iterated.
pub(crate) type Homes = HashMap<tine_core::tuple::Root, (usize, Attempt)>;
