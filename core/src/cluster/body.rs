//! What the bodies of frames are: chunks of tuples, reports about trees, and words between workers.
//!
//! ```text
//!  tuples    0…7      8…11   12…15   16…
//!            session  input  count   the values, one after the other; then a byte for the form of their anchors, and these
//!
//!  anchors   0: no tuple has any     1: each has one: root, edge     2: for each a number, and as many roots and edges
//!
//!  reports   0, then root and value of each ack     1, then a word, encoded
//!
//!  control   a word, encoded
//! ```
//!
//! Numbers are little endian, values are bincode's standard encoding behind serde. Whatever a peer sends is judged before
//! memory is set aside for it.

use std::any::Any;

use bytes::{Buf, BufMut};
use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, CodecError},
    engine::{acks::Word, lineage::Lineage},
    failure::Failure,
    id::TaskId,
    topology::encoding::{Encoding, Take},
    transport::{FRAME_BYTES_MAX, HEAD_BYTES, Roots},
    tuple::{Anchor, Root},
};

/// A chunk that is larger goes out in several frames.
pub(super) const PIECE_BYTES: usize = 512 << 10;

/// Tuples of one frame; a chunk has fewer unless its topology says otherwise.
const TUPLES_MAX: usize = 1 << 16;

/// Trees that one tuple may belong to, as far as other workers are concerned.
const ANCHORS_MAX: usize = 1 << 16;

/// Acks of one frame.
pub(super) const ACKS_MAX: usize = 16 << 10;

/// A failure's text is cut to this, so that it always gets through.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

const HEAD: usize = 16;
const SESSION_BYTES: usize = 8;
const ANCHOR_BYTES: usize = 16;

/// What came in a frame of tuples.
pub(super) struct Tuples {
    pub(super) session: u64,
    pub(super) input: u32,
    pub(super) values: Box<dyn Any + Send>,
    pub(super) lineages: Vec<Lineage>,
    pub(super) tuples: usize,
}

/// Words between workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Control {
    /// The sender's tasks of the frame's era run, and its links stand.
    Ready,
    /// All workers are ready, under the frame's era.
    Settled,
    /// Room in front of the sender's tasks, of a session of the receiver's: task, tuples, bytes.
    Credit(Vec<(u64, TaskId, u64, u64)>),
    /// What the whole topology is told to do: the how manieth word to it, and the word.
    Order(u64, Order),
    /// How far is everybody?
    Ask(u64),
    /// The answer to a round of questions.
    Answer(u64, Standing),
    /// Everything is worked off, or is not to be: the topology ends.
    End {
        /// Whether it was worked off.
        drained: bool,
        /// The error that ended it.
        halted: Option<Failure>,
    },
}

/// What a topology is told to do, on all its workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    Activate,
    Deactivate,
    Drain,
}

/// How far a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    /// Its spouts are done, no tree of theirs is open, and nothing is under way in it.
    pub(super) idle: bool,
    /// Everything that was ever under way in it.
    pub(super) begun: u64,
}

/// What a courier sends of a chunk.
pub(super) enum Piece {
    /// A frame's body, with the trees of its tuples; the chunk goes on at this tuple.
    Body(Vec<u8>, Roots, usize),
    /// A tuple that cannot be sent, and why.
    Stuck(usize, String),
}

/// Says which session counts a frame of tuples.
pub(super) fn stamp(body: &mut [u8], session: u64) {
    body[..SESSION_BYTES].copy_from_slice(&session.to_le_bytes());
}

/// The next frame of a chunk, from the tuple at this index on; to be [stamped](stamp).
pub(super) fn tuples(encoding: Encoding, input: u32, values: &dyn Any, lineages: &[Lineage], from: usize) -> Piece {
    let mut body = Vec::with_capacity(PIECE_BYTES / 4);
    body.put_u64_le(0);
    body.put_u32_le(input);
    body.put_u32_le(0);
    let (until, error) = (encoding.put)(values, from, PIECE_BYTES, &mut body);
    if let (true, Some(error)) = (until == from, error) {
        return Piece::Stuck(from, format!("cannot be encoded: {error}"));
    }
    let count = until - from;
    body[HEAD - 4..HEAD].copy_from_slice(&(count as u32).to_le_bytes());
    let lineages = lineages.get(from..until).unwrap_or_default();
    anchors(lineages, &mut body);
    if HEAD_BYTES + body.len() > FRAME_BYTES_MAX {
        // Of several, because all but the last are within the piece; so that one alone is too large.
        return match count {
            1 => Piece::Stuck(
                from,
                format!(
                    "takes {} bytes, and {FRAME_BYTES_MAX} travel between workers: send where it is to be found instead",
                    body.len()
                ),
            ),
            _ => halves(encoding, input, values, lineages, (from, until)),
        };
    }
    Piece::Body(body, lineages.iter().flat_map(Lineage::roots).collect(), until)
}

/// A frame whose last tuple is beyond all measure: that one goes alone.
fn halves(
    encoding: Encoding,
    input: u32,
    values: &dyn Any,
    lineages: &[Lineage],
    (from, until): (usize, usize),
) -> Piece {
    let mut body = Vec::new();
    body.put_u64_le(0);
    body.put_u32_le(input);
    body.put_u32_le((until - 1 - from) as u32);
    let mut at = from;
    while at < until - 1 {
        // One byte more than there is: exactly one value.
        let limit = body.len() + 1;
        (at, _) = (encoding.put)(values, at, limit, &mut body);
    }
    let lineages = lineages.get(..until - 1 - from).unwrap_or_default();
    anchors(lineages, &mut body);
    Piece::Body(body, lineages.iter().flat_map(Lineage::roots).collect(), until - 1)
}

