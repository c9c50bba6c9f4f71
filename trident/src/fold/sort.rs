//! Sorts keys by their canonical bytes without moving keys: eight bytes at a time, as integers.
//!
//! Comparing strings through pointers misses the cache at every step. Here each key is an eight-byte piece of it beside
//! its index; only keys that agree in a piece are looked at again, with their next piece.

/// Canonical bytes of many keys, one after the other.
pub(super) struct Keys {
    arena: Vec<u8>,
    /// Where each key ends; it begins where the one before it ends.
    ends: Vec<usize>,
}

/// Groups smaller than this are sorted by comparing the rest of their keys.
const SMALL: usize = 8;
/// How many bytes are compared at a time.
const PIECE: usize = 8;

impl Keys {
    pub(super) fn with_capacity(count: usize) -> Keys {
        Keys { arena: Vec::with_capacity(count * 16), ends: Vec::with_capacity(count) }
    }

    /// Adds a key; its length.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let start = self.arena.len();
        write(&mut self.arena);
        self.ends.push(self.arena.len());
        self.arena.len() - start
    }

    pub(super) fn get(&self, index: u32) -> &[u8] {
        let index = index as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.arena[start..self.ends[index]]
    }

    /// Indices of the keys, in the order of their bytes.
    pub(super) fn sorted(&self) -> Sorted {
        let count = u32::try_from(self.ends.len()).expect("a batch has fewer than 2^32 rows");
        // All keys of a table begin with the same tag: the first piece begins after it.
        let mut pieces: Vec<(u64, u32)> = (0..count).map(|index| (self.piece(index, 1), index)).collect();
        let mut sorted = Sorted { indices: Vec::with_capacity(pieces.len()), ends: Vec::with_capacity(pieces.len()) };
        self.sort(&mut pieces, 1, &mut sorted);
        sorted
    }

    /// Eight bytes of a key, big endian, zeros behind its end.
    fn piece(&self, index: u32, depth: usize) -> u64 {
        let rest = self.get(index).get(depth..).unwrap_or_default();
        let mut piece = [0; PIECE];
        match rest.first_chunk::<PIECE>() {
            Some(full) => piece = *full,
            None => piece[..rest.len()].copy_from_slice(rest),
        }
        u64::from_be_bytes(piece)
    }

    /// Sorts keys that agree before `depth` and whose pieces are those at `depth`.
    fn sort(&self, pieces: &mut [(u64, u32)], depth: usize, sorted: &mut Sorted) {
        pieces.sort_unstable_by_key(|(piece, _)| *piece);
        let next = depth + PIECE;
        for equal in pieces.chunk_by_mut(|a, b| a.0 == b.0) {
            if let [(_, alone)] = equal {
                sorted.push_group([*alone]);
                continue;
            }
            if equal.len() >= SMALL && equal.iter().any(|(_, index)| self.get(*index).len() > next) {
                equal.iter_mut().for_each(|(piece, index)| *piece = self.piece(*index, next));
                self.sort(equal, next, sorted);
                continue;
            }
            // The zeros behind a short key's end are told apart here.
            equal.sort_unstable_by(|a, b| self.get(a.1).cmp(self.get(b.1)));
            for same in equal.chunk_by(|a, b| self.get(a.1) == self.get(b.1)) {
                sorted.push_group(same.iter().map(|(_, index)| *index));
            }
        }
    }
}

/// Indices of keys in the order of their bytes, those of equal keys in groups.
pub(super) struct Sorted {
    indices: Vec<u32>,
    /// Where each group ends; it begins where the one before it ends.
    ends: Vec<u32>,
}

impl Sorted {
    fn push_group(&mut self, group: impl IntoIterator<Item = u32>) {
        self.indices.extend(group);
        self.ends.push(u32::try_from(self.indices.len()).expect("a batch has fewer than 2^32 rows"));
    }

    /// The indices of each distinct key.
    pub(super) fn groups(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let group = &self.indices[start..*end as usize];
            start = *end as usize;
            group
        })
    }
}
