//! When a commit counts: once it is on disk, or once readers see it.

use std::str::FromStr;

/// What a commit waits for. The counts are exact either way.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tine_postgres::{Durability, Postgres};
///
/// let database = Postgres::connect("postgres://tine@localhost/shop")?.durability(Durability::Relaxed);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Until the server has it on disk, and its synchronous standby too if it has one (`synchronous_commit = on`): what
    /// a reader has seen stays.
    #[default]
    Synchronous,
    /// For nothing (`synchronous_commit = off`). When the *server* crashes, it may lose the commits of its last moments
    /// (up to three times `wal_writer_delay`, 0.6 s by default), data and ledger together: readers may see counts go
    /// back, then tine reads the same records again and counts them, once. A crash of this process loses nothing.
    ///
    /// Only commits of data are relaxed: raises of the fence, prepared plans and tables stay synchronous, and a run that
    /// ends with `Ok` has made durable what it committed. Pays for small batches, where waiting for the disk is most of a
    /// commit; the server's work for each row is the same.
    Relaxed,
}

/// `synchronous` or `relaxed`, as a program's argument.
impl FromStr for Durability {
    type Err = String;

    fn from_str(word: &str) -> Result<Durability, String> {
        match word {
            "synchronous" => Ok(Durability::Synchronous),
            "relaxed" => Ok(Durability::Relaxed),
            other => Err(format!("durability is synchronous or relaxed, not {other:?}")),
        }
    }
}
