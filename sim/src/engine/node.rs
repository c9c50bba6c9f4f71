//! A process: its coordinator, the crew of its tasks, its part in the membership, and what their drivers hold.

use std::collections::{HashMap, VecDeque};

use tine_core::{
    id::{Attempt, Nonce, TxId},
    task::SpoutTask,
    tuple::Root,
};
use tine_state::{Committer, Prepare, Raise};
use tine_trident::{
    coordinator::{
        Coordinator,
        event::{CommitMode, Setup},
    },
    message::Batches,
    pipeline::Built,
    placement::COORDINATOR,
    source::{Bounds, Horizon},
};

use super::{
    crew::{Crew, CrewId},
    event::{Errand, Inbound, Job},
    workers::Worker,
};
use crate::{
    settings::{Mode, Settings},
    sql::BackendId,
};

/// The committer's lane, the leader's, and the one that campaigns read the group with.
pub(crate) const COMMITS: usize = 0;
pub(crate) const LEADER: usize = 1;
pub(crate) const CAMPAIGN: usize = 2;

/// A process.
pub(crate) struct Node {
    /// Which life this is; what was meant for an earlier one is not for this one.
    pub(crate) life: u32,
    /// What is random about this life.
    pub(crate) seed: u64,
    pub(crate) up: bool,
    pub(crate) paused: bool,
    /// What came while it was paused.
    pub(crate) backlog: Vec<Inbound>,
    /// Since when coordination has not heard of it.
    pub(crate) silent_since_us: Option<u64>,
    pub(crate) leader: SpoutTask<Batches, Coordinator>,
    /// The crew that the coordinator is wired to.
    pub(crate) wired: Option<CrewId>,
    pub(crate) crew: Option<Crew>,
    pub(crate) worker: Worker,
    pub(crate) lanes: [Lane; 3],
    pub(crate) errands: Errands,
    pub(crate) bounds: Vec<Option<Box<dyn Bounds>>>,
    /// How often its coordinator has claimed an epoch.
    pub(crate) claims: u64,
    /// The attempt that it last raised the fence to.
    pub(crate) raised: Attempt,
    /// What its coordinator emitted last: in which attempt, to which crew, and up to which transaction.
    pub(crate) emitted: Option<(Attempt, CrewId, TxId)>,
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
    Commit(Box<Committer>, Attempt, TxId),
    Raise(Box<Raise>, Attempt),
    Prepare(Box<Prepare>, Attempt, TxId),
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
    /// A process at its start, without tasks. `seed` differs for every life.
    pub(crate) fn new(life: u32, seed: u64, built: &Built, settings: &Settings, worker: Worker) -> Node {
        Node {
            life,
            seed,
            up: true,
            paused: false,
            backlog: Vec::new(),
            silent_since_us: None,
            leader: SpoutTask::new(COORDINATOR, Vec::new(), seed, Coordinator::new(setup(settings, built))),
            wired: None,
            crew: None,
            worker,
            lanes: Default::default(),
            errands: Errands::default(),
            bounds: built.sources.iter().map(|_| None).collect(),
            claims: 0,
            raised: Attempt::NONE,
            emitted: None,
        }
    }

    /// How many trees its acker knows.
    pub(crate) fn under_way(&self) -> usize {
        self.crew.as_ref().map_or(0, |crew| crew.acker.len())
    }
}

fn setup(settings: &Settings, built: &Built) -> Setup {
    let (committers, mode) = match settings.mode {
        // Until there are owners.
        Mode::Cluster(_) => (0, CommitMode::Prepared),
        Mode::Embedded => (1, CommitMode::Whole),
    };
    Setup {
        shards: built.group.shard_refs().into(),
        committers,
        mode,
        horizon: Horizon::Endless,
        in_flight_max: 3,
        batch_ms: 20,
        batch_units_max: u64::MAX,
        poll_ms: 10,
        look_back_ms: 1_000,
        poison_retries: 2,
    }
}

/// In which attempt a tree was started: lookups only, never iterated.
pub(crate) type Homes = HashMap<Root, Attempt>;
