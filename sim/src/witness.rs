//! Finds operators that do not make the same of the same: [`deterministic`](crate::deterministic).
//!
//! Replays rest on it: a transaction that is tried again must make the rows that it made before, whoever makes them. An
//! operator that looks at a clock, rolls dice, counts calls, reads a file or follows the order of a hash map breaks that.
//!
//! All the records of the sources are given to the user's own operators several times, outside the protocol:
//!
//! | again | finds |
//! |---|---|
//! | in a fresh topology on another thread, two milliseconds later, one record after the other | clocks, random numbers, hash maps, the outside world |
//! | in the same operators, in another order, as a replay in the same process | counters and caches of their own |
//! | in chunks, and shared out among emitters and stage tasks, their parts in another order | what depends on neighbours, chunks or order; combiners that are none |
//! | after all the cases of a check | clocks that tick slowly |
//!
//! What each operator makes is compared as a set of rows, because the order of rows decides nothing: an operator that hands
//! out the words of a line in the order of a hash map is reported only if *which* words there are depends on it. Where a
//! difference appears first, in the order of operators, is where it is reported.
//!
//! Not found: a clock that does not tick during the test (one that is read by the day), an input from outside that does not
//! change, and whatever happens only on other records than these.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use tine_core::failure::Failure;
use tine_state::StateIndex;
use tine_trident::{
    pipeline::{Built, Exchange, Fold, Operator, Pipeline, Rows, Target, Targeted, Witness},
    source::Record,
};

use crate::source::SimSource;

/// How long clocks get to tick between two runs.
const TICK: Duration = Duration::from_millis(2);

/// How many records a chunk has where there are several.
const CHUNK: usize = 7;

/// How many emitters and stage tasks share the work where they do.
const TASKS: usize = 3;

/// How many differing rows are shown.
const SHOWN: usize = 5;

/// A fresh topology and the records that its sources will ever hold.
pub(crate) struct Subject {
    pub(crate) built: Built,
    pub(crate) sources: Vec<SimSource>,
}

/// Makes a fresh topology.
pub(crate) type Fresh<'a> = &'a (dyn Fn() -> Result<Subject, String> + Sync);

/// What operators made, in the order in which they made it.
pub(crate) type Account = Vec<Made>;

/// What an operator made of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    /// Such as ``stage 1 after source 1 `lines`, operator 2 (map)``.
    who: String,
    /// Such as `record lines/0 position 3`.
    of: String,
    /// In order of their texts.
    rows: Vec<String>,
    at: At,
}

/// Where on the way of a batch something is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// By operators before the first repartition.
    #[default]
    Emitter,
    /// By operators after one.
    Stage,
    /// By the aggregate that ends a stage: of the part of a batch that one task has.
    Partial,
    /// By the aggregate of a table: of the whole batch.
    Table,
}

/// Writes down what operators make.
#[derive(Debug, Default)]
struct Notes(Mutex<Page>);

#[derive(Debug, Default)]
struct Page {
    of: String,
    at: At,
    made: Account,
}

impl Notes {
    fn page(&self) -> std::sync::MutexGuard<'_, Page> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, of: String) {
        self.page().of = of;
    }

    fn at(&self, at: At) {
        self.page().at = at;
    }

    fn add(&self, who: String, mut rows: Vec<String>, ends: bool) {
        rows.sort_unstable();
        let mut page = self.page();
        let at = if ends { At::Partial } else { page.at };
        let of = page.of.clone();
        page.made.push(Made { who, of, rows, at });
    }

    fn failed(&self, who: &str, failure: &Failure) {
        self.add(who.to_owned(), vec![format!("failed: {failure}")], false);
    }

    fn taken(&self) -> Account {
        std::mem::take(&mut self.page().made)
    }
}

impl Witness for Notes {
    fn made(&self, Operator { place, number, name, ends }: Operator<'_>, rows: Vec<String>) {
        self.add(format!("{place}, operator {number} ({name})"), rows, ends);
    }
}

