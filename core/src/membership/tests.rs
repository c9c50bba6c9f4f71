//! Whole small memberships, stepped by hand; and random ones, which always come to run with whoever is there.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    hash::Hash128,
    id::{Era, Nonce, WorkerId},
    membership::record::Capacity,
    transport::{Peer, Token},
};

const COMMON: Common = Common { fingerprint: Hash128(7), lineage: 70 };

fn member(id: u64) -> Member {
    let peer = Peer { id: WorkerId(id), address: format!("h:{id}"), token: Token(id.into()) };
    Member { peer, common: COMMON, capacity: Capacity { readers: 1, stages: 1 }, intent: Intent::Stay, rival: None }
}

/// Of another leader, before.
fn sole_assignment() -> Assignment {
    let Member { peer, capacity, .. } = member(1);
    let (era, nonce, leader) = (Era(3), Nonce(2), peer.id);
    Assignment { era, nonce, leader, common: COMMON, shares: vec![Share { peer, capacity }], places: vec![] }
}

/// Workers and what coordination shows; effects are performed at once, control messages arrive.
#[derive(Default)]
struct World {
    workers: BTreeMap<u64, Membership>,
    sight: Sight,
    /// What the workers were told to do, in order.
    log: Vec<(u64, Effect)>,
    /// Links that do not come up.
    cut: Vec<(u64, u64)>,
    running: BTreeMap<u64, Assignment>,
    owners: Option<Assignment>,
}

impl World {
    fn join(&mut self, id: u64) {
        self.sight.members.push(member(id));
        self.workers.insert(id, Membership::new(COMMON));
        self.tell(id, Event::Registered(member(id)));
        self.everybody_looks();
    }

    fn die(&mut self, id: u64) {
        self.workers.remove(&id);
        self.running.remove(&id);
        self.sight.members.retain(|member| member.peer.id.0 != id);
    }

    fn lead(&mut self, id: u64, nonce: u64) {
        self.tell(id, Event::Led(Nonce(nonce)));
        self.everybody_looks();
    }

    fn everybody_looks(&mut self) {
        // Twice: what the first look leads to is seen by the second.
        for _ in 0..2 {
            for id in self.workers.keys().copied().collect::<Vec<_>>() {
                self.tell(id, Event::Seen(self.sight.clone()));
            }
        }
    }

    fn tell(&mut self, id: u64, event: Event) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        for effect in worker.step(event) {
            self.log.push((id, effect.clone()));
            match effect {
                Effect::Start(assignment) => {
                    self.running.insert(id, assignment.clone());
                    let mine: Vec<u64> = assignment.shares.iter().map(|share| share.peer.id.0).collect();
                    for peer in mine.into_iter().filter(|peer| *peer != id) {
                        let both = [(id, peer), (peer, id)];
                        let runs = self.running.get(&peer).is_some_and(|other| other.era == assignment.era);
                        if runs && !both.iter().any(|pair| self.cut.contains(pair)) {
                            self.tell(id, Event::Up(WorkerId(peer)));
                            self.tell(peer, Event::Up(WorkerId(id)));
                        }
                    }
                }
                Effect::Stop => drop(self.running.remove(&id)),
                Effect::TellReady(leader, era) => self.tell(leader.0, Event::Ready(WorkerId(id), era)),
                Effect::Write(assignment) => {
                    self.sight.assignment = Some(assignment.clone());
                    self.tell(id, Event::Written(assignment.era, Ok(())));
                }
                Effect::Drain => self.tell(id, Event::Drained),
                Effect::Owners(assignment) => self.owners = Some(assignment),
                Effect::Disband(_) => self.owners = None,
                Effect::Update(member) => {
                    let found = self.sight.members.iter_mut().find(|other| other.peer.id == member.peer.id);
                    *found.unwrap() = member;
                }
                Effect::Warn(_) | Effect::Refused(_) => {}
            }
        }
    }

    fn owners(&self) -> Vec<u64> {
        let ids = |owners: &Assignment| owners.shares.iter().map(|share| share.peer.id.0).collect();
        self.owners.as_ref().map(ids).unwrap_or_default()
    }

    fn said(&self, wanted: impl Fn(&Effect) -> bool) -> usize {
        self.log.iter().filter(|(_, effect)| wanted(effect)).count()
    }
}

