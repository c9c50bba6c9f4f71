//! The client against a broker that misbehaves: what it lends is each record once, or a failure with words.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        self as theirs, BrokerId, ProducerId, RequestHeader, ResponseHeader, TopicName,
        api_versions_response::ApiVersion,
        fetch_response::{EpochEndOffset, FetchableTopicResponse, PartitionData},
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
    protocol::{Decodable, Encodable, StrBytes},
    records::{Compression, Record as Written, RecordBatchEncoder, RecordEncodeOptions, TimestampType},
};
use tine_core::failure::{Failure, FailureKind};
use tine_trident::source::{PartitionRange, Reader, Record, Sink, SourceIndex};
use uuid::Uuid;

use super::*;
use crate::{
    ask::{Asker, Seen},
    reader::TopicReader,
};

const END: i64 = 1500;
const ID: [u8; 16] = [7; 16];
const INCARNATION: &str = "BwcHBwcHBwcHBwcHBwcHBw";

/// What a fetch is answered with, instead of records.
#[derive(Clone, Copy, Debug)]
enum Act {
    Records,
    Close,
    Half,
    Noise,
    Error(i16),
    Throttle(i32),
    Flipped,
    Diverging,
    Length(i32),
    Nothing,
    Silence,
}

/// What a broker does before it behaves.
#[derive(Clone, Debug, Default)]
struct Play {
    fetches: VecDeque<Act>,
    /// The topic's id and its leader's epoch, as they are told.
    topics: VecDeque<([u8; 16], i32)>,
    /// Errors instead of offsets.
    marks: VecDeque<i16>,
}

type Script = Arc<Mutex<Play>>;

/// A broker with one partition of [`END`] records, which follows a script and then behaves.
fn broker(play: Play) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script: Script = Arc::new(Mutex::new(play));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let script = Arc::clone(&script);
            std::thread::spawn(move || serve(stream, port, &script));
        }
    });
    format!("127.0.0.1:{port}")
}

fn serve(mut stream: TcpStream, port: u16, script: &Script) -> Option<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).ok()?;
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut request).ok()?;
        let mut request = Bytes::from(request);
        let header = RequestHeader::decode(&mut request, 2).ok()?;
        let version = header.request_api_version;
        let answer = match header.request_api_key {
            18 => answered(&header, 0, version, &versions()),
            3 => {
                let topic = script.lock().unwrap().topics.pop_front().unwrap_or((ID, 3));
                answered(&header, 1, version, &metadata(port, topic))
            }
            2 => {
                let error = script.lock().unwrap().marks.pop_front().unwrap_or(0);
                let asked = theirs::ListOffsetsRequest::decode(&mut request, version).ok()?;
                answered(&header, 1, version, &offsets(&asked, error))
            }
            _ => {
                let asked = theirs::FetchRequest::decode(&mut request, version).ok()?;
                let act = script.lock().unwrap().fetches.pop_front().unwrap_or(Act::Records);
                fetch(&mut stream, act, &header, &asked)?
            }
        };
        stream.write_all(&answer).ok()?;
    }
}

fn answered(header: &RequestHeader, header_version: i16, version: i16, body: &impl Encodable) -> Vec<u8> {
    let mut out = BytesMut::new();
    let head = ResponseHeader::default().with_correlation_id(header.correlation_id);
    head.encode(&mut out, header_version).unwrap();
    body.encode(&mut out, version).unwrap();
    [&(out.len() as u32).to_be_bytes()[..], &out].concat()
}

fn versions() -> theirs::ApiVersionsResponse {
    let of = |key, newest| ApiVersion::default().with_api_key(key).with_min_version(0).with_max_version(newest);
    theirs::ApiVersionsResponse::default().with_api_keys(vec![of(1, 16), of(2, 8), of(3, 12), of(18, 3)])
}

fn offsets(asked: &theirs::ListOffsetsRequest, error: i16) -> theirs::ListOffsetsResponse {
    let low = asked.topics[0].partitions[0].timestamp == -2;
    let offset = if low { 0 } else { END };
    let partition = ListOffsetsPartitionResponse::default().with_error_code(error).with_offset(offset);
    let topic = ListOffsetsTopicResponse::default()
        .with_name(TopicName(StrBytes::from_static_str("lines")))
        .with_partitions(vec![partition]);
    theirs::ListOffsetsResponse::default().with_topics(vec![topic])
}

fn metadata(port: u16, (id, epoch): ([u8; 16], i32)) -> theirs::MetadataResponse {
    let host = StrBytes::from_static_str("127.0.0.1");
    let broker = MetadataResponseBroker::default().with_node_id(BrokerId(1)).with_host(host).with_port(port.into());
    let partition = MetadataResponsePartition::default().with_leader_id(BrokerId(1)).with_leader_epoch(epoch);
    let topic = MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_static_str("lines"))))
        .with_topic_id(Uuid::from_bytes(id))
        .with_partitions(vec![partition]);
    theirs::MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic])
}

