//! `core-shuffle`: what it is worth that a shuffle looks at the receivers' queues.
//!
//! A spout and four tasks of a bolt, one of which works several times as long for each tuple. The shuffle of the engine passes over tasks
//! whose queues are full; beside it stands one that looks at nothing and deals out round robin, as a custom grouping. Both in
//! the same run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;
use tine::core::component::{Basic, BasicBolt, Context, Emit, Next, Spout, SpoutCollector};
use tine::core::failure::Failure;
use tine::core::topology::{Choose, Grouping, Topology};

use crate::report::{self, Reporting, Table, say};
use crate::spread::Spread;

/// What it compares, for `list` and `--help`.
pub(crate) const ABOUT: &str = "the tuple engine: a shuffle that passes over full queues, and one that does not";

/// How many tasks share the tuples.
const TASKS: usize = 4;

/// How long a tuple takes.
const WORK: Duration = Duration::from_micros(50);

/// Flags of this benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    reporting: Reporting,
    /// How long each run emits.
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How many times as long as the others the slow task works for a tuple.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    slower: u32,
}

/// One line of `--json`.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    slower: u32,
    runs: usize,
    exact: bool,
    by_load_per_s: Option<Spread>,
    round_robin_per_s: Option<Spread>,
    ratio: Option<Spread>,
}

/// Emits numbers until its time is up.
struct Numbers {
    until: Instant,
    emitted: u64,
    acked: Arc<AtomicU64>,
}

impl Spout for Numbers {
    type Out = u64;
    type Id = u64;

    fn next(&mut self, out: &mut SpoutCollector<u64, u64>) -> Result<Next, Failure> {
        if Instant::now() >= self.until {
            return Ok(Next::Done);
        }
        self.emitted += 1;
        out.emit(self.emitted, self.emitted);
        Ok(Next::More)
    }

    fn ack(&mut self, _: u64) {
        self.acked.fetch_add(1, Ordering::Relaxed);
    }
}

/// Takes its time, without using the processor: there are more tasks than cores.
struct Work {
    each: Duration,
    slower: u32,
    owed: Duration,
    done: Arc<AtomicU64>,
}

impl BasicBolt for Work {
    type In = u64;
    type Out = ();

    fn prepare(&mut self, context: &Context) -> Result<(), Failure> {
        if context.index() == 0 {
            self.each *= self.slower;
        }
        Ok(())
    }

    fn execute(&mut self, _: u64, _: &mut Emit<'_, ()>) -> Result<(), Failure> {
        self.done.fetch_add(1, Ordering::Relaxed);
        // Sleeping is exact for a millisecond and more.
        self.owed += self.each;
        if self.owed >= Duration::from_millis(2) {
            let began = Instant::now();
            std::thread::sleep(self.owed);
            self.owed = self.owed.saturating_sub(began.elapsed());
        }
        Ok(())
    }
}

/// Whose turn it is, whatever waits.
struct RoundRobin(usize);

impl Choose<u64> for RoundRobin {
    fn prepare(&mut self, targets: &[tine::core::id::TaskId]) {
        self.0 = targets.len();
    }

    fn choose(&mut self, number: &u64, chosen: &mut Vec<usize>) {
        chosen.push(*number as usize % self.0);
    }
}

/// After `Ok` every tuple was worked off and acked.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut outcomes = Vec::new();
    for run in 1..=options.reporting.runs {
        let by_load = one(options, Grouping::shuffle())?;
        let round_robin = one(options, Grouping::custom(|| RoundRobin(1)))?;
        say(format_args!(
            "core-shuffle run {run}/{}: by load {by_load:.0} tuples/s, round robin {round_robin:.0}, exact",
            options.reporting.runs
        ));
        outcomes.push((by_load, round_robin));
    }
    let line = Line {
        name: "core-shuffle",
        slower: options.slower,
        runs: outcomes.len(),
        exact: true,
        by_load_per_s: Spread::of(outcomes.iter().map(|(by_load, _)| *by_load)),
        round_robin_per_s: Spread::of(outcomes.iter().map(|(_, round_robin)| *round_robin)),
        ratio: Spread::of(outcomes.iter().map(|(by_load, round_robin)| by_load / round_robin)),
    };
    if options.reporting.json {
        return report::print_json(&line);
    }
    report::print(format_args!(
        "\ncore-shuffle: spout -> {TASKS} tasks, one of them {} times as slow, {} s a run",
        options.slower, options.seconds
    ))?;
    let mut table = Table::with_head(&["", "tuples/s"]);
    table.row(vec!["shuffle".to_owned(), Spread::show(line.by_load_per_s, 0)]);
    table.row(vec!["round robin".to_owned(), Spread::show(line.round_robin_per_s, 0)]);
    table.row(vec!["ratio".to_owned(), Spread::show(line.ratio, 2)]);
    table.print()
}

/// Tuples a second.
fn one(options: &Options, grouping: Grouping<u64>) -> Result<f64> {
    let (acked, done) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let mut topology = Topology::new("shuffle");
    topology.configure(|settings| settings.queue_tuples = 256);
    let (began, seconds) = (Instant::now(), Duration::from_secs(options.seconds));
    let of_spout = Arc::clone(&acked);
    let numbers =
        topology.spout("numbers", move || Numbers { until: began + seconds, emitted: 0, acked: Arc::clone(&of_spout) });
    let (slower, of_bolt) = (options.slower, Arc::clone(&done));
    topology
        .bolt("work", move || Basic(Work { each: WORK, slower, owed: Duration::ZERO, done: Arc::clone(&of_bolt) }))
        .input(&numbers, grouping)
        .tasks(TASKS);
    let summary = topology.start()?.wait()?;
    let (acked, done) = (acked.load(Ordering::Relaxed), done.load(Ordering::Relaxed));
    ensure!(summary.drained && acked == done && acked > 0, "{acked} acked of {done} worked off");
    Ok(done as f64 / began.elapsed().as_secs_f64())
}
