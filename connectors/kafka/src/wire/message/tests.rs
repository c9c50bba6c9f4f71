//! Our messages against a generated library's: it reads what we ask, we read what it answers, and damaged answers are
//! refused.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        self as theirs, BrokerId, ProducerId, RequestHeader, ResponseHeader, TopicName,
        fetch_response::{AbortedTransaction, EpochEndOffset, FetchableTopicResponse, PartitionData},
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
    protocol::{Decodable, Encodable, StrBytes},
};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use uuid::Uuid;

use super::*;

const ID: [u8; 16] = [7; 16];

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_string()))
}

/// Reads our request with the library: its header must be right, and nothing may be left over.
fn theirs<R: Decodable>(api: Api, version: i16, body: impl FnOnce(&mut Put<'_>)) -> R {
    let mut out = Vec::new();
    request(&mut out, (api, version), 42, "me", body);
    let mut bytes = Bytes::from(out).split_off(4);
    let header = RequestHeader::decode(&mut bytes, if api.is_flexible() { 2 } else { 1 }).unwrap();
    assert_eq!((header.request_api_key, header.request_api_version, header.correlation_id), (api.key(), version, 42));
    assert_eq!(header.client_id.as_deref(), Some("me"));
    let request = R::decode(&mut bytes, version).unwrap();
    assert!(bytes.is_empty(), "{} bytes are left over", bytes.len());
    request
}

/// An answer as the library writes it.
fn answered(api: Api, version: i16, body: &impl Encodable) -> Vec<u8> {
    let mut out = BytesMut::new();
    let header = i16::from(api.is_flexible() && api != Api::Versions);
    ResponseHeader::default().with_correlation_id(42).encode(&mut out, header).unwrap();
    body.encode(&mut out, version).unwrap();
    out.to_vec()
}

fn body(api: Api, bytes: &[u8]) -> Take<'_> {
    let mut take = Take::new(bytes);
    assert_eq!(answer(api, &mut take).unwrap(), 42);
    take
}

fn wanted() -> fetch::Wanted<'static> {
    fetch::Wanted {
        topic: "lines",
        topic_id: ID,
        partition: 3,
        epoch: 9,
        from: 1 << 40,
        last_epoch: 8,
        bytes_max: 1 << 20,
        wait_ms: 10,
    }
}

#[test]
fn a_fetch_is_asked_as_the_library_reads_it() {
    for version in 12..=17 {
        let read: theirs::FetchRequest = theirs(Api::Fetch, version, |put| wanted().ask(put, version));
        assert_eq!((read.isolation_level, read.session_id, read.session_epoch), (1, 0, -1));
        assert_eq!((read.min_bytes, read.max_bytes, read.max_wait_ms), (1, 1 << 20, 10));
        let topic = &read.topics[0];
        match version {
            12 => assert_eq!(topic.topic.as_str(), "lines"),
            _ => assert_eq!(topic.topic_id, Uuid::from_bytes(ID)),
        }
        let asked = &topic.partitions[0];
        assert_eq!((asked.partition, asked.current_leader_epoch, asked.last_fetched_epoch), (3, 9, 8));
        assert_eq!((asked.fetch_offset, asked.partition_max_bytes), (1 << 40, 1 << 20));
    }
}

#[test]
fn the_other_questions_are_asked_as_the_library_reads_them() {
    for version in 12..=13 {
        let ask = |put: &mut Put<'_>| metadata::ask(put, &["a", "b"]);
        let read: theirs::MetadataRequest = theirs(Api::Metadata, version, ask);
        let names: Vec<_> = read.topics.as_ref().unwrap().iter().map(|topic| topic.name.clone().unwrap()).collect();
        assert!(names == [name("a"), name("b")] && !read.allow_auto_topic_creation);
    }
    for version in 6..=9 {
        let of = |topic, partition, timestamp| list_offsets::Wanted { topic, partition, epoch: 5, timestamp };
        let asked = [of("a", 0, -1), of("a", 1, -2), of("b", 0, 77)];
        let read: theirs::ListOffsetsRequest = theirs(Api::ListOffsets, version, |put| list_offsets::ask(put, &asked));
        assert_eq!((read.isolation_level, read.topics.len(), read.topics[0].partitions.len()), (1, 2, 2));
        let last = &read.topics[1].partitions[0];
        assert_eq!((last.partition_index, last.current_leader_epoch, last.timestamp), (0, 5, 77));
    }
    let ask = |put: &mut Put<'_>| api_versions::ask(put, "tine", "1");
    let read: theirs::ApiVersionsRequest = theirs(Api::Versions, 3, ask);
    assert_eq!(read.client_software_name.as_str(), "tine");
    let ask = |put: &mut Put<'_>| sasl::ask_mechanism(put, "PLAIN");
    let read: theirs::SaslHandshakeRequest = theirs(Api::SaslHandshake, 1, ask);
    assert_eq!(read.mechanism.as_str(), "PLAIN");
    let ask = |put: &mut Put<'_>| sasl::ask_token(put, b"secret");
    let read: theirs::SaslAuthenticateRequest = theirs(Api::SaslAuthenticate, 2, ask);
    assert_eq!(&read.auth_bytes[..], b"secret");
}

