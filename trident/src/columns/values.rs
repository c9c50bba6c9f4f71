//! What one column holds: texts, bytes and integers, their canonical bytes among them.

use std::{hash::Hasher, slice};

use compact_str::CompactString;
use tine_state::{Column, ColumnType};

use super::{Columns, Lends, Unfit, check_text};

const BYTES: u8 = 1;
const TEXT: u8 = 2;
const BIGINT: u8 = 3;
const END: u8 = 0;
const ESCAPE: u8 = 0xff;
const SIGN: u64 = 1 << 63;

impl Lends for String {
    type At<'b> = &'b str;
}

/// Both kinds of texts that a row owns; columns of both are `String`s.
macro_rules! text {
    ($text:ident, $given:ident => $column:expr) => {
        impl Columns for $text {
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
                let $given = self;
                build.push($column);
            }

            fn finish(build: Vec<String>, out: &mut Vec<Column>) {
                out.push(Column::Text(build));
            }

            fn read(columns: &mut slice::Iter<'_, Column>, row: usize) -> Option<$text> {
                match columns.next()? {
                    Column::Text(values) => values.get(row).map($text::from),
                    _ => None,
                }
            }
        }
    };
}

text!(String, text => text);
// A text of up to 24 bytes lies in the row itself.
text!(CompactString, text => text.into_string());

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

fn encode_text(text: &str, out: &mut Vec<u8>) {
    out.push(TEXT);
    out.extend_from_slice(text.as_bytes());
    out.push(END);
}
