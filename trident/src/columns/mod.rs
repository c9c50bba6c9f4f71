//! What keys and values are made of: columns of a table, and the canonical bytes that hashes are taken of.
//!
//! # Canonical bytes
//!
//! Part of the durable format (`docs/formats.md`): shards and digests are hashes of these bytes. Each part of a key or a
//! value is a tag and its content; a composite is its parts one after the other.
//!
//! | type | bytes |
//! |---|---|
//! | `bytes` | `01`, the bytes with each `00` written as `00 ff`, `00` |
//! | `text` | `02`, the UTF-8 bytes (none of them is `00`), `00` |
//! | `bigint` | `03`, eight bytes, big endian, the sign bit flipped |
//!
//! So they sort like the values themselves, part by part, and no two keys of a table have the same bytes. The idea is
//! FoundationDB's tuple layer.

use std::{fmt, hash::Hasher, slice};

use compact_str::CompactString;
use serde::{Serialize, de::DeserializeOwned};
use tine_state::{Column, ColumnType};

const BYTES: u8 = 1;
const TEXT: u8 = 2;
const BIGINT: u8 = 3;
const END: u8 = 0;
const ESCAPE: u8 = 0xff;
const SIGN: u64 = 1 << 63;

/// A key or a value as its table holds it: one column, or a tuple of up to four of these.
///
/// Implemented for `CompactString` and `String` (text), `Vec<u8>` (bytes), `i64` (bigint) and tuples.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be stored in the columns of a table",
    note = "columns hold `i64`, `String`, `Vec<u8>` and tuples of up to four of them"
)]
pub trait Columns: Clone + fmt::Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What it is lent as: how closures of later stages see it.
    type Lent: Lends;

    /// Columns under construction.
    type Build: Send;

    /// Empty columns with room for some rows.
    fn build(rows: usize) -> Self::Build;

    /// Appends the types of its columns.
    fn kinds(out: &mut Vec<ColumnType>);

    /// Appends its canonical bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Feeds a hasher of this process; [`Key::feed`](crate::key::Key::feed) feeds the same.
    fn feed<H: Hasher>(&self, hasher: &mut H);

    /// How many bytes of text and bytes (and eight for each integer) it holds.
    fn size(&self) -> usize;

    /// Whether columns can hold it.
    fn check(&self) -> Result<(), Unfit>;

    /// As closures of later stages see it.
    fn lend(&self) -> <Self::Lent as Lends>::At<'_>;

    /// Appends it to columns.
    fn push(self, build: &mut Self::Build);

    /// The columns.
    fn finish(build: Self::Build, out: &mut Vec<Column>);

    /// Reads it back from a row; `None` when the columns have other types, or are too few or short.
    fn read(columns: &mut slice::Iter<'_, Column>, row: usize) -> Option<Self>;
}

/// A type for each lifetime of the memory that rows are borrowed from: `String` is lent as `&str`, `Vec<u8>` as `&[u8]`,
/// `i64` as itself, a tuple as a tuple of these; a [`Row`](crate::input::Row) as it says.
pub trait Lends: 'static {
    /// What is lent.
    type At<'b>;
}

impl<T: crate::input::Row> Lends for T {
    type At<'b> = T::At<'b>;
}

/// Why a value does not fit into a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unfit {
    /// A text with a NUL.
    Nul {
        /// Its byte index.
        at: usize,
    },
    /// A key that no index would take.
    TooLong {
        /// How many bytes it has.
        bytes: usize,
    },
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Nul { at } => write!(f, "a text with a NUL at byte {at}, which SQL text cannot hold"),
            Unfit::TooLong { bytes } => write!(
                f,
                "a key of {bytes} bytes, and keys have at most {}: cut it, or group by a hash of it",
                crate::key::KEY_BYTES_MAX
            ),
        }
    }
}

/// Whether a text has no NUL.
pub(crate) fn check_text(text: &str) -> Result<(), Unfit> {
    match nul(text.as_bytes()) {
        Some(at) => Err(Unfit::Nul { at }),
        None => Ok(()),
    }
}

fn encode_text(text: &str, out: &mut Vec<u8>) {
    out.push(TEXT);
    out.extend_from_slice(text.as_bytes());
    out.push(END);
}

/// Where the first NUL is.
#[inline]
pub(crate) fn nul(bytes: &[u8]) -> Option<usize> {
    if has_zero(bytes) { memchr::memchr(0, bytes) } else { None }
}

/// Eight bytes at a time, the last eight perhaps twice: texts are short, and a call into a vectorised search costs more than
/// it saves.
#[inline]
fn has_zero(bytes: &[u8]) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = LOW << 7;
    let zeros = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        word.wrapping_sub(LOW) & !word & HIGH
    };
    match bytes.last_chunk() {
        Some(last) => bytes.as_chunks().0.iter().fold(zeros(last), |found, word| found | zeros(word)) != 0,
        None => bytes.contains(&0),
    }
}

/// The types of a key's or a value's columns.
pub(crate) fn kinds<C: Columns>() -> Vec<ColumnType> {
    let mut kinds = Vec::new();
    C::kinds(&mut kinds);
    kinds
}

