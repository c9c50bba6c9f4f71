//! The tasks of a process under an assignment (the production machines), and what their drivers hold.

use std::collections::VecDeque;

use tine_core::{
    acker::Acker,
    id::{Attempt, Era, TaskId, WorkerId},
    task::BoltTask,
};
use tine_trident::{
    committer::CommitBolt,
    emitter::{Emitter, ReadCall},
    message::{Batches, Note},
    pipeline::{Built, Exchange, Pipeline},
    placement::Placement,
    source::Reader,
    stage_bolt::StageBolt,
};

/// Which crew of a process: every start of its tasks is another one.
pub(crate) type CrewId = u64;

/// The tasks that run in a process now.
pub(crate) struct Crew {
    pub(crate) id: CrewId,
    pub(crate) era: Era,
    /// Under which name its process takes part.
    pub(crate) me: WorkerId,
    /// Whose coordinator and acker they work for.
    pub(crate) leader: WorkerId,
    /// The workers, by their place.
    pub(crate) peers: Vec<WorkerId>,
    pub(crate) placement: Placement,
    /// In use where the leader is.
    pub(crate) acker: Acker<Note>,
    pub(crate) emitter: BoltTask<Batches, Emitter>,
    /// One stage task of each level.
    pub(crate) stages: Vec<BoltTask<Batches, StageBolt>>,
    pub(crate) exchanges: Vec<Box<dyn Exchange>>,
    /// There are no more committers than shards of a state.
    pub(crate) committer: Option<BoltTask<Batches, CommitBolt>>,
    pub(crate) reading: Reading,
    place: usize,
}

/// Which task of a process a tuple is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Emitter,
    /// Of this level.
    Stage(usize),
    Committer,
}

/// Under which assignment a crew works.
pub(crate) struct Under {
    pub(crate) era: Era,
    pub(crate) leader: WorkerId,
    pub(crate) peers: Vec<WorkerId>,
    pub(crate) placement: Placement,
    pub(crate) place: usize,
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

impl Crew {
    /// Tasks at their start. `seed` differs for every crew.
    pub(crate) fn new(id: CrewId, seed: u64, built: &Built, under: Under) -> Crew {
        let Under { era, leader, peers, placement, place } = under;
        let emitter = Emitter::new(place, placement.emitters.len(), placement.outlet(0));
        let stage = |(level, tasks): (usize, &Vec<TaskId>)| {
            let bolt = StageBolt::new(placement.senders(level), placement.outlet(level + 1));
            BoltTask::new(tasks[place], placement.routes(level + 1), seed ^ (3 + level as u64), bolt)
        };
        let committer = |task: &TaskId| {
            let bolt = CommitBolt::new(placement.shards_of(place), placement.all_senders());
            BoltTask::new(*task, Vec::new(), seed ^ 2, bolt)
        };
        let sides = built.sources.iter().map(|source| Side { reader: None, pipeline: (source.pipeline)() }).collect();
        Crew {
            id,
            era,
            me: peers[place],
            leader,
            acker: Acker::default(),
            emitter: BoltTask::new(placement.emitters[place], placement.routes(0), seed ^ 1, emitter),
            stages: placement.stages.iter().enumerate().map(stage).collect(),
            exchanges: built.exchanges.iter().map(|exchange| (exchange.exchange)()).collect(),
            committer: placement.committers.get(place).map(committer),
            reading: Reading { queue: VecDeque::new(), busy: false, newest: Attempt::NONE, sides },
            peers,
            placement,
            place,
        }
    }

    /// Whether coordinator and acker are in this process.
    pub(crate) fn leads(&self) -> bool {
        self.leader == self.me
    }

    /// The worker that runs a task.
    pub(crate) fn home(&self, task: TaskId) -> Option<WorkerId> {
        self.placement.home(task).and_then(|place| self.peers.get(place)).copied()
    }

    /// Which of its tasks this is; `None` when it runs elsewhere.
    pub(crate) fn part(&self, task: TaskId) -> Option<Part> {
        let Placement { emitters, stages, committers, .. } = &self.placement;
        let mine = |tasks: &Vec<TaskId>| tasks.get(self.place) == Some(&task);
        match (mine(emitters), mine(committers)) {
            (true, _) => Some(Part::Emitter),
            (_, true) => Some(Part::Committer),
            _ => stages.iter().position(mine).map(Part::Stage),
        }
    }
}
