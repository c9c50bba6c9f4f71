//! What another worker says: any bytes are what they should be, or an error.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body_util::Full;
use tine_core::{
    codec,
    membership::{Assignment, Member},
    transport::{FRAME_BYTES_MAX, Frame, Kind},
};
use tine_trident::{plan::Planned, wire};
use tonic::Streaming;

use crate::{grpc::Frames, hello::Hello, memory};

/// What a byte may make us hold once decoded: an element of an array has one byte at least, and its vector may have just grown.
const HELD_PER_BYTE: usize = 256;
/// What a text may claim to be without being there, and what serde sets aside for an array that is said to be long.
const HELD_ANYHOW: usize = 2 << 20;
/// The same where nothing has arrays: what a stranger says before it is let in.
const HELD_FOR_A_STRANGER: usize = 128 << 10;
/// Longer inputs may have longer texts.
const SHORT: usize = 4 << 10;

/// The first byte says as what the rest is read.
///
/// # Panics
/// When a rule is broken.
pub fn judge(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    let held = match kind % 6 {
        1 | 2 => HELD_FOR_A_STRANGER,
        // A length that is believed has its memory set aside at once.
        5 => HELD_ANYHOW + FRAME_BYTES_MAX,
        _ if bytes.len() > SHORT => HELD_ANYHOW + codec::LIMIT,
        _ => HELD_ANYHOW,
    };
    memory::at_most(held + HELD_PER_BYTE * bytes.len(), || match kind % 6 {
        0 => frame(Bytes::copy_from_slice(bytes)),
        1 => no_longer(bytes, Hello::decode(bytes).ok().map(|hello| hello.encode())),
        2 => no_longer(bytes, Member::decode(bytes).ok().map(|member| member.encode())),
        3 => no_longer(bytes, Assignment::decode(bytes).ok().map(|assignment| assignment.encode())),
        4 => drop(Planned::decode(bytes)),
        _ => stream(Bytes::copy_from_slice(bytes)),
    });
}

/// What was decoded is written in no more bytes than it was read from, which may have been longer than needed.
fn no_longer(bytes: &[u8], again: Option<Vec<u8>>) {
    if let Some(again) = again {
        assert!(again.len() <= bytes.len(), "{} bytes became {}", bytes.len(), again.len());
    }
}

fn frame(bytes: Bytes) {
    let Ok((number, frame)) = Frame::decode(bytes.clone()) else { return };
    assert_eq!(frame.encode(number), bytes, "a frame is its bytes");
    match frame.kind {
        Kind::Tuples => drop(wire::read_tuple(frame)),
        Kind::Reports => drop(wire::read_report(&frame)),
        Kind::Control => {}
    }
}

/// Frames as they come over a connection: each behind its length.
fn stream(bytes: Bytes) {
    let mut frames = Streaming::new_request(Frames, Full::new(bytes), None, Some(FRAME_BYTES_MAX));
    loop {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(frames.message()).poll(&mut context) {
            Poll::Ready(Ok(Some((number, frame)))) => assert!(frame.encode(number).len() == frame.len()),
            Poll::Ready(Ok(None) | Err(_)) => return,
            Poll::Pending => panic!("all bytes are there, and nothing comes of them"),
        }
    }
}
