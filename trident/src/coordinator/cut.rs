//! Decides how much of the sources' backlog the next transaction takes, and when it is cut while there is none.
//!
//! An idle stream is cut at once, so a record is committed within milliseconds. A backlog is cut into batches that take
//! the whole time they may take: its records are late already, and fewer rows per record reach the database.
//! A stream that flows without a backlog is cut so late that the next batch is ready just before the commit under way ends:
//! what arrives meanwhile comes along, instead of standing behind one more commit. Amounts are in the sources' own units
//! (offsets, bytes); only their rate per millisecond matters.

use tine_core::failure::Failure;

use crate::{
    plan::{Position, Positions},
    source::{PartitionBounds, PartitionRange, SourceIndex},
};

/// Learns how large batches should be.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// How long a batch may take.
    batch_ms: u64,
    /// Units per millisecond, smoothed; 0 before the first measurement.
    rate: f64,
    /// Units that the batch processed last would have had with as many rows as are wanted.
    units_for_rows: f64,
    /// The largest batch so far: the next one is at most [`GROWTH`] times as large.
    largest: u64,
    /// How long a batch needs from its plan until it may be committed, and a commit: the first rather too long, the
    /// second rather too short, for an idle database costs more than a batch that waits.
    ready_ms: f64,
    commit_ms: f64,
}

/// Before anything was measured: a taste, small enough to cost the database next to nothing.
const FIRST_UNITS: u64 = 256;

/// A small batch says little about the speed of a large one, nor how often keys recur; the first is only to begin with.
const GROWTH: u64 = 64;
const FIRST_GROWTH: u64 = 256;

/// What a wait may take longer than asked, and a look at the sources.
const HOLD_SLACK_MS: f64 = 2.0;

/// More distinct rows than this are not wanted in one batch: they are held in memory until committed.
const ROWS_MAX: f64 = 250_000.0;

/// How many times as many units as by proportion are tried when keys recur.
const RECURRING_MAX: f64 = 4.0;

impl Cut {
    pub(super) fn new(batch_ms: u64) -> Cut {
        Cut { batch_ms, rate: 0.0, units_for_rows: f64::INFINITY, largest: 0, ready_ms: 0.0, commit_ms: 0.0 }
    }

    /// Whether a batch has been measured: before that, one is enough.
    pub(super) fn has_measured(&self) -> bool {
        self.largest > 0
    }

    /// How many units the next transaction may take.
    pub(super) fn units(&self) -> u64 {
        if self.largest == 0 {
            return FIRST_UNITS;
        }
        // `as` saturates.
        let wanted = (self.rate * self.batch_ms as f64).min(self.units_for_rows) as u64;
        let growth = if self.largest <= FIRST_UNITS { FIRST_GROWTH } else { GROWTH };
        wanted.clamp(1, self.largest.saturating_mul(growth).max(FIRST_UNITS))
    }

    /// Whether the next batch may be more than twice as large as any before, and shall be no larger than `units_max`: then
    /// the one before it is worth waiting for, because it says how large.
    pub(super) fn grows(&self, units_max: u64) -> bool {
        self.units().min(units_max) > self.largest.saturating_mul(2)
    }

    /// A batch was processed: its units, the milliseconds it took, and the distinct rows that came of it.
    pub(super) fn processed(&mut self, units: u64, took_ms: u64, rows: u64) {
        let rate = units as f64 / took_ms.max(1) as f64;
        self.rate = if rate > self.rate { rate } else { 0.7 * self.rate + 0.3 * rate };
        self.units_for_rows = units_for_rows(units as f64, rows as f64);
        self.largest = self.largest.max(units);
    }

    /// A batch may be committed, so many milliseconds after it was planned.
    pub(super) fn ready(&mut self, took_ms: u64) {
        let took_ms = took_ms as f64;
        self.ready_ms = if took_ms > self.ready_ms { took_ms } else { smoothed(self.ready_ms, took_ms) };
    }

    /// How long the next plan can wait without making the database wait for it, when the commit under way has taken so
    /// many milliseconds (0 when it is still to begin).
    pub(super) fn hold_ms(&self, committing_ms: u64) -> u64 {
        // `as` saturates: below 0 is not at all.
        (self.commit_ms - committing_ms as f64 - self.ready_ms - HOLD_SLACK_MS) as u64
    }

    /// A transaction was committed in so many milliseconds.
    pub(super) fn committed(&mut self, took_ms: u64) {
        let took_ms = took_ms as f64;
        self.commit_ms = if took_ms < self.commit_ms { took_ms } else { smoothed(self.commit_ms, took_ms) };
    }
}

