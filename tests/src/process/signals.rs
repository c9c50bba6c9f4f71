//! Signals that have been acted on when a call returns: `/proc` says what became of every thread.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::wait_until;

/// Sends a signal and returns when the kernel has acted on one that nobody can catch.
pub(super) fn send(pid: u32, signal: Signal) {
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
pub(super) fn all_threads_are(pid: u32, states: &[&str]) -> bool {
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
