//! What a leader does next: ask, plan, emit, record, prepare, commit.

use std::sync::Arc;

use super::{event::*, *};

impl Coordinator {
    /// Everything that can be done now, oldest transaction first.
    pub(super) fn go_on(&mut self, out: &mut Out) {
        if self.role != Role::Leading {
            return;
        }
        if self.committers > 0 {
            self.emit(out);
            self.record(out);
            self.prepare(out);
            self.commit(out);
            self.ask(out);
        }
        let drained = self.open.is_empty();
        let reached = self.goal.as_ref().is_some_and(|goal| has_reached(&self.positions, goal));
        // Without owners nothing is under way, and none may come: what was begun is begun again by the next leader.
        if (drained && reached) || (self.stopping && (drained || self.committers == 0)) {
            return self.finish(Ok(()), out);
        }
        if (drained || mutant::on(Mutant::DrainNotAwaited)) && self.moving == Moving::Draining {
            self.moving = Moving::Drained;
            out.call(Call::Drained);
        }
    }

    pub(super) fn emit(&mut self, out: &mut Out) {
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
    pub(super) fn record(&mut self, out: &mut Out) {
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
    pub(super) fn prepare(&mut self, out: &mut Out) {
        let waiting = self.open.values_mut().find(|open| !matches!(open.stage, Stage::Prepared(_) | Stage::Committing));
        let Some(open) = waiting else { return };
        let Stage::Processed(manifest) = open.stage else { return };
        if self.setup.mode == CommitMode::Whole || mutant::on(Mutant::PlanNotPrepared) {
            open.stage = Stage::Prepared(manifest);
            self.cut.ready(out.now_ms().saturating_sub(open.planned_at_ms));
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
    pub(super) fn commit(&mut self, out: &mut Out) {
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
    pub(super) fn ask(&mut self, out: &mut Out) {
        let full = self.open.len() >= self.places();
        if self.asking || full || self.stopping || self.moving != Moving::No || out.now_ms() < self.ask_at_ms {
            return;
        }
        if self.is_measuring() || self.can_wait(out) {
            return;
        }
        self.asking = true;
        let (positions, ..) = self.tail();
        out.call(Call::Bounds { attempt: self.attempt, positions: Arc::new(positions) });
    }

    /// How many transactions may be under way: all that may while there is a backlog. While there is none, one is committed
    /// and one processed, and no third is planned: its records would only wait longer for the commits before it.
    fn places(&self) -> usize {
        match (self.cut.has_measured(), self.lag) {
            (false, _) => 1,
            (true, 0) => self.setup.in_flight_max.min(2),
            (true, _) => self.setup.in_flight_max,
        }
    }

    /// Whether a backlog's batches are still growing, and the last one's measure is still to come.
    fn is_measuring(&self) -> bool {
        let under_way = |open: &Open| matches!(open.stage, Stage::Planned | Stage::Emitted);
        self.lag > 0 && self.cut.grows(self.setup.batch_units_max) && self.open.values().any(under_way)
    }

    /// Whether the next plan is made later in the commit under way, or of the one that comes: see [`cut`].
    fn can_wait(&mut self, out: &mut Out) -> bool {
        let Some(oldest) = self.open.values().next() else { return false };
        let (now_ms, commits) = (out.now_ms(), oldest.stage == Stage::Committing);
        let committing_ms = if commits { now_ms.saturating_sub(oldest.committing_at_ms) } else { 0 };
        let hold_ms = if self.lag == 0 { self.cut.hold_ms(committing_ms) } else { 0 };
        // Before the commit begins nobody needs to be woken: its beginning is a step.
        if hold_ms > 0 && commits && self.held_until_ms <= now_ms {
            self.held_until_ms = now_ms + hold_ms;
            out.call(Call::Wake { after_ms: hold_ms });
        }
        hold_ms > 0
    }

    pub(super) fn on_bounds(&mut self, bounds: &[Vec<PartitionBounds>], time_ms: u64, seed: u64, out: &mut Out) {
        (self.asking, self.asked_in_vain) = (false, 0);
        if self.role != Role::Leading || self.stopping || self.moving != Moving::No || self.committers == 0 {
            return;
        }
        if self.open.len() >= self.setup.in_flight_max {
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
            if self.may_look_back(out.now_ms()) {
                return self.raise_anew(out);
            }
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

    /// Whether nothing is under way, and the ledger was not looked at for long. A database that lost its last transactions would be
    /// noticed at the next one; while the sources hold nothing new there is none.
    fn may_look_back(&self, now_ms: u64) -> bool {
        let long_ago = now_ms.saturating_sub(self.looked_at_ms) >= self.setup.look_back_ms;
        self.open.is_empty() && long_ago && !mutant::on(Mutant::IdleLooksAway)
    }

    /// Asks again with a growing pause; says so once, until the sources answer.
    pub(super) fn on_no_bounds(&mut self, failure: &Failure, out: &mut Out) {
        let after_ms = self.setup.poll_ms.max(500) << self.asked_in_vain.min(3);
        (self.asking, self.ask_at_ms) = (false, out.now_ms() + after_ms);
        if self.asked_in_vain == 0 {
            out.call(Call::Warn(format!("asking the sources: {failure}; trying again")));
        }
        self.asked_in_vain += 1;
        if self.may_look_back(out.now_ms()) {
            return self.raise_anew(out);
        }
        out.call(Call::Wake { after_ms });
    }

    /// Where the next plan begins: its positions, its predecessor's chain, its txid.
    pub(super) fn tail(&self) -> (Positions, Chain, TxId) {
        match self.open.last_key_value() {
            Some((txid, open)) => (open.planned.plan.ends(), open.planned.chain, txid.next()),
            None => (self.positions.clone(), self.complete.1, self.complete.0.next()),
        }
    }
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
