//! The jobs and their data: the same records, in the same order, whenever and wherever they are made.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Topics have as many unless told otherwise.
pub(crate) const PARTITIONS: i32 = 4;

const SEED: u64 = 0x7469_6e65;

const WORDS_PER_LINE: u64 = 10;

/// Bytes of a record of [`Job::Json`].
const JSON_BYTES: usize = 200;

/// What is made of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Records like `user-0008240`, counted whole.
    Values,
    /// Lines of ten words, counted by word.
    Words,
    /// The same lines: words counted, and the counts summed by first letter.
    Letters,
    /// [`Sale`]s: how many each user has, and their cents.
    Json,
    /// Records like `user-0008240 17`: how many each user has, and the last number of each partition.
    Live,
}

/// A record of [`Job::Json`]. Every system decodes all of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sale<'b> {
    pub(crate) user: &'b str,
    pub(crate) action: &'b str,
    pub(crate) cents: i64,
    pub(crate) country: &'b str,
    pub(crate) at_ms: u64,
    pub(crate) note: &'b str,
}

/// The second value column of a job, and how it is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Second {
    /// The sum.
    Sum(&'static str),
    /// The largest.
    Max(&'static str),
}

impl Second {
    pub(crate) fn column(self) -> &'static str {
        let (Second::Sum(column) | Second::Max(column)) = self;
        column
    }
}

impl Job {
    pub(crate) fn table(self) -> &'static str {
        match self {
            Job::Values => "value_counts",
            Job::Words => "word_counts",
            Job::Letters => "letter_counts",
            Job::Json => "sales",
            Job::Live => "live",
        }
    }

    pub(crate) fn key_column(self) -> &'static str {
        match self {
            Job::Values => "value",
            Job::Words => "word",
            Job::Letters => "letter",
            Job::Json => "user_name",
            Job::Live => "name",
        }
    }

    /// The value column beside the count, if there is one.
    pub(crate) fn second(self) -> Option<Second> {
        match self {
            Job::Values | Job::Words | Job::Letters => None,
            Job::Json => Some(Second::Sum("cents")),
            Job::Live => Some(Second::Max("seq")),
        }
    }

    /// What rates are counted in.
    pub(crate) fn unit(self) -> &'static str {
        if matches!(self, Job::Words | Job::Letters) { "words" } else { "records" }
    }

    fn data(self) -> &'static str {
        match self {
            Job::Values => "values",
            Job::Words | Job::Letters => "words",
            Job::Json => "json",
            Job::Live => "live",
        }
    }
}

/// A job at a size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) job: Job,
    /// Kafka records; lines for [`Job::Words`].
    pub(crate) records: u64,
    pub(crate) distinct: u32,
    /// Of the topic; records take turns.
    pub(crate) partitions: i32,
}

/// What the table must say in the end, counted while the records were made: the number of each key, and the second column.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// Ordered as Postgres orders `COLLATE "C"`: by bytes.
    pub(crate) rows: BTreeMap<String, [i64; 2]>,
    /// Sum of all counts.
    pub(crate) total: u64,
}

impl Expected {
    /// What [`Job::Letters`] makes of words.
    pub(crate) fn by_first_letter(&self) -> Expected {
        let mut rows = BTreeMap::<String, [i64; 2]>::new();
        for (word, [n, _]) in &self.rows {
            rows.entry(first_letter(word).to_owned()).or_default()[0] += n;
        }
        Expected { rows, total: self.total }
    }
}

/// The first letter of a word.
pub(crate) fn first_letter(word: &str) -> &str {
    word.get(..1).unwrap_or(word)
}

impl Workload {
    /// The job at the size of which results are quoted.
    pub(crate) fn full(job: Job) -> Self {
        let (records, distinct) = match job {
            Job::Values => (10_000_000, 100_000),
            Job::Words | Job::Letters => (2_000_000, 50_000),
            Job::Json => (2_000_000, 100_000),
            Job::Live => (1_000_000, 10_000),
        };
        Self { job, records, distinct, partitions: PARTITIONS }
    }

    /// `scale` times as many records; below 1 also as many keys.
    pub(crate) fn scaled(self, scale: f64) -> Self {
        let scaled = |full: f64, scale: f64, least: f64| (full * scale).round().max(least);
        // `as` saturates, and both are far from the ends.
        let records = scaled(self.records as f64, scale, 1000.0) as u64;
        Self { records, distinct: scaled(f64::from(self.distinct), scale.min(1.0), 100.0) as u32, ..self }
    }

    /// Says everything that decides the content, so that an existing topic of this name and size can be used again.
    pub(crate) fn topic(&self) -> String {
        let name = format!("tine-bench-{}-{}-{}", self.job.data(), self.records, self.distinct);
        if self.partitions == PARTITIONS { name } else { format!("{name}-in-{}", self.partitions) }
    }