/// `None` closes the connection.
fn fetch(stream: &mut TcpStream, act: Act, header: &RequestHeader, asked: &theirs::FetchRequest) -> Option<Vec<u8>> {
    let from = asked.topics[0].partitions[0].fetch_offset;
    let topic_id = asked.topics[0].topic_id;
    let mut set = records(from, if topic_id == Uuid::from_bytes(ID) { "row" } else { "other" });
    let mut partition = PartitionData::default().with_last_stable_offset(END).with_high_watermark(END);
    let mut whole = theirs::FetchResponse::default();
    match act {
        Act::Close => return None,
        Act::Silence => {
            let _ = stream.read(&mut [0; 1]);
            return None;
        }
        Act::Error(code) => partition.error_code = code,
        Act::Diverging => partition.diverging_epoch = EpochEndOffset::default().with_epoch(2).with_end_offset(50),
        Act::Throttle(ms) => whole.throttle_time_ms = ms,
        Act::Length(length) => return Some(length.to_be_bytes().to_vec()),
        Act::Noise => {
            return Some([&(40u32).to_be_bytes()[..], &header.correlation_id.to_be_bytes(), &[0xff; 36]].concat());
        }
        Act::Flipped => {
            let last = set.len() - 1;
            set[last] ^= 1;
        }
        Act::Records | Act::Half | Act::Nothing => {}
    }
    if !matches!(act, Act::Error(_) | Act::Diverging | Act::Nothing) {
        partition.records = Some(set.into());
    }
    let topic = FetchableTopicResponse::default().with_topic_id(topic_id).with_partitions(vec![partition]);
    // Over its quota a client is answered with nothing at all and a time for which it shall be quiet.
    let topics = if whole.throttle_time_ms > 0 { Vec::new() } else { vec![topic] };
    let mut answer = answered(header, 1, header.request_api_version, &whole.with_responses(topics));
    if matches!(act, Act::Half) {
        answer.truncate(answer.len() / 2);
        let _ = stream.write_all(&answer);
        return None;
    }
    Some(answer)
}

/// The batch of a hundred in which `from` lies, as brokers give it: whole.
fn records(from: i64, what: &str) -> Vec<u8> {
    let base = from / 100 * 100;
    let records: Vec<Written> = (base..(base + 100).min(END)).map(|offset| written(offset, what)).collect();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    let mut out = BytesMut::new();
    RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
    out.to_vec()
}

fn written(offset: i64, what: &str) -> Written {
    Written {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 3,
        producer_id: ProducerId(-1).0,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: -1,
        timestamp: 0,
        key: None,
        value: Some(Bytes::from(format!("{what} {offset}"))),
        headers: Default::default(),
    }
}

#[derive(Default)]
struct Offsets {
    all: Vec<u64>,
    cancelled_after: Option<usize>,
    asked: std::cell::Cell<usize>,
}

