//! Questions about topics that one answer does not settle: a broker that does not know a topic may lag.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tine_core::failure::Failure;

use crate::client::{Mark, Questions, Topic, cancelled as nobody_wants};

/// How long a topic may be missing before it counts as missing: a broker may not have heard yet of a new one, or just
/// have begun to run.
const MISSING_GRACE: Duration = Duration::from_secs(1);

/// How often a missing topic is asked for meanwhile.
const MISSING_STEP: Duration = Duration::from_millis(50);

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

/// A client for questions (`dyn Questions`), or for questions and records (`dyn Fetching`).
pub(crate) struct Asker<Q: ?Sized> {
    seen: Seen,
    pub(crate) client: Box<Q>,
}

impl<Q: Questions + ?Sized> Asker<Q> {
    pub(crate) fn new(client: Box<Q>, seen: Seen) -> Asker<Q> {
        Asker { client, seen }
    }

    /// What the topics are, in the order asked. One that is missing for longer than [`MISSING_GRACE`] is a failure:
    /// `Fatal` when this process has never seen it; else `Transient`, for only another id proves a deletion.
    pub(crate) fn topics(&mut self, names: &[&str], cancelled: &dyn Fn() -> bool) -> Result<Vec<Topic>, Failure> {
        match self.settled(names, cancelled)? {
            Ok(topics) => Ok(topics),
            Err(missing) if self.seen.has(missing) => Err(self.unknown(missing)),
            Err(missing) => Err(missing_topic(missing)),
        }
    }

    /// What the topic of a planned range is: a plan proves that it was there.
    pub(crate) fn planned_topic(&mut self, name: &str, cancelled: &dyn Fn() -> bool) -> Result<Topic, Failure> {
        let found = self.settled(&[name], cancelled)?;
        let topics = found.map_err(|missing| self.unknown(missing))?;
        topics.into_iter().next().ok_or_else(|| self.unknown(name))
    }

    /// [`Questions::marks`].
    pub(crate) fn marks(
        &mut self,
        asked: &[(&str, i32, Mark)],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<u64>>, Failure> {
        if asked.is_empty() { Ok(Vec::new()) } else { self.client.marks(asked, cancelled) }
    }

    fn settled<'n>(
        &mut self,
        names: &[&'n str],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Result<Vec<Topic>, &'n str>, Failure> {
        let found = settled(names, &mut || self.client.describe(names, cancelled), cancelled)?;
        if let Ok(topics) = &found {
            self.seen.add(topics);
        }
        Ok(found)
    }

    fn unknown(&self, topic: &str) -> Failure {
        self.client.away(
            &format!("find topic {topic}, which was there before"),
            "either the topic was deleted, or the broker asked has just been started and lags; it is asked for again",
        )
    }
}

/// Asks until all topics are known, or one is missing for too long: then its name.
fn settled<'n>(
    names: &[&'n str],
    ask: &mut dyn FnMut() -> Result<Vec<Option<Topic>>, Failure>,
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

#[cfg(test)]
mod tests {
    use tine_core::failure::FailureKind;

    use super::*;

    #[test]
    fn one_answer_that_a_topic_is_unknown_proves_nothing() {
        let (mut asked, never) = (0, || false);
        let mut lagging = || {
            asked += 1;
            let topic = Topic { name: "lines".into(), id: "x".into(), partitions: 1 };
            Ok(vec![(asked > 2).then_some(topic)])
        };
        let found = settled(&["lines"], &mut lagging, &never).unwrap().unwrap();
        assert_eq!((found[0].id.as_str(), asked), ("x", 3));
        assert_eq!(settled(&["lines"], &mut || Ok(vec![None]), &never).unwrap(), Err("lines"));
        let cancelled = settled(&["lines"], &mut || Ok(vec![None]), &|| true).unwrap_err();
        assert_eq!(cancelled.kind, FailureKind::Superseded);
    }
}
