//! What a source lends to a topology: rows of some type, decoded from records, and what happens to records that are not.

pub mod json;

use std::{fmt, marker::PhantomData, str::Utf8Error, sync::Arc};

use ascii::AsciiStr;
pub use json::{Json, Lend};

use crate::{
    columns::nul,
    source::{Record, Source},
};

/// What a source's rows are inside a stage closure: a type for each lifetime of the fetch buffer.
pub trait Row: 'static {
    /// The row as closures see it, borrowed from the fetch buffer.
    type At<'b>;

    /// Decodes a record whose value is not null. `partition` is the partition's name.
    fn decode<'b>(partition: &'b str, record: &Record<'b>, value: &'b [u8]) -> Result<Self::At<'b>, Invalid>;

    /// Decodes a record whose value is null (a tombstone); `None` when this row type has no place for it, which is
    /// when [`Input::on_null`] decides.
    fn decode_null<'b>(_partition: &'b str, _record: &Record<'b>) -> Option<Self::At<'b>> {
        None
    }
}

/// Why a record is not a row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalid {
    /// Not UTF-8; the byte at which it stops being it.
    NotUtf8 {
        /// Index of the first wrong byte.
        at: usize,
    },
    /// UTF-8, but with a NUL, which SQL texts cannot hold.
    Nul {
        /// Index of the NUL.
        at: usize,
    },
    /// Not the JSON that the row type asks for.
    Json {
        /// The line of the value, from 1.
        line: usize,
        /// The byte of the line, from 1.
        column: usize,
        /// What is wrong there, or was expected.
        what: Box<str>,
    },
    /// A null value where a row was asked for.
    Null,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::NotUtf8 { at } => write!(f, "the value is not UTF-8 at byte {at}"),
            Invalid::Nul { at } => write!(f, "the value has a NUL at byte {at}, which SQL text cannot hold"),
            Invalid::Json { line, column, what } => {
                write!(f, "the value is not the JSON that was expected, at line {line} column {column}: {what}")
            }
            Invalid::Null => write!(f, "the value is null (a tombstone)"),
        }
    }
}

/// Lends `&str`: the record's value as UTF-8 text without NUL.
#[derive(Debug)]
pub enum Text {}

impl Row for Text {
    type At<'b> = &'b str;

    #[inline]
    fn decode<'b>(_: &'b str, _: &Record<'b>, value: &'b [u8]) -> Result<&'b str, Invalid> {
        let text = text(value).map_err(|error| Invalid::NotUtf8 { at: error.valid_up_to() })?;
        match nul(value) {
            Some(at) => Err(Invalid::Nul { at }),
            None => Ok(text),
        }
    }
}

/// Up to this many bytes it pays to look whether they are ASCII, which is found out in a nanosecond or two; the standard library goes
/// byte by byte there. Longer ones it reads by words.
const SHORT: usize = 64;

#[inline]
fn text(value: &[u8]) -> Result<&str, Utf8Error> {
    if value.len() <= SHORT
        && let Ok(text) = AsciiStr::from_ascii(value)
    {
        return Ok(text.as_str());
    }
    std::str::from_utf8(value)
}

/// Lends `&[u8]`: the record's value as it is.
#[derive(Debug)]
pub enum Bytes {}

impl Row for Bytes {
    type At<'b> = &'b [u8];

    fn decode<'b>(_: &'b str, _: &Record<'b>, value: &'b [u8]) -> Result<&'b [u8], Invalid> {
        Ok(value)
    }
}

/// Lends [`Message`]: the whole record with its metadata, tombstones included.
#[derive(Debug)]
pub enum Records {}

/// A record with everything that its source says about it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'b> {
    /// The partition's name: for Kafka `topic/partition`.
    pub partition: &'b str,
    /// Position, timestamp, key, value, headers.
    pub record: Record<'b>,
}

impl Row for Records {
    type At<'b> = Message<'b>;

    fn decode<'b>(partition: &'b str, record: &Record<'b>, _: &'b [u8]) -> Result<Message<'b>, Invalid> {
        Ok(Message { partition, record: *record })
    }

    fn decode_null<'b>(partition: &'b str, record: &Record<'b>) -> Option<Message<'b>> {
        Some(Message { partition, record: *record })
    }
}

/// What happens to a record that is not a row, or at which the user's function failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The group halts and names the record by partition and position: nothing is lost. The default.
    #[default]
    Fail,
    /// The record is left out and counted.
    Skip,
    /// The record becomes a row of `tine_dead_letters`, exactly once, in the same transaction as everything else.
    DeadLetter,
}

/// The source can read every range again as it was: replays are the same.
#[derive(Debug)]
pub enum Transactional {}

/// A source with its row type `T` and its replay promise `R`: what `Topology::source` takes.
pub struct Input<T: Row, R = Transactional> {
    /// The source.
    pub source: Arc<dyn Source>,
    /// What happens to values that are not a `T`.
    pub on_invalid: Policy,
    /// What happens to null values.
    pub on_null: Policy,
    kind: PhantomData<fn() -> (T, R)>,
}

impl<T: Row> Input<T, Transactional> {
    /// An input over a source whose ranges replay as they were; connectors call this from `text()`, `bytes()`, ….
    pub fn transactional(source: Arc<dyn Source>) -> Input<T, Transactional> {
        Input { source, on_invalid: Policy::Fail, on_null: Policy::Fail, kind: PhantomData }
    }
}

impl<T: Row, R> Input<T, R> {
    /// What happens to values that are not a `T` (default: fail).
    pub fn on_invalid(mut self, policy: Policy) -> Self {
        self.on_invalid = policy;
        self
    }

    /// What happens to null values, tombstones (default: fail).
    pub fn on_null(mut self, policy: Policy) -> Self {
        self.on_null = policy;
        self
    }
}

impl<T: Row, R> fmt::Debug for Input<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Input({})", self.source.describe())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(value: &[u8]) -> Result<&str, Invalid> {
        let record = Record { position: 0, timestamp_ms: -1, key: None, value: Some(value), headers: &[] };
        let text = Text::decode("p", &record, value)?;
        assert_eq!(text.as_bytes(), value);
        Ok(text)
    }

    #[test]
    fn a_text_ends_at_its_first_wrong_byte_or_nul_wherever_that_is() {
        for length in 0..2 * SHORT {
            let plain = vec![b'a'; length];
            assert_eq!(decoded(&plain).map(str::len), Ok(length));
            for at in 0..length {
                let with = |byte| [&plain[..at], &[byte], &plain[at + 1..]].concat();
                assert_eq!(decoded(&with(0)), Err(Invalid::Nul { at }));
                assert_eq!(decoded(&with(0xff)), Err(Invalid::NotUtf8 { at }));
            }
        }
    }

    proptest! {
        #[test]
        fn text_is_what_the_standard_library_says_it_is(value: Vec<u8>, text in ".{0,40}") {
            for value in [&*value, text.as_bytes()] {
                let error = std::str::from_utf8(value).map_err(|error| Invalid::NotUtf8 { at: error.valid_up_to() });
                let nul = value.iter().position(|byte| *byte == 0).map(|at| Invalid::Nul { at });
                prop_assert_eq!(decoded(value).err(), error.err().or(nul));
            }
        }
    }
}
