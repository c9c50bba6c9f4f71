//! Copies the audited table out of the snapshot into a file, in key order.

use futures_util::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::AuditError;
use crate::ledger::quoted;
use crate::record::{KeyType, Part, shown};
use crate::runs::{Run, RunWriter};

/// A table and what of it is compared.
#[derive(Debug)]
pub(crate) struct Table {
    /// As SQL, quoted.
    name: String,
    keys: Vec<(String, KeyType)>,
    values: Vec<String>,
}

impl Table {
    /// Looks at the columns: `values` are those that aggregate, all others are the key, in the order given or the table's.
    pub(crate) async fn look(
        connection: &mut PgConnection,
        table: &str,
        keys: &[String],
        values: &[String],
    ) -> Result<Table, AuditError> {
        let (schema, name) = table.split_once('.').unwrap_or(("public", table));
        let columns: Vec<(String, String)> = sqlx::query_as(
            "select a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod) from pg_catalog.pg_attribute a \
             join pg_catalog.pg_class c on c.oid = a.attrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
             where n.nspname = $1 and c.relname = $2 and a.attnum > 0 and not a.attisdropped order by a.attnum",
        )
        .bind(schema)
        .bind(name)
        .fetch_all(connection)
        .await
        .map_err(AuditError::postgres(format!("cannot look at table {table}")))?;
        let refused = |why: String| AuditError::not_possible(format!("table {table} {why}"));
        let no_column = |name: &str| {
            let there: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
            refused(format!("has no column {name}: it has {}", there.join(", ")))
        };
        if let Some(value) = values.iter().find(|value| !columns.iter().any(|(name, _)| name == *value)) {
            return Err(no_column(value));
        }
        let others = || columns.iter().filter(|(name, _)| !values.contains(name)).map(|(name, _)| name.clone());
        let keys: Vec<String> = if keys.is_empty() { others().collect() } else { keys.to_vec() };
        if let Some(left) = others().find(|name| !keys.contains(name)) {
            return Err(refused(format!("has a column {left}, which is neither key nor value here: name it")));
        }
        let types = keys.iter().map(|key| {
            let found = columns.iter().find(|(name, _)| name == key);
            let (_, found) = found.ok_or_else(|| no_column(key))?;
            let known = key_type(found).ok_or_else(|| refused(format!("has key column {key} of type {found}")))?;
            Ok((key.clone(), known))
        });
        let keys = types.collect::<Result<_, AuditError>>()?;
        let name = format!("{}.{}", quoted(schema), quoted(name));
        Ok(Table { name, keys, values: values.to_vec() })
    }

    /// The types of its key columns.
    pub(crate) fn key_types(&self) -> Vec<KeyType> {
        self.keys.iter().map(|(_, key)| *key).collect()
    }

    /// Copies it, row by row; the database sorts. Returns the run and the number of rows.
    pub(crate) async fn copy(
        &self,
        connection: &mut PgConnection,
        mut run: RunWriter,
    ) -> Result<(Run, u64), AuditError> {
        let failed = || AuditError::postgres(format!("cannot read table {}", self.name));
        let select = AssertSqlSafe(self.select());
        let mut rows = sqlx::query(select).fetch(connection);
        let (mut last, mut count) = (None, 0);
        while let Some(row) = rows.try_next().await.map_err(failed())? {
            let (key, values) = self.row(&row).map_err(failed())?;
            if last.as_ref().is_some_and(|last| *last >= key) {
                return Err(self.disorder(&key));
            }
            run.write(&key, &values)?;
            (last, count) = (Some(key), count + 1);
        }
        Ok((run.finish()?, count))
    }

    fn select(&self) -> String {
        let columns = self.keys.iter().map(|(name, _)| name).chain(&self.values).map(|name| quoted(name));
        let order = self.keys.iter().map(|(name, key)| match key {
            KeyType::Text => format!("{} collate \"C\"", quoted(name)),
            KeyType::Bytes | KeyType::Int => quoted(name),
        });
        let (columns, order) = (columns.collect::<Vec<_>>().join(", "), order.collect::<Vec<_>>().join(", "));
        let order = if order.is_empty() { order } else { format!(" order by {order}") };
        format!("select {columns} from {}{order}", self.name)
    }

    fn row(&self, row: &PgRow) -> Result<(Vec<u8>, Vec<i128>), sqlx::Error> {
        let mut bytes = Vec::new();
        for (nth, (_, key)) in self.keys.iter().enumerate() {
            match key {
                KeyType::Text => Part::Text(row.try_get(nth)?).encode(&mut bytes),
                KeyType::Bytes => Part::Bytes(row.try_get(nth)?).encode(&mut bytes),
                KeyType::Int => Part::Int(row.try_get(nth)?).encode(&mut bytes),
            }
        }
        let values = (0..self.values.len()).map(|nth| row.try_get::<i64, _>(self.keys.len() + nth).map(i128::from));
        Ok((bytes, values.collect::<Result<_, _>>()?))
    }

    fn disorder(&self, key: &[u8]) -> AuditError {
        let (table, key) = (&self.name, shown(key));
        AuditError::not_possible(format!(
            "table {table} holds key {key} twice, or its database's encoding is not UTF8: it needs a unique index over the key"
        ))
    }
}

fn key_type(name: &str) -> Option<KeyType> {
    match name {
        "text" => Some(KeyType::Text),
        "bytea" => Some(KeyType::Bytes),
        "bigint" => Some(KeyType::Int),
        _ => None,
    }
}
