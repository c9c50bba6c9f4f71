//! A process of the models: the production machines, and what their driver holds.

use std::{collections::VecDeque, sync::Arc};

use tine_core::{
    acker::Acker,
    id::{Attempt, Nonce, TaskId, TxId},
    task::{BoltTask, Grouping, Route, SpoutTask},
};
use tine_state::{CommitOrder, Committer, Location, Prepare, Procedure, Raise, Statement, TransactionRow};
use tine_trident::{
    committer::CommitBolt,
    coordinator::{
        Coordinator,
        event::{CommitMode, Setup},
    },
    emitter::Emitter,
    message::{Batches, Note},
    outlet::Outlet,
    source::Horizon,
};

use super::{database::BackendId, part::Part, records::at};

/// How many processes there are; each owns one shard.
pub(crate) const PROCESSES: usize = 2;
/// The committer's session.
pub(crate) const COMMITS: usize = 0;
/// The leader's session.
pub(crate) const LEADER: usize = 1;

/// The tasks of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Coordinator,
    Emitter,
    Committer,
}

pub(crate) fn task(process: usize, role: Role) -> TaskId {
    TaskId(process as u32 * 4 + role as u32)
}

/// A process.
#[derive(Clone, Debug, Hash, PartialEq)]
pub(crate) struct Process {
    pub(crate) life: u32,
    pub(crate) leader: Part<SpoutTask<Batches, Coordinator>>,
    pub(crate) acker: Part<Acker<Note>>,
    pub(crate) emitter: Part<BoltTask<Batches, Emitter>>,
    pub(crate) committer: Part<BoltTask<Batches, CommitBolt>>,
    /// Whether it stands for election.
    pub(crate) campaigns: bool,
    /// The session under which it was elected.
    pub(crate) nonce: Nonce,
    pub(crate) lanes: [Part<Lane>; 2],
    /// The last two orders that its committer was given, where they may be run again.
    pub(crate) orders: Part<Vec<Box<CommitOrder>>>,
}

/// One database session with the jobs that wait for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane {
    pub(crate) queue: VecDeque<Job>,
    pub(crate) running: Option<Running>,
    pub(crate) backend: Option<BackendId>,
}

/// A job for the database.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    Commit(Box<CommitOrder>),
    Raise(Attempt),
    Prepare(Arc<TransactionRow>, Location),
}

/// A procedure under way.
#[derive(Clone, Debug)]
pub(crate) enum Running {
    Commit(Box<Committer>, Attempt, TxId),
    Raise(Box<Raise>, Attempt),
    Prepare(Box<Prepare>, Attempt, TxId),
}

impl Job {
    /// Its procedure and the first statement of that.
    pub(crate) fn start(self) -> (Running, Statement) {
        match self {
            Job::Commit(order) => {
                let (attempt, txid) = (order.attempt, order.txid);
                let mut committer = Box::new(Committer::new(*order));
                let first = committer.start();
                (Running::Commit(committer, attempt, txid), first)
            }
            Job::Raise(attempt) => {
                let mut raise = Box::new(Raise::new(attempt));
                let first = raise.start();
                (Running::Raise(raise, attempt), first)
            }
            Job::Prepare(row, location) => {
                let (attempt, txid) = (row.attempt, row.txid);
                let mut prepare = Box::new(Prepare::new(row, location));
                let first = prepare.start();
                (Running::Prepare(prepare, attempt, txid), first)
            }
        }
    }
}

impl Process {
    /// A process at the start of a life. The first one plans a record at a time, the other two: what is planned anew by
    /// the other differs.
    pub(crate) fn new(index: usize, life: u32) -> Process {
        let all = |role| (0..PROCESSES).map(|process| task(process, role)).collect::<Vec<_>>();
        let route = |grouping, targets| Route { grouping, targets };
        let committers = || route(Grouping::Direct, all(Role::Committer));
        let to_all = vec![route(Grouping::All, all(Role::Emitter)), route(Grouping::All, all(Role::Committer))];
        let setup = Setup {
            shards: (0..PROCESSES).map(at).collect(),
            committers: PROCESSES,
            mode: CommitMode::Prepared,
            horizon: Horizon::Endless,
            in_flight_max: 2,
            batch_ms: 20,
            batch_units_max: 1 + index as u64,
            poll_ms: 10,
            // Its time does not pass by itself.
            look_back_ms: u64::MAX,
            poison_retries: 2,
        };
        let owners: Vec<usize> = (0..PROCESSES).collect();
        let outlet = Outlet::new(PROCESSES, vec![owners].into(), 0);
        let seed = u64::from(life) * 16 + index as u64;
        Process {
            life,
            leader: Part::new(SpoutTask::new(task(index, Role::Coordinator), to_all, seed, Coordinator::new(setup))),
            acker: Part::new(Acker::default()),
            emitter: Part::new(BoltTask::new(
                task(index, Role::Emitter),
                vec![committers()],
                seed,
                Emitter::new(index, PROCESSES, outlet),
            )),
            committer: Part::new(BoltTask::new(
                task(index, Role::Committer),
                Vec::new(),
                seed,
                CommitBolt::new([at(index)].into(), PROCESSES),
            )),
            campaigns: false,
            nonce: Nonce(0),
            lanes: [0, 1].map(|_| Part::new(Lane::default())),
            orders: Part::new(Vec::new()),
        }
    }

    /// Works out the digests of what has changed.
    pub(crate) fn settle(&mut self) {
        self.leader.settle();
        self.acker.settle();
        self.emitter.settle();
        self.committer.settle();
        self.lanes.iter_mut().for_each(Part::settle);
        self.orders.settle();
    }
}
