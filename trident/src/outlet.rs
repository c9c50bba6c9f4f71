//! Hands rows on: from an emitter or a stage task to the tasks that own their keys, ended so that nothing can be missing.
//!
//! ```text
//!  emitter ──┬──► stage tasks, level 0 ──┬──► … ──┬──► committers
//!            └───────────────────────────┴────────┘
//! ```
//!
//! Whoever may send rows to a task sends it `Rows* End` in every attempt of every transaction, rows or not: a receiver counts
//! the ends ([`BatchTracker`](crate::tracker::BatchTracker)).

use std::{any::Any, sync::Arc};

use tine_core::{
    failure::Failure,
    id::{Attempt, TxId},
    task::{Output, Token},
};

use crate::{
    message::{Batches, Message},
    pipeline::{Rows, Target, Targeted},
};

/// The stream on which rows and ends go to the committers.
pub const TO_COMMITTERS: usize = 0;
/// The stream on which rows and ends go to the next level of stage tasks, if there is one.
pub const TO_STAGES: usize = 1;

/// Who owns which shards: for each state, the committer's index by shard.
pub type Owners = Arc<[Vec<usize>]>;

/// The tasks after a task.
#[derive(Clone, Debug)]
pub struct Outlet {
    committers: usize,
    owners: Owners,
    /// The range of hashes that each stage task of the next level owns: the tasks in order, one range each.
    ranges: Vec<usize>,
    /// Which tasks run in other processes, by stream; none where nothing is said.
    remote: [Arc<[bool]>; 2],
}

impl Outlet {
    /// Before `committers` that own shards as `owners` says, and `stages` tasks of the next level: none if there is none.
    pub fn new(committers: usize, owners: Owners, stages: usize) -> Outlet {
        Outlet { committers, owners, ranges: (0..stages).collect(), remote: [[].into(), [].into()] }
    }

    /// The same, with committers and stage tasks of which some run in other processes.
    pub fn with_remote(self, committers: Vec<bool>, stages: Vec<bool>) -> Outlet {
        Outlet { remote: [committers.into(), stages.into()], ..self }
    }

    /// Parts rows among the tasks that they go to, in bytes where that is another process, so that handing them over costs
    /// nothing per row: for drivers, whose threads have the time for it. Errors: those of [`Rows::pack`].
    pub fn part(&self, rows: Targeted) -> Result<Targeted, Failure> {
        let chunks = |stream: usize, (task, part): (usize, Box<dyn Rows>)| match self.remote[stream].get(task) {
            Some(true) => {
                let packed = part.pack()?.into_iter();
                Ok(packed.map(|chunk| Box::new(chunk) as Box<dyn Rows>).collect())
            }
            _ => Ok(vec![part]),
        };
        let part = |(target, rows): (Target, Box<dyn Rows>)| {
            let (stream, owner) = self.way(target);
            let parts = rows.split(owner, self.tasks(stream)).into_iter().enumerate();
            let parts = parts.map(|part| chunks(stream, part)).collect::<Result<_, Failure>>()?;
            Ok((target, Box::new(Parted(parts)) as Box<dyn Rows>))
        };
        rows.into_iter().map(part).collect()
    }

    /// The stream to a target, and whose its shards are.
    fn way(&self, target: Target) -> (usize, &[usize]) {
        match target {
            Target::State(state) => (TO_COMMITTERS, &self.owners[usize::from(state.0)]),
            Target::Exchange(_) => (TO_STAGES, &self.ranges),
        }
    }

    fn tasks(&self, stream: usize) -> usize {
        if stream == TO_COMMITTERS { self.committers } else { self.ranges.len() }
    }

    /// Emits rows and ends, anchored to a tuple that the caller settles afterwards.
    pub(crate) fn hand_over<C>(
        &self,
        (attempt, txid): (Attempt, TxId),
        token: Token,
        rows: Targeted,
        out: &mut Output<Batches, C>,
    ) {
        let mut sent = [TO_COMMITTERS, TO_STAGES].map(|stream| vec![(0_u64, 0_u64); self.tasks(stream)]);
        for (target, rows) in rows {
            let (stream, owner) = self.way(target);
            let parts = rows.parts(owner, self.tasks(stream)).into_iter().enumerate();
            let parts = parts.flat_map(|(task, chunks)| chunks.into_iter().map(move |chunk| (task, chunk)));
            for (task, part) in parts.filter(|(_, part)| part.count() > 0) {
                let (chunks, count) = &mut sent[stream][task];
                *count += part.count() as u64;
                let message = Message::Rows { attempt, txid, chunk: *chunks, target, rows: part };
                *chunks += 1;
                out.emit_direct(stream, task, token, message);
            }
        }
        for (stream, tasks) in sent.into_iter().enumerate() {
            for (task, (chunks, rows)) in tasks.into_iter().enumerate() {
                out.emit_direct(stream, task, token, Message::End { attempt, txid, chunks, rows });
            }
        }
    }
}

/// Rows that are parted already: the chunks of each task.
#[derive(Clone, Debug)]
struct Parted(Vec<Vec<Box<dyn Rows>>>);

impl Rows for Parted {
    fn count(&self) -> usize {
        self.0.iter().flatten().map(|part| part.count()).sum()
    }

    fn split(self: Box<Self>, _: &[usize], _: usize) -> Vec<Box<dyn Rows>> {
        unreachable!("rows are parted once")
    }

    fn parts(self: Box<Self>, _: &[usize], tasks: usize) -> Vec<Vec<Box<dyn Rows>>> {
        assert_eq!(self.0.len(), tasks, "rows are parted for the tasks that they are handed to");
        self.0
    }

    fn boxed_clone(&self) -> Box<dyn Rows> {
        Box::new(self.clone())
    }

    fn shown(&self) -> Vec<String> {
        self.0.iter().flatten().flat_map(|part| part.shown()).collect()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}
