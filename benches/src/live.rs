//! A stream that is being produced while it is read: the producer, and the eye on the table that says what is visible.
//!
//! Every record is a name and its number in its partition. The job counts the names and keeps each partition's largest
//! number in the same table, so one look at a few rows by key says which records are visible: a commit takes a prefix of
//! each partition.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, SqlSafeStr, SqlStr};
use tokio::runtime::{Builder, Runtime};

use crate::workload::{Expected, Job, PARTITIONS, Random};

/// How many names there are.
const NAMES: u32 = 10_000;

/// How long a full queue is left to drain.
const BACKPRESSURE: Duration = Duration::from_millis(1);

/// Produces into one topic, and knows what it has produced.
pub(crate) struct Feeder {
    producer: BaseProducer,
    topic: String,
    random: Random,
    /// The last number of each partition; numbers begin at 1.
    last: Vec<i64>,
    counts: BTreeMap<u32, i64>,
    payload: String,
}

impl Feeder {
    /// `linger` is how long the client may wait for more records before it sends some.
    pub(crate) fn new(brokers: &str, topic: &str, linger: Duration) -> Result<Feeder> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("delivery.report.only.error", "true")
            .set("linger.ms", linger.as_millis().to_string())
            .set("queue.buffering.max.messages", "200000")
            .create()
            .context("no Kafka producer")?;
        Ok(Feeder {
            producer,
            topic: topic.to_owned(),
            random: Random::seeded(7),
            last: vec![0; PARTITIONS as usize],
            counts: BTreeMap::new(),
            payload: String::new(),
        })
    }

    /// Produces one record; its partition and number.
    pub(crate) fn send(&mut self) -> Result<(usize, i64)> {
        use std::fmt::Write;
        let name = self.random.below(NAMES);
        let partition = self.random.below(PARTITIONS.unsigned_abs()) as usize;
        let seq = self.last[partition] + 1;
        self.payload.clear();
        write!(self.payload, "user-{name:07} {seq}")?;
        let mut record =
            BaseRecord::<(), str>::to(&self.topic).partition(i32::try_from(partition)?).payload(&self.payload);
        while let Err((error, back)) = self.producer.send(record) {
            if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                return Err(error).with_context(|| format!("cannot write to topic {}", self.topic));
            }
            thread::sleep(BACKPRESSURE);
            record = back;
        }
        self.last[partition] = seq;
        *self.counts.entry(name).or_default() += 1;
        Ok((partition, seq))
    }

    /// Produces `rate` records a second until `stop`, in steps of a millisecond, and tells `each` when each was produced.
    pub(crate) fn pace(
        &mut self,
        rate: f64,
        stop: &AtomicBool,
        mut each: impl FnMut(usize, i64, Instant) -> Result<()>,
    ) -> Result<()> {
        let started = Instant::now();
        let mut sent = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            // Who falls behind notices a stop all the same.
            while (sent as f64) < started.elapsed().as_secs_f64() * rate && !stop.load(Ordering::Relaxed) {
                let now = Instant::now();
                let (partition, seq) = self.send()?;
                each(partition, seq, now)?;
                sent += 1;
            }
            self.producer.poll(Duration::ZERO);
            let next = started + Duration::from_secs_f64((sent + 1) as f64 / rate);
            thread::sleep(next.saturating_duration_since(Instant::now()).clamp(Duration::from_micros(500), MAX_PAUSE));
        }
        Ok(())
    }

    /// After `Ok` everything produced is in Kafka; says what the table must come to.
    pub(crate) fn finish(self) -> Result<Expected> {
        self.producer.flush(Duration::from_secs(60)).context("the last records were not written in time")?;
        let mut rows: BTreeMap<String, [i64; 2]> =
            self.counts.iter().map(|(name, n)| (format!("user-{name:07}"), [*n, 0])).collect();
        let last = self.last.iter().enumerate().filter(|(_, last)| **last > 0);
        rows.extend(last.map(|(partition, last)| (format!("{}/{partition}", self.topic), [*last, *last])));
        Ok(Expected { rows, total: self.last.iter().sum::<i64>().unsigned_abs() })
    }

    /// The last number of each partition.
    pub(crate) fn last(&self) -> Vec<i64> {
        self.last.clone()
    }
}

/// A stop is noticed this late.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// Looks at the table through a connection of its own.
pub(crate) struct Eye {
    runtime: Runtime,
    connection: PgConnection,
    query: SqlStr,
    names: Vec<String>,
}

impl Eye {
    pub(crate) fn open(postgres_url: &str, topic: &str) -> Result<Eye> {
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
        let options: PgConnectOptions = postgres_url.parse().context("the Postgres URL cannot be read")?;
        let connection = runtime.block_on(options.disable_statement_logging().connect())?;
        let (table, key) = (Job::Live.table(), Job::Live.key_column());
        let query = format!("SELECT {key}, seq FROM {table} WHERE {key} = ANY($1)");
        let names = (0..PARTITIONS).map(|partition| format!("{topic}/{partition}")).collect();
        Ok(Eye { runtime, connection, query: AssertSqlSafe(query).into_sql_str(), names })
    }

    /// The largest number visible of each partition, at this moment.
    pub(crate) fn look(&mut self) -> Result<(Vec<i64>, Instant)> {
        let query = sqlx::query_as::<_, (String, i64)>(self.query.clone()).bind(&self.names);
        let rows = self.runtime.block_on(query.fetch_all(&mut self.connection))?;
        let now = Instant::now();
        let mut visible = vec![0; self.names.len()];
        for (name, seq) in rows {
            let partition =
                self.names.iter().position(|known| *known == name).context("a row that nobody asked for")?;
            visible[partition] = seq;
        }
        Ok((visible, now))
    }

    /// Returns when everything up to `last` is visible.
    pub(crate) fn await_all(&mut self, last: &[i64], deadline: Duration) -> Result<()> {
        let started = Instant::now();
        loop {
            let (visible, now) = self.look()?;
            if visible.iter().zip(last).all(|(visible, last)| visible >= last) {
                return Ok(());
            }
            ensure!(now - started < deadline, "after {deadline:?} {visible:?} of {last:?} is visible");
            thread::sleep(Duration::from_millis(2));
        }
    }
}
