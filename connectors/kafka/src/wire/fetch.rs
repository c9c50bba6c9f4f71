//! Reading partitions: one fetch ahead of what is being lent, all on the reader's own thread.
//!
//! Before the records of an answer are lent, the next fetch is on its way: of the same partition while the range goes on,
//! else of the partition that was read after this one the last time round. The broker works and bytes travel while
//! records are processed. What an answer holds beyond a range stays for the next one.
//!
//! A range was planned up to a last stable offset, so its records are there: a fetch waits for nothing. A leader that
//! moved, a connection that broke, a broker that is away: metadata are asked for again and the fetch is repeated, with
//! growing pauses, until [`STALL`].
//!
//! Every request names the leader's epoch and that of the last record fetched (KIP-320, KIP-595). A leader whose history is
//! another one at that place says so: that is [`Halt::Truncated`].

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tine_core::failure::Failure;
use tine_trident::source::Sink;

use super::{
    cluster::{Cluster, Leader},
    connection::Answer,
    links::{Links, pause, sleep},
    message::{
        Api,
        fetch::{Fetched, Wanted},
    },
    settings::Settings,
    track::{Told, Track},
    trouble::Trouble,
};
use crate::{
    client::{Fetching, Halt, Mark, Place, Questions, Topic, cancelled},
    records::{DecodeError, Decoder, Limits, Wanted as WantedRecords},
};

/// How long nothing may come before somebody looks why.
const STALL: Duration = Duration::from_secs(5);

/// The pauses between two tries to fetch.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// What was fetched of a partition that was not read for this long is dropped.
const IDLE: Duration = Duration::from_secs(60);

/// Decoders kept for use again: their buffers are as large as the largest batch was.
const SPARE_DECODERS_MAX: usize = 2;

/// A reader's partitions, and the connections that they are fetched on.
pub(crate) struct Fetcher {
    settings: Arc<Settings>,
    /// For questions: on a connection that fetches they would stand in line behind the fetches.
    cluster: Cluster,
    links: Links,
    tracks: HashMap<String, Track>,
    /// Which partition was read after which.
    after: HashMap<String, Successor>,
    last: Option<String>,
    spare: Vec<Decoder>,
    serial: u64,
    headers: bool,
}

/// A partition that is likely to be read next.
#[derive(Clone, Debug)]
struct Successor {
    name: String,
    topic: String,
    partition: i32,
}

/// What one call has gone through so far.
struct Effort {
    /// When something came last.
    since: Instant,
    /// Tries since then.
    tries: u32,
    /// Why the last one brought nothing.
    why: String,
    /// Whether the question for the topic's id is on its way.
    verifies: bool,
}

impl Effort {
    /// Something came, or a broker wants us to wait: what went before is no silence.
    fn begin_anew(&mut self) {
        (self.since, self.tries) = (Instant::now(), 0);
    }
}

/// Why nothing came.
enum Stop {
    /// Newer metadata and another try may help.
    Again(String),
    Halt(Halt),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Stop {
        match trouble {
            Trouble::Away(why) => Stop::Again(why),
            Trouble::Cancelled => Stop::Halt(Halt::Failed(cancelled())),
            Trouble::Refused(failure) => Stop::Halt(Halt::Failed(failure)),
        }
    }
}

impl Fetcher {
    /// Nothing is connected before the first range.
    pub(crate) fn new(settings: Settings, headers: bool) -> Fetcher {
        let settings = Arc::new(settings);
        Fetcher {
            cluster: Cluster::new(Arc::clone(&settings)),
            links: Links::new(Arc::clone(&settings)),
            settings,
            tracks: HashMap::new(),
            after: HashMap::new(),
            last: None,
            spare: Vec::new(),
            serial: 0,
            headers,
        }
    }

    fn run(&mut self, place: &Place<'_>, to: u64, sink: &mut dyn Sink) -> Result<(), Halt> {
        let mut effort = Effort { since: Instant::now(), tries: 0, why: String::new(), verifies: false };
        while self.track(place).next < to {
            self.look_ahead(place, to, &mut effort);
            if !self.track(place).sets.is_empty() {
                self.lend_set(place, to, sink)?;
                effort.begin_anew();
                continue;
            }
            if sink.cancelled() {
                return Err(Halt::Failed(cancelled()));
            }
            if effort.since.elapsed() > STALL {
                return Err(Halt::Stalled(format!("nothing came for {} s: {}", STALL.as_secs(), effort.why)));
            }
            match self.await_records(place, sink, &mut effort) {
                Ok(()) => {}
                Err(Stop::Halt(halt)) => return Err(halt),
                Err(Stop::Again(why)) => self.learn_anew(place, why, sink, &mut effort)?,
            }
        }
        Ok(())
    }

