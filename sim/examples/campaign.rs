//! Runs any number of schedules of a word count, each under other faults:
//! `cargo run --release -p tine-sim --example campaign -- --schedules 100000 --seed 1`.
//!
//! Prints how often each fault was felt first in which phase of the protocol, the throughput, the slowest recovery, and the first
//! failure, shrunk, with the line that replays it. Ctrl-C ends the campaign and prints what it has.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]

use std::{
    io::{IsTerminal, Write, stderr},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use tine_sim::{Coverage, Mode, Report, Simulation, World, exact_counts, simulate};
use tine_trident::topology::Topology;

/// Crashes a word count in as many ways as you like, and sees its counts stay exact.
#[derive(Debug, Parser)]
struct Options {
    /// How many schedules to run in each mode.
    #[arg(long, default_value_t = 20_000)]
    schedules: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Two workers, three workers, or one process with a standby; all of them if none is named.
    #[arg(long, value_enum)]
    mode: Vec<Which>,
    /// How many threads to run on (default: as many as there are processors).
    #[arg(long)]
    threads: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    Two,
    Three,
    Embedded,
}

impl Which {
    fn mode(self) -> Mode {
        match self {
            Which::Two => Mode::Cluster(2),
            Which::Three => Mode::Cluster(3),
            Which::Embedded => Mode::Embedded,
        }
    }
}

/// Schedules between two looks at the clock and at Ctrl-C: some tenths of a second.
const PART: u64 = 500;

fn word_count(world: &World, lines: &[Arc<str>]) -> Topology {
    let (topology, trips) = (Topology::new("word_count"), world.trips());
    topology
        .source(world.source("lines", lines))
        .stage(move |lines| {
            let trips = trips.clone();
            lines
                .try_map(move |line| trips.step().map(|()| line))
                .flat_map(|line| line.split_whitespace())
                .group_by(|word| word)
                .count()
        })
        .persist(world.table("counts").key("word").value("n"));
    topology
}

fn simulation(mode: Mode) -> Simulation {
    let lines: Arc<[Arc<str>]> =
        (0..72_usize).map(|n| -> Arc<str> { format!("w{} w{} w{}", n % 7, n * n % 11, n % 3).into() }).collect();
    simulate(move |world| word_count(world, &lines))
        .mode(mode)
        .expect(exact_counts("counts", |line| line.split_whitespace().collect()))
}

/// Says when Ctrl-C was pressed.
fn interrupted() -> Arc<AtomicBool> {
    let pressed = Arc::new(AtomicBool::new(false));
    let said = pressed.clone();
    let wait = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if runtime.is_ok_and(|runtime| runtime.block_on(tokio::signal::ctrl_c()).is_ok()) {
            said.store(true, Ordering::Relaxed);
        }
    };
    drop(thread::spawn(wait));
    pressed
}

fn show_progress(done: u64, of: u64, began: Instant) {
    const WIDTH: u64 = 30;
    let seconds = began.elapsed().as_secs_f64();
    let rate = done as f64 / seconds.max(0.001);
    let left = Duration::from_secs_f64((of - done) as f64 / rate.max(0.001)).as_secs();
    let filled = (done * WIDTH / of.max(1)) as usize;
    let bar = format!("{}{}", "#".repeat(filled), ".".repeat(WIDTH as usize - filled));
    eprint!("\r[{bar}] {done} of {of}, {rate:.0} a second, {left} s left   ");
    drop(stderr().flush());
}

/// Runs the schedules of a mode, part by part; the coverage, and what failed.
fn campaign(mode: Mode, options: &Options, pressed: &AtomicBool) -> (Coverage, Option<Report>) {
    let (simulation, began, shown) = (simulation(mode), Instant::now(), stderr().is_terminal());
    let threads = options.threads.or_else(|| thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let (mut coverage, mut failed) = (Coverage::default(), None);
    let mut done = 0;
    while done < options.schedules && failed.is_none() && !pressed.load(Ordering::Relaxed) {
        let part = PART.min(options.schedules - done);
        let (more, found) = simulation.campaign(options.seed + done, part, threads);
        coverage.merge(&more);
        (done, failed) = (done + part, found);
        if shown {
            show_progress(done, options.schedules, began);
        }
    }
    if shown {
        eprintln!();
    }
    println!("{mode:?}: {:.0} schedules a second; {coverage}\n", coverage.runs as f64 / began.elapsed().as_secs_f64());
    (coverage, failed)
}

fn main() -> ExitCode {
    let options = Options::parse();
    let pressed = interrupted();
    let all = vec![Which::Two, Which::Three, Which::Embedded];
    for which in if options.mode.is_empty() { all } else { options.mode.clone() } {
        let (coverage, failed) = campaign(which.mode(), &options, &pressed);
        if let Some(report) = failed {
            println!("{report}");
            return ExitCode::FAILURE;
        }
        if pressed.load(Ordering::Relaxed) {
            println!("ended by Ctrl-C after {} of {} schedules of this mode", coverage.runs, options.schedules);
            return ExitCode::from(130);
        }
    }
    ExitCode::SUCCESS
}
