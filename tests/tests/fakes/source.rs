//! Sources: the simulator's fake against real Kafka topics, through the connector.
//!
//! The fake is told where every record lies by a model of Kafka's log: each transaction ends in a control record, and
//! what it aborted takes positions and is never seen. So the model is under test too. Records are deleted, topics are
//! deleted and created again, partitions are added, and ranges are cut anywhere, also across and beyond what is left.

use std::time::Duration;

use proptest::prelude::*;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use tine_core::failure::Failure;
use tine_kafka::Kafka;
use tine_sim::fakes::source::FakeSource;
use tine_tests::{
    produce::{self, Outcome, Record, Transactions},
    services::{kafka::Broker, shared, unique},
    wait_until,
};
use tine_trident::source::{
    Bounds, Horizon, PartitionBounds, PartitionRange, Reached, Reader, Record as Lent, Sink, Source, SourceIndex,
};

use crate::agree::{DEADLINE, RUNTIME, Transcript, scripts};

/// What a refusal must say in these words on both sides, or on neither.
const WORDS: [&str; 3] = ["records are gone", "was deleted and", "is not a range"];

/// A step of a script. Places are thousandths of what there is.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// So many records to a partition: plainly, in a transaction, in one that is aborted.
    Write(usize, u64, Way),
    AddPartition,
    /// Deletes the records below a place.
    Delete(usize, u64),
    /// The topic is deleted and created again.
    Recreate,
    Bounds,
    /// Reads a partition between two places, or a place and so much beyond the end; as planned now, or before the topic was
    /// created again.
    Read {
        partition: usize,
        from: u64,
        to: u64,
        beyond: u64,
        before: bool,
        go_on: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Plain,
    Committed,
    Aborted,
}

fn op() -> impl Strategy<Value = Op> {
    let way = prop_oneof![Just(Way::Plain), Just(Way::Committed), Just(Way::Aborted)];
    let beyond = prop_oneof![20 => Just(0u64), 1 => 1u64..5];
    let read = (0usize..3, 0u64..=1000, 0u64..=1000, beyond, prop::bool::weighted(0.1), prop::bool::weighted(0.8));
    prop_oneof![
        8 => (0usize..3, 1u64..9, way).prop_map(|(partition, count, way)| Op::Write(partition, count, way)),
        1 => Just(Op::AddPartition),
        2 => (0usize..3, 0u64..=1000).prop_map(|(partition, place)| Op::Delete(partition, place)),
        1 => Just(Op::Recreate),
        4 => Just(Op::Bounds),
        20 => read.prop_map(|(partition, from, to, beyond, before, go_on)| {
            Op::Read { partition, from, to, beyond, before, go_on }
        }),
    ]
}

#[test]
fn the_fake_of_sources_answers_as_kafka_does() {
    let Some(broker) = shared::kafka() else { return };
    let script = || prop::collection::vec(op(), 20..40);
    scripts(file!(), 4, 32, script, |script| {
        let mut scene = Scene::new(&broker)?;
        script.iter().try_for_each(|op| scene.step(*op))?;
        RUNTIME.block_on(broker.delete_topic(&scene.topic)).map_err(|error| error.to_string())
    });
}

#[test]
fn the_fake_of_sources_ends_as_kafka_does_where_a_range_goes_on_beyond_the_end() {
    let Some(broker) = shared::kafka() else { return };
    // Kafka waits for what may still come, so each of these takes some seconds.
    let beyond = |from: u64| {
        let mut scene = Scene::new(&broker)?;
        scene.write(0, 10, Way::Plain)?;
        scene.read(0, (from, 12), false, false)
    };
    std::thread::scope(|scope| {
        let reads: Vec<_> = [0, 9, 10].into_iter().map(|from| scope.spawn(move || beyond(from))).collect();
        reads.into_iter().for_each(|read| read.join().unwrap().unwrap());
    });
}

