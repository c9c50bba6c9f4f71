//! Creating: what is accepted, what is refused, and that the refusal says why.

use tine_core::hash::Hash128;

use super::{Ended, Subject, scene::*};
use crate::{ColumnType, Merge, TableSpec};

pub(super) async fn creating_twice_changes_nothing(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    scene.apply(1, counted(&[("a", 1)])).await?;
    let before = scene.read().await?;
    let again = crate::GroupSpec { lineage: 99, ..scene.spec.clone() };
    scene.database.create(&again).await.map_err(|failure| format!("the second create failed: {failure}"))?;
    let after = scene.read().await?;
    let same = (before.group, before.rows, before.transactions) == (after.group, after.rows, after.transactions);
    ensure!(same, "the second create changed the group, its rows or its transactions");
    scene.expect_counts(&[("a", 1)]).await
}

/// A table that another topology made as tine's own, so that no claim stands in the way of the next.
async fn shared_table(subject: &dyn Subject, table: TableSpec) -> Result<Scene, String> {
    let shared = TableSpec { shared: true, ..table };
    Scene::new(subject, group(&fresh_name("other"), vec![state(shared)])).await
}

pub(super) async fn a_table_with_other_columns_is_refused_with_the_difference(subject: &dyn Subject) -> Ended {
    let name = fresh_name("words");
    let scene = shared_table(subject, words_table(&name)).await?;
    let number = ("n", ColumnType::BigInt, Merge::Add);
    let wanted = [
        ("word", table(&name, &[("word", ColumnType::Bytes)], &[number])),
        ("total", table(&name, &[("word", ColumnType::Text)], &[("total", ColumnType::BigInt, Merge::Add)])),
        ("more", table(&name, &[("word", ColumnType::Text)], &[number, ("more", ColumnType::BigInt, Merge::Add)])),
    ];
    for (column, table) in wanted {
        let spec = group(&fresh_name("top"), vec![state(table)]);
        expect_refused(&*scene.database, &spec, &[&name, column]).await?;
    }
    Ok(())
}

pub(super) async fn a_table_with_another_key_is_refused(subject: &dyn Subject) -> Ended {
    let name = fresh_name("words");
    let both = [("lang", ColumnType::Text), ("word", ColumnType::Text)];
    let number = [("n", ColumnType::BigInt, Merge::Add)];
    let scene = shared_table(subject, table(&name, &both, &number)).await?;
    let turned = [both[1], both[0]];
    let spec = group(&fresh_name("top"), vec![state(table(&name, &turned, &number))]);
    expect_refused(&*scene.database, &spec, &[&name, "lang", "word"]).await
}

pub(super) async fn a_second_owner_of_a_table_is_refused(subject: &dyn Subject) -> Ended {
    let scene = Scene::counting(subject).await?;
    let second = group(&fresh_name("second"), scene.spec.states.clone());
    let names = [scene.spec.states[0].name.as_str(), scene.spec.topology.as_str()];
    expect_refused(&*scene.database, &second, &names).await?;
    let mut twice = scene.spec.states[0].clone();
    twice.name = "again".to_string();
    let both = group(&fresh_name("third"), vec![state(words_table(&fresh_name("words"))), twice]);
    expect_refused(&*scene.database, &both, &names).await
}

pub(super) async fn rows_without_adopt_are_refused_at_the_first_start(subject: &dyn Subject) -> Ended {
    let name = fresh_name("words");
    let mut scene = shared_table(subject, words_table(&name)).await?;
    scene.apply(1, counted(&[("a", 1)])).await?;
    let spec = group(&fresh_name("top"), vec![state(words_table(&name))]);
    expect_refused(&*scene.database, &spec, &[&name, "adopt"]).await
}

pub(super) async fn adopted_rows_are_the_starting_point(subject: &dyn Subject) -> Ended {
    let name = fresh_name("words");
    shared_table(subject, words_table(&name)).await?.apply(1, counted(&[("a", 5)])).await?;
    let adopting = TableSpec { adopt: true, ..words_table(&name) };
    let mut scene = Scene::new(subject, group(&fresh_name("top"), vec![state(adopting)])).await?;
    scene.apply(1, counted(&[("a", 2), ("b", 1)])).await?;
    scene.expect_counts(&[("a", 7), ("b", 1)]).await
}

pub(super) async fn missing_ledger_rows_halt(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    let topology = scene.spec.topology.clone();
    subject.sql(&format!("DELETE FROM tine_ledger WHERE topology = '{topology}' AND shard = 2")).await?;
    let outcome = crate::run(crate::Raise::new(FIRST.next_generation()), &mut *scene.session).await;
    let refused = matches!(&outcome, crate::RaiseOutcome::Failed(failure) if failure.kind == tine_core::failure::FailureKind::Fatal);
    ensure!(refused, "a raise over a missing row ended as {outcome:?}");
    expect_refused(&*scene.database, &scene.spec, &[&topology]).await
}

pub(super) async fn another_shape_under_the_same_name_is_refused(subject: &dyn Subject) -> Ended {
    let scene = Scene::counting(subject).await?;
    let mut other = scene.spec.clone();
    other.shape = "count of pairs".to_string();
    other.fingerprint = Hash128::of(b"count of pairs");
    let topology = scene.spec.topology.as_str();
    expect_refused(&*scene.database, &other, &[topology, &scene.spec.shape, "count of pairs"]).await
}

pub(super) async fn another_number_of_shards_is_refused(subject: &dyn Subject) -> Ended {
    let scene = Scene::counting(subject).await?;
    let mut other = scene.spec.clone();
    other.states[0].shards = 5;
    expect_refused(&*scene.database, &other, &[&scene.spec.states[0].name, "4", "5"]).await?;
    let mut grown = scene.spec.clone();
    grown.states.push(state(words_table(&fresh_name("more"))));
    expect_refused(&*scene.database, &grown, &[&grown.states[1].name]).await
}

pub(super) async fn an_unknown_format_is_refused(subject: &dyn Subject) -> Ended {
    let scene = Scene::counting(subject).await?;
    let topology = scene.spec.topology.clone();
    subject.sql(&format!("UPDATE tine_groups SET format = 999 WHERE topology = '{topology}'")).await?;
    expect_refused(&*scene.database, &scene.spec, &["999"]).await
}

/// How often a lock that was given back is asked for: connectors may take a moment to notice.
const ASKED: usize = 1_000;

pub(super) async fn the_lock_has_one_holder(subject: &dyn Subject) -> Ended {
    let (database, topology) = (subject.database(), fresh_name("top"));
    let ask = || async { database.try_lock(&topology).await.map_err(|failure| failure.to_string()) };
    let first = ask().await?;
    ensure!(first.is_some(), "a free lock was not given");
    ensure!(ask().await?.is_none(), "a held lock was given a second time");
    let other = database.try_lock(&fresh_name("top")).await.map_err(|failure| failure.to_string())?;
    ensure!(other.is_some(), "the lock of another topology was not given");
    drop(first);
    for _ in 0..ASKED {
        if ask().await?.is_some() {
            return Ok(());
        }
    }
    Err(format!("a lock that was given back could not be had in {ASKED} tries"))
}
