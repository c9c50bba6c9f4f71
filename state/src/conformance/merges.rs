//! Merging: every kind, every type, odd values, and sums that do not fit.

use std::sync::Arc;

use tine_core::failure::{Failure, FailureKind};

use super::{Ended, Subject, scene::*};
use crate::{Column, ColumnType, CommitOutcome, Merge, TableRows, TableSpec, table::Combine};

const TEXT: ColumnType = ColumnType::Text;
const BYTES: ColumnType = ColumnType::Bytes;
const NUMBER: ColumnType = ColumnType::BigInt;

fn texts(values: &[&str]) -> Column {
    Column::Text(values.iter().map(|value| value.to_string()).collect())
}

async fn with_table(subject: &dyn Subject, table: TableSpec) -> Result<Scene, String> {
    Scene::new(subject, group(&fresh_name("top"), vec![state(table)])).await
}

async fn expect_values(scene: &mut Scene, asked: &TableRows, expected: &[Column]) -> Ended {
    let (present, values) = scene.load(asked).await?;
    ensure!(present.iter().all(|there| *there), "keys are missing: {present:?}");
    ensure!(values == expected, "expected {expected:?}, found {values:?}");
    Ok(())
}

pub(super) async fn add_min_max_and_replace(subject: &dyn Subject) -> Ended {
    let kinds = [Merge::Add, Merge::Min, Merge::Max, Merge::Replace];
    let names = ["added", "least", "most", "last"];
    let values: Vec<_> = names.iter().zip(kinds).map(|(name, merge)| (*name, NUMBER, merge)).collect();
    let mut scene = with_table(subject, table(&fresh_name("t"), &[("k", TEXT)], &values)).await?;
    for (txid, value) in [(1, [10, 10, 10, 10]), (2, [-3, 7, 7, 7]), (3, [5, 12, 12, 12])] {
        let columns = value.iter().map(|number| Column::BigInt(vec![*number])).collect();
        scene.apply(txid, rows(vec![texts(&["k"])], columns)).await?;
    }
    let asked = rows(vec![texts(&["k"])], Vec::new());
    let expected = [12, 7, 12, 12].map(|number| Column::BigInt(vec![number]));
    expect_values(&mut scene, &asked, &expected).await?;

    let values = [("least", TEXT, Merge::Min), ("most", BYTES, Merge::Max), ("last", TEXT, Merge::Replace)];
    let mut scene = with_table(subject, table(&fresh_name("t"), &[("k", TEXT)], &values)).await?;
    for (txid, text) in [(1, "b"), (2, "B"), (3, "ä")] {
        let columns = vec![texts(&[text]), Column::Bytes(vec![text.as_bytes().to_vec()]), texts(&[text])];
        scene.apply(txid, rows(vec![texts(&["k"])], columns)).await?;
    }
    let expected = [texts(&["B"]), Column::Bytes(vec!["ä".as_bytes().to_vec()]), texts(&["ä"])];
    expect_values(&mut scene, &asked, &expected).await
}

pub(super) async fn composite_keys_and_values(subject: &dyn Subject) -> Ended {
    let keys = [("lang", TEXT), ("digest", BYTES), ("day", NUMBER)];
    let values = [("n", NUMBER, Merge::Add), ("seen", TEXT, Merge::Max)];
    let mut scene = with_table(subject, table(&fresh_name("t"), &keys, &values)).await?;
    let keys = vec![
        texts(&["", "a", "a", "a", "b"]),
        Column::Bytes(vec![vec![], vec![0], vec![0, 0], vec![0, 0], vec![0]]),
        Column::BigInt(vec![0, 1, 1, 2, 1]),
    ];
    let batch = |number: i64, text: &str| rows(keys.clone(), vec![Column::BigInt(vec![number; 5]), texts(&[text; 5])]);
    scene.apply(1, batch(1, "x")).await?;
    scene.apply(2, batch(2, "w")).await?;
    let expected = [Column::BigInt(vec![3; 5]), texts(&["x"; 5])];
    expect_values(&mut scene, &batch(0, ""), &expected).await
}

pub(super) async fn odd_values_of_every_type_come_back(subject: &dyn Subject) -> Ended {
    let long = "y".repeat(1_000);
    let odd_texts =
        ["", " ", "\"\\'", "\u{1}\t\r\n\u{7f}", "{}[]$.,:null", "é", "e\u{301}", "🦀🏳️‍🌈", "\u{feff}\u{10ffff}", &long];
    let every_byte: Vec<u8> = (0..=255).collect();
    let odd_bytes = vec![vec![], vec![0], vec![0, 0], b"\\x41".to_vec(), vec![0xff], vec![0xc3, 0x28], every_byte];
    let odd_numbers = vec![i64::MIN, i64::MIN + 1, -(1 << 53) - 1, -1, 0, 1, (1 << 53) + 1, i64::MAX - 1, i64::MAX];
    let columns = [texts(&odd_texts), Column::Bytes(odd_bytes), Column::BigInt(odd_numbers)];
    for column in columns {
        let kind = column.kind();
        let spec = table(&fresh_name("odd"), &[("k", kind)], &[("v", kind, Merge::Replace)]);
        let mut scene = with_table(subject, spec).await?;
        let batch = rows(vec![column.clone()], vec![column.clone()]);
        scene.apply(1, batch.clone()).await?;
        expect_values(&mut scene, &batch, std::slice::from_ref(&column)).await?;
        scene.apply(2, batch.clone()).await?;
        expect_values(&mut scene, &batch, &[column]).await?;
    }
    Ok(())
}

pub(super) async fn similar_texts_are_different_keys(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    let alike = [("A", 1), ("a", 2), ("a ", 3), ("é", 4), ("e\u{301}", 5), ("1", 6), ("01", 7), ("1.0", 8)];
    scene.apply(1, counted(&alike)).await?;
    scene.expect_counts(&alike).await
}

