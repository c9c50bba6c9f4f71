//! Who breaks things, looks after them, and audits: a thread for each victim, and one for the audits.
//!
//! Threads, because ending and starting a server blocks, and because each victim has a plan of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::plan::{Missing, Step, Target, plan};
use super::victim::Victim;
use super::{AUDIT_DEADLINE, Chaos};
use crate::audit::Audit;
use crate::report;

/// How often a victim is looked after.
const LOOK: Duration = Duration::from_millis(50);
/// How long it is quiet between two audits.
const AUDIT_EVERY: Duration = Duration::from_secs(30);

/// A victim and its name.
pub(super) type Cast = (Target, Box<dyn Victim>);

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Done {
    /// To whom.
    pub(super) kind: &'static str,
    pub(super) step: Step,
    /// Whether there was anything to hit.
    pub(super) took_effect: bool,
    /// When, in seconds since the start.
    pub(super) struck: f64,
    pub(super) healed: f64,
}

type Played = anyhow::Result<(Box<dyn Victim>, Vec<Done>)>;

/// Threads that each play a plan and look after their victim until they are ended.
#[derive(Debug)]
pub(super) struct Crew {
    threads: Vec<JoinHandle<Played>>,
    over: Arc<AtomicBool>,
}

impl Crew {
    /// From now on things break.
    pub(super) fn start(chaos: &Chaos, missing: Missing, start: Instant, cast: Vec<Cast>) -> Crew {
        let over = Arc::new(AtomicBool::new(false));
        let play = |(target, victim): Cast| {
            let steps = plan(chaos.seed, target, chaos.length, missing);
            let player = Player { target, victim, start, over: over.clone(), done: Vec::new() };
            thread::spawn(move || player.play(steps))
        };
        Crew { threads: cast.into_iter().map(play).collect(), over }
    }

    /// Whether one of them has ended before it was asked to: it comes with an error.
    pub(super) fn has_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Waits until every plan is over and everything is whole again.
    pub(super) async fn end_plan(self) -> anyhow::Result<(Vec<Box<dyn Victim>>, Vec<Done>)> {
        self.over.store(true, Ordering::Release);
        let joined = tokio::task::spawn_blocking(|| self.threads.into_iter().map(JoinHandle::join).collect::<Vec<_>>());
        let (mut victims, mut steps) = (Vec::new(), Vec::new());
        for played in joined.await? {
            let (victim, done) = played.map_err(|_| anyhow::anyhow!("a thread of the crew panicked"))??;
            victims.push(victim);
            steps.extend(done);
        }
        Ok((victims, steps))
    }
}

struct Player {
    target: Target,
    victim: Box<dyn Victim>,
    start: Instant,
    over: Arc<AtomicBool>,
    done: Vec<Done>,
}

impl Player {
    fn play(mut self, steps: Vec<Step>) -> Played {
        let target = self.target;
        self.steps(steps).with_context(|| format!("{target} after {:.1} s", self.start.elapsed().as_secs_f64()))?;
        Ok((self.victim, self.done))
    }

    fn steps(&mut self, steps: Vec<Step>) -> anyhow::Result<()> {
        for step in steps {
            if !self.watch_until(self.start + step.at)? {
                return Ok(());
            }
            let kind = self.victim.role().unwrap_or(self.target.kind());
            let struck = self.now();
            report(format_args!("  {struck:7.1} s  {}: {step}", self.target));
            self.victim.strike(step.fault)?;
            self.sleep_until(Instant::now() + step.hold);
            let took_effect = self.victim.heal(step.fault)?;
            self.done.push(Done { kind, step, took_effect, struck, healed: self.now() });
        }
        while self.watch_until(Instant::now() + Duration::from_secs(1))? {}
        Ok(())
    }

    fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Looks after the victim until then; `false` when it is all over.
    fn watch_until(&mut self, then: Instant) -> anyhow::Result<bool> {
        while Instant::now() < then && !self.over.load(Ordering::Acquire) {
            self.victim.watch()?;
            thread::sleep(LOOK.min(then.saturating_duration_since(Instant::now())));
        }
        Ok(!self.over.load(Ordering::Acquire))
    }

    /// A broken victim is not looked after.
    fn sleep_until(&self, then: Instant) {
        while Instant::now() < then && !self.over.load(Ordering::Acquire) {
            thread::sleep(LOOK.min(then.saturating_duration_since(Instant::now())));
        }
    }
}

/// What the audits under way came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Audits {
    /// Certified.
    pub(super) exact: usize,
    /// Did not get through: the database or the broker was away.
    pub(super) without: usize,
}

/// Audits the table again and again.
#[derive(Debug)]
pub(super) struct Auditor {
    stop: SyncSender<()>,
    thread: JoinHandle<anyhow::Result<Audits>>,
}

impl Auditor {
    pub(super) fn start(audit: Audit) -> Auditor {
        // One word, spoken once.
        let (stop, stopped) = sync_channel(1);
        let thread = thread::spawn(move || {
            let mut audits = Audits::default();
            while stopped.recv_timeout(AUDIT_EVERY) == Err(RecvTimeoutError::Timeout) {
                match audit.run(AUDIT_DEADLINE) {
                    Ok(verdict) if verdict.is_exact() => audits.exact += 1,
                    Ok(verdict) if verdict.code == 1 => bail!("an audit under way differs: {verdict}"),
                    Ok(_) | Err(_) => audits.without += 1,
                }
            }
            Ok(audits)
        });
        Auditor { stop, thread }
    }

    /// Whether it has ended before it was asked to: it comes with an error.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    pub(super) async fn end(self) -> anyhow::Result<Audits> {
        // It may have ended by itself, with an error that comes now.
        let _ = self.stop.send(());
        let joined = tokio::task::spawn_blocking(|| self.thread.join()).await?;
        joined.map_err(|_| anyhow::anyhow!("the auditor panicked"))?
    }
}