    /// The most records one commit may hold: a run of fewer than five commits says nothing about committing, and a fast
    /// one would have fewer by age alone.
    pub(crate) fn commit_records(&self) -> u64 {
        self.records.div_ceil(6)
    }

    /// How many records lie in `partition`.
    pub(crate) fn records_in(&self, partition: i32) -> u64 {
        let (partition, partitions) = (u64::from(partition.unsigned_abs()), u64::from(self.partitions.unsigned_abs()));
        self.records / partitions + u64::from(partition < self.records % partitions)
    }

    /// Makes every record, in order, and counts what it makes.
    pub(crate) fn generate(&self, mut each: impl FnMut(i32, &[u8]) -> Result<()>) -> Result<Expected> {
        let mut random = Random(SEED);
        let keys = self.shuffled_keys(&mut random);
        let zipf = Zipf::new(self.distinct);
        let mut rows = vec![[0; 2]; keys.len()];
        let mut record = Vec::new();
        for (number, partition) in (0..self.records).zip((0..self.partitions).cycle()) {
            record.clear();
            for word in 0..self.keys_per_record() {
                if word > 0 {
                    record.push(b' ');
                }
                let rank = zipf.draw(&mut random);
                rows[rank][0] += 1;
                match self.job {
                    Job::Json => rows[rank][1] += sale(&keys[rank], number, &mut random, &mut record)?,
                    _ => record.extend_from_slice(keys[rank].as_bytes()),
                }
            }
            each(partition, &record)?;
        }
        let total = self.records * self.keys_per_record();
        Ok(Expected { rows: keys.into_iter().zip(rows).filter(|(_, [n, _])| *n > 0).collect(), total })
    }

    fn keys_per_record(&self) -> u64 {
        match self.job {
            Job::Words | Job::Letters => WORDS_PER_LINE,
            _ => 1,
        }
    }

    /// By rank; shuffled, so that frequent keys are not neighbours in the index.
    fn shuffled_keys(&self, random: &mut Random) -> Vec<String> {
        let mut keys: Vec<String> = (0..self.distinct)
            .map(|id| match self.job {
                Job::Words | Job::Letters => word(id),
                _ => format!("user-{id:07}"),
            })
            .collect();
        for last in (1..keys.len()).rev() {
            let other = random.below(last as u32 + 1) as usize;
            keys.swap(last, other);
        }
        keys
    }
}

/// Writes a sale of [`JSON_BYTES`]; its cents.
fn sale(user: &str, number: u64, random: &mut Random, record: &mut Vec<u8>) -> Result<i64> {
    const NOTE: &str = "the quick brown fox jumps over the lazy dog and then rests for a while in the shade of a tree that \
                        has stood there for longer than anyone can remember, while the dog looks on";
    let pick = |random: &mut Random, from: &[&'static str]| from[random.below(from.len() as u32) as usize];
    let mut sale = Sale {
        user,
        action: pick(random, &["view", "cart", "purchase", "return"]),
        cents: i64::from(random.below(100_000)) - 10_000,
        country: pick(random, &["de", "fr", "jp", "us", "br", "in"]),
        at_ms: 1_790_000_000_000 + number,
        note: "",
    };
    let start = record.len();
    serde_json::to_writer(&mut *record, &sale)?;
    sale.note = &NOTE[..(JSON_BYTES + start).saturating_sub(record.len()).min(NOTE.len())];
    record.truncate(start);
    serde_json::to_writer(&mut *record, &sale)?;
    Ok(sale.cents)
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
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform below `bound`, from the upper half of one draw; the bias is below 2^-32 * bound.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
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
        let workload = Workload::full(Job::Words).scaled(0.001);
        let (mut first, mut recount) = (Vec::new(), BTreeMap::<String, [i64; 2]>::new());
        let expected = workload
            .generate(|partition, record| {
                for word in std::str::from_utf8(record)?.split(' ') {
                    recount.entry(word.to_owned()).or_default()[0] += 1;
                }
                first.push((partition, record.to_vec()));
                Ok(())
            })
            .unwrap();
        assert_eq!(expected.rows, recount);
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
    fn a_sale_has_200_bytes_and_six_fields_that_are_summed() {
        let workload = Workload::full(Job::Json).scaled(0.0005);
        let (mut cents, mut lengths) = (0, Vec::new());
        let expected = workload
            .generate(|_, record| {
                cents += serde_json::from_slice::<Sale<'_>>(record)?.cents;
                lengths.push(record.len());
                Ok(())
            })
            .unwrap();
        assert_eq!(cents, expected.rows.values().map(|[_, cents]| cents).sum::<i64>());
        assert!(lengths.iter().all(|length| *length == JSON_BYTES), "{lengths:?}");
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
