//! A source in memory with Kafka's odd habits: positions with gaps, a stable end, short polls, growth, retention.
//!
//! Gaps (control records, compaction) and short polls are always on: they are not faults, they are Kafka.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tine_core::{
    failure::Failure,
    hash::hash64,
    mutant::{self, Mutant},
};
use tine_trident::source::{Bounds, Horizon, PartitionBounds, PartitionRange, Reached, Reader, Record, Sink, Source};

use crate::random::Draws;

/// A record before it has a place: its key, if it has one, and its value.
pub(crate) type Keyed = (Option<Arc<str>>, Arc<str>);

/// A record as it lies in a partition.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) position: u64,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) value: Arc<str>,
}

/// One partition.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub(crate) name: String,
    pub(crate) incarnation: String,
    /// Whether it is there yet.
    pub(crate) exists: bool,
    pub(crate) low: u64,
    /// Everything below it is stable.
    pub(crate) end: u64,
    pub(crate) records: Arc<[Stored]>,
    /// The end after each step of growth.
    pub(crate) ends: Vec<u64>,
}

/// What a source holds.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) partitions: Vec<Partition>,
    /// How many records a poll brings at most, drawn anew for each poll.
    polls: Draws,
    /// Faults: nobody answers; polls are short. And whether that was felt.
    down: bool,
    short: bool,
    suffered: bool,
}

/// A handle on a log, for the topology and for the simulator alike.
#[derive(Clone, Debug)]
pub(crate) struct SimSource {
    log: Arc<Mutex<Log>>,
    name: String,
}

