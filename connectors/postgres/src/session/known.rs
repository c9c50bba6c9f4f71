//! Remembers which keys have had a row, because to update a row costs less than to upsert it.
//!
//! This is a guess and never more: rows may be deleted by others, and two keys may have one hash. An update counts what
//! it hits, and what it misses is inserted.

use std::collections::HashSet;

use foldhash::fast::RandomState;
use tine_core::hash::hash64;
use tine_state::{Column, TableRows};

use super::piece::Piece;
use crate::settings::{KNOWN_KEYS_MAX, KNOWN_KEYS_MIN};

/// The keys of one table, by their hashes.
#[derive(Debug, Default)]
pub(crate) struct Known {
    keys: HashSet<u64, RandomState>,
    /// New keys of the open transaction: known once it is committed.
    pending: Vec<u64>,
}

/// Which rows of a piece to update and which to upsert, by their places.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Split {
    Update,
    Upsert,
    Both { known: Vec<usize>, new: Vec<usize> },
}

impl Known {
    pub(super) fn split(&mut self, piece: &Piece<'_>) -> Split {
        let (mut known, mut new) = (Vec::new(), Vec::new());
        for row in piece.places() {
            let hash = key_hash(piece.rows, row);
            if self.keys.contains(&hash) {
                known.push(row);
            } else {
                new.push(row);
                self.pending.push(hash);
            }
        }
        match (known.len(), new.len()) {
            (_, 0) => Split::Update,
            (few, _) if few < KNOWN_KEYS_MIN => Split::Upsert,
            _ => Split::Both { known, new },
        }
    }

    /// The transaction is committed.
    pub(super) fn keep(&mut self) {
        let room = KNOWN_KEYS_MAX.saturating_sub(self.keys.len());
        self.keys.extend(self.pending.drain(..).take(room));
        self.pending = Vec::new();
    }

    /// The transaction is not committed.
    pub(super) fn drop_pending(&mut self) {
        self.pending = Vec::new();
    }

    /// Keys were missed: others delete rows.
    pub(super) fn forget(&mut self) {
        self.keys = HashSet::default();
    }
}

fn key_hash(rows: &TableRows, row: usize) -> u64 {
    rows.keys.iter().fold(0, |hash: u64, column| {
        let part = match column {
            Column::Text(values) => hash64(values[row].as_bytes()),
            Column::Bytes(values) => hash64(&values[row]),
            Column::BigInt(values) => hash64(&values[row].to_le_bytes()),
        };
        hash.rotate_left(5).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part
    })
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use tine_core::id::Shard;
    use tine_state::StateIndex;

    use super::*;

    fn rows(keys: Range<i64>) -> TableRows {
        let shards = vec![Shard(0); keys.clone().count()];
        TableRows { keys: vec![Column::BigInt(keys.collect())], values: Vec::new(), shards, combine: None }
    }

    fn split(known: &mut Known, keys: Range<i64>) -> Split {
        let rows = rows(keys);
        let pieces = Piece::cut(StateIndex(0), &rows).map(|piece| known.split(&piece));
        pieces.last().unwrap()
    }

    #[test]
    fn only_what_was_committed_is_known() {
        let mut known = Known::default();
        assert_eq!(split(&mut known, 0..500), Split::Upsert);
        known.drop_pending();
        assert_eq!(split(&mut known, 0..500), Split::Upsert);
        known.keep();
        assert_eq!(split(&mut known, 0..500), Split::Update);
        let both = Split::Both { known: (0..300).collect(), new: (300..310).collect() };
        assert_eq!(split(&mut known, 200..510), both);
        known.drop_pending();
        // A handful is not worth a statement of its own.
        assert_eq!(split(&mut known, 490..510), Split::Upsert);
        known.forget();
        assert_eq!(split(&mut known, 0..1), Split::Upsert);
    }

    #[test]
    fn no_more_keys_are_remembered_than_there_is_room_for() {
        let mut known = Known::default();
        let max = i64::try_from(KNOWN_KEYS_MAX).unwrap();
        split(&mut known, 0..max + 10);
        known.keep();
        assert_eq!(known.keys.len(), KNOWN_KEYS_MAX);
    }

    #[test]
    fn parts_of_a_key_are_not_taken_for_one_another() {
        let column = |values: &[&str]| Column::Text(values.iter().map(|value| value.to_string()).collect());
        let keys = vec![column(&["a", "b", "ab", ""]), column(&["b", "a", "", "ab"])];
        let rows = TableRows { keys, values: Vec::new(), shards: vec![Shard(0); 4], combine: None };
        let hashes: HashSet<u64> = (0..4).map(|row| key_hash(&rows, row)).collect();
        assert_eq!(hashes.len(), 4);
    }
}
