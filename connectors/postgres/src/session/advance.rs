//! The compare-and-set of ledger rows together with the data, and the reading of stored values.
//!
//! The first statement holds both: the first rows are merged only if *all* ledger rows moved. Further rows and tables
//! follow, each with a statement of its own, in the same transaction. Every statement must hit as many rows as it was
//! sent.

use std::sync::Arc;

use sqlx::{Row, postgres::PgRow};
use tine_core::{failure::Failure, hash::Hash128};
use tine_state::{Advance, Column, ColumnType, Reply, StateIndex, TableRows};

use super::{
    PgSession, bind_attempt,
    known::{Known, Split},
    piece::Piece,
};
use crate::{
    errors,
    link::{Bound, statement},
    settings::{self, PROMPT_TIMEOUT, SWEEP_FACTOR, SWEEP_ROWS_MIN},
    sql::TableSql,
    sqlstate::Meaning,
};

/// What the first statement does before it merges: the compare-and-set of these rows.
struct Guard<'a> {
    advance: &'a Advance,
    shards: (Vec<String>, Vec<i32>),
}

/// How a piece is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Its keys are known to have rows.
    Update,
    /// The server finds out.
    Upsert,
}

impl PgSession {
    pub(super) async fn advance(&mut self, advance: &Advance) -> Result<Reply, Failure> {
        self.in_transaction()?;
        self.has_advanced = true;
        let wanted = advance.shards.len() as u64;
        let mut guard = Some(Guard { advance, shards: self.shard_arrays(&advance.shards)? });
        let mut merged = 0;
        for whole in advance.tables.iter().flat_map(|(state, rows)| Piece::cut(*state, rows)) {
            for (how, piece) in self.split(whole)? {
                let first = guard.take();
                let hit = self.merge(how, &piece, first.as_ref()).await?;
                // Either a ledger row did not match, or nothing was there to be hit: the ledger knows.
                if first.is_some() && hit == 0 {
                    let moved = self.moved().await?;
                    if moved < wanted {
                        return Ok(Reply::Advanced { moved, merged: 0 });
                    }
                }
                merged += hit + self.fill(how, &piece, hit).await?;
            }
        }
        let moved = match guard {
            Some(guard) => {
                let text = self.sql.advance.clone();
                self.touch(self.compare_and_set(&text, &guard), None).await?
            }
            None => wanted,
        };
        Ok(Reply::Advanced { moved, merged })
    }

