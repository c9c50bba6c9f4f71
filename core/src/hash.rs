//! The stable hashes: part of the durable format, the same on every machine, version and restart.
//!
//! Both are XXH3 with seed 0 (`xxh3-64`, `xxh3-128`): Yann Collet's xxHash, as specified at xxhash.com.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

/// Routes keys: which shard, which task.
///
/// ```
/// use tine_core::{hash::hash64, id::Shard};
///
/// assert_eq!(hash64(b""), 0x2d06_8005_38d3_94c2); // on every machine, in every version
/// assert_eq!(Shard::of(hash64(b"ann"), 32), Shard::of(hash64(b"ann"), 32));
/// ```
pub fn hash64(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// Identifies content: rows, plans, manifests.
///
/// ```
/// use tine_core::hash::Hash128;
///
/// let row = Hash128::of(b"ann, 7");
/// assert_eq!(Hash128::from_bytes(&row.to_bytes()), Some(row));
/// assert_ne!(Hash128::of_parts([&b"ab"[..], b"c"]), Hash128::of_parts([&b"a"[..], b"bc"]));
/// assert_eq!(row.to_string().len(), 32, "hexadecimal");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash128(pub u128);

impl Hash128 {
    /// The hash of some bytes.
    pub fn of(bytes: &[u8]) -> Hash128 {
        Hash128(xxh3_128(bytes))
    }

    /// The hash of several byte strings, each preceded by its length (so that their borders count).
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Hash128 {
        let mut hasher = Xxh3::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Hash128(hasher.digest128())
    }

    /// The stored form: 16 bytes, big endian.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Back from the stored form; `None` when it is not 16 bytes long.
    pub fn from_bytes(bytes: &[u8]) -> Option<Hash128> {
        Some(Hash128(u128::from_be_bytes(bytes.try_into().ok()?)))
    }
}

impl std::fmt::Debug for Hash128 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::fmt::Display for Hash128 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden values: if this fails, every shard map and every ledger in the field has become unreadable.
    #[test]
    fn the_hashes_are_the_published_ones() {
        assert_eq!(hash64(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(Hash128::of(b"").0, 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
    }

    #[test]
    fn borders_of_parts_count() {
        assert_ne!(Hash128::of_parts([&b"ab"[..], b"c"]), Hash128::of_parts([&b"a"[..], b"bc"]));
    }
}