fn a_fetch_answer(version: i16) -> Vec<u8> {
    let aborted = AbortedTransaction::default().with_producer_id(ProducerId(5)).with_first_offset(6);
    let mut partition = PartitionData::default()
        .with_partition_index(3)
        .with_last_stable_offset(100)
        .with_high_watermark(110)
        .with_aborted_transactions(Some(vec![aborted]))
        .with_records(Some(Bytes::from_static(b"the records")));
    partition.diverging_epoch = EpochEndOffset::default().with_epoch(4).with_end_offset(50);
    let mut topic = FetchableTopicResponse::default().with_partitions(vec![partition]);
    match version {
        12 => topic.topic = name("lines"),
        _ => topic.topic_id = Uuid::from_bytes(ID),
    }
    let answer = theirs::FetchResponse::default().with_throttle_time_ms(8).with_responses(vec![topic]);
    answered(Api::Fetch, version, &answer)
}

fn a_metadata_answer(version: i16) -> Vec<u8> {
    let host = StrBytes::from_static_str("kafka");
    let broker = MetadataResponseBroker::default().with_node_id(BrokerId(2)).with_host(host).with_port(9092);
    let partition = MetadataResponsePartition::default()
        .with_partition_index(1)
        .with_leader_id(BrokerId(2))
        .with_leader_epoch(12)
        .with_replica_nodes(vec![BrokerId(2), BrokerId(3)]);
    let topic = MetadataResponseTopic::default()
        .with_name(Some(name("lines")))
        .with_topic_id(Uuid::from_bytes(ID))
        .with_partitions(vec![partition]);
    let answer = theirs::MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic]);
    answered(Api::Metadata, version, &answer)
}

fn an_offsets_answer(version: i16) -> Vec<u8> {
    let offset = ListOffsetsPartitionResponse::default().with_partition_index(1).with_error_code(6).with_offset(-1);
    let topic = ListOffsetsTopicResponse::default().with_name(name("lines")).with_partitions(vec![offset]);
    let answer = theirs::ListOffsetsResponse::default().with_topics(vec![topic]);
    answered(Api::ListOffsets, version, &answer)
}

fn a_versions_answer() -> Vec<u8> {
    use theirs::api_versions_response::ApiVersion;
    let api = ApiVersion::default().with_api_key(1).with_min_version(4).with_max_version(16);
    answered(Api::Versions, 3, &theirs::ApiVersionsResponse::default().with_api_keys(vec![api]))
}

#[test]
fn the_librarys_answers_are_read() {
    for version in 12..=17 {
        let bytes = a_fetch_answer(version);
        let read = fetch::Fetched::read(&mut body(Api::Fetch, &bytes), version).unwrap();
        let partition = &read.partitions[0];
        assert_eq!((read.throttle_ms, partition.index, partition.stable), (8, 3, 100));
        assert_eq!((&partition.aborted[..], partition.diverging), (&[(5, 6)][..], Some((4, 50))));
        assert_eq!(&bytes[partition.records.clone()], b"the records");
        assert_eq!(partition.topic_id, if version == 12 { [0; 16] } else { ID });
    }
    for version in 12..=13 {
        let bytes = a_metadata_answer(version);
        let read = metadata::Metadata::read(&mut body(Api::Metadata, &bytes), version).unwrap();
        assert_eq!(read.brokers, [metadata::Broker { id: 2, host: "kafka".into(), port: 9092 }]);
        assert_eq!(read.topics[0].partitions, [metadata::Partition { index: 1, leader: 2, epoch: 12 }]);
        assert_eq!((read.topics[0].name.as_str(), read.topics[0].id), ("lines", ID));
    }
    for version in 6..=9 {
        let bytes = an_offsets_answer(version);
        let read = list_offsets::Offsets::read(&mut body(Api::ListOffsets, &bytes)).unwrap();
        let expected = list_offsets::Offset { topic: "lines".into(), partition: 1, error: 6, offset: -1 };
        assert_eq!(read.offsets, [expected]);
    }
    let bytes = a_versions_answer();
    let read = api_versions::Versions::read(&mut body(Api::Versions, &bytes)).unwrap();
    assert_eq!((read.common(Api::Fetch), read.common(Api::Metadata)), (Some(16), None));
}