pub(super) async fn a_sum_that_no_longer_fits_is_fatal_and_changes_nothing(subject: &dyn Subject) -> Ended {
    for (stored, added) in
        [(i64::MAX - 1, 2), (i64::MAX, i64::MAX), (i64::MIN, -1), (-2, i64::MIN + 1), (i64::MIN, i64::MIN)]
    {
        let mut scene = Scene::counting(subject).await?;
        let fits = [("fits", 1), ("huge", stored)];
        scene.apply(1, counted(&fits)).await?;
        let outcome = scene.commit(scene.order(2, vec![counted(&[("fits", 1), ("huge", added), ("new", 1)])])).await;
        let failure =
            expect_failed(outcome, FailureKind::Fatal).map_err(|found| format!("{stored} + {added}: {found}"))?;
        expect_named(&failure, &["counter overflow", "huge", &scene.spec.states[0].name])?;
        scene.expect_at(1).await?;
        scene.expect_counts(&[("fits", 1), ("huge", stored), ("new", 0)]).await?;
        scene.apply(2, counted(&[("fits", 1)])).await?;
    }
    let mut scene = Scene::counting(subject).await?;
    scene.apply(1, counted(&[("a", i64::MAX - 1), ("b", i64::MIN + 1)])).await?;
    scene.apply(2, counted(&[("a", 1), ("b", -1)])).await?;
    scene.expect_counts(&[("a", i64::MAX), ("b", i64::MIN)]).await
}

pub(super) async fn a_text_with_nul_is_refused_and_changes_nothing(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    let outcome = scene.commit(scene.order(1, vec![counted(&[("a", 1), ("a\0b", 1)])])).await;
    match outcome {
        CommitOutcome::Failed(failure) if matches!(failure.kind, FailureKind::Poison | FailureKind::Fatal) => {}
        other => return Err(format!("expected poison, found {other:?}")),
    }
    scene.expect_at(0).await?;
    scene.expect_counts(&[("a", 0)]).await
}

/// Appends the new text to the stored one.
#[derive(Debug)]
struct Append;

impl Combine for Append {
    fn combine(&self, rows: &TableRows, present: &[bool], stored: &[Column]) -> Result<Vec<Column>, Failure> {
        let ([Column::Text(new)], [Column::Text(old)]) = (rows.values.as_slice(), stored) else {
            return Err(Failure::fatal(format!("loaded {stored:?}")));
        };
        let joined = new.iter().zip(old).zip(present);
        let joined = joined.map(|((new, old), there)| if *there { format!("{old}{new}") } else { new.clone() });
        Ok(vec![Column::Text(joined.collect())])
    }
}

pub(super) async fn values_are_combined_with_the_stored_ones(subject: &dyn Subject) -> Ended {
    let spec = table(&fresh_name("t"), &[("k", NUMBER)], &[("v", TEXT, Merge::Replace)]);
    let mut scene = with_table(subject, spec).await?;
    let batch = |keys: &[i64], values: &[&str]| TableRows {
        combine: Some(Arc::new(Append)),
        ..rows(vec![Column::BigInt(keys.to_vec())], vec![texts(values)])
    };
    scene.apply(1, batch(&[1, 2], &["a", "b"])).await?;
    scene.apply(2, batch(&[-1, 2, 3], &["x", "y", "z"])).await?;
    let outcome = scene.commit(scene.order(2, vec![batch(&[2], &["again"])])).await;
    ensure!(outcome == CommitOutcome::AlreadyDone, "the repeated commit ended as {outcome:?}");
    expect_values(&mut scene, &batch(&[-1, 1, 2, 3], &[""; 4]), &[texts(&["x", "a", "by", "z"])]).await
}

pub(super) async fn absent_keys_are_loaded_as_absent(subject: &dyn Subject) -> Ended {
    let values = [("n", NUMBER, Merge::Add), ("t", TEXT, Merge::Max), ("b", BYTES, Merge::Max)];
    let mut scene = with_table(subject, table(&fresh_name("t"), &[("k", BYTES)], &values)).await?;
    let key = |byte: u8| vec![byte];
    let one = vec![Column::BigInt(vec![7]), texts(&["t"]), Column::Bytes(vec![vec![9]])];
    scene.apply(1, rows(vec![Column::Bytes(vec![key(2)])], one)).await?;
    let asked = rows(vec![Column::Bytes(vec![key(1), key(2), key(3)])], Vec::new());
    let (present, values) = scene.load(&asked).await?;
    ensure!(present == [false, true, false], "present: {present:?}");
    let shown: Vec<String> = values.iter().map(|column| column.show(1)).collect();
    ensure!(values.iter().all(|column| column.len() == 3), "columns of another length: {values:?}");
    ensure!(shown[..2] == ["7", "\"t\""], "found {shown:?}");
    Ok(())
}

pub(super) async fn many_rows_in_one_commit(subject: &dyn Subject) -> Ended {
    let mut scene = Scene::counting(subject).await?;
    let words: Vec<String> = (0..10_000).map(|i| format!("word-{i:05}-🦀")).collect();
    let batch: Vec<(&str, i64)> = words.iter().zip(1..).map(|(word, count)| (word.as_str(), count)).collect();
    scene.apply(1, counted(&batch)).await?;
    scene.apply(2, counted(&batch[5_000..])).await?;
    scene.expect_at(2).await?;
    let doubled = |(row, (word, count)): (usize, &(_, i64))| (*word, if row < 5_000 { *count } else { 2 * count });
    let expected: Vec<(&str, i64)> = batch.iter().enumerate().map(doubled).collect();
    scene.expect_counts(&expected).await
}
