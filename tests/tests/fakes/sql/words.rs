//! What the scripts are about: a group with three states, and the keys, rows, attempts and transactions in it.

use std::sync::Arc;

use proptest::prelude::*;
use tine_core::{
    failure::Failure,
    hash::Hash128,
    id::{Attempt, Epoch, Generation, Nonce, Shard, TxId},
};
use tine_state::{
    Chain, Column, ColumnType, Combine, GroupSpec, Ident, KeyColumn, Merge, ShardRef, StateIndex, StateSpec, TableRows,
    TableSpec, TransactionRow, ValueColumn,
};

/// Keys of the first and the last state.
pub(crate) const ANIMALS: [&str; 5] = ["ape", "bee", "cat", "dög", "Eel"];

/// How many shards each state has.
const SHARDS: [u16; 3] = [3, 2, 1];

/// Counts; least, greatest and last; and a state that its values are combined for outside the database.
pub(crate) fn group(topology: &str) -> GroupSpec {
    let table = |suffix: &str, keys: &[(&str, ColumnType)], values: &[(&str, ColumnType, Merge)]| TableSpec {
        schema: None,
        name: ident(&format!("{topology}_{suffix}")),
        keys: keys.iter().map(|(name, kind)| KeyColumn { name: ident(name), kind: *kind }).collect(),
        values: values.iter().map(|(name, kind, merge)| value_column(name, *kind, *merge)).collect(),
        adopt: false,
        shared: false,
    };
    let extremes = [
        ("lo", ColumnType::Text, Merge::Min),
        ("hi", ColumnType::Bytes, Merge::Max),
        ("last", ColumnType::BigInt, Merge::Replace),
    ];
    let tables = [
        table("a", &[("word", ColumnType::Text)], &[("n", ColumnType::BigInt, Merge::Add)]),
        table("b", &[("k", ColumnType::Bytes), ("g", ColumnType::BigInt)], &extremes),
        table("c", &[("word", ColumnType::Text)], &[("v", ColumnType::Text, Merge::Replace)]),
    ];
    let states = tables.into_iter().zip(SHARDS).map(|(table, shards)| StateSpec {
        name: table.name.as_str().to_owned(),
        shards,
        table,
    });
    GroupSpec {
        topology: topology.to_owned(),
        group: "g".to_owned(),
        states: states.collect(),
        fingerprint: Hash128::of(b"fakes"),
        shape: "fakes".to_owned(),
        lineage: 7,
    }
}

fn ident(name: &str) -> Ident {
    Ident::new(name).unwrap()
}

fn value_column(name: &str, kind: ColumnType, merge: Merge) -> ValueColumn {
    ValueColumn { name: ident(name), kind, merge }
}

/// Rows of all three states: which keys, and what for.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    counts: Vec<(usize, i64)>,
    extremes: Vec<(usize, i64)>,
    combined: Vec<(usize, i64)>,
    /// A text that Postgres cannot hold.
    nul: bool,
}

