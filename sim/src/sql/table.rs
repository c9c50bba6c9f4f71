//! A user's table in memory, merged for real.

use std::collections::BTreeMap;

use tine_core::failure::Failure;
use tine_state::{Column, ColumnType, Merge, StateIndex, TableRows, TableSpec};

/// One value of one row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An integer.
    BigInt(i64),
}

/// The values of a row's key or value columns.
pub type Cells = Box<[Cell]>;

/// What one statement does to one row.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) state: StateIndex,
    pub(crate) key: Cells,
    pub(crate) before: Option<Cells>,
    pub(crate) after: Cells,
}

/// A table.
#[derive(Clone, Debug)]
pub(crate) struct SimTable {
    pub(crate) spec: TableSpec,
    pub(crate) rows: BTreeMap<Cells, Cells>,
}

impl SimTable {
    pub(crate) fn new(spec: TableSpec) -> SimTable {
        SimTable { spec, rows: BTreeMap::new() }
    }

    /// What merging `rows` changes; nothing is changed yet.
    pub(crate) fn merge(&self, state: StateIndex, rows: &TableRows) -> Result<Vec<Change>, Failure> {
        (0..rows.len()).map(|row| self.merge_row(state, rows, row)).collect()
    }

    fn merge_row(&self, state: StateIndex, rows: &TableRows, row: usize) -> Result<Change, Failure> {
        let key = cells(&rows.keys, row);
        let new = cells(&rows.values, row);
        let before = self.rows.get(&key);
        let after = match before {
            None => new,
            Some(stored) => {
                let pairs = stored.iter().zip(new.iter()).zip(&self.spec.values);
                let merged = pairs.map(|((stored, new), column)| merged(column.merge, stored, new, rows, row));
                merged.collect::<Result<Cells, Failure>>()?
            }
        };
        Ok(Change { state, before: before.cloned(), key, after })
    }

    /// The stored values of some keys, as the protocol's `Load` answers them.
    pub(crate) fn load(&self, rows: &TableRows) -> (Vec<bool>, Vec<Column>) {
        let mut present = Vec::new();
        let mut values: Vec<Column> = self.spec.values.iter().map(|column| Column::new(column.kind)).collect();
        for row in 0..rows.len() {
            let stored = self.rows.get(&cells(&rows.keys, row));
            present.push(stored.is_some());
            for (index, column) in values.iter_mut().enumerate() {
                push(column, stored.map(|stored| &stored[index]));
            }
        }
        (present, values)
    }

    pub(crate) fn put(&mut self, key: &Cells, value: Option<&Cells>) {
        match value {
            Some(value) => {
                self.rows.insert(key.clone(), value.clone());
            }
            None => {
                self.rows.remove(key);
            }
        }
    }
}

fn merged(merge: Merge, stored: &Cell, new: &Cell, rows: &TableRows, row: usize) -> Result<Cell, Failure> {
    Ok(match (merge, stored, new) {
        (Merge::Add, Cell::BigInt(stored), Cell::BigInt(new)) => {
            let sum = stored.checked_add(*new).ok_or_else(|| {
                let key = rows.show_key(row);
                Failure::fatal(format!("counter overflow at key {key}: {stored} + {new} does not fit (SQLSTATE 22003)"))
            })?;
            Cell::BigInt(sum)
        }
        (Merge::Min, stored, new) => stored.min(new).clone(),
        (Merge::Max, stored, new) => stored.max(new).clone(),
        (_, _, new) => new.clone(),
    })
}

/// Whether columns hold only what Postgres can store.
pub(crate) fn storable(columns: &[Column]) -> Result<(), Failure> {
    let nul = |column: &Column| matches!(column, Column::Text(values) if values.iter().any(|text| text.contains('\0')));
    match columns.iter().any(nul) {
        true => Err(Failure::poison("a text with NUL does not fit its column (SQLSTATE 22021)")),
        false => Ok(()),
    }
}

/// One row of some columns.
pub(crate) fn cells(columns: &[Column], row: usize) -> Cells {
    let cell = |column: &Column| match column {
        Column::Text(values) => Cell::Text(values[row].clone()),
        Column::Bytes(values) => Cell::Bytes(values[row].clone()),
        Column::BigInt(values) => Cell::BigInt(values[row]),
    };
    columns.iter().map(cell).collect()
}

fn push(column: &mut Column, cell: Option<&Cell>) {
    match (column, cell) {
        (Column::Text(values), Some(Cell::Text(value))) => values.push(value.clone()),
        (Column::Bytes(values), Some(Cell::Bytes(value))) => values.push(value.clone()),
        (Column::BigInt(values), Some(Cell::BigInt(value))) => values.push(*value),
        (column, _) => match column.kind() {
            ColumnType::Text => push(column, Some(&Cell::Text(String::new()))),
            ColumnType::Bytes => push(column, Some(&Cell::Bytes(Vec::new()))),
            ColumnType::BigInt => push(column, Some(&Cell::BigInt(0))),
        },
    }
}