/// Looks whether the operators of a topology are deterministic; answers with what they made, for a later look, or with
/// the operator and the rows that differ.
pub(crate) fn look(fresh: Fresh<'_>) -> Result<Account, String> {
    let mut bench = Bench::new(fresh()?, 1);
    let first = bench.one_by_one(false);
    same(&first, &bench.one_by_one(true), "in a replay by the same operators")?;
    look_again(fresh, &first)?;
    let mut alone = Bench::new(fresh()?, 1);
    let in_chunks = alone.in_chunks(CHUNK);
    let shared = Bench::new(fresh()?, TASKS).in_chunks(CHUNK / 2);
    // Where records are left out, chunks are run again without them: operators before see the others twice.
    let (emitter, stage): (&[At], &[At]) = match alone.left_out {
        0 => (&[At::Emitter], &[At::Emitter, At::Stage, At::Table]),
        _ => (&[], &[At::Table]),
    };
    same_together(&first, &in_chunks, emitter, "in chunks of several records")?;
    same_together(&in_chunks, &shared, stage, "shared out among several tasks")?;
    Ok(first)
}

/// Compares what fresh operators make with what others made before.
pub(crate) fn look_again(fresh: Fresh<'_>, first: &Account) -> Result<(), String> {
    thread::sleep(TICK);
    let again = thread::scope(|scope| {
        let run = scope.spawn(|| fresh().map(|subject| Bench::new(subject, 1).one_by_one(false)));
        run.join().unwrap_or_else(|_| Err("a panic while the topology was built".to_owned()))
    });
    same(first, &again?, "in a fresh process, a little later")
}

/// The operators of a topology on a bench, outside the protocol.
struct Bench {
    subject: Subject,
    notes: Arc<Notes>,
    /// By emitter, then by source.
    pipelines: Vec<Vec<Box<dyn Pipeline>>>,
    /// By stage task, then by exchange.
    exchanges: Vec<Vec<Box<dyn Exchange>>>,
    /// How many records failed, or were left out by a policy.
    left_out: u64,
}

impl Bench {
    fn new(subject: Subject, tasks: usize) -> Bench {
        let notes = Arc::new(Notes::default());
        let witness: Arc<dyn Witness> = notes.clone();
        let pipelines = |_| {
            let sources = subject.built.sources.iter();
            sources
                .map(|source| {
                    let mut pipeline = (source.pipeline)();
                    pipeline.observe(&witness);
                    pipeline
                })
                .collect()
        };
        let exchanges = |_| {
            let exchanges = subject.built.exchanges.iter();
            exchanges
                .map(|exchange| {
                    let mut exchange = (exchange.exchange)();
                    exchange.observe(&witness);
                    exchange
                })
                .collect()
        };
        let (pipelines, exchanges) = ((0..tasks).map(pipelines).collect(), (0..tasks).map(exchanges).collect());
        Bench { subject, notes, pipelines, exchanges, left_out: 0 }
    }

    /// Every record is a batch of its own, the last one first if `backwards`; told in their order.
    fn one_by_one(&mut self, backwards: bool) -> Account {
        let mut chapters = Vec::new();
        let mut all = self.records();
        if backwards {
            all.reverse();
            all.iter_mut().for_each(|(.., records)| records.reverse());
        }
        for (source, partition, records) in all {
            for record in &records {
                self.notes.begin(format!("record {partition} position {}", record.position));
                self.notes.at(At::Emitter);
                let rows = self.emit(0, source, &partition, std::slice::from_ref(record));
                let rows = rows.and_then(|()| self.finish(0, source));
                self.go_on(rows.into_iter().flatten().collect());
                chapters.push(self.notes.taken());
            }
        }
        if backwards {
            chapters.reverse();
        }
        chapters.into_iter().flatten().collect()
    }

