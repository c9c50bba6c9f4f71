//! The part of a table's rows that one statement carries, and how it is bound.

use std::ops::Range;

use tine_state::{Column, StateIndex, TableRows};

use crate::{
    link::Bound,
    settings::{BYTES_PER_STATEMENT, ROW_OVERHEAD_BYTES, ROWS_PER_STATEMENT},
};

/// What a statement carries: some of one table's rows.
pub(super) struct Piece<'a> {
    pub(super) state: StateIndex,
    pub(super) rows: &'a TableRows,
    places: Places,
}

enum Places {
    All(Range<usize>),
    /// In ascending order.
    Some(Vec<usize>),
}

impl<'a> Piece<'a> {
    /// Cuts rows into pieces that one statement can carry.
    pub(super) fn cut(state: StateIndex, rows: &'a TableRows) -> impl Iterator<Item = Piece<'a>> {
        let mut start = 0;
        std::iter::from_fn(move || {
            if start >= rows.len() {
                return None;
            }
            let (mut end, mut bytes) = (start, 0);
            while end < rows.len() && end - start < ROWS_PER_STATEMENT && (end == start || bytes < BYTES_PER_STATEMENT)
            {
                bytes += width(rows.keys.iter().chain(&rows.values), end);
                end += 1;
            }
            let range = std::mem::replace(&mut start, end)..end;
            Some(Piece { state, rows, places: Places::All(range) })
        })
    }

    /// Only these rows of it.
    pub(super) fn only(&self, places: Vec<usize>) -> Piece<'a> {
        Piece { state: self.state, rows: self.rows, places: Places::Some(places) }
    }

    pub(super) fn len(&self) -> usize {
        match &self.places {
            Places::All(range) => range.len(),
            Places::Some(places) => places.len(),
        }
    }

    /// Where its row of this number, counted from 0, lies among the table's rows.
    pub(super) fn place(&self, number: usize) -> Option<usize> {
        match &self.places {
            Places::All(range) => range.clone().nth(number),
            Places::Some(places) => places.get(number).copied(),
        }
    }

    pub(super) fn places(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).filter_map(|number| self.place(number))
    }

    /// How many bytes its rows take in a table.
    pub(super) fn stored_bytes(&self) -> usize {
        let columns = || self.rows.keys.iter().chain(&self.rows.values);
        self.places().map(|place| width(columns(), place) + ROW_OVERHEAD_BYTES).sum()
    }

    /// Only the longest can be the one that is too long.
    pub(super) fn longest_key(&self) -> Option<String> {
        let length = |place: &usize| width(self.rows.keys.iter(), *place);
        let place = self.places().max_by_key(length)?;
        Some(format!("the longest key has {} bytes: {}", length(&place), self.rows.show_key(place)))
    }

    /// Binds the key columns as arrays, then the value columns if wanted.
    pub(super) fn bind<'q>(&'q self, mut query: Bound<'q>, with_values: bool) -> Bound<'q> {
        let values = self.rows.values.iter().filter(|_| with_values);
        for column in self.rows.keys.iter().chain(values) {
            query = match (column, &self.places) {
                (Column::Text(values), Places::All(range)) => query.bind(&values[range.clone()]),
                (Column::Bytes(values), Places::All(range)) => query.bind(&values[range.clone()]),
                (Column::BigInt(values), Places::All(range)) => query.bind(&values[range.clone()]),
                (Column::Text(values), Places::Some(places)) => query.bind(picked(places, |at| values[at].as_str())),
                (Column::Bytes(values), Places::Some(places)) => query.bind(picked(places, |at| values[at].as_slice())),
                (Column::BigInt(values), Places::Some(places)) => query.bind(picked(places, |at| values[at])),
            };
        }
        query
    }
}

fn picked<T>(places: &[usize], value: impl Fn(usize) -> T) -> Vec<T> {
    places.iter().map(|place| value(*place)).collect()
}

/// The bytes of one row in these columns.
fn width<'a>(columns: impl Iterator<Item = &'a Column>, row: usize) -> usize {
    let of_column = |column: &Column| match column {
        Column::Text(values) => values[row].len(),
        Column::Bytes(values) => values[row].len(),
        Column::BigInt(_) => 8,
    };
    columns.map(of_column).sum()
}

#[cfg(test)]
mod tests {
    use tine_core::id::Shard;

    use super::*;

    fn sizes(texts: Vec<String>) -> Vec<Range<usize>> {
        let shards = vec![Shard(0); texts.len()];
        let rows = TableRows { keys: vec![Column::Text(texts)], values: Vec::new(), shards, combine: None };
        let range = |piece: Piece<'_>| piece.place(0).unwrap()..piece.place(piece.len() - 1).unwrap() + 1;
        Piece::cut(StateIndex(0), &rows).map(range).collect()
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
