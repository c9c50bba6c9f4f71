//! Transactions that fail, break or are given up: never taken for committed, never leaving a session that looks whole.

mod server;

use server::*;
use sqlx::AssertSqlSafe;
use tine_core::{failure::FailureKind, hash::Hash128, id::TxId};
use tine_postgres::{Durability, settings::COMMIT_TEXT};
use tine_state::{CommitOutcome, Committer, Database, Location, Statement, TransactionRow, run};

/// Ends the group's sessions, as an administrator or a crash would.
async fn terminate(fresh: &Fresh) {
    let ours = "datname = current_database() and application_name like 'tine.%'";
    fresh.sql(&format!("select pg_terminate_backend(pid) from pg_stat_activity where {ours}")).await;
    let left = format!("select count(*) from pg_stat_activity where {ours}");
    until("the backends are gone", || async { fresh.number(&left).await == 0 }).await;
}

#[tokio::test]
async fn the_commit_of_a_failed_transaction_is_an_error() {
    let Some(fresh) = Fresh::new().await else { return };
    let (database, spec, location) = counting(&fresh, &["words"]).await;
    let mut connection = fresh.connect().await;
    let half = "begin; insert into words values ('x', 1)";
    execute(&mut connection, half).await.unwrap();
    execute(&mut connection, "select 1 / 0").await.unwrap_err();
    execute(&mut connection, "commit").await.expect("this is the trap: the server says ROLLBACK, and no error");
    execute(&mut connection, half).await.unwrap();
    execute(&mut connection, "select 1 / 0").await.unwrap_err();
    execute(&mut connection, COMMIT_TEXT).await.expect_err("a failed transaction was committed");
    execute(&mut connection, "rollback").await.unwrap();
    execute(&mut connection, COMMIT_TEXT).await.expect_err("no transaction at all was committed");
    assert_eq!(fresh.number("select count(*) from words").await, 0);
    execute(&mut connection, &format!("{half}; {COMMIT_TEXT}")).await.unwrap();
    assert_eq!(fresh.number("select count(*) from words").await, 1);

    let mut session = session(&database, &spec).await;
    let commit = order(&spec, attempt(1, 1), 1, location, vec![counted([("nul\0", 1)])]);
    all(&mut *session, [Statement::Begin(Some(location))]).await;
    let failure = session.execute(&advance(&commit)).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Poison, "{failure}");
    let failure = session.execute(&Statement::Commit).await.expect_err("the failed transaction was committed");
    assert_eq!(failure.kind, FailureKind::Transient, "{failure}");
    fresh.drop_database().await;
}

