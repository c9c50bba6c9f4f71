//! What a chaos came to, as a table.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Chaos;
use super::crew::{Audits, Steps};
use super::plan::Missing;
use super::victim::Told;
use crate::audit::Verdict;
use crate::count::Counts;

/// What happened, and what it did to the counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub(super) chaos: Chaos,
    pub(super) missing: Missing,
    pub(super) steps: Steps,
    pub(super) told: Told,
    pub(super) audits: Audits,
    pub(super) commits: i64,
    pub(super) words: i64,
    pub(super) drained: Duration,
    pub(super) lost_and_doubled: (i64, i64),
    /// While the workers still ran, and after they were stopped.
    pub(super) verdicts: [Verdict; 2],
}

impl Outcome {
    /// Whether the table holds what was written, by the producer's memory and by both audits.
    pub fn is_exact(&self) -> bool {
        self.lost_and_doubled == (0, 0) && self.verdicts.iter().all(Verdict::is_exact)
    }

    /// How many faults there were.
    pub fn faults(&self) -> usize {
        self.steps.len()
    }
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
        let mut faults = BTreeMap::<_, (usize, Duration)>::new();
        for (target, step) in &self.steps {
            let (times, time) = faults.entry((target.kind(), step.fault.name())).or_default();
            (*times, *time) = (*times + 1, *time + step.hold);
        }
        writeln!(f, "  {}", self.chaos)?;
        writeln!(f, "  {:<10} {:<22} {:>5} {:>8}", "what", "how", "times", "seconds")?;
        for ((target, fault), (times, time)) in faults {
            writeln!(f, "  {target:<10} {fault:<22} {times:>5} {:>8.1}", time.as_secs_f64())?;
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
        writeln!(
            f,
            "  {} faults; {starts} starts of workers, {ends} ends of their own, {elections} elections",
            self.faults()
        )?;
        writeln!(f, "  audits under way: {exact} exact, {without} did not get through")?;
        let (lost, doubled) = self.lost_and_doubled;
        writeln!(
            f,
            "  {} commits, {} words, counted {:.1} s after the last fault",
            self.commits,
            self.words,
            self.drained.as_secs_f64()
        )?;
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
}
