//! Tine's own tables: their definition, and how their rows are read and written.

use serde::{Deserialize, Serialize};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use tine_core::{
    failure::Failure,
    hash::Hash128,
    id::{Attempt, Epoch, Generation, Nonce, Shard, TxId},
};
use tine_state::{Advance, GroupRow, GroupSpec, LedgerRow, ShardRef, StateIndex, TransactionRow};

/// The format of the tables below, written into every group's row.
pub(crate) const FORMAT: i64 = 1;

/// The tables, one statement each. Unsigned numbers are stored with their bits unchanged, hashes as 16 bytes.
pub(crate) const TABLES: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS tine_groups (
        topology TEXT NOT NULL, grp TEXT NOT NULL, format INTEGER NOT NULL, lineage BLOB NOT NULL,
        fingerprint BLOB NOT NULL, shape TEXT NOT NULL, states TEXT NOT NULL, fence_epoch INTEGER NOT NULL,
        fence_nonce INTEGER NOT NULL, fence_generation INTEGER NOT NULL,
        created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
        PRIMARY KEY (topology, grp)) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS tine_ledger (
        topology TEXT NOT NULL, grp TEXT NOT NULL, state TEXT NOT NULL, shard INTEGER NOT NULL,
        fence_epoch INTEGER NOT NULL, fence_nonce INTEGER NOT NULL, fence_generation INTEGER NOT NULL,
        txid INTEGER NOT NULL, chain BLOB NOT NULL, manifest BLOB NOT NULL, attempt_epoch INTEGER NOT NULL,
        attempt_nonce INTEGER NOT NULL, attempt_generation INTEGER NOT NULL, changed BLOB,
        PRIMARY KEY (topology, grp, state, shard)) STRICT, WITHOUT ROWID",
    // With a rowid: plans may be long, and long rows make a tree without rowids slow.
    "CREATE TABLE IF NOT EXISTS tine_transactions (
        topology TEXT NOT NULL, grp TEXT NOT NULL, txid INTEGER NOT NULL, previous BLOB NOT NULL, chain BLOB NOT NULL,
        manifest BLOB NOT NULL, attempt_epoch INTEGER NOT NULL, attempt_nonce INTEGER NOT NULL,
        attempt_generation INTEGER NOT NULL, plan BLOB NOT NULL, ranges TEXT NOT NULL, written_at TEXT NOT NULL,
        PRIMARY KEY (topology, grp, txid)) STRICT",
    "CREATE TABLE IF NOT EXISTS tine_claims (
        table_name TEXT NOT NULL PRIMARY KEY, topology TEXT NOT NULL, grp TEXT NOT NULL, lineage BLOB NOT NULL,
        state TEXT NOT NULL) STRICT, WITHOUT ROWID",
];

const NEW_ROWS: &str = "INSERT INTO tine_ledger SELECT ?1, ?2, value ->> 0, value ->> 1, 0, 0, 0, 0,
    zeroblob(16), zeroblob(16), 0, 0, 0, NULL FROM json_each(?3)";
const GROUP: &str = "SELECT format, lineage, fingerprint, shape, states, fence_epoch, fence_nonce, fence_generation
    FROM tine_groups WHERE topology = ?1 AND grp = ?2";
const ROWS: &str = "SELECT state, shard, fence_epoch, fence_nonce, fence_generation, txid, chain, manifest,
    attempt_epoch, attempt_nonce, attempt_generation FROM tine_ledger WHERE topology = ?1 AND grp = ?2
    AND (?3 IS NULL OR (state, shard) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?3)))";
const TRANSACTIONS: &str = "SELECT txid, previous, chain, manifest, attempt_epoch, attempt_nonce, attempt_generation,
    plan, ranges FROM tine_transactions WHERE topology = ?1 AND grp = ?2 AND txid >= ?3 ORDER BY txid";
const ADVANCE: &str = "UPDATE tine_ledger SET txid = ?3, chain = ?4, manifest = ?5, attempt_epoch = ?6,
    attempt_nonce = ?7, attempt_generation = ?8, changed = NULL WHERE topology = ?1 AND grp = ?2
    AND fence_epoch = ?6 AND fence_nonce = ?7 AND fence_generation = ?8 AND txid = ?9 AND chain = ?10
    AND (state, shard) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?11))";
