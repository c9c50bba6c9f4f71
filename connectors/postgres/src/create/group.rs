//! The group's row, its ledger rows and its claims: made at the first start, compared at every other.

use std::collections::BTreeSet;

use sqlx::{Row, postgres::PgRow};
use tine_core::{failure::Failure, hash::Hash128};
use tine_state::{ColumnType, GroupSpec, Merge, StateSpec};

use super::{Creation, Schemas};
use crate::{settings::FORMAT, sql::qualified};

/// A group as `tine_groups` knows it.
pub(super) struct KnownGroup {
    fingerprint: Vec<u8>,
    shape: String,
    states: Vec<KnownState>,
}

struct KnownState {
    name: String,
    table: String,
    shards: i32,
}

/// What is wrong with a group whatever the database holds.
pub(super) fn check_spec(group: &GroupSpec, schemas: &Schemas) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for state in &group.states {
        let table = &state.table;
        let columns = table.keys.iter().map(|key| &key.name).chain(table.values.iter().map(|value| &value.name));
        let distinct: BTreeSet<_> = columns.clone().collect();
        if table.keys.is_empty() || table.values.is_empty() || distinct.len() != columns.count() {
            return Err(Failure::fatal(format!("the table {table} needs key and value columns of different names")));
        }
        if let Some(value) =
            table.values.iter().find(|value| value.merge == Merge::Add && value.kind != ColumnType::BigInt)
        {
            return Err(Failure::fatal(format!(
                "column {} of {table} is added up but is no integer",
                value.name.as_str()
            )));
        }
        if !seen.insert(schemas.canonical(table))
            || group.states.iter().filter(|other| other.name == state.name).count() > 1
        {
            return Err(Failure::fatal(format!(
                "two states of {} share the name {} or the table {table}",
                group.topology, state.name
            )));
        }
    }
    Ok(())
}

/// Compares a group with what is known of it.
pub(super) fn check_group(group: &GroupSpec, schemas: &Schemas, known: &KnownGroup) -> Result<(), Failure> {
    let who = format!("{}/{}", group.topology, group.group);
    for state in &group.states {
        let Some(found) = known.states.iter().find(|found| found.name == state.name) else {
            return Err(Failure::fatal(format!(
                "state {} is new to {who}, which exists with the shape\n  {}\nand would become\n  {}\na state cannot be \
                 added to a topology that has run: give the topology another name, or go back",
                state.name,
                indented(&known.shape),
                indented(&group.shape)
            )));
        };
        if found.shards != i32::from(state.shards) {
            return Err(Failure::fatal(format!(
                "state {} of {who} has {} shards and cannot be given {}: the number is fixed when the state is created",
                state.name, found.shards, state.shards
            )));
        }
        let table = schemas.canonical(&state.table);
        if found.table != table {
            return Err(Failure::fatal(format!(
                "state {} of {who} is kept in {}, not in {table}",
                state.name, found.table
            )));
        }
    }
    if let Some(gone) = known.states.iter().find(|found| group.states.iter().all(|state| state.name != found.name)) {
        return Err(Failure::fatal(format!("{who} has a state {} that this topology does not know", gone.name)));
    }
    if known.fingerprint != group.fingerprint.to_bytes() {
        return Err(Failure::fatal(format!(
            "the topology name {} is already used with another shape (or version): there it is\n  {}\nand here it is\n  {}\n\
             give this topology another name, or start the one that was here",
            group.topology,
            indented(&known.shape),
            indented(&group.shape)
        )));
    }
    Ok(())
}

/// A shape as a block of a message.
fn indented(shape: &str) -> String {
    shape.trim_end().replace('\n', "\n  ")
}

