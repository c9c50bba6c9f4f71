//! The program `tine audit` as an operator runs it: a verdict about a job's table.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use tine_tests::{audit::Audit, job::Job, services::kafka::Broker};
//! # fn example(kafka: Broker, job: Job) -> anyhow::Result<()> {
//! let verdict = Audit::of(&job, &kafka).run(Duration::from_secs(60))?;
//! assert!(verdict.is_exact(), "{verdict}");
//! # Ok(()) }
//! ```

use std::fmt;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::job::Job;
use crate::process::{Program, Stream, program_path};
use crate::services::kafka::Broker;

/// What is audited, and how.
#[derive(Debug, Clone)]
pub struct Audit {
    arguments: Vec<String>,
}

/// What an audit said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The exit code: 0 exact, 1 differs, 2 could not audit.
    pub code: i32,
    /// Its standard output, then its standard error.
    pub said: String,
}

impl Audit {
    /// An audit of a job's table, against the servers themselves, whatever proxies the job goes through.
    pub fn of(job: &Job, broker: &Broker) -> Self {
        let key = if job.counts_words() { "words" } else { "value" };
        Self::at(job.database(), broker).with("--topology", job.name()).with("--key", key).with("--count", "n")
    }

    /// An audit that knows its servers only.
    pub fn at(database: &str, broker: &Broker) -> Self {
        Self { arguments: Vec::new() }.with("--postgres", database).with("--brokers", broker.address())
    }

    /// One more argument.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Runs it to its end.
    pub fn run(&self, deadline: Duration) -> anyhow::Result<Verdict> {
        let path = program_path("tine");
        ensure!(
            path.is_file(),
            "{} is missing: cargo build --release -p tine --bins --all-features (tests/run does it)",
            path.display()
        );
        let mut audit = Program::at(path).arg("audit").args(&self.arguments).start()?;
        let code = audit.wait(deadline)?.code().context("the audit was ended by a signal")?;
        let said = [audit.lines_of(Stream::Out), audit.lines_of(Stream::Err)].concat().join("\n");
        Ok(Verdict { code, said })
    }
}

impl Verdict {
    /// Whether every row is what it should be.
    pub fn is_exact(&self) -> bool {
        self.code == 0 && self.said.lines().any(|line| line == "exact")
    }

    /// Whether it found a difference and says all of this.
    pub fn differs(&self, told: &[&str]) -> bool {
        self.code == 1 && self.said.contains("NOT exact") && self.tells(told)
    }

    /// Whether it gave up and says all of this.
    pub fn gave_up(&self, told: &[&str]) -> bool {
        self.code == 2 && self.said.contains("could not audit: ") && self.tells(told)
    }

    fn tells(&self, told: &[&str]) -> bool {
        told.iter().all(|told| self.said.contains(told))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}:\n{}", self.code, self.said)
    }
}