pub(crate) fn rows() -> impl Strategy<Value = Rows> {
    let value = || prop_oneof![12 => -3i64..4, 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
    let some = move |most: usize| prop::collection::vec((0..ANIMALS.len(), value()), 0..most);
    (some(4), some(3), some(3), prop::bool::weighted(0.03)).prop_map(|(counts, extremes, combined, nul)| Rows {
        counts,
        extremes,
        combined,
        nul,
    })
}

impl Rows {
    /// One animal, once.
    pub(crate) fn one() -> Rows {
        Rows { counts: vec![(0, 1)], extremes: Vec::new(), combined: Vec::new(), nul: false }
    }

    /// The same, with NUL in its name.
    pub(crate) fn with_nul() -> Rows {
        Rows { nul: true, ..Rows::one() }
    }

    /// As a commit of some shards sends them.
    pub(crate) fn tables(&self, shards: &[ShardRef], combine: bool) -> Vec<(StateIndex, Arc<TableRows>)> {
        let mut tables = vec![self.counts(), self.extremes(), self.combined()];
        if combine {
            tables[2].combine = Some(Arc::new(Append));
        }
        let held = |state: u16, rows: &TableRows| {
            rows.of_shards(|shard| shards.contains(&ShardRef { state: StateIndex(state), shard }))
        };
        let tables = (0u16..).zip(&tables).map(|(state, rows)| (StateIndex(state), Arc::new(held(state, rows))));
        tables.filter(|(_, rows)| !rows.is_empty()).collect()
    }

    /// Sorted by their bytes, and each key once.
    fn distinct(of: &[(usize, i64)]) -> Vec<(usize, i64)> {
        let mut of = of.to_vec();
        of.sort_by_key(|(key, _)| ANIMALS[*key]);
        of.dedup_by_key(|(key, _)| *key);
        of
    }

    fn counts(&self) -> TableRows {
        let of = Self::distinct(&self.counts);
        let mut keys: Vec<String> = of.iter().map(|(key, _)| ANIMALS[*key].to_owned()).collect();
        if let Some(last) = keys.last_mut().filter(|_| self.nul) {
            last.push('\0');
        }
        let values = Column::BigInt(of.iter().map(|(_, value)| *value).collect());
        table(0, &of, vec![Column::Text(keys)], vec![values])
    }

    fn extremes(&self) -> TableRows {
        let of = Self::distinct(&self.extremes);
        let bytes = of.iter().map(|(key, _)| ANIMALS[*key].as_bytes().to_vec()).collect();
        let group = of.iter().map(|(key, _)| *key as i64 - 2).collect();
        let least = of.iter().map(|(_, value)| if *value % 2 == 0 { "Z" } else { "ä" }.repeat(1 + *value as usize % 3));
        let greatest = of.iter().map(|(_, value)| value.to_le_bytes().to_vec());
        let last = of.iter().map(|(_, value)| *value).collect();
        let values = vec![Column::Text(least.collect()), Column::Bytes(greatest.collect()), Column::BigInt(last)];
        table(1, &of, vec![Column::Bytes(bytes), Column::BigInt(group)], values)
    }

    fn combined(&self) -> TableRows {
        let of = Self::distinct(&self.combined);
        let keys = of.iter().map(|(key, _)| ANIMALS[*key].to_owned()).collect();
        let values = of.iter().map(|(_, value)| format!("{}", value % 10)).collect();
        table(2, &of, vec![Column::Text(keys)], vec![Column::Text(values)])
    }
}

fn table(state: usize, of: &[(usize, i64)], keys: Vec<Column>, values: Vec<Column>) -> TableRows {
    let shards = of.iter().map(|(key, _)| Shard((*key % usize::from(SHARDS[state])) as u16)).collect();
    TableRows { keys, values, shards, combine: None }
}

/// New values are stored ones with more at their end.
#[derive(Debug)]
struct Append;

impl Combine for Append {
    fn combine(&self, rows: &TableRows, present: &[bool], stored: &[Column]) -> Result<Vec<Column>, Failure> {
        let (Column::Text(new), Column::Text(old)) = (&rows.values[0], &stored[0]) else {
            return Err(Failure::fatal("texts are combined"));
        };
        let append = |row: usize| if present[row] { format!("{}{}", old[row], new[row]) } else { new[row].clone() };
        Ok(vec![Column::Text((0..new.len()).map(append).collect())])
    }
}

/// An attempt, by how it stands to the fence.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    Fence,
    NextGeneration,
    GenerationBefore,
    NextEpoch,
    EpochBefore,
    /// Another leader of the same epoch.
    Rival,
}

impl Who {
    pub(crate) fn attempt(self, fence: Attempt) -> Attempt {
        let (epoch, generation) = (fence.epoch.0, fence.generation.0);
        let of = |epoch: u64, generation: u64| Attempt::new(Epoch(epoch), Nonce(epoch * 10), Generation(generation));
        match self {
            Who::Fence => fence,
            Who::NextGeneration => Attempt { generation: Generation(generation + 1), ..fence },
            Who::GenerationBefore => Attempt { generation: Generation(generation.saturating_sub(1)), ..fence },
            Who::NextEpoch => of(epoch + 1, 1),
            Who::EpochBefore => of(epoch.saturating_sub(1), 1),
            Who::Rival => Attempt { nonce: Nonce(fence.nonce.0 + 1), ..fence },
        }
    }
}

/// The chain up to a transaction, in one of several histories; the one before the first is zero.
pub(crate) fn chain(txid: TxId, history: u8) -> Chain {
    match txid {
        TxId::NONE => Chain::default(),
        _ => Hash128::of_parts([&[history][..], &txid.0.to_be_bytes()[..]]),
    }
}

/// What a transaction did, in one of several ways.
pub(crate) fn manifest(txid: TxId, way: u8) -> Hash128 {
    Hash128::of_parts([&[way, 1][..], &txid.0.to_be_bytes()[..]])
}

/// A transaction's row.
pub(crate) fn transaction(txid: TxId, history: u8, attempt: Attempt) -> Arc<TransactionRow> {
    Arc::new(TransactionRow {
        txid,
        previous: chain(txid.previous(), 0),
        chain: chain(txid, history),
        manifest: manifest(txid, 0),
        attempt,
        plan: vec![0, history, 0xfe, 0xff],
        ranges: r#"[{"to": 1, "from": 0, "source": "s", "partition": "0"}]"#.to_owned(),
    })
}
