//! The two jobs and their data: the same records, in the same order, whenever and wherever they are made.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Both topics have as many.
pub(crate) const PARTITIONS: i32 = 4;

const SEED: u64 = 0x7469_6e65;

const WORDS_PER_LINE: u64 = 10;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Job {
    /// K: 10 M records like `user-0008240`, 100,000 distinct; whole values are counted.
    Values,
    /// L: 2 M lines of 10 words, 50,000 distinct; words are counted.
    Words,
}

impl Job {
    pub(crate) fn table(self) -> &'static str {
        match self {
            Job::Values => "value_counts",
            Job::Words => "word_counts",
        }
    }

    pub(crate) fn key_column(self) -> &'static str {
        match self {
            Job::Values => "value",
            Job::Words => "word",
        }
    }

    /// What rates are counted in.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Job::Values => "records",
            Job::Words => "words",
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Job::Values => "values",
            Job::Words => "words",
        })
    }
}

/// A job at a scale.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) job: Job,
    /// Kafka records; lines for [`Job::Words`].
    pub(crate) records: u64,
    pub(crate) distinct: u32,
}

/// What the table must say in the end, counted while the records were made.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// Ordered as Postgres orders `COLLATE "C"`: by bytes.
    pub(crate) counts: BTreeMap<String, i64>,
    /// Sum of all counts.
    pub(crate) total: u64,
}

impl Workload {
    /// `scale` 1 is the full size; a larger one has more records of the same keys.
    pub(crate) fn new(job: Job, scale: f64) -> Self {
        let (records, distinct) = match job {
            Job::Values => (10_000_000.0, 100_000.0),
            Job::Words => (2_000_000.0, 50_000.0),
        };
        let scaled = |full: f64, scale: f64, least: f64| (full * scale).round().max(least);
        // `as` saturates, and both are far from the ends.
        Self {
            job,
            records: scaled(records, scale, 1000.0) as u64,
            distinct: scaled(distinct, scale.min(1.0), 100.0) as u32,
        }
    }

    /// Says everything that decides the content, so that an existing topic of this name and size can be used again.
    pub(crate) fn topic(&self) -> String {
        format!("tine-bench-{}-{}-{}", self.job, self.records, self.distinct)
    }

    /// The most records one commit may hold: a run of fewer than five commits says nothing about committing, and a fast
    /// one would have fewer by age alone.
    pub(crate) fn commit_records(&self) -> u64 {
        self.records.div_ceil(6)
    }

    /// How many records lie in `partition`.
    pub(crate) fn records_in(&self, partition: i32) -> u64 {
        let (partition, partitions) = (u64::from(partition.unsigned_abs()), u64::from(PARTITIONS.unsigned_abs()));
        self.records / partitions + u64::from(partition < self.records % partitions)
    }

    /// Makes every record, in order, and counts what it makes.
    pub(crate) fn generate(&self, mut each: impl FnMut(i32, &[u8]) -> Result<()>) -> Result<Expected> {
        let mut random = Random(SEED);
        let keys = self.shuffled_keys(&mut random);
        let zipf = Zipf::new(self.distinct);
        let mut counts = vec![0; keys.len()];
        let mut record = Vec::new();
        for (_, partition) in (0..self.records).zip((0..PARTITIONS).cycle()) {
            record.clear();
            for word in 0..self.keys_per_record() {
                if word > 0 {
                    record.push(b' ');
                }
                let rank = zipf.draw(&mut random);
                counts[rank] += 1;
                record.extend_from_slice(keys[rank].as_bytes());
            }
            each(partition, &record)?;
        }
        let total = self.records * self.keys_per_record();
        Ok(Expected { counts: keys.into_iter().zip(counts).filter(|(_, n)| *n > 0).collect(), total })
    }

    fn keys_per_record(&self) -> u64 {
        match self.job {
            Job::Values => 1,
            Job::Words => WORDS_PER_LINE,
        }
    }

    /// By rank; shuffled, so that frequent keys are not neighbours in the index.
    fn shuffled_keys(&self, random: &mut Random) -> Vec<String> {
        let mut keys: Vec<String> = (0..self.distinct)
            .map(|id| match self.job {
                Job::Values => format!("user-{id:07}"),
                Job::Words => word(id),
            })
            .collect();
        for last in (1..keys.len()).rev() {
            let other = random.below(last as u32 + 1) as usize;
            keys.swap(last, other);
        }
        keys
    }
}

