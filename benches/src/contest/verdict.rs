//! All runs of a contest: each system's figures with their spread, and the ratios of runs that stood side by side.

use anyhow::Result;
use serde::Serialize;

use super::database::FILLFACTOR;
use super::watched::Outcome;
use super::{Contest, Figure};
use crate::goal::Goal;
use crate::report::{self, Table};
use crate::side::System;
use crate::spread::Spread;
use crate::workload::{Job, Workload};

/// CPU time of the librdkafka loop per record of [`Job::Values`] above which it is no yardstick.
const YARDSTICK_US_MAX: f64 = 0.7;

/// A run of fewer says nothing about committing.
const COMMITS_MIN: usize = 5;

/// Everything measured in one contest.
#[derive(Debug)]
pub(super) struct Verdict<'c> {
    contest: &'c Contest,
    full_size: bool,
    commit_age_ms: u64,
    outcomes: Vec<(&'static str, Outcome)>,
}

/// One line of `--json`.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    topic: String,
    system: &'static str,
    records: u64,
    runs: usize,
    exact: bool,
    records_per_s: Option<Spread>,
    client_us_per_record: Option<Spread>,
    postgres_us_per_record: Option<Spread>,
    kafka_us_per_record: Option<Spread>,
    /// Client, Postgres and Kafka together.
    all_us_per_record: Option<Spread>,
    rss_mb: Option<Spread>,
    commits: Option<Spread>,
    longest_gap_ms: Option<Spread>,
    commit_age_ms: u64,
    ratios: Vec<Ratio>,
    /// Why the ratios say nothing.
    void: Option<String>,
}

/// A rate by a yardstick's, over pairs of runs side by side.
#[derive(Debug, Serialize)]
struct Ratio {
    to: &'static str,
    ratio: Option<Spread>,
}

impl<'c> Verdict<'c> {
    pub(super) fn new(contest: &'c Contest, full_size: bool, commit_age_ms: u64) -> Self {
        Self { contest, full_size, commit_age_ms, outcomes: Vec::new() }
    }

    pub(super) fn add(&mut self, label: &'static str, outcome: Outcome) {
        self.outcomes.push((label, outcome));
    }

    /// How many runs ended with a table that was not right to the last count.
    pub(super) fn wrong(&self) -> usize {
        self.outcomes.iter().filter(|(_, outcome)| outcome.difference.is_some()).count()
    }

    pub(super) fn print(&self, json: bool) -> Result<()> {
        let lines: Vec<Line> = self.contest.entries.iter().map(|entry| self.line(entry.label)).collect();
        if json {
            lines.iter().try_for_each(report::print_json)?;
            return self.goals(&lines).try_for_each(|goal| goal.print(true));
        }
        self.print_title()?;
        self.table(&lines).print()?;
        let void = lines.iter().filter_map(|line| Some((line.system, line.void.as_ref()?)));
        void.into_iter().try_for_each(|(system, void)| report::print(format_args!("{system}: no ratio: {void}")))?;
        self.goals(&lines).try_for_each(|goal| goal.print(false))
    }

    /// What was reached of the goals of those who took part.
    fn goals(&self, lines: &[Line]) -> impl Iterator<Item = Goal> {
        let Contest { name, workload, goals, .. } = self.contest;
        goals.iter().filter_map(move |goal| {
            let line = lines.iter().find(|line| line.system == goal.label)?;
            let (what, figure) = match goal.figure {
                Figure::Rate => (format!("{}/s", workload.job.unit()), line.records_per_s),
                Figure::CpuUs => ("us of all processes per record".to_owned(), line.all_us_per_record),
                Figure::RssMb => ("MB resident".to_owned(), line.rss_mb),
                Figure::RateTo(to) => {
                    let ratio = line.ratios.iter().find(|ratio| ratio.to == to)?;
                    (format!("rate to {to}"), ratio.ratio)
                }
            };
            Some(Goal::new(name, format!("{}, {what}", goal.label), goal.bound, figure))
        })
    }

