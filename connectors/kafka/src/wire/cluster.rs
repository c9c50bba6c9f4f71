//! The cluster as its brokers tell it: which topics there are, who leads their partitions, how far these reach.
//!
//! What was learned of leaders is believed until one of them disagrees; then it is asked for again, with growing pauses.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use tine_core::failure::Failure;

use super::{
    errors,
    links::{Links, pause, sleep},
    message::{
        Api,
        list_offsets::{self, Offsets, Wanted},
        metadata::{self, Metadata},
    },
    settings::Settings,
    trouble::Trouble,
};
use crate::client::{Mark, Questions, Topic, bad_name, cancelled as nobody_wants, no_ids, not_allowed};

/// How long a question may take before the brokers count as away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// The pauses between two tries of the same question.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// A client for questions, with connections of its own.
#[derive(Debug)]
pub(crate) struct Cluster {
    settings: Arc<Settings>,
    links: Links,
    brokers: HashMap<i32, String>,
    topics: HashMap<String, Known>,
    /// Who answered last.
    favourite: Option<String>,
    /// A question that was sent before anybody waits for its answer.
    ahead: Option<Ahead>,
}

/// What was learned of a topic.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) id: [u8; 16],
    /// `id` in words.
    pub(crate) incarnation: String,
    /// By partition: the leader's number and epoch.
    leaders: Vec<(i32, i32)>,
}

#[derive(Debug)]
struct Ahead {
    topic: String,
    address: String,
    correlation: i32,
}

/// Where a partition is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) address: String,
    pub(crate) epoch: i32,
}

impl Cluster {
    /// Nothing is connected yet.
    pub(crate) fn new(settings: Arc<Settings>) -> Cluster {
        let links = Links::new(Arc::clone(&settings));
        Cluster { settings, links, brokers: HashMap::new(), topics: HashMap::new(), favourite: None, ahead: None }
    }

    /// What was learned of a topic, without asking.
    pub(crate) fn known(&self, topic: &str) -> Option<&Known> {
        self.topics.get(topic)
    }

