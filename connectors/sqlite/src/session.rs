//! One connection that executes the protocol's statements, and survives their failures.

use async_trait::async_trait;
use sqlx::SqliteConnection;
use tine_core::{
    failure::{Failure, FailureKind},
    id::TxId,
};
use tine_state::{Advance, GroupSpec, Location, Reply, Session, Snapshot, StateIndex, Statement};

use crate::{
    failure::{BUSY, CONSTRAINT, classify, primary_code},
    file::{File, Identity},
    ledger::{GroupKey, LedgerError},
    merge::TableSql,
};

/// A session of one group.
#[derive(Debug)]
pub(crate) struct SqliteSession {
    file: File,
    group: GroupKey,
    tables: Vec<TableSql>,
    open: Option<Open>,
    /// A transaction was begun and not ended; also when its future was dropped half way.
    in_transaction: bool,
}

#[derive(Debug)]
struct Open {
    connection: SqliteConnection,
    identity: Option<Identity>,
}

impl SqliteSession {
    pub(crate) fn new(file: File, group: &GroupSpec) -> SqliteSession {
        SqliteSession {
            file,
            group: GroupKey::new(group),
            tables: group.states.iter().map(|state| TableSql::new(&state.table)).collect(),
            open: None,
            in_transaction: false,
        }
    }

    /// Opens a connection unless there is one to the file that stands under the path now. One in the middle of a
    /// transaction is given up: closing it rolls back.
    pub(crate) async fn connect(&mut self) -> Result<&mut SqliteConnection, Failure> {
        if std::mem::take(&mut self.in_transaction) {
            self.open = None;
        }
        let identity = self.file.identity();
        let open = match self.open.take().filter(|open| open.identity == identity) {
            Some(open) => open,
            None => Open { connection: self.file.open().await?, identity },
        };
        Ok(&mut self.open.insert(open).connection)
    }

    async fn begin(&mut self, promised: Option<Location>) -> Result<Reply, Failure> {
        if std::mem::take(&mut self.in_transaction) {
            // Whatever comes of this one, the one before is over; closing its connection rolls it back.
            self.open = None;
        }
        let here = Location::default();
        if let Some(promised) = promised.filter(|promised| !here.includes(promised)) {
            return Err(Failure::new(
                FailureKind::Behind,
                format!("{promised} was promised, and {} is a SQLite file, which has none of these", self.file),
            ));
        }
        self.start("BEGIN IMMEDIATE").await?;
        Ok(Reply::Done)
    }

