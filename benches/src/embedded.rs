//! `embedded`: words of files counted into a SQLite file, tine against a loop written by hand.
//!
//! The loop commits as often as tine did in the run before it, so that both wait for the disk as often: tine's bytes per
//! transaction are fixed here, and the loop is told how many transactions that made.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use rusqlite::{Connection, Transaction, params};
use serde::{Deserialize, Serialize};
use tine::{Options as Run, Shutdown, Sqlite, Topology, files};

use crate::contest::watched;
use crate::goal::{Bound, Goal};
use crate::procfs;
use crate::report::{self, Reporting, Table, say};
use crate::side::Task;
use crate::spread::Spread;
use crate::workload::{Expected, Job, PARTITIONS, Workload};

/// What it compares, for `list` and `--help`.
pub(crate) const ABOUT: &str = "words of files into SQLite, tine against a loop with rusqlite and as many commits";

/// Flags of this benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    reporting: Reporting,
    /// Multiplies the number of lines (2 million of 10 words); below 1 also the number of words.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// The most bytes of the files in one transaction.
    #[arg(long, value_name = "N", default_value_t = 16 << 20, value_parser = clap::value_parser!(u64).range(1024..))]
    commit_bytes: u64,
    /// Where the files and databases go; in a folder of their own that is removed. By default the temporary folder, which
    /// must lie on a disk for commits to mean something.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// What a child is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Assignment {
    paths: Vec<PathBuf>,
    database: PathBuf,
    /// Bytes in one transaction at most.
    commit_bytes: u64,
    by_hand: bool,
}

/// What one run showed.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    words_per_s: f64,
    cpu_us: f64,
    rss_mb: f64,
    commits: u64,
}

/// One line of `--json`.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    system: &'static str,
    words: u64,
    runs: usize,
    exact: bool,
    words_per_s: Option<Spread>,
    cpu_us_per_word: Option<Spread>,
    rss_mb: Option<Spread>,
    commits: Option<Spread>,
    /// To the loop by hand.
    ratio: Option<Spread>,
    cpu_ratio: Option<Spread>,
}

/// A folder that is removed when this is dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is in the temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// After `Ok` every run was exact.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let base = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = Folder(base.join(format!("tine-bench-embedded-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).with_context(|| format!("cannot create {}", folder.0.display()))?;
    let workload = Workload::full(Job::Words).scaled(options.scale);
    let (paths, expected) = write_files(&folder.0, &workload)?;
    let bytes = paths.iter().map(|path| Ok(path.metadata()?.len())).sum::<Result<u64>>()?;
    let (mut tine, mut hand) = (Vec::new(), Vec::new());
    for run in 1..=options.reporting.runs {
        let assignment = Assignment {
            paths: paths.clone(),
            database: folder.0.join(format!("tine-{run}.db")),
            commit_bytes: options.commit_bytes,
            by_hand: false,
        };
        tine.push(one(&assignment, &expected).await?);
        let assignment = Assignment {
            database: folder.0.join(format!("hand-{run}.db")),
            commit_bytes: bytes.div_ceil(tine[tine.len() - 1].commits.max(1)),
            by_hand: true,
            ..assignment
        };
        hand.push(one(&assignment, &expected).await?);
        for (system, outcome) in [("tine", tine[tine.len() - 1]), ("hand", hand[hand.len() - 1])] {
            say(format_args!(
                "embedded run {run}/{}: {system} {:>10.0} words/s  {:.3} us/word  {} commits  exact",
                options.reporting.runs, outcome.words_per_s, outcome.cpu_us, outcome.commits
            ));
        }
    }
    print(options, &expected, &hand, &tine)
}

fn print(options: &Options, expected: &Expected, hand: &[Outcome], tine: &[Outcome]) -> Result<()> {
    if !options.reporting.json {
        report::print(format_args!(
            "\nembedded: {} words, {} distinct, in {PARTITIONS} files; SQLite with WAL and synchronous=FULL; median (min-max)",
            expected.total,
            expected.rows.len()
        ))?;
    }
    let mut table =
        Table::with_head(&["system", "words/s", "cpu us", "RSS MB", "commits", "exact", "rate to hand", "cpu to hand"]);
    for (system, outcomes) in [("hand", hand), ("tine", tine)] {
        let spread = |figure: fn(&Outcome) -> f64| Spread::of(outcomes.iter().map(figure));
        let ratio = |figure: fn(&Outcome) -> f64| {
            Spread::of(outcomes.iter().zip(hand).map(|(own, hand)| figure(own) / figure(hand)))
        };
        let line = Line {
            name: "embedded",
            system,
            words: expected.total,
            runs: outcomes.len(),
            exact: true,
            words_per_s: spread(|outcome| outcome.words_per_s),
            cpu_us_per_word: spread(|outcome| outcome.cpu_us),
            rss_mb: spread(|outcome| outcome.rss_mb),
            commits: spread(|outcome| outcome.commits as f64),
            ratio: ratio(|outcome| outcome.words_per_s),
            cpu_ratio: ratio(|outcome| outcome.cpu_us),
        };
        if options.reporting.json {
            report::print_json(&line)?;
            continue;
        }
        table.row(vec![
            system.to_owned(),
            Spread::show(line.words_per_s, 0),
            Spread::show(line.cpu_us_per_word, 3),
            Spread::show(line.rss_mb, 0),
            Spread::show(line.commits, 0),
            "true".to_owned(),
            Spread::show(line.ratio, 2),
            Spread::show(line.cpu_ratio, 2),
        ]);
    }
    if !options.reporting.json {
        table.print()?;
    }
    let rate = Spread::of(tine.iter().zip(hand).map(|(own, hand)| own.words_per_s / hand.words_per_s));
    Goal::new("embedded", "tine, rate to hand", Bound::AtLeast(0.5), rate).print(options.reporting.json)
}

