//! Performs the coordinator's calls, as the tokio driver does: coordination, the database and the sources each in order.

use tine_core::{
    failure::Failure,
    id::{Attempt, TxId},
    membership,
};
use tine_trident::{
    coordinator::event::{Call, Reply},
    plan::Positions,
    source::{Horizon, PartitionBounds, Reached, SourceIndex},
};

use super::{
    BORN_MS, Ending, Engine,
    event::{Errand, Inbound, Job},
    node::{LEADER, Node},
};
use crate::{
    coordination::Write,
    invariants::{
        invariant_attempts_are_never_reused, invariant_recorded_before_prepared, invariant_tasks_move_at_a_boundary,
    },
    report::Phase,
};

impl Engine<'_> {
    pub(crate) fn perform(&mut self, node: usize, call: Call) {
        match call {
            Call::Campaign => {
                self.enter(Phase::Electing);
                self.errand(node, Errand::Campaign);
            }
            Call::Claim(claim) => {
                self.trace.say(self.now_us, || format!("process {node} claims epoch {}", claim.epoch.0));
                self.enter(Phase::Electing);
                self.nodes[node].claims += 1;
                self.errand(node, Errand::Write { write: Write::Claim(claim), plan: None });
            }
            Call::WritePlan { txid, attempt, plan } => {
                self.errand(node, Errand::Write { write: Write::Plan(txid, plan), plan: Some((txid, attempt)) });
            }
            Call::ForgetFrom(txid) => self.errand(node, Errand::Write { write: Write::Forget(txid), plan: None }),
            Call::Complete(txid) => self.errand(node, Errand::Write { write: Write::Complete(txid), plan: None }),
            Call::Raise(attempt) => {
                self.trace.say(self.now_us, || format!("process {node} raises the fence to {attempt}"));
                self.enter(Phase::Raising);
                self.check(invariant_attempts_are_never_reused(attempt, self.nodes[node].raised));
                self.attempts += 1;
                if self.healed {
                    self.attempts_healed += 1;
                    if self.attempts_healed > self.settings.attempts_max {
                        let what = format!("{} attempts after everything was healed", self.attempts_healed);
                        self.break_off("invariant_no_replay_storm", what);
                    }
                }
                self.job(node, LEADER, Job::Raise(attempt));
            }
            Call::Prepare { row, location } => {
                self.enter(Phase::Preparing);
                self.check_recorded(node, row.txid, &row.plan);
                self.job(node, LEADER, Job::Prepare(row, location));
            }
            Call::Bounds { attempt, positions } => {
                let after_us = self.draws.delays.between(100, 600) * self.slowness(node);
                self.later(node, after_us, Inbound::Bounds { attempt, positions });
            }
            Call::Wake { after_ms } => self.later(node, after_ms * 1000, Inbound::Woke),
            Call::Progress(progress) => {
                let txid = progress.txid;
                self.trace.say(self.now_us, || format!("process {node} announces transaction {txid}"));
                self.enter(Phase::Planning);
                self.progress = self.progress.max(txid.0);
                let found = self.checker.announced(txid, &self.sql);
                self.check(found);
                self.look_whether_drained();
            }
            Call::Warn(message) => self.trace.say(self.now_us, || format!("process {node} warns: {message}")),
            Call::Entered(txid, phase) => self.entered(node, txid, phase),
            Call::Drained => self.drained(node),
            Call::Finish(result) => self.finished(node, result),
        }
    }

    /// Nothing is under way, as the membership has asked for.
    fn drained(&mut self, node: usize) {
        let Node { leader, emitted, .. } = &self.nodes[node];
        let coordinator = leader.spout();
        let open = emitted.filter(|(attempt, ..)| Some(*attempt) == coordinator.leading()).map(|(.., up_to)| up_to);
        let complete = coordinator.last_complete();
        self.trace.say(self.now_us, || format!("process {node} has nothing under way"));
        self.check(invariant_tasks_move_at_a_boundary(open.unwrap_or_default(), complete));
        self.later(node, 10, Inbound::Member(Box::new(membership::Event::Drained)));
    }

    /// A leader that reigns has the plan in coordination before it prepares it.
    fn check_recorded(&mut self, node: usize, txid: TxId, plan: &[u8]) {
        let Some(session) = self.nodes[node].errands.session else { return };
        let (nonce, standing) = (self.nodes[node].errands.nonce, &self.coordination.standing);
        if self.coordination.sessions[session].alive && standing.nonce == nonce {
            let found = invariant_recorded_before_prepared(txid, standing.plan(txid) == Some(plan));
            self.check(found);
        }
    }

    fn finished(&mut self, node: usize, result: Result<(), Failure>) {
        self.trace.say(self.now_us, || format!("process {node} ends its run: {result:?}"));
        if self.nodes[node].worker.stopping && result.is_ok() {
            return self.ends(node);
        }
        let failure = result.err().unwrap_or_else(|| Failure::fatal("the run ended, and nobody had asked it to"));
        self.over.get_or_insert(Err(Ending::Halted(failure)));
    }

    /// Reads the sources' bounds as they are now.
    pub(crate) fn on_bounds(&mut self, node: usize, attempt: Attempt, positions: &Positions) {
        let built = self.built.clone();
        let sides = self.nodes[node].bounds.iter_mut().zip(&built.sources).zip((0..).map(SourceIndex));
        let poll = sides.map(|((side, source), index)| {
            let bounds = match side {
                Some(bounds) => bounds,
                none => none.insert(source.source.bounds()?),
            };
            bounds.poll(Horizon::Endless, &Reached::new(index, positions))
        });
        let result: Result<Vec<Vec<PartitionBounds>>, Failure> = poll.collect();
        self.look_whether_sources_suffered();
        let (time_ms, seed) = (BORN_MS + self.now_us / 1000, self.draws.plans.bits());
        self.coordinator_reply(node, Reply::Bounds { attempt, result, time_ms, seed });
    }
}
