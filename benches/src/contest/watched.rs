//! One run of one system: a child process, watched from outside.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::Entry;
use super::database::Database;
use crate::procfs;
use crate::services::Services;
use crate::side::{self, Assignment, Until};
use crate::workload::{Expected, Workload};

/// What one run showed.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    /// Records (or words) by the time from the process's start to the last commit that touched the table.
    pub(super) records_per_s: f64,
    pub(super) cpu_us_per_record: f64,
    /// `None` when Postgres runs on another machine.
    pub(super) postgres_us_per_record: Option<f64>,
    /// The same for Kafka.
    pub(super) kafka_us_per_record: Option<f64>,
    pub(super) rss_mb: f64,
    pub(super) commits: usize,
    /// The longest time in which no commit became visible, the start included.
    pub(super) longest_gap: Duration,
    /// `None` when the table is right to the last count.
    pub(super) difference: Option<String>,
}

/// Lets one system do the whole job once, in a database of its own.
pub(super) async fn run(
    entry: &Entry,
    workload: &Workload,
    expected: &Expected,
    services: &Services,
    commit_age_ms: u64,
) -> Result<Outcome> {
    let mut database = Database::create(&services.postgres, entry.job).await?;
    let assignment = Assignment {
        system: entry.system,
        job: entry.job,
        brokers: services.brokers.clone(),
        topic: workload.topic(),
        postgres_url: database.url(),
        until: Until::End,
        commit_age_ms,
        commit_records: workload.commit_records(),
        relaxed: false,
    };
    let kafka = services.kafka_port().and_then(procfs::listener);
    let watch = tokio::spawn(database.watch().await?.until_end());
    let servers = || anyhow::Ok((database.cpu_time()?, kafka.map(procfs::cpu_time).transpose()?));
    let (postgres_before, kafka_before) = servers()?;
    let started = Instant::now();
    let mut child = start(&side::Task::Stream(assignment))?;
    let pid = child.id().context("the child has ended at once")?;
    until_finished(&mut child, entry.label).await?;
    let (cpu, rss_mb) = (procfs::cpu_time(pid)?, procfs::peak_rss_mb(pid)?);
    let (postgres_after, kafka_after) = servers()?;
    dismiss(child, entry.label).await?;
    database.end_watch().await?;
    let commits = watch.await.context("the watch panicked")??;
    let Some(last) = commits.last() else {
        bail!("{} says it has finished, but no commit touched the table", entry.label)
    };
    let per_record = |time: Duration| time.as_secs_f64() * 1e6 / expected.total as f64;
    let spent = |before: Option<Duration>, after: Option<Duration>| {
        before.zip(after).map(|(before, after)| per_record(after.saturating_sub(before)))
    };
    Ok(Outcome {
        records_per_s: expected.total as f64 / (*last - started).as_secs_f64(),
        cpu_us_per_record: per_record(cpu),
        postgres_us_per_record: spent(postgres_before, postgres_after),
        kafka_us_per_record: spent(kafka_before, kafka_after),
        rss_mb,
        commits: commits.len(),
        longest_gap: longest_gap(started, &commits),
        difference: database.difference(expected).await?,
    })
}

/// Starts this program again, for one task.
pub(crate) fn start(task: &side::Task) -> Result<Child> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    Command::new(program)
        .arg(side::SUBCOMMAND)
        .arg(serde_json::to_string(task)?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start a child process")
}

/// After `Ok` the child has done its work and still lives, waiting to be [dismissed](dismiss). Returns what it said of it.
pub(crate) async fn until_finished(child: &mut Child, who: &str) -> Result<String> {
    let output = child.stdout.take().context("the child has no standard output")?;
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some(said) = line.strip_prefix(side::FINISHED) {
            return Ok(said.trim().to_owned());
        }
    }
    let status = child.wait().await?;
    bail!("{who} ended with {status} before it had finished")
}

/// Lets a child end that works until then. Returns what it said of its work.
pub(crate) async fn end(mut child: Child, who: &str) -> Result<String> {
    drop(child.stdin.take());
    let said = until_finished(&mut child, who).await?;
    dismiss(child, who).await?;
    Ok(said)
}

/// Lets the child end.
pub(crate) async fn dismiss(mut child: Child, who: &str) -> Result<()> {
    drop(child.stdin.take());
    let status = child.wait().await?;
    ensure!(status.success(), "{who} finished, then ended with {status}");
    Ok(())
}

fn longest_gap(started: Instant, commits: &[Instant]) -> Duration {
    let before = std::iter::once(&started).chain(commits);
    before.zip(commits).map(|(before, after)| *after - *before).max().unwrap_or_default()
}
