//! Runs the stages of a source over records: decode, operators, pre-aggregation, and what the policies say of the rest.
//!
//! The quick way is one call per stage and chunk. Only when a chunk fails is it run again, record by record against an
//! empty memory, to find the offending ones; then it is run without them. That is right because a failed chunk has
//! contributed nothing and closures are pure.

use std::{collections::BTreeMap, sync::Arc};

use tine_core::failure::Failure;

use super::{
    fused::{Fused, attempt},
    scratch::{Scratch, StageError},
};
use crate::{
    dead_letters::{self, DeadLetters},
    input::{Invalid, Policy, Row},
    pipeline::{BatchRows, Pipeline, Rows, Target, Targeted, Witness},
    source::Record,
};

/// A stage with its memory.
pub(crate) struct Slot<T: Row> {
    pub(crate) fused: Arc<dyn Fused<T>>,
    /// Where its rows go: each gets all of them.
    pub(crate) targets: Vec<Target>,
    pub(crate) on_error: Policy,
    /// Such as `stage 1 after source 1 `files``.
    pub(crate) place: String,
    pub(crate) scratch: Scratch,
    /// Which of the scratch's tables the stage ended in.
    pub(crate) table: Option<usize>,
}

/// The stages of one source, for one emitter.
pub(crate) struct FusedPipeline<T: Row> {
    pub(crate) unit: &'static str,
    pub(crate) on_invalid: Policy,
    pub(crate) on_null: Policy,
    pub(crate) slots: Vec<Slot<T>>,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) done: BatchRows,
}

/// The records of a chunk that were left out: whether as dead letters, and why.
#[derive(Default)]
struct LeftOut(BTreeMap<usize, (bool, Vec<String>)>);

impl LeftOut {
    fn add(&mut self, index: usize, policy: Policy, why: String) {
        let (letter, reasons) = self.0.entry(index).or_default();
        *letter |= policy == Policy::DeadLetter;
        if !reasons.contains(&why) {
            reasons.push(why);
        }
    }
}

/// One chunk of records of one partition.
#[derive(Clone, Copy)]
struct Chunk<'b> {
    partition: &'b str,
    unit: &'static str,
    records: &'b [Record<'b>],
}

impl<'b> Chunk<'b> {
    fn row<T: Row>(&self, record: &Record<'b>) -> Result<T::At<'b>, Invalid> {
        match record.value {
            Some(value) => T::decode(self.partition, record, value),
            None => T::decode_null(self.partition, record).ok_or(Invalid::Null),
        }
    }

    fn positions(&self) -> String {
        let Chunk { partition, unit, .. } = self;
        match self.records {
            [] => "no records".to_string(),
            [one] => format!("record {partition} {unit} {}", one.position),
            [first, .., last] => format!("records {partition} {unit}s {} to {}", first.position, last.position),
        }
    }

    fn named(&self, index: usize) -> String {
        Chunk { records: &self.records[index..=index], ..*self }.positions()
    }
}

impl<T: Row> Pipeline for FusedPipeline<T> {
    fn records(&mut self, partition: &str, records: &[Record<'_>]) -> Result<(), Failure> {
        let chunk = Chunk { partition, unit: self.unit, records };
        self.done.records += records.len() as u64;
        self.done.bytes += records.iter().map(|record| record.value.map_or(0, <[u8]>::len) as u64).sum::<u64>();
        let mut left_out = LeftOut::default();
        let policies = (self.on_invalid, self.on_null);
        for (index, slot) in self.slots.iter_mut().enumerate() {
            // Each stage consumes its rows, so each decodes them; only the first judges those that are none.
            let rows = decode::<T>(chunk, |record, invalid| match index {
                0 => judge(chunk, record, invalid, policies, &mut left_out),
                _ => Ok(()),
            })?;
            match attempt(&*slot.fused, rows, &slot.scratch) {
                Ok(table) => slot.table = Some(table),
                Err(error) => slot.without_offenders(chunk, error, &mut left_out)?,
            }
        }
        self.settle(chunk, left_out)
    }

    fn finish(&mut self) -> Result<BatchRows, Failure> {
        let mut done = std::mem::take(&mut self.done);
        for slot in &self.slots {
            if let Some(rows) = slot.table.and_then(|table| slot.scratch.take(table)) {
                send_to_all(&slot.targets, rows, &mut done.rows);
            }
        }
        let letters = Target::State(self.dead_letters.state);
        done.rows.extend(self.dead_letters.take().map(|rows| (letters, rows)));
        Ok(done)
    }

    fn reset(&mut self) {
        self.done = BatchRows::default();
        self.slots.iter().for_each(|slot| slot.scratch.clear());
        self.dead_letters.clear();
    }

    fn observe(&mut self, witness: &Arc<dyn Witness>) {
        self.slots.iter_mut().for_each(|slot| slot.scratch.observe(&slot.place, witness));
    }
}

impl<T: Row> FusedPipeline<T> {
    /// Counts what was left out, once per record, and keeps the dead letters.
    fn settle(&mut self, chunk: Chunk<'_>, left_out: LeftOut) -> Result<(), Failure> {
        for (index, (letter, reasons)) in left_out.0 {
            if letter {
                self.dead_letters.add(chunk.partition, &chunk.records[index], &reasons.join("; "))?;
                self.done.dead_letters += 1;
            } else {
                self.done.skipped += 1;
            }
        }
        Ok(())
    }
}

/// Rows for each target: the last one gets the rows themselves, the others copies.
pub(crate) fn send_to_all(targets: &[Target], rows: Box<dyn Rows>, out: &mut Targeted) {
    if let Some((last, others)) = targets.split_last() {
        out.extend(others.iter().map(|target| (*target, rows.clone())));
        out.push((*last, rows));
    }
}

/// The rows of a chunk; `invalid` says what to do about records that are none.
fn decode<'b, T: Row>(
    chunk: Chunk<'b>,
    mut invalid: impl FnMut(usize, Invalid) -> Result<(), Failure>,
) -> Result<Vec<T::At<'b>>, Failure> {
    let mut rows = Vec::with_capacity(chunk.records.len());
    for (index, record) in chunk.records.iter().enumerate() {
        match chunk.row::<T>(record) {
            Ok(row) => rows.push(row),
            Err(why) => invalid(index, why)?,
        }
    }
    Ok(rows)
}

