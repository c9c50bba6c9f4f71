//! What is said about a user's table: rows that are new are inserted, rows that are known updated.
//!
//! One statement could do both (`insert … on conflict`), and does for keys of which nothing is known; but a row that is
//! there costs less to update than to insert in vain. How an update finds its rows is left to the server's planner only
//! in name: see [`settings`](crate::settings) for what a transaction allows it.

use std::sync::Arc;

use tine_state::{ColumnType, Ident, Merge, TableSpec};

use super::{ADVANCE_PARAMETERS, qualified};
use crate::settings::SWEEPING;

/// The statements of one state.
#[derive(Debug)]
pub(crate) struct TableSql {
    /// Its name, for messages.
    pub(crate) name: String,
    /// The types of its value columns.
    pub(crate) values: Vec<ColumnType>,
    /// Inserts rows, or merges them into those that are there.
    pub(crate) upsert: Merging,
    /// Merges rows into those that are there, found one by one through the key's index.
    pub(crate) update: Merging,
    /// The same, found by reading the whole table once; another text, so that it keeps a plan of its own.
    pub(crate) sweep: Merging,
    /// Allows the server to sweep if the table holds at most `$1` bytes; a row comes back when it does.
    pub(crate) allow_sweep: Arc<str>,
    /// Upserts what this transaction has not updated: rows that are gone, or were made anew by others meanwhile.
    pub(crate) fill: Arc<str>,
    /// Stored values by key.
    pub(crate) load: Arc<str>,
    /// The first row whose sum does not fit, with the stored values; `None` when nothing is added up.
    pub(crate) overflow: Option<Arc<str>>,
}

/// A merge as the first statement of a transaction and as a later one.
#[derive(Debug)]
pub(crate) struct Merging {
    /// After the compare-and-set, and only if that moved all ledger rows it names.
    pub(crate) guarded: Arc<str>,
    /// By itself.
    pub(crate) plain: Arc<str>,
}

impl Merging {
    /// `text` takes the number of the data's first parameter and a condition that must hold.
    fn new(compare_and_set: &str, text: impl Fn(usize, Option<&str>) -> String) -> Merging {
        let all_moved = format!("(select count(*) from moved) = ${ADVANCE_PARAMETERS}");
        let guarded = text(ADVANCE_PARAMETERS + 1, Some(&all_moved));
        let guarded = format!("with moved as ({compare_and_set} returning 1) {guarded}");
        Merging { guarded: guarded.into(), plain: text(1, None).into() }
    }
}

impl TableSql {
    pub(super) fn new(table: &TableSpec, default_schema: &Ident, compare_and_set: &str) -> TableSql {
        let schema = table.schema.as_ref().unwrap_or(default_schema);
        let name = qualified(schema, table.name.as_str());
        let update = |from: usize, condition: Option<&str>| update(table, &name, from, condition);
        let sweep = |from: usize, condition: Option<&str>| format!("{} -- sweep", update(from, condition));
        TableSql {
            name: format!("{}.{}", schema.as_str(), table.name.as_str()),
            values: table.values.iter().map(|value| value.kind).collect(),
            upsert: Merging::new(compare_and_set, |from, condition| upsert(table, &name, from, condition)),
            update: Merging::new(compare_and_set, update),
            sweep: Merging::new(compare_and_set, sweep),
            allow_sweep: format!(
                "select {SWEEPING} from pg_relation_size('{name}'::regclass) size where size between 1 and $1"
            )
            .into(),
            fill: fill(table, &name).into(),
            load: load(table, &name).into(),
            overflow: overflow(table, &name).map(Into::into),
        }
    }
}

fn upsert(table: &TableSpec, name: &str, from: usize, condition: Option<&str>) -> String {
    let columns = listed(columns(table), ", ");
    format!(
        "insert into {name} as t ({columns}) select * from {}{} on conflict ({}) do update set {}",
        unnested(table, from),
        condition.map_or(String::new(), |condition| format!(" where {condition}")),
        listed(table.keys.iter().map(|key| &key.name), ", "),
        listed(assignments(table, "excluded"), ", "),
    )
}

