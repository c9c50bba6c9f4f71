//! Breaks everything for a while and says whether the counts are right: `chaos --minutes 60 --seed 7`.
//!
//! It starts its own servers and ends them. What is broken when is the seed's; it is printed first, so that a run can be
//! repeated. Exit code 0: exact. 1: not, or something ended that should not have.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its lines are its interface")]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tine_tests::chaos::{self, Chaos};
use tokio::signal::unix::{SignalKind, signal};

/// Breaks Kafka, ZooKeeper, Postgres, their connections and the workers, and audits the counts.
#[derive(Parser)]
struct Arguments {
    /// What is broken when; without it another plan each time.
    #[arg(long)]
    seed: Option<u64>,
    /// How long things break.
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// Copies of the job: one leads, the others stand by.
    #[arg(long, default_value_t = 3)]
    workers: usize,
    /// Rules that the copies break on purpose: names of `core/src/mutant.rs`, separated by commas. The run should then fail.
    #[arg(long = "break", value_name = "RULES", default_value = "")]
    broken: String,
}

/// What was started is tied to this process and ends with it.
fn leave(code: i32) -> ! {
    chaos::leave();
    std::process::exit(code)
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { seed, minutes, workers, broken } = Arguments::parse();
    let Ok(length) = Duration::try_from_secs_f64(minutes * 60.0) else {
        eprintln!("{minutes} minutes cannot be waited for: give a number above 0");
        return ExitCode::from(2);
    };
    let chaos = Chaos { seed: seed.unwrap_or_else(rand::random), length, workers: workers.max(1), broken };
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        eprintln!("cannot listen for SIGTERM and SIGINT");
        return ExitCode::from(2);
    };
    let outcome = tokio::select! {
        outcome = chaos.run() => outcome,
        _ = terminate.recv() => leave(143),
        _ = interrupt.recv() => leave(130),
    };
    match outcome {
        Ok(Some(outcome)) => println!("{outcome}"),
        Ok(None) => eprintln!("nothing was tried"),
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
