//! What is broken and healed: a server with the network around it, or a copy of the job.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::iter::Sum;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::clock::Clock;
use super::plan::{self, Fault};
use crate::disk::Disk;
use crate::job::{Job, cut_next_commit};
use crate::process::{Program, Running};
use crate::proxy::{Proxy, Verdict};
use crate::services::{Guard, Service};

/// How long a worker may take to end when it is asked to.
const STOP_DEADLINE: Duration = Duration::from_secs(120);
/// What workers write; the phases of transactions would be too many.
const LOG: &str = "warn,tine=info";
/// What one writes that was elected.
const LEADS: &str = ": leads /";

/// Something that can be broken.
pub(super) trait Victim: Send {
    /// Breaks it.
    fn strike(&mut self, fault: Fault) -> anyhow::Result<()>;
    /// Makes it whole again, and says whether there was anything that the fault has hit.
    fn heal(&mut self, fault: Fault) -> anyhow::Result<bool>;
    /// What it is at the moment, where that is not its name.
    fn role(&self) -> Option<&'static str> {
        None
    }
    /// Looks after it between faults.
    fn watch(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
    /// Ends it in good order, where that is of interest, and says what it came to.
    fn finish(&mut self) -> anyhow::Result<Told> {
        Ok(Told::default())
    }
}

/// A server, the proxies around it, and its disks if they can be filled.
#[derive(Debug)]
pub(super) struct Server<S: Service> {
    // Unmounted before the server removes its folder.
    pub(super) disks: Disks,
    pub(super) guard: Guard<S>,
    /// What its clients go through.
    pub(super) link: Proxy,
    /// What it goes through to its peers.
    pub(super) peers: Vec<Peer>,
    before: Before,
}

/// The disks of a server.
#[derive(Debug, Default)]
pub(super) struct Disks {
    pub(super) tables: Option<Disk>,
    pub(super) log: Option<Disk>,
}

/// The way from one server of an ensemble to another one.
#[derive(Debug)]
pub(super) struct Peer {
    /// Only a follower's is in use, the one to its leader.
    pub(super) quorum: Proxy,
    pub(super) election: Proxy,
}

/// How things stood when a fault struck.
#[derive(Debug, Default)]
struct Before {
    accepted: u64,
    hits: u64,
    /// Whether connections were open that the fault concerns.
    open: bool,
    log_bytes: u64,
}

impl<S: Service> Server<S> {
    pub(super) fn new(guard: Guard<S>, link: Proxy, peers: Vec<Peer>, disks: Disks) -> Self {
        Self { disks, guard, link, peers, before: Before::default() }
    }

    fn look(&self, fault: Fault) -> Before {
        let open = match fault {
            Fault::Lagging(_) | Fault::Apart => self.peers.iter().any(|peer| peer.quorum.open() > 0),
            _ => self.link.open() > 0,
        };
        let log_bytes = self.guard.place.log().metadata().map_or(0, |log| log.len());
        Before { accepted: self.link.accepted(), hits: self.link.hits(), open, log_bytes }
    }

    /// Whether the server has said this since the fault struck.
    fn has_said(&self, words: &str) -> bool {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut log = File::open(self.guard.place.log())?;
            log.seek(SeekFrom::Start(self.before.log_bytes))?;
            let mut bytes = Vec::new();
            log.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().is_ok_and(|bytes| bytes.windows(words.len()).any(|window| window == words.as_bytes()))
    }

    fn disk(&self, which: plan::Disk) -> anyhow::Result<&Disk> {
        let disk = match which {
            plan::Disk::Tables => &self.disks.tables,
            plan::Disk::Log => &self.disks.log,
        };
        disk.as_ref().context("it has no disk of its own")
    }
}

