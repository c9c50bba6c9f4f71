//! Record sets: any bytes are records or corrupt, and how a set is cut into ranges changes nothing.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
};

use tine_core::failure::Failure;
use tine_trident::source::Record;

use crate::{
    memory,
    records::{Aborted, Decoder, Limits, Wanted},
};

const LIMITS: Limits = Limits { batch_bytes_max: 64 << 10 };

/// What a decoder may hold: a body that is no longer compressed, in a buffer that has just grown, its headers, which take up to
/// 16 times their bytes, and the codecs' own tables.
const HELD: usize = 4 << 20;
/// Two blocks of the largest size that a frame of LZ4 may ask for, and its window.
const HELD_FOR_LZ4: usize = 20 << 20;

/// Where a batch's checksum is, and from where on it counts.
const CRC: std::ops::Range<usize> = 17..21;
const ATTRIBUTES: usize = 22;

/// The first bytes say what is wanted, the rest is the set; its checksums are mended, or nothing behind them would be seen.
///
/// # Panics
/// When a rule is broken.
pub fn judge(input: &[u8]) {
    let Some((&[from, cut, to, flags, producer, first], set)) = input.split_first_chunk() else { return };
    let mut set = set.to_vec();
    let has_lz4 = mend(&mut set);
    let base = set.first_chunk().map_or(0, |base| i64::from_be_bytes(*base).max(0).cast_unsigned());
    let from = base.saturating_add(from.into());
    let cut = from.saturating_add(cut.into());
    let to = if to == u8::MAX { u64::MAX } else { cut.saturating_add(to.into()) };
    let aborted = (flags & 2 != 0).then(|| Aborted {
        producer_id: producer.into(),
        first_offset: base.saturating_add(first.into()).min(i64::MAX.cast_unsigned()).cast_signed(),
    });
    let wanted = |from, to| Wanted { from, to, headers: flags & 1 != 0 };
    memory::at_most(if has_lz4 { HELD_FOR_LZ4 } else { HELD }, || {
        let whole = decode(&set, aborted, &[wanted(from, to)]);
        let parts = decode(&set, aborted, &[wanted(from, cut), wanted(cut, to)]);
        assert_eq!(whole.is_some(), parts.is_some(), "in one range {whole:?}, in two {parts:?}");
        assert_eq!(whole, parts, "in one range and in two");
    });
}

/// Gives every batch that is there as a whole the checksum of its bytes. Whether one may be compressed with LZ4.
fn mend(set: &mut [u8]) -> bool {
    let (mut at, mut has_lz4) = (0, false);
    while let Some(head) = set[at..].first_chunk::<12>() {
        let length = i32::from_be_bytes([head[8], head[9], head[10], head[11]]);
        let Ok(length) = usize::try_from(length) else { break };
        let Some(batch) = set[at..].get_mut(..length + 12).filter(|batch| batch.len() > ATTRIBUTES) else { break };
        let crc = crc32c::crc32c(&batch[CRC.end..]);
        batch[CRC].copy_from_slice(&crc.to_be_bytes());
        has_lz4 |= batch[ATTRIBUTES] & 7 == 3;
        at += length + 12;
    }
    has_lz4
}

/// What was lent, as a number of records and a hash of them, and how far it went; `None` when the set is corrupt.
fn decode(set: &[u8], aborted: Option<Aborted>, ranges: &[Wanted]) -> Option<(u64, u64, u64)> {
    let mut decoder = Decoder::new(LIMITS);
    decoder.begin(aborted.into_iter().collect());
    let (mut lent, mut hasher) = (0, DefaultHasher::new());
    let (mut rest, mut reached) = (set, ranges[0].from);
    for wanted in ranges {
        if reached < wanted.from {
            break;
        }
        let mut last = None;
        let progress = decoder.decode(rest, wanted, &mut |chunk| {
            for record in chunk {
                let at = record.position;
                assert!((wanted.from..wanted.to).contains(&at), "{at} was lent, wanted was {wanted:?}");
                assert!(last < Some(at), "{at} was lent after {last:?}");
                last = Some(at);
                lent += 1;
                feed(record, &mut hasher);
            }
            Ok::<_, Failure>(())
        });
        let progress = progress.ok()?;
        assert!(progress.next <= wanted.to.max(wanted.from), "{progress:?} of {wanted:?}");
        rest = rest.get(progress.consumed..).expect("no more is consumed than is there");
        reached = progress.next;
    }
    Some((lent, hasher.finish(), reached))
}

fn feed(record: &Record<'_>, hasher: &mut DefaultHasher) {
    (record.position, record.timestamp_ms, record.key, record.value, record.headers).hash(hasher);
}
