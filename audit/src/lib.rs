//! Recomputes a table from Kafka by another way and compares it row by row, while the topology runs.
//!
//! The *ledger* says up to which offsets the table is exact. An audit reads ledger and table in one snapshot, reads the
//! same offsets with a plain consumer, aggregates them in one thread, and compares. It shares no code with tine: no reader,
//! no hash map, no plan decoder. A mistake would have to be made twice.
//!
//! ```text
//!  Postgres, one snapshot                      Kafka, from start to position
//!    ledger ── checked ──► positions ─────────────► records ─► your closure ─► rows
//!    table  ── in key order ──► a file      sorted runs in files ◄── aggregated, within `memory`
//!                                  └────────► merged, row by row ◄────┘
//!                                                   Report
//! ```
//!
//! Memory is bounded because both sides are walked in key order: what is aggregated is written down as a sorted run
//! whenever it reaches the limit, the runs are merged at the end, and the database sorts its side. One pass over Kafka is
//! enough, which several passes over ranges of keys would not be, and no key distribution is bad, which it can be for
//! partitions by hash. The snapshot is held only while the table is copied to the file.
//!
//! ```no_run
//! use tine_audit::{Audit, How, Part};
//!
//! let report = Audit::new("word_counts", "postgres://127.0.0.1/db", "127.0.0.1:9092")
//!     .value("n", How::Count)
//!     .run(|record, emit| match record.text() {
//!         Some(line) => line.split_whitespace().for_each(|word| emit.row(&[Part::Text(word)], &[])),
//!         None => emit.leave_out(),
//!     })?;
//! assert!(report.is_exact(), "{report}");
//! # Ok::<(), tine_audit::AuditError>(())
//! ```
//!
//! Read in this order: [`Audit`], [`Record`] and [`Emit`], [`Report`]; inside: `ledger` (what the database promises), `log`
//! (what Kafka holds), `runs` (memory), `compare`. [`recipe`] has the usual closures, `command` is `tine audit`.

mod audit;
mod compare;
mod ledger;
mod log;
mod record;
mod runs;
mod table;

#[cfg(feature = "command")]
pub mod command;
pub mod recipe;

pub use audit::{Audit, Progress};
pub use compare::{Report, Wrong};
pub use record::{Emit, Part, Record};
pub use runs::How;

/// Why there is no verdict. Nothing was written anywhere but to temporary files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The database did not answer as it should.
    #[error("postgres: {doing}")]
    Postgres {
        /// What was asked.
        doing: String,
        /// What it said.
        #[source]
        source: sqlx::Error,
    },
    /// The broker did not answer as it should.
    #[error("kafka: {doing}")]
    Kafka {
        /// What was asked.
        doing: String,
        /// What it said.
        #[source]
        source: rdkafka::error::KafkaError,
    },
    /// A temporary file could not be written or read.
    #[error("{doing}; name a folder with more room with --folder")]
    File {
        /// What was tried.
        doing: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// What was asked for cannot be audited, and why.
    #[error("{0}")]
    NotPossible(String),
}

impl AuditError {
    fn postgres(doing: impl Into<String>) -> impl FnOnce(sqlx::Error) -> AuditError {
        let doing = doing.into();
        move |source| AuditError::Postgres { doing, source }
    }

    fn kafka(doing: impl Into<String>) -> impl FnOnce(rdkafka::error::KafkaError) -> AuditError {
        let doing = doing.into();
        move |source| AuditError::Kafka { doing, source }
    }

    fn file(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> AuditError {
        let doing = doing.into();
        move |source| AuditError::File { doing, source }
    }

    fn not_possible(why: impl Into<String>) -> AuditError {
        AuditError::NotPossible(why.into())
    }
}
