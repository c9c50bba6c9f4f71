//! `core-latency`: from a spout's emission to its ack, at a steady rate; and `core-memory`: whether memory stays flat behind a slow
//! bolt.
//!
//! The same topology as [`core`](crate::core). The spout emits when a record is due and takes the time of each itself, from the
//! moment it *was due*: what a late spout adds is part of the figure.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;
use tine::core::component::{Emit, Next, Spout, SpoutCollector};
use tine::core::failure::Failure;
use tine::core::topology::Topology;

use crate::procfs;
use crate::report::{self, Reporting, Table, say};
use crate::spread::Spread;

/// What it measures, for `list` and `--help`.
pub(crate) const ABOUT: &str = "the tuple engine: from emission to ack at a steady rate";

/// What the other one measures.
pub(crate) const ABOUT_MEMORY: &str = "the tuple engine: resident memory behind a slow bolt, second by second";

/// Not counted: threads that start, memory touched for the first time.
const WARM_UP: Duration = Duration::from_secs(1);

/// Flags of `core-latency`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    reporting: Reporting,
    /// Records a second.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// How long each run lasts.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=600))]
    seconds: u64,
}

/// Flags of `core-memory`.
#[derive(Debug, clap::Args)]
pub(crate) struct MemoryOptions {
    /// One JSON object on standard output instead of a table.
    #[arg(long)]
    json: bool,
    /// How long the spout emits as fast as it may.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: u64,
}

/// Emits a record whenever one is due.
struct Paced {
    /// Microseconds between two records; 0 for as fast as it may.
    every_us: f64,
    started: Instant,
    until: Duration,
    emitted: u64,
    latencies: Histogram<u64>,
    end: Arc<End>,
}

/// What a spout knows at the end.
#[derive(Debug)]
struct End {
    emitted: AtomicU64,
    acked: AtomicU64,
    latencies: Mutex<Option<Histogram<u64>>>,
}

impl Paced {
    fn new(rate: u32, seconds: u64, end: Arc<End>) -> Result<Paced> {
        let every_us = if rate == 0 { 0.0 } else { 1e6 / f64::from(rate) };
        let (started, until) = (Instant::now(), Duration::from_secs(seconds));
        Ok(Paced { every_us, started, until, emitted: 0, latencies: Histogram::new(3)?, end })
    }

    fn due_us(&self, number: u64) -> u64 {
        (self.every_us * number as f64) as u64
    }
}

impl Spout for Paced {
    type Out = u64;
    type Id = u64;

    fn next(&mut self, out: &mut SpoutCollector<u64, u64>) -> Result<Next, Failure> {
        let now = self.started.elapsed();
        if now >= self.until {
            return Ok(Next::Done);
        }
        let (now_us, due_us) = (now.as_micros() as u64, self.due_us(self.emitted));
        if due_us > now_us {
            return Ok(Next::In(Duration::from_micros(due_us - now_us)));
        }
        out.emit(self.emitted, due_us);
        self.emitted += 1;
        Ok(Next::More)
    }

    fn ack(&mut self, due_us: u64) {
        self.end.acked.fetch_add(1, Ordering::Relaxed);
        if self.every_us > 0.0 && due_us >= WARM_UP.as_micros() as u64 {
            self.latencies.saturating_record((self.started.elapsed().as_micros() as u64).saturating_sub(due_us));
        }
    }

    fn close(&mut self) {
        self.end.emitted.store(self.emitted, Ordering::Relaxed);
        if let Ok(mut latencies) = self.end.latencies.lock() {
            *latencies = Some(self.latencies.clone());
        }
    }
}

/// One line of `--json`.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    rate: u32,
    runs: usize,
    exact: bool,
    p50_us: Option<Spread>,
    p99_us: Option<Spread>,
    p999_us: Option<Spread>,
    max_us: Option<Spread>,
}

/// After `Ok` every record was counted and acked.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut outcomes = Vec::new();
    for run in 1..=options.reporting.runs {
        let histogram = one(options)?;
        let at = |quantile| histogram.value_at_quantile(quantile) as f64;
        let outcome = [at(0.5), at(0.99), at(0.999), histogram.max() as f64];
        let [p50, p99, p999, max] = outcome;
        say(format_args!(
            "core-latency run {run}/{}: p50 {p50} p99 {p99} p99.9 {p999} max {max} us, exact",
            options.reporting.runs
        ));
        outcomes.push(outcome);
    }
    let of = |column: usize| Spread::of(outcomes.iter().map(|outcome| outcome[column]));
    let line = Line {
        name: "core-latency",
        rate: options.rate,
        runs: outcomes.len(),
        exact: true,
        p50_us: of(0),
        p99_us: of(1),
        p999_us: of(2),
        max_us: of(3),
    };
    if options.reporting.json {
        return report::print_json(&line);
    }
    report::print(format_args!(
        "\ncore-latency: from due to acked, {} records/s, spout -> shuffle -> bolt -> fields -> count, {} s a run",
        options.rate, options.seconds
    ))?;
    let mut table = Table::with_head(&["us", "p50", "p99", "p99.9", "max"]);
    let cells = (0..4).map(|column| Spread::show(of(column), 0));
    table.row(std::iter::once("tine".to_owned()).chain(cells).collect());
    table.print()
}

