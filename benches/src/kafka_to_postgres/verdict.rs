//! All runs of one job: each system's figures with their spread, and the ratio of runs that stood side by side.

use anyhow::Result;
use serde::Serialize;

use super::contest::Outcome;
use super::database::FILLFACTOR;
use super::workload::{Job, PARTITIONS, Workload};
use crate::report;
use crate::side::System;
use crate::spread::Spread;

/// CPU time of the hand-written loop per record of [`Job::Values`] above which it is no yardstick.
const YARDSTICK_US_MAX: f64 = 0.7;

/// A run of fewer says nothing about committing.
const COMMITS_MIN: usize = 5;

/// Everything measured for one job.
#[derive(Debug)]
pub(super) struct Verdict {
    workload: Workload,
    full_scale: bool,
    commit_age_ms: u64,
    outcomes: Vec<(System, Outcome)>,
}

/// One line of `--json`.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    system: System,
    records_per_s: Option<f64>,
    cpu_us_per_record: Option<f64>,
    rss_mb: Option<f64>,
    exact: bool,
    /// Median over pairs of runs side by side; 1 for the yardstick itself.
    ratio: Option<f64>,
    /// Why the ratio says nothing.
    void: Option<String>,
    runs: usize,
    records_per_s_spread: Option<Spread>,
    cpu_us_per_record_spread: Option<Spread>,
    ratio_spread: Option<Spread>,
    postgres_us_per_record: Option<f64>,
    commits_min: Option<usize>,
    longest_gap_ms: Option<f64>,
    commit_age_ms: u64,
}

/// What the hand-written loop spends on a record of [`Job::Values`], the smallest there are: whether it is as good as a
/// loop on librdkafka can be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Yardstick {
    cpu_us: f64,
}

impl Yardstick {
    /// `None` when the loop did not run on [`Job::Values`] at full scale.
    pub(super) fn of(verdicts: &[Verdict]) -> Option<Self> {
        let values = verdicts.iter().find(|verdict| verdict.workload.job == Job::Values && verdict.full_scale)?;
        Some(Self { cpu_us: values.spread(System::Hand, |outcome| Some(outcome.cpu_us_per_record))?.median })
    }

    fn is_good(self) -> bool {
        self.cpu_us <= YARDSTICK_US_MAX
    }
}

impl Verdict {
    pub(super) fn new(workload: Workload, full_scale: bool, commit_age_ms: u64) -> Self {
        Self { workload, full_scale, commit_age_ms, outcomes: Vec::new() }
    }

    pub(super) fn add(&mut self, system: System, outcome: Outcome) {
        self.outcomes.push((system, outcome));
    }

    /// Whether every table was right to the last count.
    pub(super) fn is_exact(&self) -> bool {
        self.outcomes.iter().all(|(_, outcome)| outcome.difference.is_none())
    }

    /// A table for people.
    pub(super) fn print(&self, name: &str, yardstick: Option<Yardstick>) -> Result<()> {
        let Workload { job, records, distinct } = self.workload;
        let unit = job.unit();
        report::print(format_args!(
            "\n{name}, {job}: {records} records, {distinct} keys, Zipf 1.0, {PARTITIONS} partitions, {} processors; \
             a commit at least every {} ms and {} records, fillfactor {FILLFACTOR}; {unit} counted; median (min-max)",
            std::thread::available_parallelism().map_or(0, usize::from),
            self.commit_age_ms,
            self.workload.commit_records(),
        ))?;
        report::print(format_args!(
            "{:<6} {:>28} {:>22} {:>9} {:>7} {:>8} {:>8} {:>6} {:>18}",
            "system",
            format!("{unit}/s"),
            "client us each",
            "pg us",
            "RSS MB",
            "commits",
            "gap ms",
            "exact",
            "ratio"
        ))?;
        for line in self.lines(name, yardstick) {
            report::print(format_args!(
                "{:<6} {:>28} {:>22} {:>9} {:>7} {:>8} {:>8} {:>6} {:>18}",
                line.system,
                spread(line.records_per_s_spread, 0),
                spread(line.cpu_us_per_record_spread, 3),
                number(line.postgres_us_per_record, 3),
                number(line.rss_mb, 0),
                line.commits_min.map_or_else(|| "-".to_owned(), |commits| commits.to_string()),
                number(line.longest_gap_ms, 0),
                line.exact,
                spread(line.ratio_spread, 2),
            ))?;
            if let Some(void) = line.void {
                report::print(format_args!("       ratio void: {void}"))?;
            }
        }
        for (system, outcome) in &self.outcomes {
            if let Some(difference) = &outcome.difference {
                report::print(format_args!("{system} is not exact: {difference}"))?;
            }
        }
        self.print_yardstick(yardstick)
    }

    /// One JSON object per system.
    pub(super) fn print_json(&self, name: &str, yardstick: Option<Yardstick>) -> Result<()> {
        for line in self.lines(name, yardstick) {
            report::print(format_args!("{}", serde_json::to_string(&line)?))?;
        }
        Ok(())
    }

    fn print_yardstick(&self, yardstick: Option<Yardstick>) -> Result<()> {
        match yardstick {
            Some(yardstick) => report::print(format_args!(
                "check: the hand-written loop spends {:.3} us of client CPU per record on values, {} {YARDSTICK_US_MAX}: {}",
                yardstick.cpu_us,
                if yardstick.is_good() { "at most" } else { "more than" },
                if yardstick.is_good() { "a yardstick" } else { "ratios are void" },
            )),
            None => report::print(format_args!(
                "check: not made; it needs the hand-written loop on values at full scale, so ratios are a first look"
            )),
        }
    }

