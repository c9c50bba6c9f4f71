//! The life of one server: started, stopped, killed, started again on the same port, wiped, and ended on Drop.
//!
//! What is particular to a server is its [`Service`]; waiting, signals, logs and folders are here, once.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::place::{KEPT, new_folder};
use super::{Error, Place, base_folder, free_port, spawn};
use crate::wait_until;

/// A start takes seconds; a machine that compiles at the same time may need much longer.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// After an orderly stop has taken this long the server is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Another process may take a free port before the server does; then other ports are tried.
const STARTS_MAX: usize = 3;
/// How much of a log an error carries.
const LOG_TAIL_BYTES: u64 = 3_000;

/// What is particular to one kind of server.
pub trait Service: Sized {
    /// A short lower-case name: folders and messages carry it.
    const NAME: &'static str;
    /// The signal for an orderly stop.
    const STOP: Signal;
    /// The signal of Drop: as fast as possible without leaving helper processes behind.
    const END: Signal;

    /// Looks for the programs; [`Error::NotInstalled`] says what is missing and how to get it.
    fn find() -> Result<Self, Error>;
    /// Fills an empty data folder. Called before the first start and after a wipe.
    fn prepare(&self, place: &Place) -> Result<(), Error>;
    /// The command that runs the server in the foreground.
    fn command(&self, place: &Place) -> Command;
    /// Whether a client would be served now by the process `pid`. Called again and again.
    fn ready(&self, place: &Place, pid: u32) -> bool;
    /// Whether clients are served although something may be wrong with the server; asked once.
    fn serves(&self, place: &Place, pid: u32) -> bool {
        self.ready(place, pid)
    }
    /// Whether every process of a server that was ended is gone, helper processes too.
    fn gone(&self, _place: &Place) -> bool {
        true
    }
    /// Removes what an operator must remove before a server starts again whose disk was full.
    fn clear(&self, _place: &Place) -> Result<(), Error> {
        Ok(())
    }
    /// Gives a new folder to the user the server runs as, and says where it is (it may have to lie elsewhere).
    fn settle(&self, place: Place) -> Result<Place, Error> {
        Ok(place)
    }
}

/// A server that belongs to this process: killed by its own pid on Drop, its folder removed.
///
/// The methods block (seconds for a start), also inside asynchronous tests: use the multi-threaded runtime.
#[derive(Debug)]
pub struct Guard<S: Service> {
    pub(crate) service: S,
    pub(crate) place: Place,
    child: Option<Child>,
}

impl<S: Service> Guard<S> {
    /// Starts a server on a free loopback port and returns when it serves clients.
    pub fn start() -> Result<Self, Error> {
        Self::start_with(&[])
    }

    /// Starts a server with `settings` that override the default ones, in the server's own words.
    pub fn start_with(settings: &[(&str, &str)]) -> Result<Self, Error> {
        let mut failed = None;
        for _ in 0..STARTS_MAX {
            let mut guard = Self::new(settings)?;
            match guard.prepare().and_then(|()| guard.up()) {
                Ok(()) => return Ok(guard),
                Err(error) => {
                    let port_lost = error.to_string().contains("in use");
                    failed = Some(error);
                    if !port_lost {
                        guard.keep_folder();
                        break;
                    }
                }
            }
        }
        Err(failed.unwrap_or_else(|| Error::io(S::NAME, "start", std::io::ErrorKind::AddrInUse.into())))
    }

    fn new(settings: &[(&str, &str)]) -> Result<Self, Error> {
        let service = S::find()?;
        let port = || free_port().map_err(|e| Error::io(S::NAME, "find a free port", e));
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let folder = new_folder(S::NAME, &base_folder())?;
        let place = service.settle(Place { folder, port: port()?, inner_port: port()?, settings })?;
        Ok(Self { service, place, child: None })
    }

    /// `127.0.0.1:port`, the same for the guard's whole life.
    pub fn address(&self) -> String {
        self.place.address()
    }

    /// The port, the same for the guard's whole life.
    pub fn port(&self) -> u16 {
        self.place.port
    }

    /// The server's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Everything the server has printed, its last lines.
    pub fn log(&self) -> String {
        tail(&self.place)
    }