    /// All records are one batch, cut into chunks, partition by partition in turn among the emitters.
    fn in_chunks(&mut self, chunk: usize) -> Account {
        self.notes.begin("all records in one batch".to_owned());
        let emitters = self.pipelines.len();
        let mut rows = Vec::new();
        for (place, (source, partition, records)) in self.records().into_iter().enumerate() {
            for chunk in records.chunks(chunk.max(1)) {
                let _ = self.emit(place % emitters, source, &partition, chunk);
            }
        }
        for emitter in (0..emitters).rev() {
            for source in 0..self.subject.sources.len() {
                rows.extend(self.finish(emitter, source).into_iter().flatten());
            }
        }
        self.go_on(rows);
        self.notes.taken()
    }

    /// Everything that the sources will ever hold: source, partition, records.
    fn records(&self) -> Vec<(usize, String, Vec<Owned>)> {
        let mut all = Vec::new();
        for (index, source) in self.subject.sources.iter().enumerate() {
            for partition in &source.log().partitions {
                let owned = partition.records.iter().map(|stored| Owned {
                    position: stored.position,
                    key: stored.key.clone(),
                    value: stored.value.clone(),
                });
                all.push((index, partition.name.clone(), owned.collect()));
            }
        }
        all
    }

    fn emit(&mut self, emitter: usize, source: usize, partition: &str, records: &[Owned]) -> Option<()> {
        let lent: Vec<Record<'_>> = records.iter().map(Owned::lend).collect();
        let pipeline = &mut self.pipelines[emitter][source];
        match pipeline.records(partition, &lent) {
            Ok(()) => Some(()),
            Err(failure) => {
                pipeline.reset();
                self.left_out += 1;
                self.notes.failed(&format!("source {}", source + 1), &failure);
                None
            }
        }
    }

    fn finish(&mut self, emitter: usize, source: usize) -> Option<Targeted> {
        match self.pipelines[emitter][source].finish() {
            Ok(batch) => {
                self.left_out += batch.skipped + batch.dead_letters;
                Some(batch.rows)
            }
            Err(failure) => {
                self.left_out += 1;
                self.notes.failed(&format!("source {}", source + 1), &failure);
                None
            }
        }
    }

    /// Takes rows through the exchanges, level by level, and folds what comes out.
    fn go_on(&mut self, rows: Targeted) {
        let mut waiting: BTreeMap<Target, Vec<Box<dyn Rows>>> = BTreeMap::new();
        for (target, rows) in rows {
            waiting.entry(target).or_default().push(rows);
        }
        self.notes.at(At::Stage);
        let mut order: Vec<usize> = (0..self.subject.built.exchanges.len()).collect();
        order.sort_by_key(|exchange| self.subject.built.exchanges[*exchange].level);
        for exchange in order {
            let index = u16::try_from(exchange).unwrap_or(u16::MAX);
            let target = Target::Exchange(tine_trident::pipeline::ExchangeIndex(index));
            let Some(parts) = waiting.remove(&target) else { continue };
            for (target, rows) in self.exchange(exchange, parts) {
                waiting.entry(target).or_default().push(rows);
            }
        }
        self.notes.at(At::Table);
        for (target, parts) in waiting {
            if let Target::State(state) = target {
                self.fold(state, parts);
            }
        }
    }

    fn exchange(&mut self, exchange: usize, parts: Vec<Box<dyn Rows>>) -> Targeted {
        let tasks = self.exchanges.len();
        let owner: Vec<usize> = (0..tasks).collect();
        let mut shares: Vec<Vec<Box<dyn Rows>>> = (0..tasks).map(|_| Vec::new()).collect();
        for part in parts {
            for (share, rows) in shares.iter_mut().zip(part.split(&owner, tasks)) {
                share.push(rows);
            }
        }
        let mut out = Vec::new();
        for (task, share) in shares.into_iter().enumerate() {
            match self.exchanges[task][exchange].run(share, &|| Ok(())) {
                Ok(rows) => out.extend(rows),
                Err(failure) => {
                    self.left_out += 1;
                    self.notes.failed("a later stage", &failure);
                }
            }
        }
        out
    }

