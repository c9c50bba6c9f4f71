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
    emitter::{Emitter, Owners, ReadCall},
    message::{Batches, Note},
    pipeline::{Built, Pipeline},
    source::{Bounds, Horizon, Reader},
};

use super::event::{Errand, Inbound, Job};
use crate::{
    settings::{Mode, Settings},
    sql::BackendId,
};

/// Task ids of a process: coordinator, emitter, committer.
pub(crate) const TASKS_PER_NODE: u32 = 4;

pub(crate) fn coordinator_of(node: usize) -> TaskId {
    TaskId(u32::try_from(node).unwrap_or(0) * TASKS_PER_NODE)
}

pub(crate) fn emitter_of(node: usize) -> TaskId {
    TaskId(coordinator_of(node).0 + 1)
}

pub(crate) fn committer_of(node: usize) -> TaskId {
    TaskId(coordinator_of(node).0 + 2)
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
        let (emitters, committers) = match settings.mode {
            Mode::Cluster(_) => {
                let all = 0..settings.nodes();
                (all.clone().map(emitter_of).collect(), all.map(committer_of).collect())
            }
            Mode::Embedded => (vec![emitter_of(node)], vec![committer_of(node)]),
        };
        let (index, count) = match settings.mode {
            Mode::Cluster(_) => (node, settings.nodes()),
            Mode::Embedded => (0, 1),
        };
        let all = |targets: Vec<TaskId>| Route { grouping: Grouping::All, targets };
        let direct = vec![Route { grouping: Grouping::Direct, targets: committers.clone() }];
        let setup = setup(settings, count, built);
        let spout = Coordinator::new(setup);
        let emitter = Emitter::new(index, count, count, shards.owners.clone());
        let committer = CommitBolt::new(shards.of[index].clone(), count);
        Node {
            life,
            up: true,
            paused: false,
            backlog: Vec::new(),
            silent_since_us: None,
            leader: SpoutTask::new(coordinator_of(node), vec![all(emitters), all(committers)], seed, spout),
            acker: Acker::default(),
            emitter: BoltTask::new(emitter_of(node), direct, seed ^ 1, emitter),
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

/// Which committer owns which shards.
pub(crate) struct Split {
    pub(crate) owners: Owners,
    pub(crate) of: Vec<Arc<[ShardRef]>>,
}

impl Split {
    /// The shards of each state dealt out in turn.
    pub(crate) fn new(built: &Built, committers: usize) -> Split {
        let owners: Vec<Vec<usize>> = built
            .group
            .states
            .iter()
            .map(|state| (0..usize::from(state.shards)).map(|shard| shard % committers).collect())
            .collect();
        let owner = |at: &ShardRef| owners[usize::from(at.state.0)][usize::from(at.shard.0)];
        let refs = built.group.shard_refs();
        let of = (0..committers).map(|me| refs.iter().filter(|at| owner(at) == me).copied().collect()).collect();
        Split { owners: owners.into(), of }
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
        batch_max_ms: 100,
        batch_units_max: u64::MAX,
        poll_ms: 10,
        poison_retries: 2,
    }
}

/// Which process started a tree, in which attempt: lookups only, never iterated.
pub(crate) type Homes = HashMap<tine_core::tuple::Root, (usize, Attempt)>;
