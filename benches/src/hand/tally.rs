//! Counts by key between two commits, and a second figure beside each where a job wants one.
//!
//! Keys lie one behind the other in one buffer and the table holds places in it, so that a known key costs one lookup by
//! reference and a new one no allocation of its own; [`Tally::clear`] keeps both buffers for the next round.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Bytes of keys after which the tally must be committed; keeps places within 32 bits and memory bounded.
const KEY_BYTES_MAX: usize = 256 << 20;

/// What was counted, and from where to where in each partition.
#[derive(Debug, Default)]
pub(super) struct Tally {
    entries: HashTable<Entry>,
    keys: Vec<u8>,
    hasher: RandomState,
    from: Vec<i64>,
    to: Vec<i64>,
}

/// What a commit adds to one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row<'t> {
    pub(super) key: &'t [u8],
    pub(super) n: i64,
    pub(super) second: i64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    len: u32,
    n: i64,
    second: i64,
}

impl Entry {
    fn key(self, keys: &[u8]) -> &[u8] {
        &keys[self.start as usize..][..self.len as usize]
    }
}

impl Tally {
    /// An empty tally whose first record of partition `p` is at `positions[p]`.
    pub(super) fn starting_at(positions: &[i64]) -> Self {
        Self { from: positions.to_vec(), ..Self::default() }
    }

    /// Counts one occurrence of `key`.
    pub(super) fn add(&mut self, key: &[u8]) {
        self.add_with(key, 0, |_, _| 0);
    }

    /// Counts one occurrence of `key` and merges its second figure with what is there.
    pub(super) fn add_with(&mut self, key: &[u8], second: i64, merge: impl Fn(i64, i64) -> i64) {
        let hash = hash(&self.hasher, key);
        match self.entries.find_mut(hash, |entry| entry.key(&self.keys) == key) {
            Some(entry) => {
                entry.n += 1;
                entry.second = merge(entry.second, second);
            }
            None => self.insert(hash, key, second),
        }
    }

    #[cold]
    fn insert(&mut self, hash: u64, key: &[u8], second: i64) {
        let start = u32::try_from(self.keys.len()).expect("the tally is committed long before, see KEY_BYTES_MAX");
        let len = u32::try_from(key.len()).expect("a Kafka record is shorter than 2 GB");
        self.keys.extend_from_slice(key);
        let (keys, hasher) = (&self.keys, &self.hasher);
        self.entries
            .insert_unique(hash, Entry { start, len, n: 1, second }, |entry| self::hash(hasher, entry.key(keys)));
    }

    pub(super) fn start_at(&mut self, positions: &[i64]) {
        self.from.clear();
        self.from.extend_from_slice(positions);
    }

    /// The tally is complete: `positions[p]` is the first record of partition `p` that it has not counted.
    pub(super) fn end_at(&mut self, positions: &[i64]) {
        self.to.clear();
        self.to.extend_from_slice(positions);
    }

    /// Forgets everything but the memory.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.keys.clear();
    }

    pub(super) fn is_full(&self) -> bool {
        self.keys.len() >= KEY_BYTES_MAX
    }

    /// Every key with its figures, ordered by key: an upsert in index order touches each page once.
    pub(super) fn sorted(&self) -> Vec<Row<'_>> {
        let row = |entry: &Entry| Row { key: entry.key(&self.keys), n: entry.n, second: entry.second };
        let mut all: Vec<_> = self.entries.iter().map(row).collect();
        all.sort_unstable_by_key(|row| row.key);
        all
    }

    /// Partition, first offset counted, first offset not counted.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (i32, i64, i64)> {
        (0..).zip(&self.from).zip(&self.to).map(|((partition, from), to)| (partition, *from, *to))
    }
}

fn hash(hasher: &RandomState, key: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(key);
    state.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleared_tally_counts_from_zero_again() {
        let mut tally = Tally::starting_at(&[5, 7]);
        for key in ["b", "a", "b", ""] {
            tally.add(key.as_bytes());
        }
        tally.end_at(&[6, 7]);
        let counts = |tally: &Tally| tally.sorted().iter().map(|row| (row.key.to_vec(), row.n)).collect::<Vec<_>>();
        assert_eq!(counts(&tally), [(b"".to_vec(), 1), (b"a".to_vec(), 1), (b"b".to_vec(), 2)]);
        assert_eq!(tally.ranges().collect::<Vec<_>>(), [(0, 5, 6), (1, 7, 7)]);
        tally.clear();
        tally.add(b"b");
        tally.add_with(b"b", 7, i64::max);
        assert_eq!(tally.sorted(), [Row { key: b"b", n: 2, second: 7 }]);
    }
}