#[test]
fn the_fake_of_sources_reads_a_compacted_log_as_kafka_does() {
    let Some(broker) = shared::kafka() else { return };
    let mut scene = Scene::compacted(&broker).unwrap();
    let all = scene.compact().unwrap();
    assert!(all < 100, "{all} records are left of 300");
    for cut in 0..100u64 {
        let from = cut * 37 % 300;
        scene.read(0, (from, (from + cut * 13 % 97).min(300)), false, true).unwrap();
    }
}

struct Scene<'a> {
    broker: &'a Broker,
    topic: String,
    source: std::sync::Arc<dyn Source>,
    /// As long as it lives, fresh bounds and readers share its connection.
    _connected: Box<dyn Bounds>,
    reader: Option<Box<dyn Reader>>,
    transactions: Option<Transactions>,
    fake: FakeSource,
    fake_reader: Box<dyn Reader>,
    /// How far each partition reaches.
    ends: Vec<u64>,
    lows: Vec<u64>,
    /// The topic's ids, the one of now last.
    ids: Vec<String>,
    written: u64,
    transcript: Transcript,
}

type Done<T> = Result<T, String>;

impl<'a> Scene<'a> {
    fn new(broker: &'a Broker) -> Done<Scene<'a>> {
        Scene::with(broker, &[])
    }

    fn compacted(broker: &'a Broker) -> Done<Scene<'a>> {
        let settings = [
            ("cleanup.policy", "compact"),
            ("segment.ms", "100"),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("max.compaction.lag.ms", "200"),
        ];
        Scene::with(broker, &settings)
    }

    fn with(broker: &'a Broker, settings: &[(&str, &str)]) -> Done<Scene<'a>> {
        let topic = unique("fakes");
        RUNTIME.block_on(broker.create_topic_with(&topic, 1, settings)).map_err(|error| format!("{error:#}"))?;
        let source = Kafka::connect(broker.address()).topic(&topic).bytes().source;
        let fake = FakeSource::new(&topic, 1);
        let fake_reader = fake.source().reader().map_err(|failure| failure.to_string())?;
        let mut scene = Scene {
            broker,
            topic,
            _connected: source.bounds().map_err(|failure| failure.to_string())?,
            source,
            reader: None,
            transactions: None,
            fake,
            fake_reader,
            ends: Vec::new(),
            lows: Vec::new(),
            ids: Vec::new(),
            written: 0,
            transcript: Transcript::default(),
        };
        scene.ids.push(scene.bounds_of(&*scene.source)?[0].incarnation.clone());
        scene.grow();
        Ok(scene)
    }

    fn step(&mut self, op: Op) -> Done<()> {
        match op {
            Op::Write(partition, count, way) => self.write(partition % self.ends.len(), count, way),
            Op::AddPartition => self.add_partition(),
            Op::Delete(partition, place) => self.delete(partition % self.ends.len(), place),
            Op::Recreate => self.recreate(),
            Op::Bounds => self.bounds(),
            Op::Read { partition, from, to, beyond, before, go_on } => {
                let partition = partition % self.ends.len();
                let at = |place: u64| self.ends[partition] * place / 1000;
                let (mut from, mut to) = (at(from.min(to)), at(from.max(to)));
                if beyond > 0 {
                    // A position that does not exist is noticed at once.
                    (from, to) = (self.ends[partition] + beyond, self.ends[partition] + beyond + 3);
                }
                self.read(partition, (from, to), before, go_on)
            }
        }
    }

    fn name(&self, partition: usize) -> String {
        format!("{}/{partition}", self.topic)
    }

    /// One more partition, of the model and of the fake.
    fn grow(&mut self) {
        self.fake.add_partition(&self.name(self.ends.len()), self.ids.last().map_or("", String::as_str));
        self.ends.push(0);
        self.lows.push(0);
    }

    fn write(&mut self, partition: usize, count: u64, way: Way) -> Done<()> {
        self.transcript.note(format_args!("{count} {way:?} records to {partition}"));
        let values: Vec<String> = (self.written..self.written + count).map(|n| format!("row {n}")).collect();
        self.written += count;
        let records = values.iter().map(|value| Record::to(partition as i32, value.as_str()));
        let address = self.broker.address();
        match way {
            Way::Plain => produce::records(address, &self.topic, records).map(drop).map_err(text)?,
            Way::Committed | Way::Aborted => {
                let transactions = match self.transactions.take() {
                    Some(transactions) => transactions,
                    None => Transactions::new(address, &self.topic, &self.topic).map_err(text)?,
                };
                let outcome = if matches!(way, Way::Committed) { Outcome::Commit } else { Outcome::Abort };
                transactions.write(records, outcome).map_err(text)?;
                self.transactions = Some(transactions);
            }
        }
        let first = self.ends[partition];
        if !matches!(way, Way::Aborted) {
            for (position, value) in (first..).zip(&values) {
                self.fake.put(partition, position, value);
            }
        }
        let control = u64::from(!matches!(way, Way::Plain));
        self.ends[partition] += count + control;
        self.fake.reach(partition, self.ends[partition]);
        self.reach(partition)
    }

    /// Waits until the service has come as far as the model says.
    fn reach(&self, partition: usize) -> Done<()> {
        let mut seen = 0;
        let source = &*self.source;
        let there = wait_until(DEADLINE, || {
            seen = self.bounds_of(source).ok().and_then(|all| Some(all.get(partition)?.end)).unwrap_or(seen);
            seen >= self.ends[partition]
        });
        match there && seen == self.ends[partition] {
            true => Ok(()),
            false => Err(self.transcript.differ("the end", self.ends[partition], seen)),
        }
    }

    /// Fresh ones: low marks and new partitions are seen late, which is all right.
    fn bounds_of(&self, source: &dyn Source) -> Done<Vec<PartitionBounds>> {
        let mut bounds = source.bounds().map_err(|failure| failure.to_string())?;
        bounds.poll(Horizon::Endless, &Reached::nothing()).map_err(|failure| failure.to_string())
    }

    fn bounds(&mut self) -> Done<()> {
        let (fake, real) = (self.bounds_of(&*self.fake.source()), self.bounds_of(&*self.source));
        self.transcript.agree("bounds", &fake, &real)
    }

    fn add_partition(&mut self) -> Done<()> {
        if self.ends.len() == 3 {
            return Ok(());
        }
        self.transcript.note("a partition is added");
        let client: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", self.broker.address()).create().map_err(text)?;
        let wanted = self.ends.len() + 1;
        let new = NewPartitions::new(&self.topic, wanted);
        RUNTIME.block_on(client.create_partitions([&new], &AdminOptions::new())).map_err(text)?;
        self.grow();
        // A producer that lives learns of new partitions late.
        self.transactions = None;
        self.settle(|bounds| bounds.len() == wanted)
    }

    /// Waits until fresh bounds are so.
    fn settle(&self, so: impl Fn(&[PartitionBounds]) -> bool) -> Done<()> {
        let source = &*self.source;
        match wait_until(DEADLINE, || self.bounds_of(source).is_ok_and(|bounds| so(&bounds))) {
            true => Ok(()),
            false => Err(format!("bounds stay {:?}", self.bounds_of(source))),
        }
    }

    fn delete(&mut self, partition: usize, place: u64) -> Done<()> {
        let low = self.ends[partition] * place / 1000;
        if low <= self.lows[partition] {
            return Ok(());
        }
        self.transcript.note(format_args!("records of {partition} below {low} are deleted"));
        RUNTIME.block_on(self.broker.delete_records(&self.topic, partition as i32, low as i64)).map_err(text)?;
        self.lows[partition] = low;
        self.fake.delete_below(partition, low);
        // One that has fetched ahead may still hand out what was deleted meanwhile: the same records.
        self.reader = None;
        self.settle(|bounds| bounds[partition].low == low)
    }

    fn recreate(&mut self) -> Done<()> {
        if self.ids.len() > 1 {
            return Ok(());
        }
        self.transcript.note("the topic is deleted and created again");
        RUNTIME.block_on(self.broker.delete_topic(&self.topic)).map_err(text)?;
        let partitions = self.ends.len() as i32;
        RUNTIME.block_on(self.broker.create_topic(&self.topic, partitions)).map_err(text)?;
        let before = self.ids.last().cloned().unwrap_or_default();
        self.settle(|bounds| bounds.len() == partitions as usize && bounds[0].incarnation != before)?;
        self.ids.push(self.bounds_of(&*self.source)?[0].incarnation.clone());
        self.fake.recreate(self.ids.last().map_or("", String::as_str));
        self.ends.fill(0);
        self.lows.fill(0);
        self.transactions = None;
        Ok(())
    }

    fn read(&mut self, partition: usize, (from, to): (u64, u64), before: bool, go_on: bool) -> Done<()> {
        let id = if before { self.ids.first() } else { self.ids.last() };
        let range = PartitionRange {
            source: SourceIndex(0),
            partition: self.name(partition),
            incarnation: id.cloned().unwrap_or_default(),
            from,
            to,
            closed_at: None,
        };
        let mut reader = match self.reader.take().filter(|_| go_on) {
            Some(reader) => reader,
            None => self.source.reader().map_err(|failure| failure.to_string())?,
        };
        let (fake, real) = (read(&mut *self.fake_reader, &range), read(&mut *reader, &range));
        self.reader = Some(reader);
        let of = if before { " as of before" } else { "" };
        self.transcript.agree_in(&WORDS, format_args!("partition {partition}, {from}..{to}{of}"), &fake, &real)
    }

    /// Writes 300 records of seven keys, waits until most are compacted away, and tells the fake what a plain consumer sees
    /// of them: how many.
    fn compact(&mut self) -> Done<usize> {
        let of = |n: u64| Record { key: Some(format!("key {}", n % 7).into()), ..Record::to(0, format!("row {n}")) };
        let address = self.broker.address();
        produce::records(address, &self.topic, (0..300).map(of)).map_err(text)?;
        let mut left = Vec::new();
        let compacted = wait_until(DEADLINE, || {
            // A segment is closed when something is written after its time.
            let one_more = [Record { key: Some("another".into()), ..Record::to(0, "x") }];
            let written = produce::records(address, &self.topic, one_more);
            left = self.plainly().unwrap_or_default();
            written.is_ok() && !left.is_empty() && left.iter().filter(|(position, _)| *position < 290).count() < 100
        });
        if !compacted {
            return Err(format!("{} records are still there", left.len()));
        }
        left.retain(|(position, _)| *position < 300);
        left.iter().for_each(|(position, value)| self.fake.put(0, *position, value));
        self.fake.reach(0, 300);
        self.ends[0] = 300;
        Ok(left.len())
    }

    /// All records of the first partition by a plain consumer, which shares nothing with the connector.
    fn plainly(&self) -> Done<Vec<(u64, String)>> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.broker.address()).set("group.id", "plain");
        config.set("enable.partition.eof", "true").set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().map_err(text)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, 0, Offset::Beginning).map_err(text)?;
        consumer.assign(&list).map_err(text)?;
        let mut all = Vec::new();
        loop {
            match consumer.poll(Duration::from_secs(10)) {
                Some(Ok(message)) => {
                    let value = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
                    all.push((message.offset() as u64, value));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(all),
                other => return Err(format!("{:?}", other.map(|message| message.map(drop)))),
            }
        }
    }
}

/// What was lent of each record.
type Kept = (u64, String);

#[derive(Default)]
struct Keep(Vec<Kept>);

impl Sink for Keep {
    fn records(&mut self, chunk: &[Lent<'_>]) -> Result<(), Failure> {
        let text = |record: &Lent<'_>| String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
        self.0.extend(chunk.iter().map(|record| (record.position, text(record))));
        Ok(())
    }

    fn cancelled(&self) -> bool {
        false
    }
}

/// The records of a range.
pub(crate) fn read(reader: &mut dyn Reader, range: &PartitionRange) -> Result<Vec<Kept>, Failure> {
    let mut sink = Keep::default();
    reader.read(range, &mut sink).map(|()| sink.0)
}

fn text(error: impl std::fmt::Display) -> String {
    format!("{error:#}")
}
