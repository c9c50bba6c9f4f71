//! `core`: acked records a second of the tuple engine, and what acking costs.
//!
//! Spout, shuffle, bolt, fields, counting bolt: in memory, in one process. User code emits every record by itself, and each
//! is the root of a tree of its own. The counts are compared with what was emitted, and so are the acks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;
use tine::core::component::{BasicBolt, Emit, Next, Spout, SpoutCollector};
use tine::core::failure::Failure;
use tine::core::topology::Topology;

use crate::procfs;
use crate::report::{self, Reporting, Table, say};
use crate::spread::Spread;

/// What it compares, for `list` and `--help`.
pub(crate) const ABOUT: &str = "the tuple engine: acked records a second, with and without acking";

/// Flags of this benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    reporting: Reporting,
    /// How long each run emits.
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How many distinct words.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    distinct: u32,
    /// Trees that may be under way, instead of the engine's default.
    #[arg(long, value_name = "N")]
    max_pending: Option<usize>,
    /// Tuples of a chunk, instead of the engine's default.
    #[arg(long, value_name = "N")]
    chunk: Option<usize>,
    /// Tasks of the middle bolt, and of the counting bolt.
    #[arg(long, value_name = "N", default_value_t = 1)]
    tasks: usize,
}

/// One line of `--json`.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    acking: bool,
    seconds: u64,
    runs: usize,
    exact: bool,
    records_per_s: Option<Spread>,
    cpu_ns_per_record: Option<Spread>,
}

/// Emits words one by one until its time is up.
struct Words {
    words: Arc<[String]>,
    at: usize,
    until: Instant,
    emitted: u64,
    acked: u64,
    end: Arc<Ends>,
}

/// What the spout knows at the end.
#[derive(Debug, Default)]
struct Ends {
    emitted: AtomicU64,
    acked: AtomicU64,
}

impl Spout for Words {
    type Out = String;
    type Id = u64;

    fn next(&mut self, out: &mut SpoutCollector<String, u64>) -> Result<Next, Failure> {
        // A look at the clock costs as much as a tuple.
        if self.emitted.is_multiple_of(1024) && Instant::now() >= self.until {
            self.end.emitted.store(self.emitted, Ordering::Relaxed);
            return Ok(Next::Done);
        }
        let word = self.words[self.at].clone();
        self.at = if self.at + 1 == self.words.len() { 0 } else { self.at + 1 };
        self.emitted += 1;
        out.emit(word, self.emitted);
        Ok(Next::More)
    }

    fn ack(&mut self, _: u64) {
        self.acked += 1;
    }

    fn close(&mut self) {
        self.end.acked.store(self.acked, Ordering::Relaxed);
    }
}

/// Counts words.
struct Count {
    counts: HashMap<String, u64, foldhash::fast::RandomState>,
    all: Arc<Mutex<HashMap<String, u64>>>,
}

impl BasicBolt for Count {
    type In = String;
    type Out = ();

    fn execute(&mut self, word: String, _: &mut Emit<'_, ()>) -> Result<(), Failure> {
        match self.counts.get_mut(&word) {
            Some(count) => *count += 1,
            None => drop(self.counts.insert(word, 1)),
        }
        Ok(())
    }

    fn cleanup(&mut self) {
        if let Ok(mut all) = self.all.lock() {
            self.counts.drain().for_each(|(word, count)| *all.entry(word).or_default() += count);
        }
    }
}

/// Records a second, and CPU time for each in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    per_s: f64,
    cpu_ns: f64,
}