#[test]
fn a_joiner_waits_for_a_drained_boundary_and_then_shares() {
    let mut world = World::default();
    world.join(1);
    world.lead(1, 9);
    assert_eq!(world.owners(), [1]);
    world.join(2);
    assert_eq!(world.owners(), [1, 2]);
    let order: Vec<_> = world.log.iter().filter(|(id, _)| *id == 1).map(|(_, effect)| effect).collect();
    let at = |wanted: fn(&Effect) -> bool| order.iter().rposition(|effect| wanted(effect)).unwrap();
    assert!(at(|effect| *effect == Effect::Drain) < at(|effect| matches!(effect, Effect::Write(_))));
    assert_eq!(world.said(|effect| matches!(effect, Effect::Disband(_))), 0);
}

#[test]
fn a_dead_workers_tasks_move_at_once_and_a_joiner_comes_in_with_it() {
    let mut world = World::default();
    (1..=3).for_each(|id| world.join(id));
    world.lead(1, 9);
    assert_eq!(world.owners(), [1, 2, 3]);
    world.die(2);
    world.sight.members.push(member(4));
    world.workers.insert(4, Membership::new(COMMON));
    world.tell(4, Event::Registered(member(4)));
    world.everybody_looks();
    assert_eq!(world.owners(), [1, 3, 4]);
    assert_eq!(world.said(|effect| *effect == Effect::Drain), 0);
    assert_eq!(world.said(|effect| matches!(effect, Effect::Disband(_))), 1);
}

#[test]
fn a_broken_link_disbands_until_everybody_is_ready_again() {
    let mut world = World::default();
    (1..=2).for_each(|id| world.join(id));
    world.lead(1, 9);
    let era = world.owners.clone().unwrap().era;
    world.tell(1, Event::Broke(WorkerId(2), Failure::transient("x")));
    assert!(world.owners().is_empty());
    world.tell(2, Event::Broke(WorkerId(1), Failure::transient("x")));
    world.tell(1, Event::Up(WorkerId(2)));
    assert!(world.owners().is_empty(), "the other one has not said so");
    world.tell(2, Event::Up(WorkerId(1)));
    assert_eq!((world.owners(), world.owners.clone().unwrap().era), (vec![1, 2], era));
}

#[test]
fn nothing_begins_before_the_last_worker_is_ready() {
    let mut world = World { cut: vec![(2, 3)], ..World::default() };
    (1..=3).for_each(|id| world.join(id));
    world.lead(1, 9);
    assert!(world.owners().is_empty());
    world.tell(2, Event::Up(WorkerId(3)));
    assert!(world.owners().is_empty());
    world.tell(3, Event::Up(WorkerId(2)));
    assert_eq!(world.owners(), [1, 2, 3]);
    world.tell(1, Event::Ready(WorkerId(2), Era(1)));
    assert_eq!(world.said(|effect| matches!(effect, Effect::Owners(_))), 1, "another era's word counts for nothing");
}

#[test]
fn a_new_leader_assigns_anew_and_the_old_ones_word_counts_no_more() {
    let mut world = World::default();
    (1..=3).for_each(|id| world.join(id));
    world.lead(1, 9);
    let before = world.owners.clone().unwrap();
    world.die(1);
    world.lead(2, 10);
    assert_eq!(world.owners(), [2, 3]);
    assert_ne!(world.owners.clone().unwrap().era, before.era);
    assert!(world.running.values().all(|running| running.leader == WorkerId(2)));
}

#[test]
fn z5_a_worker_whose_registration_is_gone_drops_its_tasks_before_it_registers_again() {
    let mut world = World::default();
    (1..=2).for_each(|id| world.join(id));
    world.lead(1, 9);
    world.log.clear();
    world.tell(2, Event::Expired);
    assert_eq!(world.log, [(2, Effect::Stop)]);
    // Under its old address, while the old registration is still there: it stands for both, at once.
    let again = Member { peer: Peer { id: WorkerId(5), ..member(2).peer }, ..member(2) };
    world.sight.members.push(again.clone());
    let machine = world.workers.remove(&2).unwrap();
    world.workers.insert(5, machine);
    world.tell(5, Event::Registered(again));
    world.everybody_looks();
    assert_eq!(world.owners(), [1, 5]);
}

