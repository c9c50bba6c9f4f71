//! Lines between workers, as the production transport keeps them: one for each direction, opened by its sender, ordered.
//!
//! A line breaks when an end dies, leaves the other out, sleeps for long, or is cut off from the other; both ends hear of that, each in its own
//! time. What is sent into a broken line before its end has heard is lost. Of what the peer has not taken yet all may arrive, late or not,
//! or the first part, or nothing; who sent it never hears which, so the trees of all of it fail when the sender hears of the break.

use std::collections::BTreeMap;

use tine_core::{failure::Failure, id::WorkerId, membership, tuple::Root};

use super::{
    Engine,
    event::{Event, Inbound, Packet},
    workers::node_of,
};
use crate::random::{Draws, mix};

/// How long a worker waits before it tries to connect again.
const AGAIN_US: (u64, u64) = (6_000, 12_000);

/// How long after a cut an end finds out.
const CUT_US: (u64, u64) = (2_000, 60_000);

/// The lines of a process, by the peers that they lead to: those of its assignment.
pub(crate) type Lines = BTreeMap<WorkerId, Line>;

/// The sender's end of a line.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Whether its owner believes that it stands.
    stands: bool,
    /// Whether it does.
    sound: bool,
    /// How often it has stood.
    number: u32,
    /// The trees of what was sent and the peer has not taken.
    lost: Vec<Root>,
}

