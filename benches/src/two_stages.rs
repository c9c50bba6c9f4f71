//! `two-stages`: words counted, and the counts summed by first letter in a second stage, against the words alone.
//!
//! Both read the same lines; each keeps what its last stage makes. The ratio is what a repartition within a batch costs.

use anyhow::Result;

use crate::contest::{self, Contest, Entry, Figure, Goal};
use crate::goal::Bound;
use crate::report::Reporting;
use crate::services::Place;
use crate::side::System;
use crate::workload::{Job, Workload};

/// What it compares, for `list` and `--help`.
pub(crate) const ABOUT: &str = "words counted and summed by first letter in a second stage, against one stage";

/// Flags of this benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    reporting: Reporting,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    size: contest::Size,
}

/// After `Ok` every run was exact.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let contest = Contest {
        name: "two-stages",
        workload: options.size.of(Workload::full(Job::Words)),
        entries: vec![
            Entry { label: "one stage", system: System::Tine, job: Job::Words },
            Entry { label: "two stages", system: System::Tine, job: Job::Letters },
        ],
        yardsticks: &["one stage"],
        goals: &[
            Goal { label: "two stages", figure: Figure::RateTo("one stage"), bound: Bound::AtLeast(0.6) },
            Goal { label: "two stages", ..contest::RSS },
        ],
    };
    contest::run(&[contest], &options.size, &options.reporting, &options.place).await
}
