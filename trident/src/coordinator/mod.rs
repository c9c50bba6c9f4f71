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
//! [`reconcile`] says what stands after a raise, [`cut`] how much the next plan takes.

mod cut;
pub mod event;
mod reconcile;

use std::{collections::BTreeMap, sync::Arc};

use tine_core::{
    codec,
    coordination::Claim,
    failure::{Failure, FailureKind},
    hash::Hash128,
    id::{Attempt, Epoch, Generation, Nonce, TxId},
    mutant::{self, Mutant},
    task::{Output, Spout},
};
use tine_state::{Chain, Digest, Location, Manifest, PrepareOutcome, RaiseOutcome, ShardRef, Snapshot};

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

/// A reign shorter than this, ended by a foreign fence, is not how a takeover looks …
const SHORT_REIGN_MS: u64 = 60_000;
/// … when it happens so often in a row: then two leaders are elected by two coordinations.
const SHORT_REIGNS_MAX: u32 = 20;

/// The coordinator of one batch group.
#[derive(Debug)]
pub struct Coordinator {
    setup: Setup,
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
    ask_at_ms: u64,
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

/// An open transaction.
#[derive(Debug)]
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
        let cut = Cut::new(setup.batch_ms, setup.batch_max_ms);
        Coordinator {
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
            ask_at_ms: 0,
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

    // ----- becoming the leader -----

    fn on_elected(&mut self, elected: Elected, out: &mut Out) {
        let Elected { nonce, record, lineage, fence } = elected;
        if self.stopping {
            return self.finish(Ok(()), out);
        }
        if nonce == self.lost {
            return out.call(Call::Campaign);
        }
        if record.lineage.is_some_and(|other| other != lineage) {
            return self.finish(Err(other_lineage(record.lineage.unwrap_or(0), lineage)), out);
        }
        self.known.clear();
        for (txid, plan) in &record.plans {
            match Planned::decode(plan) {
                Ok(planned) => {
                    self.known.insert(*txid, planned);
                }
                Err(error) => {
                    let what = format!("the plan of transaction {txid} in coordination: {error}");
                    return self.finish(Err(Failure::fatal(what)), out);
                }
            }
        }
        self.lineage = lineage;
        let highest = record.epoch.max(fence.epoch).max(self.attempt.epoch);
        self.claim(Epoch(highest.0 + 1), nonce, out);
    }

    fn claim(&mut self, epoch: Epoch, nonce: Nonce, out: &mut Out) {
        self.role = Role::Claiming;
        self.attempt = Attempt::new(epoch, nonce, Generation(1));
        out.call(Call::Claim(Claim { epoch, nonce, lineage: self.lineage }));
    }

    fn on_claimed(&mut self, result: Result<(), Failure>, out: &mut Out) {
        match result {
            Ok(()) => self.raise_after(0, true, out),
            Err(failure) if failure.kind == FailureKind::Fatal => self.finish(Err(failure), out),
            Err(failure) => self.abdicate(failure, out),
        }
    }

    /// Gives up leadership and stands by for the next election.
    fn abdicate(&mut self, failure: Failure, out: &mut Out) {
        if failure.kind == FailureKind::Fenced && self.is_fenced_again_and_again(out.now_ms()) {
            return self.finish(Err(two_coordinations(&failure)), out);
        }
        match failure.kind {
            FailureKind::Fenced if !std::mem::replace(&mut self.fenced_before, true) => {
                out.call(Call::Warn(format!("fenced: {failure}; standing by")));
            }
            FailureKind::Fenced => {}
            _ => out.call(Call::Warn(format!("leadership lost: {failure}; standing by"))),
        }
        self.role = Role::Standby;
        self.open.clear();
        self.writing = None;
        self.asking = false;
        if self.stopping {
            return self.finish(Ok(()), out);
        }
        out.call(Call::Campaign);
    }

    fn is_fenced_again_and_again(&mut self, now_ms: u64) -> bool {
        if matches!(self.role, Role::Standby | Role::Claiming) {
            return false;
        }
        let short = now_ms.saturating_sub(self.led_since_ms) < SHORT_REIGN_MS;
        let in_a_row = now_ms.saturating_sub(self.fenced_at_ms) < 10 * SHORT_REIGN_MS;
        self.short_reigns = if short && in_a_row { self.short_reigns + 1 } else { 1 };
        self.fenced_at_ms = now_ms;
        self.short_reigns >= SHORT_REIGNS_MAX
    }

    fn finish(&mut self, result: Result<(), Failure>, out: &mut Out) {
        self.role = Role::Over;
        self.open.clear();
        out.call(Call::Finish(result));
    }

    // ----- raising and reconciling -----

    /// Ends all open transactions of this attempt; they start again in the next generation, once the fence is raised.
    fn abort(&mut self, failure: &Failure, out: &mut Out) {
        if self.stopping {
            out.call(Call::Warn(format!(
                "attempt {} ended: {failure}; the next start goes on from there",
                self.attempt
            )));
            return self.finish(Ok(()), out);
        }
        self.failures_in_a_row += 1;
        out.call(Call::Warn(format!("attempt {} ended: {failure}", self.attempt)));
        let in_the_old_one = mutant::on(Mutant::AttemptRestarted)
            || (mutant::on(Mutant::ReconcileInOldGeneration) && failure.kind == FailureKind::Behind);
        if !in_the_old_one {
            self.attempt = self.attempt.next_generation();
        }
        let wait_ms = self.backoff_ms();
        self.raise_after(wait_ms, false, out);
    }

    /// Nothing for a first failure, then 50 ms doubling up to 5 s, with jitter of a quarter.
    fn backoff_ms(&self) -> u64 {
        match self.failures_in_a_row {
            0 | 1 => 0,
            n => {
                let whole = (50_u64 << (n - 2).min(7)).min(5_000);
                let seed = [self.attempt.nonce.0.to_le_bytes(), self.attempt.generation.0.to_le_bytes()].concat();
                whole - tine_core::hash::hash64(&seed) % (whole / 4 + 1)
            }
        }
    }

    fn raise_after(&mut self, wait_ms: u64, takeover: bool, out: &mut Out) {
        let at_ms = out.now_ms() + wait_ms;
        self.role = Role::Raising { at_ms, sent: wait_ms == 0, takeover };
        self.asking = false;
        match wait_ms {
            0 => out.call(Call::Raise(self.attempt)),
            after_ms => out.call(Call::Wake { after_ms }),
        }
    }

    fn on_raised(&mut self, outcome: RaiseOutcome, out: &mut Out) {
        let Role::Raising { takeover, .. } = self.role else { return };
        match outcome {
            RaiseOutcome::Raised(snapshot) => self.on_snapshot(&snapshot, out),
            RaiseOutcome::Missed(fence) if takeover || mutant::on(Mutant::MissAtAbortRaisesEpoch) => {
                let epoch = fence.epoch.max(self.attempt.epoch);
                self.claim(Epoch(epoch.0 + 1), self.attempt.nonce, out);
            }
            RaiseOutcome::Missed(fence) => {
                let what = format!("the fence stands at {fence} when it was to be raised to {}", self.attempt);
                self.abdicate(Failure::new(FailureKind::Fenced, what), out);
            }
            RaiseOutcome::Failed(failure) if failure.kind == FailureKind::Fatal => self.finish(Err(failure), out),
            RaiseOutcome::Failed(_) if self.stopping => self.finish(Ok(()), out),
            RaiseOutcome::Failed(failure) => {
                self.failures_in_a_row += 1;
                out.call(Call::Warn(format!("raising the fence: {failure}; trying again")));
                let wait_ms = self.backoff_ms().max(20);
                self.raise_after(wait_ms, takeover, out);
            }
        }
    }

    fn on_snapshot(&mut self, snapshot: &Snapshot, out: &mut Out) {
        if snapshot.group.lineage != self.lineage {
            return self.finish(Err(other_lineage(self.lineage, snapshot.group.lineage)), out);
        }
        let standing = match reconcile::reconcile(snapshot, &self.known) {
            Ok(standing) => standing,
            Err(failure) => return self.finish(Err(failure), out),
        };
        self.location = snapshot.location;
        let recorded = self.recorded_plans(&standing.open);
        let now_ms = out.now_ms();
        let mut expected = standing.committed;
        self.open = standing
            .open
            .into_iter()
            .map(|planned| {
                let txid = planned.plan.txid;
                let open = Open {
                    recorded: recorded.contains(&txid),
                    stage: Stage::Planned,
                    expected: expected.take(),
                    planned_at_ms: now_ms,
                    emitted_at_ms: now_ms,
                    committing_at_ms: now_ms,
                    counts: ReadCounts::default(),
                    rows: 0,
                    planned,
                };
                (txid, open)
            })
            .collect();
        if standing.complete < self.complete.0 {
            // The database lost its tail: where the run ends is worked out anew.
            self.goal = None;
        }
        self.complete = (standing.complete, standing.chain);
        self.positions = standing.positions;
        let beyond = recorded.last().map_or(standing.complete, |last| *last).next();
        self.known = self.open.iter().map(|(txid, open)| (*txid, open.planned.clone())).collect();
        if self.setup.mode == CommitMode::Prepared {
            out.call(Call::ForgetFrom(beyond));
            out.call(Call::Complete(standing.complete));
        }
        self.writing = None;
        if matches!(self.role, Role::Raising { takeover: true, .. }) {
            self.led_since_ms = now_ms;
        }
        self.role = Role::Leading;
        self.ask_at_ms = now_ms;
    }

    /// Which of the standing plans coordination holds, without a gap from the first on.
    fn recorded_plans(&self, standing: &[Planned]) -> Vec<TxId> {
        if self.setup.mode == CommitMode::Whole {
            return standing.iter().map(|planned| planned.plan.txid).collect();
        }
        // The plan of an unanswered write may or may not be there: it is deleted and written again.
        let is_there = |planned: &&Planned| {
            let txid = planned.plan.txid;
            let same = self.known.get(&txid).is_some_and(|known| known.chain == planned.chain);
            same && self.open.get(&txid).is_none_or(|open| open.recorded)
        };
        standing.iter().take_while(is_there).map(|planned| planned.plan.txid).collect()
    }

    // ----- what a leader does next -----

    /// Everything that can be done now, oldest transaction first.
    fn go_on(&mut self, out: &mut Out) {
        if self.role != Role::Leading {
            return;
        }
        self.emit(out);
        self.record(out);
        self.prepare(out);
        self.commit(out);
        self.ask(out);
        let drained = self.open.is_empty();
        let reached = self.goal.as_ref().is_some_and(|goal| has_reached(&self.positions, goal));
        if drained && (self.stopping || reached) {
            self.finish(Ok(()), out);
        }
    }

    fn emit(&mut self, out: &mut Out) {
        let (attempt, now_ms) = (self.attempt, out.now_ms());
        for (txid, open) in self.open.iter_mut().take(self.setup.in_flight_max) {
            if open.stage == Stage::Planned {
                open.stage = Stage::Emitted;
                open.emitted_at_ms = now_ms;
                out.call(Call::Entered(*txid, Phase::Emitting));
                let message = Message::Emit { attempt, plan: open.planned.plan.clone() };
                out.start_tree(Tree::Process(attempt, *txid), vec![(TO_EMITTERS, message)]);
            }
        }
    }

    /// Writes the next plan to coordination, while its rows are being emitted.
    fn record(&mut self, out: &mut Out) {
        if self.writing.is_some() {
            return;
        }
        if let Some((txid, open)) = self.open.iter().find(|(_, open)| !open.recorded) {
            self.writing = Some(*txid);
            let (attempt, plan) = (self.attempt, open.planned.encoded.clone());
            out.call(Call::WritePlan { txid: *txid, attempt, plan });
        }
    }

    /// Prepares the lowest transaction that is processed and not prepared; one after the other.
    fn prepare(&mut self, out: &mut Out) {
        let waiting = self.open.values_mut().find(|open| !matches!(open.stage, Stage::Prepared(_) | Stage::Committing));
        let Some(open) = waiting else { return };
        let Stage::Processed(manifest) = open.stage else { return };
        if self.setup.mode == CommitMode::Whole || mutant::on(Mutant::PlanNotPrepared) {
            open.stage = Stage::Prepared(manifest);
            return self.prepare(out);
        }
        if !open.recorded && !mutant::on(Mutant::NoPlanBeforeCommit) {
            return;
        }
        open.stage = Stage::Preparing(manifest);
        let row = Arc::new(open.planned.row(self.attempt, manifest));
        out.call(Call::Prepare { row, location: self.location });
    }

    /// Commits the lowest open transaction when it is prepared: everything before it is complete.
    fn commit(&mut self, out: &mut Out) {
        let ready = |open: &&mut Open| matches!(open.stage, Stage::Prepared(_));
        let ahead = if mutant::on(Mutant::NextBeforeEverywhere) { usize::MAX } else { 1 };
        let attempt = self.attempt;
        for open in self.open.values_mut().take(ahead).filter(|open| ready(open)) {
            let Stage::Prepared(manifest) = open.stage else { continue };
            open.stage = Stage::Committing;
            open.committing_at_ms = out.now_ms();
            let (txid, previous, chain) = (open.planned.plan.txid, open.planned.plan.previous, open.planned.chain);
            let whole = self.setup.mode == CommitMode::Whole;
            let plan = whole.then(|| Arc::new(open.planned.row(attempt, manifest)));
            let command = CommitCommand { attempt, txid, previous, chain, manifest, location: self.location, plan };
            out.start_tree(Tree::Commit(attempt, txid), vec![(TO_COMMITTERS, Message::Commit(Arc::new(command)))]);
        }
    }

    /// Asks the sources how far they reach, when there is a place for another transaction.
    fn ask(&mut self, out: &mut Out) {
        let places = if self.cut.has_measured() { self.setup.in_flight_max } else { 1 };
        let full = self.open.len() >= places;
        if self.asking || full || self.stopping || out.now_ms() < self.ask_at_ms {
            return;
        }
        self.asking = true;
        let (positions, ..) = self.tail();
        out.call(Call::Bounds { attempt: self.attempt, positions: Arc::new(positions) });
    }

    // ----- planning -----

    fn on_bounds(&mut self, bounds: &[Vec<PartitionBounds>], time_ms: u64, seed: u64, out: &mut Out) {
        self.asking = false;
        if self.role != Role::Leading || self.stopping || self.open.len() >= self.setup.in_flight_max {
            return;
        }
        let (positions, previous, txid) = self.tail();
        let (ranges, left) =
            match cut::next_ranges(bounds, &positions, self.cut.units().min(self.setup.batch_units_max)) {
                Ok(found) => found,
                Err(failure) => return self.finish(Err(failure), out),
            };
        if self.setup.horizon == Horizon::Now && self.goal.is_none() {
            self.goal = Some(ends_of(&ranges, bounds));
        }
        self.lag = left;
        let plan = Plan { txid, previous, time_ms, seed, ranges };
        // The first plan may be empty: it makes durable where the sources begin, "latest" above all.
        if plan.units() == 0 && txid > TxId::NONE.next() {
            self.ask_at_ms = out.now_ms() + self.setup.poll_ms;
            out.call(Call::Wake { after_ms: self.setup.poll_ms });
            return;
        }
        let planned = Planned::new(plan);
        if planned.encoded.len() > codec::LIMIT {
            let (size, partitions) = (planned.encoded.len(), planned.plan.ranges.len());
            let what = format!("a plan of {partitions} partitions takes {size} bytes, more than {}", codec::LIMIT);
            return self.finish(Err(Failure::fatal(format!("{what}: read fewer partitions in one topology"))), out);
        }
        self.known.insert(txid, planned.clone());
        let open = Open {
            planned,
            recorded: self.setup.mode == CommitMode::Whole,
            stage: Stage::Planned,
            expected: None,
            planned_at_ms: out.now_ms(),
            emitted_at_ms: out.now_ms(),
            committing_at_ms: out.now_ms(),
            counts: ReadCounts::default(),
            rows: 0,
        };
        self.open.insert(txid, open);
        out.call(Call::Entered(txid, Phase::Planned));
    }

    /// Where the next plan begins: its positions, its predecessor's chain, its txid.
    fn tail(&self) -> (Positions, Chain, TxId) {
        match self.open.last_key_value() {
            Some((txid, open)) => (open.planned.plan.ends(), open.planned.chain, txid.next()),
            None => (self.positions.clone(), self.complete.1, self.complete.0.next()),
        }
    }

    // ----- processed, prepared, committed -----

    fn on_processed(&mut self, txid: TxId, notes: Vec<Note>, out: &mut Out) {
        let (shards, committers) = (self.setup.shards.clone(), self.setup.committers);
        let Some(open) = self.open.get_mut(&txid) else { return };
        if open.stage != Stage::Emitted {
            return;
        }
        let mut digests = BTreeMap::new();
        let mut answers = 0;
        for note in notes {
            match note {
                Note::Read(counts) => open.counts += counts,
                Note::Digests { digests: some, rows } => {
                    answers += 1;
                    open.rows += rows;
                    digests.extend(some);
                }
                Note::Committed => {}
            }
        }
        if answers != committers {
            let what = format!("transaction {txid}: {answers} of {committers} committers sent their digests");
            return self.abort(&Failure::transient(what), out);
        }
        let manifest = manifest_of(&shards, &digests);
        let differs = |expected: &Manifest| *expected != manifest && !mutant::on(Mutant::DoneWithoutManifest);
        if let Some(expected) = open.expected.filter(differs) {
            return self.finish(Err(non_deterministic(txid, expected, manifest)), out);
        }
        open.stage = Stage::Processed(manifest);
        out.call(Call::Entered(txid, Phase::Processed));
        let began_ms = open.emitted_at_ms.max(self.processed_at_ms);
        let (units, rows) = (open.planned.plan.units(), open.rows);
        self.processed_at_ms = out.now_ms();
        self.cut.processed(units, out.now_ms().saturating_sub(began_ms), rows);
    }

    fn on_prepared(&mut self, txid: TxId, outcome: PrepareOutcome, out: &mut Out) {
        let Some(open) = self.open.get_mut(&txid) else { return };
        match (outcome, open.stage) {
            (PrepareOutcome::Prepared, Stage::Preparing(manifest)) => {
                open.stage = Stage::Prepared(manifest);
                out.call(Call::Entered(txid, Phase::Prepared));
            }
            (PrepareOutcome::Prepared, _) => {}
            (PrepareOutcome::Failed(failure), _) => self.on_failure(failure, out),
        }
    }

    fn on_committed(&mut self, txid: TxId, notes: &[Note], out: &mut Out) {
        let answers = notes.iter().filter(|note| **note == Note::Committed).count();
        if answers != self.setup.committers {
            let what = format!("transaction {txid}: {answers} of {} committers committed", self.setup.committers);
            return self.abort(&Failure::transient(what), out);
        }
        let Some(open) = self.open.remove(&txid) else { return };
        assert_eq!(self.complete.0.next(), txid, "transactions complete one by one, in order");
        self.complete = (txid, open.planned.chain);
        self.positions = open.planned.plan.ends();
        self.known.remove(&txid);
        (self.failures_in_a_row, self.poison_in_a_row, self.fenced_before) = (0, 0, false);
        self.cut.committed(out.now_ms().saturating_sub(open.committing_at_ms));
        if self.setup.mode == CommitMode::Prepared {
            out.call(Call::Complete(txid));
        }
        out.call(Call::Entered(txid, Phase::Complete));
        let age_ms = out.now_ms().saturating_sub(open.planned_at_ms);
        let (counts, rows, lag) = (open.counts, open.rows, self.lag);
        out.call(Call::Progress(Progress { txid, counts, rows, lag, age_ms }));
    }

    /// What a failure of the current attempt leads to.
    fn on_failure(&mut self, failure: Failure, out: &mut Out) {
        match failure.kind {
            FailureKind::Fatal => self.finish(Err(failure), out),
            FailureKind::Fenced => self.abdicate(failure, out),
            FailureKind::Poison if self.poison_in_a_row >= self.setup.poison_retries => self.finish(Err(failure), out),
            FailureKind::Poison => {
                self.poison_in_a_row += 1;
                self.abort(&failure, out);
            }
            _ => self.abort(&failure, out),
        }
    }

    fn on_plan_written(&mut self, txid: TxId, result: Result<(), Failure>, out: &mut Out) {
        self.writing = None;
        match result {
            Ok(()) => {
                if let Some(open) = self.open.get_mut(&txid) {
                    open.recorded = true;
                }
            }
            Err(failure) => self.on_failure(failure, out),
        }
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
                Err(failure) => {
                    self.asking = false;
                    let after_ms = self.setup.poll_ms.max(500);
                    self.ask_at_ms = out.now_ms() + after_ms;
                    out.call(Call::Warn(format!("asking the sources: {failure}; trying again")));
                    out.call(Call::Wake { after_ms });
                }
            },
            Reply::Lost(nonce, failure) if self.is_mine(nonce) => self.abdicate(failure, out),
            // The election that it belongs to may not have been heard of yet.
            Reply::Lost(nonce, _) => self.lost = nonce,
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
    fn on_woke(&mut self, out: &mut Out) {
        if let Role::Raising { at_ms, sent: false, takeover } = self.role
            && out.now_ms() >= at_ms
        {
            self.role = Role::Raising { at_ms, sent: true, takeover };
            out.call(Call::Raise(self.attempt));
        }
    }

    fn on_stop(&mut self, out: &mut Out) {
        self.stopping = true;
        if matches!(self.role, Role::Standby) {
            self.finish(Ok(()), out);
        }
    }
}

/// The hash over the digests of all shards, those without rows included.
fn manifest_of(shards: &[ShardRef], digests: &BTreeMap<ShardRef, Digest>) -> Manifest {
    let mut bytes = Vec::with_capacity(shards.len() * 28);
    for at in shards {
        let digest = digests.get(at).copied().unwrap_or_default();
        bytes.extend_from_slice(&at.state.0.to_be_bytes());
        bytes.extend_from_slice(&at.shard.0.to_be_bytes());
        bytes.extend_from_slice(&digest.count.to_be_bytes());
        bytes.extend_from_slice(&digest.sum.to_be_bytes());
    }
    Hash128::of(&bytes)
}

/// Where the run ends: what the sources hold now, of partitions that hold something new.
fn ends_of(ranges: &[PartitionRange], bounds: &[Vec<PartitionBounds>]) -> BTreeMap<(SourceIndex, String), u64> {
    let end = |range: &PartitionRange| {
        let of_source = &bounds[usize::from(range.source.0)];
        let end = of_source.iter().find(|bounds| bounds.partition == range.partition)?.end;
        (end > range.from).then(|| ((range.source, range.partition.clone()), end))
    };
    ranges.iter().filter_map(end).collect()
}

fn has_reached(positions: &Positions, goal: &BTreeMap<(SourceIndex, String), u64>) -> bool {
    goal.iter().all(|(partition, end)| positions.get(partition).is_some_and(|position| position.at >= *end))
}

fn other_lineage(coordination: u128, database: u128) -> Failure {
    Failure::fatal(format!(
        "coordination knows lineage {coordination:032x} and the database holds {database:032x}: they belong to two topologies of one name; use another name or another coordination path"
    ))
}

fn two_coordinations(failure: &Failure) -> Failure {
    Failure::fatal(format!(
        "two coordinations write this ledger: {SHORT_REIGNS_MAX} reigns in a row were ended by another leader's fence ({failure}); run all copies of this topology with the same --zookeeper address, or all without one"
    ))
}

fn non_deterministic(txid: TxId, expected: Manifest, manifest: Manifest) -> Failure {
    Failure::fatal(format!(
        "non-deterministic operator: a replay of transaction {txid} made other rows (manifest {manifest}) than its first attempt committed in some shards (manifest {expected}); operators must depend on their input alone, not on clocks, random numbers or the order of a hash map"
    ))
}

#[cfg(test)]
mod tests;
