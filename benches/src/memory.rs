//! `memory`: whether tine's memory stays flat under full load.
//!
//! A producer writes as fast as the machine lets it while tine counts, with every default; the resident memory is read
//! every second. After some minutes the table is compared with the producer's own count.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Serialize;

use crate::contest::database::Database;
use crate::contest::{topic, watched};
use crate::goal::{Bound, Goal};
use crate::latency::unique;
use crate::live::{Eye, Feeder};
use crate::procfs;
use crate::report::{self, Table, say};
use crate::services::{Place, Services};
use crate::side::{Assignment, System, Task, Until};
use crate::spread::Spread;
use crate::workload::{Job, PARTITIONS};

/// What it measures, for `list` and `--help`.
pub(crate) const ABOUT: &str = "tine's resident memory under full load, second by second, for minutes";

/// Memory that grows by less in three fifths of the time is flat.
const GROWTH_MAX: f64 = 1.05;

/// Until the backlog is gone.
const DEADLINE: Duration = Duration::from_secs(600);

/// Flags of this benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// One JSON object on standard output instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
    /// How long the producer writes.
    #[arg(long, value_name = "S", default_value_t = 300, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    seconds: u64,
    /// Records a second at most.
    #[arg(long, default_value_t = 5_000_000)]
    rate: u32,
    /// Who counts.
    #[arg(long, value_enum, default_value = "tine")]
    system: System,
}

/// What `--json` says.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    system: &'static str,
    seconds: u64,
    records: u64,
    records_per_s: f64,
    exact: bool,
    /// By fifths of the time.
    rss_mb: Vec<Option<Spread>>,
    /// The last fifth's median by the second's; the first one holds the start.
    growth: Option<f64>,
    peak_mb: f64,
    /// Each second.
    samples_mb: Vec<f64>,
}

/// After `Ok` the counts were exact.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let services = Services::at(&options.place).await?;
    let mut database = Database::create(&services.postgres, Job::Live).await?;
    let topic = unique("memory");
    topic::create(&services.brokers, &topic, PARTITIONS).await?;
    let assignment = Assignment {
        system: options.system,
        job: Job::Live,
        brokers: services.brokers.clone(),
        topic: topic.clone(),
        postgres_url: database.url(),
        until: Until::Dismissed,
        commit_age_ms: 800,
        commit_records: u64::MAX,
        relaxed: false,
    };
    let child = watched::start(&Task::Stream(assignment))?;
    let pid = child.id().context("the child has ended at once")?;
    let (brokers, url, seconds, rate) =
        (services.brokers.clone(), database.url(), Duration::from_secs(options.seconds), f64::from(options.rate));
    let feeding = move || feed(&brokers, &topic, &url, pid, seconds, rate);
    let (samples_mb, expected) = tokio::task::spawn_blocking(feeding).await??;
    let peak_mb = procfs::peak_rss_mb(pid)?;
    watched::dismiss(child, options.system.name()).await?;
    if let Some(difference) = database.difference(&expected).await? {
        return Err(anyhow!("the table was wrong: {difference}"));
    }
    let (count, all) = (samples_mb.len(), &samples_mb);
    let fifths: Vec<Option<Spread>> =
        (0..5).map(|part| Spread::of(all[part * count / 5..(part + 1) * count / 5].iter().copied())).collect();
    let median = |fifth: usize| fifths.get(fifth).copied().flatten().map(|spread| spread.median);
    let line = Line {
        name: "memory",
        system: options.system.name(),
        seconds: options.seconds,
        records: expected.total,
        records_per_s: expected.total as f64 / seconds.as_secs_f64(),
        exact: true,
        growth: median(4).zip(median(1)).map(|(last, second)| last / second),
        rss_mb: fifths,
        peak_mb,
        samples_mb,
    };
    if options.json {
        report::print_json(&line)?;
    } else {
        print(&line)?;
    }
    let goal =
        |what, most, figure| Goal::new("memory", what, Bound::AtMost(most), Spread::of(figure)).print(options.json);
    goal("MB resident at most", 256.0, Some(line.peak_mb))?;
    goal("fifth 5 / fifth 2", GROWTH_MAX, line.growth)
}

fn print(line: &Line) -> Result<()> {
    report::print(format_args!(
        "\nmemory: {} records in {} s, {:.0}/s, exact; resident MB of {}, each second; median (min-max)",
        line.records, line.seconds, line.records_per_s, line.system
    ))?;
    let mut table = Table::with_head(&["part of the time", "RSS MB"]);
    for (part, spread) in line.rss_mb.iter().enumerate() {
        table.row(vec![format!("fifth {}", part + 1), Spread::show(*spread, 1)]);
    }
    table.row(vec!["peak".to_owned(), format!("{:.1}", line.peak_mb)]);
    table
        .row(vec!["fifth 5 / fifth 2".to_owned(), line.growth.map_or("-".to_owned(), |growth| format!("{growth:.3}"))]);
    table.print()
}

/// Produces for some time, then waits until all of it is counted; the samples, and what the table must say.
fn feed(
    brokers: &str,
    topic: &str,
    url: &str,
    pid: u32,
    seconds: Duration,
    rate: f64,
) -> Result<(Vec<f64>, crate::workload::Expected)> {
    let mut feeder = Feeder::new(brokers, topic, Duration::from_millis(50))?;
    let mut eye = Eye::open(url, topic)?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let producing = thread::spawn(move || feeder.pace(rate, &stopped, |_, _, _| Ok(())).map(|()| feeder));
    let (started, mut samples) = (Instant::now(), Vec::new());
    while started.elapsed() < seconds {
        thread::sleep(Duration::from_secs(1));
        let rss = procfs::rss_mb(pid)?;
        samples.push(rss);
        if samples.len() % 10 == 0 {
            let visible: i64 = eye.look()?.0.iter().sum();
            say(format_args!("memory: {} s, {visible} records visible, {rss:.1} MB resident", samples.len()));
        }
        ensure!(!producing.is_finished(), "the producer has ended early");
    }
    stop.store(true, Ordering::Relaxed);
    let feeder = producing.join().map_err(|_| anyhow!("the producer panicked"))??;
    let last = feeder.last();
    let expected = feeder.finish()?;
    say(format_args!("memory: waiting for the backlog"));
    eye.await_all(&last, DEADLINE)?;
    Ok((samples, expected))
}