fn anchors(lineages: &[Lineage], body: &mut Vec<u8>) {
    let put = |anchor: &Anchor, body: &mut Vec<u8>| {
        body.put_u64_le(anchor.root.0);
        body.put_u64_le(anchor.edge);
    };
    if lineages.iter().all(|lineage| matches!(lineage, Lineage::None)) {
        return body.put_u8(0);
    }
    if lineages.iter().all(|lineage| matches!(lineage, Lineage::One(_))) {
        body.put_u8(1);
        return lineages.iter().flat_map(Lineage::as_slice).for_each(|anchor| put(anchor, body));
    }
    body.put_u8(2);
    for lineage in lineages {
        body.put_u32_le(lineage.as_slice().len() as u32);
        lineage.as_slice().iter().for_each(|anchor| put(anchor, body));
    }
}

/// Reads a frame of tuples, whose type `take` knows by their input.
pub(super) fn read_tuples(mut body: &[u8], take: impl FnOnce(u32) -> Option<Take>) -> Result<Tuples, CodecError> {
    let corrupt = |what: String| CodecError::Corrupt(what);
    if body.len() < HEAD {
        return Err(corrupt(format!("{} bytes where tuples have at least {HEAD}", body.len())));
    }
    let (session, input, tuples) = (body.get_u64_le(), body.get_u32_le(), body.get_u32_le() as usize);
    if tuples == 0 || tuples > TUPLES_MAX {
        return Err(corrupt(format!("{tuples} tuples in a frame, which has 1 to {TUPLES_MAX}")));
    }
    let take = take(input).ok_or_else(|| corrupt(format!("tuples for input {input}, which the bolt does not have")))?;
    let values = take(&mut body, tuples)?;
    let lineages = read_anchors(body, tuples)?;
    Ok(Tuples { session, input, values, lineages, tuples })
}

fn read_anchors(mut body: &[u8], tuples: usize) -> Result<Vec<Lineage>, CodecError> {
    let wrong = |what: &str| CodecError::Corrupt(format!("{what} after {tuples} tuples"));
    let anchor = |body: &mut &[u8]| Anchor { root: Root(body.get_u64_le()), edge: body.get_u64_le() };
    if !body.has_remaining() {
        return Err(wrong("no anchors"));
    }
    let lineages = match body.get_u8() {
        0 => Vec::new(),
        1 if body.len() == tuples * ANCHOR_BYTES => (0..tuples).map(|_| Lineage::One(anchor(&mut body))).collect(),
        2 => {
            let mut lineages = Vec::with_capacity(tuples.min(body.len() / 4));
            for _ in 0..tuples {
                let count = body.try_get_u32_le().map_err(|_| wrong("too few anchors"))? as usize;
                if count > ANCHORS_MAX || body.len() < count * ANCHOR_BYTES {
                    return Err(wrong("more anchors than bytes"));
                }
                lineages.push(match count {
                    0 => Lineage::None,
                    1 => Lineage::One(anchor(&mut body)),
                    _ => Lineage::Many((0..count).map(|_| anchor(&mut body)).collect()),
                });
            }
            lineages
        }
        _ => return Err(wrong("anchors of no known form")),
    };
    if body.has_remaining() { Err(wrong("bytes")) } else { Ok(lineages) }
}

/// A frame of acks, at most [`ACKS_MAX`] of them.
pub(super) fn acks(acks: &[(Root, u64)]) -> Vec<u8> {
    let mut body = Vec::with_capacity(1 + acks.len() * ANCHOR_BYTES);
    body.put_u8(0);
    for (root, value) in acks {
        body.put_u64_le(root.0);
        body.put_u64_le(*value);
    }
    body
}

/// What reports are.
pub(super) enum Reports {
    Acks(Vec<(Root, u64)>),
    Word(Word),
}

#[derive(Serialize, Deserialize)]
enum Said {
    Failed(Root, Failure),
    Alive(Root),
}

/// A frame of a single word about a tree. That every tree has failed is said by a worker to its own spouts alone.
pub(super) fn word(word: Word) -> Option<Vec<u8>> {
    let said = match word {
        Word::Failed(root, failure) => Said::Failed(root, cut(failure)),
        Word::Alive(root) => Said::Alive(root),
        Word::AllFailed(_) => return None,
    };
    let mut body = vec![1];
    body.extend(codec::encode(&said));
    Some(body)
}

/// A failure whose text is not too long to travel.
fn cut(mut failure: Failure) -> Failure {
    if failure.message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|at| failure.message.is_char_boundary(*at)).unwrap_or(0);
        failure.message.truncate(end);
        failure.message.push_str(" … (cut)");
    }
    failure
}

/// Reads a frame of reports.
pub(super) fn read_reports(body: &[u8]) -> Result<Reports, CodecError> {
    match body.split_first() {
        Some((0, acks)) if acks.len().is_multiple_of(ANCHOR_BYTES) => {
            let ack = |mut bytes: &[u8]| (Root(bytes.get_u64_le()), bytes.get_u64_le());
            Ok(Reports::Acks(acks.chunks_exact(ANCHOR_BYTES).map(ack).collect()))
        }
        Some((1, word)) => Ok(Reports::Word(match codec::decode(word)? {
            Said::Failed(root, failure) => Word::Failed(root, failure),
            Said::Alive(root) => Word::Alive(root),
        })),
        _ => Err(CodecError::Corrupt(format!("reports of {} bytes and of no known form", body.len()))),
    }
}

/// A frame of control.
pub(super) fn control(control: &Control) -> Vec<u8> {
    codec::encode(control)
}

/// Reads it.
pub(super) fn read_control(body: &[u8]) -> Result<Control, CodecError> {
    codec::decode(body)
}
