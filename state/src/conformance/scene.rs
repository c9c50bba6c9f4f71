//! A topology of its own for each case, and the few moves that cases are made of.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

use tine_core::{
    failure::{Failure, FailureKind},
    hash::{Hash128, hash64},
    id::{Attempt, Epoch, Generation, Nonce, Shard, TxId},
};

use super::Subject;
use crate::{
    Chain, Column, ColumnType, CommitOrder, CommitOutcome, Committer, Database, GroupSpec, Ident, KeyColumn, Location,
    Merge, Prepare, PrepareOutcome, Raise, RaiseOutcome, Reply, Session, ShardRef, Snapshot, StateIndex, StateSpec,
    Statement, TableRows, TableSpec, TransactionRow, ValueColumn, procedure, run,
};

/// The first leader of every scene.
pub(super) const FIRST: Attempt =
    Attempt { epoch: Epoch(1), nonce: Nonce(0xdead_beef_0000_0001), generation: Generation(1) };

/// Another leader of the same epoch, as after a restore of coordination.
pub(super) const RIVAL: Attempt = Attempt { nonce: Nonce(2), ..FIRST };

/// The leader after them.
pub(super) const NEXT: Attempt = Attempt { epoch: Epoch(2), nonce: Nonce(3), generation: Generation(1) };

/// A group that exists in the database, with its fence raised to [`FIRST`].
pub(super) struct Scene {
    pub(super) database: Arc<dyn Database>,
    pub(super) spec: GroupSpec,
    pub(super) session: Box<dyn Session>,
    pub(super) location: Location,
}

impl Scene {
    /// One state that counts words, in four shards.
    pub(super) async fn counting(subject: &dyn Subject) -> Result<Scene, String> {
        let table = words_table(&fresh_name("words"));
        Scene::new(subject, group(&fresh_name("top"), vec![state(table)])).await
    }

    pub(super) async fn new(subject: &dyn Subject, spec: GroupSpec) -> Result<Scene, String> {
        let database = subject.database();
        database.create(&spec).await.map_err(|failure| format!("create failed: {failure}"))?;
        let session = database.session(&spec).await.map_err(|failure| format!("no session: {failure}"))?;
        let mut scene = Scene { database, spec, session, location: Location::default() };
        scene.raise(FIRST).await?;
        Ok(scene)
    }

    /// Another connection to the same group.
    pub(super) async fn other_session(&mut self) -> Result<Box<dyn Session>, String> {
        self.database.session(&self.spec).await.map_err(|failure| format!("no second session: {failure}"))
    }

    /// Raises the fence; it must stand afterwards.
    pub(super) async fn raise(&mut self, attempt: Attempt) -> Result<Snapshot, String> {
        match run(Raise::new(attempt), &mut *self.session).await {
            RaiseOutcome::Raised(snapshot) => {
                self.location = snapshot.location;
                Ok(*snapshot)
            }
            other => Err(format!("the raise to {attempt} ended as {other:?}")),
        }
    }

    pub(super) async fn read(&mut self) -> Result<Snapshot, String> {
        procedure::read(&mut *self.session).await.map_err(|failure| format!("the read failed: {failure}"))
    }

    /// The chain up to a transaction; the one before the first is zero.
    pub(super) fn chain(&self, txid: u64) -> Chain {
        match txid {
            0 => Chain::default(),
            _ => Hash128::of_parts([self.spec.topology.as_bytes(), &txid.to_be_bytes()[..]]),
        }
    }

    /// A transaction's row, as [`FIRST`] would write it.
    pub(super) fn transaction(&self, txid: u64) -> TransactionRow {
        TransactionRow {
            txid: TxId(txid),
            previous: self.chain(txid - 1),
            chain: self.chain(txid),
            manifest: manifest(txid),
            attempt: FIRST,
            plan: vec![0, 1, 0xfe, 0xff],
            ranges: r#"[{"source": "s", "partition": "0", "from": 0, "to": 1}]"#.to_string(),
        }
    }

