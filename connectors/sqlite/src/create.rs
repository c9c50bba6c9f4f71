//! The start of a group: creates what is missing and refuses what does not fit, in one transaction.

use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use tine_core::failure::Failure;
use tine_state::{ColumnType, GroupSpec, Merge, StateSpec, TableSpec};

use crate::{
    failure::classify,
    file::File,
    inspect::{FoundTable, definition},
    ledger::{self, FORMAT, GroupKey, LedgerError, ListedState, StoredGroup},
};

/// Refuses a group that SQLite could not hold, before anything is opened.
pub(crate) fn check_spec(group: &GroupSpec) -> Result<(), Failure> {
    if group.states.is_empty() {
        return Err(Failure::fatal(format!("group {:?} of topology {:?} has no state", group.group, group.topology)));
    }
    group.states.iter().try_for_each(|state| {
        check_table(&state.table).map_err(|why| {
            Failure::fatal(format!("table {} of state {:?} cannot be used: {why}", state.table, state.name))
        })
    })
}

fn check_table(table: &TableSpec) -> Result<(), String> {
    let name = table.name.as_str();
    if let Some(schema) = &table.schema {
        return Err(format!("SQLite has no schema {:?}; give the table's name alone", schema.as_str()));
    }
    if name.starts_with("sqlite_") || ["tine_groups", "tine_ledger", "tine_transactions", "tine_claims"].contains(&name)
    {
        return Err("the name is taken by the system; choose another".to_string());
    }
    if table.keys.is_empty() || table.values.is_empty() {
        return Err("it needs a key column and a value column at least; name them".to_string());
    }
    let mut names: Vec<&str> = table.keys.iter().map(|key| key.name.as_str()).collect();
    names.extend(table.values.iter().map(|value| value.name.as_str()));
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("two of its columns are named {:?}; rename one", twice[0]));
    }
    match table.values.iter().find(|value| value.merge == Merge::Add && value.kind != ColumnType::BigInt) {
        Some(value) => Err(format!("column {:?} is to be added up and is not an integer", value.name.as_str())),
        None => Ok(()),
    }
}

/// Creates and checks, all or nothing. Durable after `Ok`; nothing has changed after `Err`.
pub(crate) async fn create(connection: &mut SqliteConnection, file: &File, group: &GroupSpec) -> Result<(), Failure> {
    let failed = |error: LedgerError| match error {
        LedgerError::Sql(error) => {
            classify(&error, &format!("creating the tables of topology {:?}", group.topology), file)
        }
        LedgerError::Refused(failure) => failure,
    };
    // Dropping the connection after an error rolls back.
    execute(connection, "BEGIN IMMEDIATE").await.map_err(failed)?;
    inside(connection, group).await.map_err(failed)?;
    execute(connection, "COMMIT").await.map_err(failed)
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> Result<(), LedgerError> {
    sqlx::query(sql).execute(connection).await?;
    Ok(())
}

async fn inside(connection: &mut SqliteConnection, group: &GroupSpec) -> Result<(), LedgerError> {
    for table in ledger::TABLES {
        execute(connection, table).await?;
    }
    let key = GroupKey::new(group);
    match key.read_group(connection).await? {
        None => first_start(connection, group, &key).await,
        Some(stored) => later_start(connection, group, &key, &stored).await,
    }
}

async fn first_start(connection: &mut SqliteConnection, group: &GroupSpec, key: &GroupKey) -> Result<(), LedgerError> {
    if !key.read_rows(connection, None).await?.is_empty() {
        return Err(Failure::fatal(format!(
            "topology {:?} has ledger rows and no row in tine_groups: restore that row from a backup",
            group.topology
        ))
        .into());
    }
    insert_group(connection, group).await?;
    key.insert_rows(connection, &group.shard_refs()).await?;
    for state in &group.states {
        claim(connection, group, state, group.lineage).await?;
        let table = &state.table;
        match FoundTable::find(connection, table.name.as_str()).await? {
            None => {
                sqlx::query(AssertSqlSafe(definition(table))).execute(&mut *connection).await?;
            }
            Some(found) => {
                found.check(table)?;
                if !table.adopt && !table.shared && has_rows(connection, table).await? {
                    return Err(Failure::fatal(format!(
                        "table {table} already has rows that topology {:?} did not write: say `adopt` to go on from them, empty the table, or choose another",
                        group.topology
                    ))
                    .into());
                }
            }
        }
    }
    Ok(())
}

async fn insert_group(connection: &mut SqliteConnection, group: &GroupSpec) -> Result<(), LedgerError> {
    let states = serde_json::to_string(&ListedState::all_of(group))
        .map_err(|error| Failure::fatal(format!("the states as JSON: {error}")))?;
    let insert = "INSERT INTO tine_groups (topology, grp, format, lineage, fingerprint, shape, states, fence_epoch,
        fence_nonce, fence_generation) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, 0)";
    let query = sqlx::query(insert).bind(&group.topology).bind(&group.group).bind(FORMAT);
    let query = query.bind(group.lineage.to_be_bytes().to_vec()).bind(ledger::bytes(group.fingerprint));
    query.bind(&group.shape).bind(states).execute(connection).await?;
    Ok(())
}

