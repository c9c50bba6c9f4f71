//! Turns what sqlx reports into tine's failures, in words that say what to do.

use sqlx::Error;
use tine_core::failure::{Failure, FailureKind};

use crate::{
    address::Address,
    settings,
    sqlstate::{self, Meaning},
};

/// The server's code, when the server spoke.
pub(crate) fn code(error: &Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned())
}

/// What an error means; anything that is not an answer of the server has cost the connection.
pub(crate) fn meaning(error: &Error) -> Meaning {
    match code(error) {
        Some(code) => sqlstate::meaning(&code),
        None => match error {
            Error::ColumnNotFound(_) | Error::ColumnDecode { .. } | Error::Decode(_) | Error::TypeNotFound { .. } => {
                Meaning::Refused
            }
            Error::Encode(_) => Meaning::Value,
            _ => Meaning::Lost,
        },
    }
}

/// Whether the connection must be given up.
pub(crate) fn ends_connection(error: &Error) -> bool {
    meaning(error) == Meaning::Lost
}

/// A failure outside `COMMIT`: whatever it was, nothing has been committed.
pub(crate) fn before_commit(doing: &str, address: &Address, error: &Error) -> Failure {
    let meaning = meaning(error);
    Failure::new(kind(meaning), format!("{doing} on {address}: {}{}", words(error), advice(meaning)))
}

/// A failure of `COMMIT`: unknown, unless the server says that it rolled back.
pub(crate) fn at_commit(address: &Address, error: &Error) -> Failure {
    match code(error) {
        Some(code) if sqlstate::proves_rollback(&code) => before_commit("committing", address, error),
        _ => Failure::new(
            FailureKind::Unknown,
            format!(
                "committing on {address}: {}; whether it was committed is unknown until the fence is raised",
                words(error)
            ),
        ),
    }
}

/// A failure to connect.
pub(crate) fn connecting(address: &Address, error: &Error) -> Failure {
    let meaning = meaning(error);
    match (meaning, error) {
        (Meaning::Login, _) => Failure::fatal(format!(
            "{address} refuses the login: {}; check user, password and database in the URL, and pg_hba.conf",
            words(error)
        )),
        (Meaning::Lost, Error::Tls(_) | Error::Configuration(_)) => Failure::fatal(format!(
            "cannot connect to {address}: {}; check sslmode and certificates in the URL",
            words(error)
        )),
        (Meaning::Lost, _) => Failure::transient(format!(
            "cannot reach {address}: {}; is the server running, and is the address right?",
            words(error)
        )),
        _ => Failure::new(kind(meaning), format!("cannot connect to {address}: {}{}", words(error), advice(meaning))),
    }
}

fn kind(meaning: Meaning) -> FailureKind {
    match meaning {
        Meaning::Retry
        | Meaning::Locked
        | Meaning::Lost
        | Meaning::Resources
        | Meaning::ReadOnly
        | Meaning::Unlisted => FailureKind::Transient,
        Meaning::Value | Meaning::TooLong => FailureKind::Poison,
        Meaning::Overflow
        | Meaning::Constraint
        | Meaning::Rights
        | Meaning::Login
        | Meaning::Pooled
        | Meaning::Refused => FailureKind::Fatal,
    }
}

/// The server's words with their code, or the client's.
fn words(error: &Error) -> String {
    let Some(database) = error.as_database_error() else {
        return error.to_string();
    };
    let code = database.code().unwrap_or_default();
    match database.constraint() {
        Some(constraint) => format!("{} (SQLSTATE {code}, constraint {constraint})", database.message()),
        None => format!("{} (SQLSTATE {code})", database.message()),
    }
}

fn advice(meaning: Meaning) -> String {
    match meaning {
        Meaning::Retry | Meaning::Lost | Meaning::Unlisted => String::new(),
        Meaning::Locked => format!(
            "; another session has held a lock for more than {} s: look for it in pg_stat_activity and pg_locks",
            settings::LOCK_TIMEOUT.as_secs()
        ),
        Meaning::Resources => {
            "; the server is short of disk, memory or connections: make room, work goes on by itself".to_string()
        }
        Meaning::ReadOnly => "; the server is a standby or set to read only: point the URL at the primary".to_string(),
        Meaning::Value => "; a text must be valid UTF-8 without NUL and fit its column".to_string(),
        Meaning::TooLong => "; a key of more than about 2,700 bytes does not fit into an index".to_string(),
        Meaning::Overflow => "; counter overflow: the sum no longer fits into a bigint".to_string(),
        Meaning::Constraint => {
            "; a constraint of the table refuses the row: drop the constraint, or repair the data".to_string()
        }
        Meaning::Rights => "; grant the role of the URL the rights on the table, and usage on its schema".to_string(),
        Meaning::Login => "; check user, password and database in the URL".to_string(),
        Meaning::Pooled => {
            "; is a pooler in transaction mode between? Use a connection in session mode, or the server's \
                            own address"
                .to_string()
        }
        Meaning::Refused => "; the tables are not what this binary expects".to_string(),
    }
}
