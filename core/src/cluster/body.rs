//! What the bodies of frames are: chunks of tuples, reports about trees, and words between workers.
//!
//! ```text
//!  tuples    0…7      8…11   12…15   16…
//!            session  input  count   the values, each behind its length (4 bytes); a byte for the form of their anchors, and these
//!
//!  anchors   0: no tuple has any     1: each has one: root, edge     2: for each a number, and as many roots and edges
//!
//!  reports   0, then root and value of each ack     1, then a word, encoded
//!
//!  control   a word, encoded
//! ```
//!
//! Numbers are little endian, values are bincode's standard encoding behind serde. Whatever a peer sends is judged before
//! memory is set aside for it. A value that cannot be read fails its own trees: what stands around it is read all the same.

use std::{any::Any, ops::Range};

use bytes::{Buf, BufMut};
use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, CodecError},
    engine::{acks::Word, credit::Door, lineage::Lineage, shared::Phase},
    failure::Failure,
    topology::encoding::{Bounds, Encoding, Take, Taken},
    transport::{FRAME_BYTES_MAX, Roots},
    tuple::{Anchor, Root},
};

/// Values of one frame: a chunk that is larger goes out in several. With all anchors they are less than a frame may be.
const VALUES: Bounds = Bounds { enough: 512 << 10, most: FRAME_BYTES_MAX - (513 << 10) };

/// Tuples of one frame; a chunk has fewer unless its topology says otherwise.
const TUPLES_MAX: usize = 1 << 16;

/// Anchors of one frame, so also trees that one tuple may belong to as far as other workers are concerned.
const ANCHORS_MAX: usize = 32 << 10;

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
    /// A `Vec` of those that can be read.
    pub(super) values: Box<dyn Any + Send>,
    pub(super) lineages: Vec<Lineage>,
    /// What is wrong with the others, and their trees.
    pub(super) bad: Vec<(String, Lineage)>,
    /// How many there are, the bad ones included.
    pub(super) tuples: usize,
}

/// Words between workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Control {
    /// The sender's tasks of the frame's era run, and its links stand.
    Ready {
        /// Whether tasks have come to it or left it since it heard last that all workers are ready.
        moved: bool,
    },
    /// All workers are ready, under the frame's era. Another number than the last one a worker has heard: tuples may have gone to
    /// where tasks are no longer, so every tree of before has failed.
    Settled(u64),
    /// Room in the queues of the sender's tasks, of a session of the receiver's: tuples, bytes.
    Credit(Vec<(u64, Door, u64, u64)>),
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

/// What a topology is told to do, on all its workers. Of two words with one number the greater one counts, so that all workers do
/// the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Order {
    Activate,
    Deactivate,
    Drain,
}

