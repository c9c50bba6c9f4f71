//! What is broken and healed: a server with the network in front of it, or a copy of the job.

use std::fs::OpenOptions;
use std::io::Write;
use std::iter::Sum;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::clock::Clock;
use super::disk::Disk;
use super::plan::Fault;
use crate::job::Job;
use crate::process::{Program, Running};
use crate::proxy::{Proxy, Verdict};
use crate::services::{Guard, Service};

/// How long a worker may take to end when it is asked to.
const STOP_DEADLINE: Duration = Duration::from_secs(120);
/// What workers write; the phases of transactions would be too many.
const LOG: &str = "warn,tine=info";

/// Something that can be broken.
pub(super) trait Victim: Send {
    /// Breaks it.
    fn strike(&mut self, fault: Fault) -> anyhow::Result<()>;
    /// Makes it whole again.
    fn heal(&mut self, fault: Fault) -> anyhow::Result<()>;
    /// Looks after it between faults.
    fn watch(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
    /// Ends it in good order, where that is of interest, and says what it came to.
    fn finish(&mut self) -> anyhow::Result<Told> {
        Ok(Told::default())
    }
}

/// A server, the proxy before it, and the disk of its tables if that can be filled.
#[derive(Debug)]
pub(super) struct Server<S: Service> {
    // Unmounted before the server removes its folder.
    pub(super) disk: Option<Disk>,
    pub(super) guard: Guard<S>,
    pub(super) link: Proxy,
}

impl<S: Service + Send + 'static> Victim for Server<S> {
    fn strike(&mut self, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Killed => self.guard.kill()?,
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
            Fault::DiskFull => self.disk()?.fill()?,
            Fault::ClockJump(_) => bail!("a server's clock is the machine's"),
        }
        Ok(())
    }

    fn heal(&mut self, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Killed => self.guard.restart()?,
            Fault::Paused => self.guard.resume()?,
            Fault::Refused | Fault::Delayed(_) | Fault::HalfOpen => self.link.pass(),
            Fault::Swallowed { then_cut } => {
                self.link.pass();
                if then_cut {
                    self.link.cut();
                }
            }
            Fault::CutAmid(..) => self.link.hook(|_, _| Verdict::Pass),
            Fault::DiskFull => self.disk()?.free()?,
            Fault::Restarted | Fault::Cut | Fault::ClockJump(_) => {}
        }
        Ok(())
    }
}

impl<S: Service> Server<S> {
    fn disk(&self) -> anyhow::Result<&Disk> {
        self.disk.as_ref().context("it has no disk of its own")
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
    pub(super) fn start(job: Job, clock: Option<Clock>, log: PathBuf) -> anyhow::Result<Self> {
        let mut worker = Self { job, clock, log, running: None, told: Told::default() };
        worker.begin()?;
        Ok(worker)
    }

    fn begin(&mut self) -> anyhow::Result<()> {
        let program = self.job.program()?.env("RUST_LOG", LOG);
        let given = match &self.clock {
            Some(clock) => clock.give(program),
            None => program,
        };
        self.running = Some(Program::start(given)?);
        self.told.starts += 1;
        Ok(())
    }

    /// Keeps what it printed; fails when it says that something is wrong for good.
    fn end(&mut self) -> anyhow::Result<()> {
        let Some(running) = self.running.take() else { return Ok(()) };
        let lines = running.lines();
        self.told.elections += lines.iter().filter(|line| line.contains(": leads /")).count();
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
            Fault::ClockJump(seconds) => self.clock.as_ref().context("it has the machine's clock")?.set(seconds),
            fault => bail!("a worker cannot be hit by {}", fault.name()),
        }
    }

    fn heal(&mut self, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Killed => self.begin(),
            Fault::Paused => self.running.as_mut().context("it was paused")?.resume(),
            Fault::ClockJump(_) => self.clock.as_ref().context("it has the machine's clock")?.set(0),
            _ => Ok(()),
        }
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