/// A worker that runs an era takes another assignment of that name for its own, and says nothing.
#[test]
fn p11_a_leader_that_registers_anew_makes_an_era_that_nobody_knows() {
    let mut world = World::default();
    (1..=2).for_each(|id| world.join(id));
    world.lead(1, 9);
    let before = world.owners.clone().unwrap();
    world.tell(1, Event::Expired);
    let again = Member { peer: Peer { id: WorkerId(5), ..member(1).peer }, ..member(1) };
    world.sight.members.push(again.clone());
    let machine = world.workers.remove(&1).unwrap();
    world.workers.insert(5, machine);
    world.tell(5, Event::Registered(again));
    world.tell(5, Event::Led(Nonce(9)));
    world.everybody_looks();
    assert_eq!(world.owners(), [2, 5]);
    assert_ne!(world.owners.clone().unwrap().era, before.era);
    world.log.clear();
    world.tell(5, Event::Led(Nonce(9)));
    assert!(world.log.is_empty(), "the same reign, told twice: {:?}", world.log);
}

#[test]
fn another_program_and_another_database_get_no_tasks_and_both_sides_are_named() {
    let theirs = [Common { fingerprint: Hash128(8), ..COMMON }, Common { lineage: 80, ..COMMON }];
    let names = [[Hash128(7).to_string(), Hash128(8).to_string()], [70, 80].map(|lineage| format!("{lineage:032x}"))];
    for (common, names) in theirs.into_iter().zip(names) {
        let mut world = World::default();
        world.join(1);
        world.lead(1, 9);
        let other = Member { common, ..member(2) };
        world.sight.members.push(other.clone());
        world.workers.insert(2, Membership::new(common));
        world.tell(2, Event::Registered(other));
        world.everybody_looks();
        assert_eq!(world.owners(), [1]);
        let both = |text: &str| names.iter().all(|name| text.contains(name)) && text.contains("everywhere");
        let warned = |effect: &Effect| matches!(effect, Effect::Warn(text) if both(text));
        let refused = |effect: &Effect| matches!(effect, Effect::Refused(failure) if both(&failure.message));
        assert_eq!(world.said(warned), 1);
        assert!(world.said(refused) > 0);
    }
}

/// The older one is alive: it keeps its tasks, and the later one is told why it gets none.
#[test]
fn two_workers_that_advertise_one_address_are_told_apart_and_the_later_one_is_refused() {
    let mut world = World::default();
    (1..=2).for_each(|id| world.join(id));
    world.lead(1, 9);
    let rival = Member { peer: Peer { id: WorkerId(5), ..member(2).peer }, ..member(2) };
    world.sight.members.push(rival.clone());
    world.workers.insert(5, Membership::new(COMMON));
    world.tell(5, Event::Registered(rival));
    world.everybody_looks();
    world.everybody_looks();
    assert_eq!(world.owners(), [1, 2]);
    let named = |text: &str| text.contains(&member(2).peer.address) && text.contains(&WorkerId(2).to_string());
    let refused =
        |(id, effect): &(u64, Effect)| *id == 5 && matches!(effect, Effect::Refused(why) if named(&why.message));
    assert!(world.log.iter().any(refused));
    assert!(!world.log.iter().any(|(id, effect)| *id != 5 && matches!(effect, Effect::Refused(_))));
    // It was a rival of that one alone: whoever comes when it is really dead stands for it at once.
    world.workers.remove(&5);
    world.workers.remove(&2);
    let again = Member { peer: Peer { id: WorkerId(6), ..member(2).peer }, ..member(2) };
    world.sight.members.push(again.clone());
    world.workers.insert(6, Membership::new(COMMON));
    world.tell(6, Event::Registered(again));
    world.everybody_looks();
    assert_eq!(world.owners(), [1, 6]);
}

#[test]
fn a_worker_that_wants_to_leave_is_relieved_at_a_boundary() {
    let mut world = World::default();
    (1..=2).for_each(|id| world.join(id));
    world.lead(1, 9);
    world.sight.members[1].intent = Intent::Leave;
    world.everybody_looks();
    assert_eq!(world.owners(), [1]);
    assert!(world.log.contains(&(2, Effect::Stop)));
    assert_eq!(world.said(|effect| matches!(effect, Effect::Disband(_))), 0);
}

#[test]
fn a4_a_leader_that_was_replaced_follows_the_assignment_that_it_had_seen_meanwhile() {
    let mut world = World::default();
    (1..=2).for_each(|id| world.join(id));
    world.lead(1, 9);
    world.lead(2, 10);
    assert_eq!(world.running[&1].leader, WorkerId(1), "it believes that it leads");
    world.tell(1, Event::Deposed);
    assert_eq!(world.running[&1].leader, WorkerId(2));
    assert_eq!(world.owners(), [1, 2]);
}