    fn fold(&self, state: StateIndex, parts: Vec<Box<dyn Rows>>) {
        let index = usize::from(state.0);
        let fold: &Arc<dyn Fold> = &self.subject.built.folds[index];
        let rows = match fold.fold(parts) {
            Ok(folded) => (0..folded.rows.len()).map(|row| shown(&folded.rows, row)).collect(),
            Err(failure) => vec![format!("failed: {failure}")],
        };
        let name = &self.subject.built.group.states[index].name;
        self.notes.add(format!("the aggregate of table {name}"), rows, false);
    }
}

fn shown(rows: &tine_state::TableRows, row: usize) -> String {
    let columns =
        |columns: &[tine_state::Column]| columns.iter().map(|column| column.show(row)).collect::<Vec<_>>().join(", ");
    format!("{}: {}", columns(&rows.keys), columns(&rows.values))
}

/// A record outside its log.
struct Owned {
    position: u64,
    key: Option<Arc<str>>,
    value: Arc<str>,
}

impl Owned {
    fn lend(&self) -> Record<'_> {
        Record {
            position: self.position,
            timestamp_ms: -1,
            key: self.key.as_deref().map(str::as_bytes),
            value: Some(self.value.as_bytes()),
            headers: &[],
        }
    }
}

/// Compares two accounts note by note.
fn same(first: &Account, again: &Account, when: &str) -> Result<(), String> {
    let mut pairs = first.iter().zip(again);
    match pairs.find(|(first, again)| first != again) {
        Some((first, again)) if first.who == again.who => Err(differ(first, &again.rows, when)),
        Some((first, again)) => Err(differ(first, &[format!("nothing, but {} went on", again.who)], when)),
        None if first.len() != again.len() => {
            Err(format!("operators made rows {} times at first and {} times {when}", first.len(), again.len()))
        }
        None => Ok(()),
    }
}

/// Compares what each operator made of everything together, at some places of its way.
fn same_together(first: &Account, again: &Account, places: &[At], when: &str) -> Result<(), String> {
    let together = |account: &Account| {
        let mut together: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for made in account.iter().filter(|made| places.contains(&made.at)) {
            together.entry(made.who.clone()).or_default().extend(made.rows.iter().cloned());
        }
        together.values_mut().for_each(|rows| rows.sort_unstable());
        together
    };
    let (before, after) = (together(first), together(again));
    for made in first.iter().filter(|made| places.contains(&made.at)) {
        let rows = |of: &BTreeMap<String, Vec<String>>| of.get(&made.who).cloned().unwrap_or_default();
        let (was, is) = (rows(&before), rows(&after));
        if was != is {
            let of = "all records together".to_owned();
            return Err(differ(&Made { of, rows: was, ..made.clone() }, &is, when));
        }
    }
    Ok(())
}

/// What differs, for people.
fn differ(first: &Made, again: &[String], when: &str) -> String {
    let lines = |rows: &[String], others: &[String]| {
        let mut others = others.to_vec();
        let mut own = rows.to_vec();
        own.retain(|row| match others.iter().position(|other| other == row) {
            Some(place) => {
                others.swap_remove(place);
                false
            }
            None => true,
        });
        let more = own.len().saturating_sub(SHOWN);
        own.truncate(SHOWN);
        match (own.is_empty(), more) {
            (true, _) if rows.is_empty() => "\n    nothing".to_owned(),
            (true, _) => "\n    nothing else".to_owned(),
            (false, 0) => format!("\n    {}", own.join("\n    ")),
            (false, more) => format!("\n    {}\n    and {more} more", own.join("\n    ")),
        }
    };
    format!(
        "{} does not make the same of the same: of {} it made{}\n  and {when}{}\n  An operator may look at nothing but its \
         row: no clock, no random numbers, no counter of its own, nothing outside, and nothing that the order of a hash map \
         decides. A transaction that is tried again must make the same rows, or the group halts.",
        first.who,
        first.of,
        lines(&first.rows, again),
        lines(again, &first.rows)
    )
}
