//! Reads the ledger: rows into tine's nouns, and everything of a group in one snapshot.

use std::{collections::HashMap, sync::Arc};

use sqlx::{Row, postgres::PgRow};
use tine_core::{
    failure::Failure,
    hash::Hash128,
    id::{Attempt, Epoch, Generation, Nonce, Shard, TxId},
};
use tine_state::{GroupRow, LedgerRow, Location, Reply, ShardRef, Snapshot, StateIndex, TransactionRow};

use super::PgSession;
use crate::{link::statement, settings::Mode, sql::GroupSql};

/// What `begin` saw of the server: `None` on a standby.
pub(super) fn seen(rows: &[PgRow]) -> Result<Option<Location>, sqlx::Error> {
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    if row.try_get::<String, _>("standby")? == "true" {
        return Ok(None);
    }
    let (system, timeline): (String, String) = (row.try_get("system")?, row.try_get("timeline")?);
    let lsn: String = row.try_get("lsn")?;
    let location = || {
        let (high, low) = lsn.split_once('/')?;
        let (high, low) = (u64::from_str_radix(high, 16).ok()?, u64::from_str_radix(low, 16).ok()?);
        let timeline = u32::from_str_radix(&timeline, 16).ok()?;
        Some(Location { system: system.parse().ok()?, timeline, lsn: high << 32 | low })
    };
    let unreadable = || sqlx::Error::Decode(format!("system {system}, timeline {timeline}, position {lsn}").into());
    location().map(Some).ok_or_else(unreadable)
}

impl PgSession {
    /// Everything of the group, in one snapshot; its location holds whatever was committed before.
    pub(super) async fn read(&mut self) -> Result<Reply, Failure> {
        let location = self.start(Mode::Read).await?;
        let answer = self.read_tables().await;
        self.roll_back().await;
        let (group, rows, transactions) = answer?;
        let Some(group) = group else {
            return Err(Failure::fatal(format!(
                "{}/{} has no row in tine_groups on {}: restore it from a backup of the database",
                self.topology, self.group, self.link.address
            )));
        };
        Ok(Reply::Snapshot(Box::new(Snapshot { group, rows, transactions, location })))
    }

    async fn read_tables(&mut self) -> Result<(Option<GroupRow>, Vec<LedgerRow>, Vec<TransactionRow>), Failure> {
        let group = self.read_all(|sql| &sql.read_group, "reading the group's row").await?;
        let rows = self.read_all(|sql| &sql.read_rows, "reading the ledger").await?;
        let transactions = self.read_all(|sql| &sql.read_transactions, "reading the transactions").await?;
        let transactions = transactions.iter().map(transaction_row).collect::<Result<_, _>>();
        let transactions = transactions.map_err(|error| unreadable("tine_transactions", &error))?;
        Ok((self.group_row(&group)?, self.ledger_rows(&rows)?, transactions))
    }

    async fn read_all(&mut self, text: impl Fn(&GroupSql) -> &Arc<str>, doing: &str) -> Result<Vec<PgRow>, Failure> {
        self.in_transaction()?;
        let query = statement(text(&self.sql)).bind(&self.topology).bind(&self.group);
        match self.link.rows(query).await {
            Ok(rows) => Ok(rows),
            Err(error) => Err(self.failed(doing, &error).await),
        }
    }

    pub(super) fn group_row(&self, rows: &[PgRow]) -> Result<Option<GroupRow>, Failure> {
        let Some(row) = rows.first() else { return Ok(None) };
        let read = || -> Result<_, sqlx::Error> {
            let lineage = hash(row, "lineage")?.0;
            let (names, shards): (Vec<String>, Vec<i32>) = (row.try_get("states")?, row.try_get("shards")?);
            Ok((lineage, hash(row, "fingerprint")?, attempt(row, "fence")?, names, shards))
        };
        let (lineage, fingerprint, fence, names, counts) = read().map_err(|error| unreadable("tine_groups", &error))?;
        let mut shards = Vec::new();
        for (name, count) in names.iter().zip(counts) {
            let state = self.state_index(name)?;
            let count = u16::try_from(count).map_err(|_| Failure::fatal(format!("state {name} has {count} shards")))?;
            shards.extend((0..count).map(|shard| ShardRef { state, shard: Shard(shard) }));
        }
        shards.sort();
        Ok(Some(GroupRow { lineage, fingerprint, fence, shards }))
    }

    pub(super) fn ledger_rows(&self, rows: &[PgRow]) -> Result<Vec<LedgerRow>, Failure> {
        let index: HashMap<&str, u16> = self.states.iter().map(String::as_str).zip(0..).collect();
        let mut read = Vec::with_capacity(rows.len());
        for row in rows {
            let row = ledger_row(row, &index).map_err(|error| unreadable("tine_ledger", &error))?;
            read.push(row);
        }
        read.sort_by_key(|row| row.at);
        Ok(read)
    }

    fn state_index(&self, name: &str) -> Result<StateIndex, Failure> {
        let found = self.states.iter().position(|state| state == name).and_then(|index| u16::try_from(index).ok());
        found.map(StateIndex).ok_or_else(|| {
            let group = format!("{}/{}", self.topology, self.group);
            Failure::fatal(format!(
                "tine_groups lists the state {name:?} of {group}, which this topology does not have"
            ))
        })
    }
}

fn ledger_row(row: &PgRow, index: &HashMap<&str, u16>) -> Result<LedgerRow, sqlx::Error> {
    let (state, shard): (String, i32) = (row.try_get("state")?, row.try_get("shard")?);
    let unknown = || sqlx::Error::Decode(format!("unknown state {state:?} or impossible shard {shard}").into());
    let state = StateIndex(*index.get(state.as_str()).ok_or_else(unknown)?);
    let at = ShardRef { state, shard: Shard(u16::try_from(shard).map_err(|_| unknown())?) };
    Ok(LedgerRow {
        at,
        fence: attempt(row, "fence")?,
        txid: TxId(number(row, "txid")?),
        chain: hash(row, "chain")?,
        manifest: hash(row, "manifest")?,
        attempt: attempt(row, "attempt")?,
    })
}

fn transaction_row(row: &PgRow) -> Result<TransactionRow, sqlx::Error> {
    Ok(TransactionRow {
        txid: TxId(number(row, "txid")?),
        previous: hash(row, "previous")?,
        chain: hash(row, "chain")?,
        manifest: hash(row, "manifest")?,
        attempt: attempt(row, "attempt")?,
        plan: row.try_get("plan")?,
        ranges: row.try_get("ranges")?,
    })
}

/// A `u64` stored bit by bit in a `bigint`.
fn number(row: &PgRow, column: &str) -> Result<u64, sqlx::Error> {
    row.try_get::<i64, _>(column).map(i64::cast_unsigned)
}

fn attempt(row: &PgRow, what: &str) -> Result<Attempt, sqlx::Error> {
    Ok(Attempt {
        epoch: Epoch(number(row, &format!("{what}_epoch"))?),
        nonce: Nonce(number(row, &format!("{what}_nonce"))?),
        generation: Generation(number(row, &format!("{what}_generation"))?),
    })
}

fn hash(row: &PgRow, column: &str) -> Result<Hash128, sqlx::Error> {
    let bytes: &[u8] = row.try_get(column)?;
    let wrong = || sqlx::Error::Decode(format!("{column} holds {} bytes where 16 were expected", bytes.len()).into());
    Hash128::from_bytes(bytes).ok_or_else(wrong)
}

fn unreadable(table: &str, error: &sqlx::Error) -> Failure {
    Failure::fatal(format!("{table} cannot be read ({error}): it was changed by hand or by another version of tine"))
}
