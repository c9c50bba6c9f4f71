//! `tine audit`: flags, what is printed where, and exit codes.
//!
//! The verdict goes to standard output, progress to standard error. 0: exact. 1: it differs. 2: there is no verdict.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command that talks to people")]

use std::error::Error;
use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

use clap::Args;

use crate::recipe::{self, Key, Pointer};
use crate::{Audit, AuditError, How, Progress, Report};

const EXAMPLES: &str = "\
Examples:
  tine audit --topology kafka_to_postgres --brokers 127.0.0.1:9092 --postgres postgres://127.0.0.1/db --key words --count n
  tine audit … --key json:/user,json:/day --count sales --sum cents=json:/cents --max most=json:/cents

Exit code: 0 exact, 1 differs, 2 could not audit.";

/// Recomputes a table from Kafka, by another way than the topology's, and compares it row by row.
///
/// The topology may run meanwhile: ledger and table are read in one snapshot, and Kafka up to the offsets of that
/// moment. Nothing is written but temporary files. Counts, sums and extremes can be recomputed by flags; for anything else
/// there is the library, tine-audit.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The topology's name.
    #[arg(long, value_name = "NAME")]
    topology: String,
    /// The database, as a URL; a standby will do.
    #[arg(long, value_name = "URL", env = "TINE_POSTGRES", hide_env_values = true)]
    postgres: String,
    /// Kafka's brokers, separated by commas.
    #[arg(long, value_name = "HOST:PORT")]
    brokers: String,
    /// The key of a record's rows: value, bytes, words, record-key, or json:/pointer[,json:/pointer…].
    #[arg(long, value_name = "KEY")]
    key: Key,
    /// The column that counts rows.
    #[arg(long, value_name = "COLUMN")]
    count: Vec<String>,
    /// A column that sums a field.
    #[arg(long, value_name = "COLUMN=json:/POINTER")]
    sum: Vec<Valued>,
    /// A column that keeps a field's smallest value.
    #[arg(long, value_name = "COLUMN=json:/POINTER")]
    min: Vec<Valued>,
    /// A column that keeps a field's largest value.
    #[arg(long, value_name = "COLUMN=json:/POINTER")]
    max: Vec<Valued>,
    /// The table, where the topology keeps several.
    #[arg(long, value_name = "[SCHEMA.]TABLE")]
    table: Option<String>,
    /// The key columns in the order of --key (default: that of the table).
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    key_columns: Vec<String>,
    /// The schema of tine's own tables, where several hold a topology of this name.
    #[arg(long, value_name = "SCHEMA")]
    schema: Option<String>,
    /// Which source feeds the table, from 0, where the topology has several.
    #[arg(long, value_name = "N")]
    source: Option<u64>,
    /// Where counting began, for partitions whose first plans are no longer kept and that did not begin at their first record.
    #[arg(long, value_name = "TOPIC/PARTITION=OFFSET")]
    start: Vec<Start>,
    /// A setting of the Kafka client, as librdkafka names it.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<Setting>,
    /// How much may be held before it is written into temporary files, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    memory: usize,
    /// Where temporary files lie (default: the system's place).
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// How many differing rows are listed.
    #[arg(long, value_name = "N", default_value_t = 20)]
    rows: usize,
}

#[derive(Debug, Clone)]
struct Valued(String, Pointer);

impl FromStr for Valued {
    type Err = String;

    fn from_str(text: &str) -> Result<Valued, String> {
        let (column, pointer) = text.split_once('=').ok_or_else(|| format!("{text:?} is not COLUMN=json:/pointer"))?;
        Ok(Valued(column.to_owned(), pointer.parse()?))
    }
}

#[derive(Debug, Clone)]
struct Start(String, i64);

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Start, String> {
        let parsed = text.rsplit_once('=').and_then(|(name, at)| Some(Start(name.to_owned(), at.parse().ok()?)));
        parsed.ok_or_else(|| format!("{text:?} is not TOPIC/PARTITION=OFFSET, such as lines/0=1200"))
    }
}

#[derive(Debug, Clone)]
struct Setting(String, String);

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Setting, String> {
        let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
        Ok(Setting(name.to_owned(), value.to_owned()))
    }
}

impl Arguments {
    /// Audits, prints the verdict, and returns the exit code.
    pub fn run(self) -> ExitCode {
        match self.audit() {
            Ok(report) => {
                println!("{report}");
                if report.is_exact() { ExitCode::SUCCESS } else { ExitCode::from(1) }
            }
            Err(error) => {
                eprintln!("could not audit: {}", chain(&error));
                ExitCode::from(2)
            }
        }
    }

    fn audit(self) -> Result<Report, AuditError> {
        let mut audit = Audit::new(self.topology, self.postgres, self.brokers).keys(self.key_columns);
        let mut pointers = Vec::new();
        for column in self.count {
            audit = audit.value(column, How::Count);
        }
        for (how, valued) in [(How::Sum, self.sum), (How::Min, self.min), (How::Max, self.max)] {
            for Valued(column, pointer) in valued {
                audit = audit.value(column, how);
                pointers.push(pointer);
            }
        }
        audit = self.table.into_iter().fold(audit, Audit::table);
        audit = self.schema.into_iter().fold(audit, Audit::schema);
        audit = self.source.into_iter().fold(audit, Audit::source);
        audit = self.folder.into_iter().fold(audit, Audit::folder);
        audit = self.start.into_iter().fold(audit, |audit, Start(partition, at)| audit.start(partition, at));
        audit = self.set.into_iter().fold(audit, |audit, Setting(name, value)| audit.set(name, value));
        audit = audit.memory(self.memory.saturating_mul(1 << 20)).rows(self.rows);
        audit.on_progress(teller()).run(recipe::rows(self.key, pointers))
    }
}

/// Tells progress on standard error: in one line on a terminal, in lines elsewhere.
fn teller() -> impl FnMut(Progress) {
    let (start, terminal) = (Instant::now(), stderr().is_terminal());
    move |progress| {
        let Progress { records, offsets, of, runs } = progress;
        let (percent, seconds) = (offsets * 100 / of.max(1), start.elapsed().as_secs_f64());
        let rate = records as f64 / seconds.max(0.001);
        let line = format!("recounting: {percent} % of {of} offsets, {records} records, {rate:.0}/s, {runs} runs");
        if terminal {
            eprint!("\r{line}  ")
        } else {
            eprintln!("{line}")
        }
        if terminal && offsets >= of {
            eprintln!();
        }
    }
}

/// An error with its causes.
fn chain(error: &AuditError) -> String {
    let (mut text, mut cause) = (error.to_string(), Error::source(error));
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
