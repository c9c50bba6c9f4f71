//! A real broker for the tests: topics, transactional producers, a plain consumer to compare with, collected ranges.

use std::{
    cell::Cell,
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::LazyLock,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        AlterClientQuotasRequest, AlterClientQuotasResponse, ApiKey, RequestHeader, ResponseHeader,
        alter_client_quotas_request::{EntityData, EntryData, OpData},
    },
    protocol::{Decodable, Encodable, StrBytes},
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::FromClientConfig,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use tine_core::failure::{Failure, FailureKind};
use tine_kafka::{Kafka, KafkaTopic};
use tine_trident::{
    plan::{Position, Positions},
    source::{Bounds, Horizon, PartitionBounds, PartitionRange, Reached, Reader, Record, Sink, Source, SourceIndex},
};

pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// The broker's address; without one the test is skipped, aloud, and fails where nothing may be skipped.
pub(crate) fn broker() -> Option<String> {
    match std::env::var("TINE_TEST_KAFKA") {
        Ok(address) if !address.is_empty() => Some(address),
        _ if std::env::var_os("CI").is_some() => panic!("TINE_TEST_KAFKA must name a broker (host:port) in CI"),
        _ => {
            eprintln!("skipped: TINE_TEST_KAFKA does not name a broker (host:port)");
            None
        }
    }
}

/// Brokers seen through the client under test.
pub(crate) fn kafka(brokers: &str) -> Kafka {
    Kafka::connect(brokers).client(crate::CLIENT)
}

/// Waits until `ask` answers; fails after [`DEADLINE`].
pub(crate) fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    tine_tests::answer_within(DEADLINE, what, ask)
}

/// A topic of a test's own.
pub(crate) struct Topic {
    pub(crate) broker: String,
    pub(crate) name: String,
}

impl Topic {
    pub(crate) fn create(broker: &str, stem: &str, partitions: i32, settings: &[(&str, &str)]) -> Topic {
        let name = format!("{stem}-{:08x}", rand::random::<u32>());
        let topic = Topic { broker: broker.into(), name };
        topic.create_again(partitions, settings);
        topic
    }

    pub(crate) fn create_again(&self, partitions: i32, settings: &[(&str, &str)]) {
        eventually("the topic to be created", || {
            let mut new = NewTopic::new(&self.name, partitions, TopicReplication::Fixed(1));
            for (key, value) in settings {
                new = new.set(key, value);
            }
            let created = block_on(self.admin().create_topics([&new], &AdminOptions::new())).ok()?;
            matches!(created[0], Ok(_) | Err((_, rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists))).then_some(())
        });
        self.settle(partitions);
    }

    /// Waits until the leaders of all partitions answer.
    fn settle(&self, partitions: i32) {
        let consumer: BaseConsumer = config(&self.broker).create().expect("a client");
        eventually("the topic's leaders", || {
            (0..partitions)
                .all(|partition| consumer.fetch_watermarks(&self.name, partition, Duration::from_secs(1)).is_ok())
                .then_some(())
        });
    }

    pub(crate) fn delete(&self) {
        block_on(self.admin().delete_topics(&[&self.name], &AdminOptions::new())).expect("deleted")[0]
            .as_ref()
            .expect("deleted");
    }

    pub(crate) fn grow(&self, partitions: usize) {
        let new = NewPartitions::new(&self.name, partitions);
        block_on(self.admin().create_partitions([&new], &AdminOptions::new())).expect("grown");
        self.settle(partitions as i32);
    }

    /// Deletes all records below `offset`, as retention does.
    pub(crate) fn delete_records(&self, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, partition, Offset::Offset(offset)).expect("a place");
        block_on(self.admin().delete_records(&list, &AdminOptions::new())).expect("deleted");
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        AdminClient::from_config(&config(&self.broker)).expect("a client")
    }

    pub(crate) fn input(&self) -> KafkaTopic {
        kafka(&self.broker).topic(&self.name)
    }

    pub(crate) fn bounds(&self) -> Vec<PartitionBounds> {
        self.input()
            .bytes()
            .source
            .bounds()
            .expect("bounds")
            .poll(Horizon::Endless, &Reached::nothing())
            .expect("bounds")
    }

    pub(crate) fn range(&self, partition: i32, from: u64, to: u64) -> PartitionRange {
        range(&self.bounds()[partition as usize], from, to)
    }
}

