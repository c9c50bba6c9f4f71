//! A run driven by hand: virtual time, faults at named moments, a scenario step by step.

use std::collections::BTreeMap;

use crate::{
    engine::Engine,
    faults::{Fault, Kind, Point},
    invariants::Broken,
    report::Report,
    simulate::Simulation,
    sql::table::{Cell, Cells},
};

/// How many lines of a timeline are shown.
const SHOWN: usize = 60;

/// How much virtual time a moment may take to come.
const PATIENCE_MS: u64 = 60_000;

/// A run that stands still unless it is driven: see [`Simulation::script`].
pub struct Script {
    simulation: Simulation,
    engine: Engine<'static>,
    /// The process that reached the last moment.
    who: Option<usize>,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script")
            .field("now_ms", &self.now_ms())
            .field("committed", &self.committed())
            .finish_non_exhaustive()
    }
}

impl Script {
    pub(crate) fn new(simulation: Simulation, mut engine: Engine<'static>) -> Script {
        engine.drive_by_hand();
        engine.begin();
        Script { simulation, engine, who: None }
    }

    /// The virtual time since the start, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.engine.now_ms()
    }

    /// Lets virtual time pass.
    pub fn run_for(&mut self, ms: u64) {
        self.engine.run_until(self.now_ms() + ms);
    }

    /// Drives to a moment, and stops right there: nothing else has happened since. Answers with the process that reached
    /// it, which [`Kind::WHOEVER`] means from now on.
    ///
    /// # Panics
    /// When the moment does not come within a minute of virtual time, or something breaks before it; with the timeline.
    #[track_caller]
    #[allow(clippy::panic, reason = "this is how a test fails")]
    pub fn until(&mut self, point: Point) -> u8 {
        match self.reaches(point) {
            Some(node) => node,
            None => panic!("{}", self.why_not(point)),
        }
    }

    /// Drives to a moment, if it comes within a minute of virtual time. One that has come already may come again: a transaction
    /// that is tried again is emitted again.
    pub fn reaches(&mut self, point: Point) -> Option<u8> {
        let node = self.engine.run_to(point, self.now_ms() + PATIENCE_MS)?;
        self.who = Some(node);
        u8::try_from(node).ok()
    }

    fn why_not(&self, point: Point) -> String {
        let why = match (self.engine.broken(), self.engine.passed(point)) {
            (Some(Broken { invariant, what }), _) => format!("{invariant} does not hold before {point}: {what}"),
            (_, Some(ms)) => {
                format!("it came at {ms} ms that {point}, and not again within a minute; drive to it earlier")
            }
            _ => format!(
                "it never came that {point}, within a minute; {} transactions are committed. What the sources hold comes in \
                 steps, and `settings.held` of them with `finish`",
                self.committed()
            ),
        };
        let told = self.engine.told();
        let hidden = told.len().saturating_sub(SHOWN);
        format!("{why}\ntimeline ({hidden} lines before):\n{}", told[hidden..].join("\n"))
    }

    /// Something goes wrong now, and stays so until [`end`](Script::end) or [`heal`](Script::heal).
    pub fn inject(&mut self, kind: Kind) {
        self.inject_for(0, kind);
    }

    /// Something goes wrong now, for some milliseconds.
    pub fn inject_for(&mut self, ms: u16, kind: Kind) {
        let at_ms = u16::try_from(self.now_ms()).unwrap_or(u16::MAX);
        self.engine.inject(Fault::at(at_ms, kind).lasting(ms), self.who);
    }

    /// Ends the faults of this kind: who crashed starts again, who slept wakes up, what was cut is whole.
    pub fn end(&mut self, kind: Kind) {
        self.engine.end_faults(kind);
    }

    /// Ends all faults, and starts whatever is down.
    pub fn heal(&mut self) {
        self.engine.heal();
    }

    /// Who leads, if somebody does.
    pub fn leader(&self) -> Option<u8> {
        self.engine.leader().and_then(|node| u8::try_from(node).ok())
    }

    /// The last transaction that is committed in all shards.
    pub fn committed(&self) -> u64 {
        self.engine.committed_everywhere()
    }

    /// A state's table as the database holds it now: value columns by key columns.
    pub fn table(&self, state: &str) -> Option<&BTreeMap<Cells, Cells>> {
        self.engine.table(state)
    }

    /// The one number at a text key of a state's table, as the database holds it now.
    pub fn count(&self, state: &str, key: &str) -> Option<i64> {
        let key: Cells = Box::new([Cell::Text(key.to_owned())]);
        match self.table(state)?.get(&key)?.first() {
            Some(Cell::BigInt(count)) => Some(*count),
            _ => None,
        }
    }

    /// What has happened so far, a line each.
    pub fn timeline(&self) -> Vec<String> {
        self.engine.told()
    }

    /// Heals everything, lets the sources grow to their end, drains, and looks at what is expected: see
    /// [`Report::assert_held`].
    pub fn finish(mut self) -> Report {
        self.engine.heal();
        while self.engine.step() {}
        let mut report = self.engine.into_report();
        report.by_hand = true;
        self.simulation.judged(report)
    }
}
