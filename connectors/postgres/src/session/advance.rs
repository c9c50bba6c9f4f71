//! The compare-and-set of ledger rows together with the data, and the reading of stored values.
//!
//! The first statement holds both: the rows of the first table are merged only if *all* ledger rows moved. Further
//! rows and tables follow, each with a statement of its own, in the same transaction.

use std::{ops::Range, sync::Arc};

use sqlx::{Row, postgres::PgRow};
use tine_core::{failure::Failure, hash::Hash128};
use tine_state::{Advance, Column, ColumnType, Reply, StateIndex, TableRows};

use super::{PgSession, bind_attempt};
use crate::{
    errors,
    link::{Bound, statement},
    settings::{BYTES_PER_STATEMENT, ROWS_PER_STATEMENT},
    sql::TableSql,
    sqlstate::Meaning,
};

/// What a statement merges: a piece of one table's rows.
struct Piece<'a> {
    state: StateIndex,
    rows: &'a TableRows,
    range: Range<usize>,
}

impl PgSession {
    pub(super) async fn advance(&mut self, advance: &Advance) -> Result<Reply, Failure> {
        self.in_transaction()?;
        let shards = self.shard_arrays(&advance.shards)?;
        let mut pieces = advance.tables.iter().flat_map(|(state, rows)| pieces(*state, rows));
        let wanted = advance.shards.len() as u64;
        let Some(first) = pieces.next() else {
            let sql = self.sql.clone();
            let moved = self.touch(self.compare_and_set(&sql.advance, advance, &shards), None).await?;
            return Ok(Reply::Advanced { moved, merged: 0 });
        };
        let sql = self.sql.clone();
        let guarded = self.compare_and_set(&self.table_sql(first.state)?.advance.clone(), advance, &shards);
        let mut merged = self.touch(bind_piece(guarded, &first, true), Some(&first)).await?;
        if merged == 0 {
            // Either a ledger row did not match, or a trigger swallowed every row: the ledger knows.
            let rows = self.asked(statement(&sql.moved).bind(&self.topology).bind(&self.group), None).await?;
            let moved: Result<i64, _> = rows.first().map_or(Ok(0), |row| row.try_get("moved"));
            let moved =
                moved.map_err(|error| errors::before_commit("counting ledger rows", &self.link.address, &error))?;
            return Ok(Reply::Advanced { moved: moved.cast_unsigned(), merged: 0 });
        }
        for piece in pieces {
            let merge = statement(&self.table_sql(piece.state)?.merge);
            merged += self.touch(bind_piece(merge, &piece, true), Some(&piece)).await?;
        }
        Ok(Reply::Advanced { moved: wanted, merged })
    }

    pub(super) async fn load(&mut self, state: StateIndex, rows: &TableRows) -> Result<Reply, Failure> {
        self.in_transaction()?;
        let table = self.table_sql(state)?;
        let text = table.load.clone();
        let mut present = vec![false; rows.len()];
        let mut values: Vec<Column> = table.values.iter().map(|kind| placeholders(*kind, rows.len())).collect();
        for piece in pieces(state, rows) {
            let found = self.asked(bind_piece(statement(&text), &piece, false), Some(&piece)).await?;
            let filled = found.iter().try_for_each(|row| fill(row, piece.range.start, &mut present, &mut values));
            if let Err(error) = filled {
                return Err(self.failed("reading stored values", &error).await);
            }
        }
        Ok(Reply::Loaded { present, values })
    }

    fn table_sql(&self, state: StateIndex) -> Result<&TableSql, Failure> {
        let found = self.sql.tables.get(usize::from(state.0));
        found.ok_or_else(|| Failure::fatal(format!("the group has no state of number {}", state.0)))
    }

    fn compare_and_set(&self, text: &Arc<str>, advance: &Advance, shards: &(Vec<String>, Vec<i32>)) -> Bound<'static> {
        let bytes = |hash: Hash128| hash.to_bytes().to_vec();
        let query = statement(text)
            .bind(self.topology.clone())
            .bind(self.group.clone())
            .bind(shards.0.clone())
            .bind(shards.1.clone());
        bind_attempt(query, advance.attempt)
            .bind(advance.txid.0.cast_signed())
            .bind(bytes(advance.previous))
            .bind(bytes(advance.chain))
            .bind(bytes(advance.manifest))
            .bind((advance.shards.len() as u64).cast_signed())
    }

    async fn touch(&mut self, query: Bound<'_>, piece: Option<&Piece<'_>>) -> Result<u64, Failure> {
        match self.link.touched(query).await {
            Ok(rows) => Ok(rows),
            Err(error) => Err(self.explained(&error, piece).await),
        }
    }

    async fn asked(&mut self, query: Bound<'_>, piece: Option<&Piece<'_>>) -> Result<Vec<PgRow>, Failure> {
        match self.link.rows(query).await {
            Ok(rows) => Ok(rows),
            Err(error) => Err(self.explained(&error, piece).await),
        }
    }

    /// Rolls back, and names the table and, where it can be found, the key.
    async fn explained(&mut self, error: &sqlx::Error, piece: Option<&Piece<'_>>) -> Failure {
        let Some(piece) = piece else { return self.failed("moving the ledger", error).await };
        let name = self.table_sql(piece.state).map_or_else(|_| "?".to_string(), |table| table.name.clone());
        let failure = self.failed(&format!("merging into {name}"), error).await;
        let culprit = match errors::meaning(error) {
            Meaning::Overflow => self.overflowing(piece).await,
            Meaning::TooLong => longest_key(piece),
            Meaning::Rights => {
                return Failure::fatal(format!(
                    "{failure}: grant select, insert, update on {name} to {}",
                    self.link.address.user()
                ));
            }
            _ => None,
        };
        match culprit {
            Some(culprit) => Failure::new(failure.kind, format!("{failure}: {culprit}")),
            None => failure,
        }
    }

    /// Works out which key's sum does not fit, after the rollback.
    async fn overflowing(&mut self, piece: &Piece<'_>) -> Option<String> {
        let text = self.table_sql(piece.state).ok()?.overflow.clone()?;
        let found = self.link.rows(bind_piece(statement(&text), piece, true)).await.ok()?;
        let row = found.first()?;
        let at = piece.range.start + usize::try_from(row.try_get::<i64, _>(0).ok()?).ok()?.checked_sub(1)?;
        let sums = piece.rows.values.iter().enumerate().filter_map(|(column, values)| {
            let Column::BigInt(values) = values else { return None };
            let stored: i64 = row.try_get(column + 1).ok()?;
            stored
                .checked_add(values[at])
                .is_none()
                .then(|| format!("{stored} + {} does not fit into a bigint", values[at]))
        });
        Some(format!("counter overflow at key {}: {}", piece.rows.show_key(at), sums.collect::<Vec<_>>().join(", ")))
    }
}

