//! What tuples are grouped by: values with a hash that is the same on every machine, in every version, after every restart.
//!
//! `std`'s `Hash` promises nothing across versions of Rust, so keys say their own bytes.

use crate::hash::hash64;

/// A value to group tuples by.
///
/// ```
/// use tine_core::component::GroupKey;
///
/// assert_eq!("ab".group_hash(), String::from("ab").group_hash());
/// assert_ne!(("a", "bc").group_hash(), ("ab", "c").group_hash());
/// ```
pub trait GroupKey {
    /// Its stable hash ([`hash64`] of its canonical bytes).
    fn group_hash(&self) -> u64;
}

macro_rules! by_bytes {
    ($($number:ty)*) => {$(
        impl GroupKey for $number {
            #[inline]
            fn group_hash(&self) -> u64 {
                hash64(&self.to_le_bytes())
            }
        }
    )*};
}

by_bytes!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128);

impl GroupKey for str {
    #[inline]
    fn group_hash(&self) -> u64 {
        hash64(self.as_bytes())
    }
}

impl GroupKey for String {
    #[inline]
    fn group_hash(&self) -> u64 {
        self.as_str().group_hash()
    }
}

impl GroupKey for [u8] {
    #[inline]
    fn group_hash(&self) -> u64 {
        hash64(self)
    }
}

impl GroupKey for Vec<u8> {
    #[inline]
    fn group_hash(&self) -> u64 {
        hash64(self)
    }
}

impl GroupKey for bool {
    fn group_hash(&self) -> u64 {
        hash64(&[u8::from(*self)])
    }
}

impl GroupKey for char {
    fn group_hash(&self) -> u64 {
        u32::from(*self).group_hash()
    }
}

impl<K: GroupKey + ?Sized> GroupKey for &K {
    #[inline]
    fn group_hash(&self) -> u64 {
        (**self).group_hash()
    }
}

impl<K: GroupKey> GroupKey for Option<K> {
    fn group_hash(&self) -> u64 {
        self.as_ref().map_or_else(|| hash64(&[]), |key| combined([key.group_hash()]))
    }
}

macro_rules! by_parts {
    ($($name:ident)*) => {
        impl<$($name: GroupKey),*> GroupKey for ($($name,)*) {
            #[allow(non_snake_case, reason = "the parts are called like their types")]
            fn group_hash(&self) -> u64 {
                let ($($name,)*) = self;
                combined([$($name.group_hash()),*])
            }
        }
    };
}

by_parts!(A B);
by_parts!(A B C);
by_parts!(A B C D);

/// The hash of several parts, whose order counts.
pub(crate) fn combined(hashes: impl IntoIterator<Item = u64>) -> u64 {
    hashes.into_iter().fold(0, |sofar, hash| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&sofar.to_le_bytes());
        bytes[8..].copy_from_slice(&hash.to_le_bytes());
        hash64(&bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden values: if this fails, keys move to other tasks when the program is updated.
    #[test]
    fn a_keys_hash_never_changes() {
        assert_eq!("word".group_hash(), hash64(b"word"));
        assert_eq!(7u64.group_hash(), hash64(&[7, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(("a", 1u8).group_hash(), 0x9cd9_b360_8c98_6d8c);
    }
}
