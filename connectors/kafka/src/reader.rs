//! The emitters' side: exactly the records of a range, and the proof that these are all.
//!
//! A reader has one client, and a [`Track`] with a queue of its own for each partition that it reads. A range that begins
//! where the last one ended goes on from the queue; any other starts the partition anew at its first offset (no seek:
//! seeks race with fetches). Other partitions are fetched ahead meanwhile, each up to its own bound.
//!
//! When the range's last record was lent, the topic's id is asked for once more (0.1–0.25 ms on loopback, on a connection
//! of its own). Ids are never used again: the same id at the plan and after the last record means that all in between
//! came from the planned topic, whatever was deleted and created meanwhile. In a cluster, the broker asked may hear of a
//! re-creation some ms later than the one that was read from; that window is not covered.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::ClientConfig;
use tine_core::failure::Failure;
use tine_trident::source::{PartitionRange, Reader, Sink};

use crate::{
    ask::{self, Asker, Mark},
    client::Client,
    track::{Halt, STALL, Track, cancelled},
};

/// How often a partition is started anew within a range before the read gives up as transient.
const RESTARTS_MAX: usize = 10;

/// How often in a row a partition may be found to end before the range does: after a leader change the end may be a
/// moment late; after this many looks it was truncated.
const SHORT_MAX: usize = 3;

/// The pause before a new start, times the number of starts so far.
const PAUSE: Duration = Duration::from_millis(50);

/// A partition that was not read for this long is fetched no more.
const IDLE: Duration = Duration::from_secs(60);

/// Reads ranges of any of the source's partitions.
pub(crate) struct TopicReader {
    /// Before the client: tracks are freed first.
    tracks: HashMap<String, Track>,
    /// The id under which each topic is fetched.
    incarnations: HashMap<String, String>,
    client: Option<Arc<Client>>,
    config: ClientConfig,
    asker: Asker,
    headers: bool,
}

/// A range under way, with the partition's name taken apart.
struct Way<'r> {
    range: &'r PartitionRange,
    topic: &'r str,
    partition: i32,
    /// Everything below was lent.
    next: u64,
    restarts: usize,
    short: usize,
}

impl TopicReader {
    pub(crate) fn new(config: ClientConfig, asker: Asker, headers: bool) -> TopicReader {
        TopicReader { tracks: HashMap::new(), incarnations: HashMap::new(), client: None, config, asker, headers }
    }

    fn read_way(&mut self, way: &mut Way<'_>, sink: &mut dyn Sink) -> Result<(), Failure> {
        let client = self.client(way)?;
        client.serve();
        while way.next < way.range.to {
            let headers = self.headers;
            let track = self.track(&client, way)?;
            let ran = track.run(way.range.to, headers, &client, sink);
            way.next = track.next();
            match ran {
                Ok(()) => {}
                Err(Halt::Failed(failure)) => return Err(failure),
                Err(Halt::Stalled) => {
                    let why = format!("nothing came for {} s", STALL.as_secs());
                    if self.look(way, sink)? {
                        self.restart(way, &client, &why, sink)?;
                    }
                }
                Err(Halt::Broken { code, text }) => {
                    self.judge(way, code, &text)?;
                    self.look(way, sink)?;
                    self.restart(way, &client, &text, sink)?;
                }
            }
        }
        self.verify(way, sink)
    }

    /// The client to fetch with. A topic under another id gets a new one: nothing fetched or known of the old topic
    /// may be taken for the new one's.
    fn client(&mut self, way: &Way<'_>) -> Result<Arc<Client>, Failure> {
        let known = self.incarnations.get(way.topic);
        if known.is_some_and(|known| *known != way.range.incarnation) {
            self.tracks.clear();
            self.incarnations.clear();
            self.client = None;
        }
        self.incarnations.insert(way.topic.to_string(), way.range.incarnation.clone());
        match &self.client {
            Some(client) => Ok(Arc::clone(client)),
            None => Ok(Arc::clone(self.client.insert(Arc::new(Client::new(&self.config)?)))),
        }
    }

    /// The partition's track at the place where the range goes on: the one at hand, or a new start.
    fn track(&mut self, client: &Arc<Client>, way: &Way<'_>) -> Result<&mut Track, Failure> {
        let name = &way.range.partition;
        if self.tracks.get(name).is_none_or(|track| track.next() != way.next) {
            // The old one stops before the new one starts: both are the same partition to librdkafka.
            self.tracks.remove(name);
            self.tracks.retain(|_, track| track.used.elapsed() < IDLE);
            let track = Track::start(client, way.topic, way.partition, way.next)?;
            self.tracks.insert(name.clone(), track);
        }
        Ok(self.tracks.get_mut(name).expect("it is there or was inserted above"))
    }

    fn restart(&mut self, way: &mut Way<'_>, client: &Client, why: &str, sink: &dyn Sink) -> Result<(), Failure> {
        self.tracks.remove(&way.range.partition);
        way.restarts += 1;
        if way.restarts > RESTARTS_MAX {
            return Err(client.away(&format!("give {way}"), why));
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

    /// Errors after which there is nothing to look for.
    fn judge(&self, way: &Way<'_>, code: i32, text: &str) -> Result<(), Failure> {
        const NOT_ALLOWED: i32 = 29;
        if code == NOT_ALLOWED {
            return Err(ask::not_allowed(way.topic));
        }
        // librdkafka compares leader epochs (KIP-320) and finds another history at our position; its event says so in
        // words only.
        if text.to_ascii_lowercase().contains("truncat") {
            return Err(Failure::fatal(format!(
                "records were lost by kafka at {way}: {text}; an unclean leader election has removed records that may \
                 have been counted"
            )));
        }
        Ok(())
    }

    /// Looks why nothing comes; whether it should come. `Fatal` when it cannot come any more.
    fn look(&self, way: &mut Way<'_>, sink: &dyn Sink) -> Result<bool, Failure> {
        self.verify(way, sink)?;
        let mark = |mark| {
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
    fn verify(&self, way: &Way<'_>, sink: &dyn Sink) -> Result<(), Failure> {
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
            self.tracks.remove(&range.partition);
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
}

impl std::fmt::Display for Way<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PartitionRange { partition, from, to, .. } = self.range;
        write!(f, "partition {partition}, range {from}..{to}, position {}", self.next)
    }
}
