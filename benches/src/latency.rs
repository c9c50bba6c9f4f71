//! `latency`: from the moment a record is handed to the producer until a reader of the table sees it.
//!
//! Under a paced load, and on an idle stream that gets single records. A reader of its own polls the table without a pause
//! worth speaking of; every record counts, the warm-up excepted. What the producer, the broker and the reader take is
//! part of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::contest::database::Database;
use crate::contest::{topic, watched};
use crate::goal::{Bound, Goal};
use crate::live::{Eye, Feeder};
use crate::report::{self, Reporting, Table, say};
use crate::services::{Place, Services};
use crate::side::{Assignment, System, Task, Until};
use crate::spread::Spread;
use crate::workload::{Job, PARTITIONS};

/// What it measures, for `list` and `--help`.
pub(crate) const ABOUT: &str = "from production to visible in SQL, under a paced load and on an idle stream";

/// Records that the eye has not taken note of yet: it does so at every look, which are far less than a second apart.
const PRODUCED_MAX: usize = 1 << 18;

/// Between two looks at the table.
const LOOK_EVERY: Duration = Duration::from_micros(300);

/// Not counted: connections, first plans, the first rows of every key.
const WARM_UP: Duration = Duration::from_secs(3);

/// Between two records of the idle stream.
const IDLE_EVERY: Duration = Duration::from_millis(200);

/// Until the first record is visible, and until the last one is.
const DEADLINE: Duration = Duration::from_secs(60);

/// Flags of this benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    reporting: Reporting,
    #[command(flatten)]
    place: Place,
    /// Records a second under load.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// How long each load lasts; the idle stream is watched for half as long.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=600))]
    seconds: u64,
    /// How long the producer may wait for more records before it sends some.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    linger_ms: u64,
    /// Commits become visible before they are on disk (`synchronous_commit = off`).
    #[arg(long)]
    relaxed: bool,
    /// Which systems, in the order in which they take turns.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "hand,tine,tine-rdkafka")]
    systems: Vec<System>,
}

/// Milliseconds of one run's records.
#[derive(Debug, Clone, Copy)]
struct Quantiles {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Quantiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |us: u64| us as f64 / 1e3;
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: ms(histogram.max()) }
    }
}

/// One line of `--json`.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    system: &'static str,
    stream: &'static str,
    rate: f64,
    runs: usize,
    exact: bool,
    p50_ms: Option<Spread>,
    p90_ms: Option<Spread>,
    p99_ms: Option<Spread>,
    max_ms: Option<Spread>,
}

/// After `Ok` every run was exact.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let services = Services::at(&options.place).await?;
    let mut outcomes = Vec::new();
    for run in 1..=options.reporting.runs {
        for system in &options.systems {
            let [load, idle] = one(options, *system, &services).await?;
            say(format_args!(
                "latency run {run}/{}: {:<12} load p50 {:.1} p99 {:.1} max {:.1} ms, idle p50 {:.1} p99 {:.1} ms, exact",
                options.reporting.runs,
                system.name(),
                load.p50,
                load.p99,
                load.max,
                idle.p50,
                idle.p99
            ));
            outcomes.extend([(*system, "load", load), (*system, "idle", idle)]);
        }
    }
    print(options, &outcomes)
}

