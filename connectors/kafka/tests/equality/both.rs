//! Reads through both clients, and compares: bounds, records, failures.

use tine_core::failure::{Failure, FailureKind};
use tine_kafka::{Client, Kafka, KafkaTopic, Start};
use tine_trident::{
    plan::{Position, Positions},
    source::{Bounds, Horizon, PartitionBounds, PartitionRange, Reached, Reader, Record, Sink, Source, SourceIndex},
};

use crate::{
    brokers::{DEADLINE, eventually},
    writers::Content,
};

/// In the order in which they are asked.
pub(crate) const CLIENTS: [Client; 2] = [Client::Rdkafka, Client::Native];

/// A record that was read, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) position: u64,
    pub(crate) content: Content,
}

/// What a read gave.
pub(crate) type Outcome = Result<Vec<Kept>, Failure>;

/// Some topics through both clients.
pub(crate) struct Both {
    sources: [std::sync::Arc<dyn Source>; 2],
    readers: [Box<dyn Reader>; 2],
}

impl Both {
    pub(crate) fn new(kafka: &Kafka, topics: &[&str], start: Start) -> Both {
        let sources = CLIENTS.map(|client| source(kafka.topics(topics.iter().copied()).client(client).start(start)));
        let readers = [reader(&*sources[0]), reader(&*sources[1])];
        Both { sources, readers }
    }

    /// The bounds at a first start and later; both clients say the same.
    pub(crate) fn bounds(&self) -> Vec<PartitionBounds> {
        let mut asked: [Box<dyn Bounds>; 2] = self.opened();
        let later = planned();
        for reached in [Reached::nothing(), Reached::new(SourceIndex(0), &later)] {
            // Two questions at two times: a log that is being cleaned or decided moves in between.
            eventually("the clients to see the same bounds", || {
                let [one, other] = asked.each_mut().map(|bounds| poll(&mut **bounds, &reached));
                if one != other {
                    eprintln!("not yet the same bounds: {one:?} {other:?}");
                }
                (one == other).then_some(())
            });
        }
        poll(&mut *asked[0], &Reached::new(SourceIndex(0), &later))
    }

    fn opened(&self) -> [Box<dyn Bounds>; 2] {
        [0, 1].map(|client| self.sources[client].bounds().expect("bounds"))
    }

    /// What each client says of topics that are not there.
    pub(crate) fn refusals(&self) -> [Failure; 2] {
        [0, 1].map(|client| self.sources[client].bounds().err().expect("refused"))
    }

    /// What both clients say of the range; they say the same.
    pub(crate) fn read(&mut self, range: &PartitionRange) -> Outcome {
        let [one, other] = self.readers.each_mut().map(|reader| read(&mut **reader, range));
        assert!(same(&one, &other), "{range:?}\n{}", difference(&one, &other));
        one
    }

    /// As [`read`](Both::read), of a partition that may be cleaned between the two reads.
    pub(crate) fn read_at_rest(&mut self, range: &PartitionRange) -> Outcome {
        let mut tries = 0;
        eventually("the clients to read the same", || {
            let [one, other] = self.readers.each_mut().map(|reader| read(&mut **reader, range));
            tries += 1;
            let same = same(&one, &other);
            if !same && tries > 100 {
                panic!("{range:?}\n{}", difference(&one, &other));
            }
            same.then_some(one)
        })
    }
}

/// A topology that has planned something, of another partition: the user's choice of start no longer counts.
fn planned() -> Positions {
    let position = Position { at: 1, incarnation: "x".to_owned(), closed_at: None };
    Positions::from([((SourceIndex(1), "another".to_owned()), position)])
}

/// The bounds that this source sees, for a topology that has planned something.
pub(crate) fn bounds_at(source: &dyn Source) -> Vec<PartitionBounds> {
    let mut bounds = eventually("the first bounds", || match source.bounds() {
        Ok(bounds) => Some(bounds),
        Err(failure) if failure.kind == FailureKind::Transient => None,
        Err(failure) => panic!("{failure:?}"),
    });
    poll(&mut *bounds, &Reached::new(SourceIndex(0), &planned()))
}

pub(crate) fn source(topic: KafkaTopic) -> std::sync::Arc<dyn Source> {
    topic.with_headers().records().source
}

pub(crate) fn reader(source: &dyn Source) -> Box<dyn Reader> {
    source.reader().expect("a reader")
}

fn poll(bounds: &mut dyn Bounds, reached: &Reached<'_>) -> Vec<PartitionBounds> {
    eventually("the bounds", || match bounds.poll(Horizon::Endless, reached) {
        Ok(bounds) => Some(bounds),
        Err(failure) if failure.kind == FailureKind::Transient => None,
        Err(failure) => panic!("{failure:?}"),
    })
}

/// Reads a range as a topology does: what could not be read now is read again, from its beginning.
pub(crate) fn read(reader: &mut dyn Reader, range: &PartitionRange) -> Outcome {
    let deadline = std::time::Instant::now() + DEADLINE;
    loop {
        let mut sink = Keep { records: Vec::new(), next: range.from, to: range.to };
        match reader.read(range, &mut sink) {
            Ok(()) => return Ok(sink.records),
            Err(failure) if failure.kind == FailureKind::Transient && std::time::Instant::now() < deadline => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(failure) => return Err(failure),
        }
    }
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

/// The same records, or the same failure; how far a client came before it failed is its own affair.
fn same(one: &Outcome, other: &Outcome) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => one == other,
        (Err(one), Err(other)) => one.kind == other.kind && without_position(one) == without_position(other),
        _ => false,
    }
}

/// A failure's words without `position N`.
fn without_position(failure: &Failure) -> String {
    match failure.message.split_once("position ") {
        Some((before, after)) => format!("{before}{}", after.trim_start_matches(|digit: char| digit.is_ascii_digit())),
        None => failure.message.clone(),
    }
}

fn difference(one: &Outcome, other: &Outcome) -> String {
    let (Ok(one), Ok(other)) = (one, other) else {
        let short = |outcome: &Outcome| outcome.as_ref().map(Vec::len).map_err(Clone::clone);
        return format!("{:?} says {:?}, {:?} says {:?}", CLIENTS[0], short(one), CLIENTS[1], short(other));
    };
    let at = one.iter().zip(other).position(|(one, other)| one != other).unwrap_or(one.len().min(other.len()));
    let show = |records: &[Kept]| records.get(at).map(|record| format!("{record:.200?}"));
    format!(
        "{} records by {:?}, {} by {:?}; number {at} differs:\n{:?}\n{:?}",
        one.len(),
        CLIENTS[0],
        other.len(),
        CLIENTS[1],
        show(one),
        show(other)
    )
}

/// Keeps what it is lent.
struct Keep {
    records: Vec<Kept>,
    next: u64,
    to: u64,
}

impl Sink for Keep {
    fn records(&mut self, chunk: &[Record<'_>]) -> Result<(), Failure> {
        assert!(!chunk.is_empty() && chunk.len() <= 512, "a chunk of {} records", chunk.len());
        for record in chunk {
            assert!(self.next <= record.position && record.position < self.to, "{} is out of place", record.position);
            self.next = record.position + 1;
            let own = |bytes: &[u8]| bytes.to_vec();
            let headers = record.headers.iter().map(|(name, value)| (name.to_string(), value.map(own))).collect();
            let (key, value) = (record.key.map(own), record.value.map(own));
            let content = Content { timestamp_ms: record.timestamp_ms, key, value, headers };
            self.records.push(Kept { position: record.position, content });
        }
        Ok(())
    }

    fn cancelled(&self) -> bool {
        false
    }
}
