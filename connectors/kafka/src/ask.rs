//! The questions both sides have for the brokers, with failures in words.

use std::{sync::Arc, time::Duration};

use tine_core::failure::{Failure, FailureKind};

use crate::{
    client::Client,
    native::admin::{self, OffsetAnswer, Unanswered},
};

/// How long a question may take before the brokers count as away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

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

/// A connection for questions.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    client: Arc<Client>,
}

impl Asker {
    pub(crate) fn new(client: Arc<Client>) -> Asker {
        Asker { client }
    }

    /// What the topics are, in the order asked; `None` for one that does not exist. One request, answered from the
    /// broker's memory.
    pub(crate) fn topics(&self, names: &[&str], cancelled: &dyn Fn() -> bool) -> Result<Vec<Option<Topic>>, Failure> {
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
            Unanswered::Cancelled => Failure::new(FailureKind::Superseded, "nobody wants this range any more"),
            Unanswered::Failed(why) => self.client.away(tried, &why),
        }
    }
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