async fn has_rows(connection: &mut SqliteConnection, table: &TableSpec) -> Result<bool, LedgerError> {
    let query = format!("SELECT EXISTS (SELECT 1 FROM {})", table.name);
    Ok(sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(connection).await?)
}

/// Claims a state's table, or finds it claimed by this very state; refuses any other owner.
async fn claim(
    connection: &mut SqliteConnection,
    group: &GroupSpec,
    state: &StateSpec,
    lineage: u128,
) -> Result<(), LedgerError> {
    if state.table.shared {
        return Ok(());
    }
    let insert = "INSERT INTO tine_claims VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
    let query = sqlx::query(insert).bind(state.table.name.as_str()).bind(&group.topology).bind(&group.group);
    query.bind(lineage.to_be_bytes().to_vec()).bind(&state.name).execute(&mut *connection).await?;
    let select = "SELECT topology, grp, lineage, state FROM tine_claims WHERE table_name = ?1";
    let row = sqlx::query(select).bind(state.table.name.as_str()).fetch_one(connection).await?;
    let owner: (String, String, String) = (row.try_get("topology")?, row.try_get("grp")?, row.try_get("state")?);
    if owner != (group.topology.clone(), group.group.clone(), state.name.clone()) {
        return Err(Failure::fatal(format!(
            "table {} is owned by topology {:?} (group {}, state {:?}): choose another table for state {:?} of topology {:?}",
            state.table, owner.0, owner.1, owner.2, state.name, group.topology
        ))
        .into());
    }
    if ledger::hash(&row, "lineage")?.0 != lineage {
        return Err(Failure::fatal(format!(
            "table {} is claimed by an earlier life of topology {:?} whose row in tine_groups is gone: restore that row from a backup, or delete the claim from tine_claims and say `adopt`",
            state.table, group.topology
        ))
        .into());
    }
    Ok(())
}

async fn later_start(
    connection: &mut SqliteConnection,
    group: &GroupSpec,
    key: &GroupKey,
    stored: &StoredGroup,
) -> Result<(), LedgerError> {
    check_shape(group, stored)?;
    let found: Vec<_> = key.read_rows(connection, None).await?.iter().map(|row| row.at).collect();
    if found != stored.row.shards {
        return Err(Failure::fatal(format!(
            "topology {:?} lists {} ledger rows and {} of them are there: a state that existed is not a new one; restore the rows from a backup",
            group.topology,
            stored.row.shards.len(),
            found.len()
        ))
        .into());
    }
    for state in &group.states {
        claim(connection, group, state, stored.row.lineage).await?;
        match FoundTable::find(connection, state.table.name.as_str()).await? {
            Some(found) => found.check(&state.table)?,
            None => {
                return Err(Failure::fatal(format!(
                    "table {} is gone, and the ledger of topology {:?} says what was counted in it: restore it from a backup, or start anew under another topology name",
                    state.table, group.topology
                ))
                .into());
            }
        }
    }
    Ok(())
}

/// Refuses a group that is not the one stored under this name.
fn check_shape(group: &GroupSpec, stored: &StoredGroup) -> Result<(), Failure> {
    let differences = differences(&stored.states, &ListedState::all_of(group));
    if differences.is_empty() && stored.row.fingerprint == group.fingerprint {
        return Ok(());
    }
    let mut message = format!("topology name {:?} is already used with another shape", group.topology);
    for difference in differences {
        message.push_str(&format!("; {difference}"));
    }
    message.push_str(&format!(
        "; stored: {}; this program: {}; go back to the stored shape or choose another topology name",
        stored.shape, group.shape
    ));
    Err(Failure::fatal(message))
}

fn differences(stored: &[ListedState], wanted: &[ListedState]) -> Vec<String> {
    let named = |states: &[ListedState], name: &str| states.iter().find(|state| state.name == name).cloned();
    let mut differences = Vec::new();
    for old in stored {
        match named(wanted, &old.name) {
            None => differences.push(format!("state {} is missing", old.name)),
            Some(new) if new.shards != old.shards => {
                differences
                    .push(format!("state {} has {} shards and {} are asked for", old.name, old.shards, new.shards));
            }
            Some(new) if new.table != old.table => {
                differences.push(format!("state {} is kept in table {}, not {}", old.name, old.table, new.table));
            }
            Some(_) => {}
        }
    }
    let new = wanted.iter().filter(|state| named(stored, &state.name).is_none());
    differences.extend(new.map(|state| format!("state {} is new, and states cannot be added yet", state.name)));
    if differences.is_empty() && stored != wanted {
        differences.push("its states come in another order".to_string());
    }
    differences
}
