//! The exclusive lock of a topology: an operating-system lock on an empty file beside the database.
//!
//! It is given back when the process ends, however it ends. The file itself stays: deleting it would let two
//! processes hold locks on two files of one name.

use std::fs::{OpenOptions, TryLockError};

use async_trait::async_trait;
use tine_core::{failure::Failure, hash::hash64};
use tine_state::Lock;

use crate::file::File;

/// How much of a topology's name the file name carries.
const NAME_MAX: usize = 64;

/// Takes the lock; `None` while another handle, of this process or of another, holds it.
pub(crate) fn try_lock(database: &File, topology: &str) -> Result<Option<Box<dyn Lock>>, Failure> {
    database.check()?;
    let path = database.beside(&format!(".{}.lock", file_name(topology)));
    let failed = |error: std::io::Error| {
        Failure::fatal(format!(
            "the lock file {} cannot be used ({error}): make its directory writable and keep it on a file system with locks",
            path.display()
        ))
    };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Box::new(Held { _file: file }))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// A topology's name as part of a file name; one that had to be changed is told apart by its hash.
fn file_name(topology: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    let name: String = topology.chars().map(plain).take(NAME_MAX).collect();
    match name == topology {
        true => name,
        false => format!("{name}-{:016x}", hash64(topology.as_bytes())),
    }
}

/// The lock, as long as the file is open.
struct Held {
    _file: std::fs::File,
}

#[async_trait]
impl Lock for Held {
    /// Never: only this process can give it back.
    async fn lost(&mut self) -> Failure {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn d13_names_stay_in_their_directory_and_apart() {
        assert_eq!(file_name("word_count-2"), "word_count-2");
        let odd = ["", "../../etc/passwd", "a b", "a_b", "ä", "o", &"x".repeat(500), &"x".repeat(501)];
        let names: std::collections::BTreeSet<String> = odd.iter().map(|name| file_name(name)).collect();
        assert_eq!(names.len(), odd.len(), "{names:?}");
        assert!(names.iter().all(|name| name.len() < 100 && !name.contains(['/', '.'])), "{names:?}");
    }
}
