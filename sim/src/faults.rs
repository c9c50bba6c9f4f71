//! What goes wrong, and when: a plan of typed faults that can be drawn, shrunk, read, written down and replayed.
//!
//! ```
//! use tine_sim::{Fault, FaultPlan, Kind, Point};
//!
//! let plan = FaultPlan::from([
//!     Fault::at(120, Kind::Pause(0)).lasting(300),
//!     // Between the COMMIT of transaction 7 and its answer, the process that sent it dies.
//!     Fault::when(Point::CommitSent(7), Kind::Crash(Kind::WHOEVER)).lasting(50),
//! ]);
//! assert_eq!(plan.to_string(), "pause:0@120~300,crash:w@commit-sent:7~50");
//! assert_eq!(plan.to_string().parse(), Ok(plan));
//! ```

mod kind;
mod point;
mod shrink;
mod words;

use proptest::prelude::*;

pub(crate) use self::kind::NAMES;
pub use self::{
    point::Point,
    shrink::{AnyFaults, PlanTree},
    words::NoFault,
};
use crate::{random::Draws, settings::Mode};

/// One end of a link: a worker process by its number, or a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A process.
    Node(u8),
    /// The coordination service.
    Coordination,
    /// The state database.
    Database,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A process dies, its memory with it, and is started again.
    Crash(u8),
    /// A process sleeps, keeps its memory, and wakes up: the zombie.
    Pause(u8),
    /// A process takes ten times as long for everything.
    Slow(u8),
    /// Nothing gets from one end to the other.
    CutOneWay(End, End),
    /// Nothing gets through in either direction.
    Cut(End, End),
    /// Messages between processes arrive twice.
    Duplicate,
    /// Messages between processes take long.
    Delay,
    /// Messages between processes overtake each other.
    Reorder,
    /// Coordination (embedded: the database) ends a process's leadership without reason.
    Expire(u8),
    /// News about elections and lost sessions comes late.
    LateNews,
    /// Coordination does not answer.
    CoordinationDown,
    /// Coordination loses everything.
    CoordinationWiped,
    /// Coordination is restored to what it held so many writes ago.
    CoordinationRestored(u8),
    /// Answers of coordination to a process get lost.
    LostCoordinationReply(u8),
    /// The answer to a process's SQL `COMMIT` gets lost.
    LostCommitReply(u8),
    /// The database aborts transactions of a process with a deadlock, now and then.
    SqlAbort(u8),
    /// Statements of a process arrive very late, after their client has died or given up.
    LateStatement(u8),
    /// The database fails over to a copy that lacks the last so many transactions.
    LoseTail(u8),
    /// The database ends all connections.
    DatabaseRestart,
    /// A user's function fails once.
    UserError,
    /// A user's function panics once.
    UserPanic,
    /// A source gets one more partition.
    AddPartition,
    /// Retention deletes records that were not read yet: the group must halt.
    Truncate,
    /// A topic is deleted and made again: the group must halt.
    Recreate,
    /// A process is stopped in order, lets go of its sessions and connections, and is started again.
    Restart(u8),
    /// A worker is asked to end: the others take over its tasks at the next drained boundary, and it ends. It joins again when
    /// the fault is over.
    Leave(u8),
    /// Coordination ends the registration of some worker, which registers anew: shards move.
    Reassign,
    /// Whoever leads loses the leadership.
    LeaderChange,
    /// News about elections and lost sessions gets lost: clients find out only when they look by themselves.
    LostNews,
    /// A process dies right after it has sent a `COMMIT`, which is executed late, when nobody waits for it.
    CrashInCommit(u8),
    /// The database answers statements of a process with this error.
    SqlState(u8, SqlState),
    /// Sources do not answer: neither how far they reach nor records.
    SourceDown,
    /// Polls of the sources bring one record at most, and often none.
    ShortPolls,
}

/// An error of the database by its SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SqlState {
    /// 40P01.
    Deadlock,
    /// 40001.
    Serialization,
    /// 57014.
    StatementTimeout,
    /// 55P03.
    LockTimeout,
    /// 57P01: the connection is gone, too.
    AdminShutdown,
    /// 53300.
    TooManyConnections,
    /// 53100.
    DiskFull,
    /// 25006.
    ReadOnly,
    /// 23514: the group must halt.
    CheckViolation,
    /// 42501: the group must halt.
    InsufficientPrivilege,
}

/// A fault at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The moment that it waits for; the start of the run if there is none.
    pub when: Option<Point>,
    /// How long after that moment, in virtual milliseconds.
    pub at_ms: u16,
    /// For how long, where that applies. 0 for what has a duration: until everything is healed.
    pub for_ms: u16,
    /// What.
    pub kind: Kind,
}

/// All the faults of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// In any order.
    pub faults: Vec<Fault>,
}

/// When the last fault begins at the latest.
const LAST_MS: u16 = 420;

