//! Starts child processes so that the kernel ends them when this process ends, however it ends.
//!
//! Linux can signal a child when the *thread* that started it ends (`PR_SET_PDEATHSIG`). A test thread ends with its test,
//! a shared server must not; so every child is started by one thread that lives as long as the process. `setpriv` of
//! util-linux sets the flag, which keeps this workspace free of unsafe code.

use std::ffi::OsStr;
use std::io;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

type Order = (Command, SyncSender<io::Result<Child>>);

/// Orders waiting for the keeper: each orderer waits for its answer, so more would only be a queue.
const WAITING: usize = 1;

/// A command for `program` that receives `signal` (`"KILL"`, `"QUIT"`) when this process ends.
///
/// Without `setpriv` it is the plain command: then only Drop ends it.
pub(crate) fn tied(program: impl AsRef<OsStr>, signal: &str) -> Command {
    if !has_setpriv() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal, "--"]).arg(program);
    command
}

/// Starts `command` from the keeper's thread.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static KEEPER: OnceLock<SyncSender<Order>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (orders, inbox) = sync_channel::<Order>(WAITING);
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                // The orderer may have panicked meanwhile; then nobody owns the child, and it ends with this process.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, result) = sync_channel(1);
    keeper.send((command, answer)).map_err(|_| io::Error::other("the keeper thread has ended"))?;
    result.recv().map_err(|_| io::Error::other("the keeper thread has ended"))?
}

fn has_setpriv() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).output().is_ok_and(|out| out.status.success())
    })
}