/// A pronounceable word for each number: two letters for each digit to the base 100, without leading zeros.
fn word(id: u32) -> String {
    let mut syllables = Vec::new();
    let mut rest = id + 1;
    while rest > 0 {
        let digit = (rest - 1) % 100;
        rest = (rest - 1) / 100;
        syllables.push([b"bcdfghjklmnpqrstvwxz"[(digit / 5) as usize], b"aeiou"[(digit % 5) as usize]]);
    }
    syllables.into_iter().rev().flatten().map(char::from).collect()
}

/// SplitMix64: three lines that no version of a crate can change.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform below `bound`, from the upper half of one draw; the bias is below 2^-32 * bound.
    fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }
}

/// Zipf's law with exponent 1 in constant time per draw (Walker's alias method).
struct Zipf {
    /// For each column: how much of it is its own rank, in 2^-32, and whose the rest is.
    columns: Vec<(u32, u32)>,
}

impl Zipf {
    fn new(ranks: u32) -> Self {
        let harmonic: f64 = (1..=ranks).map(|rank| 1.0 / f64::from(rank)).sum();
        let mut weight: Vec<f64> = (1..=ranks).map(|rank| f64::from(ranks) / (f64::from(rank) * harmonic)).collect();
        let mut columns: Vec<(u32, u32)> = (0..ranks).map(|rank| (u32::MAX, rank)).collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) = (0..ranks).partition(|rank| weight[*rank as usize] < 1.0);
        while let (Some(under), Some(over)) = (small.pop(), large.last().copied()) {
            let own = weight[under as usize];
            columns[under as usize] = ((own * f64::from(u32::MAX)) as u32, over);
            weight[over as usize] -= 1.0 - own;
            if weight[over as usize] < 1.0 {
                large.pop();
                small.push(over);
            }
        }
        Self { columns }
    }

    /// 0 is the most frequent rank.
    fn draw(&self, random: &mut Random) -> usize {
        let column = random.below(self.columns.len() as u32);
        let (own, other) = self.columns[column as usize];
        if (random.next() >> 32) as u32 <= own { column as usize } else { other as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_records_come_every_time_and_the_counts_are_theirs() {
        let workload = Workload::new(Job::Words, 0.001);
        let (mut first, mut recount) = (Vec::new(), BTreeMap::<String, i64>::new());
        let expected = workload
            .generate(|partition, record| {
                for word in std::str::from_utf8(record)?.split(' ') {
                    *recount.entry(word.to_owned()).or_default() += 1;
                }
                first.push((partition, record.to_vec()));
                Ok(())
            })
            .unwrap();
        assert_eq!(expected.counts, recount);
        assert_eq!((first.len() as u64, expected.total), (2000, 20_000));
        let mut again = Vec::new();
        workload
            .generate(|partition, record| {
                again.push((partition, record.to_vec()));
                Ok(())
            })
            .unwrap();
        assert_eq!(first, again);
        for partition in 0..PARTITIONS {
            assert_eq!(first.iter().filter(|(at, _)| *at == partition).count() as u64, workload.records_in(partition));
        }
    }

    #[test]
    fn ranks_follow_zipf() {
        let (zipf, mut random, mut counts) = (Zipf::new(1000), Random(1), vec![0_u32; 1000]);
        for _ in 0..1_000_000 {
            counts[zipf.draw(&mut random)] += 1;
        }
        let harmonic: f64 = (1..=1000).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1, 2, 10, 100] {
            let expected = 1e6 / (f64::from(rank) * harmonic);
            let seen = f64::from(counts[rank as usize - 1]);
            assert!((seen - expected).abs() < 5.0 * expected.sqrt(), "rank {rank}: {seen}, expected {expected}");
        }
    }

    #[test]
    fn words_are_distinct() {
        let words: std::collections::HashSet<String> = (0..50_000).map(word).collect();
        assert_eq!(words.len(), 50_000);
        assert_eq!((word(0).as_str(), word(100).as_str()), ("ba", "baba"));
    }
}
