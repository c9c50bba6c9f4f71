//! Committing: once, again, late, half done, and two at a time.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures_util::future::join;
use tine_core::{failure::FailureKind, hash::Hash128, id::TxId};

use super::{Ended, Subject, scene::*};
use crate::{Advance, CommitOrder, CommitOutcome, Committer, Reply, Session, Statement, run};

pub(super) async fn a_commit_is_read_back(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    scene.apply(1, counted(&[("a", 1), ("b", 2), ("c", 3)])).await?;
    scene.expect_at(1).await?;
    scene.apply(2, counted(&[("b", 40), ("d", 4)])).await?;
    scene.expect_at(2).await?;
    let snapshot = scene.raise(FIRST.next_generation()).await?;
    let txids: Vec<TxId> = snapshot.transactions.iter().map(|row| row.txid).collect();
    ensure!(txids == [TxId(2)], "the last complete transaction was to be read, found {txids:?}");
    ensure!(snapshot.rows.iter().all(|row| row.attempt == FIRST), "attempts {:?}", snapshot.rows);
    scene.expect_counts(&[("a", 1), ("b", 42), ("c", 3), ("d", 4)]).await
}

pub(super) async fn a_commit_without_rows_moves_the_ledger(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    let outcome = scene.commit(scene.order(1, Vec::new())).await;
    ensure!(outcome == CommitOutcome::Applied, "without tables: {outcome:?}");
    scene.apply(2, counted(&[])).await?;
    scene.expect_at(2).await
}

pub(super) async fn a_commit_done_before_changes_nothing(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    scene.apply(1, counted(&[("a", 1)])).await?;
    let outcome = scene.commit(scene.order(1, vec![counted(&[("a", 1)])])).await;
    ensure!(outcome == CommitOutcome::AlreadyDone, "the repeated commit ended as {outcome:?}");
    scene.expect_counts(&[("a", 1)]).await
}

pub(super) async fn another_manifest_is_refused(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    scene.apply(1, counted(&[("a", 1)])).await?;
    let order = CommitOrder { manifest: Hash128::of(b"other"), ..scene.order(1, vec![counted(&[("a", 2)])]) };
    let outcome = scene.commit(order).await;
    expect_failed(outcome, FailureKind::Fatal)?;
    scene.expect_at(1).await?;
    scene.expect_counts(&[("a", 1)]).await
}

pub(super) async fn a_late_duplicate_is_told_apart(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    scene.apply(1, counted(&[("a", 1)])).await?;
    scene.apply(2, counted(&[("a", 1)])).await?;
    let outcome = scene.commit(scene.order(1, vec![counted(&[("a", 1)])])).await;
    ensure!(outcome == CommitOutcome::LateDuplicate, "the late commit ended as {outcome:?}");
    scene.expect_at(2).await?;
    scene.expect_counts(&[("a", 2)]).await
}

pub(super) async fn a_lost_tail_is_behind(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    scene.apply(1, counted(&[("a", 1)])).await?;
    let outcome = scene.commit(scene.order(3, vec![counted(&[("a", 1)])])).await;
    expect_failed(outcome, FailureKind::Behind)?;
    scene.expect_at(1).await
}

pub(super) async fn shards_that_are_done_are_left_alone(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    let words: Vec<(String, i64)> = (0..40).map(|i| (format!("w{i:02}"), i64::from(i))).collect();
    let borrowed: Vec<(&str, i64)> = words.iter().map(|(word, count)| (word.as_str(), *count)).collect();
    let all = counted(&borrowed);
    let half =
        CommitOrder { shards: shards_of(0..2).into(), ..scene.order(1, vec![all.of_shards(|shard| shard.0 < 2)]) };
    let outcome = scene.commit(half).await;
    ensure!(outcome == CommitOutcome::Applied, "half of the shards: {outcome:?}");
    let moved = scene.read().await?.rows.iter().filter(|row| row.txid == TxId(1)).count();
    ensure!(moved == 2, "{moved} of 4 rows moved");
    scene.apply(1, all).await?;
    scene.expect_at(1).await?;
    scene.expect_counts(&borrowed).await
}

fn advance(order: &CommitOrder) -> Advance {
    Advance {
        attempt: order.attempt,
        txid: order.txid,
        previous: order.previous,
        chain: order.chain,
        manifest: order.manifest,
        shards: order.shards.clone(),
        tables: order.tables.clone(),
    }
}

