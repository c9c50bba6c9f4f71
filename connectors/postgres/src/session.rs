//! Executes the protocol's statements on one connection and says what the answers mean.
//!
//! A failure inside a transaction rolls it back at once, so that no later statement can slip into it; a `commit`
//! then finds no transaction and fails. A future that was dropped in the middle leaves no connection behind.

mod advance;
mod known;
mod piece;
mod read;

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{Row, postgres::PgRow};
use tine_core::{
    failure::{Failure, FailureKind},
    id::Attempt,
};
use tine_state::{Location, Reply, Session, ShardRef, Statement, TransactionRow};

pub(crate) use self::known::Known;
use crate::{
    durability::Durability,
    errors,
    link::{Bound, Link, statement},
    settings::{self, COMMIT_TIMEOUT, HISTORY_TRANSACTIONS, Mode, PROMPT_TIMEOUT},
    sql::GroupSql,
    sqlstate::Meaning,
};

/// Every how many transactions the history is trimmed, and how many rows at most at a time.
const TRIM_EVERY: u64 = 64;
const TRIM_ROWS: i64 = 256;

/// A session of one group.
pub(crate) struct PgSession {
    pub(crate) link: Link,
    pub(crate) sql: Arc<GroupSql>,
    pub(crate) topology: String,
    pub(crate) group: String,
    /// The states' names, by index.
    pub(crate) states: Vec<String>,
    /// Keys that have rows, by state.
    pub(crate) known: Vec<Known>,
    pub(crate) durability: Durability,
    /// What the open transaction is for, if one is open.
    pub(crate) transaction: Option<Mode>,
    /// Whether it has moved ledger rows: its loss would be seen.
    pub(crate) has_advanced: bool,
}

impl PgSession {
    /// Rolls back and puts an error into words.
    async fn failed(&mut self, doing: &str, error: &sqlx::Error) -> Failure {
        self.roll_back().await;
        errors::before_commit(doing, &self.link.address, error)
    }

    async fn roll_back(&mut self) {
        let was_open = self.transaction.take().is_some();
        if was_open && self.link.is_up() && self.link.message(&"rollback".into(), PROMPT_TIMEOUT).await.is_err() {
            self.link.drop_connection();
        }
    }

    fn in_transaction(&self) -> Result<(), Failure> {
        match (self.transaction, self.link.is_up()) {
            (None, _) => Err(Failure::transient("no transaction is open: an earlier failure rolled it back")),
            (_, false) => Err(Failure::transient(format!("the connection to {} was lost", self.link.address))),
            _ => Ok(()),
        }
    }

    async fn begin(&mut self, promised: Option<Location>) -> Result<Reply, Failure> {
        let mode = if promised.is_some() { Mode::Commit } else { Mode::Raise };
        let seen = self.start(mode).await?;
        let Some(promised) = promised else { return Ok(Reply::Done) };
        if seen.includes(&promised) {
            return Ok(Reply::Done);
        }
        self.roll_back().await;
        // Another server may answer under this address next time.
        self.link.drop_connection();
        let both = format!("{} is at {seen} and the fence was raised at {promised}", self.link.address);
        Err(Failure::new(FailureKind::Behind, format!("{both}: a failover or a restore lies between")))
    }

    /// Starts a transaction, on a new connection if the old one is gone, and says what the server holds.
    async fn start(&mut self, mode: Mode) -> Result<Location, Failure> {
        self.roll_back().await;
        self.known.iter_mut().for_each(Known::drop_pending);
        self.has_advanced = false;
        let first = match self.link.is_up() {
            true => self.start_once(mode).await,
            false => Err(Failure::transient("not connected yet")),
        };
        let seen = match first {
            // Never connected, or gone stale between two transactions: that is what a start may mend.
            Err(_) if !self.link.is_up() => {
                self.link.connect("session").await?;
                self.start_once(mode).await?
            }
            other => other?,
        };
        if let Some(seen) = seen {
            return Ok(seen);
        }
        self.roll_back().await;
        self.link.drop_connection();
        let kind = if mode == Mode::Commit { FailureKind::Behind } else { FailureKind::Transient };
        let advice = "point the URL at the primary, or wait for this server's promotion";
        Err(Failure::new(kind, format!("{} is a standby: {advice}", self.link.address)))
    }

