//! What is wrong with a topology, and what to do.

use std::fmt;

use tine_state::IdentError;

/// A topology that cannot run. Each says which operator, and the fix.
#[derive(thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what each is; `place` is the operator")]
pub enum BuildError {
    #[error(
        "{name:?} cannot name a topology: use 1 to 100 letters, digits, `_`, `-` and `.`, beginning with a letter or digit"
    )]
    TopologyName { name: String },
    #[error("topology {topology:?} has no source: add one with .source(…)")]
    NoSource { topology: String },
    #[error("topology {topology:?} keeps no state: end a stage with .persist(table)")]
    NoState { topology: String },
    #[error("{place} leads nowhere: give it a .stage(…) and .persist(…), or remove it")]
    LeadsNowhere { place: String },
    #[error("{place} cannot be used: {why}")]
    Stage { place: String, why: String },
    #[error("{place}: {why}")]
    Name { place: String, why: IdentError },
    #[error("{place}: {name:?} is not `table` or `schema.table`")]
    TableName { place: String, name: String },
    #[error("{place}: tables beginning with tine_ are tine's own: choose another name")]
    ReservedTable { place: String },
    #[error(
        "{place}: the {part} is ({types}), {expected} column(s), but the table names {named}: call .{part}(\"…\") \
         {expected} time(s), in this order"
    )]
    ColumnCount { place: String, part: &'static str, types: String, expected: usize, named: usize },
    #[error("{place}: the column {column:?} is named twice: give each part of key and value its own")]
    ColumnTwice { place: String, column: String },
    #[error("{place} and {other} keep two states in one table: give each its own")]
    TableTwice { place: String, other: String },
    #[error("{place}: {shards} shards; use .shards(n) with 1 <= n <= {max}", max = super::check::SHARDS_MAX)]
    Shards { place: String, shards: u16 },
    #[error(
        "{place} is in {database}, {other} in {other_database}: states in two databases are not supported yet; keep both \
         in one, or run two topologies"
    )]
    TwoDatabases { place: String, database: String, other: String, other_database: String },
    #[error("topology {topology:?} has {count} {what}, and at most {max} are supported: run several topologies")]
    TooMany { topology: String, what: &'static str, count: usize, max: usize },
}

/// As people read it: a `main` that returns an error prints its `Debug`.
impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
