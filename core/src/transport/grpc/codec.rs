//! Frames as gRPC messages: their own bytes, copied once into HTTP/2's buffer and sliced out of it on the other side.

use bytes::{Buf, BufMut};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::transport::Frame;

/// Bytes of an answer: how far frames were taken.
pub(super) const TAKEN_BYTES: usize = 8;

/// The caller's side: frames out, answers in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Caller;

/// The other side.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Called;

/// Encodes and decodes numbered frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frames;

/// Encodes and decodes answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken;

impl Codec for Caller {
    type Encode = (u64, Frame);
    type Decode = u64;
    type Encoder = Frames;
    type Decoder = Taken;

    fn encoder(&mut self) -> Frames {
        Frames
    }

    fn decoder(&mut self) -> Taken {
        Taken
    }
}

impl Codec for Called {
    type Encode = u64;
    type Decode = (u64, Frame);
    type Encoder = Taken;
    type Decoder = Frames;

    fn encoder(&mut self) -> Taken {
        Taken
    }

    fn decoder(&mut self) -> Frames {
        Frames
    }
}

impl Encoder for Frames {
    type Item = (u64, Frame);
    type Error = Status;

    fn encode(&mut self, (number, frame): (u64, Frame), buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        frame.put(number, buffer);
        Ok(())
    }
}

impl Decoder for Frames {
    type Item = (u64, Frame);
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<(u64, Frame)>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        Frame::decode(bytes).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

impl Encoder for Taken {
    type Item = u64;
    type Error = Status;

    fn encode(&mut self, taken: u64, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_u64_le(taken);
        Ok(())
    }
}

impl Decoder for Taken {
    type Item = u64;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<u64>, Status> {
        match buffer.remaining() {
            TAKEN_BYTES => Ok(Some(buffer.get_u64_le())),
            other => Err(Status::invalid_argument(format!("an answer of {other} bytes"))),
        }
    }
}
