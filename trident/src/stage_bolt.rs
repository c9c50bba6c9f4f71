//! The stage task: collects its share of repartitioned rows, and hands what the stages after it make of them on.
//!
//! A bolt without I/O. Combining a complete batch and running the users' closures on it is a [`StageCall`], performed by the
//! driver on a thread of its own. Stage tasks stand in levels: level 0 hears of the emitters, level 1 of level 0, and so on;
//! a task of a level runs all exchanges of that level on its range of hashes.
//!
//! ```text
//!  Rows* End from every sender ──► complete? ──► Run (a call) ──► Rows* End to every receiver, then the acks
//! ```
//!
//! The `End`s are acked only after everything that follows from them has been emitted anchored to one of them, so the
//! tuple tree stays open across the hop.

use std::collections::{BTreeMap, BTreeSet};

use tine_core::{
    failure::Failure,
    id::{Attempt, TaskId, TxId},
    mutant::{self, Mutant},
    task::{Bolt, Output, Token},
};

use crate::{
    emitter::{Meeting, answer_foreign, meet},
    message::{Batches, Message},
    outlet::Outlet,
    pipeline::{ExchangeIndex, Rows, Target, Targeted},
    tracker::BatchTracker,
};

/// The chunks of a batch by exchange, in the order of senders and numbers, however they came.
pub type StageParts = BTreeMap<ExchangeIndex, Vec<Box<dyn Rows>>>;

/// Asks the driver to run the exchanges of this task's level on a complete batch. When a call of a newer attempt comes,
/// older ones are of no interest and may be cut short.
#[derive(Debug)]
pub struct StageCall {
    /// The attempt.
    pub attempt: Attempt,
    /// The transaction.
    pub txid: TxId,
    /// All its chunks.
    pub parts: StageParts,
}

/// What a stage task hears of its calls.
#[derive(Debug)]
pub enum StageReply {
    /// Runs of this attempt go on, one after the other; said every few seconds.
    Running(Attempt),
    /// A run has ended.
    Ran {
        /// The attempt of the call.
        attempt: Attempt,
        /// The transaction of the call.
        txid: TxId,
        /// The rows for what comes next, or why there are none.
        result: Result<Targeted, Failure>,
    },
}

/// One stage task.
#[derive(Debug)]
pub struct StageBolt {
    /// How many tasks send to it.
    senders: usize,
    outlet: Outlet,
    current: Attempt,
    batches: BTreeMap<TxId, Batch>,
    /// The transactions of the current attempt that were handed on or failed: what comes of them later is a duplicate.
    done: BTreeSet<TxId>,
}

/// How many transactions `done` remembers: far more than are ever in flight.
const DONE_MAX: usize = 1024;

/// One transaction of the current attempt.
#[derive(Debug)]
struct Batch {
    tracker: BatchTracker,
    /// By exchange, sender and number.
    chunks: BTreeMap<(ExchangeIndex, TaskId, u64), Box<dyn Rows>>,
    /// The ends, held until everything is handed on.
    ends: Vec<Token>,
    running: bool,
}

impl Batch {
    fn take_parts(&mut self) -> StageParts {
        let mut parts = StageParts::new();
        for ((exchange, ..), rows) in std::mem::take(&mut self.chunks) {
            parts.entry(exchange).or_default().push(rows);
        }
        parts
    }
}

impl StageBolt {
    /// A stage task after `senders` tasks and before `outlet`.
    pub fn new(senders: usize, outlet: Outlet) -> StageBolt {
        StageBolt { senders, outlet, current: Attempt::NONE, batches: BTreeMap::new(), done: BTreeSet::new() }
    }

    /// The attempt it follows.
    pub fn attempt(&self) -> Attempt {
        self.current
    }

    /// Whether to go on with a message of this attempt and transaction; settles the token if not.
    fn admits(&mut self, attempt: Attempt, txid: TxId, token: Token, out: &mut Output<Batches, StageCall>) -> bool {
        match meet(self.current, attempt) {
            Meeting::Current if self.done.contains(&txid) => {
                out.ignore(token);
                false
            }
            Meeting::Current => true,
            Meeting::Newer => {
                self.current = attempt;
                self.done.clear();
                let stale = std::mem::take(&mut self.batches).into_values().flat_map(|batch| batch.ends);
                stale.for_each(|end| out.ignore(end));
                true
            }
            Meeting::Stale => {
                out.ignore(token);
                false
            }
            Meeting::Foreign => {
                out.fail(token, answer_foreign(self.current, attempt));
                false
            }
        }
    }

