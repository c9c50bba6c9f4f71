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

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::gate::Gate;
use crate::{services, wait_until};

/// Lines that are kept: more than any test looks back, far less than a chatty hour.
const LINES_MAX: usize = 20_000;
/// How many of the last lines a failure shows.
const LINES_SHOWN: usize = 25;

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

/// Which of its outputs a program wrote a line to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// What was printed; `first` is the number of the oldest line that is still kept.
#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<(Stream, String)>,
    first: usize,
    open: usize,
}

#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
    aim: Mutex<Option<Aim>>,
    /// Whether the last aim was hit, and its line can be read.
    struck: AtomicBool,
}

/// A signal that is waiting for a line.
struct Aim {
    signal: Signal,
    wanted: Box<dyn FnMut(&str) -> bool + Send>,
}

impl std::fmt::Debug for Aim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Aim({})", self.signal)
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, stream: Stream, bytes: &[u8]) {
        let line = String::from_utf8_lossy(bytes).trim_end_matches(['\n', '\r']).to_owned();
        let mut lines = self.lock();
        if lines.kept.len() == LINES_MAX {
            lines.kept.pop_front();
            lines.first += 1;
        }
        lines.kept.push_back((stream, line));
        self.changed.notify_all();
    }

    fn close(&self) {
        self.lock().open -= 1;
        self.changed.notify_all();
    }

    /// The signal that was waiting for one of the lines that `bytes` complete.
    fn hit(&self, bytes: &[u8]) -> Option<Signal> {
        let mut aim = self.aim.lock().unwrap_or_else(PoisonError::into_inner);
        let armed = aim.as_mut()?;
        let hit = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")).any(|line| {
            let line = String::from_utf8_lossy(line);
            (armed.wanted)(line.trim_end())
        });
        if hit { aim.take().map(|aim| aim.signal) } else { None }
    }

    /// The next line from number `from` on that `wanted` accepts, with the number after it; `None` at the deadline or
    /// when nothing more can come.
    fn find(&self, from: usize, wanted: &dyn Fn(&str) -> bool, deadline: Duration) -> Option<(usize, String)> {
        let end = Instant::now() + deadline;
        let (mut lines, mut next) = (self.lock(), from);
        loop {
            next = next.max(lines.first);
            while let Some((_, line)) = lines.kept.get(next - lines.first) {
                next += 1;
                if wanted(line) {
                    return Some((next, line.clone()));
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || lines.open == 0 {
                return None;
            }
            lines = self.changed.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn read(output: &Arc<Output>, stream: Stream, pipe: impl Read + Send + 'static) {
    output.lock().open += 1;
    let output = output.clone();
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut bytes = Vec::new();
        while let Ok(1..) = pipe.read_until(b'\n', &mut bytes) {
            output.push(stream, &bytes);
            bytes.clear();
        }
        output.close();
    });
}

/// Like [`read`] for standard error, and sends a signal that waits for a line before the program can write another one.
fn read_in_step(output: &Arc<Output>, pid: u32, mut gate: Gate) {
    output.lock().open += 1;
    let output = output.clone();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        while let Ok(packet @ [_, ..]) = gate.peek() {
            bytes.extend_from_slice(packet);
            let hit = output.hit(&bytes);
            if let Some(signal) = hit {
                send(pid, signal);
            }
            if gate.take().is_err() {
                break;
            }
            let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            bytes
                .drain(..complete)
                .as_slice()
                .split_inclusive(|byte| *byte == b'\n')
                .for_each(|line| output.push(Stream::Err, line));
            if hit.is_some() {
                output.struck.store(true, Ordering::Release);
            }
        }
        output.close();
    });
}

/// Sends a signal and returns when the kernel has acted on one that nobody can catch.
fn send(pid: u32, signal: Signal) {
    let Ok(raw) = i32::try_from(pid) else { return };
    // A pid that was waited for may belong to somebody else.
    if parent(pid) != Some(std::process::id()) || signal::kill(Pid::from_raw(raw), signal).is_err() {
        return;
    }
    let acted: &[&str] = match signal {
        Signal::SIGKILL => &["Z", "X"],
        Signal::SIGSTOP => &["T"],
        _ => return,
    };
    wait_until(Duration::from_secs(5), || all_threads_are(pid, acted));
}

/// Whether every thread of a process is in one of these states; one that is gone is in any. The first thread may be dead
/// or stopped while others still run.
fn all_threads_are(pid: u32, states: &[&str]) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let state = stat(&thread.path(), 0);
        state.is_none_or(|state| states.contains(&state.as_str()))
    })
}

fn parent(pid: u32) -> Option<u32> {
    stat(Path::new(&format!("/proc/{pid}")), 1)?.parse().ok()
}

/// A field of `stat` after the name, which may hold anything but ends with the last parenthesis.
fn stat(folder: &Path, nth: usize) -> Option<String> {
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(nth).map(str::to_owned)
}

/// A program that was started. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    output: Arc<Output>,
    seen: usize,
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
    /// last one: the program, started [`in_step`](Program::in_step), cannot write another one meanwhile. Works once; replaces
    /// an aim before.
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

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Running {
        Program::at("sh").args(["-c", script]).start().unwrap()
    }

    #[test]
    fn lines_are_found_in_order_and_once() {
        let mut program = shell("echo one; echo two >&2; echo three; echo one more");
        assert_eq!(program.line("one", DEADLINE).unwrap(), "one");
        assert_eq!(program.line("one", DEADLINE).unwrap(), "one more");
        assert!(program.wait(DEADLINE).unwrap().success());
        assert_eq!(program.lines_of(Stream::Err), ["two"]);
        assert_eq!(program.lines_of(Stream::Out).len(), 3);
    }

    #[test]
    fn a_line_that_never_comes_fails_when_the_program_ends() {
        let start = Instant::now();
        let error = shell("echo here").line("there", Duration::from_secs(60)).unwrap_err();
        assert!(format!("{error:#}").contains("here"));
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_paused_program_prints_nothing_until_it_is_resumed() {
        let mut program = shell("while :; do echo tick; sleep 0.01; done");
        program.line("tick", DEADLINE).unwrap();
        program.pause().unwrap();
        while program.line("tick", Duration::from_millis(50)).is_ok() {}
        assert!(program.line("tick", Duration::from_millis(200)).is_err());
        program.resume().unwrap();
        program.line("tick", DEADLINE).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&program.kill().unwrap()), Some(9));
    }

    #[test]
    fn a_program_in_step_dies_before_its_next_line() {
        for _ in 0..20 {
            let script = "n=0; while :; do n=$((n+1)); echo line $n >&2; done";
            let mut program = Program::at("sh").args(["-c", script]).in_step().start().unwrap();
            program.signal_when(Signal::SIGKILL, |line| line == "line 50");
            let status = program.wait(DEADLINE).unwrap();
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
            assert_eq!(program.lines().last().unwrap(), "line 50");
        }
    }

    #[test]
    fn a_signal_to_an_ended_program_is_refused() {
        let mut program = shell("exit 3");
        assert_eq!(program.wait(DEADLINE).unwrap().code(), Some(3));
        assert!(program.terminate().is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_asynchronous_test_can_wait_for_a_line() {
        let mut program = shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done");
        program.line_async("up", DEADLINE).await.unwrap();
        program.terminate().unwrap();
        program.line_async("bye", DEADLINE).await.unwrap();
    }
}
