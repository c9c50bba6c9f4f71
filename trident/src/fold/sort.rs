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
    pub(super) fn sorted(&self) -> Vec<u32> {
        let count = u32::try_from(self.ends.len()).expect("a batch has fewer than 2^32 rows");
        // All keys of a table begin with the same tag: the first piece begins after it.
        let mut pieces: Vec<(u64, u32)> = (0..count).map(|index| (self.piece(index, 1), index)).collect();
        self.sort(&mut pieces, 1);
        pieces.into_iter().map(|(_, index)| index).collect()
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
    fn sort(&self, pieces: &mut [(u64, u32)], depth: usize) {
        pieces.sort_unstable_by_key(|(piece, _)| *piece);
        let next = depth + PIECE;
        for equal in pieces.chunk_by_mut(|a, b| a.0 == b.0) {
            let rest = |index: u32| self.get(index).get(next..).unwrap_or_default();
            if equal.len() == 1 || equal.iter().all(|(_, index)| rest(*index).is_empty()) {
                continue;
            }
            if equal.len() < SMALL {
                equal.sort_unstable_by(|a, b| rest(a.1).cmp(rest(b.1)));
                continue;
            }
            equal.iter_mut().for_each(|(piece, index)| *piece = self.piece(*index, next));
            self.sort(equal, next);
        }
    }
}
