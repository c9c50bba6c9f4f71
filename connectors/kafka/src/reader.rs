//! The emitters' side: exactly the records of a range, and the proof that these are all.
//!
//! The client fetches; the reader judges. It starts the partition anew when fetching fails, looks why nothing comes, and
//! tells a loss from a delay: what lies below the low mark is deleted, what lies above the end for several looks was
//! truncated.
//!
//! When the range's last record was lent, the topic's id is asked for once more. Ids are never used again: the same id
//! at the plan and after the last record means that all in between came from the planned topic, whatever was deleted and
//! created meanwhile. In a cluster, the broker asked may hear of a re-creation some ms later than the one that was read
//! from; librdkafka's client does not cover that window, the native one fetches by id.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tine_core::failure::Failure;
use tine_trident::source::{PartitionRange, Reader, Sink};

use crate::{
    ask::Asker,
    client::{Fetching, Halt, Mark, Place, cancelled, not_allowed},
};

/// How often in a row a partition is started anew without a record before the read gives up as transient.
const RESTARTS_MAX: usize = 10;

/// How often in a row a partition may be found to end before the range does: after a leader change the end may be a
/// moment late; after this many looks it was truncated.
const SHORT_MAX: usize = 3;

/// The pause before a new start, times the number of starts so far.
const PAUSE: Duration = Duration::from_millis(50);

/// Reads ranges of any of the source's partitions.
pub(crate) struct TopicReader {
    /// The id under which each topic is fetched.
    incarnations: HashMap<String, String>,
    asker: Asker<dyn Fetching>,
}

/// A range under way, with the partition's name taken apart.
struct Way<'r> {
    range: &'r PartitionRange,
    topic: &'r str,
    partition: i32,
    /// Everything below was lent.
    next: u64,
    /// New starts since `next` moved.
    restarts: usize,
    short: usize,
}

impl TopicReader {
    pub(crate) fn new(asker: Asker<dyn Fetching>) -> TopicReader {
        TopicReader { incarnations: HashMap::new(), asker }
    }

    fn read_way(&mut self, way: &mut Way<'_>, sink: &mut dyn Sink) -> Result<(), Failure> {
        self.meet(way);
        while way.next < way.range.to {
            let (place, before) = (way.place(), way.next);
            let lent = self.asker.client.lend(&place, &mut way.next, way.range.to, sink);
            if way.next > before {
                way.restarts = 0;
            }
            match lent {
                Ok(()) => assert_eq!(way.next, way.range.to, "a range ends where it was planned to end"),
                Err(Halt::Failed(failure)) => return Err(failure),
                Err(Halt::NotAllowed) => return Err(not_allowed(way.topic)),
                Err(Halt::Truncated(why)) => return Err(truncated(way, &why)),
                Err(Halt::Stalled(why)) => {
                    if self.look(way, sink)? {
                        self.restart(way, &why, sink)?;
                    }
                }
                Err(Halt::Broken(why)) => {
                    self.look(way, sink)?;
                    self.restart(way, &why, sink)?;
                }
            }
        }
        self.verify(way, sink)
    }

    /// A topic under another id: nothing fetched or known of the old topic may be taken for the new one's.
    fn meet(&mut self, way: &Way<'_>) {
        let known = self.incarnations.get(way.topic);
        if known.is_some_and(|known| *known == way.range.incarnation) {
            return;
        }
        if known.is_some() {
            self.incarnations.clear();
            self.asker.client.forget();
        }
        self.incarnations.insert(way.topic.to_string(), way.range.incarnation.clone());
    }

    fn restart(&mut self, way: &mut Way<'_>, why: &str, sink: &dyn Sink) -> Result<(), Failure> {
        self.asker.client.stop(&way.range.partition);
        way.restarts += 1;
        if way.restarts > RESTARTS_MAX {
            return Err(self.asker.client.away(&format!("give {way}"), why));
        }
        tracing::info!(partition = way.range.partition, from = way.next, "fetching starts anew: {why}");
        let until = Instant::now() + PAUSE * way.restarts as u32;
        while Instant::now() < until {
            if sink.cancelled() {
                return Err(cancelled());
            }
            std::thread::sleep(PAUSE.min(until.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    /// Looks why nothing comes; whether it should come. `Fatal` when it cannot come any more.
    fn look(&mut self, way: &mut Way<'_>, sink: &dyn Sink) -> Result<bool, Failure> {
        self.verify(way, sink)?;
        let mut mark = |mark| {
            let found = self.asker.marks(&[(way.topic, way.partition, mark)], &|| sink.cancelled())?;
            Ok(found[0].expect("only timestamps have no answer"))
        };
        let (low, end) = (mark(Mark::Low)?, mark(Mark::Stable)?);
        if way.next < low {
            return Err(Failure::fatal(format!(
                "records are gone: kafka has deleted {way} up to {low} (retention, or somebody's hand) before they were \
                 read; keep records longer, or accept the loss"
            )));
        }
        if way.range.to <= end {
            way.short = 0;
            return Ok(true);
        }
        way.short += 1;
        if way.short >= SHORT_MAX {
            return Err(Failure::fatal(format!(
                "records are gone: kafka's partition ends at {end}, below {way}; it was truncated, perhaps by an unclean \
                 leader election"
            )));
        }
        Ok(false)
    }

    /// Whether the topic is still the planned one. A broker that does not know it may lag; another id is a proof.
    fn verify(&mut self, way: &Way<'_>, sink: &dyn Sink) -> Result<(), Failure> {
        let topic = self.asker.planned_topic(way.topic, &|| sink.cancelled())?;
        if topic.id == way.range.incarnation {
            return Ok(());
        }
        Err(Failure::fatal(format!(
            "kafka topic {} was deleted and created again: {way} was planned on id {}, now it is {}; give the new topic a \
             topology and tables of its own",
            topic.name, way.range.incarnation, topic.id
        )))
    }
}

impl Reader for TopicReader {
    fn read(&mut self, range: &PartitionRange, sink: &mut dyn Sink) -> Result<(), Failure> {
        let mut way = Way::new(range)?;
        let read = self.read_way(&mut way, sink);
        if read.is_err() {
            self.asker.client.stop(&range.partition);
        }
        read
    }
}

impl<'r> Way<'r> {
    fn new(range: &'r PartitionRange) -> Result<Way<'r>, Failure> {
        let impossible = || Failure::fatal(format!("{range:?} is not a range of a kafka partition"));
        let (topic, partition) = range.partition.rsplit_once('/').ok_or_else(impossible)?;
        let partition = partition.parse().map_err(|_| impossible())?;
        if range.from > range.to || partition < 0 {
            return Err(impossible());
        }
        Ok(Way { range, topic, partition, next: range.from, restarts: 0, short: 0 })
    }

    fn place(&self) -> Place<'r> {
        let PartitionRange { partition: name, incarnation, .. } = self.range;
        Place { name, topic: self.topic, partition: self.partition, incarnation }
    }
}

fn truncated(way: &Way<'_>, why: &str) -> Failure {
    Failure::fatal(format!(
        "records were lost by kafka at {way}: {why}; an unclean leader election has removed records that may have been \
         counted"
    ))
}

impl std::fmt::Display for Way<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PartitionRange { partition, from, to, .. } = self.range;
        write!(f, "partition {partition}, range {from}..{to}, position {}", self.next)
    }
}