#[test]
fn an_assignment_that_somebody_deletes_or_sets_back_is_made_again_and_everybody_goes_on() {
    let older = Assignment { nonce: Nonce(9), ..sole_assignment() };
    for instead in [None, Some(older)] {
        let mut world = World::default();
        (1..=2).for_each(|id| world.join(id));
        world.lead(1, 9);
        let before = world.owners.clone().unwrap();
        world.log.clear();
        world.sight.assignment = instead;
        world.everybody_looks();
        assert_eq!(world.owners(), [1, 2]);
        let made = world.owners.clone().unwrap();
        assert_ne!(made.era, before.era);
        assert_eq!(world.sight.assignment, Some(made));
        assert_eq!(
            world.said(|effect| matches!(effect, Effect::Warn(text) if text.contains(&before.era.to_string()))),
            1
        );
        assert_eq!(world.said(|effect| matches!(effect, Effect::Disband(_))), 1);
    }
}

#[test]
fn what_was_seen_before_ones_own_write_does_not_count_against_it() {
    let mut leader = Membership::new(COMMON);
    leader.step(Event::Registered(member(1)));
    leader.step(Event::Led(Nonce(9)));
    let old = Sight { members: vec![member(1)], assignment: Some(sole_assignment()), ..Sight::default() };
    let effects = leader.step(Event::Seen(old.clone()));
    let made = effects.into_iter().find_map(|effect| if let Effect::Write(made) = effect { Some(made) } else { None });
    let made = made.unwrap();
    let writes = |effects: Vec<Effect>| effects.iter().filter(|effect| matches!(effect, Effect::Write(_))).count();
    assert_eq!(writes(leader.step(Event::Written(made.era, Ok(())))), 0);
    assert_eq!(writes(leader.step(Event::Seen(old.clone()))), 0, "a late look");
    let nothing = Sight { assignment: None, ..old.clone() };
    assert!(leader.step(Event::Seen(nothing)).is_empty(), "a later one, from before the first assignment");
    let own = Sight { assignment: Some(made), ..old.clone() };
    assert_eq!(writes(leader.step(Event::Seen(own))), 0);
    assert_eq!(writes(leader.step(Event::Seen(old.clone()))), 0, "another leader's");
    assert_eq!(writes(leader.step(Event::Seen(Sight { assignment: None, ..old }))), 1, "taken away");
}

#[test]
fn a_write_that_fails_is_made_again_in_another_era() {
    let mut leader = Membership::new(COMMON);
    leader.step(Event::Registered(member(1)));
    leader.step(Event::Led(Nonce(9)));
    let written = |effects: Vec<Effect>| {
        effects.into_iter().find_map(|effect| if let Effect::Write(made) = effect { Some(made) } else { None })
    };
    let sight = Sight { members: vec![member(1)], ..Sight::default() };
    let first = written(leader.step(Event::Seen(sight.clone()))).unwrap();
    assert!(written(leader.step(Event::Seen(sight))).is_none(), "one write at a time");
    let lost = leader.step(Event::Written(first.era, Err(Failure::transient("x"))));
    let second = written(lost).unwrap();
    assert_ne!(second.era, first.era);
    assert!(leader.step(Event::Written(first.era, Ok(()))).is_empty(), "a late answer counts for nothing");
}

proptest! {
    /// Whatever happened before: once everything is looked at, exactly those who are there own the tasks.
    #[test]
    fn whoever_is_there_owns_the_tasks_in_the_end(steps in prop::collection::vec((0u8..5, 1u64..6), 0..40)) {
        let mut world = World::default();
        world.join(100);
        world.lead(100, 1);
        let mut nonce = 1;
        for (what, id) in steps {
            match what {
                0 if !world.workers.contains_key(&id) => world.join(id),
                1 => { world.die(id); world.everybody_looks(); }
                2 => { world.die(id); }
                3 if world.workers.contains_key(&id) => {
                    world.tell(100, Event::Broke(WorkerId(id), Failure::transient("x")));
                    world.tell(id, Event::Broke(WorkerId(100), Failure::transient("x")));
                    world.tell(100, Event::Up(WorkerId(id)));
                    world.tell(id, Event::Up(WorkerId(100)));
                }
                4 => { nonce += 1; world.tell(100, Event::Deposed); world.owners = None; world.lead(100, nonce); }
                _ => {}
            }
        }
        world.everybody_looks();
        let mut there: Vec<u64> = world.workers.keys().copied().collect();
        let mut owners = world.owners();
        there.sort_unstable();
        owners.sort_unstable();
        prop_assert_eq!(owners, there);
        let era = world.owners.clone().unwrap().era;
        prop_assert!(world.running.values().all(|running| running.era == era));
    }
}
