//! The database file: where it is, whether it can be one, and how a connection to it is opened.

use std::{
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tine_core::failure::Failure;

use crate::failure::classify;

/// How long a writer waits for another one before it gives up for now.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages kept in memory by one connection: 64 MiB, so that a batch's pages are not written twice.
const CACHE_KIB: &str = "-65536";

/// The write-ahead log is cut to this size when it has been copied back: 64 MiB.
const LOG_BYTES: &str = "67108864";

/// A database file by its path.
#[derive(Clone, Debug)]
pub(crate) struct File {
    path: PathBuf,
}

/// Which file stands under a path: a replaced one differs, though its name is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity(u64, u64);

impl File {
    pub(crate) fn new(path: &Path) -> File {
        let absolute = if path.as_os_str() == ":memory:" { None } else { std::path::absolute(path).ok() };
        File { path: absolute.unwrap_or_else(|| path.to_path_buf()) }
    }

    /// Whether a database can be there; says what is in the way.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let refused = |why: &str| Err(Failure::fatal(format!("the database {self} cannot be opened: {why}")));
        if self.path.as_os_str().is_empty() || self.path.as_os_str() == ":memory:" {
            return refused("exact counts need a file that outlives the process; give the path of one");
        }
        if self.path.to_str().is_none() {
            return refused("its path is not UTF-8; choose another");
        }
        match fs::metadata(&self.path) {
            Ok(found) if found.is_dir() => refused("it is a directory; give the path of a file"),
            Ok(found) if found.permissions().readonly() => refused("it is read-only; make it writable"),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.check_directory(),
            Err(error) => refused(&format!("{error}; check its path and permissions")),
        }
    }

    fn check_directory(&self) -> Result<(), Failure> {
        match self.path.parent() {
            Some(directory) if !directory.is_dir() => Err(Failure::fatal(format!(
                "the database {self} cannot be created: there is no directory {}; create it first",
                directory.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Opens the file, creating it when missing, and sees to its mode.
    pub(crate) async fn create(&self) -> Result<SqliteConnection, Failure> {
        let mut connection = self.connect(true).await?;
        let mode = sqlx::query_scalar::<_, String>("PRAGMA journal_mode").fetch_one(&mut connection).await;
        match mode {
            Ok(mode) if mode == "wal" => Ok(connection),
            Ok(mode) => Err(Failure::fatal(format!(
                "the database {self} stays in journal mode {mode:?} and tine needs \"wal\": keep it on a local file system"
            ))),
            Err(error) => Err(classify(&error, "reading the journal mode", self)),
        }
    }

    /// Opens the file, which must be there.
    pub(crate) async fn open(&self) -> Result<SqliteConnection, Failure> {
        self.connect(false).await
    }

    async fn connect(&self, create: bool) -> Result<SqliteConnection, Failure> {
        self.check()?;
        let options = SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(create)
            .busy_timeout(BUSY_TIMEOUT)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("cache_size", CACHE_KIB)
            .pragma("journal_size_limit", LOG_BYTES)
            .disable_statement_logging();
        SqliteConnection::connect_with(&options).await.map_err(|error| classify(&error, "opening the database", self))
    }

    /// Which file it is now; `None` when there is none, or the system does not say.
    pub(crate) fn identity(&self) -> Option<Identity> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            fs::metadata(&self.path).ok().map(|found| Identity(found.dev(), found.ino()))
        }
        #[cfg(not(unix))]
        None
    }

    /// The path with something appended to the file's name; links are followed, as SQLite itself does.
    pub(crate) fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = OsString::from(self.resolved());
        name.push(suffix);
        PathBuf::from(name)
    }

    fn resolved(&self) -> PathBuf {
        if let Ok(path) = fs::canonicalize(&self.path) {
            return path;
        }
        match (self.path.parent().map(fs::canonicalize), self.path.file_name()) {
            (Some(Ok(directory)), Some(name)) => directory.join(name),
            _ => self.path.clone(),
        }
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}
