//! One run of one system: a child process, watched from outside.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::database::Database;
use super::workload::{Expected, Workload};
use crate::procfs;
use crate::side::{self, Assignment, System};

/// What one run showed.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    /// Records (or words) by the time from the process's start to the last commit that touched the table.
    pub(super) records_per_s: f64,
    pub(super) cpu_us_per_record: f64,
    /// `None` when Postgres runs on another machine.
    pub(super) postgres_us_per_record: Option<f64>,
    pub(super) rss_mb: f64,
    pub(super) commits: usize,
    /// The longest time in which no commit became visible, the start included.
    pub(super) longest_gap: Duration,
    /// `None` when the table is right to the last count.
    pub(super) difference: Option<String>,
}

/// Lets `system` do the whole job once, in a database of its own.
pub(super) async fn run(
    system: System,
    workload: &Workload,
    expected: &Expected,
    brokers: &str,
    postgres: &str,
    commit_age_ms: u64,
) -> Result<Outcome> {
    let mut database = Database::create(postgres, workload.job).await?;
    let assignment = Assignment {
        system,
        job: workload.job,
        brokers: brokers.to_owned(),
        topic: workload.topic(),
        postgres_url: database.url(),
        table: workload.job.table().to_owned(),
        commit_age_ms,
        commit_records: workload.commit_records(),
    };
    let watch = tokio::spawn(database.watch().await?.until_end());
    let postgres_before = database.cpu_time()?;
    let started = Instant::now();
    let mut child = start(&assignment)?;
    let pid = child.id().context("the child has ended at once")?;
    until_finished(&mut child, system).await?;
    let (cpu, rss_mb) = (procfs::cpu_time(pid)?, procfs::peak_rss_mb(pid)?);
    let postgres_after = database.cpu_time()?;
    dismiss(child, system).await?;
    database.end_watch().await?;
    let commits = watch.await.context("the watch panicked")??;
    let Some(last) = commits.last() else { bail!("{system} says it has finished, but no commit touched the table") };
    let per_record = |time: Duration| time.as_secs_f64() * 1e6 / expected.total as f64;
    let postgres_cpu = postgres_before.zip(postgres_after).map(|(before, after)| after.saturating_sub(before));
    Ok(Outcome {
        records_per_s: expected.total as f64 / (*last - started).as_secs_f64(),
        cpu_us_per_record: per_record(cpu),
        postgres_us_per_record: postgres_cpu.map(per_record),
        rss_mb,
        commits: commits.len(),
        longest_gap: longest_gap(started, &commits),
        difference: database.difference(expected).await?,
    })
}

fn start(assignment: &Assignment) -> Result<Child> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    Command::new(program)
        .arg(side::SUBCOMMAND)
        .arg(serde_json::to_string(assignment)?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start a child process")
}

/// After `Ok` the child has done its work and still lives, waiting to be [dismissed](dismiss).
async fn until_finished(child: &mut Child, system: System) -> Result<()> {
    let output = child.stdout.take().context("the child has no standard output")?;
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        if line == side::FINISHED {
            return Ok(());
        }
    }
    let status = child.wait().await?;
    bail!("{system} ended with {status} before it had finished")
}

async fn dismiss(mut child: Child, system: System) -> Result<()> {
    drop(child.stdin.take());
    let status = child.wait().await?;
    ensure!(status.success(), "{system} finished, then ended with {status}");
    Ok(())
}

fn longest_gap(started: Instant, commits: &[Instant]) -> Duration {
    let before = std::iter::once(&started).chain(commits);
    before.zip(commits).map(|(before, after)| *after - *before).max().unwrap_or_default()
}
