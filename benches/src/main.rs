//! Benchmarks as programs: each compares tine with something else in the same run and prints the ratio and its spread.
//!
//! ```text
//! cargo run --release -p tine-bench -- list
//! cargo run --release -p tine-bench -- kafka-to-postgres --runs 5
//! ```
//!
//! Read in this order: [`kafka_to_postgres`] is the first benchmark (what is compared, how, and the run itself); [`hand`]
//! is the loop a strong engineer writes by hand for that one job; [`tine_side`] is the same job for tine; [`side`] is
//! what the two have in common: each run of either is a child process, so that its CPU time and memory are its own.

mod hand;
mod kafka_to_postgres;
mod procfs;
mod report;
mod side;
mod spread;
mod tine_side;

use std::process::ExitCode;

use anyhow::Result;
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
    /// tine against a hand-written rdkafka + Postgres loop: counts by key, exactly once.
    KafkaToPostgres(kafka_to_postgres::Options),
    /// One system doing one job; the benchmark starts itself with this.
    #[command(hide = true, name = side::SUBCOMMAND)]
    Side {
        /// The assignment, as the parent wrote it.
        assignment: String,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().benchmark) {
        Ok(code) => code,
        Err(error) => {
            say(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(benchmark: Benchmark) -> Result<ExitCode> {
    match benchmark {
        Benchmark::List => report::list(&[kafka_to_postgres::ABOUT])?,
        Benchmark::KafkaToPostgres(options) => {
            if !kafka_to_postgres::run(&options)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Benchmark::Side { assignment } => side::run(&assignment)?,
    }
    Ok(ExitCode::SUCCESS)
}
