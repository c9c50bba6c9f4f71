//! Benchmarks as programs: each compares tine with something else in the same run and prints ratios and their spread.
//!
//! ```text
//! cargo run --release -p tine-bench -- list
//! cargo run --release -p tine-bench -- kafka-to-postgres --runs 5
//! ```
//!
//! Read in this order: [`workload`] makes the records and knows what must come of them; [`contest`] lets systems do one job
//! after the other, each a child process ([`side`]) watched from outside, and compares. [`kafka_to_postgres`], [`json`]
//! and [`two_stages`] are such contests. [`hand`] holds the loops a strong engineer writes by hand, [`tine_side`] the same
//! jobs for tine. [`latency`], [`memory`], [`embedded`] and [`pipeline`] measure what a contest cannot. [`core`], [`core_latency`], [`core_shuffle`]
//! and [`cluster`] measure the tuple engine alone.
//!
//! No figure is printed of a run whose results were wrong: it ends the benchmark.

#[cfg(test)]
mod allocations;
mod cluster;
mod contest;
mod core;
mod core_latency;
mod core_shuffle;
mod embedded;
mod goal;
mod hand;
mod json;
mod kafka_to_postgres;
mod latency;
mod live;
mod memory;
mod phases;
mod pipeline;
mod procfs;
mod report;
mod services;
mod side;
mod spread;
mod tine_side;
mod two_stages;
mod workload;

use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::{Parser, Subcommand};

use crate::report::say;

/// tine's benchmarks: each prints a table with ratios and their spread.
#[derive(Debug, Parser)]
#[command(name = "tine-bench")]
struct Cli {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// Names the benchmarks.
    List,
    #[command(about = kafka_to_postgres::ABOUT)]
    KafkaToPostgres(kafka_to_postgres::Options),
    #[command(about = two_stages::ABOUT)]
    TwoStages(two_stages::Options),
    #[command(about = json::ABOUT)]
    Json(json::Options),
    #[command(about = latency::ABOUT)]
    Latency(latency::Options),
    #[command(about = memory::ABOUT)]
    Memory(memory::Options),
    #[command(about = embedded::ABOUT)]
    Embedded(embedded::Options),
    #[command(about = pipeline::ABOUT)]
    Pipeline(pipeline::Options),
    #[command(about = core::ABOUT)]
    Core(core::Options),
    #[command(about = core_latency::ABOUT)]
    CoreLatency(core_latency::Options),
    #[command(about = core_shuffle::ABOUT)]
    CoreShuffle(core_shuffle::Options),
    #[command(about = core_latency::ABOUT_MEMORY)]
    CoreMemory(core_latency::MemoryOptions),
    #[command(about = cluster::ABOUT)]
    Cluster(cluster::Options),
    /// The second worker of `cluster`, which starts itself with this.
    #[command(hide = true, name = cluster::WORKER)]
    ClusterWorker {
        /// The task, as the parent wrote it.
        task: String,
    },
    /// One system doing one job; the benchmark starts itself with this.
    #[command(hide = true, name = side::SUBCOMMAND)]
    Side {
        /// The assignment, as the parent wrote it.
        assignment: String,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().benchmark) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(benchmark: Benchmark) -> Result<()> {
    match benchmark {
        Benchmark::List => report::list(&[
            ("kafka-to-postgres", kafka_to_postgres::ABOUT),
            ("two-stages", two_stages::ABOUT),
            ("json", json::ABOUT),
            ("latency", latency::ABOUT),
            ("memory", memory::ABOUT),
            ("embedded", embedded::ABOUT),
            ("pipeline", pipeline::ABOUT),
            ("core", core::ABOUT),
            ("core-latency", core_latency::ABOUT),
            ("core-shuffle", core_shuffle::ABOUT),
            ("core-memory", core_latency::ABOUT_MEMORY),
            ("cluster", cluster::ABOUT),
        ]),
        Benchmark::KafkaToPostgres(options) => until_interrupted(kafka_to_postgres::run(&options)),
        Benchmark::TwoStages(options) => until_interrupted(two_stages::run(&options)),
        Benchmark::Json(options) => until_interrupted(json::run(&options)),
        Benchmark::Latency(options) => until_interrupted(latency::run(&options)),
        Benchmark::Memory(options) => until_interrupted(memory::run(&options)),
        Benchmark::Embedded(options) => until_interrupted(embedded::run(&options)),
        Benchmark::Pipeline(options) => pipeline::run(&options),
        Benchmark::Core(options) => core::run(&options),
        Benchmark::CoreLatency(options) => core_latency::run(&options),
        Benchmark::CoreShuffle(options) => core_shuffle::run(&options),
        Benchmark::CoreMemory(options) => core_latency::run_memory(&options),
        Benchmark::Cluster(options) => cluster::run(&options),
        Benchmark::ClusterWorker { task } => cluster::work(&serde_json::from_str(&task)?),
        Benchmark::Side { assignment } => side::run(&assignment),
    }
}

/// Leaving a benchmark stops what it started, so an interrupt must come through here.
fn until_interrupted(benchmark: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start a runtime")?;
    let result = runtime.block_on(async {
        tokio::select! {
            result = benchmark => result,
            _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
        }
    });
    // A topic that is being loaded when the interrupt comes is not waited for.
    runtime.shutdown_background();
    result
}