#[tokio::test]
async fn a_constraint_checked_at_commit_is_fatal_and_nothing_is_committed() {
    let Some(fresh) = Fresh::new().await else { return };
    let (database, spec, location) = counting(&fresh, &["words"]).await;
    fresh.sql("create table known (word text primary key)").await;
    fresh.sql("alter table words add foreign key (word) references known deferrable initially deferred").await;
    let commit = order(&spec, attempt(1, 1), 1, location, vec![counted([("a", 1)])]);
    match run(Committer::new(commit), &mut *session(&database, &spec).await).await {
        CommitOutcome::Failed(failure) => {
            assert_eq!(failure.kind, FailureKind::Fatal, "{failure}");
            assert!(failure.message.contains("words_word_fkey"), "{failure}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fresh.number("select count(*) from words").await, 0);
    fresh.drop_database().await;
}

#[tokio::test]
async fn g3_a_connection_ended_in_a_transaction_is_transient_and_at_commit_unknown() {
    let Some(fresh) = Fresh::new().await else { return };
    let (database, spec, location) = counting(&fresh, &["words"]).await;
    let mut session = session(&database, &spec).await;
    let commit = order(&spec, attempt(1, 1), 1, location, vec![counted([("a", 1)])]);
    all(&mut *session, [Statement::Begin(Some(location))]).await;
    terminate(&fresh).await;
    let failure = session.execute(&advance(&commit)).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Transient, "{failure}");

    all(&mut *session, [Statement::Begin(Some(location)), advance(&commit)]).await;
    terminate(&fresh).await;
    let failure = session.execute(&Statement::Commit).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unknown, "{failure}");
    let snapshot = raise(&mut *session, attempt(1, 2)).await;
    assert!(snapshot.rows.iter().all(|row| row.txid == TxId::NONE));

    terminate(&fresh).await;
    let commit = order(&spec, attempt(1, 2), 1, snapshot.location, vec![counted([("a", 1)])]);
    assert_eq!(run(Committer::new(commit), &mut *session).await, CommitOutcome::Applied);
    fresh.drop_database().await;
}

#[tokio::test]
async fn a_statement_that_is_given_up_leaves_no_session_that_looks_whole() {
    let Some(fresh) = Fresh::new().await else { return };
    let (database, spec, location) = counting(&fresh, &["words"]).await;
    let mut holder = fresh.connect().await;
    execute(&mut holder, "begin; lock table words").await.unwrap();
    let mut session = session(&database, &spec).await;
    let commit = order(&spec, attempt(1, 1), 1, location, vec![counted([("a", 1)])]);
    all(&mut *session, [Statement::Begin(Some(location))]).await;
    let waiting =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let merge = advance(&commit);
    tokio::select! {
        reply = session.execute(&merge) => panic!("{reply:?}"),
        () = until("the merge waits", || async { fresh.number(waiting).await > 0 }) => {}
    }
    session.execute(&Statement::Commit).await.expect_err("half a transaction was committed");
    execute(&mut holder, "rollback").await.unwrap();
    assert_eq!(run(Committer::new(commit), &mut *session).await, CommitOutcome::Applied);
    assert_eq!(fresh.number("select n from words").await, 1);
    fresh.drop_database().await;
}

#[tokio::test]
async fn g6_another_system_or_timeline_is_behind_and_both_sides_are_told() {
    let Some(fresh) = Fresh::new().await else { return };
    let (database, spec, location) = counting(&fresh, &["words"]).await;
    assert!(location.system != 0 && location.timeline != 0 && location.lsn != 0, "{location}");
    let mut session = session(&database, &spec).await;
    for promised in [
        Location { system: location.system ^ 1, ..location },
        Location { timeline: location.timeline + 1, ..location },
        Location { lsn: location.lsn + (1 << 40), ..location },
    ] {
        let failure = session.execute(&Statement::Begin(Some(promised))).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Behind, "{failure}");
        assert!(failure.message.contains(&promised.to_string()), "{failure}");
        assert!(failure.message.contains(&format!("timeline {}", location.timeline)), "{failure}");
    }
    all(&mut *session, [Statement::Begin(Some(location)), Statement::Rollback]).await;
    fresh.drop_database().await;
}

