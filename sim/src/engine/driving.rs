//! What somebody who drives the run by hand needs of the loop.

use std::collections::BTreeMap;

use super::{Ending, Engine};
use crate::{
    coordination::Coordination,
    faults::{Fault, Kind, Point},
    invariants::Broken,
    sql::table::Cells,
};

impl Engine<'_> {
    /// Before the first event: nothing is healed until somebody says so, and whatever is asked for can happen.
    pub(crate) fn drive_by_hand(&mut self) {
        self.by_hand = true;
        self.deadline_us = u64::MAX;
        self.coordination = Coordination::new(true);
    }

    /// Lets everything happen up to a time.
    pub(crate) fn run_until(&mut self, ms: u64) {
        while self.agenda.next_at().is_some_and(|at_us| at_us <= ms * 1000) && self.step() {}
        if self.over.is_none() {
            self.now_us = self.now_us.max(ms * 1000);
        }
    }

    /// Drives to a moment; the process that reached it, if it comes in time.
    pub(crate) fn run_to(&mut self, point: Point, until_ms: u64) -> Option<usize> {
        self.points.wanted = Some(point);
        self.points.reached = None;
        while self.points.reached.is_none() && self.now_ms() < until_ms && self.step() {}
        self.points.wanted = None;
        self.points.reached.take()
    }

    /// What has broken so far.
    pub(crate) fn broken(&self) -> Option<Broken> {
        self.over.as_ref()?.as_ref().err().map(Ending::broken)
    }

    /// When a moment came last, in milliseconds.
    pub(crate) fn passed(&self, point: Point) -> Option<u64> {
        self.points.passed.iter().rev().find(|(passed, _)| *passed == point).map(|(_, ms)| *ms)
    }

    /// A fault begins now; `who` is whom it means by "whoever".
    pub(crate) fn inject(&mut self, fault: Fault, who: Option<usize>) {
        let index = self.plan.faults.len();
        self.plan.to_mut().faults.push(fault);
        self.took.push(None);
        if let Some(who) = who {
            self.points.noted(index, who);
        }
        self.fault_begins(index);
    }

    /// Ends all faults of a kind.
    pub(crate) fn end_faults(&mut self, kind: Kind) {
        for index in 0..self.plan.faults.len() {
            if self.plan.faults[index].kind == kind {
                self.fault_ends(index);
            }
        }
    }

    pub(crate) fn committed_everywhere(&self) -> u64 {
        self.sql.complete().0
    }

    pub(crate) fn table(&self, state: &str) -> Option<&BTreeMap<Cells, Cells>> {
        let index = self.built.group.states.iter().position(|one| one.name == state)?;
        self.sql.tables.get(index).map(|table| &table.rows)
    }

    /// The timeline so far.
    pub(crate) fn told(&self) -> Vec<String> {
        self.trace.lines()
    }
}
