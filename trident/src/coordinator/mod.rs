//! Decides what happens next to every open transaction.
//!
//! The coordinator is a core spout without I/O: it is told what happened ([`Reply`], acks and failures of its tuple
//! trees) and answers with what to do ([`Call`], new trees), in order. It has no clock, no task and no randomness; the
//! driver performs its calls.
//!
//! A transaction moves `planned → emitted → processed → prepared → committing → complete`. Transactions are processed in
//! parallel and committed one by one, in txid order. When one fails, all open ones start again in the next generation,
//! after the fence was raised in the ledger and what it shows was read.
//!
//! Read in this order: [`event`] (calls and replies), [`reign`], [`steps`], [`answers`]; [`reconcile`] says what stands after a
//! raise, [`cut`] how much the next plan takes.

mod answers;
mod cut;
pub mod event;
mod reconcile;
mod reign;
mod steps;

use std::collections::BTreeMap;

use tine_core::{
    codec,
    failure::{Failure, FailureKind},
    hash::Hash128,
    id::{Attempt, Nonce, TxId},
    mutant::{self, Mutant},
    task::{Output, Spout},
};
use tine_state::{Chain, Digest, Location, Manifest, PrepareOutcome, ShardRef};

use self::{cut::Cut, event::*};
use crate::{
    message::{Batches, CommitCommand, Message, Note, ReadCounts, Tree},
    plan::{Plan, Planned, Positions},
    source::{Horizon, PartitionBounds, PartitionRange, SourceIndex},
};

/// The stream on which plans go to the emitters.
pub const TO_EMITTERS: usize = 0;
/// The stream on which commits go to the committers.
pub const TO_COMMITTERS: usize = 1;

type Out = Output<Batches, Call>;

/// The coordinator of one batch group.
#[derive(Clone, Debug)]
pub struct Coordinator {
    setup: Setup,
    /// How many committers there are now; 0 while nobody can be relied on.
    committers: usize,
    moving: Moving,
    role: Role,
    attempt: Attempt,
    lineage: u128,
    location: Location,
    /// Plans that may stand: from coordination, and those this leader made.
    known: BTreeMap<TxId, Planned>,
    /// The last transaction that is complete everywhere, its chain, and where it left the sources.
    complete: (TxId, Chain),
    positions: Positions,
    open: BTreeMap<TxId, Open>,
    cut: Cut,
    /// The plan that is being written to coordination.
    writing: Option<TxId>,
    asking: bool,
    /// How often in a row the sources did not answer.
    asked_in_vain: u32,
    ask_at_ms: u64,
    /// Until when the next plan waits for the commit under way; a wake is on its way.
    held_until_ms: u64,
    /// When the ledger was looked at last, by a raise or by a commit.
    looked_at_ms: u64,
    processed_at_ms: u64,
    lag: u64,
    /// Where a run ends that does not go on for ever, for the partitions that hold something new.
    goal: Option<BTreeMap<(SourceIndex, String), u64>>,
    stopping: bool,
    failures_in_a_row: u32,
    poison_in_a_row: u32,
    fenced_before: bool,
    /// When this reign began to lead, when a foreign fence last ended one, and how many short ones it ended in a row.
    led_since_ms: u64,
    fenced_at_ms: u64,
    short_reigns: u32,
    /// A reign that was lost before this coordinator heard that it had been elected.
    lost: Nonce,
}

/// What the coordinator is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Waiting to be elected.
    Standby,
    /// Writing its claim to coordination.
    Claiming,
    /// Waiting, then raising the fence: as a new leader, or after an abort.
    Raising { at_ms: u64, sent: bool, takeover: bool },
    /// Running transactions.
    Leading,
    /// The run is over.
    Over,
}

/// Whether the tasks are about to move to other workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moving {
    No,
    /// What is under way is to end, and nothing to begin.
    Draining,
    /// It has ended, and that was said.
    Drained,
}

/// An open transaction.
#[derive(Clone, Debug)]
struct Open {
    planned: Planned,
    /// Whether coordination holds the plan (always, where there is no coordination).
    recorded: bool,
    stage: Stage,
    /// The manifest of shards that are committed already: what this attempt makes must equal it.
    expected: Option<Manifest>,
    planned_at_ms: u64,
    emitted_at_ms: u64,
    committing_at_ms: u64,
    counts: ReadCounts,
    rows: u64,
}

/// How far an open transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Planned,
    Emitted,
    Processed(Manifest),
    Preparing(Manifest),
    Prepared(Manifest),
    Committing,
}