/// Cuts rows into pieces that one statement can carry.
fn pieces(state: StateIndex, rows: &TableRows) -> impl Iterator<Item = Piece<'_>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start >= rows.len() {
            return None;
        }
        let (mut end, mut bytes) = (start, 0);
        while end < rows.len() && end - start < ROWS_PER_STATEMENT && (end == start || bytes < BYTES_PER_STATEMENT) {
            bytes += rows.keys.iter().chain(&rows.values).map(|column| width(column, end)).sum::<usize>();
            end += 1;
        }
        let range = std::mem::replace(&mut start, end)..end;
        Some(Piece { state, rows, range })
    })
}

fn width(column: &Column, row: usize) -> usize {
    match column {
        Column::Text(values) => values[row].len(),
        Column::Bytes(values) => values[row].len(),
        Column::BigInt(_) => 8,
    }
}

/// Binds the key columns as arrays, then the value columns if wanted.
fn bind_piece<'q>(mut query: Bound<'q>, piece: &Piece<'q>, with_values: bool) -> Bound<'q> {
    let values = piece.rows.values.iter().filter(|_| with_values);
    for column in piece.rows.keys.iter().chain(values) {
        query = match column {
            Column::Text(values) => query.bind(&values[piece.range.clone()]),
            Column::Bytes(values) => query.bind(&values[piece.range.clone()]),
            Column::BigInt(values) => query.bind(&values[piece.range.clone()]),
        };
    }
    query
}

fn placeholders(kind: ColumnType, rows: usize) -> Column {
    match kind {
        ColumnType::Text => Column::Text(vec![String::new(); rows]),
        ColumnType::Bytes => Column::Bytes(vec![Vec::new(); rows]),
        ColumnType::BigInt => Column::BigInt(vec![0; rows]),
    }
}

/// Puts one row of stored values, which starts with its number in the piece, where it was asked for.
fn fill(row: &PgRow, start: usize, present: &mut [bool], values: &mut [Column]) -> Result<(), sqlx::Error> {
    let number: i64 = row.try_get(0)?;
    let at = usize::try_from(number - 1).map_err(|error| sqlx::Error::Decode(error.into()))? + start;
    present[at] = true;
    for (column, values) in values.iter_mut().enumerate() {
        match values {
            Column::Text(values) => values[at] = row.try_get(column + 1)?,
            Column::Bytes(values) => values[at] = row.try_get(column + 1)?,
            Column::BigInt(values) => values[at] = row.try_get(column + 1)?,
        }
    }
    Ok(())
}

/// Only the longest can be the one that is too long.
fn longest_key(piece: &Piece<'_>) -> Option<String> {
    let length = |row: &usize| piece.rows.keys.iter().map(|column| width(column, *row)).sum::<usize>();
    let at = piece.range.clone().max_by_key(length)?;
    Some(format!("the longest key has {} bytes: {}", length(&at), piece.rows.show_key(at)))
}

#[cfg(test)]
mod tests {
    use tine_core::id::Shard;

    use super::*;

    fn sizes(texts: Vec<String>) -> Vec<Range<usize>> {
        let shards = vec![Shard(0); texts.len()];
        let rows = TableRows { keys: vec![Column::Text(texts)], values: Vec::new(), shards, combine: None };
        pieces(StateIndex(0), &rows).map(|piece| piece.range).collect()
    }

    #[test]
    fn g12_rows_are_cut_by_number_and_by_bytes_and_none_is_left_out() {
        assert!(sizes(Vec::new()).is_empty());
        let many = ROWS_PER_STATEMENT;
        assert_eq!(sizes(vec![String::new(); many + 1]), [0..many, many..many + 1]);
        let large = "x".repeat(BYTES_PER_STATEMENT);
        assert_eq!(sizes(vec![large.clone(), large, "y".to_string(), "z".to_string()]), [0..1, 1..2, 2..4]);
    }
}
