//! Decides what a worker does about the assignment, and what a leader does about the workers. Pure.
//!
//! Every worker has this machine: it starts and stops the worker's tasks as the assignment says. While the worker leads, the
//! same machine makes the assignments:
//!
//! ```text
//!             somebody is gone, or a reign begins                       all say "ready"
//!   ┌─────────────────────────────────────────────► Writing ─► Gathering ─────────────► Running
//!   │     somebody has come, or wants to leave                     ▲  a link broke: disband  │
//!   └── Draining ◄──────────────────────────────────────────────── └──────────◄──────────────┘
//! ```

use std::collections::BTreeSet;

use super::{
    Sight, placement,
    record::{Assignment, Common, Intent, Member, Share},
};
use crate::{
    failure::{Failure, FailureKind},
    hash::hash64,
    id::{Era, Nonce, WorkerId},
    mutant::{self, Mutant},
};

/// What a worker is told.
///
/// ```
/// use tine_core::membership::{Common, Event, Membership};
/// use tine_core::{failure::Failure, hash::Hash128, id::WorkerId};
///
/// let mut membership = Membership::new(Common { fingerprint: Hash128(7), lineage: 42 });
/// let effects = membership.step(Event::Broke(WorkerId(9), Failure::transient("no route to host")));
/// assert!(effects.is_empty(), "it is not registered, and no part of anything");
/// ```
#[derive(Clone, Debug)]
pub enum Event {
    /// Its registration stands, as this member.
    Registered(Member),
    /// Its registration is gone.
    Expired,
    /// What coordination shows.
    Seen(Sight),
    /// It leads: the nonce of its reign.
    Led(Nonce),
    /// It does not lead any more.
    Deposed,
    /// The assignment was written, or not.
    Written(Era, Result<(), Failure>),
    /// The link to a peer stands.
    Up(WorkerId),
    /// A link to or from a peer broke.
    Broke(WorkerId, Failure),
    /// A worker (perhaps this one) says that its tasks of an era run and that its links stand.
    Ready(WorkerId, Era),
    /// Nothing is under way, and nothing begins until there is an assignment.
    Drained,
}

/// What is to be done, in this order.
///
/// ```
/// use tine_core::{failure::Failure, membership::Effect};
///
/// /// What a driver writes into its log.
/// fn told(effect: &Effect) -> Option<String> {
///     match effect {
///         Effect::Start(assignment) => Some(format!("the tasks of {} run here", assignment.era)),
///         Effect::Disband(failure) => Some(format!("everything under way fails: {failure}")),
///         Effect::Warn(warning) => Some(warning.clone()),
///         _ => None,
///     }
/// }
///
/// let gone = Effect::Disband(Failure::transient("a worker is gone"));
/// assert_eq!(told(&gone).as_deref(), Some("everything under way fails: a worker is gone"));
/// assert_eq!(told(&Effect::Stop), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Stop the tasks that run here, if any do, and start those of this assignment.
    Start(Assignment),
    /// Stop the tasks that run here.
    Stop,
    /// Tell this leader that the tasks of an era run here and that the links stand.
    TellReady(WorkerId, Era),
    /// Write an assignment, under the reign.
    Write(Assignment),
    /// Let what is under way end, begin nothing, and say `Drained`.
    Drain,
    /// All workers are ready: go on with these, in a new generation.
    Owners(Assignment),
    /// A worker cannot be relied on: everything under way has failed, and nothing begins until there are `Owners`.
    Disband(Failure),
    /// Say this of this worker in coordination.
    Update(Member),
    /// Tell a person.
    Warn(String),
    /// This worker can never be a part of it.
    Refused(Failure),
}

/// One worker's view of the membership.
///
/// ```
/// use tine_core::membership::{Common, Effect, Event, Member, Membership, Sight, record::{Capacity, Intent}};
/// use tine_core::{hash::Hash128, id::{Nonce, WorkerId}, transport::{Peer, Token}};
///
/// // A worker that is alone, and leads.
/// let common = Common { fingerprint: Hash128::of(b"split, count"), lineage: 42 };
/// let peer = Peer { id: WorkerId(7), address: "worker-1.example:7100".to_owned(), token: Token(0x5eed) };
/// let me = Member { peer, common, capacity: Capacity { readers: 1, stages: 2 }, intent: Intent::Stay, rival: None };
/// let mut membership = Membership::placing(common, vec![1, 2]); // `new` for a topology whose tasks are not placed
/// membership.step(Event::Registered(me.clone()));
/// membership.step(Event::Seen(Sight { members: vec![me.clone()], ..Sight::default() }));
/// assert_eq!(membership.me(), Some(&me));
///
/// let effects = membership.step(Event::Led(Nonce(1)));
/// let [Effect::Write(assignment)] = &effects[..] else { panic!("{effects:?}") };
/// assert_eq!(assignment.places, [0, 0, 0], "all three tasks are this worker's");
///
/// let effects = membership.step(Event::Written(assignment.era, Ok(())));
/// assert!(effects.contains(&Effect::Start(assignment.clone())), "{effects:?}");
/// ```
#[derive(Clone, Debug)]
pub struct Membership {
    common: Common,
    /// How many tasks each component has; none when placing them is not this machine's business.
    components: Vec<usize>,
    me: Option<Member>,
    seen: Sight,
    running: Option<Running>,
    /// Whether tasks have ever run here, and whether they had when this worker registered.
    has_worked: bool,
    rejoins: bool,
    reign: Option<Reign>,
    warned: BTreeSet<WorkerId>,
}

