//! A fetched record set, kept until all of it was lent.
//!
//! Only the batches' heads are looked at here: how far the set reaches says where the next fetch goes on, before anything
//! was decoded. Whether the batches are sound, `records` says when it reads them.

use std::ops::Range;

use super::frame::Buffer;
use crate::records::{Aborted, Decoder};

/// The place of the magic byte, in the oldest formats too.
const MAGIC: usize = 16;

/// The head of a batch up to its last offset.
const HEAD: usize = 27;

/// A record set in the buffer in which it came.
#[derive(Debug)]
pub(crate) struct RecordSet {
    pub(crate) buffer: Buffer,
    /// What is not yet lent.
    pub(crate) rest: Range<usize>,
    /// Until the decoder was told.
    pub(crate) aborted: Option<Vec<Aborted>>,
    /// Knows what a part lent already means for the rest; there is one from the first decode on.
    pub(crate) decoder: Option<Decoder>,
    /// The offset after the last whole batch.
    pub(crate) end: u64,
}

/// How far a set's whole batches reach, and in which epoch the last one was written (-1 when it does not say). `None` when
/// there is no whole batch.
pub(crate) fn reach(set: &[u8]) -> Result<Option<(u64, i32)>, &'static str> {
    let (mut rest, mut reached) = (set, None);
    while let Some(head) = rest.get(..HEAD) {
        let base = i64::from_be_bytes(fixed(head, 0));
        let length = usize::try_from(i32::from_be_bytes(fixed(head, 8))).map_err(|_| "a batch of negative length")?;
        let (delta, epoch) = match head[MAGIC] {
            2 => (i32::from_be_bytes(fixed(head, 23)), i32::from_be_bytes(fixed(head, 12))),
            // A message of an older format, which `records` refuses in words.
            _ => (0, -1),
        };
        if length < HEAD - 12 {
            return Err("a batch shorter than its head");
        }
        let Some(after) = rest.get(12 + length..) else { break };
        let end = u64::try_from(base).ok().zip(u64::try_from(delta).ok());
        let (base, delta) = end.ok_or("a batch of negative offsets")?;
        // Both are below 2^63, so the sum fits; what follows must not run beyond what Kafka can count.
        let end = base + delta + 1;
        if end > i64::MAX as u64 {
            return Err("a batch beyond the last offset");
        }
        reached = Some((end, epoch));
        rest = after;
    }
    Ok(reached)
}

fn fixed<const N: usize>(head: &[u8], at: usize) -> [u8; N] {
    let mut fixed = [0; N];
    fixed.copy_from_slice(&head[at..at + N]);
    fixed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(base: i64, last: i32, epoch: i32) -> Vec<u8> {
        let mut batch = vec![0; 61];
        batch[..8].copy_from_slice(&base.to_be_bytes());
        batch[8..12].copy_from_slice(&49i32.to_be_bytes());
        batch[12..16].copy_from_slice(&epoch.to_be_bytes());
        batch[MAGIC] = 2;
        batch[23..27].copy_from_slice(&last.to_be_bytes());
        batch
    }

    #[test]
    fn a_set_reaches_to_its_last_whole_batch() {
        assert_eq!(reach(&[]), Ok(None));
        let two = [batch(10, 4, 7), batch(15, 0, 8)].concat();
        assert_eq!(reach(&two), Ok(Some((16, 8))));
        for cut in 61..two.len() {
            assert_eq!(reach(&two[..cut]), Ok(Some((15, 7))), "{cut}");
        }
        assert_eq!(reach(&two[..60]), Ok(None));
    }

    #[test]
    fn impossible_heads_are_refused() {
        assert!(reach(&batch(-1, 0, 0)).is_err());
        assert!(reach(&batch(0, -1, 0)).is_err());
        assert!(reach(&batch(i64::MAX, 1, 0)).is_err());
        let mut short = batch(0, 0, 0);
        short[8..12].copy_from_slice(&1i32.to_be_bytes());
        assert!(reach(&short).is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_looked_at_without_a_panic(bytes: Vec<u8>) {
            let _ = reach(&bytes);
        }
    }
}
