//! What a run did: tables, faults that took effect, and what broke, if something did.

use std::{collections::BTreeMap, fmt};

use crate::{
    check::REPLAY,
    faults::{FaultPlan, NAMES},
    invariants::Broken,
    source::SimSource,
    sql::table::{Cell, Cells},
};

/// What the group was doing when a fault took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Electing,
    Raising,
    Planning,
    Emitting,
    Preparing,
    Committing,
}

/// Their names, in order.
pub(crate) const PHASES: [&str; 6] = ["electing", "raising", "planning", "emitting", "preparing", "committing"];

/// A fault that took effect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    pub(crate) kind: u8,
    pub(crate) phase: Phase,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Its faults.
    pub plan: FaultPlan,
    /// How many transactions were committed.
    pub txids: u64,
    /// How many attempts there were.
    pub attempts: u64,
    /// How many of them began after everything was healed.
    pub attempts_healed: u64,
    /// How many events were scheduled.
    pub events: u64,
    /// How long it took, in virtual milliseconds.
    pub virtual_ms: u64,
    /// The same for the same seed and plan, always.
    pub trace_hash: u64,
    /// What happened, if it was asked for.
    pub timeline: Vec<String>,
    /// What broke.
    pub broken: Option<Broken>,
    /// Whether somebody drove it by hand.
    pub by_hand: bool,
    /// The test whose check it is a case of, which can be asked for this run.
    pub(crate) test: Option<String>,
    pub(crate) took: Vec<Option<Took>>,
    pub(crate) states: Vec<String>,
    pub(crate) tables: Vec<BTreeMap<Cells, Cells>>,
    pub(crate) sources: Vec<SimSource>,
}

impl Report {
    pub(crate) fn without_a_run(seed: u64, plan: &FaultPlan, broken: Broken) -> Report {
        Report {
            seed,
            plan: plan.clone(),
            txids: 0,
            attempts: 0,
            attempts_healed: 0,
            events: 0,
            virtual_ms: 0,
            trace_hash: 0,
            timeline: Vec::new(),
            broken: Some(broken),
            by_hand: false,
            test: None,
            took: Vec::new(),
            states: Vec::new(),
            tables: Vec::new(),
            sources: Vec::new(),
        }
    }

    /// How many faults took effect.
    pub fn faults(&self) -> usize {
        self.took.iter().flatten().count()
    }

    /// Whether the fault at this place of the plan took effect.
    pub fn felt(&self, fault: usize) -> bool {
        self.took.get(fault).is_some_and(Option::is_some)
    }

    /// A state's table: value columns by key columns.
    pub fn table(&self, state: &str) -> Option<&BTreeMap<Cells, Cells>> {
        self.states.iter().position(|name| name == state).map(|index| &self.tables[index])
    }

    /// The one number at a text key of a state's table.
    pub fn count(&self, state: &str, key: &str) -> Option<i64> {
        let key: Cells = Box::new([Cell::Text(key.to_owned())]);
        match self.table(state)?.get(&key)?.first() {
            Some(Cell::BigInt(count)) => Some(*count),
            _ => None,
        }
    }

    /// The values of all the records of all the sources, in partition order.
    pub fn records(&self) -> Vec<String> {
        let mut values = Vec::new();
        for source in &self.sources {
            for partition in source.log().partitions.iter().filter(|partition| partition.exists) {
                let there = partition.records.iter().filter(|record| record.position < partition.end);
                values.extend(there.map(|record| record.value.to_string()));
            }
        }
        values
    }

    /// One line before `cargo test` that lets a [check](crate::check::Faulty::check) do this run and no other.
    pub fn replay_line(&self) -> String {
        format!("{REPLAY}='{}'", self.case())
    }

    /// Seed and faults, as replay lines and kept cases have them.
    pub(crate) fn case(&self) -> String {
        format!("{}/{}", self.seed, self.plan)
    }

    /// # Panics
    /// With the whole story, if something did not hold.
    #[track_caller]
    pub fn assert_held(&self) {
        assert!(self.broken.is_none(), "{self}");
    }
}

