//! `pipeline`: instructions per record of the fused pipeline, against the same loop by hand, without any service.
//!
//! A child runs one of the two over records that lie in memory, under valgrind's callgrind; a second one over twice as
//! many, so that start-up cancels out. Instructions do not depend on what else the machine does.

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use tine::core::failure::Failure;
use tine::state::{Database, GroupSpec, Lock, Session, Table as StateTable};
use tine::trident::pipeline::Built;
use tine::trident::source::Record;
use tine::{Topology, files};

use crate::goal::{Bound, Goal};
use crate::report::{self, Table, say};
use crate::side::{self, Task};
use crate::spread::Spread;
use crate::workload::{Job, Sale, Workload};

/// What it compares, for `list` and `--help`.
pub(crate) const ABOUT: &str = "instructions per record of the fused pipeline, against the same loop by hand";

/// Records lent at once, as Kafka's reader does.
const CHUNK: usize = 512;

tine::lend!(Sale as Sales);

/// Flags of this benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// JSON objects on standard output instead of a table, one a line.
    #[arg(long)]
    json: bool,
    /// Records measured; as many more are run to leave start-up and the first rows out.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1000..))]
    records: u64,
    /// How many distinct keys.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..))]
    distinct: u32,
}

/// What a child is told: run the records so often, by hand or fused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Assignment {
    job: Job,
    records: u64,
    distinct: u32,
    rounds: u32,
    by_hand: bool,
}

/// One line of `--json`.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    job: &'static str,
    records: u64,
    hand_instructions: f64,
    tine_instructions: f64,
    ratio: f64,
}

/// After `Ok` both counted the same.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut goals = Vec::new();
    let mut table = Table::with_head(&["rows", "by hand", "tine", "ratio"]);
    for (name, job) in [("values", Job::Values), ("words", Job::Words), ("json", Job::Json)] {
        let per_record = |by_hand| {
            let assignment =
                |rounds| Assignment { job, records: options.records, distinct: options.distinct, rounds, by_hand };
            let (once, twice) = (instructions(&assignment(1))?, instructions(&assignment(2))?);
            ensure!(once.said == twice.said, "the rounds counted {} and {}", once.said, twice.said);
            anyhow::Ok((once.said, (twice.count - once.count) as f64 / options.records as f64))
        };
        let ((said_by_hand, hand), (said_by_tine, tine)) = (per_record(true)?, per_record(false)?);
        ensure!(said_by_hand == said_by_tine, "{name}: by hand {said_by_hand}, tine {said_by_tine}");
        say(format_args!("pipeline: {name} {hand:.0} {tine:.0}, the same rows ({said_by_tine})"));
        let line = Line {
            name: "pipeline",
            job: name,
            records: options.records,
            hand_instructions: hand,
            tine_instructions: tine,
            ratio: tine / hand,
        };
        if options.json {
            report::print_json(&line)?;
        }
        let goal = format!("{name}, instructions to those by hand");
        goals.push(Goal::new("pipeline", goal, Bound::AtMost(1.3), Spread::of([line.ratio])));
        table.row(vec![name.to_owned(), format!("{hand:.0}"), format!("{tine:.0}"), format!("{:.2}", line.ratio)]);
    }
    if !options.json {
        print(options, &table)?;
    }
    goals.iter().try_for_each(|goal| goal.print(options.json))
}

fn print(options: &Options, table: &Table) -> Result<()> {
    report::print(format_args!(
        "\npipeline: instructions per record, {} records of {} keys in chunks of {CHUNK}; decode, operators, aggregation",
        options.records, options.distinct
    ))?;
    table.print()
}

struct Counted {
    count: u64,
    said: String,
}

/// Runs a child under callgrind.
fn instructions(assignment: &Assignment) -> Result<Counted> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .arg(side::SUBCOMMAND)
        .arg(serde_json::to_string(&Task::Loop(assignment.clone()))?)
        .stdin(std::process::Stdio::null())
        .output()
        .context("cannot start valgrind: apt-get install valgrind")?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("valgrind ended with {}: {err}", output.status);
    }
    let said = out.lines().find_map(|line| line.strip_prefix(side::FINISHED));
    let count = err.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    let (said, count) = said.zip(count).with_context(|| format!("callgrind's output is not understood: {err}"))?;
    Ok(Counted { count, said: said.trim().to_owned() })
}

/// The child: the number of distinct keys, and their sums, as far as a round counts.
pub(crate) fn work(assignment: &Assignment) -> Result<String> {
    let Assignment { job, records, distinct, rounds, by_hand } = *assignment;
    let values = values(Workload { records, distinct, ..Workload::full(job) })?;
    let records = as_records(&values);
    let distinct = if by_hand { loop_by_hand(job, &records, rounds)? } else { loop_of_tine(job, &records, rounds)? };
    Ok(format!("{distinct} keys"))
}