/// The assignment whose tasks run here.
#[derive(Clone, Debug)]
struct Running {
    assignment: Assignment,
    /// The peers that links stand to.
    up: BTreeSet<WorkerId>,
    told: bool,
}

/// What a leader knows.
#[derive(Clone, Debug)]
struct Reign {
    nonce: Nonce,
    /// How many assignments it has made.
    count: u64,
    stage: Stage,
    /// What it last wrote, or is writing.
    made: Option<Assignment>,
    /// Whether coordination has shown it: what is missing before may be on its way, what is missing after was taken away.
    shown: bool,
    ready: BTreeSet<WorkerId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is assigned: a reign begins, or a write has failed.
    Open,
    Writing,
    Gathering,
    Running,
    Draining,
}

impl Membership {
    /// A worker that is not registered yet, of a topology with this in common.
    pub fn new(common: Common) -> Membership {
        let (seen, warned) = (Sight::default(), BTreeSet::new());
        Membership {
            common,
            components: Vec::new(),
            me: None,
            seen,
            running: None,
            has_worked: false,
            rejoins: false,
            reign: None,
            warned,
        }
    }

    /// The same, for a topology whose tasks are placed one by one: `components` says how many each of its components has.
    pub fn placing(common: Common, components: Vec<usize>) -> Membership {
        Membership { components, ..Membership::new(common) }
    }

    /// Takes one event; answers with what to do.
    pub fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Registered(member) => (self.me, self.rejoins) = (Some(member), self.has_worked),
            Event::Expired => {
                self.me = None;
                self.seen = Sight::default();
                if let Some(reign) = &mut self.reign {
                    // Another session may see less than this one did.
                    reign.shown = false;
                }
                self.stop(&mut effects);
                let failure = Failure::transient("this worker's registration is gone");
                self.disband(&failure, &mut effects);
            }
            Event::Seen(sight) => {
                self.seen = sight;
                self.defend(&mut effects);
                self.follow(&mut effects);
            }
            // Told again (a claim was written anew, this worker registered anew): the same reign, whose eras are counted on.
            Event::Led(nonce) if self.reign.as_ref().is_some_and(|reign| reign.nonce == nonce) => {}
            Event::Led(nonce) => {
                let (made, ready) = (None, BTreeSet::new());
                self.reign = Some(Reign { nonce, count: 0, stage: Stage::Open, made, shown: false, ready });
            }
            Event::Deposed => {
                self.reign = None;
                self.follow(&mut effects);
            }
            Event::Written(era, result) => self.on_written(era, result, &mut effects),
            Event::Up(peer) => self.on_up(peer, &mut effects),
            Event::Broke(peer, failure) => self.on_broke(peer, &failure, &mut effects),
            Event::Ready(worker, era) => self.on_ready(worker, era, &mut effects),
            Event::Drained => {
                if let Some(reign) = &mut self.reign
                    && reign.stage == Stage::Draining
                {
                    reign.stage = Stage::Open;
                }
            }
        }
        self.assign(&mut effects);
        effects
    }

    /// This worker, while it is registered.
    pub fn me(&self) -> Option<&Member> {
        self.me.as_ref()
    }

    /// The registered workers of this topology, this one among them, the oldest first. Those of another program, or of a run that
    /// had ended before this process began, are none.
    pub fn workers(&self) -> impl Iterator<Item = &Member> {
        let is_of_this_run = |member: &&Member| self.rejoins || !self.seen.past.contains(&member.peer.id);
        self.seen.members.iter().filter(|member| member.common == self.common).filter(is_of_this_run)
    }

    fn my_id(&self) -> Option<WorkerId> {
        self.me.as_ref().map(|me| me.peer.id)
    }

    // ----- as a worker -----

    /// A worker that came later under this one's address stands for it if it is dead. It is not, and says so: then there are
    /// two, and the later one ends.
    fn defend(&mut self, effects: &mut Vec<Effect>) {
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
    fn follow(&mut self, effects: &mut Vec<Effect>) {
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

    fn start(&mut self, assignment: Assignment, effects: &mut Vec<Effect>) {
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

    fn stop(&mut self, effects: &mut Vec<Effect>) {
        if self.running.take().is_some() {
            effects.push(Effect::Stop);
        }
    }

    fn on_up(&mut self, peer: WorkerId, effects: &mut Vec<Effect>) {
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

    fn on_broke(&mut self, peer: WorkerId, failure: &Failure, effects: &mut Vec<Effect>) {
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

    // ----- as the leader -----

    fn disband(&mut self, failure: &Failure, effects: &mut Vec<Effect>) {
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

    fn on_ready(&mut self, worker: WorkerId, era: Era, effects: &mut Vec<Effect>) {
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

    fn on_written(&mut self, era: Era, result: Result<(), Failure>, effects: &mut Vec<Effect>) {
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
    fn assign(&mut self, effects: &mut Vec<Effect>) {
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
