//! Servers for tests that only use them: one of each kind for a whole run.
//!
//! `tests/run` starts them and passes their addresses in `TINE_TEST_KAFKA` (`host:port`), `TINE_TEST_ZOOKEEPER`
//! (`host:port`) and `TINE_TEST_POSTGRES` (`postgres://…`). Without it (`cargo test -p tine-tests`) the first test that
//! asks starts one for its own process. What a test makes there carries a [`unique`] name, because other
//! tests use the server at the same time.
//!
//! `None` means: not installed, the reason was printed, skip. In CI (`CI=true`) that is a panic instead, and so is, anywhere, a
//! server that is installed and does not start.

use std::io::Write;
use std::sync::OnceLock;

use anyhow::Context;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::kafka::{Broker, Kafka};
use super::{Error, Postgres, ZooKeeper, unique};

/// The shared broker.
pub fn kafka() -> Option<Broker> {
    static SHARED: OnceLock<Option<Kafka>> = OnceLock::new();
    given("TINE_TEST_KAFKA").or_else(|| own(&SHARED, Kafka::start, Kafka::address)).map(Broker::at)
}

/// The shared ZooKeeper server: `host:port`. Take a chroot of your own: `/{unique("name")}`.
pub fn zookeeper() -> Option<String> {
    static SHARED: OnceLock<Option<ZooKeeper>> = OnceLock::new();
    given("TINE_TEST_ZOOKEEPER").or_else(|| own(&SHARED, ZooKeeper::start, ZooKeeper::address))
}

/// The shared PostgreSQL server: the URL of its first database. Prefer [`postgres_database`].
pub fn postgres() -> Option<String> {
    static SHARED: OnceLock<Option<Postgres>> = OnceLock::new();
    given("TINE_TEST_POSTGRES").or_else(|| own(&SHARED, Postgres::start, Postgres::url))
}

/// The URL of a new, empty database on the shared server.
pub async fn postgres_database(prefix: &str) -> anyhow::Result<Option<String>> {
    let Some(url) = postgres() else { return Ok(None) };
    new_database(&url, prefix).await.map(Some)
}

/// Makes a new, empty database on the server of `url` and returns its URL.
pub async fn new_database(url: &str, prefix: &str) -> anyhow::Result<String> {
    let name = unique(prefix);
    let mut connection = PgConnection::connect(url).await.with_context(|| format!("connect to {url}"))?;
    let create = AssertSqlSafe(format!("create database \"{name}\""));
    sqlx::query(create).execute(&mut connection).await.with_context(|| format!("create database {name}"))?;
    connection.close().await?;
    let server = url.rfind('/').map_or(url, |end| &url[..end]);
    Ok(format!("{server}/{name}"))
}

/// Prints why a test does nothing; in CI it panics instead, because there nothing may be skipped.
pub fn skip(why: impl std::fmt::Display) {
    assert!(!in_ci(), "in CI nothing may be skipped: {why}");
    // Not eprintln!: the test harness would keep it to itself, and a skip must be seen.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

fn given(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

fn own<S>(
    shared: &'static OnceLock<Option<S>>,
    start: fn() -> Result<S, Error>,
    address: fn(&S) -> String,
) -> Option<String> {
    let server = shared.get_or_init(|| match start() {
        Ok(server) => Some(server),
        Err(error @ Error::NotInstalled { .. }) => {
            skip(&error);
            None
        }
        Err(error) => panic!("{error}"),
    });
    server.as_ref().map(address)
}

fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}
