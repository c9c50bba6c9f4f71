//! What SQLite's result codes mean in the failure vocabulary.

use tine_core::failure::{Failure, FailureKind};

/// The primary result code of SQLite, if this is an answer of SQLite's at all.
pub(crate) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// A constraint of a table, or the type of a column, was violated.
pub(crate) const CONSTRAINT: i32 = 19;

/// Another connection holds the lock that was asked for.
pub(crate) const BUSY: i32 = 5;

/// Names the operation that failed, in which file, what SQLite said, and what to do. The write did not happen: whoever
/// calls this rolls back, or had nothing written.
pub(crate) fn classify(error: &sqlx::Error, doing: &str, file: &dyn std::fmt::Display) -> Failure {
    let (kind, advice) = meaning(error);
    let said = match error.as_database_error() {
        Some(database) => database.message().to_string(),
        None => error.to_string(),
    };
    Failure::new(kind, format!("{doing} in {file} failed: {said}; {advice}"))
}

fn meaning(error: &sqlx::Error) -> (FailureKind, &'static str) {
    use FailureKind::{Fatal, Poison, Transient};
    let Some(code) = primary_code(error) else {
        return match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnIndexOutOfBounds { .. } => {
                (Fatal, "the file was written by something else than tine: restore it from a backup")
            }
            _ => (Transient, "it is tried again on a new connection"),
        };
    };
    match code {
        BUSY | 6 => (Transient, "another program holds the write lock: end its open transaction"),
        13 => (Transient, "the disk is full: free some space beside the file"),
        10 => (Transient, "the disk answered with an error: look at the system's log"),
        7 | 9 | 15 | 17 => (Transient, "it is tried again"),
        18 => (Poison, "a value is longer than SQLite can hold"),
        CONSTRAINT => (Fatal, "the table's own constraints forbid it: change them, or the rows that are there"),
        8 => (Fatal, "make the file and its directory writable for this user"),
        14 => (Fatal, "make sure that the file and its directory exist and are writable for this user"),
        26 => (Fatal, "it is not a SQLite database: choose another path"),
        11 => (Fatal, "the file is damaged: restore it from a backup"),
        _ => {
            (Fatal, "look at the tables with the sqlite3 shell, and restore a backup if they are not as tine left them")
        }
    }
}