impl Sink for Offsets {
    fn records(&mut self, chunk: &[Record<'_>]) -> Result<(), Failure> {
        for record in chunk {
            assert_eq!(record.value, Some(format!("row {}", record.position).as_bytes()));
            self.all.push(record.position);
        }
        Ok(())
    }

    fn cancelled(&self) -> bool {
        self.asked.set(self.asked.get() + 1);
        self.cancelled_after.is_some_and(|after| self.asked.get() > after)
    }
}

fn range(from: u64, to: u64) -> PartitionRange {
    let (partition, incarnation) = ("lines/0".to_string(), INCARNATION.to_string());
    PartitionRange { source: SourceIndex(0), partition, incarnation, from, to, closed_at: None }
}

fn reader(script: &[Act], set: &[(&str, &str)]) -> TopicReader {
    reader_of(Play { fetches: script.iter().copied().collect(), ..Play::default() }, set)
}

fn reader_of(play: Play, set: &[(&str, &str)]) -> TopicReader {
    let set: Vec<_> = set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    TopicReader::new(Asker::new(fetching(&broker(play), &set, false).unwrap(), Seen::default()))
}

#[test]
fn whatever_interrupts_a_range_each_record_comes_once() {
    let acts = [
        Act::Close,
        Act::Half,
        Act::Noise,
        Act::Throttle(20),
        Act::Nothing,
        Act::Error(3),
        Act::Error(6),
        Act::Error(74),
        Act::Error(75),
        Act::Error(100),
    ];
    for act in acts {
        for set in [&[][..], &[("queued.max.messages.kbytes", "1"), ("fetch.message.max.bytes", "500")]] {
            let mut reader = reader(&[act, Act::Records, Act::Records, act, act], set);
            let mut sink = Offsets::default();
            for (from, to) in [(0, 5), (5, 250), (250, 251), (251, 1000)] {
                reader.read(&range(from, to), &mut sink).unwrap_or_else(|failure| panic!("{act:?}: {failure}"));
            }
            assert!(sink.all == (0..1000).collect::<Vec<_>>(), "{act:?}: {:?}", sink.all);
        }
    }
}

#[test]
fn a_quota_slows_a_range_down_and_never_fails_it() {
    // More often than a range is started anew, and once for longer than nothing may come.
    let often = (0..12).flat_map(|_| [Act::Throttle(5), Act::Records]);
    let script: Vec<Act> = often.chain([Act::Throttle(5_500), Act::Throttle(1)]).collect();
    let mut reader = reader(&script, &[("fetch.message.max.bytes", "500")]);
    let mut sink = Offsets::default();
    for (from, to) in [(0, 90), (90, 1000)] {
        reader.read(&range(from, to), &mut sink).unwrap_or_else(|failure| panic!("{failure}"));
    }
    assert!(sink.all == (0..1000).collect::<Vec<_>>(), "{:?}", sink.all);
}

/// The topic was made anew while one broker has not heard of it: the look after an error learns the new id from the broker
/// that leads, and the proof after the last record is asked of the other.
#[test]
fn k5_what_is_fetched_is_the_planned_topic_whatever_was_learned_since() {
    const OTHER: [u8; 16] = [9; 16];
    let play = Play {
        fetches: VecDeque::from([Act::Error(1)]),
        topics: VecDeque::from([(ID, 3), (ID, 3), (OTHER, 0)]),
        marks: VecDeque::from([6]),
    };
    let mut sink = Offsets::default();
    reader_of(play, &[]).read(&range(0, 250), &mut sink).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(sink.all == (0..250).collect::<Vec<_>>(), "{:?}", sink.all);
}

#[test]
fn a_broker_that_knows_less_than_before_is_asked_last_and_believed_when_nobody_knows_better() {
    let of = |epochs: &[i32]| Play { topics: epochs.iter().map(|epoch| (ID, *epoch)).collect(), ..Play::default() };
    // The first is cut off, after a while, and goes back behind what it knew itself; then both do.
    let brokers = format!("{},{}", broker(of(&[5, 4, 4, 1])), broker(of(&[6, 7, 2])));
    let mut cluster = cluster::Cluster::new(Arc::new(Settings::new(&brokers, &[]).unwrap()));
    let mut epochs = Vec::new();
    for _ in 0..4 {
        cluster.refresh(&["lines"], &|| false).unwrap();
        epochs.push(cluster.leader("lines", 0).unwrap().epoch);
    }
    assert_eq!(epochs, [5, 6, 7, 2]);
}

#[test]
fn what_no_try_mends_is_fatal_and_says_what_to_do() {
    for (act, words) in [
        (Act::Diverging, "unclean leader election"),
        (Act::Length(2_000_000_000), "receive.message.max.bytes"),
        (Act::Error(29), "grant READ"),
    ] {
        let mut reader = reader(&[Act::Records, act], &[]);
        let failure = reader.read(&range(0, 1000), &mut Offsets::default()).expect_err("refused");
        assert_eq!(failure.kind, FailureKind::Fatal, "{act:?}: {failure}");
        assert!(failure.message.contains(words), "{act:?}: {failure}");
    }
}

#[test]
fn a_damaged_batch_lends_nothing_of_itself() {
    // Nobody wants the records by the time when fetching is to start anew; what was lent before the batch stands.
    let mut reader = reader(&[Act::Records, Act::Flipped], &[]);
    let mut sink = Offsets { cancelled_after: Some(3), ..Offsets::default() };
    let failure = reader.read(&range(0, 1000), &mut sink).expect_err("damaged");
    assert_ne!(failure.kind, FailureKind::Fatal, "{failure}");
    assert_eq!(sink.all, (0..100).collect::<Vec<_>>());
    let mut again = Offsets::default();
    reader.read(&range(100, 1000), &mut again).expect("sound now");
    assert_eq!(again.all, (100..1000).collect::<Vec<_>>());
}

#[test]
fn a_range_that_gets_on_is_never_given_up() {
    // More often than a range is started anew in vain.
    let script: Vec<Act> = (0..14).flat_map(|_| [Act::Records, Act::Flipped]).collect();
    let mut sink = Offsets::default();
    // Without room for a fetch ahead, the answers come in the script's order.
    let set = [("queued.max.messages.kbytes", "1"), ("fetch.message.max.bytes", "500")];
    reader(&script, &set).read(&range(0, 1500), &mut sink).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(sink.all == (0..1500).collect::<Vec<_>>(), "{:?}", sink.all);
}

#[test]
fn a_silent_broker_does_not_keep_a_cancelled_read() {
    let mut reader = reader(&[Act::Silence], &[]);
    let mut sink = Offsets { cancelled_after: Some(4), ..Offsets::default() };
    let failure = reader.read(&range(0, 10), &mut sink).expect_err("cancelled");
    assert_eq!(failure.kind, FailureKind::Superseded, "{failure}");
}
