//! The head of a record batch (magic 2), and the checksum over what follows it.
//!
//! ```text
//!   0            8        12      16     17   21          23                 27
//!   base offset  length   epoch   magic  crc  attributes  last offset delta  base timestamp ...
//!                |------- length counts from here -----------------------------------------
//!                                             |------- the checksum covers from here ------
//! ```
//!
//! The base offset and the leader's epoch are outside the checksum, because the broker writes them after the producer.

use super::{DecodeError, inflate::Codec};

/// Bytes of a head, up to the records.
const HEAD: usize = 61;
/// Bytes that the length does not count: base offset and the length itself.
const UNCOUNTED: usize = 12;
/// Where the magic byte is, in batches and in the older message sets.
const MAGIC: usize = 16;
/// Where the checksummed part begins.
const CHECKED: usize = 21;

/// A whole batch, its head read and its checksum not yet compared.
pub(super) struct Batch<'s> {
    pub(super) id: Id,
    /// Offset of the record with delta 0.
    pub(super) base: u64,
    /// The offset after the batch's last one, whether a record has it or compaction has taken it away.
    pub(super) next: u64,
    /// Bytes of the whole batch.
    pub(super) bytes: usize,
    pub(super) codec: Codec,
    pub(super) times: Times,
    pub(super) transactional: bool,
    pub(super) control: bool,
    /// -1 when the producer has none.
    pub(super) producer_id: i64,
    /// How many records there are said to be.
    pub(super) count: u32,
    /// The records, as they were sent: compressed or not.
    pub(super) body: &'s [u8],
    checked: &'s [u8],
}

/// Which batch of a response it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    base: i64,
    length: i32,
    crc: u32,
}

/// Where a batch's records have their timestamps from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Times {
    /// The producer: each is the base plus the record's delta.
    Created { base: i64 },
    /// The broker: all have the time when the batch was appended.
    Appended { at: i64 },
}

impl<'s> Batch<'s> {
    /// The head of the first batch of `set`; `None` when it is not there as a whole. The broker cuts sets at a number of
    /// bytes, so the last batch is often incomplete.
    pub(super) fn first(set: &'s [u8]) -> Result<Option<Batch<'s>>, DecodeError> {
        let Some(start) = set.first_chunk::<{ MAGIC + 1 }>() else { return Ok(None) };
        let base = i64::from_be_bytes(field(start, 0));
        let length = i32::from_be_bytes(field(start, 8));
        let broken = |what: String| Err(corrupt(base, &what));
        let magic = start[MAGIC];
        if magic < 2 {
            return broken(format!(
                "it has the old message format v{magic}, and only v2 (Kafka 0.11 and newer) can be read; copy the topic \
                 with a newer producer"
            ));
        }
        if magic != 2 {
            return broken(format!("it has the unknown format v{magic}"));
        }
        let Some(bytes) = usize::try_from(length).ok().map(|length| length + UNCOUNTED).filter(|bytes| *bytes >= HEAD)
        else {
            return broken(format!("its length is said to be {length} bytes, and a head alone has more"));
        };
        let Some(whole) = set.get(..bytes) else { return Ok(None) };
        let Some(head) = whole.first_chunk::<HEAD>() else { return Ok(None) };
        let attributes = i16::from_be_bytes(field(head, 21));
        let last_delta = i32::from_be_bytes(field(head, 23));
        let count = i32::from_be_bytes(field(head, 57));
        let Some((first, next)) = span(base, last_delta) else {
            return broken(format!("its last offset is said to be {last_delta} after its first"));
        };
        let Ok(count) = u32::try_from(count) else {
            return broken(format!("it is said to have {count} records"));
        };
        let Some(codec) = Codec::of(attributes) else {
            return broken(format!("its attributes {attributes:#06x} name an unknown compression"));
        };
        Ok(Some(Batch {
            id: Id { base, length, crc: u32::from_be_bytes(field(head, 17)) },
            base: first,
            next,
            bytes,
            codec,
            times: match attributes & LOG_APPEND_TIME {
                0 => Times::Created { base: i64::from_be_bytes(field(head, 27)) },
                _ => Times::Appended { at: i64::from_be_bytes(field(head, 35)) },
            },
            transactional: attributes & TRANSACTIONAL != 0,
            control: attributes & CONTROL != 0,
            producer_id: i64::from_be_bytes(field(head, 43)),
            count,
            body: &whole[HEAD..],
            checked: &whole[CHECKED..],
        }))
    }

    /// Compares the checksum.
    pub(super) fn check(&self) -> Result<(), DecodeError> {
        let found = crc32c::crc32c(self.checked);
        if found == self.id.crc {
            return Ok(());
        }
        Err(self.corrupt(&format!("its checksum is {found:#010x} and should be {:#010x}", self.id.crc)))
    }

    /// An error that names this batch.
    #[cold]
    pub(super) fn corrupt(&self, what: &str) -> DecodeError {
        corrupt(self.id.base, what)
    }
}

const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// The first offset and the one after the last; `None` when they are none.
fn span(base: i64, last_delta: i32) -> Option<(u64, u64)> {
    let first = u64::try_from(base).ok()?;
    let next = first.checked_add(u64::try_from(last_delta).ok()?)?.checked_add(1)?;
    i64::try_from(next).ok()?;
    Some((first, next))
}

/// `N` bytes of a head; the places are constants, so this compiles to a load.
#[inline(always)]
fn field<const N: usize>(head: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[at..at + N]);
    bytes
}

#[cold]
fn corrupt(base: i64, what: &str) -> DecodeError {
    DecodeError::Corrupt(format!("the record batch at offset {base} cannot be read: {what}"))
}