impl Creation<'_> {
    /// The group's row, locked, if there is one.
    pub(super) async fn read_group(&mut self) -> Result<Option<KnownGroup>, Failure> {
        let groups = qualified(&self.schemas.own, "tine_groups");
        let format = format!("select format from {groups} where topology = $1 and grp = $2 for update");
        let rows = self.mine(format, "reading the group's format").await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let format: i32 = row.try_get("format").map_err(|error| self.refused("reading the group's format", &error))?;
        if format != FORMAT {
            return Err(Failure::fatal(format!(
                "{}/{} on {} is written in format {format} and this binary knows format {FORMAT}: run the version of tine \
                 that wrote it, or a newer one",
                self.group.topology, self.group.group, self.link.address
            )));
        }
        let of_states = |what: &str| {
            format!("array(select ({what}) from jsonb_array_elements(states) with ordinality s(v, o) order by o)")
        };
        let row = format!(
            "select fingerprint, shape, {} as names, {} as tables, {} as shards from {groups} where topology = $1 and grp = $2",
            of_states("v ->> 'name'"),
            of_states("v ->> 'table'"),
            of_states("(v ->> 'shards')::int4"),
        );
        let rows = self.mine(row, "reading the group's row").await?;
        let known = rows.first().map(known_group).transpose();
        known.map_err(|error| self.refused("reading the group's row", &error))
    }

    async fn mine(&mut self, text: String, doing: &str) -> Result<Vec<PgRow>, Failure> {
        let (topology, group) = (self.group.topology.clone(), self.group.group.clone());
        self.rows(sqlx::query(sqlx::AssertSqlSafe(text)).bind(topology).bind(group), doing).await
    }

    pub(super) async fn insert_group(&mut self) -> Result<(), Failure> {
        let group = self.group;
        let (groups, ledger) =
            (qualified(&self.schemas.own, "tine_groups"), qualified(&self.schemas.own, "tine_ledger"));
        let names: Vec<String> = group.states.iter().map(|state| state.name.clone()).collect();
        let tables: Vec<String> = group.states.iter().map(|state| self.schemas.canonical(&state.table)).collect();
        let shards: Vec<i32> = group.states.iter().map(|state| i32::from(state.shards)).collect();
        let text = format!(
            "insert into {groups} (topology, grp, format, lineage, fingerprint, shape, states, fence_epoch, fence_nonce, fence_generation) \
             values ($1, $2, $3, coalesce((select lineage from {groups} where topology = $1 order by grp limit 1), $4), $5, $6, \
             (select jsonb_agg(jsonb_build_object('name', s.name, 'table', s.tab, 'shards', s.shards) order by s.o) \
             from unnest($7::text[], $8::text[], $9::int4[]) with ordinality s(name, tab, shards, o)), 0, 0, 0)"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(&group.topology)
            .bind(&group.group)
            .bind(FORMAT)
            .bind(Hash128(group.lineage).to_bytes().to_vec())
            .bind(group.fingerprint.to_bytes().to_vec())
            .bind(&group.shape)
            .bind(names.clone())
            .bind(tables)
            .bind(shards.clone());
        self.rows(query, "writing the group's row").await?;
        let text = format!(
            "insert into {ledger} (topology, grp, state, shard, fence_epoch, fence_nonce, fence_generation, txid, chain, manifest, \
             attempt_epoch, attempt_nonce, attempt_generation) \
             select $1, $2, s.name, shard, 0, 0, 0, 0, $5, $5, 0, 0, 0 \
             from unnest($3::text[], $4::int4[]) s(name, shards), generate_series(0, s.shards - 1) shard"
        );
        let nothing = Hash128::default().to_bytes().to_vec();
        let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(&group.topology).bind(&group.group);
        self.rows(query.bind(names).bind(shards).bind(nothing), "writing the ledger").await?;
        // Without statistics the planner takes the ledger for one row, and compares every shard with every shard.
        self.message(format!("analyze {ledger}"), "analyzing the ledger").await
    }

    /// Every shard that the group's row lists must be in the ledger: a missing one is lost rows, not a new state.
    pub(super) async fn check_ledger(&mut self, known: &KnownGroup) -> Result<(), Failure> {
        let ledger = qualified(&self.schemas.own, "tine_ledger");
        let text =
            format!("select state, count(*) as rows from {ledger} where topology = $1 and grp = $2 group by state");
        let rows = self.mine(text, "counting ledger rows").await?;
        for state in &known.states {
            let of_state = |row: &&PgRow| row.try_get::<String, _>("state").is_ok_and(|name| name == state.name);
            let count: i64 = rows.iter().find(of_state).and_then(|row| row.try_get("rows").ok()).unwrap_or(0);
            if count != i64::from(state.shards) {
                return Err(Failure::fatal(format!(
                    "{}/{} lists {} shards of state {} and tine_ledger on {} has {count}: rows were lost, restore them from a \
                     backup of the database",
                    self.group.topology, self.group.group, state.shards, state.name, self.link.address
                )));
            }
        }
        Ok(())
    }

    /// Claims each table, or finds it claimed by this very state.
    pub(super) async fn claim_tables(&mut self) -> Result<(), Failure> {
        for state in self.group.states.iter().filter(|state| !state.table.shared) {
            self.claim(state).await?;
        }
        Ok(())
    }

    async fn claim(&mut self, state: &StateSpec) -> Result<(), Failure> {
        let group = self.group;
        let claims = qualified(self.schemas.of(&state.table), "tine_claims");
        let groups = qualified(&self.schemas.own, "tine_groups");
        let table = self.schemas.canonical(&state.table);
        let text = format!(
            "with mine as (insert into {claims} (table_name, topology, grp, lineage, state) \
             select $1, topology, grp, lineage, $4 from {groups} where topology = $2 and grp = $3 on conflict do nothing) \
             select c.topology, c.grp, c.state, c.lineage = g.lineage as same from {claims} c, {groups} g \
             where c.table_name = $1 and g.topology = $2 and g.grp = $3"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(text));
        let query = query.bind(&table).bind(&group.topology).bind(&group.group).bind(&state.name);
        // What this very statement inserted is not seen by it: no row means that the claim is new.
        let rows = self.rows(query, "claiming the table").await?;
        let Some(row) = rows.first() else { return Ok(()) };
        let read = |column: &str| row.try_get::<String, _>(column).unwrap_or_default();
        let owner = (read("topology"), read("grp"), read("state"));
        let same = row.try_get("same").unwrap_or(false);
        if same && owner == (group.topology.clone(), group.group.clone(), state.name.clone()) {
            return Ok(());
        }
        Err(Failure::fatal(format!(
            "the table {table} on {} belongs to state {} of topology {} (group {}) by tine_claims, not to state {} of {} \
             (group {}): choose another table, or remove the claim if that topology is gone for good",
            self.link.address, owner.2, owner.0, owner.1, state.name, group.topology, group.group
        )))
    }
}

fn known_group(row: &PgRow) -> Result<KnownGroup, sqlx::Error> {
    let (names, tables): (Vec<String>, Vec<String>) = (row.try_get("names")?, row.try_get("tables")?);
    let shards: Vec<i32> = row.try_get("shards")?;
    let states = names.into_iter().zip(tables).zip(shards);
    let states = states.map(|((name, table), shards)| KnownState { name, table, shards });
    Ok(KnownGroup { fingerprint: row.try_get("fingerprint")?, shape: row.try_get("shape")?, states: states.collect() })
}
