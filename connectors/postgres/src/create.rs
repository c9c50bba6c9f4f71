//! Makes what is missing and checks what is there, in one transaction, before anything is committed.
//!
//! Tine's own tables lie in the schema of the group's first state; the claim on a user's table lies beside that table,
//! so that two topologies which keep their ledgers elsewhere still meet. Creators wait for each other.

mod group;
mod own;
mod table;

use std::sync::Arc;

use sqlx::{Row, postgres::PgRow};
use tine_core::failure::Failure;
use tine_state::{GroupSpec, Ident, TableSpec};

use crate::{
    errors,
    link::{Bound, Link},
    settings::{self, ANSWER_TIMEOUT, COMMIT_TEXT, COMMIT_TIMEOUT, Mode, PROMPT_TIMEOUT, SERVER_VERSION_MIN},
    sqlstate::Meaning,
};

/// Key of the advisory lock under which tables are made.
const CREATE_LOCK: i64 = 0x7469_6e65_6d61_6b65;

/// Where tables are.
pub(crate) struct Schemas {
    /// Of tine's own tables.
    pub(crate) own: Ident,
    /// Of user tables that name none.
    pub(crate) default: Ident,
}

impl Schemas {
    fn of<'a>(&'a self, table: &'a TableSpec) -> &'a Ident {
        table.schema.as_ref().unwrap_or(&self.default)
    }

    /// `schema.name`, unquoted: a table's identity in claims and messages.
    fn canonical(&self, table: &TableSpec) -> String {
        format!("{}.{}", self.of(table).as_str(), table.name.as_str())
    }
}

/// Works out the schemas that a group's names stand for on this connection.
pub(crate) async fn schemas(link: &mut Link, group: &GroupSpec) -> Result<Schemas, Failure> {
    let first = group.states.first().ok_or_else(|| Failure::fatal(format!("{} has no state", group.topology)))?;
    let answer = link.rows(sqlx::query("select current_schema()::text as schema")).await;
    let answer = answer.map_err(|error| errors::before_commit("asking for the schema", &link.address, &error))?;
    let current: Option<String> = answer.first().and_then(|row| row.try_get("schema").ok()).flatten();
    let unqualified = group.states.iter().find(|state| state.table.schema.is_none());
    let default = match (current, unqualified) {
        (Some(current), _) if Ident::new(&current).is_ok() => Ident::new(&current).ok(),
        (current, Some(state)) => {
            let found = current.map_or("none".to_string(), |name| format!("{name:?}"));
            return Err(Failure::fatal(format!(
                "the table {} names no schema and the connection's current_schema() is {found} on {}: write schema.{} \
                 or set search_path",
                state.table, link.address, state.table
            )));
        }
        (_, None) => first.table.schema.clone(),
    };
    let default = default.ok_or_else(|| Failure::fatal("no schema to keep tables in"))?;
    Ok(Schemas { own: first.table.schema.clone().unwrap_or_else(|| default.clone()), default })
}

/// Makes and checks everything of a group. After `Ok` it is durable; after `Err` nothing was changed, or (when the
/// connection broke while committing) everything was.
pub(crate) async fn create(link: &mut Link, group: &GroupSpec) -> Result<(), Failure> {
    link.connect("create").await?;
    check_server(link).await?;
    let schemas = schemas(link, group).await?;
    let mut creation = Creation { link, group, schemas };
    match creation.run().await {
        Ok(()) => creation.commit().await,
        Err(failure) => {
            let _ = creation.link.message(&"rollback".into(), PROMPT_TIMEOUT).await;
            Err(failure)
        }
    }
}

async fn check_server(link: &mut Link) -> Result<(), Failure> {
    let text = "select current_setting('server_version_num')::int4 as version, current_setting('server_version') as name, \
                current_setting('fsync') as fsync, current_setting('full_page_writes') as pages, pg_is_in_recovery() as standby";
    let read = |row: &PgRow| -> Result<(i32, String, String, String, bool), sqlx::Error> {
        let version = (row.try_get("version")?, row.try_get("name")?);
        Ok((version.0, version.1, row.try_get("fsync")?, row.try_get("pages")?, row.try_get("standby")?))
    };
    let answer =
        link.rows(sqlx::query(text)).await.and_then(|rows| rows.first().map_or(Err(sqlx::Error::RowNotFound), read));
    let (version, name, fsync, pages, standby) =
        answer.map_err(|error| errors::before_commit("asking for the server's version", &link.address, &error))?;
    if version < SERVER_VERSION_MIN {
        return Err(Failure::fatal(format!("{} is PostgreSQL {name}: tine needs 13 or newer", link.address)));
    }
    if standby {
        return Err(Failure::transient(format!("{} is a standby: point the URL at the primary", link.address)));
    }
    if fsync == "off" || pages == "off" {
        let settings = format!("fsync = {fsync}, full_page_writes = {pages}");
        tracing::warn!(database = %link.address, settings, "a crash of this server can lose or damage what was committed");
    }
    Ok(())
}

