//! One connection that is either whole or gone.
//!
//! The connection is taken out for each statement and put back when its answer has been read to the end. If the
//! future is dropped in between, if the answer does not come in time, or if the connection breaks, there is nothing to
//! put back: the socket closes, the server rolls back, and the next transaction starts on a new connection.

use std::{io, sync::Arc, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Error, PgConnection, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use tine_core::{
    failure::Failure,
    hash::{Hash128, hash64},
};

use crate::{
    address::Address,
    errors,
    settings::{ANSWER_TIMEOUT, CONNECT_TIMEOUT},
};

/// A statement with its values.
pub(crate) type Bound<'q> = Query<'q, sqlx::Postgres, PgArguments>;

/// A statement whose text was put together from checked names.
pub(crate) fn statement(text: &Arc<str>) -> Bound<'static> {
    sqlx::query(AssertSqlSafe(text.clone()))
}

/// How connections of a group call themselves on the server, so that they can be found and ended.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: String,
    suffix: String,
}

impl Names {
    pub(crate) fn new(topology: &str, group: &str) -> Names {
        let identity = Hash128::of_parts([topology.as_bytes(), group.as_bytes()]).to_string();
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-/".contains(c) { c } else { '?' };
        let suffix = format!("{topology}/{group}").chars().map(plain).take(30).collect();
        Names { prefix: format!("tine.{}.", &identity[..16]), suffix }
    }

    /// Common to all connections of the group, and to no others.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// At most 63 characters, all plain: it appears quoted in a message of ours.
    pub(crate) fn of(&self, role: &str) -> String {
        format!("{}{role} {}", self.prefix, self.suffix)
    }
}

/// The key of a topology's advisory lock: the same in every database and version.
pub(crate) fn lock_key(topology: &str) -> i64 {
    hash64(format!("tine topology lock\0{topology}").as_bytes()).cast_signed()
}

/// A connection to one address, made when needed.
pub(crate) struct Link {
    pub(crate) address: Address,
    pub(crate) names: Names,
    connection: Option<PgConnection>,
    /// Whether this role may read the control file, for the system identifier.
    pub(crate) control: bool,
}

impl Link {
    pub(crate) fn new(address: Address, names: Names) -> Link {
        Link { address, names, connection: None, control: false }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.connection.is_some()
    }

    pub(crate) fn drop_connection(&mut self) {
        self.connection = None;
    }

    /// The server's version, as `server_version_num` says it; 0 when unknown.
    pub(crate) fn version(&self) -> u32 {
        self.connection.as_ref().and_then(PgConnection::server_version_num).unwrap_or(0)
    }

    /// Connects anew, whatever was there.
    pub(crate) async fn connect(&mut self, role: &str) -> Result<(), Failure> {
        self.connection = None;
        let options = self.address.options.clone().application_name(&self.names.of(role));
        let connected = match tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(timed_out(CONNECT_TIMEOUT)),
        };
        self.connection = Some(connected.map_err(|error| errors::connecting(&self.address, &error))?);
        let permitted = "select has_function_privilege('pg_control_system()', 'execute') as permitted";
        let rows = self.rows(sqlx::query(permitted)).await;
        let rows = rows.map_err(|error| errors::connecting(&self.address, &error))?;
        self.control = rows.first().and_then(|row| row.try_get("permitted").ok()).unwrap_or(false);
        if !self.control {
            tracing::warn!(
                database = %self.address,
                "this role may not call pg_control_system(): a server of another origin under the same address would go \
                 unnoticed; grant execute on function pg_control_system() to it"
            );
        }
        Ok(())
    }

    /// Runs a prepared statement and returns its rows.
    pub(crate) async fn rows(&mut self, query: Bound<'_>) -> Result<Vec<PgRow>, Error> {
        let mut connection = self.take()?;
        let answer = within(ANSWER_TIMEOUT, query.fetch_all(&mut connection)).await;
        self.put_back(connection, answer)
    }

    /// Runs a prepared statement and returns how many rows it touched.
    pub(crate) async fn touched(&mut self, query: Bound<'_>) -> Result<u64, Error> {
        let mut connection = self.take()?;
        let answer = within(ANSWER_TIMEOUT, query.execute(&mut connection)).await;
        self.put_back(connection, answer).map(|done| done.rows_affected())
    }

    /// Runs one message of several statements without values; the first that fails ends it.
    pub(crate) async fn message(&mut self, text: &Arc<str>, limit: Duration) -> Result<Vec<PgRow>, Error> {
        let mut connection = self.take()?;
        let answer = within(limit, sqlx::raw_sql(AssertSqlSafe(text.clone())).fetch_all(&mut connection)).await;
        self.put_back(connection, answer)
    }

    /// Says goodbye, so that the server gives back locks at once.
    pub(crate) async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = tokio::time::timeout(Duration::from_secs(1), connection.close()).await;
        }
    }

    fn take(&mut self) -> Result<PgConnection, Error> {
        let gone = || Error::Io(io::Error::new(io::ErrorKind::NotConnected, "the connection is gone"));
        self.connection.take().ok_or_else(gone)
    }

    fn put_back<T>(&mut self, connection: PgConnection, answer: Result<T, Error>) -> Result<T, Error> {
        match &answer {
            Err(error) if errors::ends_connection(error) => {}
            _ => self.connection = Some(connection),
        }
        answer
    }
}

async fn within<T>(limit: Duration, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(timed_out(limit)),
    }
}

fn timed_out(limit: Duration) -> Error {
    Error::Io(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", limit.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_short_and_told_apart() {
        let hostile = Names::new("a'; drop table x; --\u{1F600}", &"g".repeat(200));
        let name = hostile.of("session");
        assert!(name.len() <= 63 && name.chars().all(|c| c.is_ascii() && c != '\'' && c != '\\'), "{name}");
        assert!(name.starts_with(hostile.prefix()));
        assert_ne!(Names::new("a", "bc").prefix(), Names::new("ab", "c").prefix());
    }

    /// Golden value: two versions of tine must agree on it, or both hold "the" lock.
    #[test]
    fn the_lock_key_is_stable() {
        assert_eq!(lock_key("word-count"), hash64(b"tine topology lock\0word-count").cast_signed());
    }
}