    /// Stops in good order: clients are told, files are closed.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.end(S::STOP)
    }

    /// SIGKILL, now.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.end(Signal::SIGKILL)
    }

    /// Starts it again on the same port with the same data; stops it in good order first when it runs.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.stop()?;
        self.up()
    }

    /// The same after its disk was full and there is room again.
    pub fn restart_with_room(&mut self) -> Result<(), Error> {
        self.stop()?;
        self.service.clear(&self.place)?;
        self.up()
    }

    /// Stops it, deletes its data, and starts it empty on the same port.
    pub fn wipe(&mut self) -> Result<(), Error> {
        self.stop()?;
        let data = self.place.data();
        fs::remove_dir_all(&data).map_err(|e| Error::io(S::NAME, format!("delete {}", data.display()), e))?;
        self.prepare()?;
        self.up()
    }

    /// SIGSTOP: the process stays, its connections stay, nothing answers.
    pub fn pause(&self) -> Result<(), Error> {
        self.signal(Signal::SIGSTOP)
    }

    /// SIGCONT: undoes [`pause`](Self::pause).
    pub fn resume(&self) -> Result<(), Error> {
        self.signal(Signal::SIGCONT)
    }

    /// Whether it runs and serves.
    pub fn serves(&mut self) -> bool {
        let Some(child) = &mut self.child else { return false };
        matches!(child.try_wait(), Ok(None)) && self.service.serves(&self.place, child.id())
    }

    fn prepare(&self) -> Result<(), Error> {
        self.service.prepare(&self.place)
    }

    fn up(&mut self) -> Result<(), Error> {
        let log = || OpenOptions::new().create(true).append(true).open(self.place.log());
        let (out, err) = log()
            .and_then(|file| Ok((file.try_clone()?, file)))
            .map_err(|e| Error::io(S::NAME, format!("write {}", self.place.log().display()), e))?;
        let mut command = self.service.command(&self.place);
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = spawn(command).map_err(|e| Error::io(S::NAME, "run it", e))?;
        let pid = child.id();
        self.child = Some(child);
        self.await_ready(pid)
    }

    fn await_ready(&mut self, pid: u32) -> Result<(), Error> {
        let mut ended = None;
        let ready = wait_until(START_DEADLINE, || {
            ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            ended.is_some() || self.service.ready(&self.place, pid)
        });
        match (ready, ended) {
            (true, None) => Ok(()),
            (true, Some(status)) => {
                self.child = None;
                Err(self.not_started(format!("it ended with {status}")))
            }
            (false, _) => Err(self.not_started(format!("it was not ready after {START_DEADLINE:?}"))),
        }
    }

    fn not_started(&self, why: String) -> Error {
        Error::NotStarted { service: S::NAME, folder: self.place.folder.clone(), why, log: tail(&self.place) }
    }

    fn signal(&self, signal: Signal) -> Result<(), Error> {
        let Some(child) = &self.child else {
            return Err(Error::io(S::NAME, format!("send {signal}"), std::io::Error::other("it does not run")));
        };
        send(child, signal).map_err(|e| Error::io(S::NAME, format!("send {signal}"), e))
    }

    fn end(&mut self, signal: Signal) -> Result<(), Error> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let failed = |e| Error::io(S::NAME, format!("send {signal}"), e);
        send(&child, signal).map_err(failed)?;
        if !wait_until(STOP_DEADLINE, || matches!(child.try_wait(), Ok(Some(_)))) {
            child.kill().map_err(failed)?;
        }
        child.wait().map_err(failed)?;
        if wait_until(STOP_DEADLINE, || self.service.gone(&self.place)) {
            return Ok(());
        }
        Err(Error::io(S::NAME, "end it", std::io::Error::other("its helper processes are still there")))
    }

    fn keep_folder(&self) {
        eprintln!("{} kept its folder {}", S::NAME, self.place.folder.display());
        let _ = fs::write(self.place.folder.join(KEPT), "");
    }
}

impl<S: Service> Drop for Guard<S> {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            // A paused process takes no orderly signal.
            let _ = send(child, Signal::SIGCONT);
        }
        let _ = self.end(S::END);
        if std::thread::panicking() {
            self.keep_folder();
        }
        if std::env::var_os("TINE_TEST_KEEP").is_none() && !self.place.folder.join(KEPT).exists() {
            let _ = fs::remove_dir_all(&self.place.folder);
        }
    }
}

/// Signals a child of ours. It has not been waited for, so the pid is still its own.
fn send(child: &Child, signal: Signal) -> std::io::Result<()> {
    let pid = i32::try_from(child.id()).map_err(std::io::Error::other)?;
    signal::kill(Pid::from_raw(pid), signal).map_err(std::io::Error::from)
}

fn tail(place: &Place) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(place.log())?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}