    /// `None` on a standby.
    async fn start_once(&mut self, mode: Mode) -> Result<Option<Location>, Failure> {
        let text = settings::begin_text(mode, &self.link.names.of(mode.role()), self.link.control);
        self.transaction = Some(mode);
        let rows = match self.link.message(&text.into(), PROMPT_TIMEOUT).await {
            Ok(rows) => rows,
            Err(error) => return Err(self.failed("beginning a transaction", &error).await),
        };
        match read::seen(&rows) {
            Ok(seen) => Ok(seen),
            Err(error) => Err(self.failed("reading the server's location", &error).await),
        }
    }

    async fn commit(&mut self) -> Result<Reply, Failure> {
        self.in_transaction()?;
        self.transaction = None;
        let text = settings::commit_text(self.durability == Durability::Relaxed && self.has_advanced);
        match self.link.message(&text.into(), COMMIT_TIMEOUT).await {
            Ok(_) => {
                self.known.iter_mut().for_each(Known::keep);
                Ok(Reply::Done)
            }
            Err(error) => {
                if self.link.is_up() && self.link.message(&"rollback".into(), PROMPT_TIMEOUT).await.is_err() {
                    self.link.drop_connection();
                }
                Err(errors::at_commit(&self.link.address, &error))
            }
        }
    }

    /// Runs a locking read. A raise whose lock is not granted in time ends the older connections of its own group (a
    /// paused process inside a commit) and tries once more.
    async fn locked(&mut self, text: &Arc<str>, doing: &str) -> Result<Vec<PgRow>, Failure> {
        self.in_transaction()?;
        let first = statement(text).bind(&self.topology).bind(&self.group);
        let error = match self.link.rows(first).await {
            Ok(rows) => return Ok(rows),
            Err(error) => error,
        };
        if self.transaction != Some(Mode::Raise) || errors::meaning(&error) != Meaning::Locked {
            return Err(self.failed(doing, &error).await);
        }
        if let Err(error) = self.end_older_connections().await {
            return Err(self.failed("ending the group's older connections", &error).await);
        }
        let again = statement(text).bind(&self.topology).bind(&self.group);
        match self.link.rows(again).await {
            Ok(rows) => Ok(rows),
            Err(error) => Err(self.failed(doing, &error).await),
        }
    }

    async fn end_older_connections(&mut self) -> Result<(), sqlx::Error> {
        self.link.message(&"rollback to savepoint tine_lock".into(), PROMPT_TIMEOUT).await?;
        let group = format!("{}/{}", self.topology, self.group);
        let prefix = self.link.names.prefix().to_string();
        let mut ended = 0;
        for row in self.link.rows(statement(&self.sql.older).bind(prefix.clone())).await? {
            let pid: i32 = row.try_get("pid")?;
            match self.link.rows(statement(&self.sql.evict).bind(prefix.clone()).bind(pid)).await {
                Ok(rows) => ended += rows.iter().filter(|row| row.try_get("ended").unwrap_or(false)).count(),
                // Another role's connection; its lock may end by itself.
                Err(error) if errors::meaning(&error) == Meaning::Rights => {
                    tracing::warn!(group, pid, "an older connection of the group cannot be ended: {error}");
                    self.link.message(&"rollback to savepoint tine_lock".into(), PROMPT_TIMEOUT).await?;
                }
                Err(error) => return Err(error),
            }
        }
        tracing::warn!(group, ended, "the ledger was locked for too long: ended the group's older connections");
        Ok(())
    }

    async fn lock_some(&mut self, shards: &[ShardRef]) -> Result<Vec<PgRow>, Failure> {
        self.in_transaction()?;
        let (states, numbers) = self.shard_arrays(shards)?;
        let query =
            statement(&self.sql.lock_some_rows).bind(&self.topology).bind(&self.group).bind(states).bind(numbers);
        match self.link.rows(query).await {
            Ok(rows) => Ok(rows),
            Err(error) => Err(self.failed("locking ledger rows", &error).await),
        }
    }

    /// The shards as two arrays, sorted as the ledger's key is: so every writer locks rows in the same order.
    fn shard_arrays(&self, shards: &[ShardRef]) -> Result<(Vec<String>, Vec<i32>), Failure> {
        let mut named = Vec::with_capacity(shards.len());
        for shard in shards {
            let name = self.states.get(usize::from(shard.state.0)).ok_or_else(|| unknown_state(*shard))?;
            named.push((name.clone(), i32::from(shard.shard.0)));
        }
        named.sort();
        Ok(named.into_iter().unzip())
    }