impl Engine<'_> {
    /// From now on a process talks to these workers and to nobody else; lines to those that stay, stay.
    pub(crate) fn follow(&mut self, node: usize, me: WorkerId, peers: &[WorkerId]) {
        let lines = self.nodes[node].worker.lines.keys();
        let gone: Vec<WorkerId> = lines.filter(|peer| !peers.contains(peer)).copied().collect();
        for peer in gone {
            if let Some(line) = self.nodes[node].worker.lines.remove(&peer) {
                // Whose tasks these were is over: nobody is told of their trees.
                self.strand(me, peer, line.number);
            }
            let after_us = self.way_us(node, node_of(peer));
            self.break_line(peer, me, after_us);
        }
        for peer in peers.iter().filter(|peer| **peer != me) {
            let lines = &mut self.nodes[node].worker.lines;
            if !lines.contains_key(peer) {
                lines.insert(*peer, Line::default());
                self.dial(node, me, *peer, (300, 1_800));
            }
        }
    }

    fn dial(&mut self, node: usize, me: WorkerId, peer: WorkerId, (low, high): (u64, u64)) {
        let after_us = self.draws.lives.between(low, high);
        let life = self.nodes[node].life;
        self.agenda.put(self.now_us + after_us, Event::Dial { node, life, me, peer });
    }

    /// A worker tries to connect to another one, and is let in when that one follows it.
    pub(crate) fn on_dial(&mut self, node: usize, life: u32, me: WorkerId, peer: WorkerId) {
        let process = &self.nodes[node];
        let wants = process.life == life
            && process.worker.id == Some(me)
            && process.worker.lines.get(&peer).is_some_and(|line| !line.stands);
        if !wants {
            return;
        }
        let there = node_of(peer);
        let cut = self.is_cut(node, there) || self.is_cut(there, node);
        let other = &self.nodes[there];
        let follows =
            other.up && !other.paused && other.worker.id == Some(peer) && other.worker.lines.contains_key(&me);
        if cut || self.nodes[node].paused || !follows {
            return self.dial(node, me, peer, AGAIN_US);
        }
        // Whoever is called again hears that the line before it broke.
        self.tell_broken(there, me, 0);
        if let Some(line) = self.nodes[node].worker.lines.get_mut(&peer) {
            (line.stands, line.sound) = (true, true);
            line.number += 1;
        }
        self.later(node, 10, Inbound::Member(Box::new(membership::Event::Up(peer))));
        if self.nodes[there].worker.lines.get(&me).is_some_and(|line| line.stands && line.sound) {
            self.later(there, 10, Inbound::Member(Box::new(membership::Event::Up(me))));
        }
    }

    /// The line of a worker to a peer breaks; its owner hears of it after a while.
    fn break_line(&mut self, owner: WorkerId, peer: WorkerId, after_us: u64) {
        let node = node_of(owner);
        if !self.nodes[node].up || self.nodes[node].worker.id != Some(owner) {
            return;
        }
        let Some(line) = self.nodes[node].worker.lines.get_mut(&peer).filter(|line| line.sound) else { return };
        line.sound = false;
        let number = line.number;
        let stranded = self.strand(owner, peer, number);
        if let Some(line) = self.nodes[node].worker.lines.get_mut(&peer) {
            line.lost.extend(stranded);
        }
        self.tell_broken(node, peer, after_us);
    }

    /// Of what a worker has sent on a line to another one, and that one has not taken, all comes, late or not, or the first part, or
    /// nothing. What lies before a sleeper has not been taken either. The trees of all of it.
    fn strand(&mut self, from: WorkerId, to: WorkerId, line: u32) -> Vec<Root> {
        let mut draws = Draws::new(self.seed, mix(from.0) ^ mix(to.0).rotate_left(32) ^ u64::from(line));
        let there = node_of(to);
        let mut sent = Vec::new();
        let mut look = |what: &Inbound| {
            if let Inbound::Packet(sender, _, packet) = what
                && *sender == from
            {
                sent.push(packet.roots());
            }
        };
        self.nodes[there].backlog.iter().for_each(&mut look);
        self.agenda.visit(|event| match event {
            Event::Node { node, what, .. } if *node == there => look(what),
            _ => {}
        });
        // In half of the cases all comes.
        let comes = match draws.chance(50) {
            true => sent.len(),
            false => draws.below(sent.len() as u64 + 1) as usize,
        };
        let mut nth = 0;
        let mut keep = |what: &Inbound| {
            let is_sent = matches!(what, Inbound::Packet(sender, ..) if *sender == from);
            nth += usize::from(is_sent);
            !is_sent || nth <= comes
        };
        self.nodes[there].backlog.retain(&mut keep);
        self.agenda.retain(|event| match event {
            Event::Node { node, what, .. } if *node == there => keep(what),
            _ => true,
        });
        if !sent.is_empty() {
            let (from, sent, lost) = (node_of(from), sent.len(), sent.len() - comes);
            let words =
                || format!("of what process {there} has not taken from process {from}, {lost} of {sent} are lost");
            self.trace.say(self.now_us, words);
        }
        sent.into_iter().flatten().collect()
    }

    fn tell_broken(&mut self, node: usize, peer: WorkerId, after_us: u64) {
        if let Some(line) = self.nodes[node].worker.lines.get(&peer)
            && line.stands
            && !line.sound
        {
            self.later(node, after_us, Inbound::Broke(peer, line.number));
        }
    }

    /// All lines between two processes break; whether there were any.
    pub(crate) fn break_between(&mut self, one: usize, other: usize, cut: bool) -> bool {
        let mut any = false;
        for (from, to) in [(one, other), (other, one)] {
            let (low, high) = if cut { CUT_US } else { (150, 900) };
            let after_us = self.draws.lives.between(low, high);
            let Some(owner) = self.nodes[from].worker.id else { continue };
            let lines = self.nodes[from].worker.lines.iter();
            let sound: Vec<WorkerId> =
                lines.filter(|(peer, line)| node_of(**peer) == to && line.sound).map(|(peer, _)| *peer).collect();
            for peer in sound {
                any = true;
                self.break_line(owner, peer, after_us);
            }
        }
        any
    }

    /// All lines of a process break.
    pub(crate) fn break_all(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let cut = self.forces.cut[self.network.link(node, other)].is_some();
            self.break_between(node, other, cut);
        }
    }

    /// A process has slept for so long that its peers believe it to be gone.
    pub(crate) fn on_unheard(&mut self, node: usize, index: usize) {
        if self.nodes[node].paused && self.forces.paused[node] == Some(index) {
            self.took_effect(index);
            self.break_all(node);
        }
    }

    /// A process hears that a line of it broke.
    pub(crate) fn on_broke(&mut self, node: usize, peer: WorkerId, number: u32) {
        let Some(me) = self.nodes[node].worker.id else { return };
        let Some(line) = self.nodes[node].worker.lines.get_mut(&peer) else { return };
        if line.number != number || !line.stands {
            return;
        }
        line.stands = false;
        let lost = std::mem::take(&mut line.lost);
        self.trace
            .say(self.now_us, || format!("process {node} hears that its line to process {} broke", node_of(peer)));
        self.fail(node, &lost, "the line broke");
        self.member(node, membership::Event::Broke(peer, Failure::transient("the line broke")));
        self.dial(node, me, peer, AGAIN_US);
    }

    /// Sends a packet to a worker (or within a process), under the era of the tasks that are here; whether it was sent. It arrives
    /// once, twice, late, out of order, or is lost with its line.
    pub(crate) fn send(&mut self, from: usize, to: WorkerId, packet: Packet) -> bool {
        let Some((me, era)) = self.nodes[from].crew.as_ref().map(|crew| (crew.me, crew.era)) else { return false };
        let there = node_of(to);
        if to == me {
            self.carry_inside(from, Inbound::Packet(me, era, packet));
            return true;
        }
        let cut = self.is_cut(from, there);
        let Some(line) = self.nodes[from].worker.lines.get_mut(&to).filter(|line| line.stands) else { return false };
        if cut || !line.sound {
            line.lost.extend(packet.roots());
            return true;
        }
        self.carry(from, there, (me, era, packet));
        true
    }
}
