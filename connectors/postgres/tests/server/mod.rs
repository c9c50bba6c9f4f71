//! A real server for the tests: `TINE_TEST_POSTGRES` holds its URL, and each test gets a database of its own there.
//!
//! Without the variable the tests say so and are skipped; in CI (`CI` is set) that is an error.

#![allow(dead_code, unreachable_pub, reason = "each test program uses another part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests, which clippy does not know for tests"
)]

use std::{
    collections::hash_map::RandomState,
    env,
    hash::{BuildHasher, Hasher},
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tine_core::{
    hash::Hash128,
    id::{Attempt, Epoch, Generation, Nonce, Shard, TxId},
};
use tine_postgres::Postgres;
use tine_state::{
    Column, ColumnType, CommitOrder, Database, GroupSpec, Ident, KeyColumn, Location, Merge, Raise, RaiseOutcome,
    Reply, Session, Snapshot, StateIndex, StateSpec, Statement, TableRows, TableSpec, ValueColumn, run,
};

/// The server's URL, or `None` with a word about it.
pub fn server() -> Option<String> {
    match env::var("TINE_TEST_POSTGRES") {
        Ok(url) => Some(url),
        Err(_) if env::var_os("CI").is_some() => panic!("TINE_TEST_POSTGRES is not set, and in CI nothing is skipped"),
        Err(_) => {
            println!(
                "skipped: TINE_TEST_POSTGRES is not set; it is the URL of a PostgreSQL server whose role may create databases"
            );
            None
        }
    }
}

/// A database of its own; dropped by [`Fresh::drop_database`], kept when the test fails.
pub struct Fresh {
    server: PgConnectOptions,
    pub name: String,
    pub url: String,
}

impl Fresh {
    pub async fn new() -> Option<Fresh> {
        let url = server()?;
        let server = PgConnectOptions::from_str(&url).unwrap();
        let name = fresh_name("tine_test");
        let mut admin = server.connect().await.unwrap();
        execute(&mut admin, &format!("create database {name}")).await.unwrap();
        let url = with_database(&url, &name);
        Some(Fresh { server, name, url })
    }

    pub fn postgres(&self) -> Postgres {
        Postgres::connect(&self.url).unwrap()
    }

    pub async fn connect(&self) -> PgConnection {
        self.server.clone().database(&self.name).connect().await.unwrap()
    }

    /// The same database under another role.
    pub fn url_as(&self, role: &str) -> String {
        let (scheme, rest) = self.url.split_once("://").unwrap();
        let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
        format!("{scheme}://{role}:{role}@{rest}")
    }

    pub async fn sql(&self, text: &str) {
        execute(&mut self.connect().await, text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    }

    pub async fn number(&self, text: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(text.to_string())).fetch_one(&mut self.connect().await).await.unwrap()
    }

    pub async fn drop_database(self) {
        let mut admin = self.server.connect().await.unwrap();
        execute(&mut admin, &format!("drop database {} with (force)", self.name)).await.unwrap();
        admin.close().await.unwrap();
    }
}

fn with_database(url: &str, name: &str) -> String {
    let (url, query) = url.split_once('?').map_or((url, String::new()), |(url, query)| (url, format!("?{query}")));
    let (scheme, rest) = url.split_once("://").unwrap();
    let authority = rest.split('/').next().unwrap();
    format!("{scheme}://{authority}/{name}{query}")
}

pub async fn execute(connection: &mut PgConnection, text: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(text.to_string())).execute(connection).await.map(drop)
}

pub fn fresh_name(prefix: &str) -> String {
    format!("{prefix}_{:016x}", RandomState::new().build_hasher().finish())
}

/// Polls a condition until it holds; panics after 30 seconds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited 30 s in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn attempt(epoch: u64, generation: u64) -> Attempt {
    Attempt::new(Epoch(epoch), Nonce(0xffff_0000_0000_0000 + epoch), Generation(generation))
}

pub fn ident(name: &str) -> Ident {
    Ident::new(name).unwrap()
}

/// `name (word text primary key, n bigint)`, counted.
pub fn words(name: &str) -> TableSpec {
    TableSpec {
        schema: None,
        name: ident(name),
        keys: vec![KeyColumn { name: ident("word"), kind: ColumnType::Text }],
        values: vec![ValueColumn { name: ident("n"), kind: ColumnType::BigInt, merge: Merge::Add }],
        adopt: false,
        shared: false,
    }
}

pub fn group(topology: &str, tables: Vec<TableSpec>) -> GroupSpec {
    let state = |table: TableSpec| StateSpec { name: table.name.as_str().to_string(), shards: 4, table };
    GroupSpec {
        topology: topology.to_string(),
        group: "main".to_string(),
        states: tables.into_iter().map(state).collect(),
        fingerprint: Hash128::of(b"shape"),
        shape: "file -> count -> words".to_string(),
        lineage: 7,
    }
}

/// Rows that count words; all in shard 0.
pub fn counted<W: ToString>(counts: impl IntoIterator<Item = (W, i64)>) -> Arc<TableRows> {
    let (words, numbers): (Vec<String>, Vec<i64>) = counts.into_iter().map(|(word, n)| (word.to_string(), n)).unzip();
    let shards = vec![Shard(0); words.len()];
    Arc::new(TableRows {
        keys: vec![Column::Text(words)],
        values: vec![Column::BigInt(numbers)],
        shards,
        combine: None,
    })
}

pub fn chain(txid: u64) -> Hash128 {
    if txid == 0 { Hash128::default() } else { Hash128::of(&txid.to_be_bytes()) }
}

pub fn order(
    spec: &GroupSpec,
    attempt: Attempt,
    txid: u64,
    location: Location,
    tables: Vec<Arc<TableRows>>,
) -> CommitOrder {
    CommitOrder {
        attempt,
        txid: TxId(txid),
        previous: chain(txid - 1),
        chain: chain(txid),
        manifest: Hash128::of(&txid.to_le_bytes()),
        shards: spec.shard_refs().into(),
        tables: (0..).map(StateIndex).zip(tables).collect(),
        plan: None,
        location,
    }
}

pub fn advance(order: &CommitOrder) -> Statement {
    Statement::Advance(Arc::new(tine_state::Advance {
        attempt: order.attempt,
        txid: order.txid,
        previous: order.previous,
        chain: order.chain,
        manifest: order.manifest,
        shards: order.shards.clone(),
        tables: order.tables.clone(),
    }))
}

pub async fn session(database: &Postgres, spec: &GroupSpec) -> Box<dyn Session> {
    database.session(spec).await.unwrap()
}

pub async fn raise(session: &mut dyn Session, attempt: Attempt) -> Snapshot {
    match run(Raise::new(attempt), session).await {
        RaiseOutcome::Raised(snapshot) => *snapshot,
        other => panic!("the raise ended as {other:?}"),
    }
}

/// A group with these tables, its fence raised to attempt 1.1.
pub async fn counting(fresh: &Fresh, tables: &[&str]) -> (Postgres, GroupSpec, Location) {
    let (database, spec) = (fresh.postgres(), group("counting", tables.iter().map(|name| words(name)).collect()));
    database.create(&spec).await.unwrap();
    let location = raise(&mut *session(&database, &spec).await, attempt(1, 1)).await.location;
    (database, spec, location)
}

/// Executes statements that must not fail; returns the last reply.
pub async fn all(session: &mut dyn Session, statements: impl IntoIterator<Item = Statement>) -> Reply {
    let mut last = Reply::Done;
    for statement in statements {
        last = session.execute(&statement).await.unwrap_or_else(|failure| panic!("{statement:?}: {failure}"));
    }
    last
}
