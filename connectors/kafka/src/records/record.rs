//! One record of a batch, taken off the front of its bytes.
//!
//! ```text
//!   length  attributes  timestamp delta  offset delta  key length  key  value length  value  headers ...
//!           |------- length counts from here, up to the end of the headers -----------------------------
//! ```

use super::varint::{int, long_int, nullable};

/// A record as it stands in its batch, its headers unread.
pub(super) struct Raw<'b> {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    /// Key, value and headers.
    rest: &'b [u8],
}

impl<'b> Raw<'b> {
    /// Takes a record off the front; `None` when there is none that can be read. Key and value are not looked at yet,
    /// which makes passing over a record cheap.
    #[inline(always)]
    pub(super) fn take(body: &mut &'b [u8]) -> Option<Raw<'b>> {
        let length = usize::try_from(int(body)?).ok()?;
        let (mut record, rest) = body.split_at_checked(length)?;
        *body = rest;
        // Attributes of a record are unused.
        record = record.get(1..)?;
        let timestamp_delta = long_int(&mut record)?;
        let offset_delta = int(&mut record)?;
        Some(Raw { timestamp_delta, offset_delta, rest: record })
    }

    /// What it holds.
    #[inline(always)]
    pub(super) fn parts(mut self) -> Option<Parts<'b>> {
        let key = nullable(&mut self.rest)?;
        let value = nullable(&mut self.rest)?;
        Some(Parts { key, value, headers: self.rest })
    }
}

/// What a record holds.
pub(super) struct Parts<'b> {
    pub(super) key: Option<&'b [u8]>,
    pub(super) value: Option<&'b [u8]>,
    /// The bytes of its headers, unread.
    pub(super) headers: &'b [u8],
}