    /// Who leads a partition, as far as was learned.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<Leader> {
        let (leader, epoch) = *self.topics.get(topic)?.leaders.get(usize::try_from(partition).ok()?)?;
        Some(Leader { address: self.brokers.get(&leader)?.clone(), epoch })
    }

    /// Forgets what was learned of topics.
    pub(crate) fn forget(&mut self) {
        self.topics.clear();
        self.ahead = None;
    }

    /// Learns anew what the brokers say of some topics; one that is missing is unknown from then on.
    pub(crate) fn refresh(&mut self, names: &[&str], cancelled: &dyn Fn() -> bool) -> Result<(), Failure> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let metadata = self.metadata(names, deadline, cancelled);
        metadata.map(drop).map_err(|trouble| self.failure("say what its topics are", trouble))
    }

    /// Sends the question for one topic; a later [`describe`](Questions::describe) of it finds the answer there. A failure
    /// shows then.
    pub(crate) fn ask_ahead(&mut self, topic: &str) {
        self.ahead = None;
        let Some(address) = self.favourite.clone() else { return };
        let Some(connection) = self.links.existing(&address).filter(|link| link.pause().is_zero() && !link.is_stale())
        else {
            return;
        };
        match connection.send(Api::Metadata, 0, |put, _| metadata::ask(put, &[topic])) {
            Ok(correlation) => self.ahead = Some(Ahead { topic: topic.to_string(), address, correlation }),
            Err(_) => self.links.drop(&address),
        }
    }

    /// What was asked ahead is too old to be believed.
    pub(crate) fn forget_ahead(&mut self) {
        self.ahead = None;
    }

    fn metadata(
        &mut self,
        names: &[&str],
        deadline: Instant,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Metadata, Trouble> {
        let mut why = "the pause after a failed connection is not over".to_string();
        for round in 0.. {
            let (candidates, mut lagging) = (self.candidates(), None);
            // One that is cut off must not take the time of all others.
            let share = ANSWER_TIMEOUT / u32::try_from(candidates.len()).unwrap_or(u32::MAX).max(1);
            for address in candidates {
                if !self.links.is_ready(&address) {
                    continue;
                }
                match self.metadata_of(&address, names, deadline.min(Instant::now() + share), cancelled) {
                    Ok(metadata) if self.is_outdated(&metadata) => lagging = lagging.or(Some((address, metadata))),
                    Ok(metadata) => return Ok(self.believe(address, metadata)),
                    Err(Trouble::Away(what)) => why = what,
                    Err(other) => return Err(other),
                }
            }
            // Nobody knows better.
            if let Some((address, metadata)) = lagging {
                return Ok(self.believe(address, metadata));
            }
            let end = Instant::now() + pause(PAUSES, round);
            if end > deadline {
                break;
            }
            sleep(end, cancelled)?;
        }
        Err(Trouble::Away(why))
    }

    fn believe(&mut self, address: String, metadata: Metadata) -> Metadata {
        self.learn(&metadata);
        self.favourite = Some(address);
        metadata
    }

    /// Whether a broker knows less than was learned before: it is cut off from the others, or has just been started, and
    /// may even take itself for the leader still (KIP-320).
    fn is_outdated(&self, metadata: &Metadata) -> bool {
        metadata.topics.iter().filter(|topic| topic.error == errors::NONE).any(|topic| {
            let known = self.topics.get(&topic.name).filter(|known| known.id == topic.id);
            known.is_some_and(|known| known.is_ahead_of(&Known::new(topic)))
        })
    }

    /// Whom to ask: who answered last, then the brokers given, then those learned of.
    fn candidates(&self) -> Vec<String> {
        let learned = self.brokers.values().filter(|address| !self.settings.bootstrap.contains(address));
        let all = self.favourite.iter().chain(self.settings.bootstrap.iter().chain(learned));
        let mut candidates: Vec<String> = Vec::new();
        for address in all {
            if !candidates.contains(address) {
                candidates.push(address.clone());
            }
        }
        candidates
    }

    fn metadata_of(
        &mut self,
        address: &str,
        names: &[&str],
        deadline: Instant,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Metadata, Trouble> {
        let asked = self.asked_ahead(address, names);
        let connection = self.links.connection(address, deadline, cancelled)?;
        let answered = (|| {
            let correlation = match asked {
                Some(correlation) => correlation,
                None => {
                    sleep(Instant::now() + connection.pause(), cancelled)?;
                    connection.send(Api::Metadata, 0, |put, _| metadata::ask(put, names))?
                }
            };
            let answer = connection.wait(correlation, deadline, cancelled)?;
            let metadata = Metadata::read(&mut answer.take(), answer.version)?;
            connection.throttle(metadata.throttle_ms);
            connection.recycle(answer.buffer);
            match metadata.error {
                errors::NONE => Ok(metadata),
                code => Err(Trouble::Away(format!("{address} answers {}", errors::words(code)))),
            }
        })();
        if matches!(answered, Err(Trouble::Away(_))) {
            self.links.drop(address);
        }
        answered
    }

    /// The number of the question that was sent ahead, if it is this one.
    fn asked_ahead(&mut self, address: &str, names: &[&str]) -> Option<i32> {
        let ahead = self.ahead.take()?;
        let is_same = ahead.address == address && names == [ahead.topic.as_str()];
        (is_same && self.links.existing(address).is_some()).then_some(ahead.correlation)
    }

    fn learn(&mut self, metadata: &Metadata) {
        if !metadata.brokers.is_empty() {
            self.brokers.clear();
            for broker in &metadata.brokers {
                let host = if broker.host.contains(':') { format!("[{}]", broker.host) } else { broker.host.clone() };
                self.brokers.insert(broker.id, format!("{host}:{}", broker.port));
            }
        }
        for topic in &metadata.topics {
            if topic.error == errors::NONE {
                self.topics.insert(topic.name.clone(), Known::new(topic));
            } else {
                self.topics.remove(&topic.name);
            }
        }
    }

    fn described(&self, metadata: &Metadata, name: &str) -> Result<Option<Topic>, Failure> {
        let tried = || format!("say what topic {name} is");
        let topic = metadata.topics.iter().find(|topic| topic.name == name);
        let topic = topic.ok_or_else(|| self.away(&tried(), "the answer leaves it out"))?;
        match topic.error {
            errors::NONE if topic.id == [0; 16] => Err(no_ids(&self.addresses(), name)),
            errors::NONE => Ok(Some(Topic {
                name: name.to_string(),
                id: BASE64.encode(topic.id),
                partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
            })),
            errors::UNKNOWN_TOPIC => Ok(None),
            errors::NOT_ALLOWED => Err(not_allowed(name)),
            errors::INVALID_TOPIC => Err(bad_name(name)),
            code => Err(self.away(&tried(), &errors::words(code))),
        }
    }

    /// A failure in words.
    pub(crate) fn failure(&self, tried: &str, trouble: Trouble) -> Failure {
        match trouble {
            Trouble::Cancelled => nobody_wants(),
            Trouble::Away(why) => self.away(tried, &why),
            Trouble::Refused(failure) => failure,
        }
    }

    fn addresses(&self) -> String {
        self.settings.bootstrap.join(",")
    }

    /// One round of questions: to every leader of the partitions that are still open. `Err` says what stands in the way,
    /// for another round.
    fn round(
        &mut self,
        asked: &[(&str, i32, Mark)],
        found: &mut [Option<Option<u64>>],
        deadline: Instant,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<String>, Trouble> {
        let (questions, mut why) = self.by_leader(asked, found);
        let mut sent = Vec::with_capacity(questions.len());
        for (address, wanted) in &questions {
            match self.send_marks(address, wanted, deadline, cancelled) {
                Ok(correlation) => sent.push((address, correlation)),
                Err(Trouble::Away(what)) => why = Some(what),
                Err(other) => return Err(other),
            }
        }
        for (address, correlation) in sent {
            match self.receive_marks(address, correlation, deadline, cancelled) {
                Ok(offsets) => why = settle(asked, found, &offsets)?.or(why),
                Err(Trouble::Away(what)) => why = Some(what),
                Err(other) => return Err(other),
            }
        }
        let left_out = || found.contains(&None).then(|| "the answer leaves a partition out".to_string());
        Ok(why.or_else(left_out))
    }

    /// The open questions by the address of who can answer; and why some have nobody.
    fn by_leader<'t>(
        &self,
        asked: &[(&'t str, i32, Mark)],
        found: &[Option<Option<u64>>],
    ) -> (BTreeMap<String, Vec<Wanted<'t>>>, Option<String>) {
        let (mut questions, mut why) = (BTreeMap::<String, Vec<Wanted<'t>>>::new(), None);
        for ((topic, partition, mark), _) in asked.iter().zip(found).filter(|(_, found)| found.is_none()) {
            match self.leader(topic, *partition) {
                None => why = Some(format!("nobody leads {topic}/{partition}")),
                Some(Leader { address, epoch }) => {
                    let wanted = Wanted { topic, partition: *partition, epoch, timestamp: timestamp(*mark) };
                    questions.entry(address).or_default().push(wanted);
                }
            }
        }
        (questions, why)
    }

    fn send_marks(
        &mut self,
        address: &str,
        wanted: &[Wanted<'_>],
        deadline: Instant,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<i32, Trouble> {
        let connection = self.links.connection(address, deadline, cancelled)?;
        sleep(Instant::now() + connection.pause(), cancelled)?;
        let sent = connection.send(Api::ListOffsets, 0, |put, _| list_offsets::ask(put, wanted));
        if sent.is_err() {
            self.links.drop(address);
        }
        sent
    }

    fn receive_marks(
        &mut self,
        address: &str,
        correlation: i32,
        deadline: Instant,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Offsets, Trouble> {
        let Some(connection) = self.links.existing(address) else {
            return Err(Trouble::Away(format!("the connection to {address} is lost")));
        };
        let answered = connection.wait(correlation, deadline, cancelled).and_then(|answer| {
            let offsets = Offsets::read(&mut answer.take())?;
            connection.throttle(offsets.throttle_ms);
            connection.recycle(answer.buffer);
            Ok(offsets)
        });
        if matches!(answered, Err(Trouble::Away(_))) {
            self.links.drop(address);
        }
        answered
    }

    fn all_marks(
        &mut self,
        asked: &[(&str, i32, Mark)],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<u64>>, Trouble> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut topics: Vec<&str> = asked.iter().map(|(topic, ..)| *topic).collect();
        topics.dedup();
        if topics.iter().any(|topic| !self.topics.contains_key(*topic)) {
            self.metadata(&topics, deadline, cancelled)?;
        }
        let mut found = vec![None; asked.len()];
        for round in 0.. {
            let Some(why) = self.round(asked, &mut found, deadline, cancelled)? else { break };
            let end = Instant::now() + pause(PAUSES, round);
            if end > deadline {
                return Err(Trouble::Away(why));
            }
            sleep(end, cancelled)?;
            self.metadata(&topics, deadline, cancelled)?;
        }
        Ok(found.into_iter().flatten().collect())
    }
}

impl Known {
    fn new(topic: &metadata::Topic) -> Known {
        let count = topic.partitions.len();
        let mut leaders = vec![(-1, -1); count];
        for partition in &topic.partitions {
            if let Some(leader) = usize::try_from(partition.index).ok().and_then(|index| leaders.get_mut(index)) {
                *leader = (partition.leader, partition.epoch);
            }
        }
        Known { id: topic.id, incarnation: BASE64.encode(topic.id), leaders }
    }

    /// Whether it is newer than `other`: partitions are never taken away, and a leader's epoch never falls.
    fn is_ahead_of(&self, other: &Known) -> bool {
        let epochs = self.leaders.iter().zip(&other.leaders);
        self.leaders.len() > other.leaders.len() || epochs.into_iter().any(|((_, mine), (_, theirs))| mine > theirs)
    }
}

impl Questions for Cluster {
    fn describe(&mut self, names: &[&str], cancelled: &dyn Fn() -> bool) -> Result<Vec<Option<Topic>>, Failure> {
        let metadata = self.metadata(names, Instant::now() + ANSWER_TIMEOUT, cancelled);
        let metadata = metadata.map_err(|trouble| self.failure("say what the topics are", trouble))?;
        names.iter().map(|name| self.described(&metadata, name)).collect()
    }

    fn marks(
        &mut self,
        asked: &[(&str, i32, Mark)],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<u64>>, Failure> {
        self.all_marks(asked, cancelled).map_err(|trouble| self.failure("say how far its partitions reach", trouble))
    }

    fn away(&self, tried: &str, why: &str) -> Failure {
        Failure::transient(format!(
            "kafka at {} did not {tried}: {why} (check that the address is right and the broker is up)",
            self.addresses()
        ))
    }
}

/// Takes over what a leader says; `Some` says what has to be asked again.
fn settle(
    asked: &[(&str, i32, Mark)],
    found: &mut [Option<Option<u64>>],
    offsets: &Offsets,
) -> Result<Option<String>, Trouble> {
    let (mut why, mut last) = (None, 0);
    for offset in &offsets.offsets {
        // Answers keep the questions' order, so the next one is found at once.
        let mut places = (last..asked.len()).chain(0..last);
        let at = places.find(|at| (asked[*at].0, asked[*at].1) == (offset.topic.as_str(), offset.partition));
        let Some(at) = at else { continue };
        last = at;
        let what = || format!("{}/{}: {}", offset.topic, offset.partition, errors::words(offset.error));
        match (offset.error, u64::try_from(offset.offset)) {
            (errors::NONE, Ok(offset)) => found[at] = Some(Some(offset)),
            (errors::NONE, Err(_)) if matches!(asked[at].2, Mark::Time(_)) => found[at] = Some(None),
            (errors::NONE, Err(_)) => {
                return Err(Trouble::Away(format!("{}/{} has no offset", offset.topic, offset.partition)));
            }
            (errors::NOT_ALLOWED, _) => return Err(Trouble::Refused(not_allowed(&offset.topic))),
            (code, _) if errors::has_moved(code) => why = Some(what()),
            _ => return Err(Trouble::Away(what())),
        }
    }
    Ok(why)
}

fn timestamp(mark: Mark) -> i64 {
    match mark {
        Mark::Low => -2,
        Mark::Stable => -1,
        Mark::Time(ms) => ms.max(0),
    }
}
