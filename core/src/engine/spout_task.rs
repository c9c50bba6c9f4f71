//! One spout at work: owns its trees, hears how they end, and asks for more while there is room.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::{
    acks::{AckBox, Word},
    bolt_task::FLUSH_EVERY_US,
    shared::Phase,
    task::{Step, Task, guarded, panicked, said},
};
use crate::{
    component::{Context, Next, Spout, SpoutCollector},
    failure::Failure,
    trees::{Settled, Trees},
    tuple::Root,
};

/// Calls of `next` in one turn, at most.
const CALLS_PER_TURN: u32 = 256;

/// After so many is looked whether there is room for more.
const CALLS_PER_LOOK: u32 = 16;

/// A turn ends when its calls have taken this long, so that trees end and other tasks get their turn.
const TURN_US: u64 = 500;

/// How long an idle spout waits before it is asked again, at first and at last.
const IDLE_MIN: Duration = Duration::from_micros(50);
const IDLE_MAX: Duration = Duration::from_millis(1);

pub(crate) struct SpoutTask<S: Spout> {
    pub(crate) spout: S,
    pub(crate) out: SpoutCollector<S::Out, S::Id>,
    pub(crate) context: Context,
    pub(crate) reports: Arc<AckBox>,
    pub(crate) max_pending: usize,
    pub(crate) progress: Progress<S::Id>,
}

/// Where a [`SpoutTask`] stands.
pub(crate) struct Progress<I> {
    opened: bool,
    active: bool,
    /// It has said that there will be no more.
    done: bool,
    /// Everybody has been told that it emits no more.
    told_done: bool,
    tick_at_us: u64,
    flushed_at_us: u64,
    idle: Duration,
    // Reused from turn to turn.
    acks: Vec<(Root, u64)>,
    words: Vec<Word>,
    ended: Vec<(Settled<I>, Option<Failure>)>,
    /// Latencies of trees that are complete, and how many trees had each.
    runs: Vec<(u64, u64)>,
}

impl<I> Default for Progress<I> {
    fn default() -> Self {
        Progress {
            opened: false,
            active: false,
            done: false,
            told_done: false,
            tick_at_us: 0,
            flushed_at_us: 0,
            idle: IDLE_MIN,
            acks: Vec::new(),
            words: Vec::new(),
            ended: Vec::new(),
            runs: Vec::new(),
        }
    }
}

impl<S: Spout> Task for SpoutTask<S> {
    fn has_moved(&self) -> bool {
        self.out.links.has_moved()
    }

    fn attach(&self) {
        self.out.links.attach();
    }

    fn step(&mut self) -> Step {
        let phase = self.out.links.shared.phase();
        if matches!(phase, Phase::Preparing | Phase::Stopped) {
            return Step::Idle(None);
        }
        let now_us = self.out.links.shared.now_us();
        self.out.now_us = now_us as u32;
        if !self.progress.opened {
            self.open(now_us);
        }
        self.turn_active(phase == Phase::Active);
        let mut worked = self.hear(now_us);
        if self.out.links.has_moved() {
            return Step::Worked;
        }
        self.out.streams.flush(false, &mut self.out.links);
        let mut wait = None;
        if self.out.streams.has_room() && phase == Phase::Active && !self.progress.done {
            match self.ask(now_us) {
                Some(Next::More) => worked = true,
                Some(Next::Idle) => {
                    wait = Some(self.progress.idle);
                    self.progress.idle = IDLE_MAX.min(self.progress.idle * 2);
                }
                Some(Next::In(pause)) => wait = Some(pause),
                Some(Next::Done) => self.progress.done = true,
                None => {}
            }
        }
        if !worked || now_us >= self.progress.flushed_at_us + FLUSH_EVERY_US {
            self.progress.flushed_at_us = now_us;
            self.flush();
        }
        self.publish();
        match worked {
            true => Step::Worked,
            false => Step::Idle(self.sooner(wait, now_us)),
        }
    }

    fn close(&mut self) {
        let Self { spout, out, .. } = self;
        let _ = guarded(&out.links, "close", || {
            spout.close();
            Ok(())
        });
        self.publish();
    }

    fn leave(&mut self) {
        if !self.progress.told_done {
            self.out.links.shared.spout_done();
        }
    }

    fn broke(&self, panic: Box<dyn Any + Send>) {
        self.out.links.report(&Failure::fatal(format!("the engine panicked: {}", said(&*panic))));
    }
}

impl<S: Spout> SpoutTask<S> {
    fn open(&mut self, now_us: u64) {
        let Self { spout, out, context, .. } = self;
        (self.progress.opened, self.progress.active) = (true, true);
        self.progress.tick_at_us = now_us + tick_us(out);
        if let Err(failure) = guarded(&out.links, "open", || spout.open(context)) {
            out.links.report(&Failure::fatal(format!("cannot be opened: {failure}")));
        }
    }

    fn turn_active(&mut self, active: bool) {
        if self.progress.active == active {
            return;
        }
        self.progress.active = active;
        let Self { spout, out, .. } = self;
        let _ = guarded(&out.links, "activate or deactivate", || {
            if active {
                spout.activate()
            } else {
                spout.deactivate()
            }
            Ok(())
        });
    }

