//! Rows in bytes: what a task of another process is sent, and unpacks where it has the time for it.
//!
//! A chunk is its rows one after the other, each its hash, key and value as [`codec`](tine_core::codec) writes them. Nothing
//! says how many there are: what is read is there, so a hostile number makes nobody set memory aside.

use std::any::Any;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tine_core::{codec, failure::Failure, transport::FRAME_BYTES_MAX};

use crate::{fold::BatchRow, pipeline::Rows};

/// A chunk is ended when it has this many bytes: large enough that a frame's head costs nothing, small enough that several
/// are on their way at a time.
const CHUNK_BYTES: usize = 512 << 10;

/// What a row may take: a frame without room for a head and a full chunk before it.
const ROW_BYTES_MAX: usize = FRAME_BYTES_MAX - CHUNK_BYTES - (64 << 10);

/// A chunk of rows in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    pub(crate) count: u64,
    pub(crate) bytes: Bytes,
}

impl Packed {
    /// Packs rows; `Poison` for a row that fits into no frame.
    pub(crate) fn pack<K: Serialize, H: Serialize>(rows: &[BatchRow<K, H>]) -> Result<Vec<Packed>, Failure> {
        let (mut chunks, mut bytes, mut count) = (Vec::new(), Vec::new(), 0);
        for row in rows {
            let before = bytes.len();
            codec::append(&(row.hash, &row.key, &row.held), &mut bytes)
                .map_err(|error| Failure::poison(format!("a row cannot be written in bytes: {error}")))?;
            count += 1;
            match bytes.len() - before {
                long if long > ROW_BYTES_MAX => {
                    return Err(Failure::poison(format!(
                        "a row of {long} bytes, and workers send one another at most {ROW_BYTES_MAX}: keep less in it"
                    )));
                }
                _ if bytes.len() >= CHUNK_BYTES => {
                    chunks.push(Packed { count: std::mem::take(&mut count), bytes: std::mem::take(&mut bytes).into() });
                }
                _ => {}
            }
        }
        if count > 0 {
            chunks.push(Packed { count, bytes: bytes.into() });
        }
        Ok(chunks)
    }

    /// Reads the rows back. `Fatal`: whoever sent them is another program under the same fingerprint.
    pub(crate) fn unpack<K: DeserializeOwned, H: DeserializeOwned>(self) -> Result<Vec<BatchRow<K, H>>, Failure> {
        let strange = |why: &dyn std::fmt::Display| {
            Failure::fatal(format!(
                "rows of another worker cannot be read ({why}): run the same program everywhere, or give it another version"
            ))
        };
        let (mut rest, mut rows) = (&self.bytes[..], Vec::new());
        while !rest.is_empty() {
            let (hash, key, held) = codec::take(&mut rest).map_err(|error| strange(&error))?;
            rows.push(BatchRow { hash, key, held });
        }
        match rows.len() as u64 == self.count {
            true => Ok(rows),
            false => Err(strange(&format_args!("{} rows where {} were promised", rows.len(), self.count))),
        }
    }
}

impl Rows for Packed {
    fn count(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    fn split(self: Box<Self>, _: &[usize], _: usize) -> Vec<Box<dyn Rows>> {
        unreachable!("rows are parted before they are packed")
    }

    fn boxed_clone(&self) -> Box<dyn Rows> {
        Box::new(self.clone())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(keys: &[(String, i128)]) -> Vec<BatchRow<String, i128>> {
        keys.iter().map(|(key, held)| BatchRow { hash: key.len() as u64, key: key.clone(), held: *held }).collect()
    }

    proptest! {
        #[test]
        fn rows_come_back_as_they_went(keys in prop::collection::vec((".{0,20}", any::<i128>()), 0..50)) {
            let back: Vec<_> = Packed::pack(&rows(&keys)).unwrap().into_iter()
                .flat_map(|chunk| chunk.unpack::<String, i128>().unwrap())
                .map(|row| (row.key, row.held))
                .collect();
            prop_assert_eq!(back, keys);
        }

        #[test]
        fn x3_hostile_bytes_are_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0u64..9) {
            let _ = Packed { count, bytes: bytes.into() }.unpack::<String, Vec<i64>>();
        }
    }

    #[test]
    fn r2_chunks_fit_into_frames_and_a_row_that_does_not_is_named() {
        let long = "x".repeat(300 << 10);
        let chunks = Packed::pack(&rows(&vec![(long, 1); 5])).unwrap();
        assert_eq!(chunks.iter().map(|chunk| chunk.count).collect::<Vec<_>>(), [2, 2, 1]);
        assert!(chunks.iter().all(|chunk| chunk.bytes.len() < FRAME_BYTES_MAX / 2));
        let refused = Packed::pack(&rows(&[("x".repeat(4 << 20), 1)])).unwrap_err();
        assert!(refused.message.contains("keep less in it"), "{refused}");
    }

    #[test]
    fn a_count_that_does_not_agree_is_refused() {
        let chunk = Packed::pack(&rows(&[("a".to_owned(), 1)])).unwrap().remove(0);
        assert!(Packed { count: 2, ..chunk }.unpack::<String, i128>().is_err());
    }
}
