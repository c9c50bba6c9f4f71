//! Everything breaks at once, by a plan that a seed gives, and an audit says what it did to the counts.
//!
//! ```text
//!             ┌── worker 0 ┐
//!   producer  ├── worker 1 ┤   each is killed, paused, given another clock
//!      │      └── worker 2 ┘
//!      │        │    │   │
//!      ▼        ▼    ▼   ▼     each connection is cut, delayed, left half open, cut amid a request
//!    Kafka ◄──proxy proxy proxies
//!                    │   └───► ZooKeeper, an ensemble of three     each server is killed, restarted, paused
//!                    │         with proxies between its servers    a follower lags, or is apart; all are away for a minute
//!                    └───────► Postgres                            the disks of tables and of logs fill up
//! ```
//!
//! One copy of the job leads and the others stand by; a producer writes all the time. When the time is over everything is
//! healed, what was written must be counted within a bounded time, and `tine audit` recomputes the table. It also does
//! so under way, whenever it gets through. In the end the table and the ledger are damaged by hand, a row at a time, and the
//! same audit must find each damage: one that certifies whatever it sees would certify nothing.
//!
//! What is here: [`plan`] (what breaks when), `victim` (how), `clock` (what that needs), `stage` (what is started),
//! `crew` (who breaks, looks after and audits), `pulse` (when something was committed), `damage` (what the audit must find),
//! `outcome` (the table at the end), and in this file the course of it all.

mod clock;
mod crew;
mod damage;
mod outcome;
pub mod plan;
mod pulse;
mod stage;
mod victim;

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use self::crew::{Auditor, Crew};
pub use self::outcome::Outcome;
use self::pulse::Pulse;
use self::stage::Stage;
use crate::audit::{Audit, Verdict};
use crate::job::Feed;
use crate::{count, disk, report};

/// How long the job may need to count what is written when everything is whole again. Connections that went mute are
/// noticed by deadlines, and a deadline may begin with the last fault.
const DRAIN_DEADLINE: Duration = Duration::from_secs(300);
const AUDIT_DEADLINE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(200);
const COUNTED: &str = "select coalesce(sum(n), 0)::bigint from counts";
const LEDGER: &str = "select min(txid) from tine_ledger";

/// What kind of chaos.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chaos {
    /// The plan.
    pub seed: u64,
    /// How long things break.
    pub length: Duration,
    /// Copies of the job.
    pub workers: usize,
    /// Rules of the protocol that the copies break (names of mutants, separated by commas): none, or the run must fail.
    pub broken: String,
}

impl fmt::Display for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.length.as_secs_f64() / 60.0;
        write!(f, "chaos --seed {} --minutes {minutes} --workers {}", self.seed, self.workers)?;
        if self.broken.is_empty() { Ok(()) } else { write!(f, " --break {}", self.broken) }
    }
}

impl Chaos {
    /// Runs it; `None` where a server is not installed. `Err`: something is not exact, was not counted in time, halted or
    /// panicked; the message has the seed.
    pub async fn run(self) -> anyhow::Result<Option<Outcome>> {
        report(format_args!("{self}"));
        let name = self.to_string();
        let Some(stage) = Stage::new(&self).await.with_context(|| name.clone())? else { return Ok(None) };
        self.play(stage).await.map(Some).context(name)
    }

    async fn play(self, stage: Stage) -> anyhow::Result<Outcome> {
        let Stage { folder, servers, workers, job, broker, missing } = stage;
        let start = Instant::now();
        let feed = Feed::start(broker.address(), stage::TOPIC);
        let pulse = Pulse::start(job.database().to_owned(), start);
        let servers = Crew::start(&self, missing, start, servers);
        let workers = Crew::start(&self, missing, start, workers);
        let auditor = Auditor::start(Audit::of(&job, &broker));
        // One of them ends early when it has found something.
        while start.elapsed() < self.length && !servers.has_ended() && !workers.has_ended() && !auditor.has_ended() {
            tokio::time::sleep(LOOK).await;
        }
        // Each heals what it has broken before it ends.
        let (servers, mut done) = servers.end_plan().await?;
        let audits = auditor.end().await?;
        let (records, expected) = tokio::task::spawn_blocking(move || (feed.written(), feed.end())).await?;
        let expected = expected?;
        let healed = Instant::now();
        let words: i64 = expected.values().sum();
        if let Err(short) = drained(job.database(), words).await {
            // Lost, or only late?
            let audit = audited(Audit::of(&job, &broker)).await;
            let said = audit.map_or_else(|error| format!("{error:#}"), |verdict| verdict.said);
            bail!("{short:#}; what the workers said is in {}; an audit says:\n{said}", folder.display());
        }
        let drained = healed.elapsed();
        let running = audited(Audit::of(&job, &broker)).await?;
        let (workers, more) = workers.end_plan().await?;
        done.extend(more);
        let told = tokio::task::spawn_blocking(|| workers.into_iter().map(|mut worker| worker.finish()).sum()).await?;
        let told: anyhow::Result<victim::Told> = told;
        let outcome = Outcome {
            chaos: self,
            missing,
            done,
            beats: pulse.end().await?,
            told: told?,
            audits,
            commits: count::number(job.database(), LEDGER).await?,
            records,
            words,
            drained,
            lost_and_doubled: outcome::lost_and_doubled(&expected, &job.counts().await?),
            verdicts: [running, audited(Audit::of(&job, &broker)).await?],
            missed: damage::missed(&job, &broker).await?,
        };
        drop(servers);
        ensure!(outcome.is_exact(), "{outcome}");
        let _ = std::fs::remove_dir_all(&folder);
        Ok(outcome)
    }
}

/// Takes back what the kernel does not when this process ends at once.
pub fn leave() {
    disk::unmount_forgotten();
}

/// Waits until so many words are counted.
async fn drained(database: &str, words: i64) -> anyhow::Result<()> {
    let mut last = Err(anyhow::anyhow!("the database was not asked"));
    let end = Instant::now() + DRAIN_DEADLINE;
    while Instant::now() < end {
        last = count::number(database, COUNTED).await;
        if matches!(&last, Ok(counted) if *counted >= words) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    let counted = last.context("the database does not answer")?;
    ensure!(counted >= words, "healed for {DRAIN_DEADLINE:?}: {counted} of {words} words are counted");
    Ok(())
}

async fn audited(audit: Audit) -> anyhow::Result<Verdict> {
    tokio::task::spawn_blocking(move || audit.run(AUDIT_DEADLINE)).await?
}