    fn lines(&self, name: &str, yardstick: Option<Yardstick>) -> Vec<Line> {
        let both = [System::Hand, System::Tine];
        both.into_iter()
            .filter(|system| self.of(*system).next().is_some())
            .map(|system| self.line(name, system, yardstick))
            .collect()
    }

    fn line(&self, name: &str, system: System, yardstick: Option<Yardstick>) -> Line {
        let records_per_s_spread = self.spread(system, |outcome| Some(outcome.records_per_s));
        let cpu_us_per_record_spread = self.spread(system, |outcome| Some(outcome.cpu_us_per_record));
        let void = self.void(system, yardstick);
        let ratio_spread = if void.is_none() { Spread::of(self.ratios(system)) } else { None };
        Line {
            name: format!("{name}/{}", self.workload.job),
            system,
            records_per_s: records_per_s_spread.map(|spread| spread.median),
            cpu_us_per_record: cpu_us_per_record_spread.map(|spread| spread.median),
            rss_mb: self.spread(system, |outcome| Some(outcome.rss_mb)).map(|spread| spread.max),
            exact: self.of(system).all(|outcome| outcome.difference.is_none()),
            ratio: ratio_spread.map(|spread| spread.median),
            void,
            runs: self.of(system).count(),
            records_per_s_spread,
            cpu_us_per_record_spread,
            ratio_spread,
            postgres_us_per_record: self
                .spread(system, |outcome| outcome.postgres_us_per_record)
                .map(|spread| spread.median),
            commits_min: self.of(system).map(|outcome| outcome.commits).min(),
            longest_gap_ms: self
                .spread(system, |outcome| Some(outcome.longest_gap.as_secs_f64() * 1e3))
                .map(|spread| spread.max),
            commit_age_ms: self.commit_age_ms,
        }
    }

    /// Why the ratio of `system` says nothing, if so.
    fn void(&self, system: System, yardstick: Option<Yardstick>) -> Option<String> {
        if let Some(yardstick) = yardstick.filter(|yardstick| !yardstick.is_good()) {
            return Some(format!("the yardstick spends {:.3} us per record of values", yardstick.cpu_us));
        }
        let fewest = |system| self.of(system).map(|outcome| outcome.commits).min().unwrap_or(usize::MAX);
        let commits = fewest(system).min(fewest(System::Hand));
        if self.full_scale && commits < COMMITS_MIN {
            return Some(format!("a run of {commits} commits, fewer than {COMMITS_MIN}: lower --commit-age-ms"));
        }
        let wrong = self.of(system).chain(self.of(System::Hand)).any(|outcome| outcome.difference.is_some());
        wrong.then(|| "a table was wrong".to_owned())
    }

    /// Rate of `system` by the yardstick's, for each pair of runs side by side.
    fn ratios(&self, system: System) -> Vec<f64> {
        self.of(system).zip(self.of(System::Hand)).map(|(own, hand)| own.records_per_s / hand.records_per_s).collect()
    }

    fn of(&self, system: System) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(move |(of, _)| *of == system).map(|(_, outcome)| outcome)
    }

    fn spread(&self, system: System, figure: impl Fn(&Outcome) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.of(system).filter_map(figure))
    }
}

fn spread(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or_else(
        || "-".to_owned(),
        |Spread { median, min, max }| format!("{median:.decimals$} ({min:.decimals$}-{max:.decimals$})"),
    )
}

fn number(number: Option<f64>, decimals: usize) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn outcome(records_per_s: f64, cpu_us_per_record: f64) -> Outcome {
        Outcome {
            records_per_s,
            cpu_us_per_record,
            postgres_us_per_record: None,
            rss_mb: 100.0,
            commits: 7,
            longest_gap: Duration::from_secs(1),
            difference: None,
        }
    }

    fn verdict(hand_cpu_us: f64) -> Verdict {
        let mut verdict = Verdict::new(Workload::new(Job::Values, 1.0), true, 1000);
        for (hand, tine) in [(1000.0, 500.0), (2000.0, 1600.0), (1000.0, 700.0)] {
            verdict.add(System::Hand, outcome(hand, hand_cpu_us));
            verdict.add(System::Tine, outcome(tine, 0.9));
        }
        verdict
    }

    #[test]
    fn ratios_compare_runs_side_by_side() {
        let verdict = verdict(0.6);
        let line = verdict.line("b", System::Tine, Yardstick::of(std::slice::from_ref(&verdict)));
        assert_eq!(line.ratio_spread, Some(Spread { median: 0.7, min: 0.5, max: 0.8 }));
    }

    #[test]
    fn a_slow_yardstick_voids_the_ratio() {
        let verdict = verdict(0.8);
        let line = verdict.line("b", System::Tine, Yardstick::of(std::slice::from_ref(&verdict)));
        assert_eq!(line.ratio, None);
        assert!(line.void.is_some());
    }

    #[test]
    fn a_wrong_table_or_too_few_commits_void_the_ratio() {
        let mut wrong = verdict(0.6);
        wrong.outcomes[1].1.difference = Some("one key".to_owned());
        assert!(!wrong.is_exact());
        assert_eq!(wrong.line("b", System::Tine, None).ratio, None);
        let mut few = verdict(0.6);
        few.outcomes[0].1.commits = 4;
        assert_eq!(few.line("b", System::Tine, None).ratio, None);
    }
}
