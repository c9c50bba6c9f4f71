//! Tine's own tables: their definition, in the one format that this binary knows.

use sqlx::Row;
use tine_core::failure::Failure;
use tine_state::Ident;

use super::Creation;
use crate::sql::qualified;

const NAMES: [&str; 3] = ["tine_groups", "tine_ledger", "tine_transactions"];
const RIGHTS: [&str; 4] = ["select", "insert", "update", "delete"];

/// The definition of one of tine's tables.
fn definition(schema: &Ident, name: &str) -> String {
    let table = qualified(schema, name);
    let owner = "topology text collate \"C\" not null, grp text collate \"C\" not null";
    let attempt = "attempt_epoch bigint not null, attempt_nonce bigint not null, attempt_generation bigint not null";
    let fence = "fence_epoch bigint not null, fence_nonce bigint not null, fence_generation bigint not null";
    match name {
        "tine_groups" => format!(
            "create table {table} ({owner}, format int not null, lineage bytea not null, fingerprint bytea not null, \
             shape text not null, states jsonb not null, {fence}, created_at timestamptz not null default now(), \
             primary key (topology, grp))"
        ),
        "tine_ledger" => format!(
            "create table {table} ({owner}, state text collate \"C\" not null, shard int not null, {fence}, \
             txid bigint not null, chain bytea not null, manifest bytea not null, {attempt}, changed bytea, \
             primary key (topology, grp, state, shard)) with (fillfactor = 50); \
             alter table {table} alter column changed set storage external"
        ),
        "tine_transactions" => format!(
            "create table {table} ({owner}, txid bigint not null, previous bytea not null, chain bytea not null, \
             manifest bytea not null, {attempt}, plan bytea not null, ranges jsonb not null, \
             written_at timestamptz not null default now(), primary key (topology, grp, txid))"
        ),
        _ => format!(
            "create table {table} (table_name text collate \"C\" primary key, {owner}, lineage bytea not null, \
             state text collate \"C\" not null)"
        ),
    }
}

impl Creation<'_> {
    pub(super) async fn make_own_tables(&mut self) -> Result<(), Failure> {
        let own = self.schemas.own.clone();
        for name in NAMES {
            self.make_own_table(&own, name).await?;
        }
        for schema in self.all_schemas() {
            self.make_own_table(&schema, "tine_claims").await?;
        }
        Ok(())
    }

    async fn make_own_table(&mut self, schema: &Ident, name: &str) -> Result<(), Failure> {
        let table = qualified(schema, name);
        if !self.exists(&table).await? {
            let doing = format!("creating {}.{name}", schema.as_str());
            return self.message(definition(schema, name), &doing).await;
        }
        self.check_durable(&table).await?;
        self.check_rights(&table, &RIGHTS).await
    }

    /// A ledger that a crash empties, or that does not survive the session, would let everything be counted again.
    pub(super) async fn check_durable(&mut self, table: &str) -> Result<(), Failure> {
        let query = "select relkind::text as kind, relpersistence::text as persistence, row_security_active(oid) as hidden \
                     from pg_class where oid = to_regclass($1)";
        let rows = self.rows(sqlx::query(query).bind(table.to_string()), "looking at a table").await?;
        let read =
            |column: &str| rows.first().and_then(|row| row.try_get::<String, _>(column).ok()).unwrap_or_default();
        let hidden: bool = rows.first().and_then(|row| row.try_get("hidden").ok()).unwrap_or(false);
        let wrong = match (read("kind").as_str(), read("persistence").as_str()) {
            ("r" | "p", "p") if hidden => "row level security hides rows of it from this role: disable it for the role",
            ("r" | "p", "p") => return Ok(()),
            ("r" | "p", "u") => "it is unlogged, so a crash of the server empties it: alter table … set logged",
            ("r" | "p", _) => "it is a temporary table",
            _ => "it is no table but a view, a foreign table or the like",
        };
        Err(Failure::fatal(format!("{table} on {} cannot keep a state: {wrong}", self.link.address)))
    }
}
