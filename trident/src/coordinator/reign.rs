//! Becoming the leader, raising the fence, going on from what it shows, and giving up.

use tine_core::{
    coordination::Claim,
    failure::{Failure, FailureKind},
    id::{Attempt, Epoch, Generation, Nonce, TxId},
    mutant::{self, Mutant},
};
use tine_state::{RaiseOutcome, Snapshot};

use super::{event::*, *};

/// A reign shorter than this, ended by a foreign fence, is not how a takeover looks …
const SHORT_REIGN_MS: u64 = 60_000;
/// … when it happens so often in a row: then two leaders are elected by two coordinations.
const SHORT_REIGNS_MAX: u32 = 20;

impl Coordinator {
    pub(super) fn on_elected(&mut self, elected: Elected, out: &mut Out) {
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

    pub(super) fn claim(&mut self, epoch: Epoch, nonce: Nonce, out: &mut Out) {
        self.role = Role::Claiming;
        self.attempt = Attempt::new(epoch, nonce, Generation(1));
        out.call(Call::Claim(Claim { epoch, nonce, lineage: self.lineage }));
    }

    pub(super) fn on_claimed(&mut self, result: Result<(), Failure>, out: &mut Out) {
        match result {
            Ok(()) => self.raise_after(0, true, out),
            Err(failure) if failure.kind == FailureKind::Fatal => self.finish(Err(failure), out),
            Err(failure) => self.abdicate(failure, out),
        }
    }

    /// Gives up leadership and stands by for the next election.
    pub(super) fn abdicate(&mut self, failure: Failure, out: &mut Out) {
        if failure.kind == FailureKind::Fenced && self.is_fenced_again_and_again(out.now_ms()) {
            return self.finish(Err(two_coordinations(&failure)), out);
        }
        match failure.kind {
            FailureKind::Fenced if !std::mem::replace(&mut self.fenced_before, true) => {
                out.call(Call::Warn(format!("fenced: {failure}; standing by")));
            }
            FailureKind::Fenced => {}
            _ => out.call(Call::Warn(format!("fenced: leadership lost: {failure}; standing by"))),
        }
        self.role = Role::Standby;
        (self.committers, self.moving) = (self.setup.committers, Moving::No);
        self.open.clear();
        self.writing = None;
        self.asking = false;
        if self.stopping {
            return self.finish(Ok(()), out);
        }
        out.call(Call::Campaign);
    }

    pub(super) fn is_fenced_again_and_again(&mut self, now_ms: u64) -> bool {
        if matches!(self.role, Role::Standby | Role::Claiming) {
            return false;
        }
        let short = now_ms.saturating_sub(self.led_since_ms) < SHORT_REIGN_MS;
        let in_a_row = now_ms.saturating_sub(self.fenced_at_ms) < 10 * SHORT_REIGN_MS;
        self.short_reigns = if short && in_a_row { self.short_reigns + 1 } else { 1 };
        self.fenced_at_ms = now_ms;
        self.short_reigns >= SHORT_REIGNS_MAX
    }

    pub(super) fn finish(&mut self, result: Result<(), Failure>, out: &mut Out) {
        self.role = Role::Over;
        self.open.clear();
        out.call(Call::Finish(result));
    }

    // ----- raising and reconciling -----

    /// Ends all open transactions of this attempt; they start again in the next generation, once the fence is raised.
    pub(super) fn abort(&mut self, failure: &Failure, out: &mut Out) {
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
            || (mutant::on(Mutant::ReconcileInOldGeneration) && failure.kind == FailureKind::Behind)
            || (mutant::on(Mutant::OutcomeSettledByRead) && failure.kind == FailureKind::Unknown);
        if !in_the_old_one {
            self.attempt = self.attempt.next_generation();
        }
        let wait_ms = self.backoff_ms();
        self.raise_after(wait_ms, false, out);
    }

    /// Other tasks than before, or the same after a break: whatever the old ones still do belongs to an older generation.
    pub(super) fn on_owners(&mut self, committers: usize, out: &mut Out) {
        (self.committers, self.moving) = (committers, Moving::No);
        if self.role != Role::Leading {
            return;
        }
        if self.stopping {
            // What was begun is begun again by the next leader.
            if !self.open.is_empty() {
                self.finish(Ok(()), out);
            }
            return;
        }
        if !mutant::on(Mutant::OwnersInOldGeneration) {
            self.raise_anew(out);
        }
    }

    /// Raises the fence in a new generation, without a failure, and goes on from what it shows.
    pub(super) fn raise_anew(&mut self, out: &mut Out) {
        self.attempt = self.attempt.next_generation();
        self.raise_after(0, false, out);
    }

    /// Ends what is under way on tasks that cannot be relied on.
    pub(super) fn on_disbanded(&mut self, failure: &Failure, out: &mut Out) {
        (self.committers, self.moving) = (0, Moving::No);
        if self.role == Role::Leading && !self.open.is_empty() {
            self.abort(failure, out);
        }
    }

    /// Nothing for a first failure, then 50 ms doubling up to 5 s, with jitter of a quarter.
    pub(super) fn backoff_ms(&self) -> u64 {
        match self.failures_in_a_row {
            0 | 1 => 0,
            n => {
                let whole = (50_u64 << (n - 2).min(7)).min(5_000);
                let seed = [self.attempt.nonce.0.to_le_bytes(), self.attempt.generation.0.to_le_bytes()].concat();
                whole - tine_core::hash::hash64(&seed) % (whole / 4 + 1)
            }
        }
    }

    pub(super) fn raise_after(&mut self, wait_ms: u64, takeover: bool, out: &mut Out) {
        let at_ms = out.now_ms() + wait_ms;
        self.role = Role::Raising { at_ms, sent: wait_ms == 0, takeover };
        self.asking = false;
        match wait_ms {
            0 => out.call(Call::Raise(self.attempt)),
            after_ms => out.call(Call::Wake { after_ms }),
        }
    }

    pub(super) fn on_raised(&mut self, outcome: RaiseOutcome, out: &mut Out) {
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

    pub(super) fn on_snapshot(&mut self, snapshot: &Snapshot, out: &mut Out) {
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
                    stage: self.stage_after_a_raise(txid),
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
        let beyond = match mutant::on(Mutant::HistoryDeleted) {
            true => TxId::NONE.next(),
            false => recorded.last().map_or(standing.complete, |last| *last).next(),
        };
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
        (self.ask_at_ms, self.looked_at_ms) = (now_ms, now_ms);
    }

    /// An abort ends every open transaction.
    fn stage_after_a_raise(&self, txid: TxId) -> Stage {
        match self.open.get(&txid) {
            Some(before) if mutant::on(Mutant::LowerLeftRunning) && self.open.len() > 1 => before.stage,
            _ => Stage::Planned,
        }
    }

    /// Which of the standing plans coordination holds, without a gap from the first on.
    pub(super) fn recorded_plans(&self, standing: &[Planned]) -> Vec<TxId> {
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

    pub(super) fn on_woke(&mut self, out: &mut Out) {
        if let Role::Raising { at_ms, sent: false, takeover } = self.role
            && out.now_ms() >= at_ms
        {
            self.role = Role::Raising { at_ms, sent: true, takeover };
            out.call(Call::Raise(self.attempt));
        }
    }
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
