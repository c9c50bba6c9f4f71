//! The emitter: reads the ranges of a plan, and hands the pre-aggregated rows to the tasks that own their keys.
//!
//! A bolt without I/O: reading is a [`ReadCall`], performed on a thread of its own by the driver, with the source's
//! reader and the fused operators. Emitter `i` of `n` reads the partitions whose place in the plan is `i` modulo `n`.

use std::collections::{BTreeMap, BTreeSet};

use tine_core::{
    failure::{Failure, FailureKind},
    id::{Attempt, TaskId, TxId},
    mutant::{self, Mutant},
    task::{Bolt, Output, Token},
};

use crate::{
    message::{Batches, Message, Note, ReadCounts},
    outlet::Outlet,
    pipeline::BatchRows,
    plan::Plan,
    source::PartitionRange,
};

/// Asks the driver to read some ranges and run the operators on them. Calls are performed in order; when a call of a
/// newer attempt comes, older ones are of no interest and may be cut short.
#[derive(Clone, Debug)]
pub struct ReadCall {
    /// The attempt.
    pub attempt: Attempt,
    /// The transaction.
    pub txid: TxId,
    /// What to read, in order; empty ranges are left out.
    pub ranges: Vec<PartitionRange>,
}

/// What an emitter hears of its calls.
#[derive(Debug)]
pub enum EmitterReply {
    /// Reads of this attempt go on, one after the other; said every few seconds.
    Reading(Attempt),
    /// The read has ended.
    Read(ReadReply),
}

/// What came of a [`ReadCall`].
#[derive(Debug)]
pub struct ReadReply {
    /// The attempt of the call.
    pub attempt: Attempt,
    /// The transaction of the call.
    pub txid: TxId,
    /// The rows of the whole batch part, or why there are none.
    pub result: Result<BatchRows, Failure>,
}

/// One emitter.
#[derive(Clone, Debug)]
pub struct Emitter {
    index: usize,
    emitters: usize,
    outlet: Outlet,
    current: Attempt,
    /// The transactions of the current attempt under way here.
    reading: BTreeMap<TxId, Token>,
    /// The last transactions that the current attempt told this emitter to read: told again, they are duplicates.
    told: BTreeSet<TxId>,
}

/// How many transactions `told` remembers: far more than are ever in flight.
const TOLD_MAX: usize = 64;

impl Emitter {
    /// Emitter `index` of `emitters`, before `outlet`.
    pub fn new(index: usize, emitters: usize, outlet: Outlet) -> Emitter {
        Emitter { index, emitters, outlet, current: Attempt::NONE, reading: BTreeMap::new(), told: BTreeSet::new() }
    }

    /// The attempt it follows.
    pub fn attempt(&self) -> Attempt {
        self.current
    }

    fn my_ranges(&self, plan: &Plan) -> Vec<PartitionRange> {
        let mine = |place: usize| place % self.emitters == self.index;
        let ranges = plan.ranges.iter().enumerate().filter(|(place, range)| mine(*place) && range.to > range.from);
        ranges.map(|(_, range)| range.clone()).collect()
    }

    fn hand_over(&self, token: Token, txid: TxId, rows: BatchRows, out: &mut Output<Batches, ReadCall>) {
        let counts = ReadCounts {
            records: rows.records,
            bytes: rows.bytes,
            skipped: rows.skipped,
            dead_letters: rows.dead_letters,
        };
        self.outlet.hand_over((self.current, txid), token, rows.rows, out);
        out.ack_with(token, Note::Read(counts));
    }
}

/// How a worker meets the attempt of a message that it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meeting {
    /// The one it works for.
    Current,
    /// A newer one: everything of older ones is dropped.
    Newer,
    /// An older one of the same reign: silence, nobody waits for an answer.
    Stale,
    /// Another reign that is not newer: answered with one's own epoch, so that its leader is elected anew above it.
    Foreign,
}

pub(crate) fn meet(current: Attempt, arriving: Attempt) -> Meeting {
    if arriving == current {
        Meeting::Current
    } else if current < arriving || mutant::on(Mutant::EqualityInsteadOfOrdering) {
        Meeting::Newer
    } else if arriving.same_reign(current) || mutant::on(Mutant::LowerEpochSilence) {
        Meeting::Stale
    } else {
        Meeting::Foreign
    }
}

pub(crate) fn answer_foreign(current: Attempt, arriving: Attempt) -> Failure {
    let message =
        format!("this worker follows attempt {current}; attempt {arriving} comes from a leader that was replaced");
    Failure::new(FailureKind::Fenced, message)
}

impl Bolt<Batches> for Emitter {
    type Call = ReadCall;
    type Reply = EmitterReply;

    fn execute(&mut self, token: Token, _: TaskId, message: Message, out: &mut Output<Batches, ReadCall>) {
        let Message::Emit { attempt, plan } = message else {
            return out.fail(token, Failure::fatal(format!("an emitter was sent {message:?}")));
        };
        match meet(self.current, attempt) {
            Meeting::Stale => return out.ignore(token),
            Meeting::Foreign => return out.fail(token, answer_foreign(self.current, attempt)),
            Meeting::Newer => {
                self.current = attempt;
                self.told.clear();
                std::mem::take(&mut self.reading).into_values().for_each(|stale| out.ignore(stale));
            }
            Meeting::Current => {}
        }
        if !self.told.insert(plan.txid) {
            return out.ignore(token);
        }
        if self.told.len() > TOLD_MAX {
            self.told.pop_first();
        }
        self.reading.insert(plan.txid, token);
        out.call(ReadCall { attempt, txid: plan.txid, ranges: self.my_ranges(&plan) });
    }

    fn reply(&mut self, reply: EmitterReply, out: &mut Output<Batches, ReadCall>) {
        let ReadReply { attempt, txid, result } = match reply {
            EmitterReply::Read(reply) => reply,
            EmitterReply::Reading(attempt) if attempt == self.current => {
                return self.reading.values().for_each(|token| out.keep_alive(*token));
            }
            EmitterReply::Reading(_) => return,
        };
        if attempt != self.current {
            return;
        }
        let Some(token) = self.reading.remove(&txid) else { return };
        match result {
            Ok(rows) => self.hand_over(token, txid, rows, out),
            Err(failure) => out.fail(token, failure),
        }
    }
}
