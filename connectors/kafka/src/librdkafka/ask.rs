//! The two questions, asked through librdkafka.

use std::{sync::Arc, time::Duration};

use rdkafka::consumer::Consumer;
use tine_core::failure::Failure;

use super::{
    handle::Handle,
    native::admin::{self, OffsetAnswer, Unanswered},
};
use crate::client::{Mark, Questions, Topic, bad_name, cancelled as nobody_wants, no_ids, not_allowed};

/// How long a question may take before the brokers count as away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// How long is waited for who the controller is now: no longer than anybody may have to wait to be cancelled.
const LEARN_TIMEOUT: Duration = Duration::from_millis(100);

/// A connection for questions, shared by all that live at a time: on a fetching handle's connection they would stand
/// in line behind its fetches.
#[derive(Clone, Debug)]
pub(crate) struct Asking {
    handle: Arc<Handle>,
}

impl Asking {
    pub(crate) fn new(handle: Arc<Handle>) -> Asking {
        Asking { handle }
    }

    fn mark(&self, answers: &[OffsetAnswer], topic: &str, partition: i32, mark: Mark) -> Result<Option<u64>, Failure> {
        let tried = || format!("say how far {topic}/{partition} reaches");
        let at = answers.binary_search_by(|answer| (answer.topic.as_str(), answer.partition).cmp(&(topic, partition)));
        let answer = at.map(|at| &answers[at]).map_err(|_| self.handle.away(&tried(), "the answer leaves it out"))?;
        match (answer.code, u64::try_from(answer.offset), mark) {
            (0, Ok(offset), _) => Ok(Some(offset)),
            (0, Err(_), Mark::Time(_)) => Ok(None),
            (0, Err(_), _) => Err(self.handle.away(&tried(), "the answer has no offset")),
            (29, ..) => Err(not_allowed(topic)),
            (code, ..) => Err(self.handle.away(&tried(), &code_text(code))),
        }
    }

    /// Has librdkafka learn who the controller is now. It asks the controller what topics are, keeps the one that it
    /// learned last, and tries that one without end; with KRaft that is any broker, also one that is away by now. An
    /// answer that comes later than this waits counts as well.
    fn learn_controller(&self, names: &[&str]) {
        if let Some(name) = names.first() {
            let _ = self.handle.consumer.fetch_metadata(Some(name), LEARN_TIMEOUT);
        }
    }

    fn failure(&self, tried: &str, error: Unanswered) -> Failure {
        match error {
            Unanswered::Cancelled => nobody_wants(),
            Unanswered::Failed(why) => self.handle.away(tried, &why),
        }
    }
}

impl Questions for Asking {
    /// One request, answered from the broker's memory.
    fn describe(&mut self, names: &[&str], cancelled: &dyn Fn() -> bool) -> Result<Vec<Option<Topic>>, Failure> {
        let described = admin::describe(&self.handle, names, ANSWER_TIMEOUT, cancelled).map_err(|error| {
            self.learn_controller(names);
            self.failure("say what the topics are", error)
        })?;
        described
            .into_iter()
            .map(|topic| match topic.error.as_str() {
                "UNKNOWN_TOPIC_OR_PART" => Ok(None),
                "TOPIC_AUTHORIZATION_FAILED" => Err(not_allowed(&topic.topic)),
                "TOPIC_EXCEPTION" => Err(bad_name(&topic.topic)),
                "" | "NO_ERROR" if topic.id.is_empty() => Err(no_ids(&self.handle.brokers, &topic.topic)),
                "" | "NO_ERROR" => Ok(Some(Topic { name: topic.topic, id: topic.id, partitions: topic.partitions })),
                error => Err(self.handle.away(&format!("say what topic {} is", topic.topic), error)),
            })
            .collect()
    }

    fn marks(
        &mut self,
        asked: &[(&str, i32, Mark)],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<u64>>, Failure> {
        let specs: Vec<_> = asked.iter().map(|(topic, partition, mark)| (*topic, *partition, spec(*mark))).collect();
        let mut answers = admin::offsets(&self.handle, &specs, ANSWER_TIMEOUT, cancelled)
            .map_err(|error| self.failure("say how far its partitions reach", error))?;
        answers.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        asked.iter().map(|(topic, partition, mark)| self.mark(&answers, topic, *partition, *mark)).collect()
    }

    fn away(&self, tried: &str, why: &str) -> Failure {
        self.handle.away(tried, why)
    }
}

/// An error code in words.
fn code_text(code: i32) -> String {
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