    fn batch(&mut self, txid: TxId) -> &mut Batch {
        let senders = self.senders;
        self.batches.entry(txid).or_insert_with(|| Batch {
            tracker: BatchTracker::new(senders),
            chunks: BTreeMap::new(),
            ends: Vec::new(),
            running: false,
        })
    }

    fn on_rows(
        &mut self,
        token: Token,
        (from, txid, chunk): (TaskId, TxId, u64),
        (exchange, rows): (ExchangeIndex, Box<dyn Rows>),
        out: &mut Output<Batches, StageCall>,
    ) {
        let batch = self.batch(txid);
        if batch.running || !batch.tracker.rows(from, chunk, rows.count() as u64) {
            return out.ignore(token);
        }
        let place = match mutant::on(Mutant::StageArrivalOrder) {
            true => (exchange, TaskId(0), batch.chunks.len() as u64),
            false => (exchange, from, chunk),
        };
        batch.chunks.insert(place, rows);
        out.ack(token);
        self.run_when_complete(txid, out);
    }

    fn on_end(
        &mut self,
        token: Token,
        (from, txid): (TaskId, TxId),
        (chunks, rows): (u64, u64),
        out: &mut Output<Batches, StageCall>,
    ) {
        let batch = self.batch(txid);
        if batch.running {
            return out.ignore(token);
        }
        match batch.tracker.end(from, chunks, rows) {
            Ok(()) => {
                batch.ends.push(token);
                self.run_when_complete(txid, out);
            }
            Err(failure) => out.fail(token, failure),
        }
    }

    fn run_when_complete(&mut self, txid: TxId, out: &mut Output<Batches, StageCall>) {
        let attempt = self.current;
        let batch = self.batch(txid);
        let early = mutant::on(Mutant::StageRunsEarly) && !batch.ends.is_empty();
        match batch.tracker.complete() {
            Err(failure) => batch.ends.drain(..).for_each(|end| out.fail(end, failure.clone())),
            Ok(false) if !early => {}
            Ok(_) => {
                batch.running = true;
                let parts = batch.take_parts();
                out.call(StageCall { attempt, txid, parts });
            }
        }
    }

    fn on_ran(&mut self, txid: TxId, result: Result<Targeted, Failure>, out: &mut Output<Batches, StageCall>) {
        let Some(batch) = self.batches.remove(&txid) else { return };
        self.done.insert(txid);
        if self.done.len() > DONE_MAX {
            self.done.pop_first();
        }
        match result {
            Ok(rows) => {
                if let Some(first) = batch.ends.first() {
                    self.outlet.hand_over((self.current, txid), *first, rows, out);
                }
                batch.ends.into_iter().for_each(|end| out.ack(end));
            }
            Err(failure) => batch.ends.into_iter().for_each(|end| out.fail(end, failure.clone())),
        }
    }
}

impl Bolt<Batches> for StageBolt {
    type Call = StageCall;
    type Reply = StageReply;

    fn execute(&mut self, token: Token, from: TaskId, message: Message, out: &mut Output<Batches, StageCall>) {
        match message {
            Message::Rows { attempt, txid, chunk, target: Target::Exchange(exchange), rows } => {
                if self.admits(attempt, txid, token, out) {
                    self.on_rows(token, (from, txid, chunk), (exchange, rows), out);
                }
            }
            Message::End { attempt, txid, chunks, rows } => {
                if self.admits(attempt, txid, token, out) {
                    self.on_end(token, (from, txid), (chunks, rows), out);
                }
            }
            other => out.fail(token, Failure::fatal(format!("a stage task was sent {other:?}"))),
        }
    }

    fn reply(&mut self, reply: StageReply, out: &mut Output<Batches, StageCall>) {
        match reply {
            StageReply::Ran { attempt, txid, result }
                if attempt == self.current || mutant::on(Mutant::StageResultOfOldAttempt) =>
            {
                self.on_ran(txid, result, out);
            }
            StageReply::Running(attempt) if attempt == self.current => {
                let running = self.batches.values().filter(|batch| batch.running);
                running.flat_map(|batch| &batch.ends).for_each(|end| out.keep_alive(*end));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