    fn track(&mut self, place: &Place<'_>) -> &mut Track {
        self.tracks.get_mut(place.name).expect("a partition being lent has a track")
    }

    /// The partition's track at `next`: the one at hand, or a new start.
    fn start(&mut self, place: &Place<'_>, next: u64) {
        if self.tracks.get(place.name).is_none_or(|track| track.next != next) {
            self.tracks.retain(|_, track| track.used.elapsed() < IDLE);
            self.serial += 1;
            let track = Track::new(self.serial, place.partition, place.incarnation, next);
            self.tracks.insert(place.name.to_string(), track);
        }
        self.track(place).used = Instant::now();
    }

    /// Learns the order in which partitions are read.
    fn follow(&mut self, place: &Place<'_>) {
        if let Some(last) = self.last.take()
            && self.after.get(&last).is_none_or(|known| known.name != place.name)
        {
            let (name, topic) = (place.name.to_string(), place.topic.to_string());
            self.after.insert(last, Successor { name, topic, partition: place.partition });
        }
        self.last = Some(place.name.to_string());
    }

    /// Sends what can be sent before records are lent. Failures show again when the records are needed.
    fn look_ahead(&mut self, place: &Place<'_>, to: u64, effort: &mut Effort) {
        let track = self.track(place);
        let (reach, can_go_on) = (track.reach, track.has_room() && !track.sets.is_empty());
        if reach < to {
            // A first fetch belongs to `await_records`, which can wait for a connection.
            if can_go_on && self.may_hold_more() {
                let _ = self.ask(place.name, place.topic, place.partition);
            }
            return;
        }
        if !effort.verifies {
            // All that the range needs has come: the proof that it came from the planned topic can be on its way.
            effort.verifies = true;
            self.cluster.ask_ahead(place.topic);
        }
        let Some(next) = self.after.get(place.name).cloned() else { return };
        let held_max = usize::from(next.name == place.name);
        let is_wanted = self
            .tracks
            .get(&next.name)
            .is_some_and(|track| track.sets.len() <= held_max && track.has_room() && track.reach < track.stable);
        if is_wanted && self.may_hold_more() {
            let _ = self.ask(&next.name, &next.topic, next.partition);
        }
    }

    fn may_hold_more(&self) -> bool {
        let held: usize = self.tracks.values().map(Track::held_bytes).sum();
        let coming = self.tracks.values().filter(|track| track.asked.is_some()).count() + 1;
        held + coming * self.settings.fetch_bytes <= self.settings.held_bytes_max
    }

    /// Makes room for the partition being read. What was read last goes first: it will be read again last.
    fn make_room(&mut self, place: &Place<'_>) {
        while !self.may_hold_more() {
            let others = self.tracks.iter().filter(|(name, track)| *name != place.name && !track.sets.is_empty());
            let Some(name) = others.max_by_key(|(_, track)| track.used).map(|(name, _)| name.clone()) else { return };
            self.tracks.remove(&name);
        }
    }

    /// Sends a fetch of what lies behind the track's reach, on a connection that is there.
    fn ask(&mut self, name: &str, topic: &str, partition: i32) -> Result<(), Trouble> {
        let away = |what: &str| Trouble::Away(format!("{what} {topic}/{partition}"));
        let Leader { address, epoch } = self.cluster.leader(topic, partition).ok_or_else(|| away("nobody leads"))?;
        let known = self.cluster.known(topic).ok_or_else(|| away("nobody knows"))?;
        let track = self.tracks.get_mut(name).ok_or_else(|| away("nobody reads"))?;
        if known.incarnation != track.incarnation {
            // Questions learn of a topic made anew as well; what was planned is asked for, or nothing.
            return Err(away("another topic is called that of"));
        }
        let topic_id = known.id;
        let wanted = Wanted {
            topic,
            topic_id,
            partition,
            epoch,
            from: i64::try_from(track.reach).map_err(|_| away("there is no such offset in"))?,
            last_epoch: track.epoch,
            bytes_max: i32::try_from(self.settings.fetch_bytes).unwrap_or(i32::MAX),
            wait_ms: self.settings.fetch_wait_ms,
        };
        let ready = self.links.existing(&address).filter(|link| link.pause().is_zero() && !link.is_stale());
        let connection = ready.ok_or_else(|| away("no connection is ready for"))?;
        match connection.send(Api::Fetch, track.serial, |put, version| wanted.ask(put, version)) {
            Ok(_) => {
                (track.asked, track.topic_id) = (Some(address), topic_id);
                Ok(())
            }
            Err(trouble) => {
                self.lose(&address);
                Err(trouble)
            }
        }
    }

