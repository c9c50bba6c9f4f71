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
    pipeline::{Built, BuiltSource, Exchange, Pipeline},
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
    /// The emitters that run here.
    pub(crate) emitters: Vec<EmitterTask>,
    /// The stage tasks of all levels that run here.
    pub(crate) stages: Vec<StageTask>,
    /// There are no more committers than shards of a state.
    pub(crate) committer: Option<BoltTask<Batches, CommitBolt>>,
    place: usize,
}

/// An emitter and its thread.
pub(crate) struct EmitterTask {
    id: TaskId,
    pub(crate) bolt: BoltTask<Batches, Emitter>,
    pub(crate) reading: Reading,
}

/// A stage task and its thread.
pub(crate) struct StageTask {
    id: TaskId,
    pub(crate) bolt: BoltTask<Batches, StageBolt>,
    pub(crate) exchanges: Vec<Box<dyn Exchange>>,
}

/// Which task of a process something is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The how-manyth that runs here.
    Emitter(usize),
    /// The how-manyth that runs here.
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

/// An emitter's thread.
pub(crate) struct Reading {
    pub(crate) queue: VecDeque<ReadCall>,
    pub(crate) busy: bool,
    pub(crate) newest: Attempt,
    pub(crate) sides: Vec<Side>,
}

impl Reading {
    fn new(built: &Built) -> Reading {
        let side = |source: &BuiltSource| Side { reader: None, pipeline: (source.pipeline)() };
        let sides = built.sources.iter().map(side).collect();
        Reading { queue: VecDeque::new(), busy: false, newest: Attempt::NONE, sides }
    }
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
        let here = |tasks: &[TaskId]| {
            let mine = tasks.iter().enumerate().filter(|(_, task)| !placement.is_remote(**task));
            mine.map(|(nth, task)| (nth, *task)).collect::<Vec<_>>()
        };
        let seed_of = |task: TaskId| seed ^ u64::from(task.0);
        let emitter = |(nth, id): (usize, TaskId)| {
            let bolt = Emitter::new(nth, placement.emitters.len(), placement.outlet(0));
            let bolt = BoltTask::new(id, placement.routes(0), seed_of(id), bolt);
            EmitterTask { id, bolt, reading: Reading::new(built) }
        };
        let stage = |level: usize, id: TaskId| {
            let bolt = StageBolt::new(placement.senders(level), placement.outlet(level + 1));
            let bolt = BoltTask::new(id, placement.routes(level + 1), seed_of(id), bolt);
            StageTask { id, bolt, exchanges: built.exchanges.iter().map(|exchange| (exchange.exchange)()).collect() }
        };
        let committer = |task: &TaskId| {
            let bolt = CommitBolt::new(placement.shards_of(place), placement.all_senders());
            BoltTask::new(*task, Vec::new(), seed_of(*task), bolt)
        };
        let levels = placement.stages.iter().enumerate();
        Crew {
            id,
            era,
            me: peers[place],
            leader,
            acker: Acker::default(),
            emitters: here(&placement.emitters).into_iter().map(emitter).collect(),
            stages: levels
                .flat_map(|(level, tasks)| here(tasks).into_iter().map(move |(_, id)| (level, id)))
                .map(|(level, id)| stage(level, id))
                .collect(),
            committer: placement.committers.get(place).map(committer),
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
        if self.placement.committers.get(self.place) == Some(&task) {
            return Some(Part::Committer);
        }
        let emitter = self.emitters.iter().position(|emitter| emitter.id == task);
        let stage = || self.stages.iter().position(|stage| stage.id == task);
        emitter.map(Part::Emitter).or_else(|| stage().map(Part::Stage))
    }
}
