//! What makes a file this file: its incarnation, and the failures of paths that are no readable file.
//!
//! On Unix the incarnation is the inode with the file's birth time where the file system keeps one (`INODE@NANOSECONDS`),
//! else device and inode (`DEVICE:INODE`). An inode alone is given to the next file at once by some file systems, and
//! device numbers change from boot to boot on others. Elsewhere it is the creation time.

use std::{
    fs::{self, File, Metadata},
    io,
    time::UNIX_EPOCH,
};

use tine_core::failure::Failure;

/// The incarnation of a file.
pub(super) fn incarnation(metadata: &Metadata) -> String {
    let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    of_unix(metadata, born.map(|age| age.as_nanos()))
}

#[cfg(unix)]
fn of_unix(metadata: &Metadata, born_ns: Option<u128>) -> String {
    use std::os::unix::fs::MetadataExt;
    match born_ns {
        Some(born) => format!("{}@{born}", metadata.ino()),
        None => format!("{}:{}", metadata.dev(), metadata.ino()),
    }
}

#[cfg(not(unix))]
fn of_unix(_: &Metadata, born_ns: Option<u128>) -> String {
    format!("@{}", born_ns.unwrap_or_default())
}

/// Reads at an offset without moving a position.
#[cfg(unix)]
pub(super) fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, at)
}

/// Reads at an offset; nobody relies on the file's own position.
#[cfg(windows)]
pub(super) fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, at)
}

/// What the path leads to now: a regular file, or an error that names it.
pub(super) fn metadata(name: &str) -> Result<Metadata, Failure> {
    let metadata = fs::metadata(name).map_err(|error| failure(name, "looking at", &error))?;
    if metadata.is_dir() {
        return Err(Failure::fatal(format!("{name} is a folder: name the files in it")));
    }
    if !metadata.is_file() {
        return Err(Failure::fatal(format!("{name} is not a regular file, so it cannot be read a second time")));
    }
    Ok(metadata)
}

/// Opens the file for reading.
pub(super) fn open(name: &str) -> Result<File, Failure> {
    File::open(name).map_err(|error| failure(name, "opening", &error))
}

/// Fills `bytes` from offset `at`; the file must reach that far.
pub(super) fn read_exact(name: &str, file: &File, bytes: &mut [u8], at: u64) -> Result<(), Failure> {
    let mut got = 0;
    while got < bytes.len() {
        match read_at(file, &mut bytes[got..], at + got as u64) {
            Ok(0) => return Err(truncated(name, at + got as u64, at + bytes.len() as u64)),
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failure(name, "reading", &error)),
        }
    }
    Ok(())
}

/// An I/O error, judged: what a person must mend is fatal, anything else may pass.
pub(super) fn failure(name: &str, doing: &str, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => Failure::fatal(format!("the file {name} does not exist")),
        io::ErrorKind::PermissionDenied => {
            Failure::fatal(format!("the file {name} may not be read by this user: {error}"))
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => {
            Failure::fatal(format!("{doing} the file {name}: {error}"))
        }
        _ => Failure::transient(format!("{doing} the file {name}: {error}")),
    }
}

pub(super) fn truncated(name: &str, len: u64, needed: u64) -> Failure {
    Failure::fatal(format!(
        "the file {name} was truncated: it has {len} bytes, and {needed} were planned; put it back, or give the new \
         content another path"
    ))
}

pub(super) fn replaced(name: &str, planned: &str, found: &str) -> Failure {
    Failure::fatal(format!(
        "the file {name} was replaced by another one (planned was {planned}, found {found}): put the old one back, or \
         give the new one another path"
    ))
}
