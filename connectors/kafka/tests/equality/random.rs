//! A thousand random topics: what both clients read is the same, and it is what was produced.
//!
//! ```text
//!   create ─► rounds: plain and transactional producers write to all topics, side by side
//!          ─► one transaction stays open ─► the cleaner compacts ─► some records are deleted
//!          ─► READ everything, cut at random ─► the open transaction ends ─► READ ─► topics are created again ─► READ
//! ```

use std::{collections::BTreeMap, sync::Mutex, time::Instant};

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use tine_core::failure::FailureKind;
use tine_kafka::{Kafka, Start};
use tine_trident::source::PartitionBounds;

use crate::{
    both::{Both, range},
    brokers::{Admin, DEADLINE, NewOne, eventually, start},
    writers::{Content, Writer},
};

const TOPICS: usize = 1000;
/// Topics that one source reads.
const TOPICS_A_SOURCE: usize = 25;
/// Topics that are read at the same time.
const AT_A_TIME: usize = 4;
/// How often every producer writes to many topics.
const ROUNDS: usize = 5;
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// How many bytes producers put into a batch: few, so that every topic takes them, or many.
const WIDTHS: [&str; 2] = ["1200", "1000000"];
/// More than a fetch of either client brings of a partition.
const BIG_BYTES: usize = 3_000_000;
/// A moment long ago, so that no record is of the future.
const THEN_MS: i64 = 1_700_000_000_000;

const BROKER: &[(&str, &str)] = &[
    ("log.cleaner.backoff.ms", "100"),
    ("log.cleaner.threads", "1"),
    ("log.index.size.max.bytes", "65536"),
    ("message.max.bytes", "20000000"),
    ("num.network.threads", "2"),
];