    /// A commit of all shards by [`FIRST`].
    pub(super) fn order(&self, txid: u64, tables: Vec<TableRows>) -> CommitOrder {
        let indexed = |(index, rows): (usize, TableRows)| (state_index(index), Arc::new(rows));
        CommitOrder {
            attempt: FIRST,
            txid: TxId(txid),
            previous: self.chain(txid - 1),
            chain: self.chain(txid),
            manifest: manifest(txid),
            shards: self.spec.shard_refs().into(),
            tables: tables.into_iter().enumerate().map(indexed).collect(),
            plan: Some(Arc::new(self.transaction(txid))),
            location: self.location,
        }
    }

    pub(super) async fn commit(&mut self, order: CommitOrder) -> CommitOutcome {
        run(Committer::new(order), &mut *self.session).await
    }

    /// Commits rows of the first state; they must be applied.
    pub(super) async fn apply(&mut self, txid: u64, rows: TableRows) -> Result<(), String> {
        let outcome = self.commit(self.order(txid, vec![rows])).await;
        ensure!(outcome == CommitOutcome::Applied, "the commit of {txid} ended as {outcome:?}");
        Ok(())
    }

    pub(super) async fn prepare(&mut self, row: TransactionRow) -> PrepareOutcome {
        run(Prepare::new(Arc::new(row), self.location), &mut *self.session).await
    }

    /// What the first state holds for these keys.
    pub(super) async fn load(&mut self, rows: &TableRows) -> Result<(Vec<bool>, Vec<Column>), String> {
        let load = Statement::Load(state_index(0), Arc::new(rows.clone()));
        let mut answers = Vec::new();
        for statement in [Statement::Begin(None), load, Statement::Rollback] {
            answers.push(self.session.execute(&statement).await.map_err(|failure| failure.to_string())?);
        }
        match answers.swap_remove(1) {
            Reply::Loaded { present, values } => Ok((present, values)),
            other => Err(format!("Load was answered {other:?}")),
        }
    }

    /// The counts of some words; 0 where there is none.
    pub(super) async fn counts(&mut self, words: &[&str]) -> Result<Vec<i64>, String> {
        let asked = counted(&words.iter().map(|word| (*word, 0)).collect::<Vec<_>>());
        let (present, values) = self.load(&asked).await?;
        ensure!(present.len() == words.len(), "{} keys asked, {} answered", words.len(), present.len());
        match values.as_slice() {
            [Column::BigInt(counts)] => {
                Ok(counts.iter().zip(&present).map(|(count, there)| if *there { *count } else { 0 }).collect())
            }
            other => Err(format!("the counts came back as {other:?}")),
        }
    }

    /// Fails unless these are the counts.
    pub(super) async fn expect_counts(&mut self, expected: &[(&str, i64)]) -> Result<(), String> {
        let words: Vec<&str> = expected.iter().map(|(word, _)| *word).collect();
        let wanted: Vec<i64> = expected.iter().map(|(_, count)| *count).collect();
        let found = self.counts(&words).await?;
        ensure!(found == wanted, "counts of {words:?}: expected {wanted:?}, found {found:?}");
        Ok(())
    }

    /// Fails unless every shard is at this transaction with its chain, manifest and attempt.
    pub(super) async fn expect_at(&mut self, txid: u64) -> Result<(), String> {
        let rows = self.read().await?.rows;
        ensure!(rows.len() == self.spec.shard_refs().len(), "{} ledger rows", rows.len());
        for row in rows {
            let expected = (TxId(txid), self.chain(txid), manifest(txid));
            ensure!((row.txid, row.chain, row.manifest) == expected, "expected {expected:?}, found {row:?}");
        }
        Ok(())
    }
}

pub(super) fn manifest(txid: u64) -> Hash128 {
    match txid {
        0 => Hash128::default(),
        _ => Hash128::of(&txid.to_le_bytes()),
    }
}

