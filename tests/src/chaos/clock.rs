//! A clock of the day that jumps, for one program: libfaketime, which reads from a file how far it is off.
//!
//! Clocks that only count on (`CLOCK_MONOTONIC`) stay as they are: no administrator can set those.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::process::Program;

/// The program's clock.
#[derive(Debug)]
pub(super) struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// Where the library is installed and works.
    pub(super) fn library() -> Option<PathBuf> {
        let folders = fs::read_dir("/usr/lib").ok()?.flatten();
        let libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
        libraries.into_iter().find(|library| library.is_file() && jumps(library))
    }

    /// A clock that goes right until it is set, with its file at `file`.
    pub(super) fn new(library: &Path, file: PathBuf) -> anyhow::Result<Self> {
        let clock = Self { file, library: library.to_owned() };
        clock.set(0)?;
        Ok(clock)
    }

    /// Gives a program this clock.
    pub(super) fn give(&self, program: Program) -> Program {
        program
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
    }

    /// So many seconds before or after the right time.
    pub(super) fn set(&self, seconds: i64) -> anyhow::Result<()> {
        fs::write(&self.file, format!("{seconds:+}")).with_context(|| format!("write {}", self.file.display()))
    }
}

fn jumps(library: &Path) -> bool {
    let mut date = Command::new("date");
    date.arg("+%Y").env("LD_PRELOAD", library).env("FAKETIME", "@2001-02-03 04:05:06");
    date.output().is_ok_and(|out| out.stdout.starts_with(b"2001"))
}