    /// Takes the reports about its trees, lets the old ones expire, and tells the spout what has ended.
    fn hear(&mut self, now_us: u64) -> bool {
        let Self { out, reports, progress, .. } = self;
        reports.take(&mut progress.acks, &mut progress.words);
        if out.links.has_moved() {
            reports.put_back(&mut progress.acks, &mut progress.words);
            return false;
        }
        if out.trees.is_none() {
            // Without acking nobody waits for these.
            progress.acks.clear();
            progress.words.clear();
        }
        if let Some(trees) = &mut out.trees {
            for word in progress.words.drain(..) {
                match word {
                    Word::Alive(root) => trees.alive(root),
                    Word::Failed(root, failure) => {
                        progress.ended.extend(trees.fail(root).map(|settled| (settled, Some(failure))));
                    }
                    Word::AllFailed(failure) => {
                        trees.clear(|settled| progress.ended.push((settled, Some(failure.clone()))));
                    }
                }
            }
            if now_us >= progress.tick_at_us {
                progress.tick_at_us = now_us + timeout_us(&out.links.shared.settings.message_timeout) / 4;
                trees.tick(|settled| progress.ended.push((settled, Some(Failure::timed_out()))));
            }
        }
        let heard = !progress.acks.is_empty() || !progress.ended.is_empty();
        if heard {
            self.tell(now_us as u32);
        }
        heard
    }

    /// Tells the spout what has ended. A call that panics counts as one that returned.
    fn tell(&mut self, now_us: u32) {
        let Self { spout, out, progress, .. } = self;
        let (mut acks, mut ended) = (std::mem::take(&mut progress.acks), std::mem::take(&mut progress.ended));
        out.links.meter.enter(out.links.shared.now_us());
        let (mut reports, mut ends) = (acks.drain(..), ended.drain(..));
        loop {
            let told = catch_unwind(AssertUnwindSafe(|| {
                for (root, value) in reports.by_ref() {
                    if let Some(settled) = out.trees.as_mut().and_then(|trees| trees.ack(root, value)) {
                        complete(spout, settled, now_us, &mut progress.runs, &mut out.links.count.acked);
                    }
                }
                for (settled, failure) in ends.by_ref() {
                    match failure {
                        None => complete(spout, settled, now_us, &mut progress.runs, &mut out.links.count.acked),
                        Some(failure) => {
                            out.links.count.failed += 1;
                            spout.fail(settled.id, failure);
                        }
                    }
                }
            }));
            match told {
                Ok(()) => break,
                Err(panic) => drop(panicked(&out.links, "ack or fail", panic)),
            }
        }
        out.links.meter.leave();
        out.links.meter.completed(&progress.runs);
        progress.runs.clear();
        drop((reports, ends));
        (progress.acks, progress.ended) = (acks, ended);
    }

    /// Asks for more until there is none, or no room. `None` when as many trees as may be are under way.
    fn ask(&mut self, began_us: u64) -> Option<Next> {
        let mut said = None;
        self.out.links.meter.enter(began_us);
        for call in 1..=CALLS_PER_TURN {
            if self.out.pending() >= self.max_pending {
                break;
            }
            let Self { spout, out, .. } = self;
            let next = match catch_unwind(AssertUnwindSafe(|| spout.next(out))) {
                Ok(Ok(next)) => next,
                Ok(Err(failure)) => {
                    out.links.report(&failure);
                    Next::Idle
                }
                Err(panic) => {
                    panicked(&out.links, "next", panic);
                    Next::Idle
                }
            };
            said = Some(next);
            if next != Next::More || call.is_multiple_of(CALLS_PER_LOOK) && !self.out.streams.has_room() {
                break;
            }
            self.progress.idle = IDLE_MIN;
            if call.is_power_of_two() {
                let now_us = self.out.links.shared.now_us();
                self.out.now_us = now_us as u32;
                if now_us - began_us > TURN_US {
                    break;
                }
            }
        }
        self.out.links.meter.leave();
        if !self.out.ended.is_empty() {
            self.progress.ended.append(&mut self.out.ended);
            self.tell(self.out.now_us);
        }
        said
    }

    fn flush(&mut self) {
        let Self { out, progress, .. } = self;
        let free = out.streams.flush(true, &mut out.links);
        let ending = progress.done || out.links.shared.phase() >= Phase::Draining;
        if free && ending && !progress.told_done {
            progress.told_done = true;
            if !out.links.has_moved() {
                out.links.meter.pending(out.trees.as_ref().map_or(0, Trees::len));
            }
            out.links.shared.spout_done();
        }
    }

    /// An instance that has moved has no figures any more: they are another's.
    fn publish(&self) {
        if self.out.links.has_moved() {
            return;
        }
        self.out.streams.publish();
        self.out.links.publish();
        self.out.links.meter.pending(self.out.trees.as_ref().map_or(0, Trees::len));
    }

    /// The wait that the spout asks for, or that until the next tick if trees are under way.
    fn sooner(&self, wait: Option<Duration>, now_us: u64) -> Option<Duration> {
        let pending = self.out.trees.as_ref().is_some_and(|trees| !trees.is_empty());
        let tick = pending.then(|| Duration::from_micros(self.progress.tick_at_us.saturating_sub(now_us)));
        wait.into_iter().chain(tick).min()
    }
}

fn complete<S: Spout>(
    spout: &mut S,
    settled: Settled<S::Id>,
    now_us: u32,
    runs: &mut Vec<(u64, u64)>,
    acked: &mut u64,
) {
    *acked += 1;
    let latency = u64::from(now_us.wrapping_sub(settled.born));
    match runs.last_mut() {
        Some((same, count)) if *same == latency => *count += 1,
        _ => runs.push((latency, 1)),
    }
    spout.ack(settled.id);
}

fn tick_us<O, I>(out: &SpoutCollector<O, I>) -> u64 {
    timeout_us(&out.links.shared.settings.message_timeout) / 4
}

fn timeout_us(timeout: &Duration) -> u64 {
    u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX)
}
