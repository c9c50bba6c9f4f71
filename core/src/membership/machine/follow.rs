//! What a worker does about the assignment: it starts and stops tasks, says when they are ready, and stands up to a rival.

use std::collections::BTreeSet;

use super::{
    super::record::{Assignment, Share},
    Effect, Membership, Reign, Running,
};
use crate::{
    failure::Failure,
    id::WorkerId,
    mutant::{self, Mutant},
};

impl Membership {
    /// A worker that came later under this one's address stands for it if it is dead. It is not, and says so: then there are
    /// two, and the later one ends.
    pub(super) fn defend(&mut self, effects: &mut Vec<Effect>) {
        let Some(me) = &mut self.me else { return };
        let Some(place) = self.seen.members.iter().position(|member| member.peer.id == me.peer.id) else { return };
        let (older, newer) = (&self.seen.members[..place], &self.seen.members[place + 1..]);
        if let Some(other) = older.iter().find(|member| member.rival == Some(me.peer.id)) {
            effects.push(Effect::Refused(Failure::fatal(format!(
                "{} advertises {} too and is alive: every worker needs an address of its own, where its peers reach it and \
                 nobody else",
                other.peer.id, other.peer.address
            ))));
        }
        let Some(rival) = newer.iter().find(|member| member.peer.address == me.peer.address) else { return };
        if self.seen.members[place].rival != Some(rival.peer.id) {
            me.rival = Some(rival.peer.id);
            effects.push(Effect::Update(me.clone()));
        }
    }

    /// Starts and stops tasks as the assignment that stands says.
    pub(super) fn follow(&mut self, effects: &mut Vec<Effect>) {
        let Some(me) = self.my_id() else { return };
        // A leader follows what it wrote; what it sees may be older.
        if self.reign.as_ref().is_some_and(|reign| reign.made.is_some()) {
            return;
        }
        let Some(assignment) = self.seen.assignment.clone() else { return self.stop(effects) };
        if let Some(why) = self.common.difference(&assignment.common, "the workers of this topology") {
            self.stop(effects);
            if self.seen.members.iter().any(|member| member.peer.id == assignment.leader) {
                effects.push(Effect::Refused(Failure::fatal(why)));
            }
            return;
        }
        match assignment.place(me) {
            Some(_) => self.start(assignment, effects),
            None => self.stop(effects),
        }
    }

    pub(super) fn start(&mut self, assignment: Assignment, effects: &mut Vec<Effect>) {
        if self.running.as_ref().is_some_and(|running| running.assignment.era == assignment.era) {
            return;
        }
        effects.push(Effect::Start(assignment.clone()));
        self.has_worked = true;
        // Links to workers that stay, stay.
        let up = self.running.take().map_or(BTreeSet::new(), |before| before.up);
        let up = up.into_iter().filter(|peer| assignment.place(*peer).is_some()).collect();
        self.running = Some(Running { assignment, up, told: false });
        self.tell_when_ready(effects);
    }

    pub(super) fn stop(&mut self, effects: &mut Vec<Effect>) {
        if self.running.take().is_some() {
            effects.push(Effect::Stop);
        }
    }

    pub(super) fn on_up(&mut self, peer: WorkerId, effects: &mut Vec<Effect>) {
        if let Some(running) = &mut self.running
            && running.assignment.place(peer).is_some()
        {
            running.up.insert(peer);
            // Whoever has come back may have forgotten what it was told.
            running.told &= peer != running.assignment.leader;
        }
        self.tell_when_ready(effects);
    }

    fn tell_when_ready(&mut self, effects: &mut Vec<Effect>) {
        let Some(me) = self.my_id() else { return };
        let Some(running) = &mut self.running else { return };
        let stands = |share: &Share| share.peer.id == me || running.up.contains(&share.peer.id);
        if !running.told && running.assignment.shares.iter().all(stands) {
            running.told = true;
            effects.push(Effect::TellReady(running.assignment.leader, running.assignment.era));
        }
    }

    pub(super) fn on_broke(&mut self, peer: WorkerId, failure: &Failure, effects: &mut Vec<Effect>) {
        if let Some(running) = &mut self.running {
            // It is said again when everything stands.
            running.told &= !running.up.remove(&peer);
        }
        let concerned = |reign: &Reign| reign.made.as_ref().is_some_and(|made| made.place(peer).is_some());
        if self.reign.as_ref().is_some_and(concerned) {
            if let Some(reign) = self.reign.as_mut().filter(|_| !mutant::on(Mutant::ReadinessKept)) {
                reign.ready.remove(&peer);
            }
            let what = format!("the link with {peer} broke: {failure}");
            self.disband(&Failure::transient(what), effects);
        }
    }
}
