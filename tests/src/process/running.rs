//! A program that runs: what it prints is waited for, and it is paused, ended or killed.

use std::process::{Child, ExitStatus};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::output::{Aim, Output, Stream};
use super::signals::{all_threads_are, send};
use crate::wait_until;

/// How many of the last lines a failure shows.
const LINES_SHOWN: usize = 25;

/// A program that was started. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    pub(super) name: String,
    pub(super) child: Child,
    pub(super) output: Arc<Output>,
    pub(super) seen: usize,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next line, of either output, that contains `text`, and returns it.
    ///
    /// Each call goes on after the line the call before has found. Fails at the deadline and when the program has closed
    /// its outputs, with the last lines it printed.
    pub fn line(&mut self, text: &str, deadline: Duration) -> anyhow::Result<String> {
        let found = self.line_where(|line| line.contains(text), deadline);
        found.with_context(|| format!("waited for a line with {text:?}"))
    }

    /// Like [`line`](Self::line), for lines that `wanted` accepts.
    pub fn line_where(&mut self, wanted: impl Fn(&str) -> bool, deadline: Duration) -> anyhow::Result<String> {
        match self.output.find(self.seen, &wanted, deadline) {
            Some((next, line)) => {
                self.seen = next;
                Ok(line)
            }
            None => bail!("{} printed no such line within {deadline:?}; its last lines:\n{}", self.name, self.last()),
        }
    }

    /// Like [`line`](Self::line), without blocking the runtime.
    pub async fn line_async(&mut self, text: &str, deadline: Duration) -> anyhow::Result<String> {
        let (output, from, text) = (self.output.clone(), self.seen, text.to_owned());
        let wanted = text.clone();
        let find = move || output.find(from, &|line| line.contains(&wanted), deadline);
        match tokio::task::spawn_blocking(find).await? {
            Some((next, line)) => {
                self.seen = next;
                Ok(line)
            }
            None => bail!("{} printed no line with {text:?} in {deadline:?}; its last:\n{}", self.name, self.last()),
        }
    }

    /// All lines so far (the last 20,000), both outputs mixed as they came.
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().kept.iter().map(|(_, line)| line.clone()).collect()
    }

    /// All lines of one output so far.
    pub fn lines_of(&self, stream: Stream) -> Vec<String> {
        let lines = self.output.lock();
        lines.kept.iter().filter(|(from, _)| *from == stream).map(|(_, line)| line.clone()).collect()
    }

    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.kill().with_context(|| format!("kill {}", self.name))?;
        Ok(self.child.wait()?)
    }

    /// SIGTERM: please stop.
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// SIGINT: Ctrl-C.
    pub fn interrupt(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGINT)
    }

    /// SIGSTOP, and waits until the kernel has stopped it.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let stopped = wait_until(Duration::from_secs(5), || all_threads_are(self.child.id(), &["T"]));
        ensure!(stopped, "{} does not stop on SIGSTOP", self.name);
        Ok(())
    }

    /// Sends `signal` (SIGKILL, SIGSTOP, SIGTERM) when standard error has a line that `wanted` accepts, while that line is the
    /// last one: the program, started [`in_step`](super::Program::in_step), cannot write another one meanwhile. Works once;
    /// replaces an aim before.
    pub fn signal_when(&self, signal: Signal, wanted: impl FnMut(&str) -> bool + Send + 'static) {
        self.output.struck.store(false, Ordering::Release);
        *self.output.aim.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Aim { signal, wanted: Box::new(wanted) });
    }

    /// SIGKILL from anywhere: what it returns kills this process and returns when it is dead.
    pub fn killer(&self) -> impl FnOnce() + Send + 'static {
        let pid = self.pid();
        move || send(pid, Signal::SIGKILL)
    }

    /// Waits until a program that [`signal_when`](Self::signal_when) hits with SIGSTOP stands still.
    pub fn await_paused(&self, deadline: Duration) -> anyhow::Result<()> {
        let struck = || self.output.struck.load(Ordering::Acquire);
        let stopped = wait_until(deadline, || struck() && all_threads_are(self.child.id(), &["T"]));
        ensure!(stopped, "{} was not stopped within {deadline:?}; its last lines:\n{}", self.name, self.last());
        Ok(())
    }

    /// SIGCONT: undoes [`pause`](Self::pause).
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Waits until it ends by itself; fails at the deadline with the last lines it printed, and it goes on running.
    pub fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let mut ended = None;
        wait_until(deadline, || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        });
        let ended = ended.with_context(|| {
            format!("{} still runs after {deadline:?}; its last lines:\n{}", self.name, self.last())
        })?;
        // The pipes may hold lines the reader has not taken yet; a grandchild may hold them open.
        wait_until(Duration::from_secs(1), || self.output.lock().open == 0);
        Ok(ended)
    }

    fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        // Looked at first: a pid that was waited for may belong to somebody else.
        ensure!(self.runs(), "{} has ended; its last lines:\n{}", self.name, self.last());
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        signal::kill(pid, signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    fn last(&self) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the last lines of {}:\n{}", self.name, self.last());
        }
    }
}