/// One run of `create`.
struct Creation<'a> {
    link: &'a mut Link,
    group: &'a GroupSpec,
    schemas: Schemas,
}

impl Creation<'_> {
    async fn run(&mut self) -> Result<(), Failure> {
        let text = settings::begin_text(Mode::Create, &self.link.names.of(Mode::Create.role()), self.link.control);
        self.message(text, "beginning a transaction").await?;
        self.rows(sqlx::query("select pg_advisory_xact_lock($1)").bind(CREATE_LOCK), "waiting for other creators")
            .await?;
        group::check_spec(self.group, &self.schemas)?;
        for schema in self.all_schemas() {
            self.check_schema(&schema).await?;
        }
        self.make_own_tables().await?;
        let known = self.read_group().await?;
        if let Some(known) = &known {
            group::check_group(self.group, &self.schemas, known)?;
        }
        if known.is_none() {
            self.insert_group().await?;
        }
        // Before the tables are looked at: whose a table is says more than that it has rows.
        self.claim_tables().await?;
        for state in &self.group.states {
            self.make_or_check_table(state, known.is_some()).await?;
        }
        match known {
            Some(known) => self.check_ledger(&known).await,
            None => Ok(()),
        }
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        // Creating again is harmless: an unknown outcome is settled by trying again.
        let committed = self.link.message(&COMMIT_TEXT.into(), COMMIT_TIMEOUT).await;
        committed.map(drop).map_err(|error| errors::before_commit("creating the tables", &self.link.address, &error))
    }

    /// The schemas that hold tables of tine's: the group's own, and each with a claim.
    fn all_schemas(&self) -> Vec<Ident> {
        let tables = self.group.states.iter().map(|state| self.schemas.of(&state.table).clone());
        let mut all: Vec<Ident> = std::iter::once(self.schemas.own.clone()).chain(tables).collect();
        all.sort();
        all.dedup();
        all
    }

    async fn check_schema(&mut self, schema: &Ident) -> Result<(), Failure> {
        let query = "select has_schema_privilege(oid, 'usage') as usable from pg_namespace where nspname = $1";
        let rows = self.rows(sqlx::query(query).bind(schema.as_str().to_string()), "looking for the schema").await?;
        let role = self.link.address.user();
        match rows.first().map(|row| row.try_get("usable")) {
            Some(Ok(true)) => Ok(()),
            Some(_) => Err(Failure::fatal(format!(
                "no right to use the schema {} on {}: grant usage on schema {schema} to {role}",
                schema.as_str(),
                self.link.address
            ))),
            None => Err(Failure::fatal(format!(
                "the schema {} does not exist on {}: create schema {schema}; grant usage, create on schema {schema} to {role}",
                schema.as_str(),
                self.link.address
            ))),
        }
    }

    async fn rows(&mut self, query: Bound<'_>, doing: &str) -> Result<Vec<PgRow>, Failure> {
        let answer = self.link.rows(query).await;
        answer.map_err(|error| self.refused(doing, &error))
    }

    async fn message(&mut self, text: String, doing: &str) -> Result<(), Failure> {
        let text: Arc<str> = text.into();
        let answer = self.link.message(&text, ANSWER_TIMEOUT).await;
        answer.map(drop).map_err(|error| self.refused(doing, &error))
    }

    fn refused(&self, doing: &str, error: &sqlx::Error) -> Failure {
        let failure = errors::before_commit(doing, &self.link.address, error);
        if errors::meaning(error) != Meaning::Rights {
            return failure;
        }
        let (schema, role) = (&self.schemas.own, self.link.address.user());
        Failure::fatal(format!(
            "{failure}: grant usage, create on schema {schema} to {role}, or create the tables beforehand and grant \
             select, insert, update, delete on them to {role}"
        ))
    }

    /// Whether a table is there, by its qualified and quoted name.
    async fn exists(&mut self, name: &str) -> Result<bool, Failure> {
        let query = sqlx::query("select to_regclass($1) is not null as there").bind(name.to_string());
        let rows = self.rows(query, "looking for a table").await?;
        Ok(rows.first().and_then(|row| row.try_get("there").ok()).unwrap_or(false))
    }

    /// Fails unless the role holds these rights, and says which to grant.
    async fn check_rights(&mut self, name: &str, rights: &[&str]) -> Result<(), Failure> {
        let query = "select r from unnest($2::text[]) r where not has_table_privilege(to_regclass($1), r)";
        let wanted: Vec<String> = rights.iter().map(|right| right.to_string()).collect();
        let rows = self.rows(sqlx::query(query).bind(name.to_string()).bind(wanted), "checking rights").await?;
        let missing: Vec<String> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let (missing, role) = (missing.join(", "), self.link.address.user());
        Err(Failure::fatal(format!(
            "missing rights on {name} on {}: grant {missing} on {name} to {role}",
            self.link.address
        )))
    }
}