/// Reads an answer as whatever it may be; what matters is that this comes back.
fn read_all(bytes: &[u8]) {
    let take = || Take::new(bytes);
    for version in [12, 13, 17] {
        if let Ok(fetched) = fetch::Fetched::read(&mut take(), version) {
            // Places in an answer are places in the answer.
            assert!(fetched.partitions.iter().all(|partition| bytes.get(partition.records.clone()).is_some()));
        }
        let _ = metadata::Metadata::read(&mut take(), version);
    }
    let _ = list_offsets::Offsets::read(&mut take());
    let _ = api_versions::Versions::read(&mut take());
    let _ = sasl::Mechanisms::read(&mut take());
    let _ = sasl::Token::read(&mut take());
}

/// Answers of every kind and version, without their headers.
fn corpus() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (12..=17).map(a_fetch_answer).collect();
    all.extend((12..=13).map(a_metadata_answer));
    all.extend((6..=9).map(an_offsets_answer));
    all.push(a_versions_answer());
    let mechanisms = vec![StrBytes::from_static_str("PLAIN"), StrBytes::from_static_str("SCRAM-SHA-256")];
    let handshake = theirs::SaslHandshakeResponse::default().with_mechanisms(mechanisms);
    all.push(answered(Api::SaslHandshake, 1, &handshake));
    let token = theirs::SaslAuthenticateResponse::default().with_auth_bytes(Bytes::from_static(b"v=token"));
    all.push(answered(Api::SaslAuthenticate, 2, &token));
    all.into_iter().map(|answer| answer[4..].to_vec()).collect()
}

/// How many damaged answers are read; `TINE_FUZZ_CASES` asks for more.
fn cases() -> u64 {
    let asked = std::env::var("TINE_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok());
    asked.unwrap_or(if cfg!(debug_assertions) { 50_000 } else { 1_000_000 })
}

#[test]
fn a_million_damaged_answers_are_refused_or_read_without_a_panic() {
    let corpus = corpus();
    let mut random = SmallRng::seed_from_u64(cases());
    for _ in 0..cases() {
        let mut bytes = corpus[random.random_range(0..corpus.len())].clone();
        for _ in 0..random.random_range(1..5) {
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..6) {
                0 => bytes[at] ^= 1 << random.random_range(0..8),
                1 => bytes[at] = [0, 1, 2, 0x7f, 0x80, 0xff][random.random_range(0..6)],
                // A length or a count that claims a lot.
                2 => drop(bytes.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0x0f])),
                3 => bytes.truncate(at.max(1)),
                4 => bytes.insert(at, random.random()),
                _ => {
                    let other = &corpus[random.random_range(0..corpus.len())];
                    let from = random.random_range(0..other.len());
                    bytes.splice(at.., other[from..].iter().copied());
                }
            }
        }
        read_all(&bytes);
    }
}

proptest! {
    #[test]
    fn damaged_answers_are_refused_or_read_without_a_panic(
        which in 0usize..5,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = match which {
            0 => a_fetch_answer(12),
            1 => a_fetch_answer(17),
            2 => a_metadata_answer(13),
            3 => an_offsets_answer(9),
            _ => a_versions_answer(),
        };
        bytes.drain(..4);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read_all(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        read_all(&bytes);
    }

    #[test]
    fn noise_is_refused_or_read_without_a_panic(bytes: Vec<u8>) {
        read_all(&bytes);
    }
}

#[test]
fn every_cut_of_an_answer_is_refused() {
    let bytes = a_fetch_answer(17);
    let whole = bytes.len();
    for cut in 0..whole {
        let mut take = Take::new(&bytes[..cut]);
        let read = answer(Api::Fetch, &mut take).and_then(|_| fetch::Fetched::read(&mut take, 17));
        assert!(read.is_err(), "cut at {cut} of {whole}");
    }
}
