//! The six messages that reading takes, each as request and answer, in the versions that brokers of Kafka 3.1 and newer
//! speak.
//!
//! They are written and read here and not by a generated library: its decoders allocate for as many elements as an answer
//! claims to have, which a broken or hostile answer turns into an abort of the process. The tests compare with such a
//! library, both ways.

pub(crate) mod api_versions;
pub(crate) mod fetch;
pub(crate) mod list_offsets;
pub(crate) mod metadata;
pub(crate) mod sasl;
#[cfg(test)]
mod tests;

use super::codec::{Put, Read, Take};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    Fetch,
    ListOffsets,
    Metadata,
    SaslHandshake,
    Versions,
    SaslAuthenticate,
}

impl Api {
    /// Its number in the protocol.
    pub(crate) fn key(self) -> i16 {
        match self {
            Api::Fetch => 1,
            Api::ListOffsets => 2,
            Api::Metadata => 3,
            Api::SaslHandshake => 17,
            Api::Versions => 18,
            Api::SaslAuthenticate => 36,
        }
    }

    /// The versions that we speak, oldest and newest.
    pub(crate) fn spoken(self) -> (i16, i16) {
        match self {
            Api::Fetch => (12, 17),
            Api::ListOffsets => (6, 9),
            Api::Metadata => (12, 13),
            Api::SaslHandshake => (1, 1),
            Api::Versions => (3, 3),
            Api::SaslAuthenticate => (2, 2),
        }
    }

    /// Whether messages have compact lengths and tagged fields (KIP-482).
    fn is_flexible(self) -> bool {
        self != Api::SaslHandshake
    }
}

/// Writes a framed request: length, header, body.
pub(crate) fn request(
    out: &mut Vec<u8>,
    (api, version): (Api, i16),
    correlation: i32,
    client_id: &str,
    body: impl FnOnce(&mut Put<'_>),
) {
    out.clear();
    let mut put = Put::new(out);
    put.i32(0);
    put.i16(api.key());
    put.i16(version);
    put.i32(correlation);
    put.old_text(client_id);
    if api.is_flexible() {
        put.no_tags();
    }
    body(&mut put);
    let len = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&len.to_be_bytes());
}

/// Reads an answer's header; its correlation.
pub(crate) fn answer(api: Api, take: &mut Take<'_>) -> Read<i32> {
    let correlation = take.i32()?;
    // The answer with the versions must be readable before they are known, so its header stays the old one.
    if api.is_flexible() && api != Api::Versions {
        take.skip_tags()?;
    }
    Ok(correlation)
}