    fn print_title(&self) -> Result<()> {
        let Workload { job, records, distinct, partitions } = self.contest.workload;
        report::print(format_args!(
            "\n{}: {records} records, {distinct} keys, Zipf 1.0, {partitions} partitions, {} processors; a commit at least \
             every {} ms and {} records, fillfactor {FILLFACTOR}; {} counted; median (min-max)",
            self.contest.name,
            std::thread::available_parallelism().map_or(0, usize::from),
            self.commit_age_ms,
            self.contest.workload.commit_records(),
            job.unit(),
        ))
    }

    fn table(&self, lines: &[Line]) -> Table {
        let rate = format!("{}/s", self.contest.workload.job.unit());
        let mut head = vec![
            "system",
            &*rate,
            "client us",
            "postgres us",
            "kafka us",
            "all us",
            "RSS MB",
            "commits",
            "gap ms",
            "exact",
        ];
        let vs: Vec<String> = self.yardsticks().map(|label| format!("to {label}")).collect();
        head.extend(vs.iter().map(String::as_str));
        let mut table = Table::with_head(&head);
        for line in lines {
            let mut row = vec![line.system.to_owned(), Spread::show(line.records_per_s, 0)];
            for us in [
                line.client_us_per_record,
                line.postgres_us_per_record,
                line.kafka_us_per_record,
                line.all_us_per_record,
            ] {
                row.push(Spread::show(us, 3));
            }
            row.extend([line.rss_mb, line.commits, line.longest_gap_ms].map(|figure| Spread::show(figure, 0)));
            row.push(line.exact.to_string());
            row.extend(line.ratios.iter().map(|ratio| Spread::show(ratio.ratio, 2)));
            table.row(row);
        }
        table
    }

    fn line(&self, label: &'static str) -> Line {
        let spread = |figure: &dyn Fn(&Outcome) -> Option<f64>| Spread::of(self.of(label).filter_map(figure));
        let void = self.void(label);
        let ratio = |to| Ratio { to, ratio: if void.is_none() { Spread::of(self.ratios(label, to)) } else { None } };
        Line {
            name: self.contest.name,
            topic: self.contest.workload.topic(),
            system: label,
            records: self.contest.workload.records,
            runs: self.of(label).count(),
            exact: self.of(label).all(|outcome| outcome.difference.is_none()),
            records_per_s: spread(&|outcome| Some(outcome.records_per_s)),
            client_us_per_record: spread(&|outcome| Some(outcome.cpu_us_per_record)),
            postgres_us_per_record: spread(&|outcome| outcome.postgres_us_per_record),
            kafka_us_per_record: spread(&|outcome| outcome.kafka_us_per_record),
            all_us_per_record: spread(&|outcome| {
                Some(outcome.cpu_us_per_record + outcome.postgres_us_per_record? + outcome.kafka_us_per_record?)
            }),
            rss_mb: spread(&|outcome| Some(outcome.rss_mb)),
            commits: spread(&|outcome| Some(outcome.commits as f64)),
            longest_gap_ms: spread(&|outcome| Some(outcome.longest_gap.as_secs_f64() * 1e3)),
            commit_age_ms: self.commit_age_ms,
            ratios: self.yardsticks().map(ratio).collect(),
            void,
        }
    }

    /// Why the ratios of a system say nothing, if so.
    fn void(&self, label: &'static str) -> Option<String> {
        let compared = || self.yardsticks().chain([label]).flat_map(|label| self.of(label));
        if compared().any(|outcome| outcome.difference.is_some()) {
            return Some("a table was wrong".to_owned());
        }
        if !self.full_size {
            return None;
        }
        let hand = Spread::of(self.of(System::Hand.name()).map(|outcome| outcome.cpu_us_per_record));
        if let Some(us) = hand.map(|spread| spread.median)
            && self.contest.workload.job == Job::Values
            && us > YARDSTICK_US_MAX
        {
            return Some(format!("the librdkafka loop spends {us:.3} us per record, more than {YARDSTICK_US_MAX}"));
        }
        let fewest = compared().map(|outcome| outcome.commits).min()?;
        let few = fewest < COMMITS_MIN;
        few.then(|| format!("a run of {fewest} commits, fewer than {COMMITS_MIN}: lower --commit-age-ms"))
    }

