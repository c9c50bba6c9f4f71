//! How workers come and go by faults: one stops, leaves and joins again, or its registration is taken from it.

use super::{Engine, event::Event};

/// How long a worker that leaves waits for others to take its tasks.
const RELIEVED_WITHIN_US: u64 = 150_000;

impl Engine<'_> {
    /// A process is stopped at once, lets go of everything, and starts again: at once, or when the fault ends.
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

    /// A worker is asked to end: it says so, the others take over its shards at the next boundary, and it ends.
    pub(crate) fn leave(&mut self, node: usize, index: usize) {
        let others = (0..self.nodes.len()).any(|other| other != node && self.nodes[other].up);
        let process = &self.nodes[node];
        if self.is_embedded() || !others || self.forces.left[node].is_some() || !process.up || process.paused {
            return;
        }
        self.took_effect(index);
        self.forces.left[node] = Some(index);
        self.relieve(node, RELIEVED_WITHIN_US);
    }

    /// A process that was asked to end has finished. It joins again when its fault is over.
    pub(crate) fn has_left(&mut self, node: usize, life: u32) {
        if self.nodes[node].life == life {
            self.trace.say(self.now_us, || format!("process {node} has left"));
            self.stop(node);
            self.restart(node);
        }
    }

    /// Whoever left by a fault joins again, as soon as it is gone.
    pub(crate) fn join(&mut self, index: usize) {
        for node in 0..self.nodes.len() {
            if self.forces.left[node] == Some(index) {
                self.forces.left[node] = None;
                self.restart(node);
            }
        }
    }

    /// A worker's registration is taken from it. It registers anew, comes last, and shards move.
    pub(crate) fn reassign(&mut self, index: usize) {
        let registered: Vec<usize> = self.coordination.registered().collect();
        if registered.len() > 1 {
            self.took_effect(index);
            let which = self.draws.election.below(registered.len() as u64);
            self.end_session(registered[which as usize]);
        }
    }

    /// A process that was asked to end, ends.
    pub(crate) fn ends(&mut self, node: usize) {
        let life = self.nodes[node].life;
        self.agenda.put(self.now_us, Event::Left { node, life });
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