impl<S: Service + Send + 'static> Victim for Server<S> {
    fn strike(&mut self, fault: Fault) -> anyhow::Result<()> {
        self.before = self.look(fault);
        match fault {
            Fault::Killed | Fault::AllAway => self.guard.kill()?,
            Fault::Restarted => self.guard.restart()?,
            Fault::Paused => self.guard.pause()?,
            Fault::Cut => self.link.cut(),
            Fault::Refused => {
                self.link.refuse();
                self.link.cut();
            }
            Fault::Delayed(ms) => self.link.delay(Duration::from_millis(ms)),
            Fault::Swallowed { .. } => self.link.swallow_replies(),
            Fault::HalfOpen => self.link.half_open(),
            Fault::CutAmid(nth, verdict) => cut_amid(&self.link, nth, verdict),
            Fault::CutCommit(verdict) => cut_next_commit(&self.link, verdict),
            Fault::DiskFull(which) => self.disk(which)?.fill()?,
            Fault::Lagging(ms) => self.peers.iter().for_each(|peer| peer.quorum.delay(Duration::from_millis(ms))),
            Fault::Apart => self.peers.iter().for_each(|peer| {
                peer.quorum.half_open();
                peer.election.half_open();
            }),
            Fault::ClockJump(_) | Fault::CutOff => bail!("a server cannot be hit by {}", fault.name()),
        }
        Ok(())
    }

    fn heal(&mut self, fault: Fault) -> anyhow::Result<bool> {
        let hits = self.link.hits() > self.before.hits;
        let touched = self.before.open || self.link.accepted() > self.before.accepted;
        // Debian's ZooKeeper says nothing, and does not serve any more.
        let full =
            matches!(fault, Fault::DiskFull(_)) && (self.has_said("No space left on device") || !self.guard.serves());
        match fault {
            Fault::Killed | Fault::AllAway => self.guard.restart()?,
            Fault::Paused => self.guard.resume()?,
            Fault::Refused | Fault::Delayed(_) | Fault::HalfOpen => self.link.pass(),
            Fault::Swallowed { then_cut } => {
                self.link.pass();
                if then_cut {
                    self.link.cut();
                }
            }
            Fault::CutAmid(..) | Fault::CutCommit(_) => self.link.hook(|_, _| Verdict::Pass),
            Fault::DiskFull(which) => {
                self.disk(which)?.free()?;
                if which == plan::Disk::Log {
                    // A server that cannot write its log gives up, sooner or later.
                    self.guard.restart_with_room()?;
                }
            }
            Fault::Lagging(_) | Fault::Apart => self.peers.iter().for_each(|peer| {
                peer.quorum.pass();
                peer.election.pass();
            }),
            Fault::Restarted | Fault::Cut | Fault::ClockJump(_) | Fault::CutOff => {}
        }
        Ok(match fault {
            Fault::CutAmid(..) | Fault::CutCommit(_) => hits,
            Fault::DiskFull(_) => full,
            Fault::Cut | Fault::Lagging(_) | Fault::Apart => self.before.open,
            Fault::Refused | Fault::Delayed(_) | Fault::Swallowed { .. } | Fault::HalfOpen => touched,
            _ => true,
        })
    }
}

/// Cuts the connection of the nth request from now on, once.
fn cut_amid(link: &Proxy, nth: u64, verdict: Verdict) {
    let (mut left, mut armed) = (nth, true);
    link.hook(move |_, _| {
        if left > 0 {
            left -= 1;
            return Verdict::Pass;
        }
        if std::mem::take(&mut armed) { verdict } else { Verdict::Pass }
    });
}

/// A copy of the job, and its supervisor: it is started again whenever it ends.
#[derive(Debug)]
pub(super) struct Worker {
    job: Job,
    clock: Option<Clock>,
    log: PathBuf,
    /// What it goes through to each server of ZooKeeper.
    links: Vec<Proxy>,
    running: Option<Running>,
    told: Told,
}

/// What the lives of workers came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Times one was elected.
    pub(super) elections: usize,
    /// Times one was started.
    pub(super) starts: usize,
    /// Times one ended without being killed.
    pub(super) ends: usize,
}

