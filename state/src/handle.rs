//! What a user hands to `persist`: a table in a database, by name.

use std::{fmt, sync::Arc};

use crate::Database;

/// A table to keep a state in. Names are checked when the topology is built, types when it starts.
#[derive(Clone)]
pub struct Table {
    /// Where it lives.
    pub database: Arc<dyn Database>,
    /// `name` or `schema.name`.
    pub name: String,
    /// Names of the key columns, in order.
    pub keys: Vec<String>,
    /// Names of the value columns, in order.
    pub values: Vec<String>,
    /// Whether rows that are there before the first transaction are the starting point.
    pub adopt: bool,
    /// Into how many shards the keys are cut.
    pub shards: u16,
}

impl Table {
    /// Into how many shards keys are cut unless the user says otherwise.
    pub const SHARDS: u16 = 32;

    /// A table; connectors call this from their own `table`.
    pub fn new(database: Arc<dyn Database>, name: impl Into<String>) -> Table {
        Table { database, name: name.into(), keys: Vec::new(), values: Vec::new(), adopt: false, shards: Table::SHARDS }
    }

    /// Adds a key column; once per part of a composite key, in order.
    pub fn key(mut self, name: impl Into<String>) -> Table {
        self.keys.push(name.into());
        self
    }

    /// Adds a value column; once per part of a composite value, in order.
    pub fn value(mut self, name: impl Into<String>) -> Table {
        self.values.push(name.into());
        self
    }

    /// Accepts a table that already has rows as the starting point; without this it is refused at the first start.
    pub fn adopt(mut self) -> Table {
        self.adopt = true;
        self
    }

    /// Into how many shards the keys are cut (default 32, at most 4,096): the most tasks that can share this state.
    /// Fixed when the state is first created.
    pub fn shards(mut self, shards: u16) -> Table {
        self.shards = shards;
        self
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({} in {})", self.name, self.database.describe())
    }
}