/// What the source's policies say of a record that is not a row.
fn judge(
    chunk: Chunk<'_>,
    index: usize,
    invalid: Invalid,
    (on_invalid, on_null): (Policy, Policy),
    left_out: &mut LeftOut,
) -> Result<(), Failure> {
    let (policy, method) = match invalid {
        Invalid::Null => (on_null, "on_null"),
        _ => (on_invalid, "on_invalid"),
    };
    match policy {
        Policy::Fail => Err(Failure::poison(format!(
            "{}: {invalid}; leave such records out with .{method}(Policy::Skip), or keep them in {} with .{method}(Policy::DeadLetter)",
            chunk.named(index),
            dead_letters::NAME
        ))),
        policy => {
            left_out.add(index, policy, invalid.to_string());
            Ok(())
        }
    }
}

impl<T: Row> Slot<T> {
    /// Runs a chunk that failed again: finds the offending records, and leaves them out if the policy says so.
    fn without_offenders(
        &mut self,
        chunk: Chunk<'_>,
        error: StageError,
        left_out: &mut LeftOut,
    ) -> Result<(), Failure> {
        if error.half_done && self.on_error != Policy::Fail {
            return Err(self.poison(&chunk.positions(), &error));
        }
        let probe = Scratch::default().careful();
        let mut rows = Vec::with_capacity(chunk.records.len());
        for (index, record) in chunk.records.iter().enumerate() {
            let Ok(row) = chunk.row::<T>(record) else { continue };
            match attempt(&*self.fused, vec![row], &probe) {
                Ok(_) => rows.extend(chunk.row::<T>(record)),
                Err(error) if self.on_error == Policy::Fail => return Err(self.poison(&chunk.named(index), &error)),
                Err(error) => {
                    left_out.add(index, self.on_error, format!("{}, {}: {}", self.place, error.operator, error.why))
                }
            }
        }
        if self.on_error == Policy::Fail {
            return Err(self.poison(&chunk.positions(), &error)); // the function fails only now and then
        }
        let table = attempt(&*self.fused, rows, &self.scratch);
        self.table = Some(table.map_err(|error| self.poison(&chunk.positions(), &error))?);
        Ok(())
    }

    fn poison(&self, records: &str, error: &StageError) -> Failure {
        let StageError { operator, why, half_done } = error;
        let advice = match half_done {
            false => format!(
                "correct the function, or before the stage leave such records out with .on_error(Policy::Skip), or keep them \
                 in {} with .on_error(Policy::DeadLetter)",
                dead_letters::NAME
            ),
            true => "correct the aggregate's function: records cannot be left out there".to_string(),
        };
        Failure::poison(format!("{records}: {}, {operator}: {why}; {advice}", self.place))
    }
}