    /// Asks for the partition's next records if nobody did, and waits a moment for an answer, be it another's.
    fn await_records(&mut self, place: &Place<'_>, sink: &dyn Sink, effort: &mut Effort) -> Result<(), Stop> {
        let address = match self.track(place).asked.clone() {
            Some(address) => address,
            None => self.ask_first(place, sink, effort)?,
        };
        let received = match self.links.existing(&address) {
            Some(connection) => {
                if !connection.pause().is_zero() {
                    effort.begin_anew();
                }
                connection.receive()
            }
            None => Err(Trouble::Away(format!("the connection to {address} is lost"))),
        };
        match received {
            Ok(Some(answer)) => {
                let (told, asker) = (answer.tag, self.track(place).serial);
                let outcome = self.take_in(answer, &address)?;
                // What others were told is not acted on: they ask again when they are read.
                if told == asker { self.act(outcome, sink, effort) } else { Ok(()) }
            }
            Ok(None) => Ok(()),
            Err(trouble) => {
                self.lose(&address);
                Err(trouble.into())
            }
        }
    }

    fn act(&self, told: Told, sink: &dyn Sink, effort: &mut Effort) -> Result<(), Stop> {
        match told {
            Told::Records => Ok(()),
            Told::Nothing => {
                effort.why = "the leader has nothing there yet".into();
                effort.tries += 1;
                // The broker has waited too; this is for one that does not.
                Ok(sleep(Instant::now() + pause(PAUSES, effort.tries.min(2)), &|| sink.cancelled())?)
            }
            Told::Moved(why) => Err(Stop::Again(why)),
            Told::Halt(halt) => Err(Stop::Halt(halt)),
        }
    }

    /// Asks when nothing was asked ahead: learns who leads, connects, and heeds a broker's wish for a pause.
    fn ask_first(&mut self, place: &Place<'_>, sink: &dyn Sink, effort: &mut Effort) -> Result<String, Stop> {
        let cancelled = || sink.cancelled();
        if self.cluster.leader(place.topic, place.partition).is_none() {
            self.learn(place, &cancelled).map_err(Stop::Halt)?;
        }
        let Some(leader) = self.cluster.leader(place.topic, place.partition) else {
            return Err(Stop::Again(format!("nobody leads {}", place.name)));
        };
        let deadline = Instant::now() + self.settings.setup_timeout;
        let rest = self.links.connection(&leader.address, deadline, &cancelled)?.pause();
        if !rest.is_zero() {
            sleep(Instant::now() + rest, &cancelled)?;
            effort.begin_anew();
        }
        self.make_room(place);
        self.ask(place.name, place.topic, place.partition)?;
        Ok(leader.address)
    }

    fn learn_anew(&mut self, place: &Place<'_>, why: String, sink: &dyn Sink, effort: &mut Effort) -> Result<(), Halt> {
        tracing::debug!(partition = place.name, "fetched again: {why}");
        effort.why = why;
        let paused = sleep(Instant::now() + pause(PAUSES, effort.tries), &|| sink.cancelled());
        effort.tries += 1;
        paused.map_err(|_| Halt::Failed(cancelled()))?;
        self.learn(place, &|| sink.cancelled())
    }

    /// Asks who leads. A topic that is not the planned one is not fetched.
    fn learn(&mut self, place: &Place<'_>, cancelled: &dyn Fn() -> bool) -> Result<(), Halt> {
        self.cluster.refresh(&[place.topic], cancelled).map_err(Halt::Failed)?;
        match self.cluster.known(place.topic) {
            Some(known) if known.incarnation == place.incarnation => Ok(()),
            Some(known) => Err(Halt::Broken(format!("topic {} has id {} now", place.topic, known.incarnation))),
            None => Err(Halt::Broken(format!("kafka does not know topic {} now", place.topic))),
        }
    }

