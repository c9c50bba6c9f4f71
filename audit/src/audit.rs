//! The audit itself: what is asked for, and the order of its steps.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::ledger::{Group, Ledger, Reaches, Start};
use crate::log::{Log, Piece};
use crate::record::{Emit, KeyType, Record, Taken};
use crate::runs::{How, Run, RunWriter, Totals};
use crate::table::Table;
use crate::{AuditError, Report};

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(1);
/// Records between two looks at the clock.
const RECORDS: u64 = 4_096;
/// Memory for what is counted, unless the caller says otherwise.
const MEMORY_BYTES: usize = 256 << 20;
/// Differing rows that are kept, unless the caller says otherwise.
const ROWS: usize = 20;

/// How far an audit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Records read so far.
    pub records: u64,
    /// Offsets read so far.
    pub offsets: u64,
    /// Offsets to read; not every one has a record.
    pub of: u64,
    /// Runs written down because memory was full.
    pub runs: usize,
}

/// Recomputes one table of a topology and compares it: see the [crate](crate).
#[must_use = "an audit does nothing until it is run"]
pub struct Audit {
    topology: String,
    postgres: String,
    brokers: String,
    settings: Vec<(String, String)>,
    schema: Option<String>,
    table: Option<String>,
    source: Option<u64>,
    keys: Vec<String>,
    values: Vec<(String, How)>,
    starts: BTreeMap<String, i64>,
    memory: usize,
    folder: PathBuf,
    rows: usize,
    on_progress: Box<dyn FnMut(Progress)>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address may hold a password.
        f.debug_struct("Audit").field("topology", &self.topology).field("table", &self.table).finish_non_exhaustive()
    }
}

impl Audit {
    /// An audit of the topology's table, with the database that holds it and the brokers it reads.
    pub fn new(topology: impl Into<String>, postgres: impl Into<String>, brokers: impl Into<String>) -> Audit {
        Audit {
            topology: topology.into(),
            postgres: postgres.into(),
            brokers: brokers.into(),
            settings: Vec::new(),
            schema: None,
            table: None,
            source: None,
            keys: Vec::new(),
            values: Vec::new(),
            starts: BTreeMap::new(),
            memory: MEMORY_BYTES,
            folder: std::env::temp_dir(),
            rows: ROWS,
            on_progress: Box::new(|_| {}),
        }
    }

    /// A value column and how it aggregates. Every value column must be named; all others are the key.
    pub fn value(mut self, column: impl Into<String>, how: How) -> Audit {
        self.values.push((column.into(), how));
        self
    }