    /// Yardsticks that take part.
    fn yardsticks(&self) -> impl Iterator<Item = &'static str> {
        let entries = &self.contest.entries;
        let takes_part = move |label: &&'static str| entries.iter().any(|entry| entry.label == *label);
        self.contest.yardsticks.iter().copied().filter(takes_part)
    }

    fn ratios(&self, label: &'static str, to: &'static str) -> Vec<f64> {
        let pairs = self.of(label).zip(self.of(to));
        pairs.map(|(own, yardstick)| own.records_per_s / yardstick.records_per_s).collect()
    }

    fn of(&self, label: &'static str) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(move |(of, _)| *of == label).map(|(_, outcome)| outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Entry, of_tine};
    use super::*;
    use crate::goal::Bound;

    fn outcome(records_per_s: f64, cpu_us_per_record: f64) -> Outcome {
        Outcome {
            records_per_s,
            cpu_us_per_record,
            postgres_us_per_record: None,
            kafka_us_per_record: None,
            rss_mb: 100.0,
            commits: 7,
            longest_gap: Duration::from_secs(1),
            difference: None,
        }
    }

    const GOALS: [super::super::Goal; 3] = [
        of_tine(Figure::RateTo("hand"), Bound::AtLeast(0.6)),
        of_tine(Figure::RateTo("hand-native"), Bound::AtLeast(0.6)),
        of_tine(Figure::RssMb, Bound::AtMost(99.0)),
    ];

    fn contest() -> Contest {
        let entry = |system: System| Entry { label: system.name(), system, job: Job::Values };
        Contest {
            name: "b",
            workload: Workload::full(Job::Values),
            entries: [System::Hand, System::Tine].map(entry).into(),
            yardsticks: &["hand", "hand-native"],
            goals: &GOALS,
        }
    }

    fn verdict(contest: &Contest, hand_cpu_us: f64) -> Verdict<'_> {
        let mut verdict = Verdict::new(contest, true, 1000);
        for (hand, tine) in [(1000.0, 500.0), (2000.0, 1600.0), (1000.0, 700.0)] {
            verdict.add("hand", outcome(hand, hand_cpu_us));
            verdict.add("tine", outcome(tine, 0.9));
        }
        verdict
    }

    fn ratio(verdict: &Verdict<'_>) -> Option<Spread> {
        let ratios = verdict.line("tine").ratios;
        assert_eq!(ratios.len(), 1, "who does not take part is no yardstick");
        ratios[0].ratio
    }

    #[test]
    fn ratios_compare_runs_side_by_side() {
        let contest = contest();
        assert_eq!(ratio(&verdict(&contest, 0.6)), Some(Spread { median: 0.7, min: 0.5, max: 0.8 }));
    }

    #[test]
    fn goals_are_judged_for_those_who_took_part() {
        let contest = contest();
        let verdict = verdict(&contest, 0.6);
        let said: Vec<String> = verdict.goals(&[verdict.line("tine")]).map(|goal| goal.to_string()).collect();
        assert_eq!(
            said,
            [
                "goal: tine, rate to hand >= 0.6: 0.70 (0.50-0.80)  met",
                "goal: tine, MB resident <= 99: 100 (100-100)  NOT MET"
            ]
        );
    }

    #[test]
    fn a_slow_yardstick_voids_the_ratio() {
        let contest = contest();
        let verdict = verdict(&contest, 0.8);
        assert_eq!(ratio(&verdict), None);
        assert!(verdict.line("tine").void.is_some());
    }

    #[test]
    fn a_wrong_table_or_too_few_commits_void_the_ratio() {
        let contest = contest();
        let mut wrong = verdict(&contest, 0.6);
        wrong.outcomes[1].1.difference = Some("one key".to_owned());
        assert_eq!((wrong.wrong(), ratio(&wrong)), (1, None));
        let mut few = verdict(&contest, 0.6);
        few.outcomes[0].1.commits = 4;
        assert_eq!(ratio(&few), None);
    }
}
