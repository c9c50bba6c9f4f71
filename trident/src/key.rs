//! Keys: borrowed as closures see them, owned when they are new in a batch.
//!
//! Looking a key up costs no allocation: a `&str` is compared with the text that the table keeps, and becomes one only the
//! first time a batch meets it. Kept texts are [`CompactString`]s: up to 24 bytes lie in the table's row itself, so that
//! finding a key touches one place in memory instead of two.

use std::{borrow::Cow, fmt, hash::Hasher};

pub use compact_str::CompactString;

use crate::columns::{Columns, Unfit, check_text};

/// No key may be larger, all its parts together: Postgres refuses index rows beyond a third of a page, and SQLite slows
/// down long before.
pub const KEY_BYTES_MAX: usize = 1024;

/// What `group_by` may group by: text (`&str`, `String`, `Cow<str>`), bytes (`&[u8]`, `Vec<u8>`), integers up to 64 bits
/// that fit into an `i64`, and tuples of up to four of these.
///
/// ```
/// use tine_trident::key::Key;
///
/// fn column_key<K: Key>(key: K) -> K::Owned {
///     key.own()
/// }
/// assert_eq!(column_key(("de", 7u16)), ("de".into(), 7i64));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a key",
    label = "`group_by` wants text, bytes, an integer, or a tuple of up to four of these",
    note = "keys are `&str`, `String`, `&[u8]`, `Vec<u8>`, `i64` and smaller integers; order never decides a value, so \
            floating-point numbers are none"
)]
pub trait Key: fmt::Debug {
    /// How tables keep it.
    type Owned: Columns;

    /// Feeds a hasher of this process, exactly as [`Columns::feed`] of the owned key does.
    fn feed<H: Hasher>(&self, hasher: &mut H);

    /// Whether it is the same key as `owned`.
    fn same(&self, owned: &Self::Owned) -> bool;

    /// How many bytes it has, as in [`Columns::size`].
    fn size(&self) -> usize;

    /// Whether its texts can be stored: no NUL.
    fn check(&self) -> Result<(), Unfit>;

    /// The owned key.
    fn own(self) -> Self::Owned;
}

/// Whether a key can be stored: no NUL in a text, at most [`KEY_BYTES_MAX`] bytes.
pub(crate) fn check_key(key: &impl Key) -> Result<(), Unfit> {
    match key.size() {
        bytes if bytes > KEY_BYTES_MAX => Err(Unfit::TooLong { bytes }),
        _ => key.check(),
    }
}

macro_rules! key_by_bytes {
    ($($borrowed:ty => $owned:ty, $bytes:ident, $check:expr;)+) => {$(
        impl Key for $borrowed {
            type Owned = $owned;

            #[inline]
            fn feed<H: Hasher>(&self, hasher: &mut H) {
                let bytes: &[u8] = self.$bytes();
                hasher.write(bytes);
            }

            #[inline]
            fn same(&self, owned: &$owned) -> bool {
                let (mine, other): (&[u8], &[u8]) = (self.$bytes(), owned.$bytes());
                mine == other
            }

            #[inline]
            fn size(&self) -> usize {
                self.len()
            }

            fn check(&self) -> Result<(), Unfit> {
                $check(self)
            }

            #[inline]
            fn own(self) -> $owned {
                self.into()
            }
        }
    )+};
}

fn anything(_: &[u8]) -> Result<(), Unfit> {
    Ok(())
}

key_by_bytes! {
    &str => CompactString, as_bytes, check_text;
    String => CompactString, as_bytes, check_text;
    CompactString => CompactString, as_bytes, check_text;
    Cow<'_, str> => CompactString, as_bytes, check_text;
    &[u8] => Vec<u8>, as_ref, anything;
    Vec<u8> => Vec<u8>, as_ref, anything;
}

macro_rules! key_by_number {
    ($($number:ty),+) => {$(
        impl Key for $number {
            type Owned = i64;

            #[inline]
            fn feed<H: Hasher>(&self, hasher: &mut H) {
                hasher.write_i64(i64::from(*self));
            }

            #[inline]
            fn same(&self, owned: &i64) -> bool {
                i64::from(*self) == *owned
            }

            #[inline]
            fn size(&self) -> usize {
                8
            }

            fn check(&self) -> Result<(), Unfit> {
                Ok(())
            }

            #[inline]
            fn own(self) -> i64 {
                self.into()
            }
        }
    )+};
}

key_by_number!(i64, i32, i16, i8, u32, u16, u8);

macro_rules! key_of_keys {
    ($($name:ident $index:tt),+) => {
        impl<$($name: Key),+> Key for ($($name,)+) {
            type Owned = ($($name::Owned,)+);

            #[inline]
            fn feed<HH: Hasher>(&self, hasher: &mut HH) {
                $(self.$index.feed(hasher);)+
            }

            #[inline]
            fn same(&self, owned: &Self::Owned) -> bool {
                true $(&& self.$index.same(&owned.$index))+
            }

            #[inline]
            fn size(&self) -> usize {
                0 $(+ self.$index.size())+
            }

            fn check(&self) -> Result<(), Unfit> {
                $(self.$index.check()?;)+
                Ok(())
            }

            #[inline]
            fn own(self) -> Self::Owned {
                ($(self.$index.own(),)+)
            }
        }
    };
}

key_of_keys!(A 0, B 1);
key_of_keys!(A 0, B 1, C 2);
key_of_keys!(A 0, B 1, C 2, D 3);

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use super::*;

    fn agrees<K: Key>(key: K) {
        let mut borrowed = DefaultHasher::new();
        key.feed(&mut borrowed);
        let size = key.size();
        let checked = key.check();
        let owned = key.own();
        let mut kept = DefaultHasher::new();
        owned.feed(&mut kept);
        assert_eq!(borrowed.finish(), kept.finish());
        assert_eq!((size, checked), (owned.size(), owned.check()));
    }

    #[test]
    fn a_key_and_its_owned_form_hash_alike() {
        agrees("a");
        agrees(Cow::Borrowed("b\0"));
        agrees(&b"a\0"[..]);
        agrees(-3i8);
        agrees(("a", 7u32, vec![1u8], 9i64));
    }

    #[test]
    fn keys_that_no_index_takes_are_found() {
        let long = "x".repeat(KEY_BYTES_MAX);
        assert_eq!(check_key(&long.as_str()), Ok(()));
        assert_eq!(check_key(&(long.as_str(), 1i64)), Err(Unfit::TooLong { bytes: KEY_BYTES_MAX + 8 }));
        assert_eq!(check_key(&"a\0"), Err(Unfit::Nul { at: 1 }));
    }
}
