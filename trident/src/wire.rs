//! What workers send one another, in bytes: tuples with their anchors, and reports to the acker.
//!
//! ```text
//!  frame of kind Tuples     anchors, message without its rows, then the rows' chunk as it is
//!  frame of kind Reports    one report
//! ```
//!
//! A chunk's rows stay in bytes until a fold or an exchange unpacks them on a thread of its own. Plans that are committed
//! together with the data never leave their process, so a `Commit` goes without one.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tine_core::{
    acker::AckerEvent,
    codec,
    failure::Failure,
    id::{Attempt, Era, TaskId, TxId},
    transport::{FRAME_BYTES_MAX, Frame, HEAD_BYTES, Kind, Roots},
    tuple::{Anchor, Anchors, Tuple},
};
use tine_state::{Chain, Location, Manifest};

use crate::{
    message::{CommitCommand, Message, Note},
    packed::Packed,
    pipeline::Target,
    plan::Plan,
};

/// What a report says of a failure at most: a person reads a page of it.
const WORDS_MAX: usize = 64 << 10;

/// What a report may take.
const REPORT_BYTES_MAX: usize = FRAME_BYTES_MAX - HEAD_BYTES;

/// More trees than a tuple of ours belongs to: one.
const ANCHORS_MAX: usize = 16;

/// A message without its rows.
#[derive(Debug, Serialize, Deserialize)]
enum Head {
    Emit { attempt: Attempt, plan: Plan },
    Rows { attempt: Attempt, txid: TxId, chunk: u64, target: Target, count: u64 },
    End { attempt: Attempt, txid: TxId, chunks: u64, rows: u64 },
    Commit { attempt: Attempt, txid: TxId, previous: Chain, chain: Chain, manifest: Manifest, location: Location },
}

/// A tuple for the task `to` of another worker, and the trees that it belongs to.
pub fn tuple(era: Era, to: TaskId, tuple: Tuple<Message>) -> Result<(Frame, Roots), Failure> {
    let roots = tuple.anchors.iter().map(|anchor| anchor.root).collect();
    let (head, rows) = take_apart(tuple.message)?;
    let mut body = Vec::with_capacity(128 + rows.len());
    let anchors: &[Anchor] = &tuple.anchors;
    let written = codec::append(anchors, &mut body).and_then(|()| codec::append(&head, &mut body));
    written.map_err(|error| Failure::fatal(format!("a message cannot be written in bytes: {error}")))?;
    body.extend_from_slice(&rows);
    Ok((Frame { era, to, from: tuple.from, kind: Kind::Tuples, body: body.into() }, roots))
}

fn take_apart(message: Message) -> Result<(Head, Bytes), Failure> {
    Ok(match message {
        Message::Emit { attempt, plan } => (Head::Emit { attempt, plan: Arc::unwrap_or_clone(plan) }, Bytes::new()),
        Message::Rows { attempt, txid, chunk, target, rows } => {
            let packed = rows.into_any().downcast::<Packed>();
            let Packed { count, bytes } =
                *packed.map_err(|_| Failure::fatal("rows for another worker were not packed, which is a bug"))?;
            (Head::Rows { attempt, txid, chunk, target, count }, bytes)
        }
        Message::End { attempt, txid, chunks, rows } => (Head::End { attempt, txid, chunks, rows }, Bytes::new()),
        Message::Commit(command) => {
            let CommitCommand { attempt, txid, previous, chain, manifest, location, ref plan } = *command;
            match plan {
                None => (Head::Commit { attempt, txid, previous, chain, manifest, location }, Bytes::new()),
                Some(_) => return Err(Failure::fatal("a plan was to be committed by another worker, which is a bug")),
            }
        }
    })
}

/// Reads a tuple back; its rows stay in bytes.
pub fn read_tuple(frame: Frame) -> Result<Tuple<Message>, Failure> {
    let strange = |why: &dyn std::fmt::Display| Failure::transient(format!("a message that cannot be read: {why}"));
    let mut rest = &frame.body[..];
    let anchors: Vec<Anchor> = codec::take(&mut rest).map_err(|error| strange(&error))?;
    if anchors.len() > ANCHORS_MAX {
        return Err(strange(&format_args!("it belongs to {} trees", anchors.len())));
    }
    let head: Head = codec::take(&mut rest).map_err(|error| strange(&error))?;
    let bytes = frame.body.slice(frame.body.len() - rest.len()..);
    if !bytes.is_empty() && !matches!(head, Head::Rows { .. }) {
        return Err(strange(&format_args!("{} bytes after its end", bytes.len())));
    }
    let message = match head {
        Head::Emit { attempt, plan } => Message::Emit { attempt, plan: Arc::new(plan) },
        // Every row has a byte at least. Receivers set memory aside by this number.
        Head::Rows { count, .. } if count > bytes.len() as u64 => {
            return Err(strange(&format_args!("{count} rows in {} bytes", bytes.len())));
        }
        Head::Rows { attempt, txid, chunk, target, count } => {
            let rows = Box::new(Packed { count, bytes });
            Message::Rows { attempt, txid, chunk, target, rows }
        }
        Head::End { attempt, txid, chunks, rows } => Message::End { attempt, txid, chunks, rows },
        Head::Commit { attempt, txid, previous, chain, manifest, location } => {
            let command = CommitCommand { attempt, txid, previous, chain, manifest, location, plan: None };
            Message::Commit(Arc::new(command))
        }
    };
    Ok(Tuple { anchors: Anchors::from_vec(anchors), from: frame.from, message })
}

