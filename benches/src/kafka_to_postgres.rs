//! `kafka-to-postgres`: counts by key from a Kafka topic into a Postgres table, tine against loops written by hand.
//!
//! Every system gets the same topic, the same empty table and the same longest commit age. A run whose table differs from
//! the generator's own count in one key fails the benchmark. `--jobs values --records 60000000` is K60.

use anyhow::Result;
use clap::ValueEnum;

use crate::contest::{self, Contest, Entry, Figure, Goal, of_tine};
use crate::goal::Bound;
use crate::report::Reporting;
use crate::services::Place;
use crate::side::System;
use crate::workload::{Job, Workload};

/// What it compares, for `list` and `--help`.
pub(crate) const ABOUT: &str = "tine against hand-written Kafka + Postgres loops: counts by key";

/// Flags of this benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    reporting: Reporting,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    size: contest::Size,
    /// Which jobs.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "values,words")]
    jobs: Vec<Counted>,
    /// Which systems, in the order in which they take turns.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "hand,hand-native,tine,tine-rdkafka")]
    systems: Vec<System>,
}

const VALUES: [Goal; 5] = [
    of_tine(Figure::Rate, Bound::AtLeast(3e6)),
    of_tine(Figure::RateTo("hand"), Bound::AtLeast(2.0)),
    of_tine(Figure::RateTo("hand-native"), Bound::AtLeast(0.95)),
    of_tine(Figure::CpuUs, Bound::AtMost(0.5)),
    contest::RSS,
];

const WORDS: [Goal; 4] = [
    of_tine(Figure::Rate, Bound::AtLeast(8e6)),
    of_tine(Figure::RateTo("hand"), Bound::AtLeast(0.95)),
    of_tine(Figure::RateTo("hand-native"), Bound::AtLeast(0.95)),
    contest::RSS,
];

/// What is counted.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Counted {
    /// K: 10 M records like `user-0008240`, 100,000 distinct; whole values are counted.
    Values,
    /// L: 2 M lines of 10 words, 50,000 distinct; words are counted.
    Words,
}

/// After `Ok` every run was exact.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let contests: Vec<Contest> = options.jobs.iter().map(|counted| contest(options, *counted)).collect();
    contest::run(&contests, &options.size, &options.reporting, &options.place).await
}

fn contest(options: &Options, counted: Counted) -> Contest {
    let job = match counted {
        Counted::Values => Job::Values,
        Counted::Words => Job::Words,
    };
    Contest {
        name: "kafka-to-postgres",
        workload: options.size.of(Workload::full(job)),
        entries: options.systems.iter().map(|system| Entry { label: system.name(), system: *system, job }).collect(),
        yardsticks: &contest::BY_HAND,
        goals: match counted {
            Counted::Values => &VALUES,
            Counted::Words => &WORDS,
        },
    }
}