/// A value for messages to people, cut after 60 characters.
pub(crate) fn shown(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

impl Lends for String {
    type At<'b> = &'b str;
}

impl Columns for String {
    type Lent = String;
    type Build = Vec<String>;

    fn build(rows: usize) -> Vec<String> {
        Vec::with_capacity(rows)
    }

    fn kinds(out: &mut Vec<ColumnType>) {
        out.push(ColumnType::Text);
    }

    fn encode(&self, out: &mut Vec<u8>) {
        encode_text(self, out);
    }

    fn feed<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(self.as_bytes());
    }

    fn size(&self) -> usize {
        self.len()
    }

    fn check(&self) -> Result<(), Unfit> {
        check_text(self)
    }

    fn lend(&self) -> &str {
        self
    }

    fn push(self, build: &mut Vec<String>) {
        build.push(self);
    }

    fn finish(build: Vec<String>, out: &mut Vec<Column>) {
        out.push(Column::Text(build));
    }

    fn read(columns: &mut slice::Iter<'_, Column>, row: usize) -> Option<String> {
        match columns.next()? {
            Column::Text(values) => values.get(row).cloned(),
            _ => None,
        }
    }
}

/// Kept like a `String`; a text of up to 24 bytes lies in the row itself.
impl Columns for CompactString {
    type Lent = String;
    type Build = Vec<String>;

    fn build(rows: usize) -> Vec<String> {
        Vec::with_capacity(rows)
    }

    fn kinds(out: &mut Vec<ColumnType>) {
        String::kinds(out);
    }

    fn encode(&self, out: &mut Vec<u8>) {
        encode_text(self, out);
    }

    fn feed<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(self.as_bytes());
    }

    fn size(&self) -> usize {
        self.len()
    }

    fn check(&self) -> Result<(), Unfit> {
        check_text(self)
    }

    fn lend(&self) -> &str {
        self
    }

    fn push(self, build: &mut Vec<String>) {
        build.push(self.into_string());
    }

    fn finish(build: Vec<String>, out: &mut Vec<Column>) {
        String::finish(build, out);
    }

    fn read(columns: &mut slice::Iter<'_, Column>, row: usize) -> Option<CompactString> {
        String::read(columns, row).map(CompactString::from)
    }
}

impl Lends for Vec<u8> {
    type At<'b> = &'b [u8];
}

impl Columns for Vec<u8> {
    type Lent = Vec<u8>;
    type Build = Vec<Vec<u8>>;

    fn build(rows: usize) -> Vec<Vec<u8>> {
        Vec::with_capacity(rows)
    }

    fn kinds(out: &mut Vec<ColumnType>) {
        out.push(ColumnType::Bytes);
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(BYTES);
        let mut rest = self.as_slice();
        while let Some(zero) = memchr::memchr(0, rest) {
            out.extend_from_slice(&rest[..=zero]);
            out.push(ESCAPE);
            rest = &rest[zero + 1..];
        }
        out.extend_from_slice(rest);
        out.push(END);
    }

    fn feed<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(self);
    }

    fn size(&self) -> usize {
        self.len()
    }

    fn check(&self) -> Result<(), Unfit> {
        Ok(())
    }

    fn lend(&self) -> &[u8] {
        self
    }

    fn push(self, build: &mut Vec<Vec<u8>>) {
        build.push(self);
    }

    fn finish(build: Vec<Vec<u8>>, out: &mut Vec<Column>) {
        out.push(Column::Bytes(build));
    }

    fn read(columns: &mut slice::Iter<'_, Column>, row: usize) -> Option<Vec<u8>> {
        match columns.next()? {
            Column::Bytes(values) => values.get(row).cloned(),
            _ => None,
        }
    }
}

impl Lends for i64 {
    type At<'b> = i64;
}

impl Columns for i64 {
    type Lent = i64;
    type Build = Vec<i64>;

    fn build(rows: usize) -> Vec<i64> {
        Vec::with_capacity(rows)
    }

    fn kinds(out: &mut Vec<ColumnType>) {
        out.push(ColumnType::BigInt);
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(BIGINT);
        out.extend_from_slice(&(self.cast_unsigned() ^ SIGN).to_be_bytes());
    }

    fn feed<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_i64(*self);
    }

    fn size(&self) -> usize {
        8
    }

    fn check(&self) -> Result<(), Unfit> {
        Ok(())
    }

    fn lend(&self) -> i64 {
        *self
    }

    fn push(self, build: &mut Vec<i64>) {
        build.push(self);
    }

    fn finish(build: Vec<i64>, out: &mut Vec<Column>) {
        out.push(Column::BigInt(build));
    }

    fn read(columns: &mut slice::Iter<'_, Column>, row: usize) -> Option<i64> {
        match columns.next()? {
            Column::BigInt(values) => values.get(row).copied(),
            _ => None,
        }
    }
}