fn print(options: &Options, outcomes: &[(System, &'static str, Quantiles)]) -> Result<()> {
    let mut goals = Vec::new();
    let mut table = Table::with_head(&["system", "stream", "p50 ms", "p90 ms", "p99 ms", "max ms"]);
    if !options.reporting.json {
        report::print(format_args!(
            "\nlatency: production to visible, {} records/s for {} s, and a record every {} ms; {PARTITIONS} partitions; \
             the producer lingers {} ms; commits are {}; median (min-max) of {} runs, all exact",
            options.rate,
            options.seconds,
            IDLE_EVERY.as_millis(),
            options.linger_ms,
            if options.relaxed { "relaxed" } else { "synchronous" },
            options.reporting.runs
        ))?;
    }
    for system in &options.systems {
        for (stream, rate) in [("load", f64::from(options.rate)), ("idle", 1.0 / IDLE_EVERY.as_secs_f64())] {
            let of: Vec<_> = outcomes.iter().filter(|(of, on, _)| (of, *on) == (system, stream)).collect();
            let spread = |figure: fn(&Quantiles) -> f64| Spread::of(of.iter().map(|(.., outcome)| figure(outcome)));
            let line = Line {
                name: "latency",
                system: system.name(),
                stream,
                rate,
                runs: of.len(),
                exact: true,
                p50_ms: spread(|outcome| outcome.p50),
                p90_ms: spread(|outcome| outcome.p90),
                p99_ms: spread(|outcome| outcome.p99),
                max_ms: spread(|outcome| outcome.max),
            };
            if *system == System::Tine {
                let goal = |quantile, ms, figure| {
                    let what = format!("tine, {stream}, ms at the {quantile}");
                    Goal::new("latency", what, Bound::AtMost(ms), figure)
                };
                goals.extend(match stream {
                    "load" => [goal("median", 8.0, line.p50_ms), goal("99th percentile", 40.0, line.p99_ms)],
                    _ => [goal("median", 10.0, line.p50_ms), goal("99th percentile", 10.0, line.p99_ms)],
                });
            }
            if options.reporting.json {
                report::print_json(&line)?;
                continue;
            }
            let mut row = vec![line.system.to_owned(), line.stream.to_owned()];
            row.extend([line.p50_ms, line.p90_ms, line.p99_ms, line.max_ms].map(|figure| Spread::show(figure, 1)));
            table.row(row);
        }
    }
    if !options.reporting.json {
        table.print()?;
    }
    goals.iter().try_for_each(|goal| goal.print(options.reporting.json))
}

/// One run of one system: load, idle, and the comparison. Fails when the table is wrong.
async fn one(options: &Options, system: System, services: &Services) -> Result<[Quantiles; 2]> {
    let mut database = Database::create(&services.postgres, Job::Live).await?;
    let topic = unique("latency");
    topic::create(&services.brokers, &topic, PARTITIONS).await?;
    let assignment = Assignment {
        system,
        job: Job::Live,
        brokers: services.brokers.clone(),
        topic: topic.clone(),
        postgres_url: database.url(),
        until: Until::Dismissed,
        commit_age_ms: 0,
        commit_records: u64::MAX,
        relaxed: options.relaxed,
    };
    let child = watched::start(&Task::Stream(assignment))?;
    let feeder = Feeder::new(&services.brokers, &topic, Duration::from_millis(options.linger_ms))?;
    let (rate, seconds, url) = (f64::from(options.rate), Duration::from_secs(options.seconds), database.url());
    let watching = move || produce_and_watch(feeder, Eye::open(&url, &topic)?, rate, seconds);
    let (quantiles, expected) = tokio::task::spawn_blocking(watching).await??;
    let steps = watched::end(child, system.name()).await?;
    if !steps.is_empty() {
        say(format_args!("{}: ms between phases, median (p99): {steps}", system.name()));
    }
    match database.difference(&expected).await? {
        None => Ok(quantiles),
        Some(difference) => Err(anyhow!("{} was wrong: {difference}", system.name())),
    }
}

/// A topic of this run alone.
pub(crate) fn unique(what: &str) -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("tine-bench-{what}-{}", since.as_micros())
}

fn produce_and_watch(
    mut feeder: Feeder,
    mut eye: Eye,
    rate: f64,
    seconds: Duration,
) -> Result<([Quantiles; 2], crate::workload::Expected)> {
    // The first record starts everything.
    feeder.send()?;
    eye.await_all(&feeder.last(), DEADLINE).context("the first record")?;
    let mut quantiles = Vec::new();
    for (rate, seconds, warm_up) in [
        (rate, seconds + WARM_UP, WARM_UP),
        (1.0 / IDLE_EVERY.as_secs_f64(), seconds / 2 + Duration::from_secs(1), Duration::from_secs(1)),
    ] {
        let histogram;
        (feeder, eye, histogram) = phase(feeder, eye, rate, seconds, warm_up)?;
        ensure!(!histogram.is_empty(), "no record was seen");
        quantiles.push(Quantiles::of(&histogram));
    }
    let last = feeder.last();
    let expected = feeder.finish()?;
    eye.await_all(&last, DEADLINE)?;
    Ok(([quantiles[0], quantiles[1]], expected))
}

type Produced = (usize, i64, Instant);

/// Produces at a rate for some time; the microseconds until each record was seen.
fn phase(
    mut feeder: Feeder,
    mut eye: Eye,
    rate: f64,
    seconds: Duration,
    warm_up: Duration,
) -> Result<(Feeder, Eye, Histogram<u64>)> {
    let stop = Arc::new(AtomicBool::new(false));
    let (produced, arrived) = sync_channel(PRODUCED_MAX);
    let counted_from = Instant::now() + warm_up;
    let stopped = stop.clone();
    let producing = thread::spawn(move || {
        let result = feeder.pace(rate, &stopped, |partition, seq, at| {
            produced.send((partition, seq, at)).map_err(|_| anyhow!("nobody watches any more"))
        });
        result.map(|()| feeder)
    });
    let seen = watch(&mut eye, &arrived, counted_from, counted_from - warm_up + seconds, &stop);
    stop.store(true, Ordering::Relaxed);
    let feeder = producing.join().map_err(|_| anyhow!("the producer panicked"))?;
    Ok((feeder?, eye, seen?))
}

fn watch(
    eye: &mut Eye,
    arrived: &Receiver<Produced>,
    counted_from: Instant,
    until: Instant,
    stop: &AtomicBool,
) -> Result<Histogram<u64>> {
    let mut histogram = Histogram::new(3)?;
    let mut waiting: Vec<VecDeque<(i64, Instant)>> = vec![VecDeque::new(); PARTITIONS as usize];
    loop {
        let (visible, now) = eye.look()?;
        arrived.try_iter().for_each(|(partition, seq, at)| waiting[partition].push_back((seq, at)));
        for (waiting, visible) in waiting.iter_mut().zip(visible) {
            while let Some((_, at)) = waiting.pop_front_if(|(seq, _)| *seq <= visible) {
                if at >= counted_from {
                    histogram.record(u64::try_from(now.saturating_duration_since(at).as_micros())?)?;
                }
            }
        }
        if now >= until {
            stop.store(true, Ordering::Relaxed);
            if waiting.iter().all(VecDeque::is_empty) {
                return Ok(histogram);
            }
            ensure!(now < until + DEADLINE, "records are not visible after {DEADLINE:?}");
        }
        thread::sleep(LOOK_EVERY);
    }
}
