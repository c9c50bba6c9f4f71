//! What a closure sees and makes: a [`Record`] of the log, and rows for the table.
//!
//! Keys are kept in an encoding whose bytes sort as the columns do, so that everything after this file compares bytes.

use std::fmt::Write;

/// A longer key is in no table of tine's: such a record is left out there, and here.
const KEY_BYTES_MAX: usize = 1_024;

const BYTES: u8 = 1;
const TEXT: u8 = 2;
const INT: u8 = 3;

/// A record as it lies in Kafka.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition's number.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// The record's value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// The value as text that a SQL column can hold.
    pub fn text(&self) -> Option<&'a str> {
        text(self.value?)
    }
}

/// Bytes as text that a SQL column can hold: UTF-8 without NUL.
pub(crate) fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// A key column's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A column of type `text`.
    Text(&'a str),
    /// A column of type `bytea`.
    Bytes(&'a [u8]),
    /// A column of type `bigint`.
    Int(i64),
}

/// Takes the rows that one record makes.
#[derive(Debug, Default)]
pub struct Emit {
    keys: Vec<u8>,
    ends: Vec<usize>,
    values: Vec<i64>,
    key_types: Vec<u8>,
    values_each: usize,
    left_out: bool,
    misused: Option<String>,
}

impl Emit {
    /// For a table with key columns of these types, and aggregates of which so many take a value.
    pub(crate) fn new(key_types: Vec<KeyType>, values_each: usize) -> Emit {
        Emit { key_types: key_types.into_iter().map(KeyType::tag).collect(), values_each, ..Emit::default() }
    }

    /// One row: its key columns in the table's order, and a value for each aggregate that is no count, in the order in which
    /// they were named. A key that no table of tine's can hold leaves the whole record out.
    pub fn row(&mut self, key: &[Part<'_>], values: &[i64]) {
        let types = key.iter().map(|part| part.tag());
        if !types.eq(self.key_types.iter().copied()) || values.len() != self.values_each {
            let row = format!("a row with key {key:?} and {} values", values.len());
            let (types, each) = (self.key_types.iter().map(|tag| name_of(*tag)).collect::<Vec<_>>(), self.values_each);
            self.misused.get_or_insert(format!("{row}, where the table has key columns {types:?} and {each} values"));
            return;
        }
        if key.iter().map(Part::bytes).sum::<usize>() > KEY_BYTES_MAX || key.iter().any(Part::has_nul) {
            return self.leave_out();
        }
        key.iter().for_each(|part| part.encode(&mut self.keys));
        self.ends.push(self.keys.len());
        self.values.extend_from_slice(values);
    }

    /// The record counts for nothing, whatever rows it has made: what tine's policies do with records that are no rows.
    pub fn leave_out(&mut self) {
        self.left_out = true;
    }

    /// The rows since the last call, unless the record was left out; `Err` says how the closure did not fit the table.
    pub(crate) fn take(&mut self, mut each: impl FnMut(&[u8], &[i64]) -> Outcome) -> Taken {
        if let Some(misuse) = self.misused.take() {
            return Taken::Misused(misuse);
        }
        let left_out = std::mem::take(&mut self.left_out);
        let mut start = 0;
        for (nth, end) in self.ends.iter().enumerate().filter(|_| !left_out) {
            let values = &self.values[nth * self.values_each..(nth + 1) * self.values_each];
            if let Err(error) = each(&self.keys[start..*end], values) {
                return Taken::Failed(error);
            }
            start = *end;
        }
        self.keys.clear();
        self.ends.clear();
        self.values.clear();
        if left_out { Taken::LeftOut } else { Taken::Rows }
    }
}

pub(crate) type Outcome = Result<(), crate::AuditError>;

/// What became of a record.
#[derive(Debug)]
pub(crate) enum Taken {
    Rows,
    LeftOut,
    Misused(String),
    Failed(crate::AuditError),
}

/// The type of a key column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyType {
    Text,
    Bytes,
    Int,
}

impl KeyType {
    fn tag(self) -> u8 {
        match self {
            KeyType::Text => TEXT,
            KeyType::Bytes => BYTES,
            KeyType::Int => INT,
        }
    }
}

fn name_of(tag: u8) -> &'static str {
    match tag {
        TEXT => "text",
        BYTES => "bytea",
        _ => "bigint",
    }
}