    async fn write_fence(&mut self, fence: Attempt) -> Result<Reply, Failure> {
        self.in_transaction()?;
        let query = bind_attempt(statement(&self.sql.write_fence).bind(&self.topology).bind(&self.group), fence);
        match self.link.touched(query).await {
            Ok(rows) => Ok(Reply::Written(rows)),
            Err(error) => Err(self.failed("writing the fence", &error).await),
        }
    }

    async fn write_plan(&mut self, row: &TransactionRow) -> Result<Reply, Failure> {
        self.in_transaction()?;
        let query = statement(&self.sql.write_plan)
            .bind(&self.topology)
            .bind(&self.group)
            .bind(row.txid.0.cast_signed())
            .bind(row.previous.to_bytes().to_vec())
            .bind(row.chain.to_bytes().to_vec())
            .bind(row.manifest.to_bytes().to_vec());
        let query = bind_attempt(query, row.attempt).bind(&row.plan).bind(&row.ranges);
        let written = match self.link.touched(query).await {
            Ok(written) => written,
            Err(error) => return Err(self.failed("writing the transaction's row", &error).await),
        };
        if row.txid.0.is_multiple_of(TRIM_EVERY) && row.txid.0 > HISTORY_TRANSACTIONS {
            let oldest_kept = (row.txid.0 - HISTORY_TRANSACTIONS).cast_signed();
            let query =
                statement(&self.sql.trim).bind(&self.topology).bind(&self.group).bind(oldest_kept).bind(TRIM_ROWS);
            if let Err(error) = self.link.touched(query).await {
                return Err(self.failed("trimming the history", &error).await);
            }
        }
        Ok(Reply::Written(written))
    }
}

fn unknown_state(shard: ShardRef) -> Failure {
    Failure::fatal(format!("the group has no state of number {}", shard.state.0))
}

fn bind_attempt(query: Bound<'_>, attempt: Attempt) -> Bound<'_> {
    query
        .bind(attempt.epoch.0.cast_signed())
        .bind(attempt.nonce.0.cast_signed())
        .bind(attempt.generation.0.cast_signed())
}

#[async_trait]
impl Session for PgSession {
    async fn execute(&mut self, statement: &Statement) -> Result<Reply, Failure> {
        let answer = self.perform(statement).await;
        if answer.is_err() {
            // Also where the server was not asked: who goes on after a failure must find no transaction.
            self.roll_back().await;
        }
        answer
    }
}

impl PgSession {
    async fn perform(&mut self, statement: &Statement) -> Result<Reply, Failure> {
        match statement {
            Statement::Begin(promised) => self.begin(*promised).await,
            Statement::LockGroup => {
                let text = self.sql.lock_group.clone();
                let rows = self.locked(&text, "locking the group's row").await?;
                self.understood(rows, |session, rows| session.group_row(rows).map(Reply::Group)).await
            }
            Statement::LockRows(shards) => {
                let rows = match shards {
                    Some(shards) => self.lock_some(shards).await?,
                    None => {
                        let text = self.sql.lock_rows.clone();
                        self.locked(&text, "locking the ledger").await?
                    }
                };
                self.understood(rows, |session, rows| session.ledger_rows(rows).map(Reply::Rows)).await
            }
            Statement::Load(state, rows) => self.load(*state, rows).await,
            Statement::Advance(advance) => self.advance(advance).await,
            Statement::WriteFence(fence) => self.write_fence(*fence).await,
            Statement::WritePlan(row) => self.write_plan(row).await,
            Statement::Commit => self.commit().await,
            Statement::Rollback => {
                self.roll_back().await;
                Ok(Reply::Done)
            }
            Statement::Read => self.read().await,
        }
    }

    /// Reads an answer; one that makes no sense rolls the transaction back.
    async fn understood(
        &mut self,
        rows: Vec<PgRow>,
        decode: impl FnOnce(&PgSession, &[PgRow]) -> Result<Reply, Failure>,
    ) -> Result<Reply, Failure> {
        match decode(self, &rows) {
            Ok(reply) => Ok(reply),
            Err(failure) => {
                self.roll_back().await;
                Err(failure)
            }
        }
    }
}
