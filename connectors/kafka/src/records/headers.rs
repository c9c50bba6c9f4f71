//! The headers of a record: a count, then names and values.

use tine_core::failure::Failure;

use super::varint::{int, nullable};

/// A name and what stands under it.
pub(super) type Header<'b> = (&'b str, Option<&'b [u8]>);

/// More than anybody gives a record. Each takes 32 bytes as long as it is lent, and two in a record: without a bound, a
/// compressed batch of some kilobytes could ask for gigabytes.
pub(super) const HEADERS_MAX: usize = 1 << 16;

/// Why headers cannot be lent.
pub(super) enum Unreadable {
    /// They are not what Kafka's format says.
    Corrupt,
    /// The name of the header with this index is not UTF-8.
    Name(usize),
    /// There are so many, more than [`HEADERS_MAX`].
    Many(usize),
}

/// Appends the headers in `bytes` to `into`.
pub(super) fn parse<'b>(mut bytes: &'b [u8], into: &mut Vec<Header<'b>>) -> Result<(), Unreadable> {
    let count = int(&mut bytes).and_then(|count| usize::try_from(count).ok()).ok_or(Unreadable::Corrupt)?;
    // A count is believed by what follows it: a header has two bytes at least.
    if count > bytes.len() / 2 {
        return Err(Unreadable::Corrupt);
    }
    if count > HEADERS_MAX {
        return Err(Unreadable::Many(count));
    }
    for index in 0..count {
        let name = nullable(&mut bytes).flatten().ok_or(Unreadable::Corrupt)?;
        let value = nullable(&mut bytes).ok_or(Unreadable::Corrupt)?;
        into.push((std::str::from_utf8(name).map_err(|_| Unreadable::Name(index))?, value));
    }
    if bytes.is_empty() { Ok(()) } else { Err(Unreadable::Corrupt) }
}

/// The failure of a record at whose headers nobody can look.
pub(super) fn unreadable(offset: u64, why: &str) -> Failure {
    Failure::poison(format!("the headers of the record at offset {offset} cannot be read: {why}"))
}
