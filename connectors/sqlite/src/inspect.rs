//! Compares a table that is there with what a state needs, and says exactly what differs.

use sqlx::SqliteConnection;
use tine_core::failure::Failure;
use tine_state::{ColumnType, TableSpec};

/// What SQLite tells about a table.
#[derive(Debug)]
pub(crate) struct FoundTable {
    kind: String,
    strict: bool,
    columns: Vec<FoundColumn>,
    /// The columns of unique indexes that are not compared byte by byte. `ON CONFLICT` may take any unique index over
    /// the key columns for its own, whatever its collation.
    folded: Vec<FoldedColumn>,
}

#[derive(Debug)]
struct FoundColumn {
    name: String,
    kind: String,
    not_null: bool,
    /// Its place in the primary key from 1; 0 outside.
    pk: i64,
    /// Not 0 for columns that are computed.
    hidden: i64,
}

#[derive(Debug)]
struct FoldedColumn {
    index: String,
    /// Made by the table's own PRIMARY KEY.
    primary: bool,
    column: String,
    collation: String,
}

/// A column in the words of a definition.
type Described = (String, String);

impl FoundTable {
    /// The table of this name, if there is one.
    pub(crate) async fn find(connection: &mut SqliteConnection, name: &str) -> Result<Option<FoundTable>, sqlx::Error> {
        let list = "SELECT type, strict, wr FROM pragma_table_list WHERE schema = 'main' AND lower(name) = ?1";
        let found = sqlx::query_as::<_, (String, bool, bool)>(list).bind(name).fetch_optional(&mut *connection).await?;
        let Some((kind, strict, without_rowid)) = found else { return Ok(None) };
        let columns = "SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo(?1) ORDER BY cid";
        let columns = sqlx::query_as(columns).bind(name).fetch_all(&mut *connection).await?;
        let mut columns: Vec<FoundColumn> = columns.into_iter().map(FoundColumn::from_row).collect();
        let is_rowid = |column: &FoundColumn| column.pk == 1 && !without_rowid && column.kind == "INTEGER";
        if columns.iter().filter(|column| column.pk > 0).count() == 1 {
            // `INTEGER PRIMARY KEY` is another name of the rowid, which is never NULL.
            columns.iter_mut().filter(|column| is_rowid(column)).for_each(|column| column.not_null = true);
        }
        let folded = "SELECT l.name, l.origin = 'pk', lower(x.name), x.coll
            FROM pragma_index_list(?1) AS l, pragma_index_xinfo(l.name) AS x
            WHERE l.\"unique\" AND x.key AND x.cid >= 0 AND x.coll <> 'BINARY' ORDER BY l.name, x.seqno";
        let folded = sqlx::query_as(folded).bind(name).fetch_all(connection).await?;
        let folded = folded.into_iter().map(FoldedColumn::from_row).collect();
        Ok(Some(FoundTable { kind, strict, columns, folded }))
    }

    /// Refuses a table that is not what the state needs.
    pub(crate) fn check(&self, spec: &TableSpec) -> Result<(), Failure> {
        let differences = self.differences(spec);
        if differences.is_empty() {
            return Ok(());
        }
        Err(Failure::fatal(format!(
            "table {spec} is not what the state needs: {}; choose another table or change this one to: {}",
            differences.join("; "),
            definition(spec)
        )))
    }

    fn differences(&self, spec: &TableSpec) -> Vec<String> {
        if self.kind != "table" {
            return vec![format!("expected a table, found a {}", self.kind)];
        }
        let expected = expected_columns(spec);
        let found: Vec<Described> = self.columns.iter().map(FoundColumn::describe).collect();
        let mut differences = Vec::new();
        for (name, wanted) in &expected {
            match found.iter().find(|(other, _)| other == name) {
                Some((_, kind)) if kind == wanted => {}
                Some((_, kind)) => differences.push(format!("column {name}: expected {wanted}, found {kind}")),
                None => differences.push(format!("column {name}: expected {wanted}, found no such column")),
            }
        }
        for (name, kind) in found.iter().filter(|(name, _)| !expected.iter().any(|(other, _)| other == name)) {
            differences.push(format!("column {name}: expected no such column, found {kind}"));
        }
        let wanted: Vec<&str> = spec.keys.iter().map(|key| key.name.as_str()).collect();
        let key = self.key();
        if key != wanted {
            let (wanted, key) = (wanted.join(", "), key.join(", "));
            differences.push(format!("primary key: expected ({wanted}), found ({key})"));
        }
        for FoldedColumn { index, primary, column, collation } in &self.folded {
            match primary {
                true => differences.push(format!("primary key: expected COLLATE BINARY, found COLLATE {collation}")),
                false if wanted.contains(&column.as_str()) => differences.push(format!(
                    "unique index {index}: expected {column} COLLATE BINARY, found COLLATE {collation}, which takes \
                     different keys for one: drop this index"
                )),
                false => {}
            }
        }
        if !self.strict {
            differences.push("expected a STRICT table, found one without STRICT".to_string());
        }
        differences
    }

    fn key(&self) -> Vec<String> {
        let mut key: Vec<&FoundColumn> = self.columns.iter().filter(|column| column.pk > 0).collect();
        key.sort_by_key(|column| column.pk);
        key.iter().map(|column| column.name.to_ascii_lowercase()).collect()
    }
}

impl FoldedColumn {
    fn from_row((index, primary, column, collation): (String, bool, String, String)) -> FoldedColumn {
        FoldedColumn { index, primary, column, collation }
    }
}

impl FoundColumn {
    fn from_row((name, kind, not_null, pk, hidden): (String, String, bool, i64, i64)) -> FoundColumn {
        FoundColumn { name, kind, not_null, pk, hidden }
    }

    fn describe(&self) -> Described {
        let null = if self.not_null { " NOT NULL" } else { "" };
        let computed = if self.hidden != 0 { " GENERATED" } else { "" };
        (self.name.to_ascii_lowercase(), format!("{}{null}{computed}", self.kind.to_ascii_uppercase()))
    }
}

fn sql_type(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Text => "TEXT",
        ColumnType::Bytes => "BLOB",
        ColumnType::BigInt => "INTEGER",
    }
}

fn expected_columns(spec: &TableSpec) -> Vec<Described> {
    let keys = spec.keys.iter().map(|key| (&key.name, key.kind));
    let columns = keys.chain(spec.values.iter().map(|value| (&value.name, value.kind)));
    columns.map(|(name, kind)| (name.as_str().to_string(), format!("{} NOT NULL", sql_type(kind)))).collect()
}

/// The statement that creates a state's table. Without a rowid: rows are found by their key alone, and are short.
pub(crate) fn definition(spec: &TableSpec) -> String {
    let columns = expected_columns(spec).into_iter().map(|(name, kind)| format!("\"{name}\" {kind}"));
    let columns = columns.collect::<Vec<_>>().join(", ");
    let key = spec.keys.iter().map(|key| key.name.to_string()).collect::<Vec<_>>().join(", ");
    format!("CREATE TABLE {} ({columns}, PRIMARY KEY ({key})) STRICT, WITHOUT ROWID", spec.name)
}
