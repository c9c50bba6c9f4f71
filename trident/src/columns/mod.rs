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

mod tuples;
mod values;

use std::{fmt, hash::Hasher, slice};

use serde::{Serialize, de::DeserializeOwned};
use tine_state::{Column, ColumnType};

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

#[cfg(test)]
mod tests;
