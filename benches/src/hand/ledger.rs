//! The SQL side of the hand-written loop: counts and offsets move in one transaction.

use anyhow::{Context, Result, ensure};
use foldhash::fast::RandomState;
use hashbrown::HashSet;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqlSafeStr, SqlStr};
use tokio::runtime::{Builder, Runtime};

use super::tally::{Row, Tally};
use crate::side::Assignment;
use crate::workload::Second;

const CREATE_OFFSETS: &str =
    "CREATE TABLE IF NOT EXISTS hand_offsets (partition int PRIMARY KEY, next_offset bigint NOT NULL)";
const READ_OFFSETS: &str = "SELECT partition, next_offset FROM hand_offsets ORDER BY partition";
/// Moves offsets only from where the transaction began: a second copy of the loop changes no row and fails.
const MOVE_OFFSETS: &str = "INSERT INTO hand_offsets AS o SELECT partition, next FROM unnest($1, $2, $3) AS d (partition, start, next) \
     ON CONFLICT (partition) DO UPDATE SET next_offset = excluded.next_offset \
     WHERE o.next_offset = (SELECT start FROM unnest($1, $2) AS d (partition, start) WHERE d.partition = o.partition)";

/// One connection, and what it has committed so far.
#[derive(Debug)]
pub(super) struct Ledger {
    runtime: Runtime,
    connection: PgConnection,
    /// By partition; partitions without a row begin at 0.
    positions: Vec<i64>,
    /// Keys that certainly have a row: an update is a third cheaper than an upsert.
    known: HashSet<Box<[u8]>, RandomState>,
    update_known: SqlStr,
    upsert: SqlStr,
}

impl Ledger {
    /// Connects and reads where the last committed transaction ended.
    pub(super) fn open(assignment: &Assignment) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
        let synchronous = if assignment.relaxed { "off" } else { "on" };
        // Compiling a plan that runs once a second costs more than it saves.
        let options: PgConnectOptions = assignment.postgres_url.parse().context("the Postgres URL cannot be read")?;
        let options =
            options.options([("jit", "off"), ("synchronous_commit", synchronous)]).disable_statement_logging();
        let (connection, positions) = runtime.block_on(async {
            let mut connection = PgConnection::connect_with(&options).await.context("cannot connect to Postgres")?;
            sqlx::query(CREATE_OFFSETS).execute(&mut connection).await?;
            let rows: Vec<(i32, i64)> = sqlx::query_as(READ_OFFSETS).fetch_all(&mut connection).await?;
            anyhow::Ok((connection, rows.into_iter().map(|(_, next)| next).collect()))
        })?;
        let (update_known, upsert) = statements(assignment);
        Ok(Self {
            runtime,
            connection,
            positions,
            known: HashSet::default(),
            update_known: AssertSqlSafe(update_known).into_sql_str(),
            upsert: AssertSqlSafe(upsert).into_sql_str(),
        })
    }

    /// Where reading must begin.
    pub(super) fn position(&self, partition: i32) -> i64 {
        usize::try_from(partition).ok().and_then(|index| self.positions.get(index).copied()).unwrap_or(0)
    }

    /// After `Ok` the tally's counts and offsets are durable; after `Err` both are or neither is.
    pub(super) fn commit(&mut self, tally: &Tally) -> Result<()> {
        let Self { runtime, connection, known, update_known, upsert, .. } = self;
        let counts = tally.sorted();
        let (updates, upserts): (Vec<_>, Vec<_>) = counts.iter().copied().partition(|row| known.contains(row.key));
        runtime.block_on(async {
            let mut transaction = connection.begin().await?;
            if !updates.is_empty() {
                let rows = add(&mut transaction, update_known.clone(), &updates).await?;
                ensure!(
                    rows == updates.len() as u64,
                    "{} rows of {} are gone",
                    updates.len() as u64 - rows,
                    updates.len()
                );
            }
            if !upserts.is_empty() {
                add(&mut transaction, upsert.clone(), &upserts).await?;
            }
            move_offsets(&mut transaction, tally).await?;
            transaction.commit().await.context("COMMIT failed")
        })?;
        known.extend(upserts.iter().map(|row| Box::from(row.key)));
        Ok(())
    }
}

/// The update of known keys, and the upsert of the others.
fn statements(assignment: &Assignment) -> (String, String) {
    let (table, key) = (assignment.job.table(), assignment.job.key_column());
    // The second column is sent in any case; without one nobody looks at it.
    let delta =
        r#"(SELECT k COLLATE "C" AS k, n, s FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS d (k, n, s))"#;
    let (mut columns, mut values, mut set_from_d, mut set_from_excluded) =
        (String::new(), String::new(), String::new(), String::new());
    if let Some(second) = assignment.job.second() {
        let column = second.column();
        let merged = |new: &str| match second {
            Second::Sum(_) => format!(", {column} = t.{column} + {new}"),
            Second::Max(_) => format!(", {column} = greatest(t.{column}, {new})"),
        };
        (columns, values) = (format!(", {column}"), ", s".to_owned());
        (set_from_d, set_from_excluded) = (merged("d.s"), merged(&format!("excluded.{column}")));
    }
    let update = format!("UPDATE {table} AS t SET n = t.n + d.n{set_from_d} FROM {delta} AS d WHERE t.{key} = d.k");
    let upsert = format!(
        "INSERT INTO {table} AS t ({key}, n{columns}) SELECT k, n{values} FROM {delta} AS d \
         ON CONFLICT ({key}) DO UPDATE SET n = t.n + excluded.n{set_from_excluded}"
    );
    (update, upsert)
}

async fn add(connection: &mut PgConnection, statement: SqlStr, rows: &[Row<'_>]) -> Result<u64> {
    let mut keys = Vec::with_capacity(rows.len());
    for Row { key, .. } in rows {
        keys.push(std::str::from_utf8(key).with_context(|| format!("a key is not UTF-8: {}", key.escape_ascii()))?);
    }
    let counts: Vec<i64> = rows.iter().map(|row| row.n).collect();
    let seconds: Vec<i64> = rows.iter().map(|row| row.second).collect();
    let done = sqlx::query(statement).bind(keys).bind(counts).bind(seconds).execute(connection).await?;
    Ok(done.rows_affected())
}

async fn move_offsets(connection: &mut PgConnection, tally: &Tally) -> Result<()> {
    let (mut partitions, mut from, mut to) = (Vec::new(), Vec::new(), Vec::new());
    for (partition, start, next) in tally.ranges() {
        partitions.push(partition);
        from.push(start);
        to.push(next);
    }
    let expected = partitions.len() as u64;
    let moved =
        sqlx::query(MOVE_OFFSETS).bind(partitions).bind(from).bind(to).execute(connection).await?.rows_affected();
    ensure!(moved == expected, "another copy of this loop has moved the offsets of {} partitions", expected - moved);
    Ok(())
}
