//! What follows when a transaction is processed, prepared, committed, or fails.

use super::{event::*, *};

impl Coordinator {
    pub(super) fn on_processed(&mut self, txid: TxId, notes: Vec<Note>, out: &mut Out) {
        let (shards, committers) = (self.setup.shards.clone(), self.committers);
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

    pub(super) fn on_prepared(&mut self, txid: TxId, outcome: PrepareOutcome, out: &mut Out) {
        let Some(open) = self.open.get_mut(&txid) else { return };
        match (outcome, open.stage) {
            (PrepareOutcome::Prepared, Stage::Preparing(manifest)) => {
                open.stage = Stage::Prepared(manifest);
                self.cut.ready(out.now_ms().saturating_sub(open.planned_at_ms));
                out.call(Call::Entered(txid, Phase::Prepared));
            }
            (PrepareOutcome::Prepared, _) => {}
            (PrepareOutcome::Failed(failure), _) => self.on_failure(failure, out),
        }
    }

    pub(super) fn on_committed(&mut self, txid: TxId, notes: &[Note], out: &mut Out) {
        let answers = notes.iter().filter(|note| **note == Note::Committed).count();
        if answers != self.committers {
            let what = format!("transaction {txid}: {answers} of {} committers committed", self.committers);
            return self.abort(&Failure::transient(what), out);
        }
        let Some(open) = self.open.remove(&txid) else { return };
        assert_eq!(self.complete.0.next(), txid, "transactions complete one by one, in order");
        self.complete = (txid, open.planned.chain);
        self.positions = open.planned.plan.ends();
        self.known.remove(&txid);
        (self.failures_in_a_row, self.poison_in_a_row, self.fenced_before) = (0, 0, false);
        self.cut.committed(out.now_ms().saturating_sub(open.committing_at_ms));
        // Each commit compares what it builds upon.
        self.looked_at_ms = out.now_ms();
        if self.setup.mode == CommitMode::Prepared {
            out.call(Call::Complete(txid));
        }
        out.call(Call::Entered(txid, Phase::Complete));
        let age_ms = out.now_ms().saturating_sub(open.planned_at_ms);
        let (counts, rows, lag) = (open.counts, open.rows, self.lag);
        out.call(Call::Progress(Progress { txid, counts, rows, lag, age_ms }));
    }

    /// What a failure of the current attempt leads to.
    pub(super) fn on_failure(&mut self, failure: Failure, out: &mut Out) {
        match failure.kind {
            FailureKind::Fatal => self.finish(Err(failure), out),
            FailureKind::Fenced => self.abdicate(failure, out),
            FailureKind::Unknown if mutant::on(Mutant::OutcomeAssumedFailed) => {
                self.open.clear();
                self.known.clear();
            }
            FailureKind::Poison if self.poison_in_a_row >= self.setup.poison_retries => self.finish(Err(failure), out),
            FailureKind::Poison => {
                self.poison_in_a_row += 1;
                self.abort(&failure, out);
            }
            _ => self.abort(&failure, out),
        }
    }

    pub(super) fn on_plan_written(&mut self, txid: TxId, result: Result<(), Failure>, out: &mut Out) {
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

/// The hash over the digests of all shards, those without rows included.
fn manifest_of(shards: &[ShardRef], digests: &BTreeMap<ShardRef, Digest>) -> Manifest {
    let mut bytes = Vec::with_capacity(shards.len() * 28);
    let covered = if mutant::on(Mutant::ManifestOfOneShard) { 1 } else { shards.len() };
    for at in &shards[..covered] {
        let digest = digests.get(at).copied().unwrap_or_default();
        bytes.extend_from_slice(&at.state.0.to_be_bytes());
        bytes.extend_from_slice(&at.shard.0.to_be_bytes());
        bytes.extend_from_slice(&digest.count.to_be_bytes());
        bytes.extend_from_slice(&digest.sum.to_be_bytes());
    }
    Hash128::of(&bytes)
}

fn non_deterministic(txid: TxId, expected: Manifest, manifest: Manifest) -> Failure {
    Failure::fatal(format!(
        "non-deterministic operator: a replay of transaction {txid} made other rows (manifest {manifest}) than its first attempt committed in some shards (manifest {expected}); operators must depend on their input alone, not on clocks, random numbers or the order of a hash map"
    ))
}
