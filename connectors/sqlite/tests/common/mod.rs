//! A counting topology on a temporary file, for the tests of this folder.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::{path::Path, sync::Arc};

use sqlx::{AssertSqlSafe, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tine_core::{
    failure::Failure,
    hash::{Hash128, hash64},
    id::{Attempt, Epoch, Generation, Nonce, Shard, TxId},
};
use tine_sqlite::Sqlite;
use tine_state::{
    Column, ColumnType, CommitOrder, CommitOutcome, Committer, Database, GroupSpec, Ident, KeyColumn, Location, Merge,
    Raise, RaiseOutcome, Session, Snapshot, StateIndex, StateSpec, TableRows, TableSpec, TransactionRow, ValueColumn,
    run,
};

pub(crate) const LEADER: Attempt = Attempt { epoch: Epoch(1), nonce: Nonce(7), generation: Generation(1) };

pub(crate) fn words_group(topology: &str) -> GroupSpec {
    let ident = |name| Ident::new(name).unwrap();
    let table = TableSpec {
        schema: None,
        name: ident("word_counts"),
        keys: vec![KeyColumn { name: ident("word"), kind: ColumnType::Text }],
        values: vec![ValueColumn { name: ident("n"), kind: ColumnType::BigInt, merge: Merge::Add }],
        adopt: false,
        shared: false,
    };
    GroupSpec {
        topology: topology.to_string(),
        group: "g0".to_string(),
        states: vec![StateSpec { name: "word_counts".to_string(), shards: 4, table }],
        fingerprint: Hash128(1),
        shape: "count of words".to_string(),
        lineage: 42,
    }
}

pub(crate) fn words(words: &[(&str, i64)]) -> TableRows {
    TableRows {
        keys: vec![Column::Text(words.iter().map(|(word, _)| word.to_string()).collect())],
        values: vec![Column::BigInt(words.iter().map(|(_, count)| *count).collect())],
        shards: words.iter().map(|(word, _)| Shard::of(hash64(word.as_bytes()), 4)).collect(),
        combine: None,
    }
}

pub(crate) fn chain(txid: u64) -> Hash128 {
    Hash128(u128::from(txid))
}

pub(crate) fn transaction(txid: u64) -> TransactionRow {
    TransactionRow {
        txid: TxId(txid),
        previous: chain(txid - 1),
        chain: chain(txid),
        manifest: chain(txid),
        attempt: LEADER,
        plan: vec![1, 2, 3],
        ranges: "[]".to_string(),
    }
}

pub(crate) fn order(group: &GroupSpec, txid: u64, rows: TableRows) -> CommitOrder {
    CommitOrder {
        attempt: LEADER,
        txid: TxId(txid),
        previous: chain(txid - 1),
        chain: chain(txid),
        manifest: chain(txid),
        shards: group.shard_refs().into(),
        tables: vec![(StateIndex(0), Arc::new(rows))],
        plan: Some(Arc::new(transaction(txid))),
        location: Location::default(),
    }
}

/// Creates the group and raises its fence.
pub(crate) async fn started(database: &Sqlite, group: &GroupSpec) -> Box<dyn Session> {
    database.create(group).await.unwrap();
    let mut session = database.session(group).await.unwrap();
    raise(&mut *session, LEADER).await.unwrap();
    session
}

pub(crate) async fn raise(session: &mut dyn Session, attempt: Attempt) -> Result<Snapshot, Failure> {
    match run(Raise::new(attempt), session).await {
        RaiseOutcome::Raised(snapshot) => Ok(*snapshot),
        RaiseOutcome::Failed(failure) => Err(failure),
        RaiseOutcome::Missed(fence) => panic!("missed {fence}"),
    }
}

pub(crate) async fn commit(session: &mut dyn Session, group: &GroupSpec, txid: u64, rows: TableRows) -> CommitOutcome {
    run(Committer::new(order(group, txid, rows)), session).await
}

/// A connection beside tine, as the sqlite3 shell would open it.
pub(crate) async fn shell(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    SqliteConnection::connect_with(&options).await.unwrap()
}

pub(crate) async fn sql(path: &Path, text: &str) {
    sqlx::query(AssertSqlSafe(text.to_string())).execute(&mut shell(path).await).await.unwrap();
}

pub(crate) async fn number(path: &Path, text: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(text.to_string())).fetch_one(&mut shell(path).await).await.unwrap()
}

/// Fails unless the message holds all of these.
pub(crate) fn assert_names(failure: &Failure, words: &[&str]) {
    let missing: Vec<_> = words.iter().filter(|word| !failure.message.contains(**word)).collect();
    assert!(missing.is_empty(), "{missing:?} not in: {}", failure.message);
}
