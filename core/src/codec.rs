//! How small control values are written down: bincode behind a version byte, always read with a limit.
//!
//! A length that a hostile or corrupt input claims can never make us allocate: decoding is limited to [`LIMIT`].

use serde::{Serialize, de::DeserializeOwned};

/// Version byte in front of every encoded value.
pub const VERSION: u8 = 1;

/// No encoded value may be larger; a plan of 2,000 partitions takes under 100 kB.
pub const LIMIT: usize = 8 << 20;

/// Bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Nothing there.
    #[error("an empty value where a version byte was expected")]
    Empty,
    /// Written by another version of tine.
    #[error("format version {found} is unknown to this binary, which reads version {VERSION}: run the newer binary")]
    UnknownVersion {
        /// The version byte found.
        found: u8,
    },
    /// Not decodable.
    #[error("corrupt value: {0}")]
    Corrupt(String),
}

/// Encodes a value.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    let body = bincode::serde::encode_to_vec(value, bincode::config::standard())
        .expect("plain data with known lengths always encodes");
    bytes.extend_from_slice(&body);
    bytes
}

/// Decodes a value; everything must be consumed.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (&version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if version != VERSION {
        return Err(CodecError::UnknownVersion { found: version });
    }
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let (value, used) =
        bincode::serde::decode_from_slice(body, config).map_err(|error| CodecError::Corrupt(error.to_string()))?;
    if used != body.len() {
        return Err(CodecError::Corrupt(format!("{} bytes after the end", body.len() - used)));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_length_is_an_error() {
        let hostile = [VERSION, 253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert!(matches!(decode::<Vec<u8>>(&hostile), Err(CodecError::Corrupt(_))));
    }

    #[test]
    fn an_unknown_version_and_trailing_bytes_are_errors() {
        let mut bytes = encode(&(7u64, "x"));
        assert_eq!(decode::<(u64, String)>(&bytes).unwrap(), (7, "x".to_string()));
        bytes.push(0);
        assert!(matches!(decode::<(u64, String)>(&bytes), Err(CodecError::Corrupt(_))));
        bytes[0] = 9;
        assert!(matches!(decode::<(u64, String)>(&bytes), Err(CodecError::UnknownVersion { found: 9 })));
    }
}