/// A report for the acker of another worker, and the tree that it is about. A failure's words are cut where they are long, and
/// an ack that fits into no frame is a failure that says so: a report that was dropped would be waited for.
pub fn report(era: Era, event: &AckerEvent<Note>) -> Result<(Frame, Roots), Failure> {
    let write = |event: &AckerEvent<Note>| {
        let mut body = Vec::new();
        let written = codec::append(event, &mut body);
        written.map_err(|error| Failure::fatal(format!("a report cannot be written in bytes: {error}")))?;
        Ok(body)
    };
    let body = match event {
        AckerEvent::Fail { root, failure } if failure.message.len() > WORDS_MAX => {
            let failure = Failure::new(failure.kind, cut(&failure.message));
            write(&AckerEvent::Fail { root: *root, failure })?
        }
        event => match (write(event)?, event) {
            (long, AckerEvent::Ack { root, .. }) if long.len() > REPORT_BYTES_MAX => {
                let what = format!("a report of {} bytes, and a frame takes {REPORT_BYTES_MAX}", long.len());
                let failure = Failure::fatal(format!("{what}: use fewer shards or partitions in one topology"));
                write(&AckerEvent::Fail { root: *root, failure })?
            }
            (body, _) => body,
        },
    };
    let roots = match event {
        AckerEvent::Start { root, .. }
        | AckerEvent::Ack { root, .. }
        | AckerEvent::Fail { root, .. }
        | AckerEvent::Alive { root } => Roots::from_slice(&[*root]),
        AckerEvent::Tick => Roots::new(),
    };
    let (to, from) = (TaskId(0), TaskId(0));
    Ok((Frame { era, to, from, kind: Kind::Reports, body: body.into() }, roots))
}

/// The beginning of a long text, with a mark.
fn cut(words: &str) -> String {
    let kept = &words[..words.floor_char_boundary(WORDS_MAX)];
    format!("{kept} … (cut here: {} of {} bytes)", kept.len(), words.len())
}

