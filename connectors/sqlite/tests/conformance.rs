//! The suite that every state database passes, on a temporary file.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tine_sqlite::Sqlite;
use tine_state::{Database, conformance};

struct TemporaryFile {
    directory: tempfile::TempDir,
}

#[async_trait::async_trait]
impl conformance::Subject for TemporaryFile {
    fn database(&self) -> Arc<dyn Database> {
        Arc::new(Sqlite::open(self.directory.path().join("state.db")))
    }

    async fn sql(&self, text: &str) -> Result<(), String> {
        let options = SqliteConnectOptions::new().filename(self.directory.path().join("state.db"));
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(|error| error.to_string())?;
        let done = sqlx::query(AssertSqlSafe(text.to_string())).execute(&mut connection).await;
        done.map(drop).map_err(|error| error.to_string())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_does_what_every_state_database_must_do() {
    let subject = TemporaryFile { directory: tempfile::tempdir().unwrap() };
    let checked = conformance::check(&subject).await;
    assert!(checked.is_ok(), "{}", checked.unwrap_err());
}
