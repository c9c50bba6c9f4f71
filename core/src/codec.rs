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

/// Appends a value without a version byte: for parts of something that has one.
///
/// # Errors
/// `Corrupt` when the value's own `Serialize` fails.
pub fn append<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    struct End<'a>(&'a mut Vec<u8>);
    impl bincode::enc::write::Writer for End<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }
    bincode::serde::encode_into_writer(value, End(out), bincode::config::standard())
        .map_err(|error| CodecError::Corrupt(error.to_string()))
}

/// Takes such a value off the front of `bytes`.
pub fn take<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, CodecError> {
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let (value, used) =
        bincode::serde::decode_from_slice(bytes, config).map_err(|error| CodecError::Corrupt(error.to_string()))?;
    *bytes = &bytes[used..];
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
    fn values_are_taken_off_in_the_order_in_which_they_were_appended() {
        let mut bytes = Vec::new();
        append(&7u64, &mut bytes).unwrap();
        append("x", &mut bytes).unwrap();
        let mut rest = &bytes[..];
        assert_eq!(take::<u64>(&mut rest).unwrap(), 7);
        assert_eq!(take::<String>(&mut rest).unwrap(), "x");
        assert!(rest.is_empty() && take::<u64>(&mut rest).is_err());
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