/// How many units may have [`ROWS_MAX`] distinct rows, when so many had so many. Where keys recur, a much larger batch has
/// fewer rows by unit than a small one; how many fewer, its own measure says.
fn units_for_rows(units: f64, rows: f64) -> f64 {
    let recurring = if rows < ROWS_MAX / 2.0 { (units / (2.0 * rows)).clamp(1.0, RECURRING_MAX) } else { 1.0 };
    if rows > 0.0 { units * ROWS_MAX / rows * recurring } else { f64::INFINITY }
}

fn smoothed(old: f64, new: f64) -> f64 {
    0.8 * old + 0.2 * new
}

/// What the sources hold beyond `positions`: the ranges of the next plan, at most about `units` of them, for every
/// partition ever seen, and how much is left. Judges every partition against what was planned of it before.
pub(super) fn next_ranges(
    bounds: &[Vec<PartitionBounds>],
    positions: &Positions,
    units: u64,
) -> Result<(Vec<PartitionRange>, u64), Failure> {
    let ranges = all_new(bounds, positions)?;
    let backlog: u64 = ranges.iter().map(|range| range.to - range.from).sum();
    if backlog <= units {
        return Ok((ranges, 0));
    }
    let share = |range: PartitionRange| {
        let whole = range.to - range.from;
        let part = u128::from(whole) * u128::from(units) / u128::from(backlog);
        let part = u64::try_from(part).unwrap_or(whole).max(u64::from(whole > 0));
        PartitionRange { to: range.from + part.min(whole), ..range }
    };
    let cut: Vec<PartitionRange> = ranges.into_iter().map(share).collect();
    let taken: u64 = cut.iter().map(|range| range.to - range.from).sum();
    Ok((cut, backlog - taken))
}

fn all_new(bounds: &[Vec<PartitionBounds>], positions: &Positions) -> Result<Vec<PartitionRange>, Failure> {
    let mut ranges = Vec::new();
    for (index, partitions) in bounds.iter().enumerate() {
        let source = SourceIndex(u16::try_from(index).map_err(|_| Failure::fatal("more than 65,535 sources"))?);
        for partition in partitions {
            ranges.push(range_of(source, partition, positions)?);
        }
    }
    for (source, name) in positions.keys() {
        if !ranges.iter().any(|range| range.source == *source && range.partition == *name) {
            return Err(Failure::fatal(format!(
                "partition {name} was read before and is gone: bring it back, or start a topology of another name"
            )));
        }
    }
    ranges.sort_by(|a, b| (a.source, &a.partition).cmp(&(b.source, &b.partition)));
    Ok(ranges)
}

fn range_of(source: SourceIndex, bounds: &PartitionBounds, positions: &Positions) -> Result<PartitionRange, Failure> {
    use tine_core::mutant::{Mutant, on};
    let name = &bounds.partition;
    let from = match positions.get(&(source, name.clone())) {
        None => bounds.start,
        Some(Position { incarnation, .. })
            if *incarnation != bounds.incarnation && !on(Mutant::RecreatedTopicReadOn) =>
        {
            return Err(Failure::fatal(format!(
                "{name} is not what it was: it has been deleted and made again (it was {incarnation}, now it is {}); its positions mean nothing any more; start a topology of another name, into another table",
                bounds.incarnation
            )));
        }
        Some(position) => position.at,
    };
    if from < bounds.low {
        return Err(Failure::fatal(format!(
            "data lost: {name} was to be read from position {from} and begins at {} now: retention deleted {from}..{}",
            bounds.low, bounds.low
        )));
    }
    if bounds.end < from {
        return Err(Failure::fatal(format!(
            "{name} was read up to position {from} and ends at {} now: it was truncated or replaced",
            bounds.end
        )));
    }
    Ok(PartitionRange {
        source,
        partition: name.clone(),
        incarnation: bounds.incarnation.clone(),
        from,
        to: bounds.end,
        closed_at: bounds.closed_at,
    })
}

#[cfg(test)]
mod tests {
    use tine_core::{hash::Hash128, id::TxId};

    use super::*;
    use crate::plan::Plan;

    fn bounds(name: &str, low: u64, end: u64) -> PartitionBounds {
        let incarnation = "one".to_string();
        PartitionBounds { partition: name.to_string(), incarnation, low, end, start: low, closed_at: None }
    }

