//! Systems doing one job in turns (A B A B …), each run a process of its own, watched from outside and compared with an
//! independent count.
//!
//! Compared are records per second from the process's start to the last visible row, CPU time per record (of the system,
//! of Postgres, of Kafka, and of all together), and the most memory. Ratios are of runs that stood side by side.
//!
//! - [`topic`]: records into Kafka
//! - [`database`]: the table, watched and compared
//! - [`watched`]: one run of one system
//! - [`verdict`]: all runs of a job, as a table and as JSON

pub(crate) mod database;
pub(crate) mod topic;
mod verdict;
pub(crate) mod watched;

use anyhow::{Result, bail, ensure};

use self::verdict::Verdict;
use crate::goal::Bound;
use crate::report::{Reporting, say};
use crate::services::{Place, Services};
use crate::side::System;
use crate::workload::{Job, PARTITIONS, Workload};

/// Below, start-up is all there is to see; above, a topic no longer fits into an ordinary machine's page cache.
const SCALE_MIN: f64 = 0.001;
const SCALE_MAX: f64 = 20.0;

/// The loops by hand.
pub(crate) const BY_HAND: [&str; 2] = [System::Hand.name(), System::HandNative.name()];

/// Flags about the size of a job.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Size {
    /// Multiplies the number of records; below 1 also the number of keys, and then ratios are a first look only.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// So many records instead, of as many keys as at full size.
    #[arg(long, value_name = "N", conflicts_with = "scale", value_parser = clap::value_parser!(u64).range(1000..))]
    records: Option<u64>,
    /// How old a record may be when its commit begins; a sixth of the records always begins one.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1000))]
    commit_age_ms: u64,
    /// How many partitions the topic has.
    #[arg(long, value_name = "N", default_value_t = PARTITIONS, value_parser = clap::value_parser!(i32).range(1..=64))]
    partitions: i32,
}

impl Size {
    pub(crate) fn of(&self, full: Workload) -> Workload {
        let full = Workload { partitions: self.partitions, ..full };
        match self.records {
            Some(records) => Workload { records, ..full },
            None => full.scaled(self.scale),
        }
    }

    fn is_full(&self) -> bool {
        self.records.is_some() || self.scale >= 1.0
    }
}

/// Who takes part, under which name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) label: &'static str,
    pub(crate) system: System,
    pub(crate) job: Job,
}

/// One set of records and everyone who takes part.
#[derive(Debug)]
pub(crate) struct Contest {
    pub(crate) name: &'static str,
    pub(crate) workload: Workload,
    pub(crate) entries: Vec<Entry>,
    /// Labels of those that others are compared with, where they take part.
    pub(crate) yardsticks: &'static [&'static str],
    /// What is to be reached.
    pub(crate) goals: &'static [Goal],
}

/// What one of those who take part is to reach.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) label: &'static str,
    pub(crate) figure: Figure,
    pub(crate) bound: Bound,
}

/// A figure of all runs of one system.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Figure {
    Rate,
    /// Of client, Postgres and Kafka together.
    CpuUs,
    RssMb,
    /// The rate by another's.
    RateTo(&'static str),
}

/// Of tine, in a contest.
pub(crate) const fn of_tine(figure: Figure, bound: Bound) -> Goal {
    Goal { label: System::Tine.name(), figure, bound }
}

/// No job takes more memory.
pub(crate) const RSS: Goal = of_tine(Figure::RssMb, Bound::AtMost(256.0));

/// Lets everyone run and prints the verdicts. After `Ok` every run was exact.
pub(crate) async fn run(contests: &[Contest], size: &Size, reporting: &Reporting, place: &Place) -> Result<()> {
    ensure!(
        (SCALE_MIN..=SCALE_MAX).contains(&size.scale),
        "--scale must lie between {SCALE_MIN} and {SCALE_MAX}, not at {}",
        size.scale
    );
    let services = Services::at(place).await?;
    let mut wrong = 0;
    for contest in contests {
        let verdict = compare(contest, size, reporting.runs, &services).await?;
        verdict.print(reporting.json)?;
        wrong += verdict.wrong();
    }
    if wrong > 0 {
        bail!("{wrong} runs were wrong");
    }
    Ok(())
}

async fn compare<'c>(contest: &'c Contest, size: &Size, runs: u32, services: &Services) -> Result<Verdict<'c>> {
    let Contest { name, workload, entries, .. } = contest;
    let expected = topic::prepare(services.brokers.clone(), *workload).await?;
    let by_letter = expected.by_first_letter();
    let mut verdict = Verdict::new(contest, size.is_full(), size.commit_age_ms);
    for run in 1..=runs {
        for entry in entries {
            let expected = if entry.job == Job::Letters { &by_letter } else { &expected };
            let outcome = watched::run(entry, workload, expected, services, size.commit_age_ms).await?;
            say(format_args!(
                "{name} run {run}/{runs}: {:<12} {:>10.0} {}/s  {:.3} us/record  {} commits  {}",
                entry.label,
                outcome.records_per_s,
                entry.job.unit(),
                outcome.cpu_us_per_record,
                outcome.commits,
                outcome.difference.as_deref().unwrap_or("exact"),
            ));
            verdict.add(entry.label, outcome);
        }
    }
    Ok(verdict)
}
