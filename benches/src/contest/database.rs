//! The database of one run: made for it, watched from outside while it fills, compared when it is full.
//!
//! A trigger on the table notifies this process with every commit that touches it. So the harness knows when rows
//! became visible and how often, for each system in the same way, without asking the system or polling the table.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::procfs;
use crate::workload::{Expected, Job, Second};

/// Dropped and made anew for each run; nothing else of the server is touched.
const DATABASE: &str = "tine_bench";

/// Room for the new versions of a page's rows: an update of a counter then changes no index.
pub(super) const FILLFACTOR: u32 = 50;

const COMMITTED: &str = "tine_bench_committed";

const NO_MORE: &str = "no more";

/// An empty database with an empty table.
#[derive(Debug)]
pub(crate) struct Database {
    job: Job,
    options: PgConnectOptions,
    connection: PgConnection,
    /// The server's first process, when it runs on this machine.
    postmaster: Option<u32>,
}

impl Database {
    /// Makes the database anew on the server of `url`; dropping the old one also writes a checkpoint, so that every run
    /// begins alike.
    pub(crate) async fn create(url: &str, job: Job) -> Result<Self> {
        let server: PgConnectOptions = url.parse().with_context(|| format!("not a Postgres URL: {url}"))?;
        let mut admin = server.connect().await.with_context(|| format!("no Postgres at {url}"))?;
        for statement in
            [format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"), format!("CREATE DATABASE {DATABASE}")]
        {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut admin).await?;
        }
        admin.close().await?;
        let options = server.database(DATABASE);
        let mut connection = options.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(schema(job))).execute(&mut connection).await?;
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
        let postmaster = u32::try_from(backend).ok().and_then(|pid| procfs::parent_of(pid, "postgres"));
        Ok(Self { job, options, connection, postmaster })
    }

    pub(crate) fn url(&self) -> String {
        // sqlx writes its own settings into the query, which other clients don't know.
        let mut url = self.options.to_url_lossy();
        url.set_query(None);
        url.to_string()
    }

    /// CPU time of all of the server's processes so far; `None` when it runs elsewhere.
    pub(crate) fn cpu_time(&self) -> Result<Option<Duration>> {
        self.postmaster.map(procfs::tree_cpu_time).transpose()
    }

    /// Begins to note commits.
    pub(super) async fn watch(&mut self) -> Result<Watch> {
        sqlx::raw_sql(AssertSqlSafe(trigger(self.job))).execute(&mut self.connection).await?;
        let mut listener = PgListener::connect(&self.url()).await?;
        listener.listen(COMMITTED).await?;
        Ok(Watch { listener, seen: Vec::new() })
    }

    /// Tells the watch that nothing comes any more; it arrives behind every commit's own notice.
    pub(super) async fn end_watch(&mut self) -> Result<()> {
        sqlx::query("SELECT pg_notify($1, $2)").bind(COMMITTED).bind(NO_MORE).execute(&mut self.connection).await?;
        Ok(())
    }

    /// `None` when the table says exactly what is expected, otherwise what differs.
    pub(crate) async fn difference(&mut self, expected: &Expected) -> Result<Option<String>> {
        let (table, key) = (self.job.table(), self.job.key_column());
        let second = self.job.second().map_or("0::bigint", Second::column);
        let query = format!(r#"SELECT {key}, n, {second} FROM {table} ORDER BY {key} COLLATE "C""#);
        let mut rows = sqlx::query_as::<_, (String, i64, i64)>(AssertSqlSafe(query)).fetch(&mut self.connection);
        let mut missing = expected.rows.clone();
        let mut wrong = Vec::new();
        while let Some((key, n, second)) = rows.try_next().await? {
            match missing.remove(&key) {
                Some(right) if right == [n, second] => {}
                right => wrong.push(format!("{key}: {:?} instead of {:?}", [n, second], right.unwrap_or_default())),
            }
        }
        wrong.extend(missing.iter().map(|(key, right)| format!("{key}: no row instead of {right:?}")));
        if wrong.is_empty() {
            return Ok(None);
        }
        let shown = wrong.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
        Ok(Some(format!("{} keys are wrong, such as {shown}", wrong.len())))
    }
}

fn schema(job: Job) -> String {
    let (table, key) = (job.table(), job.key_column());
    let second = job.second().map_or(String::new(), |second| format!(", {} bigint NOT NULL", second.column()));
    format!(
        r#"CREATE TABLE {table} ({key} text COLLATE "C" PRIMARY KEY, n bigint NOT NULL{second})
               WITH (fillfactor = {FILLFACTOR})"#
    )
}

fn trigger(job: Job) -> String {
    let table = job.table();
    format!(
        r#"CREATE FUNCTION tine_bench_notify() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN PERFORM pg_notify('{COMMITTED}', ''); RETURN NULL; END $$;
           CREATE TRIGGER tine_bench_notify AFTER INSERT OR UPDATE OR DELETE ON {table}
               FOR EACH STATEMENT EXECUTE FUNCTION tine_bench_notify();"#
    )
}

/// Notes when each commit that touched the table became visible.
#[derive(Debug)]
pub(super) struct Watch {
    listener: PgListener,
    seen: Vec<Instant>,
}

impl Watch {
    /// Returns the commits' times after [`Database::end_watch`].
    pub(super) async fn until_end(mut self) -> Result<Vec<Instant>> {
        loop {
            match self.listener.try_recv().await? {
                Some(notice) if notice.payload() == NO_MORE => return Ok(self.seen),
                Some(_) => self.seen.push(Instant::now()),
                None => bail!("the connection that watches for commits broke; some were not seen"),
            }
        }
    }
}