    /// The key columns in the order in which the closure gives them (default: the table's).
    pub fn keys<N: Into<String>>(mut self, columns: impl IntoIterator<Item = N>) -> Audit {
        self.keys = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Which table, `name` or `schema.name` (default: the topology's only one).
    pub fn table(mut self, table: impl Into<String>) -> Audit {
        self.table = Some(table.into());
        self
    }

    /// The schema of tine's own tables, where several schemas hold a topology of that name.
    pub fn schema(mut self, schema: impl Into<String>) -> Audit {
        self.schema = Some(schema.into());
        self
    }

    /// Which of the topology's sources feeds the table, from 0 (default: the only one).
    pub fn source(mut self, source: u64) -> Audit {
        self.source = Some(source);
        self
    }

    /// A setting of the Kafka client, for TLS and SASL.
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Audit {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Where counting began in a partition (`topic/3`): for topologies whose first plans are no longer kept and that did not
    /// begin at the partition's first record.
    pub fn start(mut self, partition: impl Into<String>, offset: i64) -> Audit {
        self.starts.insert(partition.into(), offset);
        self
    }

    /// How many bytes may be held before they are written down (default: 256 MiB). The Kafka client takes some 30 MiB more.
    pub fn memory(mut self, bytes: usize) -> Audit {
        self.memory = bytes;
        self
    }

    /// Where temporary files lie (default: the system's place). They take about as much as the table, and as much again for
    /// every time that `memory` is filled.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Audit {
        self.folder = folder.into();
        self
    }

    /// How many differing rows the report lists (default: 20); all are counted.
    pub fn rows(mut self, rows: usize) -> Audit {
        self.rows = rows;
        self
    }

    /// Hears how far it is, about once a second while Kafka is read.
    pub fn on_progress(mut self, hear: impl FnMut(Progress) + 'static) -> Audit {
        self.on_progress = Box::new(hear);
        self
    }

    /// Runs it: `each` makes the rows of a record, as the topology's stage does. Blocks; inside asynchronous code call it in a
    /// blocking task.
    ///
    /// `Ok` is a verdict, [exact](Report::is_exact) or not; `Err` says why there is none.
    pub fn run(mut self, each: impl Fn(&Record<'_>, &mut Emit)) -> Result<Report, AuditError> {
        let snapshot = self.snapshot()?;
        let mut report = Report {
            table: snapshot.name.clone(),
            txid: snapshot.ledger.txid,
            ledger: snapshot.ledger.findings.clone(),
            found: snapshot.rows,
            ..Report::default()
        };
        match self.recompute(snapshot, each, &mut report) {
            // What is wrong with the ledger is a verdict already, and may be the reason.
            Err(AuditError::NotPossible(why)) if !report.ledger.is_empty() => {
                report.ledger.push(format!("rows were not compared: {why}"));
            }
            done => done?,
        }
        Ok(report)
    }

    fn recompute(
        &mut self,
        snapshot: Snapshot,
        each: impl Fn(&Record<'_>, &mut Emit),
        report: &mut Report,
    ) -> Result<(), AuditError> {
        if snapshot.ledger.reaches.is_none() {
            return Ok(());
        }
        let log = Log::open(&self.brokers, &self.settings)?;
        let pieces = self.pieces(&log, &snapshot.ledger, report)?;
        report.pieces = pieces.iter().map(Piece::to_string).collect();
        let totals = self.recount(&log, &pieces, snapshot.keys, each, report)?;
        report.found = 0;
        report.compare(totals.finish()?, snapshot.run, self.rows)
    }

    /// Ledger and table at one moment. The snapshot ends with this function.
    fn snapshot(&self) -> Result<Snapshot, AuditError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(AuditError::file("cannot start a runtime"))?.block_on(async {
            let options = PgConnectOptions::from_str(&self.postgres);
            let options = options.map_err(AuditError::postgres("the address is not postgres://user@host/database"))?;
            let options = options.application_name("tine audit").disable_statement_logging();
            let connection = PgConnection::connect_with(&options).await;
            let mut connection = connection.map_err(AuditError::postgres("cannot connect"))?;
            let snapshot = self.read(&mut connection).await?;
            // Nothing was written.
            let _ = connection.close().await;
            Ok(snapshot)
        })
    }

    async fn read(&self, connection: &mut PgConnection) -> Result<Snapshot, AuditError> {
        sqlx::raw_sql("begin isolation level repeatable read, read only")
            .execute(&mut *connection)
            .await
            .map_err(AuditError::postgres("cannot take a snapshot"))?;
        let group = Group::find(connection, &self.topology, self.schema.as_deref()).await?;
        let name = group.state(self.table.as_deref())?.table.clone();
        let values: Vec<String> = self.values.iter().map(|(name, _)| name.clone()).collect();
        let table = Table::look(connection, &name, &self.keys, &values).await?;
        let ledger = group.ledger(connection).await?;
        let (run, rows) = table.copy(connection, RunWriter::new(&self.folder)?).await?;
        Ok(Snapshot { name, ledger, keys: table.key_types(), run, rows })
    }

    /// What of Kafka the ledger says was counted.
    fn pieces(&self, log: &Log, ledger: &Ledger, report: &mut Report) -> Result<Vec<Piece>, AuditError> {
        let Some(reaches) = &ledger.reaches else { return Ok(Vec::new()) };
        let source = self.source_of(reaches)?;
        let mine = || reaches.iter().filter(|((other, _), _)| *other == source);
        if let Some(stranger) = self.starts.keys().find(|name| !mine().any(|((_, other), _)| other == *name)) {
            return Err(AuditError::NotPossible(format!("no plan names partition {stranger}: mend --start")));
        }
        let mut pieces = Vec::new();
        for ((_, name), reach) in mine() {
            let told = self.starts.get(name).copied();
            if told.is_none() && matches!(reach.start, Start::Before(_)) {
                report.assumed.push(format!(
                    "{name} was counted from its first record on; plans before transaction {} are no longer kept",
                    ledger.oldest.unwrap_or_default()
                ));
            }
            pieces.push(log.piece(name, reach.start, reach.end, told)?);
        }
        Ok(pieces)
    }

    fn source_of(&self, reaches: &Reaches) -> Result<u64, AuditError> {
        let mut sources: Vec<u64> = reaches.keys().map(|(source, _)| *source).collect();
        sources.dedup();
        match (self.source, &sources[..]) {
            (Some(source), _) if sources.contains(&source) => Ok(source),
            (None, [source]) => Ok(*source),
            (None, []) => Ok(0),
            _ => Err(AuditError::NotPossible(format!("the plans have sources {sources:?}: name one with --source"))),
        }
    }

    fn recount(
        &mut self,
        log: &Log,
        pieces: &[Piece],
        keys: Vec<KeyType>,
        each: impl Fn(&Record<'_>, &mut Emit),
        report: &mut Report,
    ) -> Result<Totals, AuditError> {
        let hows: Vec<How> = self.values.iter().map(|(_, how)| *how).collect();
        let mut emit = Emit::new(keys, hows.iter().filter(|how| **how != How::Count).count());
        let mut totals = Totals::new(hows, self.memory, &self.folder);
        let mut clock = Clock::new(pieces);
        for piece in pieces {
            log.read(piece, |record| {
                each(record, &mut emit);
                report.records += 1;
                match emit.take(|key, values| totals.add(key, values)) {
                    Taken::Rows => {}
                    Taken::LeftOut => report.left_out += 1,
                    Taken::Misused(how) => return Err(AuditError::NotPossible(format!("the closure made {how}"))),
                    Taken::Failed(error) => return Err(error),
                }
                if report.records.is_multiple_of(RECORDS) && clock.strikes() {
                    (self.on_progress)(clock.progress(report.records, record.offset - piece.from, totals.runs()));
                }
                Ok(())
            })?;
            clock.done += piece.offsets();
        }
        Ok(totals)
    }
}

/// What was read of the database.
struct Snapshot {
    name: String,
    ledger: Ledger,
    keys: Vec<KeyType>,
    run: Run,
    rows: u64,
}

/// When to tell how far it is.
struct Clock {
    last: Instant,
    done: u64,
    of: u64,
}

impl Clock {
    fn new(pieces: &[Piece]) -> Clock {
        Clock { last: Instant::now(), done: 0, of: pieces.iter().map(Piece::offsets).sum() }
    }

    fn strikes(&mut self) -> bool {
        let strikes = self.last.elapsed() >= PROGRESS;
        if strikes {
            self.last = Instant::now();
        }
        strikes
    }

    fn progress(&self, records: u64, here: i64, runs: usize) -> Progress {
        Progress { records, offsets: self.done + u64::try_from(here).unwrap_or(0), of: self.of, runs }
    }
}
