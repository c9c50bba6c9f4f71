//! The questions both sides have for the brokers, with failures in words.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tine_core::failure::{Failure, FailureKind};

use crate::{
    client::Client,
    native::admin::{self, OffsetAnswer, Unanswered},
};

/// How long a question may take before the brokers count as away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a topic may be missing before it counts as missing: a broker may not have heard yet of a new one, or just
/// have begun to run.
const MISSING_GRACE: Duration = Duration::from_secs(1);

/// How often a missing topic is asked for meanwhile.
const MISSING_STEP: Duration = Duration::from_millis(50);

/// What a topic is right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) name: String,
    /// Its id (KIP-516), never used again for another topic.
    pub(crate) id: String,
    pub(crate) partitions: i32,
}

/// How far a partition is asked to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The first offset that can be read.
    Low,
    /// The last stable offset: the high watermark, or the first offset of the oldest open transaction.
    Stable,
    /// The first committed record at or after a time; `None` when there is none.
    Time(i64),
}

/// The topics that this process has seen, as long as its source lives. A broker that does not know one of them may lag
/// behind the others: that proves nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Arc<Mutex<BTreeSet<String>>>);

impl Seen {
    fn add(&self, topics: &[Topic]) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in topics.iter().filter(|topic| !seen.contains(&topic.name)).collect::<Vec<_>>() {
            seen.insert(topic.name.clone());
        }
    }

    fn has(&self, topic: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(topic)
    }
}

/// A connection for questions.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    client: Arc<Client>,
    seen: Seen,
}

impl Asker {
    pub(crate) fn new(client: Arc<Client>, seen: Seen) -> Asker {
        Asker { client, seen }
    }

    /// What the topics are, in the order asked. One that is missing for longer than [`MISSING_GRACE`] is a failure:
    /// `Fatal` when this process has never seen it; else `Transient`, for only another id proves a deletion.
    pub(crate) fn topics(&self, names: &[&str], cancelled: &dyn Fn() -> bool) -> Result<Vec<Topic>, Failure> {
        let found = settled(names, &|| self.described(names, cancelled), cancelled)?;
        match found {
            Ok(topics) => {
                self.seen.add(&topics);
                Ok(topics)
            }
            Err(missing) if self.seen.has(missing) => Err(self.unknown(missing)),
            Err(missing) => Err(missing_topic(missing)),
        }
    }

    /// What the topic of a planned range is: a plan proves that it was there.
    pub(crate) fn planned_topic(&self, name: &str, cancelled: &dyn Fn() -> bool) -> Result<Topic, Failure> {
        let found = settled(&[name], &|| self.described(&[name], cancelled), cancelled)?;
        let topics = found.map_err(|missing| self.unknown(missing))?;
        self.seen.add(&topics);
        topics.into_iter().next().ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, topic: &str) -> Failure {
        Failure::transient(format!(
            "kafka at {} does not know topic {topic}, which was there before: either the topic was deleted, or the broker \
             asked has just been started and lags; it is asked for again",
            self.client.brokers
        ))
    }

    /// One request, answered from the broker's memory; `None` for a topic that it does not know.
    fn described(&self, names: &[&str], cancelled: &dyn Fn() -> bool) -> Result<Vec<Option<Topic>>, Failure> {
        let described = admin::describe(&self.client, names, ANSWER_TIMEOUT, cancelled)
            .map_err(|error| self.failure("say what the topics are", error))?;
        described
            .into_iter()
            .map(|topic| match topic.error.as_str() {
                "UNKNOWN_TOPIC_OR_PART" => Ok(None),
                "TOPIC_AUTHORIZATION_FAILED" => Err(not_allowed(&topic.topic)),
                "TOPIC_EXCEPTION" => Err(Failure::fatal(format!("kafka refuses the topic name {:?}", topic.topic))),
                "" | "NO_ERROR" if topic.id.is_empty() => Err(Failure::fatal(format!(
                    "kafka at {} gives topic {} no id: brokers of Kafka 3.1 or newer are needed",
                    self.client.brokers, topic.topic
                ))),
                "" | "NO_ERROR" => Ok(Some(Topic { name: topic.topic, id: topic.id, partitions: topic.partitions })),
                error => Err(self.client.away(&format!("say what topic {} is", topic.topic), error)),
            })
            .collect()
    }

