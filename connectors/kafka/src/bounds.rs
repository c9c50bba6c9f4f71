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
}

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
        let mut bounds = TopicBounds { asker, topics, start, known: None };
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
        self.known = Some(known);
        Ok(bounds)
    }
}

fn partitions(topics: &[Topic]) -> impl Iterator<Item = (&Topic, i32)> {
    topics.iter().flat_map(|topic| (0..topic.partitions).map(move |partition| (topic, partition)))
}