    /// Gives an answer to the track that asked, if it is still there.
    fn take_in(&mut self, answer: Answer, address: &str) -> Result<Told, Trouble> {
        let fetched = match Fetched::read(&mut answer.take(), answer.version) {
            Ok(fetched) => fetched,
            Err(malformed) => {
                self.lose(address);
                return Err(malformed.into());
            }
        };
        let track = self.tracks.values_mut().find(|track| track.serial == answer.tag);
        let (told, buffer) = match track {
            Some(track) => track.told(fetched.error, fetched.partitions, answer.buffer, answer.version),
            None => (Told::Nothing, Some(answer.buffer)),
        };
        if let Some(connection) = self.links.existing(address) {
            connection.throttle(fetched.throttle_ms);
            buffer.into_iter().for_each(|buffer| connection.recycle(buffer));
        }
        Ok(told)
    }

    /// Lends what the first set at hand has of the range.
    fn lend_set(&mut self, place: &Place<'_>, to: u64, sink: &mut dyn Sink) -> Result<(), Halt> {
        let limits = Limits { batch_bytes_max: self.settings.answer_bytes_max };
        let track = self.tracks.get_mut(place.name).expect("a partition being lent has a track");
        let set = track.sets.front_mut().expect("only a track with a set is lent from");
        let spare = &mut self.spare;
        let decoder = set.decoder.get_or_insert_with(|| spare.pop().unwrap_or_else(|| Decoder::new(limits)));
        if let Some(aborted) = set.aborted.take() {
            decoder.begin(aborted);
        }
        let wanted = WantedRecords { from: track.next, to, headers: self.headers };
        let mut lent = track.next;
        let decoded = decoder.decode(&set.buffer.answer()[set.rest.clone()], &wanted, &mut |chunk| {
            sink.records(chunk)?;
            lent = chunk.last().map_or(lent, |record| record.position + 1);
            Ok(())
        });
        match decoded {
            Ok(progress) if progress.next > track.next => {
                assert!(progress.next <= to, "a range is never read beyond its end");
                set.rest.start += progress.consumed;
                track.next = progress.next;
                if track.next >= set.end {
                    self.finish_set(place);
                }
                Ok(())
            }
            Ok(_) => Err(Halt::Broken(format!("a record set ends before offset {}, which its head promises", set.end))),
            Err(DecodeError::Sink(failure)) => Err(Halt::Failed(failure)),
            // The sink may have some of the set already.
            Err(DecodeError::Corrupt(why)) => {
                track.next = lent;
                Err(Halt::Unreadable(why))
            }
        }
    }

    /// Puts aside what a set took, for the next one.
    fn finish_set(&mut self, place: &Place<'_>) {
        let Some(set) = self.track(place).sets.pop_front() else { return };
        self.spare.extend(set.decoder.filter(|_| self.spare.len() < SPARE_DECODERS_MAX));
        let leader = self.cluster.leader(place.topic, place.partition);
        if let Some(connection) = leader.and_then(|leader| self.links.existing(&leader.address)) {
            connection.recycle(set.buffer);
        }
    }

    /// A connection is gone, and with it what was asked on it.
    fn lose(&mut self, address: &str) {
        self.links.drop(address);
        for track in self.tracks.values_mut().filter(|track| track.asked.as_deref() == Some(address)) {
            track.asked = None;
        }
    }
}

impl Fetching for Fetcher {
    fn lend(&mut self, place: &Place<'_>, next: &mut u64, to: u64, sink: &mut dyn Sink) -> Result<(), Halt> {
        self.follow(place);
        self.start(place, *next);
        let ran = self.run(place, to, sink);
        *next = self.track(place).next;
        if ran.is_err() {
            self.cluster.forget_ahead();
        }
        ran
    }

    fn stop(&mut self, partition: &str) {
        self.tracks.remove(partition);
    }

    fn forget(&mut self) {
        self.tracks.clear();
        self.cluster.forget();
    }
}

impl Questions for Fetcher {
    fn describe(&mut self, names: &[&str], cancelled: &dyn Fn() -> bool) -> Result<Vec<Option<Topic>>, Failure> {
        self.cluster.describe(names, cancelled)
    }

    fn marks(
        &mut self,
        asked: &[(&str, i32, Mark)],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<u64>>, Failure> {
        self.cluster.marks(asked, cancelled)
    }

    fn away(&self, tried: &str, why: &str) -> Failure {
        self.cluster.away(tried, why)
    }
}
