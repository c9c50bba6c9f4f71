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

const END: i64 = 1000;
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
    Throttle,
    Flipped,
    Diverging,
    Length(i32),
    Nothing,
    Silence,
}

type Script = Arc<Mutex<VecDeque<Act>>>;

/// A broker with one partition of [`END`] records, which follows a script and then behaves.
fn broker(script: &[Act]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script: Script = Arc::new(Mutex::new(script.iter().copied().collect()));
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
            3 => answered(&header, 1, version, &metadata(port)),
            2 => answered(&header, 1, version, &theirs::ListOffsetsResponse::default()),
            _ => {
                let asked = theirs::FetchRequest::decode(&mut request, version).ok()?;
                let act = script.lock().unwrap().pop_front().unwrap_or(Act::Records);
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

fn metadata(port: u16) -> theirs::MetadataResponse {
    let host = StrBytes::from_static_str("127.0.0.1");
    let broker = MetadataResponseBroker::default().with_node_id(BrokerId(1)).with_host(host).with_port(port.into());
    let partition = MetadataResponsePartition::default().with_leader_id(BrokerId(1)).with_leader_epoch(3);
    let topic = MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_static_str("lines"))))
        .with_topic_id(Uuid::from_bytes(ID))
        .with_partitions(vec![partition]);
    theirs::MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic])
}

/// `None` closes the connection.
fn fetch(stream: &mut TcpStream, act: Act, header: &RequestHeader, asked: &theirs::FetchRequest) -> Option<Vec<u8>> {
    let from = asked.topics[0].partitions[0].fetch_offset;
    let mut set = records(from);
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
        Act::Throttle => whole.throttle_time_ms = 20,
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
    let topic = FetchableTopicResponse::default().with_topic_id(Uuid::from_bytes(ID)).with_partitions(vec![partition]);
    let mut answer = answered(header, 1, header.request_api_version, &whole.with_responses(vec![topic]));
    if matches!(act, Act::Half) {
        answer.truncate(answer.len() / 2);
        let _ = stream.write_all(&answer);
        return None;
    }
    Some(answer)
}

/// The batch of a hundred in which `from` lies, as brokers give it: whole.
fn records(from: i64) -> Vec<u8> {
    let base = from / 100 * 100;
    let records: Vec<Written> = (base..(base + 100).min(END)).map(written).collect();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    let mut out = BytesMut::new();
    RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
    out.to_vec()
}

fn written(offset: i64) -> Written {
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
        value: Some(Bytes::from(format!("row {offset}"))),
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
    let set: Vec<_> = set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    TopicReader::new(Asker::new(fetching(&broker(script), &set, false).unwrap(), Seen::default()))
}

#[test]
fn whatever_interrupts_a_range_each_record_comes_once() {
    let acts = [
        Act::Close,
        Act::Half,
        Act::Noise,
        Act::Throttle,
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
    // The look after it finds no answer here, so the read ends; what was lent before it stands.
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
fn a_silent_broker_does_not_keep_a_cancelled_read() {
    let mut reader = reader(&[Act::Silence], &[]);
    let mut sink = Offsets { cancelled_after: Some(4), ..Offsets::default() };
    let failure = reader.read(&range(0, 10), &mut sink).expect_err("cancelled");
    assert_eq!(failure.kind, FailureKind::Superseded, "{failure}");
}
