//! The usual closures, from the flags of `tine audit`: which key a record has, which values it gives.
//!
//! A record that has no such key or value (no text, no JSON, no such field, another type) is left out and counted as such:
//! a topology either leaves it out too, by its policy, or has halted in front of it.

use std::str::FromStr;

use serde_json::Value;

use crate::record::text;
use crate::{Emit, Part, Record};

/// What the key of a record's rows is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Key {
    /// Its value, as text.
    Value,
    /// Its value, as bytes.
    Bytes,
    /// Its key, as text.
    RecordKey,
    /// Each word of its value: a row for each.
    Words,
    /// Fields of its value, which is JSON.
    Json(Vec<Pointer>),
}

/// A place in a JSON document, such as `/user/name` (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(String);

impl FromStr for Pointer {
    type Err = String;

    /// Reads `json:/user/name`.
    fn from_str(text: &str) -> Result<Pointer, String> {
        match text.strip_prefix("json:") {
            Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => Ok(Pointer(pointer.to_owned())),
            _ => Err(format!("{text:?} is no JSON pointer: give json:/field, json:/outer/inner or json:/list/0")),
        }
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Key, String> {
        match text {
            "value" => Ok(Key::Value),
            "bytes" => Ok(Key::Bytes),
            "record-key" => Ok(Key::RecordKey),
            "words" => Ok(Key::Words),
            _ if text.starts_with("json:") => text.split(',').map(str::parse).collect::<Result<_, _>>().map(Key::Json),
            _ => Err(format!(
                "{text:?} is no key: give value, bytes, words, record-key, or JSON pointers such as json:/user,json:/day"
            )),
        }
    }
}

/// A closure for [`Audit::run`](crate::Audit::run): rows with this key, and a value for each pointer.
pub fn rows(key: Key, values: Vec<Pointer>) -> impl Fn(&Record<'_>, &mut Emit) {
    move |record, emit| {
        if emitted(&key, &values, record, emit).is_none() {
            emit.leave_out();
        }
    }
}

/// `None` when the record is no row.
fn emitted(key: &Key, values: &[Pointer], record: &Record<'_>, emit: &mut Emit) -> Option<()> {
    let value = record.value?;
    let needs_json = !values.is_empty() || matches!(key, Key::Json(_));
    let json: Value = if needs_json { serde_json::from_slice(value).ok()? } else { Value::Null };
    let numbers: Vec<i64> = values.iter().map(|Pointer(at)| json.pointer(at)?.as_i64()).collect::<Option<_>>()?;
    match key {
        Key::Value => emit.row(&[Part::Text(text(value)?)], &numbers),
        Key::Bytes => emit.row(&[Part::Bytes(value)], &numbers),
        Key::RecordKey => emit.row(&[Part::Text(text(record.key?)?)], &numbers),
        Key::Words => text(value)?.split_whitespace().for_each(|word| emit.row(&[Part::Text(word)], &numbers)),
        Key::Json(pointers) => {
            let parts = pointers.iter().map(|Pointer(at)| part(json.pointer(at)?));
            emit.row(&parts.collect::<Option<Vec<_>>>()?, &numbers);
        }
    }
    Some(())
}

fn part(value: &Value) -> Option<Part<'_>> {
    match value {
        Value::String(text) => Some(Part::Text(text)),
        Value::Number(number) => number.as_i64().map(Part::Int),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{KeyType, Taken, shown};

    fn made(key: &str, values: &[&str], types: &[KeyType], value: &[u8]) -> Vec<(String, Vec<i64>)> {
        let values = values.iter().map(|value| value.parse().unwrap()).collect::<Vec<_>>();
        let mut emit = Emit::new(types.to_vec(), values.len());
        let (key, value) = (key.parse().unwrap(), Some(value));
        let record = Record { topic: "t", partition: 0, offset: 0, timestamp_ms: None, key: Some(b"k"), value };
        rows(key, values)(&record, &mut emit);
        let mut made = Vec::new();
        let taken = emit.take(|key, values| {
            made.push((shown(key), values.to_vec()));
            Ok(())
        });
        assert!(matches!(taken, Taken::Rows | Taken::LeftOut), "{taken:?}");
        made
    }

    fn row(key: &str, values: &[i64]) -> (String, Vec<i64>) {
        (key.to_owned(), values.to_vec())
    }

    #[test]
    fn the_usual_keys_make_their_rows() {
        let text = [KeyType::Text];
        assert_eq!(made("words", &[], &text, b" a b\ta "), ["\"a\"", "\"b\"", "\"a\""].map(|word| row(word, &[])));
        assert_eq!(made("value", &[], &text, b"a b"), [row("\"a b\"", &[])]);
        assert_eq!(made("record-key", &[], &text, b"\xff"), [row("\"k\"", &[])]);
        assert_eq!(made("bytes", &[], &[KeyType::Bytes], b"\xff"), [row("\\xff", &[])]);
        let json = br#"{"user":{"name":"ann"},"day":3,"cents":-5}"#;
        let key = "json:/user/name,json:/day";
        assert_eq!(
            made(key, &["json:/cents", "json:/day"], &[KeyType::Text, KeyType::Int], json),
            [row("\"ann\", 3", &[-5, 3])]
        );
    }

    #[test]
    fn records_that_are_no_rows_are_left_out() {
        let text = [KeyType::Text];
        assert_eq!(made("value", &[], &text, b"\xff"), []);
        assert_eq!(made("words", &[], &text, b"a\0b"), []);
        assert_eq!(made("json:/user", &[], &text, b"{}"), []);
        assert_eq!(made("json:/user", &[], &text, b"no json"), []);
        assert_eq!(made("json:/user", &["json:/n"], &text, br#"{"user":"a","n":1.5}"#), []);
    }

    #[test]
    fn a_wrong_flag_is_named() {
        assert!("word".parse::<Key>().unwrap_err().contains("\"word\" is no key"));
        assert!("json:user".parse::<Key>().unwrap_err().contains("json:/field"));
    }
}
