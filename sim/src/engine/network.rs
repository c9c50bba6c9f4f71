//! Links between processes and services: in order by default, with delays; and what faults do to them.

use tine_core::id::{Era, WorkerId};

use super::{
    Engine,
    event::{Event, Inbound, Packet},
};
use crate::{random::Draws, report::Phase};

/// All links, by the ends' numbers: processes, then coordination, then the database.
pub(crate) struct Network {
    ends: usize,
    /// When the last message of a link arrives: later ones come after it.
    last_us: Vec<u64>,
    draws: Vec<Draws>,
}

impl Network {
    pub(crate) fn new(ends: usize, seed: u64) -> Network {
        let links = ends * ends;
        Network {
            ends,
            last_us: vec![0; links],
            draws: (0..links as u64).map(|link| Draws::new(seed, 0x100 + link)).collect(),
        }
    }

    pub(crate) fn coordination(&self) -> usize {
        self.ends - 2
    }

    pub(crate) fn database(&self) -> usize {
        self.ends - 1
    }

    pub(crate) fn link(&self, from: usize, to: usize) -> usize {
        from * self.ends + to
    }
}

/// One way over a link takes this long, in microseconds.
const WAY_US: (u64, u64) = (150, 900);

impl Engine<'_> {
    /// Whether nothing gets from one end to the other now; if so, the fault took effect.
    pub(crate) fn is_cut(&mut self, from: usize, to: usize) -> bool {
        match self.forces.cut[self.network.link(from, to)] {
            Some(fault) => {
                self.took_effect(fault);
                true
            }
            None => false,
        }
    }

    /// How long one way takes now, faults of speed included.
    pub(crate) fn way_us(&mut self, from: usize, to: usize) -> u64 {
        let link = self.network.link(from, to);
        let way_us = self.network.draws[link].between(WAY_US.0, WAY_US.1);
        way_us * self.slowness(from).max(self.slowness(to))
    }

    /// How many times as long things take on a process.
    pub(crate) fn slowness(&mut self, node: usize) -> u64 {
        match self.forces.slow.get(node).copied().flatten() {
            Some(fault) => {
                self.took_effect(fault);
                10
            }
            None => 1,
        }
    }

    /// Hands something on within a process, in order.
    pub(crate) fn carry_inside(&mut self, node: usize, what: Inbound) {
        let life = self.nodes[node].life;
        let link = self.network.link(node, node);
        let at_us = (self.now_us + self.network.draws[link].between(2, 20)).max(self.network.last_us[link] + 1);
        self.network.last_us[link] = at_us;
        self.agenda.put(at_us, Event::Node { node, life, what });
    }

    /// Carries a packet to another process: it arrives once, twice, late or out of order.
    pub(crate) fn carry(&mut self, from: usize, to: usize, (me, era, packet): (WorkerId, Era, Packet)) {
        let life = self.nodes[to].life;
        let link = self.network.link(from, to);
        let mut at_us = self.now_us + self.way_us(from, to);
        if let Some(fault) = self.forces.delay
            && self.network.draws[link].chance(50)
        {
            at_us += self.network.draws[link].between(1_000, 60_000);
            self.took_effect(fault);
        }
        match self.forces.reorder {
            Some(fault) => {
                at_us += self.network.draws[link].between(0, 8_000);
                if at_us < self.network.last_us[link] {
                    self.took_effect(fault);
                }
            }
            None => at_us = at_us.max(self.network.last_us[link] + 1),
        }
        self.network.last_us[link] = self.network.last_us[link].max(at_us);
        if let Some(fault) = self.forces.duplicate
            && self.network.draws[link].chance(50)
        {
            let again_us = at_us + self.network.draws[link].between(1, 40_000);
            self.took_effect(fault);
            let what = Inbound::Packet(me, era, packet.clone());
            self.agenda.put(again_us, Event::Node { node: to, life, what });
        }
        self.agenda.put(at_us, Event::Node { node: to, life, what: Inbound::Packet(me, era, packet) });
    }

    /// Puts something into a process's inbox after a while.
    pub(crate) fn later(&mut self, node: usize, after_us: u64, what: Inbound) {
        let life = self.nodes[node].life;
        self.agenda.put(self.now_us + after_us, Event::Node { node, life, what });
    }

    /// The phase that the run is in, for the coverage table.
    pub(crate) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
    }
}