impl Report {
    /// From which line on the timeline is told: shortly before the first fault, and not more than fits on a page.
    fn told_from(&self) -> usize {
        const SHOWN: usize = 60;
        const BEFORE: usize = 4;
        let first = self.timeline.iter().position(|line| line.contains("FAULT")).unwrap_or(0);
        first.saturating_sub(BEFORE).max(self.timeline.len().saturating_sub(SHOWN))
    }
}

/// The failure in words: what broke, the faults, the timeline, and the line that replays it.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.broken {
            None => writeln!(f, "nothing broke: {} transactions, {} attempts", self.txids, self.attempts)?,
            Some(broken) => writeln!(f, "{} does not hold: {}", broken.invariant, broken.what)?,
        }
        write!(f, "seed {}, trace {:016x}, ", self.seed, self.trace_hash)?;
        match self.plan.faults.is_empty() && !self.by_hand {
            true => writeln!(f, "no faults: look at the topology, and at what is expected of it")?,
            false => write!(f, "faults:\n{:#}", self.plan)?,
        }
        let hidden = self.told_from();
        if hidden > 0 {
            writeln!(f, "timeline ({hidden} lines before):")?;
        } else if !self.timeline.is_empty() {
            writeln!(f, "timeline:")?;
        }
        for line in self.timeline.iter().skip(hidden) {
            writeln!(f, "{line}")?;
        }
        match (self.by_hand, &self.test) {
            (true, _) => write!(f, "replay: it was driven by hand, and happens again when the test is run again"),
            (false, Some(test)) => write!(f, "replay: {} cargo test -- --exact {test}", self.replay_line()),
            (false, None) => write!(f, "replay: .replay_line({:?}) of this simulation", self.case()),
        }
    }
}

/// What many runs did together.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Runs.
    pub runs: u64,
    /// Transactions committed.
    pub txids: u64,
    /// The fewest of one run.
    pub txids_min: u64,
    /// Attempts.
    pub attempts: u64,
    /// Events.
    pub events: u64,
    /// Faults that took effect.
    pub faults: u64,
    /// The run that took longest until everything was committed: its virtual milliseconds and its seed.
    pub slowest: (u64, u64),
    /// How often each kind took effect first in each phase.
    took: BTreeMap<u8, [u64; PHASES.len()]>,
}

impl Coverage {
    /// Adds a run.
    pub fn add(&mut self, report: &Report) {
        self.txids_min = if self.runs == 0 { report.txids } else { self.txids_min.min(report.txids) };
        self.runs += 1;
        self.txids += report.txids;
        self.attempts += report.attempts;
        self.events += report.events;
        self.slowest = self.slowest.max((report.virtual_ms, report.seed));
        for took in report.took.iter().flatten() {
            self.faults += 1;
            self.took.entry(took.kind).or_default()[took.phase as usize] += 1;
        }
    }

    /// Adds other runs.
    pub fn merge(&mut self, other: &Coverage) {
        self.txids_min = match (self.runs, other.runs) {
            (0, _) => other.txids_min,
            (_, 0) => self.txids_min,
            _ => self.txids_min.min(other.txids_min),
        };
        self.runs += other.runs;
        self.txids += other.txids;
        self.attempts += other.attempts;
        self.events += other.events;
        self.faults += other.faults;
        self.slowest = self.slowest.max(other.slowest);
        for (kind, theirs) in &other.took {
            self.took.entry(*kind).or_default().iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
        }
    }

    /// Something per run.
    pub fn average(&self, total: u64) -> f64 {
        total as f64 / self.runs.max(1) as f64
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} runs; on average {:.1} transactions (fewest {}), {:.1} faults that took effect, {:.1} attempts, {:.0} events; \
             the slowest took {} ms (seed {})",
            self.runs,
            self.average(self.txids),
            self.txids_min,
            self.average(self.faults),
            self.average(self.attempts),
            self.average(self.events),
            self.slowest.0,
            self.slowest.1
        )?;
        write!(f, "{:<24}", "fault, first felt while")?;
        PHASES.iter().try_for_each(|phase| write!(f, "{phase:>12}"))?;
        for (kind, row) in &self.took {
            write!(f, "\n{:<24}", NAMES[usize::from(*kind)])?;
            row.iter().try_for_each(|count| write!(f, "{count:>12}"))?;
        }
        Ok(())
    }
}
