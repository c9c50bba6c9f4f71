//! A frame: what one worker sends another in one piece, and its head in bytes.
//!
//! ```text
//!  0        1      2…9      10…17     18…21   22…25   26…
//!  version  kind   number   era       to      from    body
//! ```
//!
//! Numbers are little endian. A frame is judged by its head before anything is allocated for it.

use bytes::{BufMut, Bytes, BytesMut};

use crate::id::{Era, TaskId};

/// Version byte of a frame, raised when its head or the encoding of a body changes.
const VERSION: u8 = 1;

/// Bytes in front of the body.
pub const HEAD_BYTES: usize = 26;

/// No frame may be larger, head included: a receiver never allocates more for one.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

/// What a frame's body is.
///
/// ```
/// use tine_core::transport::{Frame, Kind};
///
/// /// What a worker may drop when the frame is of another era.
/// fn is_work(frame: &Frame) -> bool {
///     match frame.kind {
///         Kind::Tuples | Kind::Reports => true,
///         Kind::Control => false,
///     }
/// }
///
/// # use tine_core::id::{Era, TaskId};
/// let ready = Frame { era: Era(4), to: TaskId(0), from: TaskId(0), kind: Kind::Control, body: Default::default() };
/// assert!(!is_work(&ready));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A chunk of tuples for the task `to`, with their anchors.
    Tuples,
    /// Reports for the acker of the worker that started the trees.
    Reports,
    /// Between the workers themselves: who is ready.
    Control,
}

/// What one worker sends another.
///
/// ```
/// use tine_core::{id::{Era, TaskId}, transport::{Frame, HEAD_BYTES, Kind}};
///
/// let body = bytes::Bytes::from_static(b"three tuples");
/// let frame = Frame { era: Era(4), to: TaskId(9), from: TaskId(2), kind: Kind::Tuples, body };
/// let bytes = frame.encode(5); // the fifth of its connection
/// assert_eq!((bytes.len(), frame.len(), frame.is_empty()), (HEAD_BYTES + 12, HEAD_BYTES + 12, false));
/// assert_eq!(Frame::decode(bytes), Ok((5, frame.clone())));
///
/// let mut several = bytes::BytesMut::new();
/// frame.put(6, &mut several);
/// frame.put(7, &mut several);
/// assert_eq!(several.len(), 2 * frame.len());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Under which assignment it was sent.
    pub era: Era,
    /// The task that it is for; 0 when it is for the worker itself.
    pub to: TaskId,
    /// The task that sent it; 0 when it was the worker itself.
    pub from: TaskId,
    /// What the body is.
    pub kind: Kind,
    /// The content, encoded by the sending task and decoded by the receiving one.
    pub body: Bytes,
}

/// Bytes that are no frame.
///
/// ```
/// use tine_core::transport::{Frame, FrameError};
///
/// assert_eq!(Frame::decode(b"GET / HTTP/1.1".as_slice().into()), Err(FrameError::Short(14)));
/// assert_eq!(Frame::decode([9; 30].as_slice().to_vec().into()), Err(FrameError::Version(9)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Shorter than a head.
    #[error("{0} bytes where a frame has at least {HEAD_BYTES}")]
    Short(usize),
    /// Longer than a frame may be.
    #[error("a frame of {0} bytes, and frames have at most {FRAME_BYTES_MAX}")]
    Long(usize),
    /// Written by another version of tine.
    #[error("a frame of version {0}, and this binary reads version {VERSION}: run the same version of tine everywhere")]
    Version(u8),
    /// Not a kind of frame.
    #[error("a frame of kind {0}, which this binary does not know")]
    Kind(u8),
    /// Not the one that follows.
    #[error("frame {found} where frame {expected} was to follow")]
    Number {
        /// The one that was to follow.
        expected: u64,
        /// The one that came.
        found: u64,
    },
}

impl Frame {
    /// How many bytes it takes.
    pub fn len(&self) -> usize {
        HEAD_BYTES + self.body.len()
    }

    /// Whether its body is empty.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// Its bytes, as the `number`th frame of a connection.
    pub fn encode(&self, number: u64) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.len());
        self.put(number, &mut bytes);
        bytes.freeze()
    }

    /// The same, at the end of a buffer.
    pub fn put(&self, number: u64, bytes: &mut impl BufMut) {
        let kind = match self.kind {
            Kind::Tuples => 1,
            Kind::Reports => 2,
            Kind::Control => 3,
        };
        bytes.put_u8(VERSION);
        bytes.put_u8(kind);
        bytes.put_u64_le(number);
        bytes.put_u64_le(self.era.0);
        bytes.put_u32_le(self.to.0);
        bytes.put_u32_le(self.from.0);
        bytes.put_slice(&self.body);
    }

    /// Reads it back, with its number; the body is a slice of `bytes`.
    pub fn decode(bytes: Bytes) -> Result<(u64, Frame), FrameError> {
        let head: &[u8; HEAD_BYTES] = bytes.first_chunk().ok_or(FrameError::Short(bytes.len()))?;
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(FrameError::Long(bytes.len()));
        }
        let [version, kind, rest @ ..] = *head;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = match kind {
            1 => Kind::Tuples,
            2 => Kind::Reports,
            3 => Kind::Control,
            other => return Err(FrameError::Kind(other)),
        };
        let number = |at: usize| rest[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let task = |at: usize| TaskId(rest[at..at + 4].iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte)));
        let (sequence, era, to, from) = (number(0), Era(number(8)), task(16), task(20));
        Ok((sequence, Frame { era, to, from, kind, body: bytes.slice(HEAD_BYTES..) }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame() -> Frame {
        let (era, body) = (Era(0x0102_0304_0506_0708), Bytes::from_static(b"abc"));
        Frame { era, to: TaskId(9), from: TaskId(0x0a0b), kind: Kind::Reports, body }
    }

    /// Golden bytes: if this fails, raise the version, or workers of two builds misread one another.
    #[test]
    fn the_encoding_is_the_documented_one() {
        let golden =
            [&[1, 2, 5, 0, 0, 0, 0, 0, 0, 0][..], &[8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0, 0, 0x0b, 0x0a, 0, 0], b"abc"];
        assert_eq!(frame().encode(5), golden.concat());
        assert_eq!(Frame::decode(frame().encode(5)), Ok((5, frame())));
        assert_eq!(frame().encode(5).len(), frame().len());
    }

    #[test]
    fn x3_hostile_heads_are_refused_by_what_is_wrong() {
        let with = |at: usize, byte: u8| {
            let mut bytes = frame().encode(5).to_vec();
            bytes[at] = byte;
            Frame::decode(bytes.into()).unwrap_err()
        };
        assert_eq!(with(0, 9), FrameError::Version(9));
        assert_eq!(with(1, 0), FrameError::Kind(0));
        assert_eq!(Frame::decode(Bytes::from_static(&[1; 25])), Err(FrameError::Short(25)));
        let long = Bytes::from(vec![1; FRAME_BYTES_MAX + 1]);
        assert_eq!(Frame::decode(long), Err(FrameError::Long(FRAME_BYTES_MAX + 1)));
    }

    proptest! {
        #[test]
        fn x3_any_bytes_are_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((number, frame)) = Frame::decode(bytes.clone().into()) {
                prop_assert_eq!(frame.encode(number), bytes);
            }
        }
    }
}
