//! What a chaos came to, as a table.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::crew::{Audits, Done};
use super::plan::Missing;
use super::victim::Told;
use super::{Chaos, damage};
use crate::audit::Verdict;
use crate::count::Counts;

/// What happened, and what it did to the counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub(super) chaos: Chaos,
    pub(super) missing: Missing,
    pub(super) done: Vec<Done>,
    /// When transactions were committed, in seconds since the start.
    pub(super) beats: Vec<f64>,
    pub(super) told: Told,
    pub(super) audits: Audits,
    pub(super) commits: i64,
    pub(super) records: u64,
    pub(super) words: i64,
    pub(super) drained: Duration,
    pub(super) lost_and_doubled: (i64, i64),
    /// While the workers still ran, and after they were stopped.
    pub(super) verdicts: [Verdict; 2],
    /// Damage done by hand that the audit did not find.
    pub(super) missed: Vec<&'static str>,
}

impl Outcome {
    /// Whether the table holds what was written, by the producer's memory and by both audits, and the audit would have found
    /// it out.
    pub fn is_exact(&self) -> bool {
        self.lost_and_doubled == (0, 0) && self.verdicts.iter().all(Verdict::is_exact) && self.missed.is_empty()
    }

    /// How many faults took effect.
    pub fn faults(&self) -> usize {
        self.done.iter().filter(|done| done.took_effect).count()
    }
}

/// Faults of one kind.
#[derive(Debug, Default)]
struct Row {
    times: usize,
    took_effect: usize,
    seconds: f64,
    /// From the stroke to the next commit, in seconds; of those that took effect.
    from_stroke: Vec<f64>,
    /// From the end of the fault to the next commit.
    from_healing: Vec<f64>,
}

impl Row {
    fn add(&mut self, done: &Done, beats: &[f64]) {
        self.times += 1;
        self.seconds += done.healed - done.struck;
        if !done.took_effect {
            return;
        }
        self.took_effect += 1;
        self.from_stroke.extend(until_next(beats, done.struck));
        self.from_healing.extend(until_next(beats, done.healed));
    }
}

/// How long after `moment` the next beat came, if one came.
fn until_next(beats: &[f64], moment: f64) -> Option<f64> {
    let next = beats.partition_point(|beat| *beat <= moment);
    beats.get(next).map(|beat| beat - moment)
}

/// The median and the largest one.
fn middle_and_worst(times: &mut [f64]) -> Option<(f64, f64)> {
    times.sort_by(f64::total_cmp);
    Some((*times.get(times.len() / 2)?, *times.last()?))
}

/// How many words are counted too rarely, and too often.
pub(super) fn lost_and_doubled(expected: &Counts, found: &Counts) -> (i64, i64) {
    let of = |counts: &Counts, word| counts.get(word).copied().unwrap_or(0);
    let lost = expected.iter().map(|(word, n)| (n - of(found, word)).max(0)).sum();
    let doubled = found.iter().map(|(word, n)| (n - of(expected, word)).max(0)).sum();
    (lost, doubled)
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = BTreeMap::<_, Row>::new();
        for done in &self.done {
            rows.entry((done.kind, done.step.fault.name())).or_default().add(done, &self.beats);
        }
        writeln!(f, "  {}", self.chaos)?;
        writeln!(f, "  {:<42} {:>16} {:>16}", "", "next commit after", "and after the end")?;
        writeln!(
            f,
            "  {:<9} {:<23} {:>5} {:>6} {:>7} {:>8} {:>7} {:>8} {:>7}",
            "what", "how", "times", "effect", "seconds", "median", "worst", "median", "worst"
        )?;
        for ((target, fault), mut row) in rows {
            write!(f, "  {target:<9} {fault:<23} {:>5} {:>6} {:>7.1}", row.times, row.took_effect, row.seconds)?;
            for times in [&mut row.from_stroke, &mut row.from_healing] {
                match middle_and_worst(times) {
                    Some((middle, worst)) => write!(f, " {middle:>8.2} {worst:>7.2}")?,
                    None => write!(f, " {:>8} {:>7}", "-", "-")?,
                }
            }
            writeln!(f)?;
        }
        let Missing { disk, clock } = self.missing;
        for (missing, name) in
            [(disk, "disk full: nothing may be mounted here"), (clock, "clock jumps: no libfaketime")]
        {
            if missing {
                writeln!(f, "  not done: {name}")?;
            }
        }
        let (Told { elections, starts, ends }, Audits { exact, without }) = (self.told, self.audits);
        let (count, faults) = (self.done.len(), self.faults());
        writeln!(
            f,
            "  {count} faults, {faults} took effect; {starts} starts of workers, {ends} ends of their own, {elections} elections"
        )?;
        writeln!(f, "  audits under way: {exact} exact, {without} did not get through")?;
        let pause = self.beats.windows(2).map(|two| two[1] - two[0]).fold(0.0, f64::max);
        writeln!(
            f,
            "  {} records, {} words, {} commits, at most {pause:.1} s without one; all counted {:.1} s after the last fault",
            self.records,
            self.words,
            self.commits,
            self.drained.as_secs_f64()
        )?;
        let found = damage::COUNT - self.missed.len();
        writeln!(f, "  of {} damages done by hand afterwards the audit found {found}", damage::COUNT)?;
        for missed in &self.missed {
            writeln!(f, "  not found: {missed}")?;
        }
        let (lost, doubled) = self.lost_and_doubled;
        match self.verdicts.iter().find(|verdict| !verdict.is_exact()) {
            None => write!(f, "  {lost} lost, {doubled} doubled; the audits say exact")?,
            Some(verdict) => write!(f, "  {lost} lost, {doubled} doubled; an audit: {verdict}")?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_does_not_make_up_for_what_is_doubled() {
        let counts = |counts: &[(&str, i64)]| counts.iter().map(|(word, n)| ((*word).to_owned(), *n)).collect();
        let (expected, found) = (counts(&[("a", 2), ("b", 1)]), counts(&[("a", 1), ("c", 4)]));
        assert_eq!(lost_and_doubled(&expected, &found), (2, 4));
        assert_eq!(lost_and_doubled(&expected, &expected), (0, 0));
    }

    #[test]
    fn recovery_is_counted_up_to_the_next_commit() {
        assert_eq!(until_next(&[1.0, 2.0, 5.0], 2.0), Some(3.0));
        assert_eq!(until_next(&[1.0, 2.0, 5.0], 5.0), None);
        assert_eq!(middle_and_worst(&mut [3.0, 1.0, 2.0]), Some((2.0, 3.0)));
        assert_eq!(middle_and_worst(&mut []), None);
    }
}