const FENCE_GROUP: &str = "UPDATE tine_groups SET fence_epoch = ?3, fence_nonce = ?4, fence_generation = ?5
    WHERE topology = ?1 AND grp = ?2";
const FENCE_ROWS: &str = "UPDATE tine_ledger SET fence_epoch = ?3, fence_nonce = ?4, fence_generation = ?5
    WHERE topology = ?1 AND grp = ?2";
const WRITE_PLAN: &str = "INSERT INTO tine_transactions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11,
    strftime('%Y-%m-%dT%H:%M:%fZ', 'now')) ON CONFLICT (topology, grp, txid) DO UPDATE SET previous = excluded.previous,
    chain = excluded.chain, manifest = excluded.manifest, attempt_epoch = excluded.attempt_epoch,
    attempt_nonce = excluded.attempt_nonce, attempt_generation = excluded.attempt_generation, plan = excluded.plan,
    ranges = excluded.ranges, written_at = excluded.written_at";
const DELETE_ABOVE: &str = "DELETE FROM tine_transactions WHERE topology = ?1 AND grp = ?2 AND txid > ?3";
/// Keeps 1,000 or an hour, whichever is more, and whatever a ledger row may still need. Looks at the oldest few only,
/// so that a long history does not cost every commit; more are deleted than are written.
const TRIM: &str = "DELETE FROM tine_transactions WHERE topology = ?1 AND grp = ?2
    AND txid IN (SELECT txid FROM tine_transactions WHERE topology = ?1 AND grp = ?2 ORDER BY txid LIMIT 16)
    AND txid < ?3 - 1000 AND written_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 hour')
    AND txid < (SELECT min(txid) FROM tine_ledger WHERE topology = ?1 AND grp = ?2)";

/// A state as the group's row lists it; its place in the list is its [`StateIndex`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListedState {
    pub(crate) name: String,
    pub(crate) table: String,
    pub(crate) shards: u16,
}

impl ListedState {
    /// The states of a group as they are to be listed.
    pub(crate) fn all_of(group: &GroupSpec) -> Vec<ListedState> {
        let listed = |state: &tine_state::StateSpec| ListedState {
            name: state.name.clone(),
            table: state.table.to_string(),
            shards: state.shards,
        };
        group.states.iter().map(listed).collect()
    }
}

/// The group's row with everything that a start looks at.
#[derive(Debug)]
pub(crate) struct StoredGroup {
    pub(crate) row: GroupRow,
    pub(crate) shape: String,
    pub(crate) states: Vec<ListedState>,
}

/// Whose rows are meant, and how its states are numbered.
#[derive(Clone, Debug)]
pub(crate) struct GroupKey {
    pub(crate) topology: String,
    pub(crate) group: String,
    states: Vec<String>,
}

/// What may go wrong here: SQLite says no, or a row is not as tine writes it.
#[derive(Debug)]
pub(crate) enum LedgerError {
    Sql(sqlx::Error),
    Refused(Failure),
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> LedgerError {
        LedgerError::Sql(error)
    }
}

impl From<Failure> for LedgerError {
    fn from(failure: Failure) -> LedgerError {
        LedgerError::Refused(failure)
    }
}

type Answer<T> = Result<T, LedgerError>;

impl GroupKey {
    pub(crate) fn new(group: &GroupSpec) -> GroupKey {
        GroupKey {
            topology: group.topology.clone(),
            group: group.group.clone(),
            states: group.states.iter().map(|state| state.name.clone()).collect(),
        }
    }

    /// Writes a ledger row for every shard, as new.
    pub(crate) async fn insert_rows(&self, connection: &mut SqliteConnection, shards: &[ShardRef]) -> Answer<u64> {
        let query = sqlx::query(NEW_ROWS).bind(&self.topology).bind(&self.group).bind(self.shards_json(shards)?);
        Ok(query.execute(connection).await?.rows_affected())
    }

