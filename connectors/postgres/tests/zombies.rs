//! Writers that sleep inside their transaction, and what a raise makes of them.

mod server;

use server::*;
use tine_core::{failure::FailureKind, id::TxId};
use tine_postgres::Postgres;
use tine_state::{CommitOutcome, Committer, Database, Statement, run};

/// Backends of this database that wait for a lock.
const WAITING: &str =
    "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";

/// When the statement began that waits for a lock, in microseconds; 0 when none waits.
const WAITING_SINCE: &str = "select coalesce(max(extract(epoch from query_start) * 1000000), 0)::bigint \
     from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";

#[tokio::test]
async fn a3_a_raise_waits_for_a_writer_inside_its_transaction_and_then_sees_what_it_did() {
    let Some(fresh) = Fresh::new().await else { return };
    let (database, spec, location) = counting(&fresh, &["words"]).await;
    let commit = order(&spec, attempt(1, 1), 1, location, vec![counted([("a", 1)])]);
    let mut zombie = session(&database, &spec).await;
    all(&mut *zombie, [Statement::Begin(Some(location)), advance(&commit)]).await;
    let mut leader = session(&database, &spec).await;
    let raising = tokio::spawn(async move { raise(&mut *leader, attempt(2, 1)).await });
    until("the raise waits", || async { fresh.number(WAITING).await > 0 }).await;
    all(&mut *zombie, [Statement::Commit]).await;
    let snapshot = raising.await.unwrap();
    assert!(snapshot.rows.iter().all(|row| row.txid == TxId(1) && row.fence == attempt(2, 1)), "{snapshot:?}");
    let next = order(&spec, attempt(1, 1), 2, location, vec![counted([("a", 1)])]);
    match run(Committer::new(next), &mut *zombie).await {
        CommitOutcome::Failed(failure) => assert_eq!(failure.kind, FailureKind::Fenced),
        other => panic!("the zombie's next commit ended as {other:?}"),
    }
    assert_eq!(fresh.number("select n from words where word = 'a'").await, 1);
    fresh.drop_database().await;
}

#[tokio::test]
async fn g2_a_raise_ends_a_writer_of_its_group_that_never_wakes() {
    let Some(fresh) = Fresh::new().await else { return };
    let (database, spec, location) = counting(&fresh, &["words"]).await;
    let other = group("bystander", vec![words("other_words")]);
    database.create(&other).await.unwrap();
    let (mut zombie, mut bystander) = (session(&database, &spec).await, session(&database, &other).await);
    let commit = order(&spec, attempt(1, 1), 1, location, vec![counted([("a", 1)])]);
    all(&mut *bystander, [Statement::Begin(None), Statement::LockGroup]).await;
    all(&mut *zombie, [Statement::Begin(Some(location)), advance(&commit)]).await;
    let mut leader = session(&database, &spec).await;
    let snapshot = raise(&mut *leader, attempt(2, 1)).await;
    assert!(snapshot.rows.iter().all(|row| row.txid == TxId::NONE), "{snapshot:?}");
    let woken = zombie.execute(&Statement::Commit).await.expect_err("the zombie's connection was to be ended");
    assert!(matches!(woken.kind, FailureKind::Unknown | FailureKind::Transient), "{woken:?}");
    assert_eq!(fresh.number("select count(*) from words").await, 0);
    all(&mut *bystander, [Statement::WriteFence(attempt(1, 1)), Statement::Commit]).await;
    fresh.drop_database().await;
}

#[tokio::test]
async fn a_raise_that_may_not_end_another_roles_writer_waits_for_it() {
    let Some(fresh) = Fresh::new().await else { return };
    let (database, spec, location) = counting(&fresh, &["words"]).await;
    let role = fresh_name("tine_role");
    fresh.sql(&format!("create role {role} login password '{role}'; grant pg_read_all_stats to {role}")).await;
    fresh.sql(&format!("grant select, insert, update, delete on all tables in schema public to {role}")).await;
    let plain = Postgres::connect(&fresh.url_as(&role)).unwrap();
    let mut zombie = session(&database, &spec).await;
    let commit = order(&spec, attempt(1, 1), 1, location, vec![counted([("a", 1)])]);
    all(&mut *zombie, [Statement::Begin(Some(location)), advance(&commit)]).await;
    let mut leader = session(&plain, &spec).await;
    let raising = tokio::spawn(async move { raise(&mut *leader, attempt(2, 1)).await });
    until("the raise waits", || async { fresh.number(WAITING).await > 0 }).await;
    let first = fresh.number(WAITING_SINCE).await;
    // Its first wait ends by the lock timeout, it may not end the writer, and it comes again.
    until("the raise waits again", || async { fresh.number(WAITING_SINCE).await > first }).await;
    all(&mut *zombie, [Statement::Commit]).await;
    let snapshot = raising.await.unwrap();
    assert!(snapshot.rows.iter().all(|row| row.txid == TxId(1) && row.fence == attempt(2, 1)), "{snapshot:?}");
    fresh.sql(&format!("drop owned by {role}")).await;
    fresh.sql(&format!("drop role {role}")).await;
    fresh.drop_database().await;
}

#[tokio::test]
async fn a2_a_miss_while_another_writer_is_uncommitted_is_not_taken_for_a_refusal() {
    let Some(fresh) = Fresh::new().await else { return };
    let (database, spec, location) = counting(&fresh, &["words"]).await;
    for (txid, end, expected) in
        [(1, Statement::Rollback, CommitOutcome::Applied), (2, Statement::Commit, CommitOutcome::AlreadyDone)]
    {
        let commit = order(&spec, attempt(1, 1), txid, location, vec![counted([("a", 1)])]);
        let mut first = session(&database, &spec).await;
        all(&mut *first, [Statement::Begin(Some(location)), advance(&commit)]).await;
        let mut second = session(&database, &spec).await;
        let waiting = tokio::spawn(async move { run(Committer::new(commit), &mut *second).await });
        until("the second writer waits", || async { fresh.number(WAITING).await > 0 }).await;
        all(&mut *first, [end]).await;
        assert_eq!(waiting.await.unwrap(), expected);
        assert_eq!(fresh.number("select n from words where word = 'a'").await, txid.cast_signed());
    }
    fresh.drop_database().await;
}