impl Sum for Told {
    fn sum<I: Iterator<Item = Told>>(all: I) -> Told {
        all.fold(Told::default(), |sum, one| Told {
            elections: sum.elections + one.elections,
            starts: sum.starts + one.starts,
            ends: sum.ends + one.ends,
        })
    }
}

impl Worker {
    /// Everything it prints goes to `log`.
    pub(super) fn start(job: Job, clock: Option<Clock>, log: PathBuf, links: Vec<Proxy>) -> anyhow::Result<Self> {
        let mut worker = Self { job, clock, log, links, running: None, told: Told::default() };
        worker.begin()?;
        Ok(worker)
    }

    fn begin(&mut self) -> anyhow::Result<()> {
        let program = self.job.program()?.env("RUST_LOG", LOG);
        let given = match &self.clock {
            Some(clock) => clock.give(program),
            None => program,
        };
        let mut running = Program::start(given)?;
        self.job.await_broken(&mut running)?;
        self.running = Some(running);
        self.told.starts += 1;
        Ok(())
    }

    /// Keeps what it printed; fails when it says that something is wrong for good.
    fn end(&mut self) -> anyhow::Result<()> {
        let Some(running) = self.running.take() else { return Ok(()) };
        let lines = running.lines();
        self.told.elections += lines.iter().filter(|line| line.contains(LEADS)).count();
        let mut log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        lines.iter().try_for_each(|line| writeln!(log, "{line}"))?;
        writeln!(log, "---- ended ----")?;
        let wrong = |line: &&String| line.contains("panicked") || line.contains("halted");
        match lines.iter().find(wrong) {
            Some(line) => bail!("a worker says: {line}; everything it said is in {}", self.log.display()),
            None => Ok(()),
        }
    }

    /// The exit status, when it has ended by itself.
    fn ended(&mut self) -> Option<ExitStatus> {
        let running = self.running.as_mut()?;
        if running.runs() { None } else { running.wait(Duration::from_secs(1)).ok() }
    }
}

impl Victim for Worker {
    fn strike(&mut self, fault: Fault) -> anyhow::Result<()> {
        let running = self.running.as_mut().context("it was started again at the last look")?;
        match fault {
            Fault::Killed => {
                running.kill()?;
                // Its last lines are on their way.
                running.wait(Duration::from_secs(1))?;
                self.end()
            }
            Fault::Paused => running.pause(),
            Fault::CutOff => {
                self.links.iter().for_each(Proxy::half_open);
                Ok(())
            }
            Fault::ClockJump(seconds) => self.clock.as_ref().context("it has the machine's clock")?.set(seconds),
            fault => bail!("a worker cannot be hit by {}", fault.name()),
        }
    }

    fn heal(&mut self, fault: Fault) -> anyhow::Result<bool> {
        match fault {
            Fault::Killed => self.begin()?,
            Fault::Paused => self.running.as_mut().context("it was paused")?.resume()?,
            Fault::ClockJump(_) => self.clock.as_ref().context("it has the machine's clock")?.set(0)?,
            Fault::CutOff => self.links.iter().for_each(Proxy::pass),
            _ => {}
        }
        Ok(true)
    }

    fn role(&self) -> Option<&'static str> {
        let lines = self.running.as_ref()?.lines();
        let ends = ["standing by", "standby, session", "leadership lost"];
        let is_last = |line: &&String| line.contains(LEADS) || ends.iter().any(|end| line.contains(end));
        let leads = lines.iter().rev().find(is_last).is_some_and(|line| line.contains(LEADS));
        Some(if leads { "leader" } else { "standby" })
    }

    fn watch(&mut self) -> anyhow::Result<()> {
        if self.ended().is_some() {
            self.told.ends += 1;
            self.end()?;
            self.begin()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> anyhow::Result<Told> {
        if let Some(running) = &mut self.running {
            running.terminate()?;
            let status = running.wait(STOP_DEADLINE)?;
            ensure!(status.success(), "asked to stop, a worker ended with {status}:\n{}", running.lines().join("\n"));
            self.end()?;
        }
        Ok(self.told)
    }
}
