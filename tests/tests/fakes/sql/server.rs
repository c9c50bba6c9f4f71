//! What a test sees and does beside a session's statements: who waits for a lock, who is connected, whose connection the
//! server ends, what other hands have put into the tables.

use std::{path::PathBuf, sync::Arc};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, SqliteConnection};
use tine_postgres::Postgres;
use tine_sim::{Cell, Cells};
use tine_sqlite::Sqlite;
use tine_state::{ColumnType, Database, GroupSpec, ShardRef, TableSpec};
use tine_tests::{eventually, services::shared};

const DEADLINE: std::time::Duration = std::time::Duration::from_secs(20);

type Done<T> = Result<T, String>;

/// One row of columns of these types.
macro_rules! read {
    ($row:expr, $kinds:expr) => {
        $kinds
            .iter()
            .enumerate()
            .map(|(index, kind)| match kind {
                ColumnType::Text => Cell::Text($row.get(index)),
                ColumnType::Bytes => Cell::Bytes($row.get(index)),
                ColumnType::BigInt => Cell::BigInt($row.get(index)),
            })
            .collect()
    };
}

/// A database under test.
pub(crate) enum Server {
    /// With a connection of the test's own.
    Postgres(Box<Postgres>, Box<PgConnection>),
    /// A file, with a connection of the test's own.
    Sqlite(Sqlite, Box<SqliteConnection>),
}

/// A connection of a session as Postgres sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) pid: i32,
    /// Whether it waits for a lock.
    pub(crate) waits: bool,
}

impl Server {
    /// A new, empty database on the shared Postgres.
    pub(crate) async fn postgres() -> Option<Server> {
        let url = shared::postgres_database("fakes").await.unwrap()?;
        let connection = PgConnection::connect(&url).await.unwrap();
        Some(Server::Postgres(Box::new(Postgres::connect(&url).unwrap()), Box::new(connection)))
    }

    /// A new file.
    pub(crate) async fn sqlite(path: PathBuf) -> Server {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let connection = SqliteConnection::connect_with(&options).await.unwrap();
        Server::Sqlite(Sqlite::open(&path), Box::new(connection))
    }

    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self, Server::Postgres(..))
    }

    pub(crate) fn database(&self) -> Arc<dyn Database> {
        match self {
            Server::Postgres(postgres, _) => Arc::new(Postgres::clone(postgres)),
            Server::Sqlite(sqlite, _) => Arc::new(sqlite.clone()),
        }
    }

    /// The sessions' connections, by process; SQLite has none that could be seen.
    pub(crate) async fn backends(&mut self) -> Done<Vec<Backend>> {
        let Server::Postgres(_, connection) = self else { return Ok(Vec::new()) };
        let query = "select pid, coalesce(wait_event_type = 'Lock', false) as waits from pg_stat_activity \
                     where datname = current_database() and backend_type = 'client backend' \
                     and pid <> pg_backend_pid() order by pid";
        let rows = sqlx::query(query).fetch_all(&mut **connection).await.map_err(text)?;
        let backend = |row: &sqlx::postgres::PgRow| Backend { pid: row.get("pid"), waits: row.get("waits") };
        Ok(rows.iter().map(backend).collect())
    }

    /// Ends a connection and waits until it is gone.
    pub(crate) async fn terminate(&mut self, pid: i32) -> Done<()> {
        self.run(&format!("select pg_terminate_backend({pid})")).await?;
        let this = tokio::sync::Mutex::new(self);
        let gone = eventually(DEADLINE, || async {
            let backends = this.lock().await.backends().await.unwrap_or_default();
            backends.iter().all(|backend| backend.pid != pid)
        });
        if gone.await { Ok(()) } else { Err(format!("process {pid} did not end")) }
    }

    /// Puts a row into the first state's table.
    pub(crate) async fn put(&mut self, group: &GroupSpec, word: &str, count: i64) -> Done<()> {
        self.run(&format!("insert into {} values ('{word}', {count})", group.states[0].table.name.as_str())).await
    }

    /// Deletes a ledger row.
    pub(crate) async fn lose_row(&mut self, group: &GroupSpec, at: ShardRef) -> Done<()> {
        let (topology, state) = (&group.topology, &group.states[usize::from(at.state.0)].name);
        let shard = at.shard.0;
        self.run(&format!(
            "delete from tine_ledger where topology = '{topology}' and state = '{state}' and shard = {shard}"
        ))
        .await
    }

    /// Whoever writes a plan meets this SQLSTATE from now on: at once, or at its `COMMIT`.
    pub(crate) async fn raise(&mut self, code: &str, at_commit: bool) -> Done<()> {
        let when = match at_commit {
            true => {
                "constraint trigger raises after insert or update on tine_transactions deferrable initially deferred"
            }
            false => "trigger raises before insert or update on tine_transactions",
        };
        let raise = format!("begin raise exception 'raised on purpose' using errcode = '{code}'; end");
        for statement in [
            "drop trigger if exists raises on tine_transactions",
            &format!("create or replace function raises() returns trigger language plpgsql as $${raise}$$"),
            &format!("create {when} for each row execute function raises()"),
        ] {
            self.run(statement).await?;
        }
        Ok(())
    }

    async fn run(&mut self, statement: &str) -> Done<()> {
        let statement = AssertSqlSafe(statement.to_owned());
        match self {
            Server::Postgres(_, connection) => connection.execute(sqlx::query(statement)).await.map(drop).map_err(text),
            Server::Sqlite(_, connection) => connection.execute(sqlx::query(statement)).await.map(drop).map_err(text),
        }
    }

    /// A state's table, sorted.
    pub(crate) async fn table(&mut self, table: &TableSpec) -> Done<Vec<(Cells, Cells)>> {
        let keys = table.keys.len();
        let kinds: Vec<ColumnType> =
            table.keys.iter().map(|key| key.kind).chain(table.values.iter().map(|value| value.kind)).collect();
        let query = sqlx::AssertSqlSafe(format!("select * from {}", table.name.as_str()));
        let cells: Vec<Vec<Cell>> = match self {
            Server::Postgres(_, connection) => {
                let rows = sqlx::query(query).fetch_all(&mut **connection).await.map_err(text)?;
                rows.iter().map(|row| read!(row, kinds)).collect()
            }
            Server::Sqlite(_, connection) => {
                let rows = sqlx::query(query).fetch_all(&mut **connection).await.map_err(text)?;
                rows.iter().map(|row| read!(row, kinds)).collect()
            }
        };
        let split = |row: Vec<Cell>| (row[..keys].into(), row[keys..].into());
        let mut rows: Vec<(Cells, Cells)> = cells.into_iter().map(split).collect();
        rows.sort();
        Ok(rows)
    }
}

fn text(error: sqlx::Error) -> String {
    error.to_string()
}
