//! The headers of a record: a count, then names and values.

use tine_core::failure::Failure;

use super::varint::{int, nullable};

/// A name and what stands under it.
pub(super) type Header<'b> = (&'b str, Option<&'b [u8]>);

/// Why headers cannot be lent.
pub(super) enum Unreadable {
    /// They are not what Kafka's format says.
    Corrupt,
    /// The name of the header with this index is not UTF-8.
    Name(usize),
}

/// Appends the headers in `bytes` to `into`.
pub(super) fn parse<'b>(mut bytes: &'b [u8], into: &mut Vec<Header<'b>>) -> Result<(), Unreadable> {
    let count = int(&mut bytes).and_then(|count| usize::try_from(count).ok()).ok_or(Unreadable::Corrupt)?;
    // A count is believed by what follows it: a header has two bytes at least.
    for index in 0..count {
        let name = nullable(&mut bytes).flatten().ok_or(Unreadable::Corrupt)?;
        let value = nullable(&mut bytes).ok_or(Unreadable::Corrupt)?;
        into.push((std::str::from_utf8(name).map_err(|_| Unreadable::Name(index))?, value));
    }
    if bytes.is_empty() { Ok(()) } else { Err(Unreadable::Corrupt) }
}

/// The failure of a record whose header has a name that is no text.
pub(super) fn unreadable(offset: u64, index: usize) -> Failure {
    Failure::poison(format!(
        "the headers of the record at offset {offset} cannot be read: the name of header {index} is not UTF-8"
    ))
}
