//! What is particular to a file: its mode, its lock, killed processes, replaced files, long histories, large batches.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    pin::Pin,
    process::{Child, Command, Stdio},
    sync::Arc,
    task::Poll,
};

use common::*;
use sqlx::Connection;
use tine_core::{failure::FailureKind, id::TxId};
use tine_sqlite::Sqlite;
use tine_state::{Advance, CommitOutcome, Database, Statement, procedure};

#[tokio::test]
async fn the_file_is_in_wal_mode_and_the_table_is_the_users_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let group = words_group("words");
    let mut session = started(&Sqlite::open(&path), &group).await;
    assert_eq!(commit(&mut *session, &group, 1, words(&[("a", 1)])).await, CommitOutcome::Applied);
    let mut shell = shell(&path).await;
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut shell).await.unwrap();
    assert_eq!(mode, "wal");
    let text = "SELECT sql FROM sqlite_schema WHERE name = 'word_counts'";
    let definition: String = sqlx::query_scalar(text).fetch_one(&mut shell).await.unwrap();
    let expected = "CREATE TABLE \"word_counts\" (\"word\" TEXT NOT NULL, \"n\" INTEGER NOT NULL, PRIMARY KEY (\"word\")) STRICT, WITHOUT ROWID";
    assert_eq!(definition, expected);
    shell.close().await.unwrap();
}

/// What a child process of a test does with the file named in the environment, and then waits to be killed.
const CHILD: &str = "TINE_SQLITE_TEST_FILE";

fn spawn_child(test: &str, path: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("ready")), "the child ended before it was ready");
    child
}

