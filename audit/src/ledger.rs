//! What the database promises: up to which offsets the table is exact, and whether ledger and plans agree about it.
//!
//! Nothing here writes, and no procedure of tine's is called: plain selects, in the caller's snapshot.

mod history;
mod plan;

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use self::history::{Entry, History};
pub(crate) use self::history::{Reaches, Start};
use crate::AuditError;

/// The format of tine's tables that this file knows.
const FORMAT: i32 = 1;
/// Findings that are kept; one edit may break every later link.
const FINDINGS_MAX: usize = 50;

/// What ledger and plans say.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The last complete transaction.
    pub(crate) txid: u64,
    /// How far every partition was read by then; `None` when no plan says so.
    pub(crate) reaches: Option<Reaches>,
    /// The oldest transaction whose plan is kept.
    pub(crate) oldest: Option<u64>,
    /// What does not agree.
    pub(crate) findings: Vec<String>,
}

/// Whose ledger, and where.
#[derive(Debug)]
pub(crate) struct Group {
    schema: String,
    topology: String,
    group: String,
    /// Tables by state, with their numbers of shards.
    states: Vec<State>,
}

/// A state of the group.
#[derive(Debug)]
pub(crate) struct State {
    name: String,
    /// `schema.table`.
    pub(crate) table: String,
    shards: i32,
}

/// An identifier in SQL.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Group {
    /// Looks through every schema that has a `tine_groups`, or through `schema` alone.
    pub(crate) async fn find(
        connection: &mut PgConnection,
        topology: &str,
        schema: Option<&str>,
    ) -> Result<Group, AuditError> {
        let schemas: Vec<String> = sqlx::query_scalar(
            "select n.nspname::text from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
             where c.relname = 'tine_groups' and c.relkind in ('r', 'p') order by 1",
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(AuditError::postgres("cannot look for tine_groups"))?;
        let (mut found, mut known) = (Vec::new(), Vec::new());
        for place in schemas.into_iter().filter(|place| schema.is_none_or(|schema| schema == place)) {
            for (name, group, format, states) in groups_of(connection, &place).await? {
                if name == topology {
                    found.push((place.clone(), group, format, states));
                } else {
                    known.push(name);
                }
            }
        }
        let several = found.len() > 1;
        let (schema, group, format, states) = found.pop().ok_or_else(|| not_there(topology, &known))?;
        if several {
            let why = format!("several schemas have a topology {topology}: name one of them with --schema");
            return Err(AuditError::not_possible(why));
        }
        if format != FORMAT {
            let why =
                format!("the tables of {topology} have format {format}, this binary reads {FORMAT}: run the newer one");
            return Err(AuditError::not_possible(why));
        }
        let states = states_of(&states).ok_or_else(|| {
            AuditError::not_possible(format!("column states of tine_groups cannot be read for {topology}: {states}"))
        })?;
        Ok(Group { schema, topology: topology.to_owned(), group, states })
    }

    /// The state that was asked for, or the only one beside the dead letters.
    pub(crate) fn state(&self, table: Option<&str>) -> Result<&State, AuditError> {
        let users: Vec<&State> = self.states.iter().filter(|state| !state.is_dead_letters()).collect();
        let names = || users.iter().map(|state| state.table.as_str()).collect::<Vec<_>>().join(", ");
        let wanted = |state: &&&State| {
            table.is_none_or(|table| state.table == table || state.table.split('.').next_back() == Some(table))
        };
        let mut matching = users.iter().filter(wanted);
        match (matching.next(), matching.next()) {
            (Some(state), None) => Ok(state),
            (None, _) => Err(AuditError::not_possible(format!(
                "topology {} keeps no table {}; it keeps {}",
                self.topology,
                table.unwrap_or("at all"),
                names()
            ))),
            (Some(_), Some(_)) => Err(AuditError::not_possible(format!(
                "topology {} keeps several tables: name one of {} with --table",
                self.topology,
                names()
            ))),
        }
    }

    /// Reads and checks ledger and plans.
    pub(crate) async fn ledger(&self, connection: &mut PgConnection) -> Result<Ledger, AuditError> {
        let mut findings = Findings::default();
        let stand = self.stand(connection, &mut findings).await?;
        let (mut history, mut reaches) = (History::default(), None);
        let mut met = stand.txid == 0;
        let select = AssertSqlSafe(format!(
            "select txid, previous, chain, manifest, plan, ranges::text as ranges from {}.tine_transactions \
             where topology = $1 and grp = $2 order by txid",
            quoted(&self.schema)
        ));
        let mut rows = sqlx::query(select).bind(&self.topology).bind(&self.group).fetch(connection);
        let failed = || AuditError::postgres("cannot read tine_transactions");
        while let Some(row) = rows.try_next().await.map_err(failed())? {
            let entry = entry(&row).map_err(failed())?;
            history.follow(&entry).into_iter().for_each(|finding| findings.add(finding));
            if entry.txid == stand.txid {
                met = true;
                reaches = Some(history.reaches().clone());
                compare(&stand, &entry).into_iter().for_each(|finding| findings.add(finding));
            }
        }
        if !met {
            findings.add(format!("the ledger stands at transaction {}, whose plan is missing", stand.txid));
        }
        if stand.txid == 0 {
            reaches = Some(Reaches::new());
        }
        Ok(Ledger { txid: stand.txid, reaches, oldest: history.first(), findings: findings.told() })
    }

    /// Where the shards stand: what most of them say.
    async fn stand(&self, connection: &mut PgConnection, findings: &mut Findings) -> Result<Stand, AuditError> {
        let select = AssertSqlSafe(format!(
            "select state, shard, txid, chain, manifest from {}.tine_ledger where topology = $1 and grp = $2 order by 1, 2",
            quoted(&self.schema)
        ));
        let failed = || AuditError::postgres("cannot read tine_ledger");
        let rows = sqlx::query(select).bind(&self.topology).bind(&self.group).fetch_all(connection).await;
        let mut stands = BTreeMap::<(String, i32), Stand>::new();
        for row in rows.map_err(failed())? {
            let stand = Stand {
                txid: number(&row, "txid").map_err(failed())?,
                chain: hash(&row, "chain").map_err(failed())?,
                manifest: hash(&row, "manifest").map_err(failed())?,
            };
            let shard = (row.try_get("state").map_err(failed())?, row.try_get("shard").map_err(failed())?);
            stands.insert(shard, stand);
        }
        for state in &self.states {
            let shards = (0..state.shards).filter(|shard| !stands.contains_key(&(state.name.clone(), *shard)));
            shards.for_each(|shard| findings.add(format!("shard {shard} of {} is missing in the ledger", state.name)));
        }
        let mut votes = BTreeMap::<&Stand, usize>::new();
        stands.values().for_each(|stand| *votes.entry(stand).or_default() += 1);
        let most = votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(stand, _)| stand.clone());
        let most = most.ok_or_else(|| AuditError::not_possible(format!("topology {} has no ledger", self.topology)))?;
        for ((state, shard), stand) in stands.iter().filter(|(_, stand)| **stand != most) {
            findings.add(format!("shard {shard} of {state} stands at {stand}, the others at {most}"));
        }
        Ok(most)
    }
}