async fn execute(session: &mut dyn Session, statement: Statement) -> Result<Reply, String> {
    session.execute(&statement).await.map_err(|failure| format!("{statement:?} failed: {failure}"))
}

pub(super) async fn a_miss_changes_nothing(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    let right = scene.order(1, vec![counted(&[("a", 1)])]);
    let wrong = [
        CommitOrder { attempt: RIVAL, ..right.clone() },
        CommitOrder { attempt: FIRST.next_generation(), ..right.clone() },
        CommitOrder { txid: TxId(2), ..right.clone() },
        CommitOrder { previous: Hash128::of(b"other"), ..right.clone() },
    ];
    for order in wrong {
        let session = &mut *scene.session;
        execute(session, Statement::Begin(Some(order.location))).await?;
        let reply = execute(session, Statement::Advance(Arc::new(advance(&order)))).await?;
        let missed = matches!(reply, Reply::Advanced { moved: 0, merged: 0 });
        ensure!(missed, "a compare-and-set that must miss was answered {reply:?}: {order:?}");
        execute(session, Statement::Rollback).await?;
    }
    scene.expect_at(0).await?;
    scene.expect_counts(&[("a", 0)]).await
}

pub(super) async fn a_second_writer_waits_and_then_sees(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    let mut second = scene.other_session().await?;
    let order = scene.order(1, vec![counted(&[("a", 1)])]);
    execute(&mut *scene.session, Statement::Begin(Some(order.location))).await?;
    execute(&mut *scene.session, Statement::Advance(Arc::new(advance(&order)))).await?;
    let committed = AtomicBool::new(false);
    let first = async {
        // Some round trips, so that the second writer arrives while the first still holds its rows.
        for _ in 0..20 {
            execute(&mut *scene.session, Statement::LockRows(None)).await?;
        }
        committed.store(true, Ordering::SeqCst);
        execute(&mut *scene.session, Statement::Commit).await
    };
    let repeated = async {
        let outcome = run(Committer::new(order.clone()), &mut *second).await;
        (outcome, committed.load(Ordering::SeqCst))
    };
    let (first, (outcome, after)) = join(first, repeated).await;
    first?;
    ensure!(after, "the second writer ended, as {outcome:?}, before the first had committed");
    ensure!(outcome == CommitOutcome::AlreadyDone, "the second writer ended as {outcome:?}");
    scene.expect_counts(&[("a", 1)]).await
}

pub(super) async fn a_dropped_session_leaves_no_lock(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    let mut doomed = scene.other_session().await?;
    let order = scene.order(1, vec![counted(&[("a", 1)])]);
    execute(&mut *doomed, Statement::Begin(Some(order.location))).await?;
    execute(&mut *doomed, Statement::Advance(Arc::new(advance(&order)))).await?;
    drop(doomed);
    scene.apply(1, counted(&[("a", 10)])).await?;
    scene.expect_counts(&[("a", 10)]).await
}

pub(super) async fn statements_outside_a_transaction_are_errors(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    let order = scene.order(1, vec![counted(&[("a", 1)])]);
    let statements = [
        Statement::Advance(Arc::new(advance(&order))),
        Statement::WriteFence(NEXT),
        Statement::WritePlan(Arc::new(scene.transaction(1))),
        Statement::Commit,
    ];
    for statement in statements {
        let answer = scene.session.execute(&statement).await;
        ensure!(answer.is_err(), "{statement:?} outside a transaction was answered {answer:?}");
    }
    scene.expect_at(0).await?;
    ensure!(scene.read().await?.group.fence == FIRST, "the fence moved outside a transaction");
    scene.apply(1, counted(&[("a", 1)])).await
}

pub(super) async fn groups_do_not_touch_each_other(subject: &dyn Subject) -> Ended {
    let mut left = Scene::counting(subject).await?;
    let mut spec = group(&left.spec.topology, vec![state(words_table(&fresh_name("words")))]);
    spec.group = "g1".to_string();
    let mut right = Scene::new(subject, spec).await?;
    right.raise(NEXT).await?;
    left.apply(1, counted(&[("a", 1)])).await?;
    ensure!(left.read().await?.group.fence == FIRST, "the other group's raise moved this fence");
    right.expect_at(0).await?;
    ensure!(right.read().await?.transactions.is_empty(), "the other group's transactions are read here");
    right.expect_counts(&[("a", 0)]).await
}
