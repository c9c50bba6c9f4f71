//! `kafka-to-postgres`: counts by key from a Kafka topic into a Postgres table, tine against a loop written by hand.
//!
//! Both systems get the same topic, the same empty table and the same longest commit age, and run one after the other
//! (A B A B …), each in a process of its own. Compared are records per second from the process's start to the last
//! visible row, CPU time per record of the system and of Postgres, and the most memory. A run whose table differs from
//! the generator's own count in one key fails the benchmark.
//!
//! - [`workload`]: the two jobs and their records
//! - [`topic`]: records into Kafka
//! - [`database`]: the table, watched and compared
//! - [`contest`]: one run of one system
//! - [`verdict`]: all runs of a job, as a table and as JSON
//! - [`services`]: Kafka and Postgres, given or started

mod contest;
mod database;
mod services;
mod topic;
mod verdict;
mod workload;

use anyhow::{Context, Result, anyhow, ensure};

use self::services::Services;
use self::verdict::{Verdict, Yardstick};
pub(crate) use self::workload::Job;
use self::workload::Workload;
use crate::report::say;
use crate::side::System;

/// Name and purpose, for `list`.
pub(crate) const ABOUT: (&str, &str) = (NAME, "tine against a hand-written rdkafka + Postgres loop: counts by key");

const NAME: &str = "kafka-to-postgres";

/// Below, start-up is all there is to see; above, a topic no longer fits into an ordinary machine's page cache.
const SCALE_MIN: f64 = 0.001;
const SCALE_MAX: f64 = 20.0;

/// Flags of this benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// One JSON object per job and system on standard output instead of tables.
    #[arg(long)]
    json: bool,
    /// Runs of each system and job.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Multiplies the number of records; below 1 also the number of keys, and then ratios are a first look only.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Which jobs.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "values,words")]
    jobs: Vec<Job>,
    /// Which systems.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "hand,tine")]
    systems: Vec<System>,
    /// How old a record may be when its commit begins; a sixth of the records always begins one.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1000))]
    commit_age_ms: u64,
    /// An existing Kafka; topics stay there and are used again. Without it, one is started.
    #[arg(long, value_name = "HOST:PORT", requires = "postgres")]
    brokers: Option<String>,
    /// An existing Postgres; its database `tine_bench` is dropped and made anew for each run.
    #[arg(long, value_name = "URL", requires = "brokers")]
    postgres: Option<String>,
}

/// Returns whether every run was exact.
pub(crate) fn run(options: &Options) -> Result<bool> {
    ensure!(
        (SCALE_MIN..=SCALE_MAX).contains(&options.scale),
        "--scale must lie between {SCALE_MIN} and {SCALE_MAX}, not at {}",
        options.scale
    );
    let runtime = tokio::runtime::Runtime::new().context("cannot start a runtime")?;
    // Leaving `compare` stops what was started, so an interrupt must come through here.
    let exact = runtime.block_on(async {
        tokio::select! {
            exact = compare(options) => exact,
            _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
        }
    });
    // A topic that is being loaded when the interrupt comes is not waited for.
    runtime.shutdown_background();
    exact
}

async fn compare(options: &Options) -> Result<bool> {
    let services = Services::start_or_use(options.brokers.as_deref(), options.postgres.as_deref()).await?;
    let mut verdicts = Vec::new();
    for job in &options.jobs {
        verdicts.push(compare_on(options, *job, &services).await?);
    }
    let yardstick = Yardstick::of(&verdicts);
    for verdict in &verdicts {
        if options.json { verdict.print_json(NAME, yardstick)? } else { verdict.print(NAME, yardstick)? }
    }
    Ok(verdicts.iter().all(Verdict::is_exact))
}

async fn compare_on(options: &Options, job: Job, services: &Services) -> Result<Verdict> {
    let workload = Workload::new(job, options.scale);
    let expected = topic::prepare(services.brokers().to_owned(), workload).await?;
    let commit_age_ms = options.commit_age_ms;
    let mut verdict = Verdict::new(workload, options.scale >= 1.0, commit_age_ms);
    for run in 1..=options.runs {
        for system in &options.systems {
            let outcome =
                contest::run(*system, &workload, &expected, services.brokers(), services.postgres(), commit_age_ms)
                    .await?;
            say(format_args!(
                "{job} run {run}/{}: {system:<4} {:>10.0} {}/s  {:.3} us/record  {} commits  {}",
                options.runs,
                outcome.records_per_s,
                job.unit(),
                outcome.cpu_us_per_record,
                outcome.commits,
                outcome.difference.as_deref().unwrap_or("exact"),
            ));
            verdict.add(*system, outcome);
        }
    }
    Ok(verdict)
}
