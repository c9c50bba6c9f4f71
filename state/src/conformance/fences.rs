//! Raising, preparing, and who is turned away by a fence.

use tine_core::{
    failure::FailureKind,
    hash::Hash128,
    id::{Attempt, Epoch, TxId},
};

use super::{Ended, Subject, scene::*};
use crate::{CommitOrder, Location, PrepareOutcome, Raise, RaiseOutcome, Statement, run};

pub(super) async fn a_new_group_is_read_back_empty(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    let snapshot = scene.raise(FIRST.next_generation()).await?;
    let group = &snapshot.group;
    ensure!(group.lineage == scene.spec.lineage, "lineage {:x}", group.lineage);
    ensure!(group.fingerprint == scene.spec.fingerprint, "fingerprint {}", group.fingerprint);
    ensure!(group.fence == FIRST.next_generation(), "fence {}", group.fence);
    ensure!(group.shards == scene.spec.shard_refs(), "shards {:?}", group.shards);
    ensure!(snapshot.transactions.is_empty(), "transactions {:?}", snapshot.transactions);
    let at: Vec<_> = snapshot.rows.iter().map(|row| row.at).collect();
    ensure!(at == scene.spec.shard_refs(), "ledger rows in another order: {at:?}");
    for row in &snapshot.rows {
        ensure!(row.fence == group.fence && row.attempt == Attempt::NONE, "attempts of a new row: {row:?}");
    }
    scene.expect_at(0).await
}

pub(super) async fn a_raise_misses_a_higher_fence_and_another_leader_of_its_epoch(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    for loser in [RIVAL, RIVAL.next_generation(), Attempt { epoch: Epoch(0), ..RIVAL }] {
        let outcome = run(Raise::new(loser), &mut *scene.session).await;
        ensure!(outcome == RaiseOutcome::Missed(FIRST), "the raise to {loser} ended as {outcome:?}");
    }
    ensure!(scene.read().await?.group.fence == FIRST, "a raise that missed moved the fence");
    scene.raise(FIRST).await.map(drop)
}

pub(super) async fn a_zombie_is_fenced_after_a_raise(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    let mut zombie = scene.other_session().await?;
    let order = scene.order(1, vec![counted(&[("a", 1)])]);
    let new_location = {
        scene.raise(NEXT).await?;
        scene.location
    };
    let outcome = run(crate::Committer::new(order), &mut *zombie).await;
    expect_failed(outcome, FailureKind::Fenced)?;
    scene.expect_at(0).await?;
    let order =
        CommitOrder { attempt: NEXT, location: new_location, plan: None, ..scene.order(1, vec![counted(&[("a", 3)])]) };
    let outcome = scene.commit(order).await;
    ensure!(outcome == crate::CommitOutcome::Applied, "the new leader's commit ended as {outcome:?}");
    let attempts = scene.read().await?.rows.iter().all(|row| row.attempt == NEXT);
    ensure!(attempts, "the ledger does not name the attempt that committed");
    scene.raise(NEXT.next_generation()).await?;
    let kept = scene.read().await?.rows.iter().all(|row| row.attempt == NEXT);
    ensure!(kept, "a raise overwrote the attempt that committed");
    scene.expect_counts(&[("a", 3)]).await
}

pub(super) async fn an_older_attempt_of_the_same_reign_is_superseded(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    scene.raise(FIRST.next_generation()).await?;
    let outcome = scene.commit(scene.order(1, vec![counted(&[("a", 1)])])).await;
    expect_failed(outcome, FailureKind::Superseded)?;
    scene.expect_at(0).await?;
    scene.expect_counts(&[("a", 0)]).await
}

pub(super) async fn a_fence_below_the_attempt_is_behind(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    let order = CommitOrder { attempt: NEXT, ..scene.order(1, vec![counted(&[("a", 1)])]) };
    let outcome = scene.commit(order).await;
    expect_failed(outcome, FailureKind::Behind)?;
    scene.expect_at(0).await
}

pub(super) async fn a_prepare_under_a_foreign_fence_writes_nothing(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    let row = scene.transaction(1);
    scene.raise(NEXT).await?;
    let outcome = scene.prepare(row).await;
    let fenced = matches!(&outcome, PrepareOutcome::Failed(failure) if failure.kind == FailureKind::Fenced);
    ensure!(fenced, "the prepare ended as {outcome:?}");
    let transactions = scene.read().await?.transactions;
    ensure!(transactions.is_empty(), "it wrote {transactions:?}");
    Ok(())
}

pub(super) async fn a_plan_replaces_its_older_self_and_deletes_those_above(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    for txid in 1..=3 {
        let row = scene.transaction(txid);
        let outcome = scene.prepare(row).await;
        ensure!(outcome == PrepareOutcome::Prepared, "the prepare of {txid} ended as {outcome:?}");
    }
    let newer = crate::TransactionRow {
        manifest: Hash128::of(b"another"),
        attempt: FIRST.next_generation(),
        plan: Vec::new(),
        ..scene.transaction(2)
    };
    scene.raise(newer.attempt).await?;
    let outcome = scene.prepare(newer.clone()).await;
    ensure!(outcome == PrepareOutcome::Prepared, "the new prepare ended as {outcome:?}");
    let found = scene.read().await?.transactions;
    let txids: Vec<TxId> = found.iter().map(|row| row.txid).collect();
    ensure!(txids == [TxId(1), TxId(2)], "expected transactions 1 and 2, found {txids:?}");
    for (found, expected) in found.iter().zip([scene.transaction(1), newer]) {
        // The database may write the JSON of the ranges in its own way.
        let same = crate::TransactionRow { ranges: String::new(), ..found.clone() }
            == crate::TransactionRow { ranges: String::new(), ..expected.clone() };
        ensure!(same, "expected {expected:?}, found {found:?}");
        ensure!(found.ranges.contains("partition"), "the ranges came back as {:?}", found.ranges);
    }
    Ok(())
}

pub(super) async fn a_promised_location_that_is_not_there_is_behind(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    let promised = Location { lsn: u64::MAX, ..scene.location };
    let order = CommitOrder { location: promised, ..scene.order(1, vec![counted(&[("a", 1)])]) };
    let outcome = scene.commit(order).await;
    expect_failed(outcome, FailureKind::Behind)?;
    match scene.session.execute(&Statement::Rollback).await {
        Ok(_) => scene.expect_at(0).await,
        Err(failure) => Err(format!("rolling back nothing failed: {failure}")),
    }
}