/// Reads a report back: an ack, a failure, or a sign of life. Trees are started where the acker is, and its clock is its own.
pub fn read_report(frame: &Frame) -> Result<AckerEvent<Note>, Failure> {
    let mut rest = &frame.body[..];
    match codec::take(&mut rest) {
        Ok(AckerEvent::Start { .. } | AckerEvent::Tick) => Err(Failure::transient("a report that only an acker makes")),
        Ok(event) if rest.is_empty() => Ok(event),
        Ok(_) => Err(Failure::transient(format!("{} bytes after a report", rest.len()))),
        Err(error) => Err(Failure::transient(format!("a report that cannot be read: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tine_core::{
        hash::Hash128,
        id::{Epoch, Generation, Nonce, Shard},
        tuple::Root,
    };
    use tine_state::{Digest, ShardRef, StateIndex};

    use super::*;

    const ATTEMPT: Attempt = Attempt { epoch: Epoch(1), nonce: Nonce(2), generation: Generation(3) };

    fn frame(message: Message) -> Frame {
        let anchors = Anchors::from_slice(&[Anchor { root: Root(4), edge: 5 }]);
        let (frame, roots) = tuple(Era(6), TaskId(7), Tuple { anchors, from: TaskId(8), message }).unwrap();
        assert_eq!(roots.as_slice(), [Root(4)]);
        frame
    }

    fn rows() -> Message {
        let rows = Box::new(Packed { count: 2, bytes: Bytes::from_static(b"xyz") });
        Message::Rows { attempt: ATTEMPT, txid: TxId(9), chunk: 1, target: Target::State(StateIndex(1)), rows }
    }

    /// Golden bytes: if this fails, workers of two builds misread one another; raise the frame's version instead.
    #[test]
    fn the_encoding_is_the_documented_one() {
        assert_eq!(frame(rows()).body[..], [&[1, 4, 5, 1, 1, 2, 3, 9, 1, 0, 1, 2][..], b"xyz"].concat());
        let end = Message::End { attempt: ATTEMPT, txid: TxId(9), chunks: 1, rows: 2 };
        assert_eq!(frame(end).body[..], [1, 4, 5, 2, 1, 2, 3, 9, 1, 2]);
        let ack = AckerEvent::Ack { root: Root(4), value: 5, note: Some(Note::Committed) };
        assert_eq!(report(Era(6), &ack).unwrap().0.body[..], [1, 4, 5, 1, 2]);
    }

    #[test]
    fn messages_come_back_as_they_went() {
        let back = read_tuple(frame(rows())).unwrap();
        assert_eq!((back.from, back.anchors[0].edge), (TaskId(8), 5));
        assert!(matches!(back.message, Message::Rows { chunk: 1, rows, .. } if rows.count() == 2));
        let plan = Plan { txid: TxId(1), previous: Hash128(2), time_ms: 3, seed: 4, ranges: Vec::new() };
        let emit = Message::Emit { attempt: ATTEMPT, plan: Arc::new(plan.clone()) };
        assert!(matches!(read_tuple(frame(emit)).unwrap().message, Message::Emit { plan: back, .. } if *back == plan));
        let (chain, location) = (Hash128(1), Location { system: 1, timeline: 2, lsn: 3 });
        let (txid, previous, manifest) = (TxId(1), Hash128(0), Hash128(7));
        let command = CommitCommand { attempt: ATTEMPT, txid, previous, chain, manifest, location, plan: None };
        let back = read_tuple(frame(Message::Commit(Arc::new(command)))).unwrap();
        assert!(
            matches!(back.message, Message::Commit(back) if back.location == location && back.manifest == manifest)
        );
    }

    #[test]
    fn x3_more_rows_than_bytes_are_refused() {
        let of = |count| Box::new(Packed { count, bytes: Bytes::from_static(b"xyz") });
        let target = Target::State(StateIndex(1));
        let rows = |count| Message::Rows { attempt: ATTEMPT, txid: TxId(9), chunk: 1, target, rows: of(count) };
        assert!(read_tuple(frame(rows(3))).is_ok());
        assert!(read_tuple(frame(rows(4))).unwrap_err().message.contains("4 rows in 3 bytes"));
        assert!(read_tuple(frame(rows(u64::MAX))).is_err());
    }

    #[test]
    fn x2_reports_that_only_an_acker_makes_are_refused() {
        let start = AckerEvent::Start { root: Root(1), spout: TaskId(0), value: 0 };
        for forged in [start, AckerEvent::Tick] {
            assert!(read_report(&report(Era(1), &forged).unwrap().0).is_err());
        }
        let fail = AckerEvent::Fail { root: Root(1), failure: Failure::transient("x") };
        assert!(matches!(read_report(&report(Era(1), &fail).unwrap().0), Ok(AckerEvent::Fail { root: Root(1), .. })));
    }

    #[test]
    fn a_failure_of_any_length_gets_there_cut_and_marked() {
        let words = "ä".repeat(FRAME_BYTES_MAX);
        let failure = Failure::poison(format!("x{words}"));
        let (frame, _) = report(Era(1), &AckerEvent::Fail { root: Root(1), failure }).unwrap();
        assert!(frame.len() < 2 * WORDS_MAX, "{}", frame.len());
        let AckerEvent::Fail { root: Root(1), failure } = read_report(&frame).unwrap() else { panic!("no failure") };
        let mark = format!("ä … (cut here: {} of {} bytes)", WORDS_MAX - 1, 2 * FRAME_BYTES_MAX + 1);
        assert!(failure.message.starts_with("xää") && failure.message.ends_with(&mark));
        assert_eq!(failure.kind, tine_core::failure::FailureKind::Poison);
    }

    #[test]
    fn an_ack_that_fits_into_no_frame_fails_its_tree_instead() {
        let (at, digest) =
            (ShardRef { state: StateIndex(0), shard: Shard(1) }, Digest { count: u64::MAX, sum: u128::MAX });
        let note = Note::Digests { digests: vec![(at, digest); 200_000], rows: 0 };
        let (frame, _) = report(Era(1), &AckerEvent::Ack { root: Root(1), value: 2, note: Some(note) }).unwrap();
        let AckerEvent::Fail { root: Root(1), failure } = read_report(&frame).unwrap() else { panic!("no failure") };
        assert!(failure.message.contains("fewer shards"), "{failure}");
    }

    proptest! {
        #[test]
        fn x3_hostile_bodies_are_an_error_and_never_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..60), flip in any::<(usize, u8)>()) {
            let hostile = |bytes: Vec<u8>| Frame { body: bytes.into(), ..frame(rows()) };
            let _ = (read_tuple(hostile(bytes.clone())), read_report(&hostile(bytes.clone())));
            bytes = frame(rows()).body.to_vec();
            let at = flip.0 % bytes.len();
            bytes[at] = flip.1;
            let _ = read_tuple(hostile(bytes));
        }
    }
}