pub(super) fn state_index(index: usize) -> StateIndex {
    StateIndex(u16::try_from(index).expect("a case has a handful of states"))
}

/// A name that nobody has used: the suite runs again and again on databases that are kept.
pub(super) fn fresh_name(prefix: &str) -> String {
    format!("{prefix}_{:016x}", RandomState::new().build_hasher().finish())
}

pub(super) fn group(topology: &str, states: Vec<StateSpec>) -> GroupSpec {
    let shape = format!("{:?}", states.iter().map(|state| (&state.name, state.shards)).collect::<Vec<_>>());
    GroupSpec {
        topology: topology.to_string(),
        group: "g0".to_string(),
        fingerprint: Hash128::of(shape.as_bytes()),
        states,
        shape,
        lineage: 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210,
    }
}

pub(super) fn state(table: TableSpec) -> StateSpec {
    StateSpec { name: table.name.as_str().to_string(), shards: 4, table }
}

pub(super) fn table(name: &str, keys: &[(&str, ColumnType)], values: &[(&str, ColumnType, Merge)]) -> TableSpec {
    TableSpec {
        schema: None,
        name: ident(name),
        keys: keys.iter().map(|(name, kind)| KeyColumn { name: ident(name), kind: *kind }).collect(),
        values: values
            .iter()
            .map(|(name, kind, merge)| ValueColumn { name: ident(name), kind: *kind, merge: *merge })
            .collect(),
        adopt: false,
        shared: false,
    }
}

pub(super) fn words_table(name: &str) -> TableSpec {
    table(name, &[("word", ColumnType::Text)], &[("n", ColumnType::BigInt, Merge::Add)])
}

fn ident(name: &str) -> Ident {
    Ident::new(name).expect("the suite's names are plain")
}

/// Rows with the shard of each worked out from its first key column.
pub(super) fn rows(keys: Vec<Column>, values: Vec<Column>) -> TableRows {
    let shard = |row: usize| Shard::of(hash64(keys[0].show(row).as_bytes()), 4);
    TableRows { shards: (0..keys[0].len()).map(shard).collect(), keys, values, combine: None }
}

pub(super) fn counted(words: &[(&str, i64)]) -> TableRows {
    let (keys, counts) = words.iter().map(|(word, count)| (word.to_string(), *count)).unzip();
    rows(vec![Column::Text(keys)], vec![Column::BigInt(counts)])
}

/// The shards of the first state, for owners that hold only some of them.
pub(super) fn shards_of(range: std::ops::Range<u16>) -> Vec<ShardRef> {
    range.map(|shard| ShardRef { state: StateIndex(0), shard: Shard(shard) }).collect()
}

/// Fails unless the commit failed in this way; returns what was said.
pub(super) fn expect_failed(outcome: CommitOutcome, kind: FailureKind) -> Result<Failure, String> {
    match outcome {
        CommitOutcome::Failed(failure) if failure.kind == kind => Ok(failure),
        other => Err(format!("expected a failure of kind {kind:?}, found {other:?}")),
    }
}

/// Fails unless the message names all of these.
pub(super) fn expect_named(failure: &Failure, words: &[&str]) -> Result<(), String> {
    let missing: Vec<&&str> = words.iter().filter(|word| !failure.message.contains(**word)).collect();
    ensure!(missing.is_empty(), "the message does not name {missing:?}: {}", failure.message);
    Ok(())
}

/// Fails unless `create` refuses for good, naming all of these.
pub(super) async fn expect_refused(database: &dyn Database, spec: &GroupSpec, words: &[&str]) -> Result<(), String> {
    match database.create(spec).await {
        Ok(()) => Err("create accepted it".to_string()),
        Err(failure) => {
            ensure!(failure.kind == FailureKind::Fatal, "refused as {:?}: {failure}", failure.kind);
            expect_named(&failure, words)
        }
    }
}
