//! Counts the words of files into a SQLite table, is killed with SIGKILL on the way, and shows that the counts are exact.
//!
//! ```text
//! cargo run --release --example word_count                        # a generated text, three kills
//! cargo run --release --example word_count -- --crashes 0 a.txt   # just the job
//! ```
//!
//! It prints the phase in which each kill hit, the ten most frequent words, and as its last line
//! `exact: W words, D distinct, N kills survived`, or what differs (exit code 1).

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to people")]

mod crash;
mod recount;

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use tine::{Meter, Options, Shutdown, Sqlite, Topology, files};

/// Counts the whitespace-separated words of files into a SQLite table, exactly, through kill -9.
#[derive(Parser)]
struct Args {
    /// The SQLite file; kept, and gone on with at the next start. By default a new one in a temporary folder.
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
    /// How often the job is killed with SIGKILL in the middle of its work.
    #[arg(long, value_name = "N", default_value_t = 3)]
    crashes: u32,
    /// How long a batch is to take, in milliseconds; small ones make many transactions.
    #[arg(long, value_name = "MS", default_value_t = 2)]
    batch_ms: u64,
    /// The files; by default a text that this program generates.
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// For the parent process: stand still in a phase after so many transactions, waiting to be killed.
    #[arg(long, hide = true)]
    stand_still: Option<crash::Mark>,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(log_filter())
        .without_time()
        .init();
    match run(Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn log_filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn,tine=info".into())
}

async fn run(mut args: Args) -> anyhow::Result<ExitCode> {
    let shutdown = Shutdown::on_signals().context("cannot listen for SIGINT and SIGTERM")?;
    if args.stand_still.is_some() {
        count(&args, shutdown).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let folder = std::env::temp_dir().join(format!("tine-word-count-{}", std::process::id()));
    let temporary = args.database.is_none();
    if temporary || args.paths.is_empty() {
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    if args.paths.is_empty() {
        args.paths = vec![recount::generate(&folder)?];
    }
    let database = args.database.get_or_insert_with(|| folder.join("words.db")).clone();
    let ended = count_and_compare(&args, &database, shutdown).await;
    if temporary {
        std::fs::remove_dir_all(&folder).ok();
    }
    ended
}

/// Counts, with kills on the way, and recounts.
async fn count_and_compare(args: &Args, database: &Path, shutdown: Shutdown) -> anyhow::Result<ExitCode> {
    let kills = match args.crashes {
        0 => 0,
        crashes => crash::kill_on_the_way(args, crashes, &shutdown)?,
    };
    count(args, shutdown.clone()).await?;
    if shutdown.is_stopped() {
        eprintln!("stopped; a start with the same files and --database goes on from here");
        return Ok(ExitCode::SUCCESS);
    }
    recount::compare(database, &args.paths, kills).await
}

/// The job itself.
async fn count(args: &Args, shutdown: Shutdown) -> anyhow::Result<()> {
    let database = args.database.as_ref().context("a database is given or made up before the job starts")?;
    let topology = Topology::new("word_count");
    topology
        .source(files(&args.paths).text())
        .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count())
        .persist(Sqlite::open(database).table("word_counts").key("word").value("n"));

    let commit_interval = Duration::from_millis(args.batch_ms);
    let meter = Meter::default().into_callback(|rate| eprintln!("{rate}"));
    let mut options = Options { until_end: true, commit_interval, on_progress: Some(meter), ..Options::default() };
    if let Some(mark) = args.stand_still {
        options.on_phase = Some(crash::stand_still_at(mark));
    }
    topology.run_with(options, shutdown).await?;
    Ok(())
}
