//! How a batch enters a table: the rows travel as one JSON array, the merge is one statement.
//!
//! A statement per row costs a hop to SQLite's thread each (40 µs measured); `json_each` costs 1 to 10 µs a row. Texts
//! and integers are exact in SQLite's JSON; bytes travel as hexadecimal digits.
//!
//! SQLite turns a sum that does not fit 64 bits into a floating-point number. A `STRICT` integer column refuses that
//! number today because of a special case at the two ends of the range, which is not a promise. So the statement asks
//! for the sum's type itself, and yields NULL, which no column takes, where it is not an integer. Then the key is
//! looked for.

use sqlx::{AssertSqlSafe, Row, SqliteConnection, sqlite::SqliteRow};
use std::sync::Arc;
use tine_core::failure::Failure;
use tine_state::{Column, ColumnType, Merge, Reply, TableRows, TableSpec, ValueColumn};

use crate::{failure, ledger::LedgerError};

/// A statement's JSON is cut at this length, 16 MiB: a very large batch takes several statements of one transaction.
const JSON_MAX: usize = 16 << 20;

/// The statements of one table; their text never changes, so that each is prepared once.
#[derive(Clone, Debug)]
pub(crate) struct TableSql {
    spec: TableSpec,
    merge: Arc<str>,
    load: Arc<str>,
    /// For each column that adds: its name, and the query for a key whose sum does not fit.
    overflow: Vec<(String, Arc<str>)>,
}

impl TableSql {
    pub(crate) fn new(spec: &TableSpec) -> TableSql {
        let adds = spec.values.iter().enumerate().filter(|(_, value)| value.merge == Merge::Add);
        let overflow = adds.map(|(index, value)| {
            (value.name.as_str().to_string(), overflow_text(spec, value, spec.keys.len() + index).into())
        });
        TableSql {
            merge: merge_text(spec).into(),
            load: load_text(spec).into(),
            overflow: overflow.collect(),
            spec: spec.clone(),
        }
    }

    /// Merges the rows; says how many were inserted or updated.
    pub(crate) async fn merge(&self, connection: &mut SqliteConnection, rows: &TableRows) -> Result<u64, LedgerError> {
        let columns = self.columns(rows, true)?;
        let mut merged = 0;
        let mut start = 0;
        while start < rows.len() {
            let (json, end) = self.encode(&columns, rows, start)?;
            let query = sqlx::query(AssertSqlSafe(self.merge.clone())).bind(json.as_str());
            match query.execute(&mut *connection).await {
                Ok(done) => merged += done.rows_affected(),
                Err(error) if failure::primary_code(&error) == Some(failure::CONSTRAINT) => {
                    self.look_for_overflow(connection, rows, start, &json).await?;
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
            }
            start = end;
        }
        Ok(merged)
    }

    /// Reads what is stored for the rows' keys.
    pub(crate) async fn load(&self, connection: &mut SqliteConnection, rows: &TableRows) -> Result<Reply, LedgerError> {
        let columns = self.columns(rows, false)?;
        let mut present = Vec::with_capacity(rows.len());
        let mut values: Vec<Column> = self.spec.values.iter().map(|value| Column::new(value.kind)).collect();
        let mut start = 0;
        while start < rows.len() {
            let (json, end) = self.encode(&columns, rows, start)?;
            let query = sqlx::query(AssertSqlSafe(self.load.clone())).bind(json);
            for row in query.fetch_all(&mut *connection).await? {
                present.push(row.try_get(0)?);
                for (index, column) in values.iter_mut().enumerate() {
                    push(column, &row, index + 1)?;
                }
            }
            start = end;
        }
        Ok(Reply::Loaded { present, values })
    }

    /// Fails with the first key whose sum does not fit; the merge that found it has changed nothing.
    async fn look_for_overflow(
        &self,
        connection: &mut SqliteConnection,
        rows: &TableRows,
        start: usize,
        json: &str,
    ) -> Result<(), LedgerError> {
        for (column, text) in &self.overflow {
            let query = sqlx::query_as::<_, (i64, i64, i64)>(AssertSqlSafe(text.clone())).bind(json);
            if let Some((index, stored, added)) = query.fetch_optional(&mut *connection).await? {
                let key = usize::try_from(index).ok().map(|index| start + index).filter(|row| *row < rows.len());
                let key = key.map(|row| rows.show_key(row)).unwrap_or_default();
                return Err(Failure::fatal(format!(
                    "counter overflow in table {}, key {key}: column {column} holds {stored}, and adding {added} leaves 64 bits; take the row out of the table or make its number smaller, then start again",
                    self.spec
                ))
                .into());
            }
        }
        Ok(())
    }

    /// The columns to send, with the table's types.
    fn columns<'a>(&self, rows: &'a TableRows, with_values: bool) -> Result<Vec<&'a Column>, Failure> {
        let values = if with_values { rows.values.as_slice() } else { &[] };
        let columns: Vec<&Column> = rows.keys.iter().chain(values).collect();
        let values = if with_values { self.spec.values.as_slice() } else { &[] };
        let kinds = self.spec.keys.iter().map(|key| key.kind).chain(values.iter().map(|value| value.kind));
        let fits = columns.iter().map(|column| (column.kind(), column.len())).eq(kinds.map(|kind| (kind, rows.len())));
        match fits {
            true => Ok(columns),
            false => Err(Failure::fatal(format!(
                "rows of other columns than those of table {} were to be merged",
                self.spec
            ))),
        }
    }

    /// Rows from `start` as JSON, and where the next statement goes on.
    fn encode(&self, columns: &[&Column], rows: &TableRows, start: usize) -> Result<(String, usize), Failure> {
        let mut json = Vec::with_capacity(1024);
        let mut end = start;
        json.push(b'[');
        while end < rows.len() && json.len() < JSON_MAX {
            json.push(if end == start { b' ' } else { b',' });
            for (index, column) in columns.iter().enumerate() {
                json.push(if index == 0 { b'[' } else { b',' });
                if !encode_value(&mut json, column, end) {
                    let (table, key) = (&self.spec, rows.show_key(end));
                    return Err(Failure::poison(format!(
                        "a text with a NUL character cannot be stored in table {table}, key {key}: store it as bytes, or remove the character"
                    )));
                }
            }
            json.push(b']');
            end += 1;
        }
        json.push(b']');
        let json = String::from_utf8(json).map_err(|error| Failure::fatal(format!("rows as JSON: {error}")))?;
        Ok((json, end))
    }
}

