//! Which workers take part, and what happens when one stops, leaves or joins, or when shards move.
//!
//! Every change of owners ends all tasks and begins new ones; whoever led is elected anew. What was on its way between two
//! processes is lost with their connections. A process that slept through a change keeps its old tasks, and may go on
//! writing to the database with them, until it finds out; the others do not hear it any more.

use tine_trident::pipeline::Built;

use super::{Engine, node::Split};
use crate::settings::{Mode, Settings};

/// Who takes part.
pub(crate) struct Members {
    /// The processes that do, in order.
    present: Vec<usize>,
    /// How often shards have moved.
    moved: usize,
    /// Up to which move each process has come.
    known: Vec<usize>,
    /// The life of each process in which the last move found it: what was sent before does not reach it.
    since: Vec<u32>,
}

impl Members {
    pub(crate) fn new(settings: &Settings) -> Members {
        let nodes = settings.nodes();
        let present = match settings.mode {
            Mode::Cluster(_) => (0..nodes).collect(),
            Mode::Embedded => vec![0],
        };
        Members { present, moved: 0, known: vec![0; nodes], since: vec![0; nodes] }
    }

    /// The shards as they are dealt out now.
    pub(crate) fn split(&self, built: &Built) -> Split {
        Split::new(built, self.present.clone(), self.moved)
    }

    /// Whether a process has slept through a move of shards.
    pub(crate) fn is_behind(&self, node: usize) -> bool {
        self.known[node] != self.moved
    }

    /// Whether two processes have a connection.
    pub(crate) fn speak(&self, from: usize, to: usize) -> bool {
        from == to || self.known[from] == self.known[to]
    }

    /// A process begins a life with the shards as they are dealt out now.
    pub(crate) fn begins(&mut self, node: usize, life: u32) {
        if self.is_behind(node) {
            (self.known[node], self.since[node]) = (self.moved, life);
        }
    }

    /// The first life that packets may be meant for.
    pub(crate) fn since(&self, node: usize) -> u32 {
        self.since[node]
    }
}

impl Engine<'_> {
    /// A process is stopped, lets go of everything, and starts again: at once, or when the fault ends.
    pub(crate) fn restart_in_order(&mut self, node: usize, index: usize) {
        if !self.nodes[node].up || self.nodes[node].paused {
            return;
        }
        self.took_effect(index);
        self.stop(node);
        if self.plan.faults[index].for_ms == 0 {
            self.restart(node);
        }
    }

    /// A worker leaves; the others take over its shards.
    pub(crate) fn leave(&mut self, node: usize, index: usize) {
        let others = self.members.present.iter().any(|member| *member != node);
        if self.is_embedded() || !others || self.forces.left[node].is_some() {
            return;
        }
        self.took_effect(index);
        self.forces.left[node] = Some(index);
        self.members.present.retain(|member| *member != node);
        self.deal_out();
    }

    /// Whoever left by a fault joins again.
    pub(crate) fn join(&mut self, index: usize) {
        let back: Vec<usize> = (0..self.nodes.len()).filter(|node| self.forces.left[*node] == Some(index)).collect();
        if back.is_empty() {
            return;
        }
        for node in &back {
            self.forces.left[*node] = None;
            self.members.present.push(*node);
        }
        self.members.present.sort_unstable();
        self.deal_out();
        back.into_iter().for_each(|node| self.restart(node));
    }

    /// Shards move.
    pub(crate) fn reassign(&mut self, index: usize) {
        if !self.is_embedded() && self.members.present.len() > 1 {
            self.took_effect(index);
            self.deal_out();
        }
    }

    fn deal_out(&mut self) {
        self.members.moved += 1;
        self.split = self.members.split(&self.built);
        let members = &self.members.present;
        self.trace.say(self.now_us, || format!("shards are dealt out anew among processes {members:?}"));
        for node in 0..self.nodes.len() {
            // Whoever sleeps finds out later, unless it has left.
            if !self.nodes[node].paused || self.forces.left[node].is_some() {
                self.begin_anew(node);
            }
        }
    }

    /// A process that slept while shards moved begins anew.
    pub(crate) fn catch_up(&mut self, node: usize) {
        if self.members.is_behind(node) && !self.nodes[node].paused {
            self.begin_anew(node);
        }
    }

    /// Ends the tasks of a process and begins those that it has now; one that is down stays so.
    fn begin_anew(&mut self, node: usize) {
        let was_up = self.nodes[node].up;
        self.stop(node);
        self.members.begins(node, self.nodes[node].life);
        if was_up {
            self.restart(node);
        }
    }

    /// Ends a process in order: sessions and connections are closed.
    fn stop(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        self.leave_life(node).into_iter().for_each(|backend| self.end_backend(backend));
        for session in 0..self.coordination.sessions.len() {
            if self.coordination.sessions[session].node == node && self.coordination.sessions[session].alive {
                self.end_session(session);
            }
        }
        self.look_at_silence(node);
    }
}