#[test]
fn a_thousand_random_topics_are_the_same_through_both_clients_and_what_was_produced() {
    let Some(broker) = start(BROKER) else { return };
    let seed = std::env::var("TINE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("TINE_TEST_SEED={seed}");
    let started = Instant::now();
    let since = |what: &str| eprintln!("{:5.1} s  {what}", started.elapsed().as_secs_f64());
    let mut world = World::create(&broker.address(), seed);
    since("topics created");
    world.write();
    since("records written");
    world.compact();
    world.delete_records();
    since("compacted, and records deleted");
    let read = world.read_all(|_| true);
    since(&format!("{read} records read twice by each client"));
    world.end_open_transactions();
    world.read_all(|topic| topic.open);
    since("open transactions ended, and their topics read again");
    world.create_again();
    since("topics created again, and old ranges refused");
}

/// What a topic is like.
#[derive(Clone, Debug)]
struct Topic {
    name: String,
    partitions: i32,
    compact: bool,
    append_time: bool,
    /// The largest batch it takes.
    max_bytes: usize,
    /// Whether a transaction in it stays open for a while.
    open: bool,
    /// What the broker compresses with, whatever the producer has chosen: Java's compressors.
    compression: Option<&'static str>,
    /// Whether records are deleted below some offset.
    truncated: bool,
}

impl Topic {
    fn random(n: usize, random: &mut SmallRng) -> Topic {
        let compact = random.random_ratio(1, 6);
        let big = !compact && random.random_ratio(1, 20);
        Topic {
            name: format!("random-{n:04}"),
            partitions: if random.random_ratio(1, 5) { random.random_range(2..=3) } else { 1 },
            compact,
            append_time: random.random_ratio(1, 5),
            max_bytes: if big { BIG_BYTES } else { [2_000, 30_000, 1_100_000][random.random_range(0..3)] },
            open: !compact && random.random_ratio(1, 10),
            compression: random.random_ratio(1, 3).then(|| *CODECS.choose(random).expect("five")),
            truncated: !compact && random.random_ratio(1, 8),
        }
    }

    fn new_one(&self) -> NewOne {
        let mut settings = vec![
            ("max.message.bytes", self.max_bytes.to_string()),
            ("message.timestamp.type", if self.append_time { "LogAppendTime" } else { "CreateTime" }.into()),
        ];
        if let Some(codec) = self.compression {
            settings.push(("compression.type", if codec == "none" { "uncompressed" } else { codec }.into()));
        }
        if self.compact {
            // A segment ends when a record is this much younger than its first one, and is cleaned at once.
            let cleaning = [("cleanup.policy", "compact"), ("segment.ms", "2000"), ("delete.retention.ms", "0")];
            settings.extend(cleaning.map(|(key, value)| (key, value.to_string())));
            settings.push(("min.cleanable.dirty.ratio", "0.0001".into()));
        }
        NewOne { name: self.name.clone(), partitions: self.partitions, settings }
    }
}

/// A partition by topic and number.
type Place = (usize, i32);

/// The topics, and what stands in them.
struct World {
    broker: String,
    kafka: Kafka,
    admin: Admin,
    random: SmallRng,
    topics: Vec<Topic>,
    /// Committed records of each partition, in no order.
    committed: BTreeMap<Place, Vec<Content>>,
    /// The producer whose transaction is open, and what it wrote.
    open: Option<(Writer, Vec<(Place, Content)>)>,
    written: u64,
}

impl World {
    fn create(broker: &str, seed: u64) -> World {
        let mut random = SmallRng::seed_from_u64(seed);
        let topics: Vec<Topic> = (0..TOPICS).map(|n| Topic::random(n, &mut random)).collect();
        let admin = Admin::new(broker);
        admin.create(&topics.iter().map(Topic::new_one).collect::<Vec<_>>(), 1);
        let (kafka, broker) = (Kafka::connect(broker), broker.to_string());
        World { broker, kafka, admin, random, topics, committed: BTreeMap::new(), open: None, written: 0 }
    }

    fn write(&mut self) {
        let plain = CODECS.map(|codec| {
            WIDTHS.map(|width| Writer::new(&self.broker, &[("compression.type", codec), ("batch.size", width)]))
        });
        let transactional = CODECS.map(|codec| {
            let settings = [("compression.type", codec), ("batch.size", WIDTHS[0])];
            Writer::transactional(&self.broker, &format!("in-{codec}"), &settings)
        });
        let all = || plain.iter().flatten().chain(&transactional);
        for round in 0..ROUNDS {
            let mut sent: [Vec<(Place, Content)>; CODECS.len()] = Default::default();
            transactional.iter().for_each(Writer::begin);
            // Twice with a flush in between, so that a transaction has batches before and after others'.
            for _ in 0..2 {
                for index in 0..self.topics.len() {
                    self.write_some(index, round, &plain, &transactional, &mut sent);
                }
                all().for_each(Writer::flush);
            }
            for (writer, sent) in transactional.iter().zip(sent) {
                let commit = self.random.random_ratio(3, 5);
                writer.end(commit);
                if commit {
                    sent.into_iter().for_each(|(place, content)| self.keep(place, content));
                }
            }
        }
        self.write_open_transactions();
        // The leaders' last word: the open transactions' records stand between decided ones.
        for index in 0..self.topics.len() {
            self.write_one(index, &plain[0][0], ROUNDS, None);
        }
        all().for_each(Writer::flush);
    }

    fn write_some(
        &mut self,
        index: usize,
        round: usize,
        plain: &[[Writer; 2]],
        transactional: &[Writer],
        sent: &mut [Vec<(Place, Content)>],
    ) {
        for _ in 0..self.random.random_range(0..3) {
            let writer = self.random.random_range(0..plain.len() + transactional.len());
            let width = if self.topics[index].max_bytes > 1_000_000 { self.random.random_range(0..2) } else { 0 };
            let records = if self.random.random_ratio(1, 100) { 400 } else { self.random.random_range(1..8) };
            for _ in 0..records {
                match plain.get(writer) {
                    Some(writer) => self.write_one(index, &writer[width], round, None),
                    None => {
                        let writer = writer - plain.len();
                        self.write_one(index, &transactional[writer], round, Some(&mut sent[writer]));
                    }
                }
            }
        }
    }

    /// One record to a random partition; it counts as committed unless somebody else remembers it.
    fn write_one(
        &mut self,
        index: usize,
        writer: &Writer,
        round: usize,
        undecided: Option<&mut Vec<(Place, Content)>>,
    ) {
        let content = self.content(index, round);
        let place = (index, self.random.random_range(0..self.topics[index].partitions));
        writer.send(&self.topics[index].name, place.1, &content);
        match undecided {
            Some(undecided) => undecided.push((place, content)),
            None => self.keep(place, content),
        }
    }

    fn write_open_transactions(&mut self) {
        let writer = Writer::transactional(
            &self.broker,
            "stays-open",
            &[("compression.type", "lz4"), ("batch.size", WIDTHS[0])],
        );
        let mut sent = Vec::new();
        writer.begin();
        for index in 0..self.topics.len() {
            for _ in 0..if self.topics[index].open { 3 } else { 0 } {
                self.write_one(index, &writer, ROUNDS, Some(&mut sent));
            }
        }
        writer.flush();
        self.open = Some((writer, sent));
    }

    fn keep(&mut self, place: Place, content: Content) {
        self.committed.entry(place).or_default().push(content);
    }

    fn content(&mut self, index: usize, round: usize) -> Content {
        let (topic, random) = (&self.topics[index], &mut self.random);
        self.written += 1;
        let key = match topic.compact {
            true => Some(vec![b'k', random.random_range(0..5)]),
            false => random.random_bool(0.7).then(|| bytes(0..20, random)),
        };
        let small = topic.max_bytes.min(1_500) - 400;
        let value = match random.random_range(0..100) {
            0..8 => None,
            8..14 => Some(Vec::new()),
            // The largest batch that fits: its head, and what a record has beside its value.
            14..16 if topic.max_bytes <= 30_000 || random.random_ratio(1, 40) || topic.max_bytes == BIG_BYTES => {
                // Compression makes noise longer.
                let most = topic.max_bytes - topic.max_bytes / 500 - 200;
                Some(bytes(most..most + 1, random))
            }
            16..40 => Some(vec![b'x'; random.random_range(0..small)]),
            _ => Some(format!("{} of {}", self.written, topic.name).into_bytes()),
        };
        let headers = if random.random_ratio(1, 5) && value.as_ref().is_none_or(|value| value.len() < small) {
            (0..random.random_range(1..4)).map(|_| header(random)).collect()
        } else {
            Vec::new()
        };
        // Later rounds are later: that ends the segments of compacted topics.
        let timestamp_ms = THEN_MS + round as i64 * 10_000 + random.random_range(0..1_000);
        Content { timestamp_ms, key, value, headers }
    }

    /// Waits until the cleaner has taken something away from most of the topics that it cleans.
    fn compact(&mut self) {
        let compacted: Vec<usize> = (0..TOPICS).filter(|index| self.topics[*index].compact).collect();
        eventually("the cleaner", || {
            let cleaned = compacted.chunks(TOPICS_A_SOURCE).map(|some| self.cleaned(some)).sum::<usize>();
            eprintln!("{cleaned} of {} topics are cleaned", compacted.len());
            (cleaned * 10 > compacted.len() * 8).then_some(())
        });
    }

    /// How many of these topics have fewer records than were committed.
    fn cleaned(&self, topics: &[usize]) -> usize {
        let mut both = self.both(topics, Start::Earliest);
        let bounds = both.bounds();
        let mut fewer: BTreeMap<usize, bool> = BTreeMap::new();
        for bounds in &bounds {
            let place = self.place(bounds);
            let records = both.read_at_rest(&range(bounds, bounds.low, bounds.end)).expect("records");
            let committed = self.committed.get(&place).map_or(0, Vec::len);
            *fewer.entry(place.0).or_default() |= records.len() < committed;
        }
        fewer.values().filter(|fewer| **fewer).count()
    }

    fn delete_records(&mut self) {
        let truncated: Vec<usize> = (0..TOPICS).filter(|index| self.topics[*index].truncated).collect();
        let mut below = Vec::new();
        for some in truncated.chunks(TOPICS_A_SOURCE) {
            for bounds in self.both(some, Start::Earliest).bounds() {
                let (topic, partition) = self.place(&bounds);
                below.push((topic, partition, self.random.random_range(bounds.low..=bounds.end)));
            }
        }
        let named: Vec<(&str, i32, u64)> =
            below.iter().map(|(topic, partition, at)| (self.topics[*topic].name.as_str(), *partition, *at)).collect();
        self.admin.delete_records(&named);
    }

    /// Reads the chosen topics, several at a time; how many records there were.
    fn read_all(&self, chosen: impl Fn(&Topic) -> bool) -> usize {
        let chosen: Vec<usize> = (0..TOPICS).filter(|index| chosen(&self.topics[*index])).collect();
        let work: Mutex<Vec<&[usize]>> = Mutex::new(chosen.chunks(TOPICS_A_SOURCE).collect());
        let seed = self.random.clone().random::<u64>();
        let total = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_A_TIME as u64)
                .map(|n| {
                    let work = &work;
                    scope.spawn(move || {
                        let mut random = SmallRng::seed_from_u64(seed ^ n);
                        let mut read = 0;
                        loop {
                            let Some(some) = work.lock().expect("no panic before").pop() else { return read };
                            read += self.read_some(some, &mut random);
                        }
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("the same")).sum()
        });
        assert!(total > chosen.len() * 5, "only {total} records");
        total
    }

    fn read_some(&self, topics: &[usize], random: &mut SmallRng) -> usize {
        let start = match random.random_range(0..3) {
            0 => Start::Earliest,
            1 => Start::Latest,
            _ => Start::Timestamp(THEN_MS + random.random_range(-1_000..60_000)),
        };
        let mut both = self.both(topics, start);
        let all = both.bounds();
        let mut read = 0;
        for bounds in &all {
            read += self.read_partition(&mut both, bounds, random);
        }
        read
    }

    /// Consecutive ranges, one more from anywhere, and those that nobody can read.
    fn read_partition(&self, both: &mut Both, bounds: &PartitionBounds, random: &mut SmallRng) -> usize {
        let place = self.place(bounds);
        let topic = &self.topics[place.0];
        let mut read = |from, to| match topic.compact {
            true => both.read_at_rest(&range(bounds, from, to)),
            false => both.read(&range(bounds, from, to)),
        };
        let mut cuts: Vec<u64> =
            (0..random.random_range(0..4)).map(|_| random.random_range(bounds.low..=bounds.end)).collect();
        cuts.push(bounds.end);
        cuts.sort_unstable();
        let (mut all, mut from) = (Vec::new(), bounds.low);
        for to in cuts {
            all.extend(read(from, to).expect("records"));
            from = to;
        }
        let from = random.random_range(bounds.low..=bounds.end);
        let to = random.random_range(from..=bounds.end);
        let again = read(from, to).expect("records");
        let records = all.len();
        if !topic.compact {
            let part: Vec<_> = all.iter().filter(|record| (from..to).contains(&record.position)).cloned().collect();
            assert_eq!(again, part, "{from}..{to} of {bounds:?}");
            self.check_produced(place, bounds, all.into_iter().map(|record| record.content).collect());
        }
        if bounds.low > 0 && random.random_ratio(1, 4) {
            let failure = read(bounds.low - 1, bounds.end).expect_err("records are gone");
            assert_eq!(failure.kind, FailureKind::Fatal, "{failure}");
        }
        records
    }

    /// Whether this is what was committed; of what was deleted, a part of it.
    fn check_produced(&self, place: Place, bounds: &PartitionBounds, mut found: Vec<Content>) {
        let topic = &self.topics[place.0];
        let mut committed = self.committed.get(&place).cloned().unwrap_or_default();
        if topic.append_time {
            assert!(found.iter().all(|content| content.timestamp_ms > THEN_MS + 1_000_000_000), "the broker's clock");
            found.iter_mut().chain(&mut committed).for_each(|content| content.timestamp_ms = 0);
        }
        found.sort();
        committed.sort();
        if bounds.low == 0 && !self.is_open(place) {
            assert!(found == committed, "{} of {} records of {bounds:?}", found.len(), committed.len());
        } else {
            let mut rest = committed.iter();
            let part = found.iter().all(|content| rest.any(|committed| committed == content));
            assert!(part, "something that was not committed is in {bounds:?}");
        }
    }

    fn is_open(&self, place: Place) -> bool {
        self.open.as_ref().is_some_and(|(_, sent)| sent.iter().any(|(at, _)| *at == place))
    }

    fn end_open_transactions(&mut self) {
        let Some((writer, sent)) = self.open.take() else { return };
        let commit = self.random.random();
        writer.end(commit);
        if commit {
            sent.into_iter().for_each(|(place, content)| self.keep(place, content));
        }
        // The markers come to the partitions one after the other.
        let open: Vec<usize> = (0..TOPICS).filter(|index| self.topics[*index].open).collect();
        let consumer: rdkafka::consumer::BaseConsumer =
            crate::brokers::config(&self.broker).create().expect("a client");
        let uncommitted: rdkafka::consumer::BaseConsumer =
            crate::brokers::config(&self.broker).set("isolation.level", "read_uncommitted").create().expect("a client");
        for topic in open {
            for partition in 0..self.topics[topic].partitions {
                let end = |consumer: &rdkafka::consumer::BaseConsumer| {
                    use rdkafka::consumer::Consumer;
                    consumer.fetch_watermarks(&self.topics[topic].name, partition, DEADLINE).expect("watermarks").1
                };
                eventually("the markers", || (end(&consumer) == end(&uncommitted)).then_some(()));
            }
        }
    }

    /// Topics under their old names that are others: what was planned of the old ones is refused.
    fn create_again(&mut self) {
        let again: Vec<usize> = (0..TOPICS).filter(|index| !self.topics[*index].compact).take(4).collect();
        let mut both = self.both(&again, Start::Earliest);
        let old = both.bounds();
        for bounds in &old {
            // The readers have fetched ahead: that alone must not be enough.
            both.read(&range(bounds, bounds.low, bounds.end.min(bounds.low + 1))).expect("a record");
        }
        let names: Vec<String> = again.iter().map(|index| self.topics[*index].name.clone()).collect();
        self.admin.delete(&names.iter().map(String::as_str).collect::<Vec<_>>());
        eventually("the topics to be gone", || {
            let refused = self.both(&again, Start::Earliest).refusals();
            assert_eq!(refused[0], refused[1]);
            (refused[0].kind == FailureKind::Fatal && refused[0].message.contains("--create")).then_some(())
        });
        self.admin.create(&again.iter().map(|index| self.topics[*index].new_one()).collect::<Vec<_>>(), 1);
        let writer = Writer::new(&self.broker, &[("batch.size", WIDTHS[0])]);
        for index in &again {
            self.committed.retain(|(topic, _), _| topic != index);
            for _ in 0..5 {
                self.write_one(*index, &writer, ROUNDS, None);
            }
        }
        writer.flush();
        for bounds in &old {
            let failure = both.read(&range(bounds, bounds.low, bounds.end)).expect_err("another topic");
            assert!(failure.kind == FailureKind::Fatal && failure.message.contains("created again"), "{failure}");
        }
        self.read_some(&again, &mut self.random.clone());
    }

    fn both(&self, topics: &[usize], start: Start) -> Both {
        let names: Vec<&str> = topics.iter().map(|index| self.topics[*index].name.as_str()).collect();
        Both::new(&self.kafka, &names, start)
    }

    fn place(&self, bounds: &PartitionBounds) -> Place {
        let (topic, partition) = bounds.partition.rsplit_once('/').expect("topic/N");
        let index = topic.trim_start_matches("random-").parse().expect("a number");
        (index, partition.parse().expect("a number"))
    }
}

fn bytes(length: std::ops::Range<usize>, random: &mut SmallRng) -> Vec<u8> {
    let mut bytes = vec![0; random.random_range(length)];
    random.fill(bytes.as_mut_slice());
    bytes
}

fn header(random: &mut SmallRng) -> (String, Option<Vec<u8>>) {
    let name = *["", "trace", "ä", "a longer name of a header"].choose(random).expect("four");
    (name.to_string(), random.random_bool(0.7).then(|| bytes(0..10, random)))
}
