//! Which named moment has come, which faults wait for it, and whether somebody who drives the run does.

use tine_core::id::TxId;
use tine_trident::coordinator::event::Phase;

use super::{Engine, event::Event};
use crate::faults::{FaultPlan, Point};

/// Who waits for moments.
#[derive(Debug, Default)]
pub(crate) struct Points {
    /// Faults that have not begun.
    waiting: Vec<usize>,
    /// Faults that have, each with the process that reached its moment.
    begun: Vec<(usize, usize)>,
    /// What somebody drives to.
    pub(crate) wanted: Option<Point>,
    /// The process that reached it.
    pub(crate) reached: Option<usize>,
    elections: u64,
    /// Moments that have come, with their times, if somebody drives.
    pub(crate) passed: Vec<(Point, u64)>,
}

impl Points {
    pub(crate) fn new(plan: &FaultPlan) -> Points {
        let waiting = plan.faults.iter().enumerate().filter(|(_, fault)| fault.when.is_some());
        Points { waiting: waiting.map(|(index, _)| index).collect(), ..Points::default() }
    }

    /// A fault begins without a moment: the process that it means by "whoever".
    pub(crate) fn noted(&mut self, fault: usize, leader: usize) {
        if self.who(fault).is_none() {
            self.begun.push((fault, leader));
        }
    }

    /// The process that reached the moment of a fault.
    pub(crate) fn who(&self, fault: usize) -> Option<usize> {
        self.begun.iter().find(|(index, _)| *index == fault).map(|(_, node)| *node)
    }
}

impl Engine<'_> {
    pub(crate) fn entered(&mut self, node: usize, txid: TxId, phase: Phase) {
        let point = match phase {
            Phase::Planned => Point::Planned,
            Phase::Emitting => Point::Emitting,
            Phase::Processed => Point::Processed,
            Phase::Prepared => Point::Prepared,
            Phase::Complete => Point::Complete,
            // Said by the committer's side.
            Phase::CommitSent | Phase::Acknowledged => return,
        };
        self.reach(point, txid.0, node);
    }

    pub(crate) fn elected(&mut self, node: usize) {
        self.points.elections += 1;
        self.reach(Point::Elected, self.points.elections, node);
    }

    /// A moment has come at a process. What opens a window begins within this step, everything else right after it.
    pub(crate) fn reach(&mut self, point: fn(u16) -> Point, number: u64, node: usize) {
        if self.points.waiting.is_empty() && !self.by_hand {
            return;
        }
        let Ok(number) = u16::try_from(number) else { return };
        let point = point(number);
        if self.by_hand {
            self.points.passed.push((point, self.now_ms()));
        }
        if self.points.wanted == Some(point) {
            self.points.wanted = None;
            self.points.reached = Some(node);
        }
        if self.healed {
            return;
        }
        let mut now = Vec::new();
        self.points.waiting.retain(|index| {
            let waits = self.plan.faults[*index].when != Some(point);
            if !waits {
                now.push(*index);
            }
            waits
        });
        for index in now {
            self.points.begun.push((index, node));
            let fault = self.plan.faults[index];
            match fault.at_ms == 0 && fault.kind.is_window() {
                true => self.fault_begins(index),
                false => self.agenda.put(self.now_us + u64::from(fault.at_ms) * 1000, Event::Fault(index, true)),
            }
        }
    }
}