fn fill(table: &TableSpec, name: &str) -> String {
    let own = format!("{} and t.xmin = pg_current_xact_id()::xid", same_key(table));
    upsert(table, name, 1, Some(&format!("not exists (select from {name} t where {own})")))
}

fn update(table: &TableSpec, name: &str, from: usize, condition: Option<&str>) -> String {
    format!(
        "update {name} as t set {} from {} where {}{}",
        listed(assignments(table, "u"), ", "),
        unnested(table, from),
        same_key(table),
        condition.map_or(String::new(), |condition| format!(" and {condition}")),
    )
}

/// The rows that are sent, as `u` with the columns of the table.
fn unnested(table: &TableSpec, from: usize) -> String {
    format!("unnest({}) u({})", arrays(table, from, true), listed(columns(table), ", "))
}

fn array_type(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Text => "text[]",
        ColumnType::Bytes => "bytea[]",
        ColumnType::BigInt => "int8[]",
    }
}

fn listed<T: ToString>(items: impl IntoIterator<Item = T>, separator: &str) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(separator)
}

fn columns(table: &TableSpec) -> impl Iterator<Item = &Ident> {
    table.keys.iter().map(|key| &key.name).chain(table.values.iter().map(|value| &value.name))
}

/// The parameters of the key columns, then those of the value columns if wanted.
fn arrays(table: &TableSpec, from: usize, with_values: bool) -> String {
    let values = table.values.iter().filter(|_| with_values).map(|value| value.kind);
    let kinds = table.keys.iter().map(|key| key.kind).chain(values);
    listed(kinds.enumerate().map(|(index, kind)| format!("${}::{}", from + index, array_type(kind))), ", ")
}

/// `new` names the row that is merged into `t`.
fn assignments(table: &TableSpec, new: &'static str) -> impl Iterator<Item = String> {
    table.values.iter().map(move |value| {
        let name = &value.name;
        // Whatever the column's collation: batches are combined by bytes before they come here.
        let bytewise = if value.kind == ColumnType::Text { " collate \"C\"" } else { "" };
        let merged = match value.merge {
            Merge::Add => format!("t.{name} + {new}.{name}"),
            Merge::Min => format!("least(t.{name}{bytewise}, {new}.{name}{bytewise})"),
            Merge::Max => format!("greatest(t.{name}{bytewise}, {new}.{name}{bytewise})"),
            Merge::Replace => format!("{new}.{name}"),
        };
        format!("{name} = {merged}")
    })
}

fn same_key(table: &TableSpec) -> String {
    listed(table.keys.iter().map(|key| format!("t.{0} = u.{0}", key.name)), " and ")
}

fn same_numbered_key(table: &TableSpec) -> String {
    listed(table.keys.iter().enumerate().map(|(index, key)| format!("t.{} = u.k{index}", key.name)), " and ")
}

fn load(table: &TableSpec, name: &str) -> String {
    format!(
        "select u.o, {} from unnest({}) with ordinality u({}, o) join {name} t on {}",
        listed(table.values.iter().map(|value| format!("t.{}", value.name)), ", "),
        arrays(table, 1, false),
        listed((0..table.keys.len()).map(|index| format!("k{index}")), ", "),
        same_numbered_key(table),
    )
}

fn overflow(table: &TableSpec, name: &str) -> Option<String> {
    let added = || table.values.iter().enumerate().filter(|(_, value)| value.merge == Merge::Add);
    added().next()?;
    let too_far = |(index, value): (usize, &tine_state::ValueColumn)| {
        format!("t.{}::numeric + u.v{index} not between -9223372036854775808 and 9223372036854775807", value.name)
    };
    Some(format!(
        "select u.o, {} from unnest({}) with ordinality u({}, {}, o) join {name} t on {} where {} order by u.o limit 1",
        listed(table.values.iter().map(|value| format!("t.{}", value.name)), ", "),
        arrays(table, 1, true),
        listed((0..table.keys.len()).map(|index| format!("k{index}")), ", "),
        listed((0..table.values.len()).map(|index| format!("v{index}")), ", "),
        same_numbered_key(table),
        listed(added().map(too_far), " or "),
    ))
}