    /// One offset for each partition asked for, in that order, from the partitions' leaders.
    pub(crate) fn marks(
        &self,
        asked: &[(&str, i32, Mark)],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<u64>>, Failure> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let specs: Vec<_> = asked.iter().map(|(topic, partition, mark)| (*topic, *partition, spec(*mark))).collect();
        let mut answers = admin::offsets(&self.client, &specs, ANSWER_TIMEOUT, cancelled)
            .map_err(|error| self.failure("say how far its partitions reach", error))?;
        answers.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        asked.iter().map(|(topic, partition, mark)| self.mark(&answers, topic, *partition, *mark)).collect()
    }

    fn mark(&self, answers: &[OffsetAnswer], topic: &str, partition: i32, mark: Mark) -> Result<Option<u64>, Failure> {
        let tried = || format!("say how far {topic}/{partition} reaches");
        let at = answers.binary_search_by(|answer| (answer.topic.as_str(), answer.partition).cmp(&(topic, partition)));
        let answer = at.map(|at| &answers[at]).map_err(|_| self.client.away(&tried(), "the answer leaves it out"))?;
        match (answer.code, u64::try_from(answer.offset), mark) {
            (0, Ok(offset), _) => Ok(Some(offset)),
            (0, Err(_), Mark::Time(_)) => Ok(None),
            (0, Err(_), _) => Err(self.client.away(&tried(), "the answer has no offset")),
            (29, ..) => Err(not_allowed(topic)),
            (code, ..) => Err(self.client.away(&tried(), &code_text(code))),
        }
    }

    fn failure(&self, tried: &str, error: Unanswered) -> Failure {
        match error {
            Unanswered::Cancelled => nobody_wants(),
            Unanswered::Failed(why) => self.client.away(tried, &why),
        }
    }
}

fn nobody_wants() -> Failure {
    Failure::new(FailureKind::Superseded, "nobody wants this range any more")
}

/// Asks until all topics are known, or one is missing for too long: then its name.
fn settled<'n>(
    names: &[&'n str],
    ask: &dyn Fn() -> Result<Vec<Option<Topic>>, Failure>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Result<Vec<Topic>, &'n str>, Failure> {
    let deadline = Instant::now() + MISSING_GRACE;
    loop {
        let topics = ask()?;
        let Some(missing) = topics.iter().position(Option::is_none) else {
            return Ok(Ok(topics.into_iter().flatten().collect()));
        };
        if Instant::now() > deadline {
            return Ok(Err(names[missing]));
        }
        if cancelled() {
            return Err(nobody_wants());
        }
        std::thread::sleep(MISSING_STEP);
    }
}

fn missing_topic(topic: &str) -> Failure {
    Failure::fatal(format!(
        "kafka topic {topic} does not exist: create it (kafka-topics --bootstrap-server HOST:PORT --create --topic \
         {topic} --partitions N) or correct its name"
    ))
}

/// The topic is there, but not for us.
pub(crate) fn not_allowed(topic: &str) -> Failure {
    Failure::fatal(format!("kafka does not let this user read topic {topic}: grant READ and DESCRIBE on it"))
}

/// An error code in words.
pub(crate) fn code_text(code: i32) -> String {
    match rdkafka_sys::rd_kafka_resp_err_t::try_from(code) {
        Ok(code) => rdkafka_sys::RDKafkaErrorCode::from(code).to_string(),
        Err(_) => format!("error code {code}"),
    }
}

fn spec(mark: Mark) -> i64 {
    match mark {
        Mark::Low => -2,
        Mark::Stable => -1,
        Mark::Time(ms) => ms.max(0),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn one_answer_that_a_topic_is_unknown_proves_nothing() {
        let (asked, never) = (Cell::new(0), || false);
        let lagging = || {
            asked.set(asked.get() + 1);
            let topic = Topic { name: "lines".into(), id: "x".into(), partitions: 1 };
            Ok(vec![(asked.get() > 2).then_some(topic)])
        };
        let found = settled(&["lines"], &lagging, &never).unwrap().unwrap();
        assert_eq!((found[0].id.as_str(), asked.get()), ("x", 3));
        assert_eq!(settled(&["lines"], &|| Ok(vec![None]), &never).unwrap(), Err("lines"));
        let cancelled = settled(&["lines"], &|| Ok(vec![None]), &|| true).unwrap_err();
        assert_eq!(cancelled.kind, FailureKind::Superseded);
    }
}