    fn at(name: &str, position: u64) -> Positions {
        let position = Position { at: position, incarnation: "one".to_string(), closed_at: None };
        Positions::from([((SourceIndex(0), name.to_string()), position)])
    }

    fn message(found: Result<(Vec<PartitionRange>, u64), Failure>) -> String {
        found.expect_err("refused").message
    }

    #[test]
    fn the_next_plan_waits_as_long_as_the_database_does_not_have_to() {
        let mut cut = Cut::new(800);
        assert_eq!(cut.hold_ms(0), 0, "nothing is known yet");
        (0..50).for_each(|_| cut.committed(20));
        cut.ready(5);
        assert_eq!((cut.hold_ms(0), cut.hold_ms(10), cut.hold_ms(1000)), (12, 2, 0));
        cut.committed(4);
        assert_eq!(cut.hold_ms(0), 0, "commits have become quick");
        (0..50).for_each(|_| cut.committed(20));
        cut.ready(30);
        assert_eq!(cut.hold_ms(0), 0, "and here batches take longer than commits");
    }

    #[test]
    fn a_batch_grows_by_steps_until_it_takes_the_time_it_may_take() {
        let mut cut = Cut::new(800);
        assert_eq!(cut.units(), FIRST_UNITS);
        cut.processed(256, 1, 10);
        assert_eq!(cut.units(), 256 * FIRST_GROWTH, "256 units a millisecond are not believed yet");
        assert!(cut.grows(u64::MAX) && !cut.grows(500));
        cut.processed(256 * FIRST_GROWTH, FIRST_GROWTH, 0);
        assert_eq!(cut.units(), 256 * 800);
        cut.processed(256 * 800, 8000, 0);
        assert!(cut.units() < 256 * 800 && !cut.grows(u64::MAX), "slower than it seemed");
    }

    #[test]
    fn no_batch_has_more_distinct_rows_than_are_wanted_however_fast_they_come() {
        let mut cut = Cut::new(800);
        cut.processed(200_000, 1, 100_000);
        assert_eq!(cut.units(), 500_000);
        cut.processed(500_000, 1, 125_000);
        assert_eq!(cut.units(), 1_000_000, "keys that come again make room");
        cut.processed(1_000_000, 1, 1_000_000);
        assert_eq!(cut.units(), 250_000);
        cut.processed(250_000, 1, 20_000);
        assert_eq!(cut.units(), 4 * 3_125_000, "most keys recur");
    }

    #[test]
    fn a_backlog_is_shared_out_and_never_exceeds_what_is_there() {
        let all = vec![vec![bounds("a", 0, 900), bounds("b", 0, 100), bounds("c", 5, 5)]];
        let (ranges, left) = next_ranges(&all, &Positions::new(), 100).unwrap();
        let spans: Vec<u64> = ranges.iter().map(|range| range.to - range.from).collect();
        assert_eq!((spans, left), (vec![90, 10, 0], 900));
    }

    #[test]
    fn where_a_record_was_closed_stands_in_every_range_cut_from_its_bounds_and_in_the_position() {
        let closed = PartitionBounds { closed_at: Some(900), ..bounds("a", 0, 900) };
        for units in [100, 1000] {
            let (ranges, _) = next_ranges(&[vec![closed.clone()]], &at("a", 3), units).unwrap();
            assert_eq!((ranges[0].to, ranges[0].closed_at), (900.min(3 + units), Some(900)));
            let plan = Plan { txid: TxId(1), previous: Hash128(0), time_ms: 0, seed: 0, ranges };
            assert_eq!(plan.ends()[&(SourceIndex(0), "a".to_string())].closed_at, Some(900));
        }
    }

    #[test]
    fn k4_what_retention_deleted_is_named() {
        let lost = message(next_ranges(&[vec![bounds("a", 7, 9)]], &at("a", 3), 10));
        assert!(lost.contains("deleted 3..7"), "{lost}");
    }

    #[test]
    fn k5_a_partition_of_another_incarnation_is_refused_even_when_it_has_grown_past_the_position() {
        let other = PartitionBounds { incarnation: "two".to_string(), ..bounds("a", 0, 900) };
        assert!(message(next_ranges(&[vec![other]], &at("a", 3), 10)).contains("made again"));
    }

    #[test]
    fn truncated_and_vanished_partitions_are_refused() {
        assert!(message(next_ranges(&[vec![bounds("a", 0, 2)]], &at("a", 3), 10)).contains("truncated"));
        assert!(message(next_ranges(&[vec![]], &at("a", 3), 10)).contains("gone"));
    }
}
