//! Hands rows on: from an emitter or a stage task to the tasks that own their keys, ended so that nothing can be missing.
//!
//! ```text
//!  emitter ──┬──► stage tasks, level 0 ──┬──► … ──┬──► committers
//!            └───────────────────────────┴────────┘
//! ```
//!
//! Whoever may send rows to a task sends it `Rows* End` in every attempt of every transaction, rows or not: a receiver counts
//! the ends ([`BatchTracker`](crate::tracker::BatchTracker)).

use std::sync::Arc;

use tine_core::{
    id::{Attempt, TxId},
    task::{Output, Token},
};

use crate::{
    message::{Batches, Message},
    pipeline::{Target, Targeted},
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
}

impl Outlet {
    /// Before `committers` that own shards as `owners` says, and `stages` tasks of the next level: none if there is none.
    pub fn new(committers: usize, owners: Owners, stages: usize) -> Outlet {
        Outlet { committers, owners, ranges: (0..stages).collect() }
    }

    /// Emits rows and ends, anchored to a tuple that the caller settles afterwards.
    pub(crate) fn hand_over<C>(
        &self,
        (attempt, txid): (Attempt, TxId),
        token: Token,
        rows: Targeted,
        out: &mut Output<Batches, C>,
    ) {
        let mut sent = [vec![(0_u64, 0_u64); self.committers], vec![(0, 0); self.ranges.len()]];
        for (target, rows) in rows {
            let (stream, owner) = match target {
                Target::State(state) => (TO_COMMITTERS, &self.owners[usize::from(state.0)]),
                Target::Exchange(_) => (TO_STAGES, &self.ranges),
            };
            let parts = rows.split(owner, sent[stream].len());
            for (task, part) in parts.into_iter().enumerate().filter(|(_, part)| part.count() > 0) {
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
