//! One system doing one job once, in a process of its own.
//!
//! The parent starts this binary again with an [`Assignment`]; the child does it, writes [`FINISHED`] and waits until
//! its standard input is closed. In between the parent reads what the process has cost from `/proc`. What the child says
//! decides nothing: when rows became visible, how many commits there were and whether the counts are right, the parent
//! asks the database.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::kafka_to_postgres::Job;
use crate::{hand, tine_side};

/// The hidden subcommand of a child.
pub(crate) const SUBCOMMAND: &str = "side";

/// The line a child writes when everything it was asked for is committed.
pub(crate) const FINISHED: &str = "finished";

/// Who does the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// The loop written by hand for this job: the yardstick.
    Hand,
    /// tine.
    Tine,
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            System::Hand => "hand",
            System::Tine => "tine",
        })
    }
}

/// What both systems are told, and nothing else: count everything below the end offsets of `topic` into `table`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) system: System,
    /// Whether records are counted whole or word by word.
    pub(crate) job: Job,
    /// Kafka's bootstrap servers.
    pub(crate) brokers: String,
    pub(crate) topic: String,
    /// A database made for this run. The table exists there, empty.
    pub(crate) postgres_url: String,
    /// Key column [`Job::key_column`] (text, primary key), value column `n` (bigint).
    pub(crate) table: String,
    /// No record may wait longer than this for its commit to begin.
    pub(crate) commit_age_ms: u64,
    /// No commit may hold more Kafka records than this, so that a fast run still has enough commits to say something.
    pub(crate) commit_records: u64,
}

impl Assignment {
    pub(crate) fn commit_age(&self) -> Duration {
        Duration::from_millis(self.commit_age_ms)
    }
}

/// The child's whole life. After `Ok` everything below the topic's end offsets at the start is committed.
pub(crate) fn run(assignment: &str) -> Result<()> {
    let assignment: Assignment = serde_json::from_str(assignment).context("the assignment cannot be read")?;
    match assignment.system {
        System::Hand => hand::run(&assignment)?,
        System::Tine => tine_side::run(&assignment)?,
    }
    writeln!(io::stdout(), "{FINISHED}")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