impl Coordinator {
    /// A coordinator that is not elected yet.
    pub fn new(setup: Setup) -> Coordinator {
        let cut = Cut::new(setup.batch_ms);
        Coordinator {
            committers: setup.committers,
            moving: Moving::No,
            setup,
            role: Role::Standby,
            attempt: Attempt::NONE,
            lineage: 0,
            location: Location::default(),
            known: BTreeMap::new(),
            complete: (TxId::NONE, Hash128(0)),
            positions: Positions::new(),
            open: BTreeMap::new(),
            cut,
            writing: None,
            asking: false,
            asked_in_vain: 0,
            ask_at_ms: 0,
            held_until_ms: 0,
            looked_at_ms: 0,
            processed_at_ms: 0,
            lag: 0,
            goal: None,
            stopping: false,
            failures_in_a_row: 0,
            poison_in_a_row: 0,
            fenced_before: false,
            led_since_ms: 0,
            fenced_at_ms: 0,
            short_reigns: 0,
            lost: Nonce(0),
        }
    }

    /// The last transaction that is complete everywhere.
    pub fn last_complete(&self) -> TxId {
        self.complete.0
    }

    /// The attempt whose transactions are under way, while this coordinator leads.
    pub fn leading(&self) -> Option<Attempt> {
        (self.role == Role::Leading).then_some(self.attempt)
    }

    /// Whether the run is over.
    pub fn is_over(&self) -> bool {
        self.role == Role::Over
    }

    fn is_mine(&self, nonce: Nonce) -> bool {
        nonce == self.attempt.nonce && !matches!(self.role, Role::Standby | Role::Over)
    }
}

impl Spout<Batches> for Coordinator {
    type Call = Call;
    type Reply = Reply;

    fn open(&mut self, out: &mut Out) {
        out.call(Call::Campaign);
    }

    fn reply(&mut self, reply: Reply, out: &mut Out) {
        match reply {
            _ if self.role == Role::Over => return,
            Reply::Elected(elected) if self.role == Role::Standby => self.on_elected(*elected, out),
            Reply::Unelectable(failure) => self.finish(Err(failure), out),
            Reply::Claimed(nonce, result) if self.is_mine(nonce) && self.role == Role::Claiming => {
                self.on_claimed(result, out);
            }
            Reply::PlanWritten { attempt, txid, result } if Some(attempt) == self.leading() => {
                self.on_plan_written(txid, result, out);
            }
            Reply::NoteFailed(nonce, failure) if self.is_mine(nonce) && self.role == Role::Leading => {
                self.on_failure(failure, out);
            }
            Reply::Raised(attempt, outcome) if attempt == self.attempt => self.on_raised(outcome, out),
            Reply::Prepared { attempt, txid, outcome } if Some(attempt) == self.leading() => {
                self.on_prepared(txid, outcome, out);
            }
            Reply::Bounds { attempt, result, time_ms, seed } if Some(attempt) == self.leading() => match result {
                Ok(bounds) => self.on_bounds(&bounds, time_ms, seed, out),
                Err(failure) if failure.kind == FailureKind::Fatal => self.finish(Err(failure), out),
                Err(failure) => self.on_no_bounds(&failure, out),
            },
            Reply::Lost(nonce, failure) if self.is_mine(nonce) => self.abdicate(failure, out),
            // The election that it belongs to may not have been heard of yet.
            Reply::Lost(nonce, _) => self.lost = nonce,
            Reply::Owners { nonce, committers } if self.is_mine(nonce) || mutant::on(Mutant::OwnersOfAnotherReign) => {
                self.on_owners(committers, out);
            }
            Reply::Disbanded(failure) => self.on_disbanded(&failure, out),
            Reply::Drain => self.moving = Moving::Draining,
            Reply::Woke => self.on_woke(out),
            Reply::Stop => self.on_stop(out),
            _ => {}
        }
        self.go_on(out);
    }

    fn ack(&mut self, tree: Tree, notes: Vec<Note>, out: &mut Out) {
        if Some(tree.attempt()) != self.leading() {
            return;
        }
        match tree {
            Tree::Process(_, txid) => self.on_processed(txid, notes, out),
            Tree::Commit(_, txid) => self.on_committed(txid, &notes, out),
        }
        self.go_on(out);
    }

    fn fail(&mut self, tree: Tree, failure: Failure, out: &mut Out) {
        let mine = Some(tree.attempt()) == self.leading();
        if mine || (mutant::on(Mutant::StaleFailAccepted) && self.role == Role::Leading) {
            self.on_failure(failure, out);
            self.go_on(out);
        }
    }
}

impl Coordinator {
    fn on_stop(&mut self, out: &mut Out) {
        self.stopping = true;
        if matches!(self.role, Role::Standby) {
            self.finish(Ok(()), out);
        }
    }
}

#[cfg(test)]
mod tests;