fn wait_to_be_killed() {
    println!("ready");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[tokio::test]
async fn a_second_process_waits_for_the_lock_until_the_first_is_killed() {
    if let Some(path) = std::env::var_os(CHILD) {
        let lock = Sqlite::open(path).try_lock("words").await.unwrap();
        assert!(lock.is_some());
        return wait_to_be_killed();
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let mut child = spawn_child("a_second_process_waits_for_the_lock_until_the_first_is_killed", &path);
    let database = Sqlite::open(&path);
    assert!(database.try_lock("words").await.unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(database.try_lock("words").await.unwrap().is_some());
}

#[cfg(unix)]
#[tokio::test]
async fn one_lock_whatever_name_the_file_is_opened_by() {
    let directory = tempfile::tempdir().unwrap();
    let (path, link) = (directory.path().join("state.db"), directory.path().join("link.db"));
    Sqlite::open(&path).create(&words_group("words")).await.unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let held = Sqlite::open(&path).try_lock("words").await.unwrap();
    assert!(held.is_some());
    assert!(Sqlite::open(&link).try_lock("words").await.unwrap().is_none());
}

fn advance(group: &tine_state::GroupSpec, txid: u64) -> Statement {
    let order = order(group, txid, words(&[("a", 1)]));
    Statement::Advance(Arc::new(Advance {
        attempt: order.attempt,
        txid: order.txid,
        previous: order.previous,
        chain: order.chain,
        manifest: order.manifest,
        shards: order.shards,
        tables: order.tables,
    }))
}

#[tokio::test]
async fn a_process_killed_inside_a_transaction_leaves_nothing() {
    let group = words_group("words");
    if let Some(path) = std::env::var_os(CHILD) {
        let mut session = Sqlite::open(path).session(&group).await.unwrap();
        session.execute(&Statement::Begin(None)).await.unwrap();
        session.execute(&advance(&group, 1)).await.unwrap();
        return wait_to_be_killed();
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let mut session = started(&Sqlite::open(&path), &group).await;
    let mut child = spawn_child("a_process_killed_inside_a_transaction_leaves_nothing", &path);
    child.kill().unwrap();
    child.wait().unwrap();
    let rows = procedure::read(&mut *session).await.unwrap().rows;
    assert!(rows.iter().all(|row| row.txid == TxId::NONE), "{rows:?}");
    assert_eq!(commit(&mut *session, &group, 1, words(&[("a", 5)])).await, CommitOutcome::Applied);
    assert_eq!(number(&path, "SELECT n FROM word_counts WHERE word = 'a'").await, 5);
}

/// Gives an execution up when it has waited so many times; `false` when it was over before. How often one waits is up to
/// SQLite's thread, so that a test tries every number there is.
async fn gives_up_at(wait: usize, mut execution: impl Future + Unpin) -> bool {
    let mut waits = 0;
    std::future::poll_fn(|context| {
        if Pin::new(&mut execution).poll(context).is_ready() {
            return Poll::Ready(false);
        }
        waits += 1;
        if waits == wait { Poll::Ready(true) } else { Poll::Pending }
    })
    .await
}

#[tokio::test]
async fn a_statement_given_up_half_way_leaves_a_session_that_works() {
    /// A statement may be over at its first poll, but not each time.
    const TRIES: usize = 10_000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let group = words_group("words");
    let mut session = started(&Sqlite::open(&path), &group).await;
    let mut committed = 0;
    for kind in ["begin", "advance", "read"] {
        let (mut tries, mut wait, mut given_up) = (0, 1, 0);
        while given_up == 0 || wait > 1 {
            tries += 1;
            assert!(tries < TRIES, "{kind} was over at once {TRIES} times");
            let statement = match kind {
                "begin" => Statement::Begin(None),
                "read" => Statement::Read,
                _ => {
                    session.execute(&Statement::Begin(None)).await.unwrap();
                    advance(&group, committed + 1)
                }
            };
            let gave_up = gives_up_at(wait, session.execute(&statement)).await;
            (wait, given_up) = if gave_up { (wait + 1, given_up + 1) } else { (1, given_up) };
            committed += 1;
            let outcome = commit(&mut *session, &group, committed, words(&[("a", 5)])).await;
            assert_eq!(outcome, CommitOutcome::Applied, "after {kind}");
        }
    }
    let counted = number(&path, "SELECT n FROM word_counts WHERE word = 'a'").await;
    assert_eq!(counted, 5 * committed.cast_signed());
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_was_replaced_is_not_written_to_unseen() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let group = words_group("words");
    let mut session = started(&Sqlite::open(&path), &group).await;
    std::fs::rename(&path, directory.path().join("moved.db")).unwrap();
    let outcome = commit(&mut *session, &group, 1, words(&[("a", 1)])).await;
    let CommitOutcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.kind, FailureKind::Fatal, "{failure}");
    assert_names(&failure, &["state.db", "exist"]);
}

#[tokio::test]
async fn history_keeps_a_thousand_or_an_hour_and_what_the_ledger_needs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let group = words_group("words");
    let mut session = started(&Sqlite::open(&path), &group).await;
    let history = |count: u32| {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
             INSERT INTO tine_transactions SELECT 'words', 'g0', i, zeroblob(16), zeroblob(16), zeroblob(16), 1, 7, 1,
             x'', '[]', strftime('%Y-%m-%dT%H:%M:%fZ', 'now', CASE WHEN i <= 20 THEN '-2 hours' ELSE '-1 minute' END) FROM n"
        )
    };
    sql(&path, &history(1_100)).await;
    let write = |txid| Statement::WritePlan(Arc::new(transaction(txid)));
    let lowest = "SELECT min(txid) FROM tine_transactions";
    let mut write_plan = async |txid| {
        for statement in [Statement::Begin(None), write(txid), Statement::Commit] {
            session.execute(&statement).await.unwrap();
        }
        number(&path, lowest).await
    };
    assert_eq!(write_plan(1_101).await, 1, "the ledger's rows still need all of it");
    sql(&path, "UPDATE tine_ledger SET txid = 1100").await;
    assert_eq!(write_plan(1_101).await, 17, "a few at a time");
    assert_eq!(write_plan(1_102).await, 21, "all that are older than an hour");
    assert_eq!(write_plan(1_103).await, 21, "the others are younger");
    sql(&path, "UPDATE tine_transactions SET written_at = '2020-01-01T00:00:00.000Z'").await;
    for _ in 0..10 {
        write_plan(1_103).await;
    }
    assert_eq!(write_plan(1_103).await, 103, "a thousand before this one stay");
    assert_eq!(number(&path, "SELECT max(txid) FROM tine_transactions").await, 1_103);
}

#[tokio::test]
async fn a_batch_larger_than_one_statement_is_whole_and_names_the_right_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let group = words_group("words");
    let mut session = started(&Sqlite::open(&path), &group).await;
    let keys: Vec<String> = (0..40).map(|i| format!("{i:02}{}", "x".repeat(1 << 20))).collect();
    let batch = |last: i64| {
        let count = |(row, key)| (key, if row == 39 { last } else { 1 });
        keys.iter().map(String::as_str).enumerate().map(count).collect::<Vec<(&str, i64)>>()
    };
    assert_eq!(commit(&mut *session, &group, 1, words(&batch(5))).await, CommitOutcome::Applied);
    assert_eq!(number(&path, "SELECT sum(n) * 100 + count(*) FROM word_counts").await, 44 * 100 + 40);
    let outcome = commit(&mut *session, &group, 2, words(&batch(i64::MAX))).await;
    let CommitOutcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_names(&failure, &["counter overflow", "word_counts", "\"39xx", "holds 5"]);
    assert_eq!(number(&path, "SELECT sum(n) FROM word_counts").await, 44);
}
