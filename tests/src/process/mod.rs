//! Our own programs as child processes: read what they print, stop, pause or kill them by pid, wait with a deadline.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use tine_tests::process::Program;
//! let mut job = Program::example("kafka_to_postgres").arg("--until-end").start()?;
//! job.line("committed 3", Duration::from_secs(30))?;
//! job.kill()?;
//! # anyhow::Ok(())
//! ```
//!
//! A program started [`in_step`](Program::in_step) cannot write two lines to standard error before the first one was seen; it
//! is then hit by a signal exactly where it stands: [`Running::signal_when`].
//!
//! A running program that is dropped is killed; when the test process itself is killed, the kernel ends it.

mod output;
mod running;
mod signals;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::Context;

pub use self::output::Stream;
use self::output::{Output, read, read_in_step};
pub use self::running::Running;
use crate::gate::Gate;
use crate::services;

/// A program that is about to be started.
#[derive(Debug)]
pub struct Program {
    name: String,
    command: Command,
    in_step: bool,
}

impl Program {
    /// An example of this workspace, built in release: `TINE_TEST_PROGRAMS/NAME`, or `target/release/examples/NAME`.
    pub fn example(name: &str) -> Self {
        Self::at(example_path(name))
    }

    /// Any program.
    pub fn at(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Self { name, command: services::tied(path, "KILL"), in_step: false }
    }

    /// One more argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// More arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// An environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The folder it works in.
    pub fn folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Holds it back so that no line of standard error is written before the one before was seen.
    pub fn in_step(mut self) -> Self {
        self.in_step = true;
        self
    }

    /// Starts it; both its outputs are read from now on.
    pub fn start(mut self) -> anyhow::Result<Running> {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let gate = match self.in_step {
            true => {
                let (gate, writer) = Gate::new().context("make a pipe of one page")?;
                self.command.stderr(writer);
                Some(gate)
            }
            false => None,
        };
        let name = self.name;
        let mut child = services::spawn(self.command).with_context(|| format!("start {name}"))?;
        let output = Arc::new(Output::default());
        let out = child.stdout.take().context("standard output is a pipe")?;
        read(&output, Stream::Out, out);
        match gate {
            Some(gate) => read_in_step(&output, child.id(), gate),
            None => read(&output, Stream::Err, child.stderr.take().context("standard error is a pipe")?),
        }
        Ok(Running { name, child, output, seen: 0 })
    }
}

/// Where the example `name` lies: build it with `cargo build --release --examples --all-features`.
pub fn example_path(name: &str) -> PathBuf {
    built(Path::new("examples"), name)
}

/// Where the program `name` of this workspace lies: build it with `cargo build --release --bins --all-features`.
pub fn program_path(name: &str) -> PathBuf {
    built(Path::new(""), name)
}

/// `TINE_TEST_PROGRAMS/NAME`, or `target/release/FOLDER/NAME`.
fn built(folder: &Path, name: &str) -> PathBuf {
    if let Some(programs) = std::env::var_os("TINE_TEST_PROGRAMS") {
        return PathBuf::from(programs).join(name);
    }
    let exe = std::env::current_exe().unwrap_or_default();
    // A test runs from target/release/deps and a program from target/release, whatever the target folder is called.
    let release = exe.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    release.unwrap_or(Path::new("target/release")).join(folder).join(name)
}

#[cfg(test)]
mod tests;
