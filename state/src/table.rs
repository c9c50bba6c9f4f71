//! A state's table and the rows that a transaction merges into it.

use std::{fmt, sync::Arc};

use tine_core::{failure::Failure, id::Shard};

use crate::Ident;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// UTF-8 without NUL; `text COLLATE "C"` in Postgres, `TEXT` in SQLite.
    Text,
    /// Any bytes; `bytea`, `BLOB`.
    Bytes,
    /// 64-bit signed integer; `bigint`, `INTEGER`.
    BigInt,
}

/// The values of one column, one per row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// Texts.
    Text(Vec<String>),
    /// Byte strings.
    Bytes(Vec<Vec<u8>>),
    /// Integers.
    BigInt(Vec<i64>),
}

impl Column {
    /// An empty column of a type.
    pub fn new(kind: ColumnType) -> Column {
        match kind {
            ColumnType::Text => Column::Text(Vec::new()),
            ColumnType::Bytes => Column::Bytes(Vec::new()),
            ColumnType::BigInt => Column::BigInt(Vec::new()),
        }
    }

    /// Its type.
    pub fn kind(&self) -> ColumnType {
        match self {
            Column::Text(_) => ColumnType::Text,
            Column::Bytes(_) => ColumnType::Bytes,
            Column::BigInt(_) => ColumnType::BigInt,
        }
    }

    /// How many values it holds.
    pub fn len(&self) -> usize {
        match self {
            Column::Text(values) => values.len(),
            Column::Bytes(values) => values.len(),
            Column::BigInt(values) => values.len(),
        }
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows whose index `keep` accepts.
    pub fn filtered(&self, mut keep: impl FnMut(usize) -> bool) -> Column {
        fn pick<T: Clone>(values: &[T], keep: &mut impl FnMut(usize) -> bool) -> Vec<T> {
            values.iter().enumerate().filter(|(index, _)| keep(*index)).map(|(_, value)| value.clone()).collect()
        }
        match self {
            Column::Text(values) => Column::Text(pick(values, &mut keep)),
            Column::Bytes(values) => Column::Bytes(pick(values, &mut keep)),
            Column::BigInt(values) => Column::BigInt(pick(values, &mut keep)),
        }
    }

    /// One value, for messages to people; text and bytes are cut after 60 characters.
    pub fn show(&self, row: usize) -> String {
        let text = match self {
            Column::Text(values) => format!("{:?}", values[row]),
            Column::Bytes(values) => format!("{:?}", String::from_utf8_lossy(&values[row])),
            Column::BigInt(values) => values[row].to_string(),
        };
        match text.char_indices().nth(60) {
            Some((cut, _)) => format!("{}…", &text[..cut]),
            None => text,
        }
    }
}

/// How a value column takes a new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Merge {
    /// `stored + new`, an error when it no longer fits.
    Add,
    /// The smaller of both.
    Min,
    /// The larger of both.
    Max,
    /// The new value; what it is was worked out from the stored one in the same transaction, where that matters.
    Replace,
}

/// A column of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its name.
    pub name: Ident,
    /// Its type.
    pub kind: ColumnType,
}

/// A column of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueColumn {
    /// Its name.
    pub name: Ident,
    /// Its type.
    pub kind: ColumnType,
    /// How it takes a new value.
    pub merge: Merge,
}

/// A state's table: key columns (its primary key, in this order), value columns, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// The schema; the database's default when absent. SQLite has none.
    pub schema: Option<Ident>,
    /// The name.
    pub name: Ident,
    /// The key columns, at least one.
    pub keys: Vec<KeyColumn>,
    /// The value columns, at least one.
    pub values: Vec<ValueColumn>,
    /// Whether rows that are there before the first transaction are accepted as the starting point.
    pub adopt: bool,
    /// Whether the table is tine's own and shared by topologies (dead letters): such a table is not claimed.
    pub shared: bool,
}

/// Unquoted, for messages.
impl fmt::Display for TableSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", schema.as_str())?;
        }
        f.write_str(self.name.as_str())
    }
}

/// Works out new values from stored ones, for aggregates that SQL cannot combine.
pub trait Combine: Send + Sync + fmt::Debug {
    /// `stored` holds, row by row of `rows`, the value columns found in the table, and `present` whether the key was
    /// there; where it was not, the stored values are placeholders. Returns the value columns to write.
    fn combine(&self, rows: &TableRows, present: &[bool], stored: &[Column]) -> Result<Vec<Column>, Failure>;
}

/// What one transaction merges into one table: distinct keys, sorted by their bytes (so that two writers never deadlock).
#[derive(Clone, Debug)]
pub struct TableRows {
    /// The key columns, in the order of [`TableSpec::keys`].
    pub keys: Vec<Column>,
    /// The value columns, in the order of [`TableSpec::values`].
    pub values: Vec<Column>,
    /// The shard of each row.
    pub shards: Vec<Shard>,
    /// How new values are worked out from stored ones, when SQL cannot: then the table's merges are all `Replace`.
    pub combine: Option<Arc<dyn Combine>>,
}

impl TableRows {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.shards.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// The rows of some shards only.
    pub fn of_shards(&self, keep: impl Fn(Shard) -> bool) -> TableRows {
        let wanted = |row: usize| keep(self.shards[row]);
        TableRows {
            keys: self.keys.iter().map(|column| column.filtered(wanted)).collect(),
            values: self.values.iter().map(|column| column.filtered(wanted)).collect(),
            shards: self.shards.iter().copied().filter(|shard| keep(*shard)).collect(),
            combine: self.combine.clone(),
        }
    }

    /// A row's key, for messages to people.
    pub fn show_key(&self, row: usize) -> String {
        self.keys.iter().map(|column| column.show(row)).collect::<Vec<_>>().join(", ")
    }
}