/// Appends one value; false when it cannot be stored.
fn encode_value(json: &mut Vec<u8>, column: &Column, row: usize) -> bool {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    match column {
        Column::Text(values) => {
            let value = &values[row];
            !value.as_bytes().contains(&0) && serde_json::to_writer(json, value).is_ok()
        }
        Column::BigInt(values) => serde_json::to_writer(json, &values[row]).is_ok(),
        Column::Bytes(values) => {
            let digits = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
            json.push(b'"');
            json.extend(values[row].iter().flat_map(digits));
            json.push(b'"');
            true
        }
    }
}

fn push(column: &mut Column, row: &SqliteRow, index: usize) -> Result<(), sqlx::Error> {
    match column {
        Column::Text(values) => values.push(row.try_get(index)?),
        Column::Bytes(values) => values.push(row.try_get(index)?),
        Column::BigInt(values) => values.push(row.try_get(index)?),
    }
    Ok(())
}

/// The value at a place of the JSON row `j.value`.
fn sent(kind: ColumnType, index: usize) -> String {
    match kind {
        ColumnType::Text | ColumnType::BigInt => format!("j.value ->> {index}"),
        ColumnType::Bytes => format!("unhex(j.value ->> {index})"),
    }
}

fn list(items: impl Iterator<Item = String>, separator: &str) -> String {
    items.collect::<Vec<_>>().join(separator)
}

fn same_key(spec: &TableSpec) -> String {
    // Byte by byte, whatever collation the column was declared with.
    let equal = |(index, key): (usize, &tine_state::KeyColumn)| {
        format!("t.{} COLLATE BINARY = {}", key.name, sent(key.kind, index))
    };
    list(spec.keys.iter().enumerate().map(equal), " AND ")
}

fn merge_text(spec: &TableSpec) -> String {
    let keys = || spec.keys.iter().map(|key| (&key.name, key.kind));
    let all = || keys().chain(spec.values.iter().map(|value| (&value.name, value.kind)));
    let updates = spec.values.iter().map(|value| format!("{} = {}", value.name, merged_value(value)));
    format!(
        "INSERT INTO {} AS t ({}) SELECT {} FROM json_each(?1) AS j WHERE true ON CONFLICT ({}) DO UPDATE SET {}",
        spec.name,
        list(all().map(|(name, _)| name.to_string()), ", "),
        list(all().enumerate().map(|(index, (_, kind))| sent(kind, index)), ", "),
        list(keys().map(|(name, _)| name.to_string()), ", "),
        list(updates, ", "),
    )
}

fn merged_value(value: &ValueColumn) -> String {
    let name = &value.name;
    match value.merge {
        Merge::Add => {
            format!("CASE WHEN typeof(t.{name} + excluded.{name}) = 'integer' THEN t.{name} + excluded.{name} END")
        }
        Merge::Min => format!("min(t.{name} COLLATE BINARY, excluded.{name})"),
        Merge::Max => format!("max(t.{name} COLLATE BINARY, excluded.{name})"),
        Merge::Replace => format!("excluded.{name}"),
    }
}

fn load_text(spec: &TableSpec) -> String {
    let stored = |value: &ValueColumn| {
        let placeholder = match value.kind {
            ColumnType::Text => "''",
            ColumnType::Bytes => "x''",
            ColumnType::BigInt => "0",
        };
        format!(", coalesce(t.{}, {placeholder})", value.name)
    };
    format!(
        "SELECT t.{} IS NOT NULL{} FROM json_each(?1) AS j LEFT JOIN {} AS t ON {} ORDER BY j.key",
        spec.keys[0].name,
        list(spec.values.iter().map(stored), ""),
        spec.name,
        same_key(spec),
    )
}

fn overflow_text(spec: &TableSpec, value: &ValueColumn, index: usize) -> String {
    let (name, added) = (&value.name, sent(value.kind, index));
    format!(
        "SELECT j.key, t.{name}, {added} FROM json_each(?1) AS j CROSS JOIN {} AS t ON {} WHERE typeof(t.{name} + ({added})) <> 'integer' LIMIT 1",
        spec.name,
        same_key(spec),
    )
}