#[tokio::test]
async fn an_overflow_in_the_second_table_names_that_table_and_its_key() {
    let Some(fresh) = Fresh::new().await else { return };
    let (database, spec, location) = counting(&fresh, &["first", "second"]).await;
    let mut session = session(&database, &spec).await;
    let tables = || counted([("a", i64::MAX), ("b", i64::MAX - 1)]);
    let commit = order(&spec, attempt(1, 1), 1, location, vec![counted([("a", 1)]), tables()]);
    assert_eq!(run(Committer::new(commit), &mut *session).await, CommitOutcome::Applied);
    let more = counted([("b", 2)]);
    let commit = order(&spec, attempt(1, 1), 2, location, vec![counted([("a", 1)]), more]);
    match run(Committer::new(commit), &mut *session).await {
        CommitOutcome::Failed(failure) => {
            assert_eq!(failure.kind, FailureKind::Fatal, "{failure}");
            for word in ["public.second", "\"b\"", "9223372036854775806 + 2"] {
                assert!(failure.message.contains(word), "{word}: {failure}");
            }
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fresh.number("select n from first").await, 1);
    fresh.drop_database().await;
}

#[tokio::test]
async fn a_key_too_long_for_the_index_is_poison_and_named() {
    let Some(fresh) = Fresh::new().await else { return };
    let (database, spec, location) = counting(&fresh, &["words"]).await;
    // Random enough that the server cannot compress it away.
    let long: String = (0..400u64).map(|i| Hash128::of(&i.to_le_bytes()).to_string()).collect();
    let commit = order(&spec, attempt(1, 1), 1, location, vec![counted([("a".to_string(), 1), (long.clone(), 1)])]);
    match run(Committer::new(commit), &mut *session(&database, &spec).await).await {
        CommitOutcome::Failed(failure) => {
            assert_eq!(failure.kind, FailureKind::Poison, "{failure}");
            assert!(failure.message.contains(&long[..50]) && failure.message.contains("12800 bytes"), "{failure}");
        }
        other => panic!("{other:?}"),
    }
    fresh.drop_database().await;
}

#[tokio::test]
async fn a_trigger_that_swallows_rows_is_told_from_a_miss() {
    let Some(fresh) = Fresh::new().await else { return };
    let (database, spec, location) = counting(&fresh, &["words"]).await;
    fresh.sql("create function swallow() returns trigger language plpgsql as 'begin return null; end'").await;
    fresh.sql("create trigger swallow before insert on words for each row execute function swallow()").await;
    let commit = order(&spec, attempt(1, 1), 1, location, vec![counted([("a", 1)])]);
    match run(Committer::new(commit), &mut *session(&database, &spec).await).await {
        CommitOutcome::Failed(failure) => {
            assert_eq!(failure.kind, FailureKind::Fatal, "{failure}");
            assert!(failure.message.contains("trigger"), "{failure}");
        }
        other => panic!("{other:?}"),
    }
    fresh.drop_database().await;
}

#[tokio::test]
async fn the_history_keeps_a_thousand_and_what_is_younger_than_an_hour() {
    let Some(fresh) = Fresh::new().await else { return };
    let (database, spec, location) = counting(&fresh, &["words"]).await;
    let none = "decode(repeat('00', 16), 'hex')";
    fresh
        .sql(&format!(
            "insert into tine_transactions select 'counting', 'main', n, {none}, {none}, {none}, 1, 1, 1, '', '[]', \
             now() - case when n <= 80 then interval '2 hours' else interval '1 minute' end from generate_series(1, 1087) n"
        ))
        .await;
    let row = |txid| TransactionRow {
        txid: TxId(txid),
        previous: chain(txid - 1),
        chain: chain(txid),
        manifest: Hash128::default(),
        attempt: attempt(1, 1),
        plan: vec![1],
        ranges: "[]".to_string(),
    };
    let mut session = session(&database, &spec).await;
    let write = Statement::WritePlan(std::sync::Arc::new(row(1088)));
    all(&mut *session, [Statement::Begin(Some(location)), write, Statement::Commit]).await;
    let list = "select array_agg(txid order by txid) from tine_transactions";
    let kept: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(list)).fetch_one(&mut fresh.connect().await).await.unwrap();
    assert_eq!(kept, (81..=1088).collect::<Vec<i64>>());
    fresh.drop_database().await;
}

/// A server that has lost relaxed commits makes durable what it has left and says so: the run must not end as if nothing
/// were missing.
#[tokio::test]
async fn g4_a_run_does_not_end_well_on_commits_that_are_lost() {
    let Some(fresh) = Fresh::new().await else { return };
    let (database, spec, location) = counting(&fresh, &["words"]).await;
    let database = database.durability(Durability::Relaxed);
    for txid in [1, 2] {
        let commit = order(&spec, attempt(1, 1), txid, location, vec![counted([("a", 1)])]);
        let outcome = run(Committer::new(commit), &mut *session(&database, &spec).await).await;
        assert_eq!(outcome, CommitOutcome::Applied);
    }
    database.settle(&spec, TxId(2)).await.unwrap();
    // As a crash leaves it, which takes all that a transaction wrote.
    let (one, chain) = (hex(chain(1)), hex(Hash128::of(&1_u64.to_le_bytes())));
    fresh.sql(&format!("update tine_ledger set txid = 1, chain = '{one}', manifest = '{chain}'")).await;
    fresh.sql("update words set n = 1").await;
    let failure = database.settle(&spec, TxId(2)).await.expect_err("a transaction is lost");
    assert_eq!(failure.kind, FailureKind::Behind, "{failure}");
    database.settle(&spec, TxId(1)).await.unwrap();
    fresh.drop_database().await;
}

fn hex(hash: Hash128) -> String {
    format!("\\x{:032x}", u128::from_be_bytes(hash.to_bytes()))
}