/// After `Ok` every run counted exactly what was emitted.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut outcomes: [Vec<Outcome>; 2] = Default::default();
    for run in 1..=options.reporting.runs {
        for acking in [true, false] {
            let outcome = one(options, acking)?;
            say(format_args!(
                "core run {run}/{}: acking {} {:.2} M/s, {:.0} ns CPU a record, exact",
                options.reporting.runs,
                if acking { "on " } else { "off" },
                outcome.per_s / 1e6,
                outcome.cpu_ns
            ));
            outcomes[usize::from(acking)].push(outcome);
        }
    }
    let mut table = Table::with_head(&["acking", "M records/s", "CPU ns/record"]);
    for acking in [true, false] {
        let of = |figure: fn(&Outcome) -> f64| Spread::of(outcomes[usize::from(acking)].iter().map(figure));
        let line = Line {
            name: "core",
            acking,
            seconds: options.seconds,
            runs: options.reporting.runs as usize,
            exact: true,
            records_per_s: of(|outcome| outcome.per_s),
            cpu_ns_per_record: of(|outcome| outcome.cpu_ns),
        };
        if options.reporting.json {
            report::print_json(&line)?;
        }
        table.row(vec![
            if acking { "on" } else { "off" }.into(),
            Spread::show(of(|outcome| outcome.per_s / 1e6), 2),
            Spread::show(line.cpu_ns_per_record, 0),
        ]);
    }
    if options.reporting.json {
        return Ok(());
    }
    let pairs = outcomes[1].iter().zip(&outcomes[0]);
    let cost = Spread::of(pairs.map(|(on, off)| (off.per_s / on.per_s - 1.0) * 100.0));
    report::print(format_args!(
        "\ncore: spout -> shuffle -> bolt -> fields -> count, {} words, {} tasks of each bolt, {} s a run",
        options.distinct, options.tasks, options.seconds
    ))?;
    table.print()?;
    report::print(format_args!("time that acking adds to a record: {} %", Spread::show(cost, 0)))
}

fn one(options: &Options, acking: bool) -> Result<Outcome> {
    let words: Arc<[String]> = (0..options.distinct).map(|number| format!("word{number}")).collect();
    let (ends, all) = (Arc::new(Ends::default()), Arc::new(Mutex::new(HashMap::new())));
    let mut topology = Topology::new("bench");
    topology.configure(|settings| {
        settings.acking = acking;
        settings.max_pending = options.max_pending.unwrap_or(settings.max_pending);
        settings.chunk_tuples = options.chunk.unwrap_or(settings.chunk_tuples);
    });
    let (of_spout, end) = (Arc::clone(&words), Arc::clone(&ends));
    let until = Instant::now() + Duration::from_secs(options.seconds);
    let source = topology.spout("source", move || {
        let (words, end) = (Arc::clone(&of_spout), Arc::clone(&end));
        Words { words, at: 0, until, emitted: 0, acked: 0, end }
    });
    let passed = topology
        .each("pass", |word: String, out: &mut Emit<'_, String>| {
            out.emit(word);
            Ok(())
        })
        .shuffle(&source)
        .tasks(options.tasks);
    let of_bolts = Arc::clone(&all);
    topology
        .bolt("count", move || {
            tine::core::component::Basic(Count { counts: HashMap::default(), all: Arc::clone(&of_bolts) })
        })
        .fields(&passed, |word| word.as_str())
        .tasks(options.tasks);
    let (began, cpu) = (Instant::now(), procfs::cpu_time(std::process::id())?);
    let summary = topology.run()?;
    let (took, cpu) = (began.elapsed(), procfs::cpu_time(std::process::id())? - cpu);
    let (emitted, acked) = (ends.emitted.load(Ordering::Relaxed), ends.acked.load(Ordering::Relaxed));
    let counts = all.lock().map_err(|_| anyhow::anyhow!("a bolt panicked"))?;
    let counted: u64 = counts.values().sum();
    ensure!(summary.drained && summary.failed() == 0, "not everything was worked off: {summary:?}");
    ensure!(counted == emitted, "{emitted} words were emitted and {counted} counted");
    ensure!(acked == if acking { emitted } else { 0 }, "{emitted} trees began and {acked} were acked");
    let (full, rest) = (emitted / words.len() as u64, emitted % words.len() as u64);
    for (at, word) in words.iter().enumerate() {
        let expected = full + u64::from((at as u64) < rest);
        let found = counts.get(word).copied().unwrap_or(0);
        ensure!(found == expected, "{word} was emitted {expected} times and counted {found} times");
    }
    Ok(Outcome { per_s: emitted as f64 / took.as_secs_f64(), cpu_ns: cpu.as_nanos() as f64 / emitted as f64 })
}
