//! Rows that are known are updated, new ones inserted: whatever others do to the table meanwhile, each delta counts once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests fail like tests")]

mod server;

use std::sync::Arc;

use server::*;
use tine_core::failure::FailureKind;
use tine_postgres::{Postgres, settings::SWEEP_ROWS_MIN};
use tine_state::{CommitOutcome, Committer, GroupSpec, Location, Session, Statement, TableRows, run};

/// A group that counts words, with one session that has seen whatever it committed.
struct Counting {
    fresh: Fresh,
    database: Postgres,
    spec: GroupSpec,
    location: Location,
    session: Box<dyn Session>,
    txid: u64,
}

impl Counting {
    async fn new() -> Option<Counting> {
        let fresh = Fresh::new().await?;
        let (database, spec, location) = counting(&fresh, &["words"]).await;
        let session = session(&database, &spec).await;
        Some(Counting { fresh, database, spec, location, session, txid: 0 })
    }

    async fn commit(&mut self, rows: Arc<TableRows>) -> CommitOutcome {
        let order = order(&self.spec, attempt(1, 1), self.txid + 1, self.location, vec![rows]);
        let outcome = run(Committer::new(order), &mut *self.session).await;
        self.txid += u64::from(outcome == CommitOutcome::Applied);
        outcome
    }

    async fn applied(&mut self, rows: Arc<TableRows>) {
        assert_eq!(self.commit(rows).await, CommitOutcome::Applied);
    }

    /// Begins the next transaction and merges while `holder` has the table's rows; ends the holder's transaction as soon
    /// as the merge waits for it.
    async fn meets(&mut self, rows: Arc<TableRows>, theirs: &[&str]) {
        let mut holder = self.fresh.connect().await;
        execute(&mut holder, "begin").await.unwrap();
        for statement in theirs {
            execute(&mut holder, statement).await.unwrap();
        }
        let waiting =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        let (url, fresh) = (self.fresh.url.clone(), &self.fresh);
        let order = order(&self.spec, attempt(1, 1), self.txid + 1, self.location, vec![rows]);
        let release = async {
            until("the merge waits", || async { fresh.number(waiting).await > 0 }).await;
            execute(&mut holder, "commit").await.unwrap();
        };
        let (outcome, ()) = tokio::join!(run(Committer::new(order), &mut *self.session), release);
        assert_eq!(outcome, CommitOutcome::Applied, "{url}");
        self.txid += 1;
    }

    async fn expect(&self, text: &str, expected: i64) {
        assert_eq!(self.fresh.number(text).await, expected, "{text}");
    }
}

fn numbered(range: std::ops::Range<usize>) -> Arc<TableRows> {
    counted(range.map(|i| (format!("word-{i:06}"), 1)))
}

const SUM: &str = "select sum(n)::bigint from words";

#[tokio::test]
async fn known_and_new_keys_in_every_mixture_count_once() {
    let Some(mut counting) = Counting::new().await else { return };
    let ranges = [0..10, 0..10, 0..5_000, 0..5_000, 0..5_010, 100..9_000, 8_000..8_300, 8_990..9_010, 0..9_010];
    let mut expected = 0;
    for range in ranges {
        expected += i64::try_from(range.len()).unwrap();
        counting.applied(numbered(range)).await;
        counting.expect(SUM, expected).await;
    }
    counting.expect("select count(*) from words", 9_010).await;
    counting.expect("select n from words where word = 'word-000005'", 6).await;
    counting.fresh.drop_database().await;
}

#[tokio::test]
async fn rows_that_others_deleted_are_inserted_again() {
    let Some(mut counting) = Counting::new().await else { return };
    let all = 2 * SWEEP_ROWS_MIN;
    for (range, rows) in [(0..100, 100), (0..all, i64::try_from(all).unwrap())] {
        for delete in ["delete from words where right(word, 1) = '7'", "truncate words"] {
            counting.fresh.sql("truncate words").await;
            counting.applied(numbered(range.clone())).await;
            counting.applied(numbered(range.clone())).await;
            counting.fresh.sql(delete).await;
            counting.applied(numbered(range.clone())).await;
            counting.expect("select count(*) from words", rows).await;
            let left = if delete == "truncate words" { 0 } else { rows - rows / 10 };
            counting.expect(SUM, rows + 2 * left).await;
        }
    }
    counting.fresh.drop_database().await;
}

#[tokio::test]
async fn what_others_add_meanwhile_is_not_lost() {
    let Some(mut counting) = Counting::new().await else { return };
    for all in [100, 2 * SWEEP_ROWS_MIN] {
        counting.fresh.sql("truncate words").await;
        counting.applied(numbered(0..all)).await;
        counting.applied(numbered(0..all)).await;
        counting.meets(numbered(0..all), &["update words set n = n + 1000 where word = 'word-000050'"]).await;
        counting.expect("select n from words where word = 'word-000050'", 1_003).await;
        counting.expect(SUM, i64::try_from(3 * all + 1_000).unwrap()).await;
    }
    counting.fresh.drop_database().await;
}

