//! How small control values are written down: bincode behind a version byte, always read with a limit.
//!
//! A length that a hostile or corrupt input claims makes us allocate no more than [`LIMIT`], and where a few kilobytes are
//! there, as in what a stranger may send, no more than they can hold.

use serde::{Serialize, de::DeserializeOwned};

/// Version byte in front of every encoded value.
pub const VERSION: u8 = 1;

/// No encoded value may be larger; a plan of 2,000 partitions takes under 100 kB.
pub const LIMIT: usize = 8 << 20;

/// Up to this many bytes are decoded with a limit of their own.
const SMALL: usize = 4 << 10;

/// The most that bincode counts against its limit for a byte that it reads: a number of 128 bits may be written in one.
const COUNTED_PER_BYTE: usize = 16;

/// Bytes that are not what they should be.
///
/// ```
/// use tine_core::codec::{CodecError, decode};
///
/// assert!(matches!(decode::<u64>(&[]), Err(CodecError::Empty)));
/// assert!(matches!(decode::<u64>(&[9, 7]), Err(CodecError::UnknownVersion { found: 9 })));
/// assert!(matches!(decode::<u64>(&[1, 7, 7]), Err(CodecError::Corrupt(_))), "a byte too many");
/// ```
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
///
/// ```
/// use tine_core::{codec, id::TxId};
///
/// let bytes = codec::encode(&(TxId(7), "words"));
/// assert_eq!(bytes, [codec::VERSION, 7, 5, b'w', b'o', b'r', b'd', b's']);
/// ```
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    let body = bincode::serde::encode_to_vec(value, bincode::config::standard())
        .expect("plain data with known lengths always encodes");
    bytes.extend_from_slice(&body);
    bytes
}

/// Decodes a value; everything must be consumed.
///
/// ```
/// use tine_core::{codec, id::TxId};
///
/// let (txid, group): (TxId, String) = codec::decode(&codec::encode(&(TxId(7), "words")))?;
/// assert_eq!((txid, &*group), (TxId(7), "words"));
/// # Ok::<(), codec::CodecError>(())
/// ```
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (&version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if version != VERSION {
        return Err(CodecError::UnknownVersion { found: version });
    }
    let (value, used) = limited(body)?;
    if used != body.len() {
        return Err(CodecError::Corrupt(format!("{} bytes after the end", body.len() - used)));
    }
    Ok(value)
}

/// Appends a value without a version byte: for parts of something that has one.
///
/// ```
/// use tine_core::codec;
///
/// let mut chunk = Vec::new();
/// codec::append("a word", &mut chunk)?;
/// codec::append(&7_u64, &mut chunk)?;
/// assert_eq!(codec::take::<String>(&mut &chunk[..])?, "a word");
/// # Ok::<(), codec::CodecError>(())
/// ```
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
///
/// ```
/// use tine_core::codec;
///
/// let chunk = [1, 2, 3];
/// let (mut rest, mut sum) = (&chunk[..], 0);
/// while !rest.is_empty() {
///     sum += codec::take::<u64>(&mut rest)?;
/// }
/// assert_eq!(sum, 6);
/// # Ok::<(), codec::CodecError>(())
/// ```
pub fn take<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, CodecError> {
    let (value, used) = limited(bytes)?;
    *bytes = &bytes[used..];
    Ok(value)
}

/// A value at the front, and how many bytes it took. bincode sets memory aside for a text before it looks whether the text is
/// there, so its limit follows what is there.
fn limited<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    use bincode::{config::standard, serde::decode_from_slice};
    let decoded = match bytes.len() {
        ..=SMALL => decode_from_slice(bytes, standard().with_limit::<{ SMALL * COUNTED_PER_BYTE }>()),
        _ => decode_from_slice(bytes, standard().with_limit::<LIMIT>()),
    };
    decoded.map_err(|error| CodecError::Corrupt(error.to_string()))
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
    fn x3_a_few_bytes_cannot_claim_megabytes() {
        let hostile = [VERSION, 252, 0, 0, 0x70, 0];
        let Err(CodecError::Corrupt(why)) = decode::<String>(&hostile) else { panic!("7 MiB in 6 bytes") };
        assert_eq!(why, "LimitExceeded");
        let smallest = vec![0u128; SMALL - 2];
        assert_eq!(decode::<Vec<u128>>(&encode(&smallest)).unwrap(), smallest);
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
