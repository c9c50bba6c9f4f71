//! The handle that users open, and what tine asks of a database.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use tine_core::failure::Failure;
use tine_state::{Database, GroupSpec, Lock, Session, Table};

use crate::{create, file::File, lock, session::SqliteSession};

/// A SQLite file that holds states and tine's own tables beside them. Cheap to clone; clones are the same database.
///
/// Opening touches nothing: the file is created, and what is in it is checked, when the topology starts. Then the
/// errors name what is wrong: a missing directory, a file that is no database, a table with other columns.
///
/// A state's table holds the key and value columns and nothing else, is `STRICT` with every column `NOT NULL`, and is
/// created when missing. Texts compare byte by byte. A counter that no longer fits 64 bits halts the topology with its
/// key; it never wraps and never turns into a floating-point number. Tine's own tables are `tine_groups`,
/// `tine_ledger`, `tine_transactions` and `tine_claims`. Beside the file lies `FILE.TOPOLOGY.lock`, an empty file on
/// which a second process of the same topology waits.
///
/// ```
/// use tine_sqlite::Sqlite;
///
/// let database = Sqlite::open("counts.db");
/// let words = database.table("word_counts").key("word").value("n").shards(8);
/// let pairs = database.table("pair_counts").key("first").key("second").value("n");
/// assert_eq!(words.name, "word_counts");
/// assert_eq!(pairs.keys, ["first", "second"]);
/// ```
#[derive(Clone, Debug)]
pub struct Sqlite {
    file: File,
}

impl Sqlite {
    /// The database in this file; a relative path is resolved now. Not `:memory:`: exactness needs a file.
    pub fn open(path: impl AsRef<Path>) -> Sqlite {
        Sqlite { file: File::new(path.as_ref()) }
    }

    /// A table of this database to keep a state in, by its name (SQLite has no schemas): 1 to 63 lower-case letters,
    /// digits and underscores. The name is checked when the topology is built.
    pub fn table(&self, name: impl Into<String>) -> Table {
        Table::new(Arc::new(self.clone()), name)
    }
}

#[async_trait]
impl Database for Sqlite {
    fn describe(&self) -> String {
        format!("SQLite file {}", self.file)
    }

    async fn create(&self, group: &GroupSpec) -> Result<(), Failure> {
        create::check_spec(group)?;
        let mut connection = self.file.create().await?;
        create::create(&mut connection, &self.file, group).await
    }

    async fn session(&self, group: &GroupSpec) -> Result<Box<dyn Session>, Failure> {
        let mut session = SqliteSession::new(self.file.clone(), group);
        session.connect().await?;
        Ok(Box::new(session))
    }

    async fn try_lock(&self, topology: &str) -> Result<Option<Box<dyn Lock>>, Failure> {
        lock::try_lock(&self.file, topology)
    }
}
