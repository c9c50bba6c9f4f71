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

/// How often in a row the same place may be unreadable: once it may have been damaged on its way, and no more than that.
const UNREADABLE_MAX: usize = 2;

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
    unreadable: usize,
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
                Err(Halt::Unreadable(why)) => {
                    self.look(way, sink)?;
                    way.unreadable = if way.next > before { 1 } else { way.unreadable + 1 };
                    if way.unreadable > UNREADABLE_MAX {
                        return Err(unreadable(way, &why));
                    }
                    self.restart(way, &why, sink)?;
                }
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
        Ok(Way { range, topic, partition, next: range.from, restarts: 0, short: 0, unreadable: 0 })
    }

    fn place(&self) -> Place<'r> {
        let PartitionRange { partition: name, incarnation, .. } = self.range;
        Place { name, topic: self.topic, partition: self.partition, incarnation }
    }
}

fn unreadable(way: &Way<'_>, why: &str) -> Failure {
    Failure::fatal(format!(
        "kafka partition {} cannot be read at offset {} (range {}..{}): {why}; it was the same {} times: let another replica \
         lead the partition if this one's disk is damaged, or copy what can be read into a new topic and count that under a new \
         name",
        way.range.partition,
        way.next,
        way.range.from,
        way.range.to,
        UNREADABLE_MAX + 1
    ))
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

#[cfg(test)]
mod tests {
    use tine_core::failure::FailureKind;
    use tine_trident::source::{Record, SourceIndex};

    use super::*;
    use crate::{
        ask::Seen,
        client::{Questions, Topic},
    };

    /// Brokers whose partition is readable up to an offset; there it is not, for so many tries.
    struct Damaged {
        at: u64,
        tries: usize,
    }

    impl Questions for Damaged {
        fn describe(&mut self, names: &[&str], _: &dyn Fn() -> bool) -> Result<Vec<Option<Topic>>, Failure> {
            let topic = |name: &&str| Some(Topic { name: name.to_string(), id: "id".to_string(), partitions: 1 });
            Ok(names.iter().map(topic).collect())
        }

        fn marks(&mut self, asked: &[(&str, i32, Mark)], _: &dyn Fn() -> bool) -> Result<Vec<Option<u64>>, Failure> {
            Ok(asked.iter().map(|(.., mark)| Some(if *mark == Mark::Low { 0 } else { 100 })).collect())
        }

        fn away(&self, tried: &str, why: &str) -> Failure {
            Failure::transient(format!("{tried}: {why}"))
        }
    }

    impl Fetching for Damaged {
        fn lend(&mut self, _: &Place<'_>, next: &mut u64, to: u64, _: &mut dyn Sink) -> Result<(), Halt> {
            if self.tries > 0 && self.at < to {
                self.tries -= 1;
                *next = self.at;
                return Err(Halt::Unreadable("its checksum is wrong".to_string()));
            }
            *next = to;
            Ok(())
        }

        fn stop(&mut self, _: &str) {}

        fn forget(&mut self) {}
    }

    struct Nobody;

    impl Sink for Nobody {
        fn records(&mut self, _: &[Record<'_>]) -> Result<(), Failure> {
            Ok(())
        }

        fn cancelled(&self) -> bool {
            false
        }
    }

    fn read(tries: usize) -> Result<(), Failure> {
        let range = PartitionRange {
            source: SourceIndex(0),
            partition: "lines/0".to_string(),
            incarnation: "id".to_string(),
            from: 3,
            to: 90,
            closed_at: None,
        };
        let client: Box<dyn Fetching> = Box::new(Damaged { at: 41, tries });
        TopicReader::new(Asker::new(client, Seen::default())).read(&range, &mut Nobody)
    }

    #[test]
    fn a_damaged_batch_is_fatal_by_topic_partition_and_offset_and_one_damaged_on_its_way_is_fetched_again() {
        assert_eq!(read(UNREADABLE_MAX), Ok(()));
        let failure = read(usize::MAX).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Fatal, "{failure}");
        for word in ["lines/0", "offset 41", "its checksum is wrong", "another replica"] {
            assert!(failure.message.contains(word), "no {word:?} in: {failure}");
        }
    }
}
