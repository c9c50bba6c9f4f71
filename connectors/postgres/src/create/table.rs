//! The user's tables: made when missing, compared column by column when there.

use sqlx::{Row, postgres::PgRow};
use tine_core::failure::Failure;
use tine_state::{ColumnType, StateSpec, TableSpec};

use super::Creation;
use crate::{settings::FILLFACTOR, sql::qualified};

/// A column as the catalog describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FoundColumn {
    name: String,
    kind: String,
    required: bool,
    /// The server works its values out, or refuses given ones.
    generated: bool,
    /// Equal only when the bytes are.
    deterministic: bool,
}

fn type_name(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Text => "text",
        ColumnType::Bytes => "bytea",
        ColumnType::BigInt => "bigint",
    }
}

fn definition(table: &TableSpec, name: &str) -> String {
    let kind = |kind: ColumnType| match kind {
        ColumnType::Text => "text collate \"C\"",
        other => type_name(other),
    };
    let keys = table.keys.iter().map(|key| format!("{} {} not null", key.name, kind(key.kind)));
    let values = table.values.iter().map(|value| format!("{} {} not null", value.name, kind(value.kind)));
    let columns: Vec<String> = keys.chain(values).collect();
    let key: Vec<String> = table.keys.iter().map(|key| key.name.to_string()).collect();
    let (columns, key) = (columns.join(", "), key.join(", "));
    format!("create table {name} ({columns}, primary key ({key})) with (fillfactor = {FILLFACTOR})")
}

/// A unique index that compares a key column in another way than the column itself. `ON CONFLICT` takes every unique
/// index over the key columns for its arbiter, whatever its collation, so that one beside the right key merges keys.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StrayIndex {
    name: String,
    column: String,
    /// The collation or operator class it compares by.
    by: String,
}

/// What differs between the table that is wanted and the one that is there; empty when nothing does.
fn differences(table: &TableSpec, columns: &[FoundColumn], keys: &[Vec<String>], stray: &[StrayIndex]) -> Vec<String> {
    let key_columns = table.keys.iter().map(|key| (key.name.as_str(), key.kind, true));
    let wanted: Vec<_> =
        key_columns.chain(table.values.iter().map(|value| (value.name.as_str(), value.kind, false))).collect();
    let mut differ = Vec::new();
    for (name, kind, is_key) in &wanted {
        let wanted = type_name(*kind);
        let Some(found) = columns.iter().find(|column| column.name == *name) else {
            differ.push(format!("column {name}: expected {wanted} not null, found none"));
            continue;
        };
        let found_null = if found.required { "not null" } else { "nullable" };
        if found.kind != wanted || !found.required {
            differ.push(format!("column {name}: expected {wanted} not null, found {} {found_null}", found.kind));
        }
        if found.generated {
            differ.push(format!("column {name}: expected a plain column, found a generated one"));
        }
        if *is_key && !found.deterministic {
            differ.push(format!(
                "column {name}: expected a deterministic collation, found one that takes different keys for equal"
            ));
        }
    }
    for column in columns.iter().filter(|column| wanted.iter().all(|(name, ..)| *name != column.name)) {
        differ.push(format!("column {}: expected none of this name, found {}", column.name, column.kind));
    }
    let key: Vec<&str> = table.keys.iter().map(|key| key.name.as_str()).collect();
    if !keys.iter().any(|found| *found == key) {
        let found: Vec<String> = keys.iter().map(|found| format!("({})", found.join(", "))).collect();
        let found = if found.is_empty() { "none".to_string() } else { found.join(" and ") };
        differ.push(format!("key: expected a primary key or unique index over ({}), found {found}", key.join(", ")));
    }
    for StrayIndex { name, column, by } in stray.iter().filter(|index| key.contains(&index.column.as_str())) {
        differ.push(format!(
            "unique index {name}: it compares {column} by {by}, not as the column itself, and could take different keys \
             for one; drop this index"
        ));
    }
    differ
}

