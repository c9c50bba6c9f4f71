//! One system doing one task, in a process of its own.
//!
//! The parent starts this binary again with a [`Task`]; the child does it, writes [`FINISHED`] and waits until its standard
//! input is closed. In between the parent reads what the process has cost from `/proc`. What the child says decides
//! nothing: when rows became visible, how many commits there were and whether the counts are right, the parent asks the
//! database.

use std::io::{self, Read, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::workload::Job;
use crate::{embedded, hand, pipeline, tine_side};

/// The hidden subcommand of a child.
pub(crate) const SUBCOMMAND: &str = "side";

/// What a child's line begins with when everything it was asked for is committed.
pub(crate) const FINISHED: &str = "finished";

/// Who does the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// The loop written by hand for the job, on librdkafka.
    Hand,
    /// The same loop on tine's own Kafka reader.
    HandNative,
    /// tine.
    Tine,
    /// tine on librdkafka.
    TineRdkafka,
}

impl System {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            System::Hand => "hand",
            System::HandNative => "hand-native",
            System::Tine => "tine",
            System::TineRdkafka => "tine-rdkafka",
        }
    }
}

/// What a child does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Task {
    Stream(Assignment),
    Files(embedded::Assignment),
    Loop(pipeline::Assignment),
}

/// When a stream has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Until {
    /// At the topic's end offsets of the start.
    End,
    /// When the child's standard input is closed.
    Dismissed,
}

/// What all systems are told, and nothing else.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) system: System,
    /// What is made of the records.
    pub(crate) job: Job,
    /// Kafka's bootstrap servers.
    pub(crate) brokers: String,
    pub(crate) topic: String,
    /// A database made for this run, with the job's table, empty.
    pub(crate) postgres_url: String,
    pub(crate) until: Until,
    /// No record may wait longer than this for its commit to begin; 0 for as soon as possible.
    pub(crate) commit_age_ms: u64,
    /// No commit may hold more Kafka records than this, so that a fast run still has enough commits to say something.
    pub(crate) commit_records: u64,
    /// Whether commits are visible before they are on disk (`synchronous_commit = off`).
    pub(crate) relaxed: bool,
}

impl Assignment {
    pub(crate) fn commit_age(&self) -> Duration {
        Duration::from_millis(self.commit_age_ms)
    }
}

/// The child's whole life.
pub(crate) fn run(task: &str) -> Result<()> {
    let task: Task = serde_json::from_str(task).context("the task cannot be read")?;
    let said = match &task {
        Task::Stream(assignment) => stream(assignment)?,
        Task::Files(assignment) => embedded::work(assignment)?,
        Task::Loop(assignment) => pipeline::work(assignment)?,
    };
    writeln!(io::stdout(), "{FINISHED} {said}")?;
    until_dismissed();
    Ok(())
}

fn stream(assignment: &Assignment) -> Result<String> {
    match assignment.system {
        System::Hand | System::HandNative => hand::run(assignment).map(|()| String::new()),
        System::Tine | System::TineRdkafka => tine_side::run(assignment),
    }
}

/// Returns when the parent has closed the standard input, or is gone.
pub(crate) fn until_dismissed() {
    let _ = io::stdin().read_to_end(&mut Vec::new());
}