    /// The group's row.
    pub(crate) async fn read_group(&self, connection: &mut SqliteConnection) -> Answer<Option<StoredGroup>> {
        let query = sqlx::query(GROUP).bind(&self.topology).bind(&self.group);
        let Some(row) = query.fetch_optional(connection).await? else { return Ok(None) };
        let format: i64 = row.try_get("format")?;
        if format != FORMAT {
            return Err(Failure::fatal(format!(
                "topology {:?} was written in format {format} and this version of tine knows {FORMAT}: run the version that wrote it",
                self.topology
            ))
            .into());
        }
        let states: Vec<ListedState> = serde_json::from_str(row.try_get::<&str, _>("states")?).map_err(|error| {
            damaged(&format!("the states of {:?} are not the expected JSON ({error})", self.topology))
        })?;
        Ok(Some(StoredGroup {
            row: GroupRow {
                lineage: hash(&row, "lineage")?.0,
                fingerprint: hash(&row, "fingerprint")?,
                fence: attempt(&row, ["fence_epoch", "fence_nonce", "fence_generation"])?,
                shards: all_shards(&states)?,
            },
            shape: row.try_get("shape")?,
            states,
        }))
    }

    /// Ledger rows in (state, shard) order, these or all.
    pub(crate) async fn read_rows(
        &self,
        connection: &mut SqliteConnection,
        shards: Option<&[ShardRef]>,
    ) -> Answer<Vec<LedgerRow>> {
        let wanted = shards.map(|shards| self.shards_json(shards)).transpose()?;
        let query = sqlx::query(ROWS).bind(&self.topology).bind(&self.group).bind(wanted);
        let found = query.fetch_all(connection).await?;
        let mut rows = found.iter().map(|row| self.ledger_row(row)).collect::<Answer<Vec<_>>>()?;
        rows.sort_by_key(|row| row.at);
        Ok(rows)
    }

    fn ledger_row(&self, row: &SqliteRow) -> Answer<LedgerRow> {
        let name: &str = row.try_get("state")?;
        let Some(index) = self.states.iter().position(|state| state == name) else {
            return Err(
                damaged(&format!("the ledger has a row of state {name:?}, which the group does not list")).into()
            );
        };
        Ok(LedgerRow {
            at: ShardRef { state: state_index(index)?, shard: Shard(row.try_get("shard")?) },
            fence: attempt(row, ["fence_epoch", "fence_nonce", "fence_generation"])?,
            txid: TxId(number(row, "txid")?),
            chain: hash(row, "chain")?,
            manifest: hash(row, "manifest")?,
            attempt: attempt(row, ["attempt_epoch", "attempt_nonce", "attempt_generation"])?,
        })
    }

    /// The transactions from `lowest` on, in order.
    pub(crate) async fn read_transactions(
        &self,
        connection: &mut SqliteConnection,
        lowest: TxId,
    ) -> Answer<Vec<TransactionRow>> {
        let query = sqlx::query(TRANSACTIONS).bind(&self.topology).bind(&self.group).bind(lowest.0.cast_signed());
        let found = query.fetch_all(connection).await?;
        let transaction = |row: &SqliteRow| {
            Ok(TransactionRow {
                txid: TxId(number(row, "txid")?),
                previous: hash(row, "previous")?,
                chain: hash(row, "chain")?,
                manifest: hash(row, "manifest")?,
                attempt: attempt(row, ["attempt_epoch", "attempt_nonce", "attempt_generation"])?,
                plan: row.try_get("plan")?,
                ranges: row.try_get("ranges")?,
            })
        };
        found.iter().map(transaction).collect()
    }

    /// The compare-and-set; says how many rows moved.
    pub(crate) async fn advance(&self, connection: &mut SqliteConnection, advance: &Advance) -> Answer<u64> {
        let query = sqlx::query(ADVANCE).bind(&self.topology).bind(&self.group).bind(advance.txid.0.cast_signed());
        let query = query.bind(bytes(advance.chain)).bind(bytes(advance.manifest));
        let query = bind_attempt(query, advance.attempt).bind(advance.txid.previous().0.cast_signed());
        let query = query.bind(bytes(advance.previous)).bind(self.shards_json(&advance.shards)?);
        Ok(query.execute(connection).await?.rows_affected())
    }