/// The transactions at whose moments faults are drawn: those that are on their way before everything is healed.
const POINTS_UP_TO: u16 = 10;

impl Fault {
    /// A fault so many milliseconds after the start; until everything is healed, unless told [`lasting`](Self::lasting).
    pub fn at(at_ms: u16, kind: Kind) -> Fault {
        Fault { when: None, at_ms, for_ms: 0, kind }
    }

    /// A fault when a moment comes, if it comes before everything is healed.
    pub fn when(point: Point, kind: Kind) -> Fault {
        Fault { when: Some(point), at_ms: 0, for_ms: 0, kind }
    }

    /// For how many milliseconds it lasts.
    pub fn lasting(self, for_ms: u16) -> Fault {
        Fault { for_ms, ..self }
    }

    /// So many milliseconds later.
    pub fn later(self, by_ms: u16) -> Fault {
        Fault { at_ms: self.at_ms.saturating_add(by_ms), ..self }
    }

    /// From random numbers. One in four waits for a moment.
    fn drawn((kind, at_ms, long): (Kind, u16, u16), point: u16) -> Fault {
        let longest = u32::from(kind.longest_ms());
        let for_ms = match longest {
            0 => 0,
            longest => 5 + u16::try_from((u32::from(long) * longest) >> 16).unwrap_or(0),
        };
        if !point.is_multiple_of(4) {
            return Fault { when: None, at_ms, for_ms, kind };
        }
        let place = u8::try_from(point / 4 % u16::from(point::POINTS - 1)).unwrap_or(0);
        let when = Point::of(place, 1 + point / 64 % POINTS_UP_TO);
        Fault { when: Some(when), at_ms: at_ms % 3, for_ms, kind }
    }
}

impl<const N: usize> From<[Fault; N]> for FaultPlan {
    fn from(faults: [Fault; N]) -> FaultPlan {
        FaultPlan { faults: faults.into() }
    }
}

impl FromIterator<Fault> for FaultPlan {
    fn from_iter<I: IntoIterator<Item = Fault>>(faults: I) -> FaultPlan {
        FaultPlan { faults: faults.into_iter().collect() }
    }
}

impl FaultPlan {
    /// A plan of these faults: at, for, what.
    pub fn of(faults: impl IntoIterator<Item = (u16, u16, Kind)>) -> FaultPlan {
        faults.into_iter().map(|(at_ms, for_ms, kind)| Fault::at(at_ms, kind).lasting(for_ms)).collect()
    }

    /// The plan of a seed: four to nine faults of the kinds that mean something to the mode.
    pub fn from_seed(seed: u64, mode: Mode) -> FaultPlan {
        let mut draws = Draws::new(seed, 0xFA);
        let count = draws.between(4, 9);
        FaultPlan::drawn(&mut draws, count, mode == Mode::Embedded)
    }

    fn drawn(draws: &mut Draws, count: u64, embedded: bool) -> FaultPlan {
        let (many, few) = kind::drawn(embedded);
        let fault = |_| {
            let bits = draws.bits().to_le_bytes();
            let at_ms = u16::try_from(draws.below(u64::from(LAST_MS))).unwrap_or(0);
            let kinds = if bits[4] < 64 { &few } else { &many };
            let number = kinds[draws.below(kinds.len() as u64) as usize];
            let kind = Kind::drawn(number, bits[2], bits[3]);
            let (long, point) = (u16::from_le_bytes([bits[0], bits[1]]), u16::from_le_bytes([bits[5], bits[6]]));
            Fault::drawn((kind, at_ms, long), point)
        };
        (0..count).map(fault).collect()
    }

    /// Two to six faults of these kinds, as they are, at times up to `until_ms`: for what random plans hardly meet.
    pub fn among(seed: u64, kinds: &[Kind], until_ms: u16) -> FaultPlan {
        let mut draws = Draws::new(seed, 0xFB);
        let count = draws.between(2, 6);
        let fault = |_| {
            let kind = kinds[draws.below(kinds.len() as u64) as usize];
            let at_ms = u16::try_from(draws.below(u64::from(until_ms))).unwrap_or(0);
            let for_ms = u16::try_from(draws.below(u64::from(kind.longest_ms()))).unwrap_or(0);
            let for_ms = if kind.longest_ms() == 0 { 0 } else { for_ms + 5 };
            Fault { when: None, at_ms, for_ms, kind }
        };
        (0..count).map(fault).collect()
    }

    /// Whether coordination is to be restored, so that copies must be kept.
    pub(crate) fn restores(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault.kind, Kind::CoordinationRestored(_)))
    }
}

impl Arbitrary for FaultPlan {
    type Parameters = ();
    type Strategy = AnyFaults;

    /// Up to eight faults of any kind that a topology must survive; shrunk as whole plans: see [`PlanTree`].
    fn arbitrary_with(_: ()) -> AnyFaults {
        AnyFaults
    }
}
