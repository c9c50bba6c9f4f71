//! Performs the calls of emitters, stage tasks and committers, as the tokio driver does: reads, stages, folds, commits.

use tine_core::failure::{Failure, FailureKind};
use tine_trident::{
    committer::{CommitterCall, CommitterReply, fold},
    emitter::{ReadCall, ReadReply},
    pipeline::{BatchRows, ExchangeIndex, Pipeline},
    source::{PartitionRange, Record, Sink},
    stage_bolt::{StageCall, StageReply},
};

use super::{
    Engine,
    crew::Side,
    event::{Inbound, Job},
    node::COMMITS,
};

impl Engine<'_> {
    /// Queues an emitter's read; one after the other.
    pub(crate) fn queue_read(&mut self, node: usize, nth: usize, call: ReadCall) {
        let Some(crew) = &mut self.nodes[node].crew else { return };
        let reading = &mut crew.emitters[nth].reading;
        reading.newest = call.attempt;
        reading.queue.push_back(call);
        self.next_read(node, nth);
    }

    fn next_read(&mut self, node: usize, nth: usize) {
        let Some(crew) = &mut self.nodes[node].crew else { return };
        let (id, reading) = (crew.id, &mut crew.emitters[nth].reading);
        if reading.busy {
            return;
        }
        let Some(call) = reading.queue.pop_front() else { return };
        reading.busy = true;
        let after_us = self.draws.delays.between(200, 2_500) * self.slowness(node);
        self.later(node, after_us, Inbound::Read(id, nth, call));
    }

    /// Reads and runs the operators: all at this moment, at the end of the time that it takes.
    pub(crate) fn read(&mut self, node: usize, nth: usize, call: &ReadCall) {
        let built = self.built.clone();
        let Some(crew) = &mut self.nodes[node].crew else { return };
        let reading = &mut crew.emitters[nth].reading;
        reading.busy = false;
        let cut_short = reading.newest != call.attempt;
        let result = match cut_short {
            true => Err(Failure::new(FailureKind::Superseded, "a newer attempt has begun")),
            false => read_all(&built, &mut reading.sides, &call.ranges),
        };
        self.look_whether_sources_suffered();
        if let Some(fault) = self.trips.sprung() {
            self.took_effect(fault);
        }
        self.emitter_reply(node, nth, ReadReply { attempt: call.attempt, txid: call.txid, result });
        self.next_read(node, nth);
    }

    /// Runs what a stage task is for, at this moment; the answer comes after the time that it takes.
    pub(crate) fn run_stages(&mut self, node: usize, nth: usize, call: StageCall) {
        let StageCall { attempt, txid, parts } = call;
        let Some(crew) = &mut self.nodes[node].crew else { return };
        let (id, exchanges) = (crew.id, &mut crew.stages[nth].exchanges);
        let mut run = |(index, parts): (ExchangeIndex, _)| exchanges[usize::from(index.0)].run(parts, &|| Ok(()));
        let result = parts
            .into_iter()
            .map(&mut run)
            .collect::<Result<Vec<_>, _>>()
            .map(|all| all.into_iter().flatten().collect());
        if let Some(fault) = self.trips.sprung() {
            self.took_effect(fault);
        }
        // One run in sixteen takes so long that an attempt may end meanwhile.
        let longest_us = if self.draws.delays.below(16) == 0 { 60_000 } else { 600 };
        let after_us = self.draws.delays.between(20, longest_us) * self.slowness(node);
        self.later(node, after_us, Inbound::Staged(id, nth, StageReply::Ran { attempt, txid, result }));
    }

    pub(crate) fn perform_committer(&mut self, node: usize, call: CommitterCall) {
        let Some(id) = self.nodes[node].crew.as_ref().map(|crew| crew.id) else { return };
        match call {
            CommitterCall::Fold { attempt, txid, parts } => {
                let result = fold(&self.built.folds, parts);
                let after_us = self.draws.delays.between(20, 300) * self.slowness(node);
                self.later(node, after_us, Inbound::Folded(id, CommitterReply::Folded { attempt, txid, result }));
            }
            CommitterCall::Commit(order) => self.job(node, COMMITS, Job::Commit(order)),
        }
    }
}

fn read_all(
    built: &tine_trident::pipeline::Built,
    sides: &mut [Side],
    ranges: &[PartitionRange],
) -> Result<BatchRows, Failure> {
    let read = ranges.iter().try_for_each(|range| read_one(built, sides, range));
    if let Err(failure) = read {
        sides.iter_mut().for_each(|side| side.pipeline.reset());
        return Err(failure);
    }
    let mut all = BatchRows::default();
    for side in sides {
        let rows = side.pipeline.finish()?;
        all.absorb(rows);
    }
    Ok(all)
}

fn read_one(built: &tine_trident::pipeline::Built, sides: &mut [Side], range: &PartitionRange) -> Result<(), Failure> {
    let index = usize::from(range.source.0);
    let side = &mut sides[index];
    let reader = match &mut side.reader {
        Some(reader) => reader,
        none => none.insert(built.sources[index].source.reader()?),
    };
    reader.read(range, &mut Lending { partition: &range.partition, pipeline: &mut *side.pipeline })
}

/// Lends what a reader reads to a pipeline.
struct Lending<'a> {
    partition: &'a str,
    pipeline: &'a mut dyn Pipeline,
}

impl Sink for Lending<'_> {
    fn records(&mut self, chunk: &[Record<'_>]) -> Result<(), Failure> {
        self.pipeline.records(self.partition, chunk)
    }

    fn cancelled(&self) -> bool {
        false
    }
}