impl Creation<'_> {
    /// `group_exists`: then a missing table is lost rows, not a new state.
    pub(super) async fn make_or_check_table(&mut self, state: &StateSpec, group_exists: bool) -> Result<(), Failure> {
        let table = &state.table;
        let name = qualified(self.schemas.of(table), table.name.as_str());
        if !self.exists(&name).await? {
            if group_exists {
                return Err(Failure::fatal(format!(
                    "the table {table} of state {} is gone from {} while its ledger is still there: restore it from a \
                     backup, or drop the group's rows from tine's tables to begin anew",
                    state.name, self.link.address
                )));
            }
            return self.message(definition(table, &name), &format!("creating the table {table}")).await;
        }
        self.check_durable(&name).await?;
        self.check_rights(&name, &["select", "insert", "update"]).await?;
        let columns = self.found_columns(&name).await?;
        let keys = self.found_keys(&name).await?;
        let stray = self.stray_indexes(&name).await?;
        let differ = differences(table, &columns, &keys, &stray);
        if !differ.is_empty() {
            return Err(Failure::fatal(format!(
                "the table {table} on {} is not what state {} needs: {}; alter or drop it, or choose another name",
                self.link.address,
                state.name,
                differ.join("; ")
            )));
        }
        if !group_exists && !table.adopt && !table.shared {
            self.check_empty(table, &name).await?;
        }
        self.advise(&name).await
    }

    /// A row that is updated wants room for its new version on the same page.
    async fn advise(&mut self, name: &str) -> Result<(), Failure> {
        let query = "select coalesce((select option_value::int4 from pg_options_to_table(reloptions) \
                     where option_name = 'fillfactor'), 100) as fillfactor from pg_class where oid = to_regclass($1)";
        let rows = self.rows(sqlx::query(query).bind(name.to_string()), "reading the table's fillfactor").await?;
        let fillfactor: i32 = rows.first().and_then(|row| row.try_get("fillfactor").ok()).unwrap_or(FILLFACTOR);
        if fillfactor > FILLFACTOR {
            tracing::info!(
                "{name} on {} has fillfactor = {fillfactor}: commits cost a third less with alter table {name} set \
                 (fillfactor = {FILLFACTOR}); rows that are there follow as they are updated, or by vacuum full {name} \
                 while nobody needs it",
                self.link.address
            );
        }
        Ok(())
    }

    async fn check_empty(&mut self, table: &TableSpec, name: &str) -> Result<(), Failure> {
        let query = sqlx::query(sqlx::AssertSqlSafe(format!("select exists (select from {name}) as filled")));
        let rows = self.rows(query, "looking for rows").await?;
        match rows.first().map(|row| row.try_get("filled")) {
            Some(Ok(false)) => Ok(()),
            _ => Err(Failure::fatal(format!(
                "the table {table} on {} has rows before the first transaction: say `adopt` to take them as the starting \
                 point, or empty it",
                self.link.address
            ))),
        }
    }

    async fn found_columns(&mut self, name: &str) -> Result<Vec<FoundColumn>, Failure> {
        let query = "select a.attname::text as name, format_type(a.atttypid, a.atttypmod) as kind, a.attnotnull as required, \
                     (a.attgenerated <> '' or a.attidentity = 'a') as generated, \
                     coalesce((select c.collisdeterministic from pg_collation c where c.oid = a.attcollation), true) as deterministic \
                     from pg_attribute a where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped order by a.attnum";
        let rows = self.rows(sqlx::query(query).bind(name.to_string()), "reading the table's columns").await?;
        let read = |row: &PgRow| -> Result<FoundColumn, sqlx::Error> {
            Ok(FoundColumn {
                name: row.try_get("name")?,
                kind: row.try_get("kind")?,
                required: row.try_get("required")?,
                generated: row.try_get("generated")?,
                deterministic: row.try_get("deterministic")?,
            })
        };
        let columns = rows.iter().map(read).collect::<Result<_, _>>();
        columns.map_err(|error| self.refused("reading the table's columns", &error))
    }

    /// The columns of each unique index that `ON CONFLICT` can use, in the index's order.
    async fn found_keys(&mut self, name: &str) -> Result<Vec<Vec<String>>, Failure> {
        let query = "select array(select a.attname::text from unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) with ordinality k(n, o) \
                     join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.n order by k.o) as columns \
                     from pg_index i where i.indrelid = to_regclass($1) and i.indisunique and i.indisvalid and i.indimmediate \
                     and i.indpred is null and i.indexprs is null order by i.indisprimary desc, i.indexrelid";
        let rows = self.rows(sqlx::query(query).bind(name.to_string()), "reading the table's keys").await?;
        let keys = rows.iter().map(|row| row.try_get("columns")).collect::<Result<_, _>>();
        keys.map_err(|error| self.refused("reading the table's keys", &error))
    }

    /// Unique indexes with a column under a collation that is not the column's own, or with another equality than the
    /// type's (`bpchar_ops` ignores blanks at the end). Partial ones and those with more or fewer columns than the key
    /// are among them: what they do not merge, they would refuse later.
    async fn stray_indexes(&mut self, name: &str) -> Result<Vec<StrayIndex>, Failure> {
        let query = "select i.indexrelid::regclass::text as name, a.attname::text as column, case \
                     when i.indcollation[k.n] <> a.attcollation then 'collation ' || coalesce((select \
                     quote_ident(c.collname) from pg_collation c where c.oid = i.indcollation[k.n]), '?') \
                     else 'operator class ' || quote_ident(o.opcname) end as by \
                     from pg_index i cross join lateral generate_series(0, i.indnkeyatts - 1) k(n) \
                     join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[k.n] \
                     join pg_opclass o on o.oid = i.indclass[k.n] \
                     where i.indrelid = to_regclass($1) and i.indisunique and not i.indisexclusion \
                     and (i.indcollation[k.n] <> a.attcollation or not exists (select from pg_amop p \
                     where p.amopfamily = o.opcfamily and p.amopstrategy = 3 and p.amoplefttype = a.atttypid \
                     and p.amoprighttype = a.atttypid and o.opcintype = a.atttypid \
                     and p.amopopr in ('pg_catalog.=(text,text)'::regoperator, 'pg_catalog.=(bytea,bytea)'::regoperator, \
                     'pg_catalog.=(bigint,bigint)'::regoperator))) order by i.indexrelid, k.n";
        let rows = self.rows(sqlx::query(query).bind(name.to_string()), "reading the table's unique indexes").await?;
        let read = |row: &PgRow| -> Result<StrayIndex, sqlx::Error> {
            Ok(StrayIndex { name: row.try_get("name")?, column: row.try_get("column")?, by: row.try_get("by")? })
        };
        let indexes = rows.iter().map(read).collect::<Result<_, _>>();
        indexes.map_err(|error| self.refused("reading the table's unique indexes", &error))
    }
}