/// Where a shard stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Stand {
    txid: u64,
    chain: u128,
    manifest: u128,
}

impl std::fmt::Display for Stand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "transaction {} (chain {:032x}, manifest {:032x})", self.txid, self.chain, self.manifest)
    }
}

/// What does not agree, up to a number.
#[derive(Debug, Default)]
struct Findings {
    kept: Vec<String>,
    more: usize,
}

impl Findings {
    fn add(&mut self, finding: String) {
        if self.kept.len() < FINDINGS_MAX {
            self.kept.push(finding);
        } else {
            self.more += 1;
        }
    }

    fn told(mut self) -> Vec<String> {
        if self.more > 0 {
            self.kept.push(format!("and {} more", self.more));
        }
        self.kept
    }
}

impl State {
    fn is_dead_letters(&self) -> bool {
        self.table.split('.').next_back() == Some("tine_dead_letters")
    }
}

/// What the ledger and the plan it stands at say of one another.
fn compare(stand: &Stand, entry: &Entry) -> Vec<String> {
    let Entry { txid, chain, manifest, .. } = entry;
    let mut wrong = Vec::new();
    if stand.chain != *chain {
        let mine = stand.chain;
        wrong
            .push(format!("the ledger stands at transaction {txid} with chain {mine:032x}, its plan has {chain:032x}"));
    }
    if stand.manifest != *manifest {
        let mine = stand.manifest;
        wrong.push(format!("the ledger stands at transaction {txid} with manifest {mine:032x}, not {manifest:032x}"));
    }
    wrong
}

type GroupRow = (String, String, i32, String);

async fn groups_of(connection: &mut PgConnection, schema: &str) -> Result<Vec<GroupRow>, AuditError> {
    let select =
        AssertSqlSafe(format!("select topology, grp, format, states::text from {}.tine_groups", quoted(schema)));
    sqlx::query_as(select)
        .fetch_all(connection)
        .await
        .map_err(AuditError::postgres(format!("cannot read tine_groups in schema {schema}")))
}

fn not_there(topology: &str, known: &[String]) -> AuditError {
    let known = match known {
        [] => "there is none".to_owned(),
        known => format!("there are {}", known.join(", ")),
    };
    AuditError::not_possible(format!("the database knows no topology {topology}; {known}: name it with --topology"))
}

fn states_of(states: &str) -> Option<Vec<State>> {
    let states: serde_json::Value = serde_json::from_str(states).ok()?;
    let state = |state: &serde_json::Value| {
        Some(State {
            name: state.get("name")?.as_str()?.to_owned(),
            table: state.get("table")?.as_str()?.to_owned(),
            shards: i32::try_from(state.get("shards")?.as_i64()?).ok()?,
        })
    };
    states.as_array()?.iter().map(state).collect()
}

fn entry(row: &sqlx::postgres::PgRow) -> Result<Entry, sqlx::Error> {
    Ok(Entry {
        txid: number(row, "txid")?,
        previous: hash(row, "previous")?,
        chain: hash(row, "chain")?,
        manifest: hash(row, "manifest")?,
        plan: row.try_get("plan")?,
        ranges: row.try_get("ranges")?,
    })
}

/// An unsigned number, kept with its bits unchanged.
fn number(row: &sqlx::postgres::PgRow, column: &str) -> Result<u64, sqlx::Error> {
    row.try_get::<i64, _>(column).map(|number| number as u64)
}

fn hash(row: &sqlx::postgres::PgRow, column: &str) -> Result<u128, sqlx::Error> {
    let bytes: Vec<u8> = row.try_get(column)?;
    let length = bytes.len();
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| {
        sqlx::Error::Decode(format!("column {column} holds {length} bytes where a hash of 16 was expected").into())
    })?;
    Ok(u128::from_be_bytes(bytes))
}
