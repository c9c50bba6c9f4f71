//! Starts the tasks that a placement has in this process.

use std::sync::Arc;

use rand::Rng;
use tine_core::{
    id::TaskId,
    runtime::{Inbox, Links, run_bolt},
    task::BoltTask,
};
use tokio::task::JoinSet;

use super::{Options, committing::Committing, reading::Reading, staging::Staging};
use crate::{
    committer::CommitBolt, emitter::Emitter, message::Batches, pipeline::Built, placement::Placement,
    stage_bolt::StageBolt,
};

/// Tasks that run here, and how others find them. Dropping the set ends them.
pub(super) struct Crew {
    pub(super) links: Arc<Links<Batches>>,
    pub(super) tasks: JoinSet<()>,
}

/// Starts emitters, stage tasks and committers; `links` know the coordinator and the tasks of other processes already.
pub(super) fn start(built: &Arc<Built>, options: &Options, place: &Placement, mut links: Links<Batches>) -> Crew {
    let emitters = add_bolts(&mut links, place, &place.emitters);
    let stages: Vec<_> = place.stages.iter().map(|level| add_bolts(&mut links, place, level)).collect();
    let committers = add_bolts(&mut links, place, &place.committers);
    let (links, mut tasks, seed) = (Arc::new(links), JoinSet::new(), rand::rng().random::<u64>());
    for (index, id, (inbox, arrivals)) in emitters {
        let bolt = Emitter::new(index, place.emitters.len(), place.outlet(0));
        let calls = Reading::start(built.clone(), place.outlet(0), index);
        let task = BoltTask::new(id, place.routes(0), seed, bolt);
        tasks.spawn(run_bolt(task, links.clone(), inbox, arrivals, calls));
    }
    for (level, stages) in stages.into_iter().enumerate() {
        for (index, id, (inbox, arrivals)) in stages {
            let bolt = StageBolt::new(place.senders(level), place.outlet(level + 1));
            let calls = Staging::start(built.clone(), place.outlet(level + 1), (level, index));
            let task = BoltTask::new(id, place.routes(level + 1), seed, bolt);
            tasks.spawn(run_bolt(task, links.clone(), inbox, arrivals, calls));
        }
    }
    for (index, id, (inbox, arrivals)) in committers {
        let bolt = CommitBolt::new(place.shards_of(index), place.all_senders());
        let calls = Committing::start(built.clone(), options.watch(), &mut tasks);
        tasks.spawn(run_bolt(BoltTask::new(id, vec![], seed, bolt), links.clone(), inbox, arrivals, calls));
    }
    Crew { links, tasks }
}

/// A task's number among its like, its id, and both ends of its inbox.
type Added<R> = (usize, TaskId, Inbox<Batches, R>);

/// Those of some tasks that run here.
fn add_bolts<R: Send + 'static>(links: &mut Links<Batches>, place: &Placement, ids: &[TaskId]) -> Vec<Added<R>> {
    let here = ids.iter().enumerate().filter(|(_, id)| !place.is_remote(**id));
    here.map(|(index, id)| (index, *id, links.add_bolt(*id))).collect()
}