/// How far a topology is that has planned something, of another partition.
pub(crate) fn planned() -> Reached<'static> {
    static PLANNED: LazyLock<Positions> = LazyLock::new(|| {
        let position = Position { at: 1, incarnation: "x".to_owned(), closed_at: None };
        Positions::from([((SourceIndex(1), "another".to_owned()), position)])
    });
    Reached::new(SourceIndex(0), &PLANNED)
}

pub(crate) fn range(bounds: &PartitionBounds, from: u64, to: u64) -> PartitionRange {
    PartitionRange {
        source: SourceIndex(0),
        partition: bounds.partition.clone(),
        incarnation: bounds.incarnation.clone(),
        from,
        to,
        closed_at: None,
    }
}

fn config(broker: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker);
    config
}

fn block_on<T>(future: impl Future<Output = Result<T, KafkaError>>) -> Result<T, KafkaError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// A producer, transactional or not.
pub(crate) struct Writer {
    producer: BaseProducer,
    topic: String,
}

impl Writer {
    pub(crate) fn plain(topic: &Topic) -> Writer {
        Writer { producer: config(&topic.broker).create().expect("a producer"), topic: topic.name.clone() }
    }

    pub(crate) fn transactional(topic: &Topic) -> Writer {
        let mut config = config(&topic.broker);
        config.set("transactional.id", format!("{}-{:08x}", topic.name, rand::random::<u32>()));
        config.set("message.max.bytes", "2000000");
        let producer: BaseProducer = config.create().expect("a producer");
        producer.init_transactions(DEADLINE).expect("a transactional producer");
        Writer { producer, topic: topic.name.clone() }
    }

    pub(crate) fn begin(&self) {
        self.producer.begin_transaction().expect("begun");
    }

    pub(crate) fn commit(&self) {
        self.producer.commit_transaction(DEADLINE).expect("committed");
    }

    pub(crate) fn abort(&self) {
        self.producer.flush(DEADLINE).expect("sent, so that aborted records really stand in the log");
        self.producer.abort_transaction(DEADLINE).expect("aborted");
    }

    pub(crate) fn flush(&self) {
        self.producer.flush(DEADLINE).expect("sent");
    }

    pub(crate) fn send(&self, partition: i32, value: &str) {
        self.send_record(partition, None, Some(value.as_bytes()), None, &[]);
    }

    pub(crate) fn send_record(
        &self,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp_ms: Option<i64>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic).partition(partition);
        record.key = key;
        record.payload = value;
        record.timestamp = timestamp_ms;
        if !headers.is_empty() {
            let all =
                headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: *value }));
            record.headers = Some(all);
        }
        while let Err((error, again)) = self.producer.send(record) {
            assert!(error.to_string().contains("Queue full"), "{error}");
            self.producer.poll(Duration::from_millis(5));
            record = again;
        }
    }
}

/// What was lent of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) position: u64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Kept {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(self.value.as_deref().expect("a value")).expect("text")
    }
}

/// Keeps what it is lent, and is cancelled after a number of questions.
#[derive(Default)]
pub(crate) struct Keep {
    pub(crate) records: Vec<Kept>,
    pub(crate) chunks: usize,
    pub(crate) cancel_after: Option<usize>,
    pub(crate) fail_at: Option<u64>,
    pub(crate) asked: Cell<usize>,
}