    /// Known keys apart from new ones, where that pays.
    fn split<'a>(&mut self, piece: Piece<'a>) -> Result<Vec<(How, Piece<'a>)>, Failure> {
        Ok(match self.known(piece.state)?.split(&piece) {
            Split::Update => vec![(How::Update, piece)],
            Split::Upsert => vec![(How::Upsert, piece)],
            Split::Both { known, new } => {
                vec![(How::Update, piece.only(known)), (How::Upsert, piece.only(new))]
            }
        })
    }

    /// Merges a piece and answers how many rows it hit; under a guard none, unless all ledger rows moved.
    async fn merge(&mut self, how: How, piece: &Piece<'_>, guard: Option<&Guard<'_>>) -> Result<u64, Failure> {
        let sweeps = how == How::Update && self.allow_sweep(piece).await?;
        let table = self.table_sql(piece.state)?;
        let merging = match how {
            How::Upsert => &table.upsert,
            How::Update if sweeps => &table.sweep,
            How::Update => &table.update,
        };
        let query = match guard {
            Some(guard) => self.compare_and_set(&merging.guarded, guard),
            None => statement(&merging.plain),
        };
        let hit = self.touch(piece.bind(query, true), Some(piece)).await?;
        if sweeps && let Err(error) = self.link.message(&settings::probing_text().into(), PROMPT_TIMEOUT).await {
            return Err(self.failed("going back to the indexes", &error).await);
        }
        Ok(hit)
    }

    /// Whether the table is so small beside the piece that reading all of it costs less than a search for each key.
    async fn allow_sweep(&mut self, piece: &Piece<'_>) -> Result<bool, Failure> {
        if piece.len() < SWEEP_ROWS_MIN {
            return Ok(false);
        }
        let most = i64::try_from(piece.stored_bytes() * SWEEP_FACTOR).unwrap_or(i64::MAX);
        let text = self.table_sql(piece.state)?.allow_sweep.clone();
        self.asked(statement(&text).bind(most), Some(piece)).await.map(|rows| !rows.is_empty())
    }

    /// Upserts what an update has missed, because others have deleted rows. They are told from those it has hit by who
    /// wrote them last, so that it does not matter what others do between the two statements.
    async fn fill(&mut self, how: How, piece: &Piece<'_>, hit: u64) -> Result<u64, Failure> {
        let sent = piece.len() as u64;
        if how == How::Upsert || hit >= sent {
            return Ok(0);
        }
        self.known(piece.state)?.forget();
        let table = self.table_sql(piece.state)?;
        let (text, name) = (table.fill.clone(), table.name.clone());
        let filled = self.touch(piece.bind(statement(&text), true), Some(piece)).await?;
        if hit + filled == sent {
            return Ok(filled);
        }
        // Next time all of them are upserted; if that does not come out right either, nothing will.
        self.roll_back().await;
        let counts = format!("{hit} rows updated and {filled} inserted of {sent}");
        Err(Failure::transient(format!("merging into {name}: {counts}; trying again with an upsert")))
    }

    /// How many ledger rows this transaction has moved.
    async fn moved(&mut self) -> Result<u64, Failure> {
        let text = self.sql.moved.clone();
        let rows = self.asked(statement(&text).bind(self.topology.clone()).bind(self.group.clone()), None).await?;
        let moved = rows.first().map_or(Ok(0), |row| row.try_get::<i64, _>("moved"));
        let moved = moved.map_err(|error| errors::before_commit("counting ledger rows", &self.link.address, &error));
        moved.map(i64::cast_unsigned)
    }

    pub(super) async fn load(&mut self, state: StateIndex, rows: &TableRows) -> Result<Reply, Failure> {
        self.in_transaction()?;
        let table = self.table_sql(state)?;
        let text = table.load.clone();
        let mut present = vec![false; rows.len()];
        let mut values: Vec<Column> = table.values.iter().map(|kind| placeholders(*kind, rows.len())).collect();
        for piece in Piece::cut(state, rows) {
            let found = self.asked(piece.bind(statement(&text), false), Some(&piece)).await?;
            let filled = found.iter().try_for_each(|row| put(row, &piece, &mut present, &mut values));
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

    fn known(&mut self, state: StateIndex) -> Result<&mut Known, Failure> {
        let found = self.known.get_mut(usize::from(state.0));
        found.ok_or_else(|| Failure::fatal(format!("the group has no state of number {}", state.0)))
    }

    fn compare_and_set(&self, text: &Arc<str>, guard: &Guard<'_>) -> Bound<'static> {
        let bytes = |hash: Hash128| hash.to_bytes().to_vec();
        let (advance, (states, numbers)) = (guard.advance, &guard.shards);
        let query = statement(text)
            .bind(self.topology.clone())
            .bind(self.group.clone())
            .bind(states.clone())
            .bind(numbers.clone());
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
            Meaning::TooLong => piece.longest_key(),
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
        let found = self.link.rows(piece.bind(statement(&text), true)).await.ok()?;
        let row = found.first()?;
        let at = piece.place(usize::try_from(row.try_get::<i64, _>(0).ok()?).ok()?.checked_sub(1)?)?;
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

fn placeholders(kind: ColumnType, rows: usize) -> Column {
    match kind {
        ColumnType::Text => Column::Text(vec![String::new(); rows]),
        ColumnType::Bytes => Column::Bytes(vec![Vec::new(); rows]),
        ColumnType::BigInt => Column::BigInt(vec![0; rows]),
    }
}

/// Puts one row of stored values, which starts with its number in the piece, where it was asked for.
fn put(row: &PgRow, piece: &Piece<'_>, present: &mut [bool], values: &mut [Column]) -> Result<(), sqlx::Error> {
    let number: i64 = row.try_get(0)?;
    let place = usize::try_from(number - 1).ok().and_then(|number| piece.place(number));
    let at = place.ok_or_else(|| sqlx::Error::Decode(format!("a row of number {number} was not asked for").into()))?;
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