fn write_files(folder: &Path, workload: &Workload) -> Result<(Vec<PathBuf>, Expected)> {
    let paths: Vec<PathBuf> = (0..PARTITIONS).map(|number| folder.join(format!("{number}.txt"))).collect();
    let create = |path: &PathBuf| File::create(path).with_context(|| format!("cannot create {}", path.display()));
    let mut writers = paths.iter().map(|path| Ok(BufWriter::new(create(path)?))).collect::<Result<Vec<_>>>()?;
    let expected = workload.generate(|partition, line| {
        let writer = &mut writers[partition.unsigned_abs() as usize];
        writer.write_all(line)?;
        Ok(writer.write_all(b"\n")?)
    })?;
    writers.iter_mut().try_for_each(BufWriter::flush)?;
    Ok((paths, expected))
}

/// One run of one system. Fails when the table is wrong.
async fn one(assignment: &Assignment, expected: &Expected) -> Result<Outcome> {
    let who = if assignment.by_hand { "hand" } else { "tine" };
    let started = Instant::now();
    let mut child = watched::start(&Task::Files(assignment.clone()))?;
    let pid = child.id().context("the child has ended at once")?;
    let commits = watched::until_finished(&mut child, who).await?;
    let took = started.elapsed();
    let (cpu, rss_mb) = (procfs::cpu_time(pid)?, procfs::peak_rss_mb(pid)?);
    watched::dismiss(child, who).await?;
    compare(&assignment.database, expected).with_context(|| format!("{who} was wrong"))?;
    let words = expected.total as f64;
    Ok(Outcome {
        words_per_s: words / took.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / words,
        rss_mb,
        commits: commits.parse().with_context(|| format!("{who} did not say how often it committed"))?,
    })
}

fn compare(database: &Path, expected: &Expected) -> Result<()> {
    let connection = Connection::open(database)?;
    let mut statement = connection.prepare("SELECT word, n FROM word_counts")?;
    let mut rows = statement.query([])?;
    let mut seen = 0;
    while let Some(row) = rows.next()? {
        let (word, n): (String, i64) = (row.get(0)?, row.get(1)?);
        let right = expected.rows.get(&word).map(|[n, _]| *n);
        ensure!(right == Some(n), "{word}: {n} instead of {right:?}");
        seen += 1;
    }
    ensure!(seen == expected.rows.len(), "{seen} words instead of {}", expected.rows.len());
    Ok(())
}

/// The child: counts, and says how often it committed.
pub(crate) fn work(assignment: &Assignment) -> Result<String> {
    let commits = if assignment.by_hand { by_hand(assignment)? } else { by_tine(assignment)? };
    Ok(commits.to_string())
}

fn by_tine(assignment: &Assignment) -> Result<u64> {
    let topology = Topology::new("bench");
    topology
        .source(files(&assignment.paths).text())
        .stage(|lines| lines.flat_map(|line| line.split_ascii_whitespace()).group_by(|word| word).count())
        .persist(Sqlite::open(&assignment.database).table("word_counts").key("word").value("n"));
    let options = Run {
        until_end: true,
        batch_units_max: assignment.commit_bytes,
        // Bytes alone decide.
        commit_interval: Duration::from_secs(60),
        ..Run::default()
    };
    let runtime = tokio::runtime::Runtime::new()?;
    Ok(runtime.block_on(topology.run_with(options, Shutdown::new()))?.transactions)
}

/// The yardstick: one thread, one buffered reader, one prepared upsert; positions in the transaction of the counts.
fn by_hand(assignment: &Assignment) -> Result<u64> {
    let mut connection = Connection::open(&assignment.database)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE IF NOT EXISTS word_counts (word TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS positions (path TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT;",
    )?;
    let mut counts: HashMap<String, i64, RandomState> = HashMap::default();
    let (mut commits, mut since) = (0, 0);
    for path in &assignment.paths {
        let name = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
        let mut reader = BufReader::with_capacity(256 << 10, File::open(path)?);
        let (mut line, mut at) = (Vec::new(), 0_u64);
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)? as u64;
            at += read;
            since += read;
            let text = std::str::from_utf8(&line).map_err(|_| anyhow!("{name} is not UTF-8 before byte {at}"))?;
            for word in text.split_ascii_whitespace() {
                *counts.entry_ref(word).or_insert(0) += 1;
            }
            if read == 0 || since >= assignment.commit_bytes {
                commit(connection.transaction()?, &mut counts, name, at)?;
                commits += 1;
                since = 0;
            }
            if read == 0 {
                break;
            }
        }
    }
    Ok(commits)
}

fn commit(
    transaction: Transaction<'_>,
    counts: &mut HashMap<String, i64, RandomState>,
    path: &str,
    at: u64,
) -> Result<()> {
    let mut rows: Vec<(&String, &i64)> = counts.iter().collect();
    rows.sort_unstable();
    {
        let mut upsert = transaction.prepare_cached(
            "INSERT INTO word_counts VALUES (?1, ?2) ON CONFLICT (word) DO UPDATE SET n = n + excluded.n",
        )?;
        for (word, n) in rows {
            upsert.execute(params![word, n])?;
        }
        let mut position = transaction.prepare_cached("INSERT OR REPLACE INTO positions VALUES (?1, ?2)")?;
        position.execute(params![path, i64::try_from(at)?])?;
    }
    transaction.commit()?;
    counts.clear();
    Ok(())
}
