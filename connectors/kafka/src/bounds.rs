//! The leader's side: which partitions there are and how far they reach.
//!
//! A poll asks the leaders of all partitions for their last stable offsets, in one round, and nothing else; topic ids,
//! partition counts and low watermarks are asked for again every [`REFRESH`], and after every error. That is exact: an
//! offset that belongs to a topic re-created since is planned under the old id, and readers refuse that range.

use std::time::{Duration, Instant};

use tine_core::failure::Failure;
use tine_trident::source::{Bounds, Horizon, PartitionBounds, Reached};

use crate::{
    ask::Asker,
    client::{Mark, Questions, Topic},
    topic::Start,
};

/// How old ids, partition counts and low watermarks may be. New partitions are seen this late.
const REFRESH: Duration = Duration::from_secs(2);

/// The bounds of one source's topics.
pub(crate) struct TopicBounds {
    asker: Asker<dyn Questions>,
    topics: Vec<String>,
    start: Start,
    known: Option<Known>,
    /// How often in a row less was there than was planned before.
    short: usize,
}

/// How often in a row less may be found than was planned before, until it is believed: the broker asked may have been cut
/// off from the others, and not know it.
const SHORT_MAX: usize = 5;

/// What changes rarely.
struct Known {
    at: Instant,
    topics: Vec<Topic>,
    /// Of all partitions, in the order of `topics`.
    lows: Vec<u64>,
}

impl TopicBounds {
    /// Asks for the topics once, so that a wrong address or topic shows at the start.
    pub(crate) fn open(asker: Asker<dyn Questions>, topics: Vec<String>, start: Start) -> Result<TopicBounds, Failure> {
        let mut bounds = TopicBounds { asker, topics, start, known: None, short: 0 };
        bounds.known = Some(bounds.refresh()?);
        Ok(bounds)
    }

    fn refresh(&mut self) -> Result<Known, Failure> {
        let at = Instant::now();
        let topics = self.topics()?;
        let lows = self.all(&topics, Mark::Low)?;
        let lows = lows.into_iter().map(|low| low.expect("only timestamps have no answer")).collect();
        Ok(Known { at, topics, lows })
    }

    fn topics(&mut self) -> Result<Vec<Topic>, Failure> {
        let names: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        self.asker.topics(&names, &|| false)
    }

    fn all(&mut self, topics: &[Topic], mark: Mark) -> Result<Vec<Option<u64>>, Failure> {
        let asked: Vec<_> =
            partitions(topics).map(|(topic, partition)| (topic.name.as_str(), partition, mark)).collect();
        self.asker.marks(&asked, &|| false)
    }

    fn measure(&mut self, known: &Known, first: bool) -> Result<Vec<PartitionBounds>, Failure> {
        let ends = self.all(&known.topics, Mark::Stable)?;
        let ends: Vec<u64> = ends.into_iter().map(|end| end.expect("only timestamps have no answer")).collect();
        let starts = match self.start {
            Start::Timestamp(ms) if first => {
                let found = self.all(&known.topics, Mark::Time(ms))?;
                found.into_iter().zip(&ends).map(|(found, end)| found.unwrap_or(*end).min(*end)).collect()
            }
            Start::Latest if first => ends.clone(),
            _ => known.lows.clone(),
        };
        if first && self.topics()?.iter().zip(&known.topics).any(|(now, then)| now.id != then.id) {
            return Err(Failure::transient(
                "a kafka topic was deleted and created again just now; its bounds are asked for again",
            ));
        }
        let bounds = partitions(&known.topics).zip(&known.lows).zip(ends.iter().zip(&starts));
        let bounds = bounds.map(|(((topic, partition), low), (end, start))| PartitionBounds {
            partition: format!("{}/{partition}", topic.name),
            incarnation: topic.id.clone(),
            low: *low,
            end: *end,
            start: *start.max(low),
            closed_at: None,
        });
        Ok(bounds.collect())
    }
}

impl Bounds for TopicBounds {
    fn poll(&mut self, _: Horizon, reached: &Reached<'_>) -> Result<Vec<PartitionBounds>, Failure> {
        let first = reached.is_first();
        // An error forgets what is known.
        let known = match self.known.take() {
            Some(known) if !first && known.at.elapsed() < REFRESH => known,
            _ => self.refresh()?,
        };
        let bounds = self.measure(&known, first)?;
        match shorter(&known, &bounds, reached) {
            Some(what) if self.short < SHORT_MAX => {
                self.short += 1;
                return Err(self.asker.client.away(&what, "the broker asked may lag behind the others; asked again"));
            }
            Some(_) => {}
            None => self.short = 0,
        }
        self.known = Some(known);
        Ok(bounds)
    }
}

