//! `json`: records of 200 bytes with six fields, the number and the sum of one of them by another, into Postgres.
//!
//! tine's rows borrow from the fetch buffer; the loops by hand decode the same struct with `serde_json`, borrowed too.

use anyhow::Result;

use crate::contest::{self, Contest, Entry, Figure, Goal, of_tine};
use crate::goal::Bound;
use crate::report::Reporting;
use crate::services::Place;
use crate::side::System;
use crate::workload::{Job, Workload};

/// What it compares, for `list` and `--help`.
pub(crate) const ABOUT: &str = "sum and count by a field of 200-byte JSON records, tine against loops with serde_json";

/// Flags of this benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    reporting: Reporting,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    size: contest::Size,
    /// Which systems, in the order in which they take turns.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "hand,hand-native,tine")]
    systems: Vec<System>,
}

const GOALS: [Goal; 2] = [of_tine(Figure::Rate, Bound::AtLeast(1e6)), contest::RSS];

/// After `Ok` every run was exact.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let entry = |system: &System| Entry { label: system.name(), system: *system, job: Job::Json };
    let contest = Contest {
        name: "json",
        workload: options.size.of(Workload::full(Job::Json)),
        entries: options.systems.iter().map(entry).collect(),
        yardsticks: &contest::BY_HAND,
        goals: &GOALS,
    };
    contest::run(&[contest], &options.size, &options.reporting, &options.place).await
}