#[tokio::test]
async fn a_row_that_is_replaced_meanwhile_takes_the_delta_once() {
    let Some(mut counting) = Counting::new().await else { return };
    for _ in 0..2 {
        counting.applied(numbered(0..100)).await;
    }
    let replace = ["delete from words where word = 'word-000050'", "insert into words values ('word-000050', 1000)"];
    counting.meets(numbered(0..100), &replace).await;
    counting.expect("select n from words where word = 'word-000050'", 1_001).await;
    counting.meets(numbered(0..100), &replace[..1]).await;
    counting.expect("select n from words where word = 'word-000050'", 1).await;
    counting.fresh.sql("delete from words where word = 'word-000050'").await;
    counting.meets(numbered(0..100), &replace[1..]).await;
    counting.expect("select n from words where word = 'word-000050'", 1_001).await;
    counting.fresh.drop_database().await;
}

#[tokio::test]
async fn a_trigger_that_swallows_updates_is_named() {
    let Some(mut counting) = Counting::new().await else { return };
    counting.applied(numbered(0..10)).await;
    counting.fresh.sql("create function swallow() returns trigger language plpgsql as 'begin return null; end'").await;
    counting.fresh.sql("create trigger t before update on words for each row execute function swallow()").await;
    let CommitOutcome::Failed(first) = counting.commit(numbered(0..10)).await else { panic!("it was applied") };
    assert_eq!(first.kind, FailureKind::Transient, "{first}");
    let CommitOutcome::Failed(second) = counting.commit(numbered(0..10)).await else { panic!("it was applied") };
    assert_eq!(second.kind, FailureKind::Fatal, "{second}");
    assert!(second.message.contains("triggers"), "{second}");
    counting.expect(SUM, 10).await;
    counting.fresh.drop_database().await;
}

#[tokio::test]
async fn a_sum_that_no_longer_fits_is_named_among_known_keys_too() {
    let Some(mut counting) = Counting::new().await else { return };
    counting.applied(numbered(0..1_000)).await;
    counting.fresh.sql("update words set n = 9223372036854775807 where word = 'word-000777'").await;
    let CommitOutcome::Failed(failure) = counting.commit(numbered(500..1_010)).await else { panic!("it was applied") };
    assert!(failure.kind == FailureKind::Fatal && failure.message.contains("word-000777"), "{failure}");
    counting.expect("select count(*) from words where n > 1", 1).await;
    counting.fresh.drop_database().await;
}

#[tokio::test]
async fn a_table_is_read_as_a_whole_only_when_the_batch_is_about_as_large() {
    let Some(mut counting) = Counting::new().await else { return };
    let all = 20 * SWEEP_ROWS_MIN;
    let scans = "select seq_scan from pg_stat_user_tables where relname = 'words'";
    counting.applied(numbered(0..10)).await;
    counting.applied(numbered(0..10)).await;
    counting.applied(numbered(0..all)).await;
    let before = counting.scans(scans).await;
    for range in [0..10, 0..SWEEP_ROWS_MIN, 10..all / 4] {
        counting.applied(numbered(range)).await;
    }
    assert_eq!(counting.scans(scans).await, before, "a part of the table was looked for in all of it");
    for _ in 0..2 {
        counting.applied(numbered(0..all)).await;
    }
    assert_eq!(counting.scans(scans).await, before + 1, "the first of two taught the keys, the second swept");
    counting.fresh.drop_database().await;
}

impl Counting {
    /// Ends the session, so that the server counts what it did, and begins another.
    async fn scans(&mut self, text: &str) -> i64 {
        self.session = session(&self.database, &self.spec).await;
        let ours = "select count(*) from pg_stat_activity where datname = current_database() and application_name like 'tine.%'";
        until("the old session has ended", || async { self.fresh.number(ours).await <= 1 }).await;
        self.fresh.number(text).await
    }
}

#[tokio::test]
async fn a_transaction_that_is_rolled_back_teaches_nothing() {
    let Some(mut counting) = Counting::new().await else { return };
    let order = order(&counting.spec, attempt(1, 1), 1, counting.location, vec![numbered(0..10)]);
    let statements = [Statement::Begin(Some(counting.location)), advance(&order), Statement::Rollback];
    all(&mut *counting.session, statements).await;
    counting.applied(numbered(0..10)).await;
    counting.expect(SUM, 10).await;
    counting.fresh.drop_database().await;
}