    /// Writes the fence everywhere; says into how many ledger rows.
    pub(crate) async fn write_fence(&self, connection: &mut SqliteConnection, fence: Attempt) -> Answer<u64> {
        let group = sqlx::query(FENCE_GROUP).bind(&self.topology).bind(&self.group);
        bind_attempt(group, fence).execute(&mut *connection).await?;
        let rows = sqlx::query(FENCE_ROWS).bind(&self.topology).bind(&self.group);
        Ok(bind_attempt(rows, fence).execute(connection).await?.rows_affected())
    }

    /// Writes a transaction's row, deletes those above it, and trims history; says how many rows were written (one).
    pub(crate) async fn write_plan(&self, connection: &mut SqliteConnection, row: &TransactionRow) -> Answer<u64> {
        let txid = row.txid.0.cast_signed();
        let query = sqlx::query(WRITE_PLAN).bind(&self.topology).bind(&self.group).bind(txid);
        let query = query.bind(bytes(row.previous)).bind(bytes(row.chain)).bind(bytes(row.manifest));
        let query = bind_attempt(query, row.attempt).bind(&row.plan).bind(&row.ranges);
        let written = query.execute(&mut *connection).await?.rows_affected();
        for clean_up in [DELETE_ABOVE, TRIM] {
            sqlx::query(clean_up).bind(&self.topology).bind(&self.group).bind(txid).execute(&mut *connection).await?;
        }
        Ok(written)
    }

    fn shards_json(&self, shards: &[ShardRef]) -> Result<String, Failure> {
        let named = |at: &ShardRef| self.states.get(usize::from(at.state.0)).map(|name| (name.as_str(), at.shard.0));
        let Some(named) = shards.iter().map(named).collect::<Option<Vec<_>>>() else {
            return Err(Failure::fatal(format!(
                "shards of a state that group {:?} does not have: {shards:?}",
                self.group
            )));
        };
        serde_json::to_string(&named).map_err(|error| Failure::fatal(format!("shards as JSON: {error}")))
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

fn bind_attempt<'q>(query: Query<'q>, attempt: Attempt) -> Query<'q> {
    query
        .bind(attempt.epoch.0.cast_signed())
        .bind(attempt.nonce.0.cast_signed())
        .bind(attempt.generation.0.cast_signed())
}

/// A hash as it is stored.
pub(crate) fn bytes(hash: Hash128) -> Vec<u8> {
    hash.to_bytes().to_vec()
}

/// A hash back from its column.
pub(crate) fn hash(row: &SqliteRow, column: &str) -> Answer<Hash128> {
    let stored: &[u8] = row.try_get(column)?;
    Hash128::from_bytes(stored)
        .ok_or_else(|| damaged(&format!("column {column} holds {} bytes instead of 16", stored.len())).into())
}

fn number(row: &SqliteRow, column: &str) -> Answer<u64> {
    Ok(row.try_get::<i64, _>(column)?.cast_unsigned())
}

fn attempt(row: &SqliteRow, [epoch, nonce, generation]: [&str; 3]) -> Answer<Attempt> {
    let (epoch, nonce, generation) = (number(row, epoch)?, number(row, nonce)?, number(row, generation)?);
    Ok(Attempt::new(Epoch(epoch), Nonce(nonce), Generation(generation)))
}

fn state_index(index: usize) -> Result<StateIndex, Failure> {
    u16::try_from(index).map(StateIndex).map_err(|_| damaged("more than 65,536 states are listed"))
}

fn all_shards(states: &[ListedState]) -> Result<Vec<ShardRef>, Failure> {
    let mut shards = Vec::new();
    for (index, listed) in states.iter().enumerate() {
        let state = state_index(index)?;
        shards.extend((0..listed.shards).map(|shard| ShardRef { state, shard: Shard(shard) }));
    }
    Ok(shards)
}

fn damaged(what: &str) -> Failure {
    Failure::fatal(format!("tine's tables are not as tine left them: {what}; restore them from a backup"))
}