fn one(options: &Options) -> Result<Histogram<u64>> {
    let (end, counted) = (end(), Arc::new(AtomicU64::new(0)));
    let spout = Mutex::new(Some(Paced::new(options.rate, options.seconds, Arc::clone(&end))?));
    let topology = Topology::new("latency");
    let source = topology.spout("source", move || taken(&spout));
    let passed = topology
        .each("pass", |number: u64, out: &mut Emit<'_, u64>| {
            out.emit(number);
            Ok(())
        })
        .shuffle(&source);
    let of_bolt = Arc::clone(&counted);
    topology
        .each("count", move |_: u64, _: &mut Emit<'_, ()>| {
            of_bolt.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
        .fields(&passed, |number| number);
    let summary = topology.run()?;
    check(&end, &counted, summary.drained)?;
    let latencies = end.latencies.lock().map_err(|_| anyhow!("the spout panicked"))?.take();
    latencies.ok_or_else(|| anyhow!("the spout was not closed"))
}

fn end() -> Arc<End> {
    Arc::new(End { emitted: AtomicU64::new(0), acked: AtomicU64::new(0), latencies: Mutex::new(None) })
}

/// The one spout of a topology whose spout has one task.
#[expect(clippy::expect_used, reason = "a second task would be a mistake of this file")]
fn taken<S>(spout: &Mutex<Option<S>>) -> S {
    spout.lock().ok().and_then(|mut spout| spout.take()).expect("the spout has one task")
}

fn check(end: &End, counted: &AtomicU64, drained: bool) -> Result<()> {
    let (emitted, acked) = (end.emitted.load(Ordering::Relaxed), end.acked.load(Ordering::Relaxed));
    let counted = counted.load(Ordering::Relaxed);
    ensure!(drained && emitted == acked && emitted == counted, "{emitted} emitted, {counted} counted, {acked} acked");
    Ok(())
}

/// What `core-memory --json` says.
#[derive(Debug, Serialize)]
struct MemoryLine {
    name: &'static str,
    seconds: u64,
    records: u64,
    exact: bool,
    /// By fifths of the time, the first second left out.
    rss_mb: Vec<Option<Spread>>,
}

/// After `Ok` every record was counted and acked.
pub(crate) fn run_memory(options: &MemoryOptions) -> Result<()> {
    let (end, counted) = (end(), Arc::new(AtomicU64::new(0)));
    let spout = Mutex::new(Some(Paced::new(0, options.seconds, Arc::clone(&end))?));
    let topology = Topology::new("memory");
    let source = topology.spout("source", move || taken(&spout)).max_pending(1 << 20);
    let passed = topology
        .each("pass", |number: u64, out: &mut Emit<'_, [u8; 100]>| {
            out.emit([number as u8; 100]);
            Ok(())
        })
        .shuffle(&source)
        .tasks(2);
    let of_bolt = Arc::clone(&counted);
    topology
        .each("slow", move |_: [u8; 100], _: &mut Emit<'_, ()>| {
            // A pause for every hundredth record: a tenth of what the others could do, or less.
            if of_bolt.fetch_add(1, Ordering::Relaxed).is_multiple_of(100) {
                std::thread::sleep(Duration::from_micros(100));
            }
            Ok(())
        })
        .shuffle(&passed);
    let running = topology.start()?;
    let mut samples = Vec::new();
    while !running.has_ended() {
        std::thread::sleep(Duration::from_millis(500));
        samples.push(procfs::rss_mb(std::process::id())?);
    }
    check(&end, &counted, running.wait()?.drained)?;
    let samples: Vec<_> = samples.into_iter().skip(2).collect();
    let fifth = samples.len().div_ceil(5).max(1);
    let rss_mb: Vec<_> = samples.chunks(fifth).map(|part| Spread::of(part.iter().copied())).collect();
    let records = counted.load(Ordering::Relaxed);
    let line = MemoryLine { name: "core-memory", seconds: options.seconds, records, exact: true, rss_mb };
    if options.json {
        return report::print_json(&line);
    }
    report::print(format_args!(
        "\ncore-memory: {} s at full speed in front of a slow bolt, {records} records, exact",
        options.seconds
    ))?;
    let mut table = Table::with_head(&["fifth", "MB resident"]);
    for (index, part) in line.rss_mb.iter().enumerate() {
        table.row(vec![(index + 1).to_string(), Spread::show(*part, 1)]);
    }
    table.print()
}