impl Sink for Keep {
    fn records(&mut self, chunk: &[Record<'_>]) -> Result<(), Failure> {
        assert!(!chunk.is_empty() && chunk.len() <= 512, "a chunk has 1 to 512 records, not {}", chunk.len());
        self.chunks += 1;
        for record in chunk {
            if self.fail_at.is_some_and(|at| record.position >= at) {
                return Err(Failure::new(FailureKind::Poison, "enough"));
            }
            let own = |bytes: &[u8]| bytes.to_vec();
            self.records.push(Kept {
                position: record.position,
                timestamp_ms: record.timestamp_ms,
                key: record.key.map(own),
                value: record.value.map(own),
                headers: record.headers.iter().map(|(name, value)| (name.to_string(), value.map(own))).collect(),
            });
        }
        Ok(())
    }

    fn cancelled(&self) -> bool {
        self.asked.set(self.asked.get() + 1);
        self.cancel_after.is_some_and(|after| self.asked.get() > after)
    }
}

/// Reads a range and checks what every range has: ascending positions within it.
pub(crate) fn read(reader: &mut dyn Reader, range: &PartitionRange) -> Result<Vec<Kept>, Failure> {
    let mut sink = Keep::default();
    reader.read(range, &mut sink)?;
    let mut next = range.from;
    for record in &sink.records {
        assert!(next <= record.position && record.position < range.to, "{} in {range:?}", record.position);
        next = record.position + 1;
    }
    Ok(sink.records)
}

pub(crate) fn reader(topic: &Topic) -> Box<dyn Reader> {
    topic.input().bytes().source.reader().expect("a reader")
}

/// All committed records of a partition by a plain consumer, by offset: shares nothing with the connector.
pub(crate) fn plainly(topic: &Topic, partition: i32) -> BTreeMap<u64, Option<Vec<u8>>> {
    let mut config = config(&topic.broker);
    config.set("group.id", "plain").set("enable.partition.eof", "true").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic.name, partition, Offset::Beginning).expect("a place");
    consumer.assign(&list).expect("assigned");
    let mut all = BTreeMap::new();
    eventually("the end of the partition", || match consumer.poll(Duration::from_secs(1)) {
        None => None,
        Some(Err(KafkaError::PartitionEOF(_))) => Some(()),
        Some(Err(error)) => panic!("{error}"),
        Some(Ok(message)) => loop_on(&consumer, message, &mut all),
    });
    all
}

fn loop_on(
    consumer: &BaseConsumer,
    message: rdkafka::message::BorrowedMessage<'_>,
    all: &mut BTreeMap<u64, Option<Vec<u8>>>,
) -> Option<()> {
    all.insert(message.offset() as u64, message.payload().map(<[u8]>::to_vec));
    loop {
        match consumer.poll(Duration::from_secs(1)) {
            None => return None,
            Some(Err(KafkaError::PartitionEOF(_))) => return Some(()),
            Some(Err(error)) => panic!("{error}"),
            Some(Ok(message)) => drop(all.insert(message.offset() as u64, message.payload().map(<[u8]>::to_vec))),
        }
    }
}

/// Lets clients of this name fetch so many bytes a second and no more.
pub(crate) fn limit(broker: &str, client_id: &str, bytes_per_second: f64) {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let entity = EntityData::default().with_entity_type(text("client-id")).with_entity_name(Some(text(client_id)));
    let op = OpData::default().with_key(text("consumer_byte_rate")).with_value(bytes_per_second);
    let entry = EntryData::default().with_entity(vec![entity]).with_ops(vec![op]);
    let mut out = BytesMut::new();
    let header = RequestHeader::default().with_request_api_key(ApiKey::AlterClientQuotas as i16);
    header.with_request_api_version(1).with_correlation_id(7).encode(&mut out, 2).expect("a header");
    AlterClientQuotasRequest::default().with_entries(vec![entry]).encode(&mut out, 1).expect("a request");
    let mut stream = TcpStream::connect(broker).expect("a broker");
    stream.write_all(&[&(out.len() as u32).to_be_bytes()[..], &out].concat()).expect("sent");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("an answer");
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).expect("an answer");
    let mut answer = Bytes::from(answer);
    ResponseHeader::decode(&mut answer, 1).expect("a header");
    let answer = AlterClientQuotasResponse::decode(&mut answer, 1).expect("an answer");
    assert!(answer.entries.iter().all(|entry| entry.error_code == 0), "{answer:?}");
}

pub(crate) fn bounds_of(source: &dyn Source) -> Box<dyn Bounds> {
    source.bounds().expect("bounds")
}
