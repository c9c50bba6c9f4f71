//! What a user holds: a database by its URL, from which tables are named.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use tine_core::{failure::Failure, id::TxId};
use tine_state::{Database, GroupSpec, Lock, Session, Table};

use crate::{
    address::{Address, AddressError},
    create,
    durability::Durability,
    link::{Link, Names},
    lock::AdvisoryLock,
    session::{Known, PgSession},
    settle,
    sql::GroupSql,
};

/// A PostgreSQL database that keeps states. Cheap to clone; clones are the same database.
#[derive(Clone)]
pub struct Postgres {
    address: Address,
    durability: Durability,
}

impl Postgres {
    /// Takes a URL like `postgres://user:password@host:5432/database?sslmode=verify-full`, and connects later: a
    /// database that is down now is found when the topology starts, and tried again.
    ///
    /// `sslmode` is `disable`, `prefer` (the default: TLS if the server offers it, without checking who it is),
    /// `require`, `verify-ca` or `verify-full`; `sslrootcert`, `sslcert` and `sslkey` name files. What the URL leaves
    /// out comes from `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGDATABASE` and `~/.pgpass`.
    ///
    /// # Errors
    /// [`AddressError`] when it is no such URL or has an unknown parameter. The message never holds the password.
    pub fn connect(url: &str) -> Result<Postgres, AddressError> {
        Ok(Postgres { address: Address::parse(url)?, durability: Durability::default() })
    }

    /// What commits wait for; [`Durability::Synchronous`] unless said otherwise.
    pub fn durability(mut self, durability: Durability) -> Postgres {
        self.durability = durability;
        self
    }

    /// A table in this database, `name` or `schema.name`; without a schema it is the connection's `current_schema()`.
    /// Names are lower-case letters, digits and underscores; they are checked when the topology is built.
    ///
    /// Without further words the key and value columns are those that the operator writing to it asks for. The table
    /// is created when it is missing, with `text COLLATE "C"`, `bytea` and `bigint` columns, `NOT NULL` all of them.
    /// One that is there must have exactly these columns, `NOT NULL`, and the key as primary key or unique index.
    pub fn table(&self, name: impl Into<String>) -> Table {
        Table::new(Arc::new(self.clone()), name)
    }

    fn link(&self, topology: &str, group: &str) -> Link {
        Link::new(self.address.clone(), Names::new(topology, group))
    }
}

/// Host, port and database; no password.
impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Postgres({})", self.address)
    }
}

#[async_trait]
impl Database for Postgres {
    fn describe(&self) -> String {
        self.address.to_string()
    }

    async fn create(&self, group: &GroupSpec) -> Result<(), Failure> {
        let mut link = self.link(&group.topology, &group.group);
        let created = create::create(&mut link, group).await;
        link.close().await;
        created
    }

    async fn session(&self, group: &GroupSpec) -> Result<Box<dyn Session>, Failure> {
        let mut link = self.link(&group.topology, &group.group);
        link.connect("session").await?;
        let schemas = create::schemas(&mut link, group).await?;
        Ok(Box::new(PgSession {
            link,
            sql: Arc::new(GroupSql::new(group, &schemas.own, &schemas.default)),
            topology: group.topology.clone(),
            group: group.group.clone(),
            states: group.states.iter().map(|state| state.name.clone()).collect(),
            known: group.states.iter().map(|_| Known::default()).collect(),
            durability: self.durability,
            transaction: None,
            has_advanced: false,
        }))
    }

    async fn try_lock(&self, topology: &str) -> Result<Option<Box<dyn Lock>>, Failure> {
        let lock = AdvisoryLock::take(self.link(topology, ""), topology).await?;
        Ok(lock.map(|lock| Box::new(lock) as Box<dyn Lock>))
    }

    async fn settle(&self, group: &GroupSpec, last: TxId) -> Result<(), Failure> {
        if self.durability == Durability::Synchronous {
            return Ok(());
        }
        let mut link = self.link(&group.topology, &group.group);
        let settled = settle::settle(&mut link, group, last).await;
        link.close().await;
        settled
    }
}
