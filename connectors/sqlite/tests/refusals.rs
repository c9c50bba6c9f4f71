//! What cannot be a state database, or not this topology's, is refused with words that name it and the fix.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod common;

use common::*;
use tine_core::failure::FailureKind;
use tine_sqlite::Sqlite;
use tine_state::{Database, Ident, Merge};

async fn refusal(database: &Sqlite) -> tine_core::failure::Failure {
    let failure = database.create(&words_group("words")).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fatal, "{failure}");
    failure
}

#[tokio::test]
async fn a_path_that_cannot_be_a_database_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = refusal(&Sqlite::open(directory.path().join("missing/x.db"))).await;
    assert_names(&nowhere, &["missing/x.db", "no directory", "create it"]);
    assert_names(&refusal(&Sqlite::open(directory.path())).await, &["is a directory"]);
    for memory in [":memory:", ""] {
        assert_names(&refusal(&Sqlite::open(memory)).await, &["file that outlives the process"]);
    }
    let text = directory.path().join("notes.txt");
    std::fs::write(&text, "this is not a database, whatever its name says\n".repeat(100)).unwrap();
    assert_names(&refusal(&Sqlite::open(&text)).await, &["notes.txt", "not a SQLite database"]);
    let missing = Sqlite::open(directory.path().join("never.db")).session(&words_group("words")).await;
    assert_names(&missing.err().unwrap(), &["never.db", "exist"]);
}

#[tokio::test]
async fn a_read_only_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    sql(&path, "CREATE TABLE x (a)").await;
    let mut permissions = std::fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&path, permissions).unwrap();
    assert_names(&refusal(&Sqlite::open(&path)).await, &["state.db", "read-only", "writable"]);
}

#[tokio::test]
async fn a_file_that_another_program_keeps_locked_may_be_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let database = Sqlite::open(&path);
    database.create(&words_group("words")).await.unwrap();
    let mut holder = shell(&path).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut holder).await.unwrap();
    let failure = database.create(&words_group("words")).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Transient);
    assert_names(&failure, &["another program holds the write lock"]);
}

#[tokio::test]
async fn every_difference_of_a_table_is_told() {
    let good = "word TEXT NOT NULL PRIMARY KEY, n INTEGER NOT NULL";
    let cases = [
        (format!("CREATE TABLE word_counts ({good})"), "STRICT"),
        (
            "CREATE TABLE word_counts (word TEXT NOT NULL PRIMARY KEY, n INTEGER) STRICT".into(),
            "column n: expected INTEGER NOT NULL, found INTEGER",
        ),
        (
            "CREATE TABLE word_counts (word TEXT NOT NULL PRIMARY KEY, n REAL NOT NULL) STRICT".into(),
            "found REAL NOT NULL",
        ),
        (
            "CREATE TABLE word_counts (word TEXT NOT NULL, n INTEGER NOT NULL) STRICT".into(),
            "primary key: expected (word), found ()",
        ),
        (
            "CREATE TABLE word_counts (word TEXT NOT NULL PRIMARY KEY COLLATE NOCASE, n INTEGER NOT NULL) STRICT"
                .into(),
            "found COLLATE NOCASE",
        ),
        (
            format!("CREATE TABLE word_counts ({good}, seen TEXT) STRICT"),
            "column seen: expected no such column, found TEXT",
        ),
        (
            format!("CREATE TABLE word_counts ({good}, twice INTEGER AS (n + n)) STRICT"),
            "column twice: expected no such column",
        ),
        (
            format!(
                "CREATE TABLE word_counts ({good}) STRICT; CREATE UNIQUE INDEX ix ON word_counts (word COLLATE NOCASE)"
            ),
            "unique index ix: expected word COLLATE BINARY, found COLLATE NOCASE",
        ),
        (
            "CREATE TABLE word_counts (word TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (word), \
             UNIQUE (word COLLATE RTRIM)) STRICT, WITHOUT ROWID"
                .into(),
            "expected word COLLATE BINARY, found COLLATE RTRIM",
        ),
        ("CREATE VIEW word_counts AS SELECT 'a' AS word, 1 AS n".into(), "expected a table, found a view"),
    ];
    for (definition, difference) in cases {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        sql(&path, &definition).await;
        assert_names(&refusal(&Sqlite::open(&path)).await, &["word_counts", difference]);
        let left = number(&path, "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'tine_%'").await;
        assert_eq!(left, 0, "a refused start left tables behind");
    }
    for accepted in [
        format!("CREATE TABLE word_counts ({good}) STRICT"),
        format!(
            "CREATE TABLE word_counts ({good}) STRICT; CREATE UNIQUE INDEX exact ON word_counts (word); \
             CREATE INDEX folded ON word_counts (word COLLATE NOCASE)"
        ),
        "CREATE TABLE Word_Counts (n INTEGER NOT NULL, WORD TEXT NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID".into(),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        sql(&path, &accepted).await;
        Sqlite::open(&path).create(&words_group("words")).await.unwrap();
    }
}

#[tokio::test]
async fn a_spec_that_sqlite_cannot_hold_is_refused_before_the_file_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let database = Sqlite::open(directory.path().join("state.db"));
    let mut with_schema = words_group("words");
    with_schema.states[0].table.schema = Some(Ident::new("public").unwrap());
    let mut reserved = words_group("words");
    reserved.states[0].table.name = Ident::new("tine_ledger").unwrap();
    let mut twice = words_group("words");
    twice.states[0].table.values[0].name = Ident::new("word").unwrap();
    let mut no_number = words_group("words");
    no_number.states[0].table.values[0].kind = tine_state::ColumnType::Text;
    assert_eq!(no_number.states[0].table.values[0].merge, Merge::Add);
    let mut empty = words_group("words");
    empty.states.clear();
    for (spec, words) in [
        (with_schema, "schema"),
        (reserved, "taken"),
        (twice, "word"),
        (no_number, "not an integer"),
        (empty, "no state"),
    ] {
        assert_names(&database.create(&spec).await.unwrap_err(), &[words]);
    }
    assert!(!directory.path().join("state.db").exists());
}

#[tokio::test]
async fn a_table_that_is_gone_is_not_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let database = Sqlite::open(&path);
    database.create(&words_group("words")).await.unwrap();
    sql(&path, "DROP TABLE word_counts").await;
    assert_names(&refusal(&database).await, &["word_counts is gone", "backup"]);
}

#[tokio::test]
async fn a_group_row_that_is_gone_is_not_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let database = Sqlite::open(&path);
    database.create(&words_group("words")).await.unwrap();
    sql(&path, "DELETE FROM tine_groups").await;
    assert_names(&refusal(&database).await, &["ledger rows", "tine_groups", "backup"]);
    sql(&path, "DELETE FROM tine_ledger").await;
    let reborn = tine_state::GroupSpec { lineage: 43, ..words_group("words") };
    assert_names(&database.create(&reborn).await.unwrap_err(), &["earlier life", "tine_claims"]);
}