fn values(workload: Workload) -> Result<Vec<Vec<u8>>> {
    let mut values = Vec::new();
    workload.generate(|_, record| {
        values.push(record.to_vec());
        Ok(())
    })?;
    Ok(values)
}

fn as_records(values: &[Vec<u8>]) -> Vec<Record<'_>> {
    let record = |(position, value)| Record {
        position,
        timestamp_ms: -1,
        key: None,
        value: Some(Vec::as_slice(value)),
        headers: &[],
    };
    (0..).zip(values).map(record).collect()
}

/// Both loops keep their table from round to round: what a key costs when it is new is not looked at here.
fn loop_by_hand(job: Job, records: &[Record<'_>], rounds: u32) -> Result<usize> {
    let mut counts: HashMap<String, [i64; 2], RandomState> = HashMap::default();
    for _ in 0..rounds {
        for record in records {
            let value = record.value.unwrap_or_default();
            match job {
                Job::Json => {
                    let sale: Sale<'_> = serde_json::from_slice(value)?;
                    let [n, cents] = counts.entry_ref(sale.user).or_insert([0; 2]);
                    *n += 1;
                    *cents = cents.checked_add(sale.cents).context("the sum does not fit")?;
                }
                Job::Words => std::str::from_utf8(value)?
                    .split_ascii_whitespace()
                    .for_each(|word| counts.entry_ref(word).or_insert([0; 2])[0] += 1),
                _ => counts.entry_ref(std::str::from_utf8(value)?).or_insert([0; 2])[0] += 1,
            }
        }
        black_box(&counts);
    }
    Ok(counts.len())
}

fn loop_of_tine(job: Job, records: &[Record<'_>], rounds: u32) -> Result<usize> {
    let built = topology(job)?;
    let source = built.sources.first().ok_or_else(|| anyhow!("a topology without a source"))?;
    let mut pipeline = (source.pipeline)();
    for _ in 0..rounds {
        for chunk in records.chunks(CHUNK) {
            pipeline.records("p", chunk)?;
        }
    }
    let parts = pipeline.finish()?.rows.into_iter().map(|(_, rows)| rows).collect();
    Ok(built.folds[0].fold(parts)?.rows.len())
}

fn topology(job: Job) -> Result<Built> {
    let topology = Topology::new("bench");
    let table = StateTable::new(Arc::new(Nowhere), job.table()).key(job.key_column()).value("n");
    match job {
        Job::Json => topology
            .source(files(["a"]).json::<Sales>())
            .stage(|sales| {
                let by_user = sales.group_by(|sale| sale.user);
                by_user.aggregate(|sales| (sales.count(), sales.sum(|sale| sale.cents)))
            })
            .persist(table.value("cents")),
        Job::Words => topology
            .source(files(["a"]).text())
            .stage(|lines| lines.flat_map(|line| line.split_ascii_whitespace()).group_by(|word| word).count())
            .persist(table),
        _ => topology.source(files(["a"]).text()).stage(|values| values.group_by(|value| value).count()).persist(table),
    };
    Ok(topology.build()?)
}

/// A database that nothing is asked of.
struct Nowhere;

#[async_trait::async_trait]
impl Database for Nowhere {
    fn describe(&self) -> String {
        "nowhere".into()
    }
    async fn create(&self, _: &GroupSpec) -> Result<(), Failure> {
        Ok(())
    }
    async fn session(&self, _: &GroupSpec) -> Result<Box<dyn Session>, Failure> {
        Err(Failure::fatal("nowhere"))
    }
    async fn try_lock(&self, _: &str) -> Result<Option<Box<dyn Lock>>, Failure> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocations;

    /// More than this for a chunk would be one for every eighth record.
    const ALLOCATIONS_MAX: u64 = CHUNK as u64 / 8;

    #[test]
    fn rows_allocate_per_chunk_and_not_per_record() {
        for job in [Job::Values, Job::Words, Job::Json] {
            let values = values(Workload { records: 2 * CHUNK as u64, distinct: 100, ..Workload::full(job) }).unwrap();
            let built = topology(job).unwrap();
            let mut pipeline = (built.sources[0].pipeline)();
            pipeline.records("p", &as_records(&values)).unwrap();
            let again = as_records(&values[..CHUNK]);
            let count = allocations::count(|| pipeline.records("p", &again).unwrap());
            assert!(count < ALLOCATIONS_MAX, "{job:?}: {count} allocations for {CHUNK} records with known keys");
        }
    }
}