macro_rules! tuple_of_columns {
    ($($name:ident $index:tt),+) => {
        impl<$($name: Lends),+> Lends for ($($name,)+) {
            type At<'b> = ($($name::At<'b>,)+);
        }

        impl<$($name: Columns),+> Columns for ($($name,)+) {
            type Lent = ($($name::Lent,)+);
            type Build = ($($name::Build,)+);

            fn build(rows: usize) -> Self::Build {
                ($($name::build(rows),)+)
            }

            fn kinds(out: &mut Vec<ColumnType>) {
                $($name::kinds(out);)+
            }

            fn encode(&self, out: &mut Vec<u8>) {
                $(self.$index.encode(out);)+
            }

            fn feed<HH: Hasher>(&self, hasher: &mut HH) {
                $(self.$index.feed(hasher);)+
            }

            fn size(&self) -> usize {
                0 $(+ self.$index.size())+
            }

            fn check(&self) -> Result<(), Unfit> {
                $(self.$index.check()?;)+
                Ok(())
            }

            fn lend(&self) -> <Self::Lent as Lends>::At<'_> {
                ($(self.$index.lend(),)+)
            }

            fn push(self, build: &mut Self::Build) {
                $(self.$index.push(&mut build.$index);)+
            }

            fn finish(build: Self::Build, out: &mut Vec<Column>) {
                $($name::finish(build.$index, out);)+
            }

            fn read(columns: &mut slice::Iter<'_, Column>, row: usize) -> Option<Self> {
                Some(($($name::read(columns, row)?,)+))
            }
        }
    };
}

tuple_of_columns!(A 0, B 1);
tuple_of_columns!(A 0, B 1, C 2);
tuple_of_columns!(A 0, B 1, C 2, D 3);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tine_core::{
        hash::{Hash128, hash64},
        id::Shard,
    };

    use super::*;

    fn bytes(value: &impl Columns) -> Vec<u8> {
        let mut out = Vec::new();
        value.encode(&mut out);
        out
    }

    /// Golden bytes: if this fails, rows in the field are looked for in the wrong shards.
    #[test]
    fn p11_canonical_bytes_and_shards_are_the_documented_ones() {
        assert_eq!(bytes(&"tine".to_string()), b"\x02tine\0");
        assert_eq!(bytes(&String::new()), b"\x02\0");
        assert_eq!(bytes(&vec![7u8, 0, 255]), b"\x01\x07\0\xff\xff\0");
        assert_eq!(bytes(&1i64), b"\x03\x80\0\0\0\0\0\0\x01");
        assert_eq!(bytes(&-1i64), b"\x03\x7f\xff\xff\xff\xff\xff\xff\xff");
        assert_eq!(bytes(&("ä".to_string(), 2i64)), b"\x02\xc3\xa4\0\x03\x80\0\0\0\0\0\0\x02");
        assert_eq!(hash64(&bytes(&"tine".to_string())), GOLDEN_HASH);
        assert_eq!(Shard::of(GOLDEN_HASH, 32), Shard(GOLDEN_SHARD));
        assert_eq!(Hash128::of(&bytes(&("tine".to_string(), 3i64))).0, GOLDEN_ROW);
    }

    /// As the reference implementation of XXH3 hashes the documented bytes.
    const GOLDEN_HASH: u64 = 0x5c5d_c643_8757_68f9;
    const GOLDEN_SHARD: u16 = 11;
    const GOLDEN_ROW: u128 = 0x6783_6560_5ffa_48d8_5a1a_a684_9395_6bd1;

    #[test]
    fn a_nul_is_found_wherever_it_is() {
        for length in 0..40 {
            let text = "\u{1}\u{80}".repeat(length);
            assert_eq!(check_text(&text), Ok(()));
            for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
                let mut text = text.clone();
                text.insert(at, '\0');
                assert_eq!(check_text(&text), Err(Unfit::Nul { at }));
            }
        }
    }

    #[test]
    fn a_tuple_goes_to_columns_and_back() {
        let value = ("a".to_string(), vec![0u8], -5i64);
        let mut build = <(String, Vec<u8>, i64)>::build(1);
        value.clone().push(&mut build);
        let mut columns = Vec::new();
        <(String, Vec<u8>, i64)>::finish(build, &mut columns);
        assert_eq!(columns.iter().map(Column::kind).collect::<Vec<_>>(), kinds::<(String, Vec<u8>, i64)>());
        assert_eq!(Columns::read(&mut columns.iter(), 0), Some(value));
        assert_eq!(<(String, i64)>::read(&mut columns.iter(), 0), None);
    }

    proptest! {
        #[test]
        fn canonical_bytes_sort_like_values(
            a in any::<(Vec<u8>, i64, String)>(),
            b in any::<(Vec<u8>, i64, String)>(),
        ) {
            prop_assume!(a.2.check().is_ok() && b.2.check().is_ok());
            prop_assert_eq!(a.cmp(&b), bytes(&a).cmp(&bytes(&b)));
            let (a, b) = ((a.0, a.2), (b.0, b.2));
            prop_assert_eq!(a.cmp(&b), bytes(&a).cmp(&bytes(&b)));
        }
    }
}