    async fn start(&mut self, begin: &'static str) -> Result<(), Failure> {
        self.connect().await?;
        self.in_transaction = true;
        match self.text(begin).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.roll_back().await;
                Err(classify(&error, "beginning a transaction", &self.file))
            }
        }
    }

    async fn text(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        match &mut self.open {
            Some(open) => sqlx::query(sql).execute(&mut open.connection).await.map(drop),
            None => Err(sqlx::Error::WorkerCrashed),
        }
    }

    /// Ends the transaction; a connection that cannot is closed, which does the same.
    async fn roll_back(&mut self) {
        if self.in_transaction && self.text("ROLLBACK").await.is_err() {
            self.open = None;
        }
        self.in_transaction = false;
    }

    async fn commit(&mut self) -> Result<Reply, Failure> {
        if !self.in_transaction {
            return Err(outside(&Statement::Commit));
        }
        let Err(error) = self.text("COMMIT").await else {
            self.in_transaction = false;
            return Ok(Reply::Done);
        };
        let failure = classify(&error, "committing", &self.file);
        if matches!(primary_code(&error), Some(BUSY | CONSTRAINT)) {
            self.roll_back().await;
            return Err(failure);
        }
        // The log may hold the commit although its write was answered with an error.
        self.open = None;
        self.in_transaction = false;
        Err(Failure::new(FailureKind::Unknown, failure.message))
    }

    /// Everything in one snapshot; the transaction is only read and ends with it.
    async fn read(&mut self) -> Result<Reply, Failure> {
        if self.in_transaction {
            self.roll_back().await;
        }
        self.start("BEGIN DEFERRED").await?;
        let snapshot = self.snapshot().await.map_err(|error| self.failed(error, "reading the ledger"));
        self.roll_back().await;
        snapshot.map(|snapshot| Reply::Snapshot(Box::new(snapshot)))
    }

    async fn snapshot(&mut self) -> Result<Snapshot, LedgerError> {
        let connection = connection(&mut self.open)?;
        let Some(group) = self.group.read_group(connection).await? else {
            let message = format!(
                "the row of topology {:?} is missing in tine_groups: restore it from a backup",
                self.group.topology
            );
            return Err(Failure::fatal(message).into());
        };
        let rows = self.group.read_rows(connection, None).await?;
        let lowest = rows.iter().map(|row| row.txid).min().unwrap_or(TxId::NONE);
        let transactions = self.group.read_transactions(connection, lowest).await?;
        Ok(Snapshot { group: group.row, rows, transactions, location: Location::default() })
    }

    async fn inside(&mut self, statement: &Statement) -> Result<Reply, LedgerError> {
        let connection = connection(&mut self.open)?;
        match statement {
            Statement::LockGroup => Ok(Reply::Group(self.group.read_group(connection).await?.map(|group| group.row))),
            Statement::LockRows(shards) => Ok(Reply::Rows(self.group.read_rows(connection, shards.as_deref()).await?)),
            Statement::Load(state, rows) => table(&self.tables, *state)?.load(connection, rows).await,
            Statement::Advance(advance) => self.advance(advance).await,
            Statement::WriteFence(fence) => Ok(Reply::Written(self.group.write_fence(connection, *fence).await?)),
            Statement::WritePlan(row) => Ok(Reply::Written(self.group.write_plan(connection, row).await?)),
            Statement::Begin(_) | Statement::Commit | Statement::Rollback | Statement::Read => {
                Err(outside(statement).into())
            }
        }
    }

    async fn advance(&mut self, advance: &Advance) -> Result<Reply, LedgerError> {
        let connection = connection(&mut self.open)?;
        let moved = self.group.advance(connection, advance).await?;
        let mut merged = 0;
        if moved == advance.shards.len() as u64 {
            for (state, rows) in &advance.tables {
                merged += table(&self.tables, *state)?.merge(connection, rows).await?;
            }
        }
        Ok(Reply::Advanced { moved, merged })
    }

    fn failed(&self, error: LedgerError, doing: &str) -> Failure {
        match error {
            LedgerError::Sql(error) => classify(&error, doing, &self.file),
            LedgerError::Refused(failure) => failure,
        }
    }
}

#[async_trait]
impl Session for SqliteSession {
    async fn execute(&mut self, statement: &Statement) -> Result<Reply, Failure> {
        match statement {
            Statement::Begin(promised) => self.begin(*promised).await,
            Statement::Read => self.read().await,
            Statement::Commit => self.commit().await,
            Statement::Rollback => {
                self.roll_back().await;
                Ok(Reply::Done)
            }
            _ if !self.in_transaction => Err(outside(statement)),
            _ => match self.inside(statement).await {
                Ok(reply) => Ok(reply),
                Err(error) => {
                    let failure = self.failed(error, doing(statement));
                    self.roll_back().await;
                    Err(failure)
                }
            },
        }
    }
}

fn connection(open: &mut Option<Open>) -> Result<&mut SqliteConnection, sqlx::Error> {
    open.as_mut().map(|open| &mut open.connection).ok_or(sqlx::Error::WorkerCrashed)
}

fn table(tables: &[TableSql], state: StateIndex) -> Result<&TableSql, Failure> {
    tables
        .get(usize::from(state.0))
        .ok_or_else(|| Failure::fatal(format!("rows for {state:?}, which the group does not have")))
}

/// What a statement does, for messages.
fn doing(statement: &Statement) -> &'static str {
    match statement {
        Statement::LockGroup | Statement::LockRows(_) => "reading the ledger",
        Statement::Load(..) => "reading stored values",
        Statement::Advance(_) => "merging a batch",
        Statement::WriteFence(_) => "raising the fence",
        Statement::WritePlan(_) => "writing a transaction's plan",
        Statement::Begin(_) | Statement::Commit | Statement::Rollback | Statement::Read => "a transaction",
    }
}

fn outside(statement: &Statement) -> Failure {
    Failure::fatal(format!("{}: no transaction is open on this session; begin one first", doing(statement)))
}
