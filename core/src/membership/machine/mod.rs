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
//!
//! What it does as a worker is in `follow`, what it does as the leader in `reign`.

mod follow;
mod reign;

use std::collections::BTreeSet;

use super::{
    Sight,
    record::{Assignment, Common, Member},
};
use crate::{
    failure::Failure,
    id::{Era, Nonce, WorkerId},
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
}