impl SimSource {
    /// Spreads `records` over partitions and steps of growth. One more partition than asked for waits to be added. Records
    /// of one key lie in one partition.
    pub(crate) fn new(name: &str, records: Vec<Keyed>, partitions: usize, steps: usize, seed: u64) -> SimSource {
        let mut draws = Draws::new(seed, 0x50_0000);
        let mut all: Vec<Building> = (0..=partitions.max(1)).map(|_| Building::default()).collect();
        let length = records.len().max(1);
        for (index, (key, value)) in records.into_iter().enumerate() {
            let step = index * steps / length;
            let late = draws.chance(8);
            let chosen = match &key {
                Some(key) => usize::try_from(hash64(key.as_bytes()) % partitions.max(1) as u64).unwrap_or(0),
                None if late => partitions.max(1),
                None => draws.below(partitions.max(1) as u64) as usize,
            };
            all[chosen].add((key, value), step, &mut draws);
        }
        let count = all.len();
        let partitions = all.into_iter().enumerate().map(|(index, building)| Partition {
            name: format!("{name}/{index}"),
            incarnation: format!("{name}-1"),
            exists: index + 1 < count,
            low: 0,
            end: 0,
            ends: building.ends(steps),
            records: building.records.into(),
        });
        let polls = Draws::new(seed, 0x50_0001);
        let log = Log { partitions: partitions.collect(), polls, down: false, short: false, suffered: false };
        SimSource { log: Arc::new(Mutex::new(log)), name: name.to_owned() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it never holds a record, whatever its partitions.
    pub(crate) fn is_empty(&self) -> bool {
        self.log().partitions.iter().all(|partition| partition.records.is_empty())
    }

    /// This source without its partitions.
    #[cfg(feature = "fakes")]
    pub(crate) fn emptied(self) -> SimSource {
        self.log().partitions.clear();
        self
    }

    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Faults begin or end.
    pub(crate) fn suffer(&self, down: bool, short: bool) {
        let mut log = self.log();
        (log.down, log.short, log.suffered) = (down, short, false);
    }

    /// Whether somebody has met a fault since the last look.
    pub(crate) fn has_suffered(&self) -> bool {
        std::mem::take(&mut self.log().suffered)
    }

    /// Everything up to and including a step is there now.
    pub(crate) fn grow(&self, step: usize) {
        for partition in &mut self.log().partitions {
            if let Some(end) = partition.ends.get(step) {
                partition.end = partition.end.max(*end);
            }
        }
    }
}

#[derive(Default)]
struct Building {
    next: u64,
    records: Vec<Stored>,
    marks: Vec<(usize, u64)>,
}

impl Building {
    fn add(&mut self, (key, value): Keyed, step: usize, draws: &mut Draws) {
        // A gap before: an aborted transaction's records, or compaction.
        self.next += if draws.chance(20) { draws.between(1, 4) } else { 0 };
        self.records.push(Stored { position: self.next, key, value });
        self.next += 1;
        // A control record after: the end lies beyond the last record.
        self.next += u64::from(draws.chance(15));
        self.marks.push((step, self.next));
    }

    fn ends(&self, steps: usize) -> Vec<u64> {
        let end_at = |step| self.marks.iter().take_while(|(at, _)| *at <= step).last().map_or(0, |(_, end)| *end);
        (0..steps).map(end_at).collect()
    }
}

impl Source for SimSource {
    fn describe(&self) -> String {
        format!("simulated {}", self.name)
    }

    fn bounds(&self) -> Result<Box<dyn Bounds>, Failure> {
        Ok(Box::new(self.clone()))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, Failure> {
        Ok(Box::new(self.clone()))
    }
}

impl Bounds for SimSource {
    fn poll(&mut self, _: Horizon, _: &Reached<'_>) -> Result<Vec<PartitionBounds>, Failure> {
        let mut log = self.log();
        log.answers()?;
        let present = log.partitions.iter().filter(|partition| partition.exists);
        let bounds = present.map(|partition| PartitionBounds {
            partition: partition.name.clone(),
            incarnation: partition.incarnation.clone(),
            low: partition.low,
            end: partition.end,
            start: partition.low,
            closed_at: None,
        });
        Ok(bounds.collect())
    }
}

impl Reader for SimSource {
    fn read(&mut self, range: &PartitionRange, sink: &mut dyn Sink) -> Result<(), Failure> {
        let mut position = range.from;
        loop {
            let (records, wanted) = {
                let mut log = self.log();
                log.answers()?;
                let wanted = log.poll();
                (log.check(range)?, wanted)
            };
            let from = records.partition_point(|record| record.position < position);
            let to = records.partition_point(|record| record.position < range.to);
            let chunk = &records[from..to.min(from + wanted)];
            if chunk.is_empty() && from < to {
                // A short poll: nothing came, and yet there is more.
                if mutant::on(Mutant::ShortReadAccepted) {
                    return Ok(());
                }
                continue;
            }
            let lent: Vec<Record<'_>> = chunk.iter().map(lend).collect();
            if !lent.is_empty() {
                sink.records(&lent)?;
            }
            match chunk.last() {
                Some(last) if from + chunk.len() < to => position = last.position + 1,
                _ => break,
            }
        }
        // The position has reached the end; it counts only if this is still the planned partition.
        self.log().check(range).map(drop)
    }
}

impl Log {
    fn answers(&mut self) -> Result<(), Failure> {
        self.suffered |= self.down;
        match self.down {
            true => Err(Failure::transient("the broker does not answer")),
            false => Ok(()),
        }
    }

    /// How many records a poll brings at most.
    fn poll(&mut self) -> usize {
        self.suffered |= self.short;
        let most = if self.short { 2 } else { 6 };
        self.polls.below(most) as usize
    }

    /// The records of a planned partition, if it is still the one that was planned.
    fn check(&self, range: &PartitionRange) -> Result<Arc<[Stored]>, Failure> {
        let PartitionRange { partition: name, from, to, .. } = range;
        if from > to {
            return Err(Failure::fatal(format!("{name} {from}..{to} is not a range")));
        }
        let found = self.partitions.iter().find(|partition| partition.name == *name && partition.exists);
        // That proves nothing: whoever is asked may lag.
        let partition = found.ok_or_else(|| Failure::transient(format!("partition {name} is not known here")))?;
        if partition.incarnation != range.incarnation && !mutant::on(Mutant::RecreatedTopicReadOn) {
            return Err(Failure::fatal(format!("{name} {from}..{to}: the topic was deleted and made again")));
        }
        let gone = |what: String| Failure::fatal(format!("records are gone: {name} {from}..{to}: {what}"));
        if *from < partition.low && from < to {
            return Err(gone(format!("retention deleted those below {} before they were read", partition.low)));
        }
        if *to > partition.end && from < to {
            return Err(gone(format!("the partition ends at {}", partition.end)));
        }
        Ok(partition.records.clone())
    }
}

fn lend(stored: &Stored) -> Record<'_> {
    Record {
        position: stored.position,
        timestamp_ms: -1,
        key: stored.key.as_deref().map(str::as_bytes),
        value: Some(stored.value.as_bytes()),
        headers: &[],
    }
}
