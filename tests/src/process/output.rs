//! What a program has printed: its pipes are read by a thread each, its lines are kept and waited for.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::signals::send;
use crate::gate::Gate;

/// Lines that are kept: more than any test looks back, far less than a chatty hour.
const LINES_MAX: usize = 20_000;

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
pub(super) struct Lines {
    pub(super) kept: VecDeque<(Stream, String)>,
    first: usize,
    pub(super) open: usize,
}

#[derive(Debug, Default)]
pub(super) struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
    pub(super) aim: Mutex<Option<Aim>>,
    /// Whether the last aim was hit, and its line can be read.
    pub(super) struck: AtomicBool,
}

/// A signal that is waiting for a line.
pub(super) struct Aim {
    pub(super) signal: Signal,
    pub(super) wanted: Box<dyn FnMut(&str) -> bool + Send>,
}

impl std::fmt::Debug for Aim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Aim({})", self.signal)
    }
}

impl Output {
    pub(super) fn lock(&self) -> MutexGuard<'_, Lines> {
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
    pub(super) fn find(
        &self,
        from: usize,
        wanted: &dyn Fn(&str) -> bool,
        deadline: Duration,
    ) -> Option<(usize, String)> {
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

pub(super) fn read(output: &Arc<Output>, stream: Stream, pipe: impl Read + Send + 'static) {
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
pub(super) fn read_in_step(output: &Arc<Output>, pid: u32, mut gate: Gate) {
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