#[cfg(test)]
mod tests {
    use tine_state::{Ident, KeyColumn, Merge, ValueColumn};

    use super::*;

    fn words() -> TableSpec {
        let name = |name: &str| Ident::new(name).unwrap();
        TableSpec {
            schema: None,
            name: name("words"),
            keys: vec![KeyColumn { name: name("word"), kind: ColumnType::Text }],
            values: vec![ValueColumn { name: name("n"), kind: ColumnType::BigInt, merge: Merge::Add }],
            adopt: false,
            shared: false,
        }
    }

    fn column(name: &str, kind: &str) -> FoundColumn {
        let (name, kind) = (name.to_string(), kind.to_string());
        FoundColumn { name, kind, required: true, generated: false, deterministic: true }
    }

    #[test]
    fn every_difference_is_named_with_both_sides() {
        let key = vec![vec!["word".to_string()]];
        assert!(differences(&words(), &[column("n", "bigint"), column("word", "text")], &key, &[]).is_empty());
        let loose = FoundColumn { required: false, ..column("n", "bigint") };
        let lax = FoundColumn { deterministic: false, ..column("word", "text") };
        for (columns, keys, said) in [
            (vec![column("word", "text")], &key, "column n: expected bigint not null, found none"),
            (vec![column("word", "text"), column("n", "integer")], &key, "found integer not null"),
            (vec![column("word", "text"), loose], &key, "expected bigint not null, found bigint nullable"),
            (vec![column("word", "character varying(10)"), column("n", "bigint")], &key, "found character varying(10)"),
            (vec![lax, column("n", "bigint")], &key, "deterministic"),
            (
                vec![column("word", "text"), column("n", "bigint"), column("at", "date")],
                &key,
                "column at: expected none",
            ),
            (vec![column("word", "text"), column("n", "bigint")], &vec![], "over (word), found none"),
        ] {
            let differ = differences(&words(), &columns, keys, &[]);
            assert!(differ.len() == 1 && differ[0].contains(said), "{said}: {differ:?}");
        }
    }
}
