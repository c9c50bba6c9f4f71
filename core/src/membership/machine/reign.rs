//! What the worker that leads does about the workers: it makes assignments, and goes on or stops with who is ready or gone.

use std::collections::BTreeSet;

use super::{
    super::{
        placement,
        record::{Assignment, Intent, Member, Share},
    },
    Effect, Membership, Stage,
};
use crate::{
    failure::{Failure, FailureKind},
    hash::hash64,
    id::{Era, WorkerId},
    mutant::{self, Mutant},
};

impl Membership {
    pub(super) fn disband(&mut self, failure: &Failure, effects: &mut Vec<Effect>) {
        let Some(reign) = &mut self.reign else { return };
        if matches!(reign.stage, Stage::Running | Stage::Draining) {
            reign.stage = Stage::Gathering;
            if !mutant::on(Mutant::DisbandNotTold) {
                effects.push(Effect::Disband(failure.clone()));
            }
        }
    }

    /// Makes another assignment when the one that stood was deleted or set back: who comes now could not read it.
    fn miss(&mut self, effects: &mut Vec<Effect>) {
        let Some(reign) = &mut self.reign else { return };
        let Some(made) = &reign.made else { return };
        let seen = self.seen.assignment.as_ref();
        let stands = seen.is_some_and(|seen| seen.era == made.era);
        reign.shown |= stands;
        // Another leader's is no accident: this one is about to be deposed.
        let is_anothers = seen.is_some_and(|seen| seen.nonce != reign.nonce);
        if stands || is_anothers || !reign.shown || reign.stage == Stage::Writing {
            return;
        }
        let what = format!("the assignment of {} was deleted or set back by somebody else", made.era);
        effects.push(Effect::Warn(format!("{what}: writing another")));
        self.disband(&Failure::transient(what), effects);
        if let Some(reign) = &mut self.reign {
            (reign.stage, reign.shown) = (Stage::Open, false);
        }
    }

    pub(super) fn on_ready(&mut self, worker: WorkerId, era: Era, effects: &mut Vec<Effect>) {
        let Some(reign) = &mut self.reign else { return };
        let Some(made) = &reign.made else { return };
        if made.era != era || made.place(worker).is_none() {
            return;
        }
        reign.ready.insert(worker);
        let all = made.shares.iter().all(|share| reign.ready.contains(&share.peer.id));
        if reign.stage == Stage::Gathering && (all || mutant::on(Mutant::OwnersTooEarly)) {
            reign.stage = Stage::Running;
            effects.push(Effect::Owners(made.clone()));
        }
    }

    pub(super) fn on_written(&mut self, era: Era, result: Result<(), Failure>, effects: &mut Vec<Effect>) {
        let Some(reign) = &mut self.reign else { return };
        let Some(made) = reign.made.clone().filter(|made| made.era == era && reign.stage == Stage::Writing) else {
            return;
        };
        match result {
            Ok(()) => {
                reign.stage = Stage::Gathering;
                self.start(made, effects);
            }
            // It may stand all the same; another one is made, which nobody confuses with it.
            Err(failure) => {
                reign.stage = Stage::Open;
                reign.made = None;
                if failure.kind != FailureKind::Fenced {
                    effects.push(Effect::Warn(format!("writing the assignment: {failure}")));
                }
            }
        }
    }

    /// Whoever can have tasks now, in order. A worker that was started again under its old address stands for both, unless
    /// the older one says that it is alive.
    fn eligible(&self) -> Vec<&Member> {
        let members = &self.seen.members;
        let stands_for = |newer: &Member, older: &Member| {
            newer.peer.address == older.peer.address && older.rival != Some(newer.peer.id)
        };
        let replaced =
            |place: usize, member: &Member| members[place + 1..].iter().any(|newer| stands_for(newer, member));
        let refused = |member: &Member| members.iter().any(|older| older.rival == Some(member.peer.id));
        let able = |(place, member): &(usize, &Member)| {
            member.common == self.common
                && member.intent == Intent::Stay
                && !replaced(*place, member)
                && !refused(member)
        };
        members.iter().enumerate().filter(able).map(|(_, member)| member).collect()
    }

    /// Makes an assignment when one is due.
    pub(super) fn assign(&mut self, effects: &mut Vec<Effect>) {
        self.warn_of_strangers(effects);
        self.miss(effects);
        let wanted: Vec<Share> = self.eligible().into_iter().map(share).collect();
        let Some(me) = self.my_id() else { return };
        // Whoever leads is one of them: it is the one that all others talk to.
        if !wanted.iter().any(|share| share.peer.id == me) {
            return;
        }
        let registered: BTreeSet<WorkerId> = self.seen.members.iter().map(|member| member.peer.id).collect();
        let Some(reign) = &mut self.reign else { return };
        let due = match (&reign.made, reign.stage) {
            (_, Stage::Writing) => false,
            (None, _) | (_, Stage::Open) => true,
            (Some(made), _) if made.shares == wanted => false,
            (Some(made), stage) => {
                let gone = |share: &Share| {
                    !registered.contains(&share.peer.id)
                        || wanted
                            .iter()
                            .any(|other| other.peer.address == share.peer.address && other.peer.id != share.peer.id)
                };
                let lost = made.shares.iter().find(|share| gone(share)).map(|share| share.peer.clone());
                match (lost, stage) {
                    (Some(lost), _) => {
                        let what = format!("{} at {} is gone", lost.id, lost.address);
                        self.disband(&Failure::transient(what), effects);
                        true
                    }
                    (None, Stage::Gathering) => true,
                    (None, Stage::Running) => {
                        reign.stage = Stage::Draining;
                        effects.push(Effect::Drain);
                        false
                    }
                    (None, _) => false,
                }
            }
        };
        let Some(reign) = self.reign.as_mut().filter(|_| due) else { return };
        reign.count += 1;
        let (nonce, common) = (reign.nonce, self.common);
        let running = self.running.as_ref().map(|running| &running.assignment);
        let before = reign.made.as_ref().or(running).or(self.seen.assignment.as_ref());
        let places = places(&self.components, &wanted, before.filter(|before| before.common == common));
        let era = Era(hash64(&[nonce.0.to_le_bytes(), reign.count.to_le_bytes()].concat()));
        let made = Assignment { era, nonce, leader: me, common, shares: wanted, places };
        (reign.stage, reign.made, reign.shown) = (Stage::Writing, Some(made.clone()), false);
        reign.ready.clear();
        effects.push(Effect::Write(made));
    }

    fn warn_of_strangers(&mut self, effects: &mut Vec<Effect>) {
        if self.reign.is_none() {
            return;
        }
        for Member { peer, common, .. } in &self.seen.members {
            let Some(why) = self.common.difference(common, "workers that get no tasks") else { continue };
            if self.warned.insert(peer.id) {
                effects.push(Effect::Warn(format!("{} at {}: {why}", peer.id, peer.address)));
            }
        }
    }
}

/// Where each task goes, when tasks are placed one by one.
fn places(components: &[usize], shares: &[Share], before: Option<&Assignment>) -> Vec<u16> {
    let ids = |shares: &[Share]| shares.iter().map(|share| share.peer.id).collect::<Vec<_>>();
    match before {
        Some(before) => placement::spread(components, &ids(shares), (&ids(&before.shares), &before.places)),
        None => placement::spread(components, &ids(shares), (&[], &[])),
    }
}

fn share(member: &Member) -> Share {
    Share { peer: member.peer.clone(), capacity: member.capacity }
}