/// What was planned before and is not there, of topics that are still the same.
fn shorter(known: &Known, bounds: &[PartitionBounds], reached: &Reached<'_>) -> Option<String> {
    let planned = |partition: &str, incarnation: &str| {
        reached.position(partition).filter(|position| position.incarnation == incarnation).map(|position| position.at)
    };
    let ends = bounds.iter().find_map(|bounds| {
        let at = planned(&bounds.partition, &bounds.incarnation).filter(|at| *at > bounds.end)?;
        Some(format!("say that {} reaches {at}, where it was read before, but {}", bounds.partition, bounds.end))
    });
    let gone = known.topics.iter().find_map(|topic| {
        let next = format!("{}/{}", topic.name, topic.partitions);
        planned(&next, &topic.id).map(|_| format!("know partition {next}, which was read before"))
    });
    ends.or(gone)
}

fn partitions(topics: &[Topic]) -> impl Iterator<Item = (&Topic, i32)> {
    topics.iter().flat_map(|topic| (0..topic.partitions).map(move |partition| (topic, partition)))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tine_core::failure::FailureKind;
    use tine_trident::{
        plan::{Position, Positions},
        source::SourceIndex,
    };

    use super::*;
    use crate::ask::Seen;

    /// Brokers with one topic, whose partitions and their end change from poll to poll.
    struct Brokers(VecDeque<(i32, u64)>);

    impl Questions for Brokers {
        fn describe(&mut self, names: &[&str], _: &dyn Fn() -> bool) -> Result<Vec<Option<Topic>>, Failure> {
            let partitions = self.0[0].0;
            let topic = |name: &&str| Some(Topic { name: name.to_string(), id: "id".into(), partitions });
            Ok(names.iter().map(topic).collect())
        }

        fn marks(&mut self, asked: &[(&str, i32, Mark)], _: &dyn Fn() -> bool) -> Result<Vec<Option<u64>>, Failure> {
            if asked[0].2 == Mark::Low {
                return Ok(vec![Some(0); asked.len()]);
            }
            let (_, end) = self.0[0];
            if self.0.len() > 1 {
                self.0.pop_front();
            }
            Ok(vec![Some(end); asked.len()])
        }

        fn away(&self, tried: &str, why: &str) -> Failure {
            Failure::transient(format!("{tried}: {why}"))
        }
    }

    /// What `polls` polls of a topic say whose two partitions were read up to 100 before: an end, or the kind of a failure.
    fn polled(states: &[(i32, u64)], polls: usize) -> Vec<Result<Vec<u64>, FailureKind>> {
        let position = |partition| {
            let position = Position { at: 100, incarnation: "id".into(), closed_at: None };
            ((SourceIndex(0), format!("lines/{partition}")), position)
        };
        let positions = Positions::from([position(0), position(1)]);
        let asker: Asker<dyn Questions> =
            Asker::new(Box::new(Brokers(states.iter().copied().collect())), Seen::default());
        let mut bounds = TopicBounds::open(asker, vec!["lines".into()], Start::Earliest).unwrap();
        bounds.known = None;
        let mut poll = || bounds.poll(Horizon::Endless, &Reached::new(SourceIndex(0), &positions));
        let ends = |bounds: Vec<PartitionBounds>| bounds.iter().map(|bounds| bounds.end).collect();
        (0..polls).map(|_| poll().map(ends).map_err(|failure| failure.kind)).collect()
    }

    #[test]
    fn one_answer_that_less_is_there_than_was_planned_proves_nothing() {
        let late = Err(FailureKind::Transient);
        assert_eq!(polled(&[(2, 90), (1, 120), (2, 120)], 3), [late.clone(), late, Ok(vec![120, 120])]);
    }

    #[test]
    fn k6_what_stays_short_is_told_to_the_coordinator() {
        let all = polled(&[(2, 90)], SHORT_MAX + 1);
        assert!(all[..SHORT_MAX].iter().all(|poll| *poll == Err(FailureKind::Transient)), "{all:?}");
        assert_eq!(all[SHORT_MAX], Ok(vec![90, 90]));
    }
}