impl Order {
    /// Where it leads to.
    pub(super) fn phase(self) -> Phase {
        match self {
            Order::Activate => Phase::Active,
            Order::Deactivate => Phase::Inactive,
            Order::Drain => Phase::Draining,
        }
    }
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
pub(super) fn tuples(
    encoding: Encoding,
    input: u32,
    values: &dyn Any,
    lineages: &[Lineage],
    Range { start, end }: Range<usize>,
) -> Piece {
    let end = within_bounds(lineages, start..end.min(start + TUPLES_MAX));
    if end == start {
        let trees = lineages[start].as_slice().len();
        return Piece::Stuck(start, format!("belongs to {trees} trees, and {ANCHORS_MAX} travel between workers"));
    }
    let mut body = Vec::with_capacity(VALUES.enough / 4);
    body.put_u64_le(0);
    body.put_u32_le(input);
    body.put_u32_le(0);
    let (until, wrong) = (encoding.put)(values, start..end, VALUES, &mut body);
    if let (true, Some(wrong)) = (until == start, wrong) {
        return Piece::Stuck(start, wrong);
    }
    body[HEAD - 4..HEAD].copy_from_slice(&((until - start) as u32).to_le_bytes());
    let lineages = lineages.get(start..until).unwrap_or_default();
    anchors(lineages, &mut body);
    Piece::Body(body, lineages.iter().flat_map(Lineage::roots).collect(), until)
}

/// The end of the tuples that have no more anchors together than a frame may have.
fn within_bounds(lineages: &[Lineage], range: Range<usize>) -> usize {
    let mut anchors = 0;
    let mut fits = |at: &usize| {
        anchors += lineages.get(*at).map_or(0, |lineage| lineage.as_slice().len());
        anchors <= ANCHORS_MAX
    };
    range.clone().find(|at| !fits(at)).unwrap_or(range.end)
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
    let Taken { values, bad } = take(&mut body, tuples)?;
    let mut lineages = read_anchors(body, tuples)?;
    let bad = part(&mut lineages, bad);
    Ok(Tuples { session, input, values, lineages, bad, tuples })
}

/// Takes the lineages of tuples that cannot be read out of all those of a frame, which has none at all or one for each tuple.
fn part(lineages: &mut Vec<Lineage>, bad: Vec<(usize, String)>) -> Vec<(String, Lineage)> {
    if lineages.is_empty() {
        return bad.into_iter().map(|(_, why)| (why, Lineage::None)).collect();
    }
    let (mut bad, mut parted, mut at) = (bad.into_iter().peekable(), Vec::new(), 0);
    lineages.retain_mut(|lineage| {
        let wrong = bad.next_if(|(place, _)| *place == at);
        at += 1;
        let stays = wrong.is_none();
        parted.extend(wrong.map(|(_, why)| (why, std::mem::take(lineage))));
        stays
    });
    parted
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
pub(super) fn cut(mut failure: Failure) -> Failure {
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

#[cfg(test)]
mod tests {
    use std::any::TypeId;

    use proptest::prelude::*;

    use super::*;
    use crate::{topology::encoding, transport::HEAD_BYTES};

    fn texts() -> Encoding {
        encoding::plain()[&TypeId::of::<String>()]
    }

    /// Everything that a chunk's frames bring, and what cannot be sent of it.
    #[allow(clippy::ptr_arg, reason = "what is erased is the Vec")]
    fn travel(values: &Vec<String>, lineages: &[Lineage]) -> (Vec<String>, Vec<Lineage>, Vec<usize>) {
        let (mut at, mut came, mut anchors, mut stuck) = (0, Vec::new(), Vec::new(), Vec::new());
        while at < values.len() {
            match tuples(texts(), 3, values, lineages, at..values.len()) {
                Piece::Body(mut body, roots, until) => {
                    assert!(until > at && HEAD_BYTES + body.len() <= FRAME_BYTES_MAX);
                    stamp(&mut body, 77);
                    let read = read_tuples(&body, |input| (input == 3).then_some(texts().take)).unwrap();
                    assert_eq!((read.session, read.tuples, read.bad.len()), (77, until - at, 0));
                    let read_roots: Vec<Root> = read.lineages.iter().flat_map(Lineage::roots).collect();
                    assert_eq!(read_roots, roots.to_vec());
                    came.extend(*read.values.downcast::<Vec<String>>().unwrap());
                    anchors.extend(read.lineages);
                    at = until;
                }
                Piece::Stuck(tuple, _) => {
                    assert_eq!(tuple, at);
                    stuck.push(tuple);
                    at += 1;
                }
            }
        }
        (came, anchors, stuck)
    }

    fn lineage(count: usize) -> Lineage {
        let anchor = |number: usize| Anchor { root: Root(number as u64), edge: 5 };
        match count {
            0 => Lineage::None,
            1 => Lineage::One(anchor(9)),
            _ => Lineage::Many((0..count).map(anchor).collect()),
        }
    }

    #[test]
    fn whatever_is_too_large_stays_alone_and_everything_else_travels() {
        let long = |bytes: usize| "x".repeat(bytes);
        let values = vec![long(10), long(VALUES.most), long(400 << 10), long(VALUES.most - 9), long(20), long(30)];
        let lineages: Vec<_> = [1, 1, ANCHORS_MAX, 1, ANCHORS_MAX + 1, 1].into_iter().map(lineage).collect();
        let (came, anchors, stuck) = travel(&values, &lineages);
        assert_eq!(stuck, [1, 4]);
        assert_eq!(came.iter().map(String::len).collect::<Vec<_>>(), [10, 400 << 10, VALUES.most - 9, 30]);
        let counts: Vec<_> = anchors.iter().map(|lineage| lineage.as_slice().len()).collect();
        assert_eq!(counts, [1, ANCHORS_MAX, 1, 1]);
        assert_eq!(travel(&vec![String::new(); TUPLES_MAX + 5], &[]).0.len(), TUPLES_MAX + 5);
    }

    #[test]
    fn a_tuple_that_cannot_be_read_takes_its_own_trees_with_it() {
        let (values, lineages) = (vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], [1, 2, 0].map(lineage));
        let Piece::Body(mut body, ..) = tuples(texts(), 0, &values, &lineages, 0..3) else { panic!("it is small") };
        // The second one's only letter; each has four bytes of length, one of its own length, and that letter.
        body[HEAD + 6 + 5] = 0xff;
        let read = read_tuples(&body, |_| Some(texts().take)).unwrap();
        assert_eq!(*read.values.downcast::<Vec<String>>().unwrap(), ["a", "c"]);
        assert_eq!(read.lineages.iter().map(|lineage| lineage.as_slice().len()).collect::<Vec<_>>(), [1, 0]);
        assert_eq!((read.tuples, read.bad[0].1.as_slice().len()), (3, 2));
    }

    #[test]
    fn x6_a_failure_is_cut_where_a_letter_ends() {
        let failure = Failure::fatal("ä".repeat(MESSAGE_BYTES_MAX));
        let cut = cut(failure);
        assert!(cut.message.len() < MESSAGE_BYTES_MAX + 20 && cut.message.ends_with("ä … (cut)"));
    }

    proptest! {
        #[test]
        fn chunks_come_as_they_were(
            chunk in prop::collection::vec((".{0,40}", 0usize..4), 1..200), anchored in any::<bool>(),
        ) {
            let (values, lineages): (Vec<String>, Vec<Lineage>) =
                chunk.into_iter().map(|(value, count)| (value, lineage(count))).unzip();
            let lineages = if anchored { lineages } else { Vec::new() };
            let (came, anchors, stuck) = travel(&values, &lineages);
            prop_assert!(came == values && stuck.is_empty());
            if lineages.iter().any(|lineage| !lineage.as_slice().is_empty()) {
                let slices = |lineages: &[Lineage]| lineages.iter().map(|it| it.as_slice().to_vec()).collect::<Vec<_>>();
                prop_assert_eq!(slices(&anchors), slices(&lineages));
            }
        }

        #[test]
        fn x6_hostile_bodies_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), flip in any::<(usize, u8)>()) {
            let read = |bytes: &[u8]| {
                let _ = (read_tuples(bytes, |_| Some(texts().take)).is_ok(), read_reports(bytes).is_ok());
                let _ = read_control(bytes);
            };
            read(&bytes);
            let values = vec!["one".to_owned(), "two".to_owned()];
            let Piece::Body(mut body, ..) = tuples(texts(), 0, &values, &[1, 2].map(lineage), 0..2) else { panic!("it is small") };
            let at = flip.0 % body.len();
            body[at] = flip.1;
            read(&body);
        }
    }
}