impl Part<'_> {
    fn tag(&self) -> u8 {
        match self {
            Part::Text(_) => TEXT,
            Part::Bytes(_) => BYTES,
            Part::Int(_) => INT,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Part::Text(text) => text.len(),
            Part::Bytes(bytes) => bytes.len(),
            Part::Int(_) => 8,
        }
    }

    fn has_nul(&self) -> bool {
        matches!(self, Part::Text(text) if text.contains('\0'))
    }

    /// Appends bytes that sort as the values do, column after column.
    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        into.push(self.tag());
        match self {
            Part::Text(text) => {
                into.extend_from_slice(text.as_bytes());
                into.push(0);
            }
            Part::Bytes(bytes) => {
                for byte in *bytes {
                    into.push(*byte);
                    if *byte == 0 {
                        into.push(0xff);
                    }
                }
                into.push(0);
            }
            Part::Int(number) => into.extend_from_slice(&((*number as u64) ^ (1 << 63)).to_be_bytes()),
        }
    }
}

/// An encoded key for people.
pub(crate) fn shown(key: &[u8]) -> String {
    let (mut rest, mut parts) = (key, Vec::new());
    while let Some((tag, body)) = rest.split_first() {
        let (part, after) = match *tag {
            TEXT => until_nul(body),
            BYTES => bytes_shown(body),
            _ => int_shown(body),
        };
        parts.push(part);
        rest = after;
    }
    parts.join(", ")
}

fn until_nul(body: &[u8]) -> (String, &[u8]) {
    let end = body.iter().position(|byte| *byte == 0).unwrap_or(body.len());
    (format!("{:?}", String::from_utf8_lossy(&body[..end])), body.get(end + 1..).unwrap_or_default())
}

fn bytes_shown(mut body: &[u8]) -> (String, &[u8]) {
    let mut hex = "\\x".to_owned();
    while let Some((byte, rest)) = body.split_first() {
        body = rest;
        match (byte, body.split_first()) {
            (0, Some((0xff, rest))) => body = rest,
            (0, _) => break,
            _ => {}
        }
        // A string takes everything.
        let _ = write!(hex, "{byte:02x}");
    }
    (hex, body)
}

fn int_shown(body: &[u8]) -> (String, &[u8]) {
    let Some((number, rest)) = body.split_first_chunk::<8>() else { return ("?".to_owned(), &[]) };
    (((u64::from_be_bytes(*number) ^ (1 << 63)) as i64).to_string(), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(parts: &[Part<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        parts.iter().for_each(|part| part.encode(&mut bytes));
        bytes
    }

    #[test]
    fn keys_sort_as_their_columns_and_are_shown() {
        let ints = [i64::MIN, -1, 0, 7, i64::MAX].map(|n| encoded(&[Part::Int(n), Part::Text("a")]));
        assert!(ints.is_sorted());
        let texts = ["", "a", "a b", "ab", "ä"].map(|text| encoded(&[Part::Text(text), Part::Int(-1)]));
        assert!(texts.is_sorted());
        let bytes: [&[u8]; 5] = [b"", b"\0", b"\0a", b"\x01", b"a"];
        assert!(bytes.map(|bytes| encoded(&[Part::Bytes(bytes), Part::Int(-1)])).is_sorted());
        assert_eq!(
            shown(&encoded(&[Part::Text("ä\""), Part::Int(-3), Part::Bytes(b"\0\x01")])),
            r#""ä\"", -3, \x0001"#
        );
    }

    #[test]
    fn a_record_is_left_out_as_a_whole() {
        let mut emit = Emit::new(vec![KeyType::Text], 0);
        let rows = |emit: &mut Emit| {
            let mut rows = 0;
            let taken = emit.take(|_, _| {
                rows += 1;
                Ok(())
            });
            (rows, matches!(taken, Taken::LeftOut), matches!(taken, Taken::Misused(_)))
        };
        emit.row(&[Part::Text("fits")], &[]);
        emit.row(&[Part::Text(&"x".repeat(1_025))], &[]);
        assert_eq!(rows(&mut emit), (0, true, false));
        emit.row(&[Part::Text(&"x".repeat(1_024))], &[]);
        assert_eq!(rows(&mut emit), (1, false, false));
        emit.row(&[Part::Int(1)], &[]);
        assert_eq!(rows(&mut emit), (0, false, true));
    }
}
